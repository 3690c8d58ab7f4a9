"""magrt info tells a person what the model's verdicts are worth and machines what the bundle holds."""

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mag_rt import bundle as bundles
from mag_rt.bundle import Bundle
from mag_rt.info_command import limits
from tests.mag_rt.running import magrt

FACTS = {
    "pictures": 48000,
    "iterations": 6000,
    "hours": 1.5,
    "machine": "a machine",
    "validation_ap": 0.8387,
    "photos_by_class": {**dict.fromkeys(bundles.CLASS_NAMES, 500), "truck": 5, "van": 0},
    "calibration_check": {
        "photos": 261,
        "authentic_called_spliced": 0.0308,
        "authentic_called_authentic": 0.1846,
        "spliced_called_spliced": 0.4462,
        "spliced_called_authentic": 0.1615,
    },
}


def info(*arguments: object) -> subprocess.CompletedProcess[str]:
    return magrt("info", *arguments)


@pytest.fixture
def model(red_bundle: Bundle, tmp_path: Path) -> Path:
    bundles.save(replace(red_bundle, training=FACTS, weights_licence="for [research] only"), tmp_path / "model")
    return tmp_path / "model"


def said(model: Path) -> str:
    done = info("--model", model)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_a_person_reads_what_a_verdict_means_and_how_often_it_is_wrong(model: Path) -> None:
    text = said(model)
    assert "spliced from score 0.70 on, authentic up to 0.30, inconclusive between" in text
    assert "of authentic photos 3.1% are called spliced (false alarms), 18.5% authentic" in text
    assert "of spliced pictures 44.6% are called spliced, 16.2% authentic (missed)" in text
    assert "never called spliced" not in text


def test_a_person_reads_which_pictures_are_too_small_to_be_called_spliced(red_bundle: Bundle, tmp_path: Path) -> None:
    calibration = replace(red_bundle.calibration, small=50_000)
    bundles.save(replace(red_bundle, calibration=calibration), tmp_path / "model")
    assert "pictures of fewer than 50,000 pixels are never called spliced; a JPEG" in said(tmp_path / "model")


def test_a_person_reads_training_licence_and_limits(model: Path) -> None:
    text = said(model)
    assert "48,000 pictures, 6,000 iterations, 1.5 hours on a machine AP 0.839" in text
    assert "of the weights: for [research] only" in text
    assert "no proof" in text and "recompression" in text
    assert "hardly any training photos, whose channels mean little: truck (5), van (0)." in text


def test_fifty_photos_of_a_class_are_not_few(red_bundle: Bundle) -> None:
    photos = {**dict.fromkeys(bundles.CLASS_NAMES, 50), "bus": 49}
    assert limits(replace(red_bundle, training={"photos_by_class": photos}))[-1].endswith("little: bus (49).")


def test_the_files_are_named_with_their_hashes(model: Path) -> None:
    network = (model / "annotator.onnx").read_bytes()
    assert f"annotator.onnx, 0.0 MB, SHA-256 {hashlib.sha256(network).hexdigest()}" in said(model)


def test_machines_get_the_same_in_json(model: Path, red_bundle: Bundle) -> None:
    done = info("--model", model, "--json")
    facts = json.loads(done.stdout)
    assert list(facts) == [
        "schema", "bundle", "ships", "format", "annotator", "multiple", "max_side", "classes", "mask_threshold",
        "calibration", "training", "weights_licence", "networks", "limits",
    ]  # fmt: skip
    assert facts["training"] == FACTS and facts["weights_licence"] == "for [research] only"
    assert (facts["bundle"], facts["ships"], facts["format"]) == (str(model), False, 2)
    (network,) = facts["networks"]
    assert (network["precision"], network["file"]) == ("float32", "annotator.onnx")
    assert (network["bytes"], network["sha256"]) == (len(red_bundle.network), red_bundle.sha256)


def test_the_format_is_that_of_the_bundle_itself(model: Path) -> None:
    manifest = json.loads((model / "bundle.json").read_text())
    (model / "bundle.json").write_text(json.dumps(manifest | {"format": 1}))
    assert json.loads(info("--model", model, "--json").stdout)["format"] == 1
    assert "(bundle format 1)" in said(model)


def test_the_bundle_that_ships_is_the_default_and_says_how_well_it_is_calibrated() -> None:
    facts = json.loads(info("--json").stdout)
    assert facts["ships"] and {each["precision"] for each in facts["networks"]} >= {"float32"}
    printed = info().stdout
    assert "which ships with magrt" in printed and "(false alarms)" in printed and "\x1b" not in printed


def test_what_a_bundle_does_not_record_is_said_to_be_unknown(red_model: Path) -> None:
    text = said(red_model)
    assert "how often that is wrong is not recorded" in text
    assert "training not recorded" in text and "each class is not recorded" in text


@pytest.mark.parametrize(
    "training",
    [
        {"calibration_check": {"photos": "many"}, "hours": None, "machine": ["two"]},
        {"calibration_check": [1], "photos_by_class": {"van": "few"}, "pictures": {}},
        {"hours": 10**400, "pictures": -(10**400), "calibration_check": {"authentic_called_spliced": 10**400}},
        {"photos_by_class": ["many"]},
        {"machine": "\x1b[31mred\x07 \udce9"},
    ],
)
def test_facts_of_any_shape_are_no_reason_to_fail(training: dict[str, Any], red_bundle: Bundle, tmp_path: Path) -> None:
    bundles.save(replace(red_bundle, training=training), tmp_path / "odd")
    done = info("--model", tmp_path / "odd")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert info("--model", tmp_path / "odd", "--json").returncode == 0


def test_a_bundle_that_cannot_be_used_is_one_line_and_exit_2(model: Path, tmp_path: Path) -> None:
    (model / "annotator.onnx").write_bytes(b"tampered")
    for path, reason in ((model, "annotator.onnx is damaged"), (tmp_path / "nowhere", "no such bundle")):
        done = info("--model", path)
        assert done.returncode == 2 and done.stdout == ""
        assert reason in done.stderr and done.stderr.count("\n") == 1
