"""Bundles that mean ill are refused with a line that says what is wrong, and nothing outside of them is touched."""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mag_rt import BundleError, Scanner, bundle
from mag_rt.bundle import Bundle
from tests.conftest import red_is_spliced

BACKENDS = ("onnxruntime", "openvino")


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        bundle.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


# The manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply|not a bundle's manifest"),
        ('{"a":' * 100_000, "nested too deeply|not a bundle's manifest"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"format": ' + "9" * 10_000 + "}", "not a bundle's manifest"),
        (" " * (1 << 20) + "{}", "more than 1 MB"),
        ("\ufeff{}", "lacks 'format'"),
        ("null", "not a bundle's manifest"),
    ],
)
def test_huge_and_deep_manifests(red_model: Path, text: str, message: str) -> None:
    (red_model / "bundle.json").write_text(text, encoding="utf-8")
    refused(red_model, message)


def test_a_manifest_that_is_no_text(red_model: Path) -> None:
    (red_model / "bundle.json").write_bytes(b'{"format": "\xff\xfe"}')
    refused(red_model, "not a bundle's manifest")


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        *[((), "mask_threshold", value) for value in (NAN, INFINITE, -0.1, 1.1, "0.5", True, None, [0.5], 10**400)],
        *[(("calibration",), key, NAN) for key in ("slope", "intercept", "authentic", "spliced")],
        *[(("calibration",), "slope", value) for value in (-INFINITE, 1e308, 1e3)],
        (("calibration",), "intercept", 1e9),
        (("calibration",), "authentic", 0.9),  # above the other threshold
        (("calibration",), "spliced", -1),
        *[(("input",), "multiple", value) for value in (0, -32, 31.5, 1 << 30, NAN, "32")],
        *[(("input",), "max_side", value) for value in (0, -1, 8, 1 << 40, INFINITE, 256.5)],
        *[(("input",), "scale", value) for value in (0, NAN, -1, 1e300)],
        (("input",), "offset", INFINITE),
        *[((), "classes", value) for value in ([], ["person"], "persons", [1] * 10, ["person"] * 10, {}, None)],
        (("output",), "channels", ["mask", "edge"]),
        *[((), "annotator", value) for value in (["edge"], "", "../edge", "/tmp/edge", "a\0b", "a" * 65)],
        *[((), "training", {"hours": value}) for value in (NAN, INFINITE)],
        ((), "weights_licence", 7),
        ((), "training", 7),
        ((), "calibration", []),
        ((), "files", ["annotator.onnx"]),
        ((), "format", None),
    ],
)
def test_absurd_values(red_model: Path, where: tuple[str, ...], key: str, value: Any) -> None:
    def change(manifest: dict[str, Any]) -> None:
        holder = manifest
        for name in where:
            holder = holder[name]
        holder[key] = value

    edit(red_model, change)
    refused(red_model, "not a bundle's manifest")


def test_a_class_that_is_there_twice(red_model: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["classes"][1] = manifest["output"]["channels"][3] = "person"

    edit(red_model, change)
    refused(red_model, "classes and the channels of the output do not agree")


# Its files


def test_tampered_hashes(red_model: Path) -> None:
    for sha256 in ("", "0" * 64, None, 7, {"a": 1}):
        edit(red_model, lambda manifest, sha256=sha256: manifest["files"].update({"annotator.onnx": sha256}))
        refused(red_model, r"annotator\.onnx is damaged")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "annotator.onnx/../../secret", "other.onnx", ""])
def test_names_of_other_files(red_model: Path, name: str) -> None:
    edit(red_model, lambda manifest: manifest["files"].update({name: "0" * 64}))
    refused(red_model, "no file of a bundle")


def test_links_out_of_the_folder(red_model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.move(red_model / "annotator.onnx", outside)
    (red_model / "annotator.onnx").symlink_to(outside)
    refused(red_model, "leads out of the bundle")
    (red_model / "annotator.onnx").unlink()
    (red_model / "annotator.onnx").symlink_to("annotator.onnx")
    refused(red_model, "incomplete|[Ss]ymbolic link|leads out")
    (red_model / "annotator.onnx").unlink()
    shutil.move(outside, red_model / "network")
    (red_model / "annotator.onnx").symlink_to("network")
    assert bundle.load(red_model).network == red_is_spliced()  # inside it may be as it likes
    (tmp_path / "linked").symlink_to(red_model)
    assert bundle.load(tmp_path / "linked").network == red_is_spliced()


@pytest.mark.parametrize("name", ["bundle.json", "annotator.onnx"])
def test_a_pipe_in_place_of_a_file(red_model: Path, name: str) -> None:
    (red_model / name).unlink()
    os.mkfifo(red_model / name)
    refused(red_model, f"{name} is not a regular file")
    (red_model / name).unlink()
    (red_model / name).mkdir()
    refused(red_model, f"{name} is not a regular file")


def test_a_pipe_in_place_of_a_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither")
    refused(Path("/dev/zero"), "neither")


def test_a_network_without_end(red_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundle.MOST_BYTES, "annotator.onnx", 1 << 20)
    with (red_model / "annotator.onnx").open("wb") as file:
        file.truncate(1 << 40)
    refused(red_model, r"annotator\.onnx has more than 1 MB")


# Zip files


def packed(folder: Path, to: Path, prefix: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(to, "w", compression) as archive:
        for path in folder.iterdir():
            archive.writestr(prefix + path.name, path.read_bytes())
    return to


@pytest.mark.parametrize("prefix", ["../../", "/", "a/../../", "C:\\"])
def test_paths_that_lead_out_lead_nowhere(red_model: Path, tmp_path: Path, prefix: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    archive = packed(red_model, tmp_path / "b.zip", prefix)
    with contextlib.suppress(BundleError):
        assert bundle.load(archive).network == red_is_spliced()  # nothing is unpacked
    assert sorted(tmp_path.rglob("*")) == sorted([*before, archive])


def test_members_that_are_there_twice(red_model: Path, tmp_path: Path) -> None:
    for name, message in (("bundle.json", "more than one"), ("annotator.onnx", "more than once")):
        archive = packed(red_model, tmp_path / "b.zip")
        with warnings.catch_warnings(), zipfile.ZipFile(archive, "a") as file:
            warnings.simplefilter("ignore")
            file.writestr(name, (red_model / name).read_bytes())
        refused(archive, message)


def test_bombs(red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundle.MOST_BYTES, "annotator.onnx", 1 << 22)
    for name, message in (("bundle.json", "more than 1 MB"), ("annotator.onnx", "more than 4 MB")):
        before = (red_model / name).read_bytes()
        (red_model / name).write_bytes(bytes(1 << 26))
        archive = packed(red_model, tmp_path / "b.zip", compression=zipfile.ZIP_DEFLATED)
        assert archive.stat().st_size < 1 << 20
        refused(archive, message)
        (red_model / name).write_bytes(before)


def test_damaged_and_locked_zip_files(red_model: Path, tmp_path: Path) -> None:
    data = packed(red_model, tmp_path / "b.zip", compression=zipfile.ZIP_DEFLATED).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.zip").write_bytes(changed)
        try:
            assert bundle.load(tmp_path / "b.zip").network == red_is_spliced()  # it did not matter
        except BundleError as error:
            assert "\n" not in str(error)
    locked = bytearray(data)
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := locked.find(header, at + 1)) >= 0:
            locked[at + flags] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    refused(tmp_path / "b.zip", "encrypted|password")


def test_zip_files_that_python_reads_by_other_libraries(red_model: Path, tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        archive = packed(red_model, tmp_path / "b.zip", compression=compression)
        data = bytearray(archive.read_bytes())
        at = data.find(b"bundle.json") + 40
        data[at : at + 40] = bytes(40)
        archive.write_bytes(data)
        refused(archive, "neither a bundle folder nor a zip file|Invalid data stream")
    data = packed(red_model, archive, prefix="a\u00e9").read_bytes().replace("a\u00e9".encode(), b"a\xff\xfe")
    archive.write_bytes(data)
    refused(archive, "neither a bundle folder nor a zip file|missing")


# The network


def with_network(red_bundle: Bundle, network: bytes, folder: Path) -> Path:
    bundle.save(replace(red_bundle, networks={"float32": network}), folder)
    return folder


def reading_from(file: str, sparse: bool = False) -> bytes:
    """A network whose constant lies in another file."""
    model = onnx.load_from_string(red_is_spliced())
    half = next(each for each in model.graph.initializer if each.name == "half")
    half.ClearField("float_data")
    half.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", "4")):
        entry = half.external_data.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


@pytest.mark.parametrize("file", ["weights.bin", "../weights.bin", "/etc/hostname", "gone"])
def test_a_network_with_data_elsewhere_is_refused_unread(
    red_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Given bytes, OpenVINO reads such files in the working directory."""
    for place in (tmp_path, tmp_path / "in", tmp_path / "red"):
        place.mkdir(exist_ok=True)
        (place / "weights.bin").write_bytes(np.float32(0.5).tobytes())
    monkeypatch.chdir(tmp_path / "in")
    refused(with_network(red_bundle, reading_from(file), tmp_path / "red"), "data outside of the bundle")


def test_however_it_is_encoded(red_bundle: Bundle, tmp_path: Path) -> None:
    """Lengths may be written longer than they need be, which a search for the usual encoding would miss."""
    usual = b"\x0a\x08location"
    network = reading_from("weights.bin")
    assert usual in network
    refused(with_network(red_bundle, network.replace(usual, b"\x0a\x88\x00location"), tmp_path / "red"), "outside")


def another(**changes: Any) -> bytes:
    """The usual network with another output or input name, or number of channels."""
    model = onnx.load_from_string(red_is_spliced())
    if "channels" in changes:
        pads = next(each for each in model.graph.initializer if each.name == "pads")
        pads.int64_data[5] = changes["channels"] - 1
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = changes["channels"]
    if "output" in changes:
        model.graph.node[-1].output[0] = model.graph.output[0].name = changes["output"]
    if "rank" in changes:
        model.graph.node.append(helper.make_node("ReduceMax", ["annotation"], ["flat"], keepdims=0))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, []))
    return model.SerializeToString()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "network",
    [b"", b"\0", b"no network", another(channels=11), another(channels=40), another(output="other"), another(rank=0)],
    ids=["empty", "zero", "text", "too-few-classes", "too-many-classes", "another-name", "a-number"],
)
def test_a_network_that_is_none_of_ours(red_bundle: Bundle, tmp_path: Path, backend: str, network: bytes) -> None:
    if backend == "openvino" and not find_spec("openvino"):  # an import would report its use
        pytest.skip("openvino is not installed")
    folder = with_network(red_bundle, network, tmp_path / "red")
    with pytest.raises(BundleError) as caught:
        Scanner(folder, backend=backend)
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_no_numbers(red_bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load_from_string(red_is_spliced())
    half = next(each for each in model.graph.initializer if each.name == "half")
    half.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(half), np.nan), "half"))
    folder = with_network(red_bundle, model.SerializeToString(), tmp_path / "red")
    with pytest.raises(BundleError, match="no number"):
        Scanner(folder, backend="onnxruntime")


def test_the_hash_of_the_bundle_that_ships_is_that_of_its_network() -> None:
    shipped = bundle.load(bundle.bundled())
    assert shipped.sha256 == hashlib.sha256((bundle.bundled() / "annotator.onnx").read_bytes()).hexdigest()
