"""A bundle that is damaged, incomplete or of a newer format is refused with a message that says which."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mag_rt import BundleError, bundle
from mag_rt.bundle import Bundle


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def test_what_was_saved_is_what_is_loaded(red_bundle: Bundle, red_model: Path) -> None:
    assert bundle.load(red_model) == red_bundle


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_zip_of_it_is_a_bundle_too(red_bundle: Bundle, red_model: Path, tmp_path: Path, whole_folder: bool) -> None:
    root, base = (tmp_path, red_model.name) if whole_folder else (red_model, None)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", root, base)
    assert bundle.load(Path(archive)) == red_bundle


def test_a_changed_network_is_damaged(red_model: Path) -> None:
    network = red_model / "annotator.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"annotator\.onnx is damaged"):
        bundle.load(red_model)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_network_in_another_precision_is_kept_and_checked_too(
    red_bundle: Bundle, tmp_path: Path, precision: str
) -> None:
    both = replace(red_bundle, networks={"float32": red_bundle.network, precision: b"other"})
    bundle.save(both, tmp_path)
    assert bundle.load(tmp_path) == both
    (name,) = {path.name for path in tmp_path.iterdir()} - {"bundle.json", "annotator.onnx"}
    (tmp_path / name).write_bytes(b"wrong")
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        bundle.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=f"incomplete: {name} is missing"):
        bundle.load(tmp_path)


@pytest.mark.parametrize("name", ["bundle.json", "annotator.onnx"])
def test_a_missing_file_is_named(red_model: Path, name: str) -> None:
    (red_model / name).unlink()
    with pytest.raises(BundleError, match=f"incomplete: {name} is missing"):
        bundle.load(red_model)


def test_a_manifest_that_does_not_list_the_reference_is_refused(red_model: Path) -> None:
    edit(red_model, lambda manifest: manifest["files"].clear())
    with pytest.raises(BundleError, match=r"bundle\.json lacks 'annotator\.onnx'"):
        bundle.load(red_model)


def test_what_is_saved_takes_the_place_of_the_bundle_before_and_half_of_it_is_none(
    red_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(replace(red_bundle, networks={"float32": red_bundle.network, "int8": b"of before"}), tmp_path)
    bundle.save(red_bundle, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.json", "annotator.onnx"}

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        bundle.save(red_bundle, tmp_path)
    with pytest.raises(BundleError, match=r"incomplete: bundle\.json is missing"):
        bundle.load(tmp_path)


def test_a_newer_format_is_refused(red_model: Path) -> None:
    edit(red_model, lambda manifest: manifest.update(format=bundle.FORMAT + 1))
    with pytest.raises(BundleError, match="newer"):
        bundle.load(red_model)


def test_an_older_format_is_read(red_model: Path) -> None:
    """Format 1 did not ask how large a picture is."""

    def as_format_1(manifest: dict[str, Any]) -> None:
        manifest["format"] = 1
        for key in ("growth", "least_pixels", "most_pixels", "small"):
            del manifest["calibration"][key]

    as_it_was = bundle.load(red_model)
    edit(red_model, as_format_1)
    assert bundle.load(red_model) == replace(as_it_was, format=1) and as_it_was.calibration.growth == 0


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_a_format_that_there_has_never_been_is_refused(red_model: Path, number: float) -> None:
    edit(red_model, lambda manifest: manifest.update(format=number))
    with pytest.raises(BundleError, match="format is not a"):
        bundle.load(red_model)


def test_sizes_that_contradict_each_other_are_refused(red_model: Path) -> None:
    edit(red_model, lambda manifest: manifest["calibration"].update(least_pixels=10, most_pixels=9))
    with pytest.raises(BundleError, match="least_pixels is not a number from 1 to 9"):
        bundle.load(red_model)


@pytest.mark.parametrize("key", ["format", "input", "calibration", "files", "classes"])
def test_a_missing_key_is_named(red_model: Path, key: str) -> None:
    edit(red_model, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=key):
        bundle.load(red_model)


@pytest.mark.parametrize("text", ["", "[]", "{", '"bundle"', '{"format": "one"}', '{"format": 1, "files": 3}'])
def test_a_manifest_of_nonsense_is_refused(red_model: Path, text: str) -> None:
    (red_model / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        bundle.load(red_model)


def test_no_bundle_there(tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(b"not a zip")
    for name in ("nothing", "file.zip"):
        with pytest.raises(BundleError, match=name):
            bundle.load(tmp_path / name)


@pytest.mark.parametrize("name", bundle.SHIPPED)
def test_the_bundles_that_ship_are_sound(name: str) -> None:
    shipped = bundle.load(bundle.bundled(name))
    assert shipped.annotator == name and shipped.multiple == 32 and shipped.classes == bundle.CLASS_NAMES
    assert 0 < shipped.calibration.authentic < shipped.calibration.spliced < 1
    assert set(shipped.networks) == set(bundle.NETWORKS)


def test_a_bundle_that_ships_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless something of that name lies there: whoever made a bundle of their own means it."""
    monkeypatch.chdir(tmp_path)
    assert bundle.located(None) == bundle.located("edge") == bundle.bundled()
    assert bundle.located("thorough") == bundle.located(Path("thorough")) == bundle.bundled("thorough")
    assert bundle.located("elsewhere/thorough") == Path("elsewhere/thorough")
    (tmp_path / "thorough").mkdir()
    assert bundle.located("thorough") == Path("thorough")
    with pytest.raises(BundleError, match="thorogh: no such bundle; edge and thorough ship with magrt"):
        bundle.load(bundle.located("thorogh"))
