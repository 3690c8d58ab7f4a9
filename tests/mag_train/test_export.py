"""From a run to a bundle that scans as torch does."""

import shutil
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from typer import BadParameter

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.engines import EngineError
from mag_rt.errors import SourceError
from mag_train import config as configuration
from mag_train import export as exporting
from mag_train import models, trainer
from mag_train.checkpoint import RunError, load_checkpoint, save_checkpoint
from mag_train.cli import app
from mag_train.config import Config
from mag_train.data.photos import labelled_photos
from mag_train.export import MEASURED_AT_EXPORT, averaged_annotator, bundle_of_run, calibrated_anew, retoucher_of_run
from mag_train.models import Mag
from mag_train.models.compositing import attention_blend
from mag_train.models.folding import folded, rounded, tempered
from mag_train.warm_start import slope_of, weights_of


@pytest.fixture(scope="module")
def run(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few iterations, so that batch norm has statistics worth folding."""
    folder = tmp_path_factory.mktemp("run")
    rules = configuration.load("smoke", ["schedule.epochs=1", "schedule.decay_epochs=0", "schedule.adversary_from=0"])
    training = trainer.start(rules, photo_folder, folder / "run")
    training.fit()
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "bundle"
    options = ["--weights-licence", "test only", "--with", "retoucher"]
    app(["export", str(run), str(folder), *options], standalone_mode=False)
    return folder


def test_the_bundle_answers_as_torch_does_on_any_shape(run: Path, exported: Path) -> None:
    """As the averaged network does, but for the mask, which is as much softer as the bundle says."""
    state = load_checkpoint(run / "best.pt")
    given = bundles.load(exported)
    average = AveragedModel(models.annotator(Config.model_validate(state["config"]).model), use_buffers=True)
    average.load_state_dict(state["average"])
    annotator = tempered(average.module.eval(), slope_of(given))
    backend = OnnxRuntimeBackend(given).probabilities
    for shape in ((1, 3, 32, 32), (3, 3, 96, 160)):
        image = np.random.default_rng(0).random(shape, dtype=np.float32) * 2 - 1
        with torch.no_grad():
            expected = annotator(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(backend(image), expected, atol=1e-4)


def test_batch_norm_is_folded_and_nothing_is_kept_outside_the_file(exported: Path) -> None:
    graph = onnx.load(exported / "annotator.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in operators and "Conv" in operators
    assert {path.name for path in exported.iterdir()} == {"bundle.json", "annotator.onnx", "annotator.fp16.onnx"}


def test_a_bundle_does_not_show_the_folders_of_who_exported_it(exported: Path) -> None:
    here = str(Path(models.__file__).parent).encode(), str(Path(torch.__file__).parent).encode()
    files = [path.read_bytes() for path in [*exported.iterdir(), exported.with_name("bundle.retoucher.onnx")]]
    assert not any(folder in file for folder in here for file in files)


def test_a_bundle_packs_well_since_its_weights_are_those_of_float16(exported: Path) -> None:
    network = (exported / "annotator.onnx").read_bytes()
    assert len(zlib.compress(network)) < 0.65 * len(network)
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(network).graph.initializer]
    large = [each for each in weights if each.dtype == np.float32 and each.ndim == 4 and each.shape[1] > 3]
    assert len(large) > 20 and all((each == each.astype(np.float16)).all() for each in large)


def test_the_bundle_says_where_it_comes_from(exported: Path) -> None:
    bundle = bundles.load(exported)
    assert bundle.weights_licence == "test only" and bundle.multiple == 32
    assert bundle.training["pictures"] == bundle.training["iterations"] * 4
    assert bundle.training["torch_difference"] <= 1e-4
    assert 0 < bundle.training["float16_difference"]["probability"] <= 0.03
    assert bundle.training["config"]["seed"] == 1
    shown = bundle.training["photos_by_class"]
    assert list(shown) == list(bundles.CLASS_NAMES) and sum(shown.values()) > 0
    assert bundle.calibration.authentic <= bundle.calibration.spliced


def test_a_run_is_averaged_with_what_it_started_from_and_does_not_claim_its_own_validation(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    options = ["--weights-licence", "test only", "--average-with", str(bundles.bundled())]
    app(["export", str(run), str(tmp_path / "mean"), *options], standalone_mode=False)
    alone, mean, shipped = bundles.load(exported), bundles.load(tmp_path / "mean"), bundles.load(bundles.bundled())
    assert mean.training["averaged_with"] == shipped.sha256
    assert "validation_ap" in alone.training and "validation_ap" not in mean.training
    state = load_checkpoint(run / "best.pt")
    own = folded(averaged_annotator(Config.model_validate(state["config"]), state)).state_dict()
    given, theirs = weights_of(mean), weights_of(shipped)
    for name in ("head.weight", "head.bias"):  # both masks as sure as they were trained
        theirs[name][:4] /= slope_of(shipped)
        given[name][:4] /= slope_of(mean)
    for name in own.keys() & given.keys():
        torch.testing.assert_close(given[name], (own[name] + theirs[name]) / 2, rtol=2e-3, atol=1e-6, msg=name)


def test_a_run_is_calibrated_on_what_it_has_held_out_or_on_other_photos(
    run: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its own photos are named by --data: on those that it was trained on it is too sure."""
    calibrated_on: list[list[str]] = []
    monkeypatch.setattr(
        exporting,
        "_calibrated",
        lambda _annotator, _draft, photos: calibrated_on.append([p.image.name for p in photos]),
    )
    other = shutil.copytree(photo_folder, tmp_path / "other")
    for data in (None, photo_folder, other):
        bundle_of_run(run, data, "test only")
    assert calibrated_on == [["00.jpg"], ["00.jpg"], [f"{number:02d}.jpg" for number in range(12)]]


def test_what_was_measured_of_other_networks_is_not_kept(
    exported: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are these networks: the int8 one of a mask that was softer says something else."""
    given = bundles.load(exported)
    facts = {**given.training, **dict.fromkeys(MEASURED_AT_EXPORT, "old")}
    bundles.save(replace(given, networks={**given.networks, "int8": given.network}, training=facts), tmp_path / "old")
    monkeypatch.setattr(exporting, "_calibrated", lambda _annotator, draft, _photos: draft)
    draft = calibrated_anew(tmp_path / "old", photo_folder)
    assert not draft.networks and draft.training["pictures"] == given.training["pictures"]
    assert "old" not in draft.training.values()


def test_a_network_on_which_onnx_and_torch_disagree_is_not_written(
    run: Path, exported: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_checkpoint(run / "best.pt")
    annotator, given = averaged_annotator(Config.model_validate(state["config"]), state), bundles.load(exported)
    right, factors = rounded(tempered(annotator, slope_of(given))), iter([1.0, float("nan")])
    for network in (tempered(annotator, 0.1), lambda image: right(image) * next(factors)):  # NaN on the second photo
        with pytest.raises(RunError, match="ONNX Runtime differs from torch"):
            exporting._disagreement(network, given, labelled_photos(photo_folder)[:2])
    written = exported.with_name("bundle.retoucher.onnx").read_bytes()
    monkeypatch.setattr(exporting, "to_onnx", lambda *_, **__: written)
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", 0.0)
    with pytest.raises(RunError, match=r"differs from torch by .* on the retoucher"):
        retoucher_of_run(run)


def test_a_run_of_the_mask_alone_is_averaged_with_the_bundle_of_all_tasks_that_it_started_from(
    exported: Path, photo_folder: Path, tmp_path: Path
) -> None:
    rules = configuration.load("smoke", ["model.tasks=mask", "model.retoucher=none", "schedule.epochs=1"])
    trainer.start(rules, photo_folder, tmp_path / "run", warm=exported)
    app(
        ["export", str(tmp_path / "run"), str(tmp_path / "mean"), "--average-with", str(exported)],
        standalone_mode=False,
    )
    assert bundles.load(tmp_path / "mean").training["averaged_with"] == bundles.load(exported).sha256


def test_a_bundle_is_calibrated_anew_without_its_run(exported: Path, photo_folder: Path, tmp_path: Path) -> None:
    """Else a newsroom could not have the verdicts of its own photos, nor an old bundle the float16 network."""
    before = bundles.load(exported)
    calibration = replace(before.calibration, slope=0.1, intercept=0.0)
    old = replace(before, networks={"float32": before.network}, calibration=calibration)
    bundles.save(old, tmp_path / "old")
    arguments = ["--data", str(photo_folder), "--int8", str(photo_folder / "images")]
    app(["export", str(tmp_path / "old"), str(tmp_path / "new"), *arguments], standalone_mode=False)
    after = bundles.load(tmp_path / "new")
    assert set(after.networks) == {"float32", "float16", "int8"}
    assert after.calibration.slope != pytest.approx(0.1)
    assert 0 <= after.training["calibration_check"]["authentic_called_spliced"] <= 1
    assert after.training["pictures"] == before.training["pictures"]
    again = slope_of(before) / slope_of(after)  # both are of the weights as they were trained
    image = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32) * 2 - 1
    mask, mask_before = (OnnxRuntimeBackend(each).probabilities(image)[:, 0] for each in (after, before))
    logits, logits_before = (np.log(each / (1 - each)) for each in (mask, mask_before))
    np.testing.assert_allclose(logits * again, logits_before, atol=0.02)


def test_a_thorough_bundle_is_the_mean_of_four_readings_by_the_same_weights(
    run: Path, exported: Path, photo_folder: Path, tmp_path: Path
) -> None:
    """Of a run as of a bundle, in every precision, and training can go on from it."""
    of_run = bundle_of_run(run, photo_folder, "test only", thorough=True)
    arguments = ["--thorough", "--data", str(photo_folder), "--int8", str(photo_folder / "images")]
    app(["export", str(exported), str(tmp_path / "thorough"), *arguments], standalone_mode=False)
    of_bundle = bundles.load(tmp_path / "thorough")
    assert of_bundle.networks.keys() == {"float32", "float16", "int8"}
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    for given, precision, near in ((of_run, "float32", 1e-3), (of_bundle, "float32", 1e-3), (of_bundle, "int8", 0.1)):
        edge = tempered(averaged_annotator(*_settings_and_state(run)), slope_of(given))
        with torch.no_grad():
            expected = torch.stack([edge(image.flip(way)).flip(way) for way in ([], [2], [3], [2, 3])]).mean(dim=0)
        said = OnnxRuntimeBackend(given, precision).probabilities(image.numpy())
        np.testing.assert_allclose(said, expected, atol=near)
        assert given.annotator == "thorough" and len(given.network) < 1.05 * len(bundles.load(exported).network)
    rules = configuration.load("smoke", ["schedule.epochs=1"])
    assert trainer.start(rules, photo_folder, tmp_path / "more", warm=tmp_path / "thorough").mag.annotator.training


def _settings_and_state(run: Path) -> tuple[Config, dict[str, Any]]:
    state = load_checkpoint(run / "best.pt")
    return Config.model_validate(state["config"]), state


def test_only_the_edge_annotator_has_a_thorough_form(exported: Path, photo_folder: Path, tmp_path: Path) -> None:
    bundles.save(replace(bundles.load(exported), annotator="paper"), tmp_path / "paper")
    with pytest.raises(RunError, match="the paper annotator has no thorough form; edge has"):
        calibrated_anew(tmp_path / "paper", photo_folder, thorough=True)


def test_a_bundle_of_another_network_cannot_be_calibrated_anew(
    exported: Path, photo_folder: Path, tmp_path: Path
) -> None:
    bundles.save(replace(bundles.load(exported), annotator="theirs"), tmp_path / "theirs")
    with pytest.raises(RunError, match="'theirs' is not known; there are paper, edge"):
        calibrated_anew(tmp_path / "theirs", photo_folder)


def test_a_bundle_has_no_photos_to_be_checked_on_and_nothing_that_a_run_has(
    exported: Path, photo_folder: Path, tmp_path: Path
) -> None:
    photos = ["--data", str(tmp_path)]
    for words in (
        [exported],
        [exported.with_suffix(".zip")],
        [exported, "--int8", str(photo_folder / "images"), "--thorough"],
        [exported, *photos, "--with", "retoucher"],
        [exported, *photos, "--average-with", exported],
        [exported, *photos, "--weights-licence", "any use"],
    ):
        with pytest.raises(BadParameter, match="name some by --data"):
            app(["export", *map(str, words), str(tmp_path / "new")], standalone_mode=False)


def test_photos_that_are_not_there_are_said_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "bundle_of_run", lambda *_: pytest.fail("the work had begun"))
    with pytest.raises(SourceError, match="nowhere"):
        app(["export", str(run), str(tmp_path / "new"), "--int8", str(tmp_path / "nowhere")], standalone_mode=False)


def test_the_retoucher_goes_beside_the_bundle_and_gives_what_eq_1_takes(run: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported.with_name("bundle.retoucher.onnx"))
    state = load_checkpoint(run / "best.pt")
    networks = Mag(Config.model_validate(state["config"]).model)
    networks.load_state_dict(state["networks"])
    retoucher = networks.retoucher.eval()
    side = retoucher.side_multiple
    image = np.random.default_rng(0).random((2, 3, side, 2 * side), dtype=np.float32) * 2 - 1
    given = torch.from_numpy(session.run(["retouched"], {"image": image})[0])
    with torch.no_grad():
        expected = retoucher(torch.from_numpy(image)).image
    blended = attention_blend(given[:, :3], given[:, 3:], torch.from_numpy(image))
    np.testing.assert_allclose(blended, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("schedule.adversary_from=1", "the retoucher never joined"), ("model.retoucher=none", "without a retoucher")],
)
def test_a_retoucher_that_hides_nothing_is_refused_before_anything_is_written(
    setting: str, said: str, photo_folder: Path, tmp_path: Path
) -> None:
    trainer.start(configuration.load("smoke", ["schedule.epochs=1", setting]), photo_folder, tmp_path / "run").fit()
    with pytest.raises(RunError, match=said):
        app(["export", str(tmp_path / "run"), str(tmp_path / "bundle"), "--with", "retoucher"], standalone_mode=False)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_retoucher_that_joined_after_the_best_epoch_is_the_last_one(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    best = {**last, "networks": {name: each * 0 for name, each in last["networks"].items()}}
    best["optimisers"] = {**last["optimisers"], "retoucher": {**last["optimisers"]["retoucher"], "state": {}}}
    save_checkpoint(best, tmp_path / "run" / "best.pt")
    assert retoucher_of_run(tmp_path / "run") == retoucher_of_run(run / "last.pt")
    with pytest.raises(RunError, match="never joined"):
        retoucher_of_run(tmp_path / "run" / "best.pt")


def test_without_tensorrt_the_bundle_is_complete_and_a_line_says_what_to_install(
    exported: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, library, None)
    arguments = ["export", str(exported), str(tmp_path / "bundle"), "--data", str(photo_folder), "--engine", "fp16"]
    with pytest.raises(EngineError, match="is not installed: pip install"):
        app(arguments, standalone_mode=False)
    written, before = bundles.load(tmp_path / "bundle"), bundles.load(exported)
    assert written.networks.keys() == before.networks.keys() and written.training["float16_difference"]


@pytest.mark.usefixtures("without_pycuda")
def test_an_engine_comes_in_the_same_go(
    exported: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (Linux on x86-64 has it)")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["export", str(exported), str(tmp_path / "bundle"), "--data", str(photo_folder), "--engine", "fp16"]
    app(arguments, standalone_mode=False)
    assert len(list((tmp_path / "cache").rglob("*float16*.engine"))) == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such checkpoint"):
        app(["export", str(tmp_path), str(tmp_path / "out")], standalone_mode=False)


def test_a_bundle_that_cannot_be_written_is_refused_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mag_train.export.bundle_of_run")
    (tmp_path / "bundle.zip").touch()
    with pytest.raises(ValueError, match=r"bundle\.zip is a file; name the folder"):
        app(["export", str(run), str(tmp_path / "bundle.zip")], standalone_mode=False)


def test_an_export_that_fails_leaves_the_bundle_that_was_there(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(exported, out)

    def full(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr("mag_train.export.with_float16", full)
    with pytest.raises(RunError, match="disk is full"):
        app(["export", str(run), str(out)], standalone_mode=False)
    assert bundles.load(out) == bundles.load(exported)
