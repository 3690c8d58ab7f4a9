"""From a run to a bundle that scans as torch does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_train import config as configuration
from mag_train import trainer
from mag_train.checkpoint import RunError, load_checkpoint
from mag_train.cli import app
from mag_train.config import Config
from mag_train.export import averaged_annotator, fit_logistic


@pytest.fixture(scope="module")
def run(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few iterations, so that batch norm has statistics worth folding."""
    folder = tmp_path_factory.mktemp("run")
    rules = configuration.load("smoke", ["schedule.epochs=1", "schedule.decay_epochs=0"])
    training = trainer.start(rules, photo_folder, folder / "run")
    training.fit()
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "bundle"
    app(["export", str(run), str(folder), "--weights-licence", "test only"], standalone_mode=False)
    return folder


def test_the_bundle_answers_as_torch_does_on_any_shape(run: Path, exported: Path) -> None:
    state = load_checkpoint(run / "best.pt")
    annotator = averaged_annotator(Config.model_validate(state["config"]), state)
    backend = OnnxRuntimeBackend(bundles.load(exported))
    for shape in ((1, 3, 32, 32), (3, 3, 96, 160)):
        image = np.random.default_rng(0).random(shape, dtype=np.float32) * 2 - 1
        with torch.no_grad():
            expected = annotator(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(backend(image), expected, atol=1e-4)


def test_batch_norm_is_folded_and_nothing_is_kept_outside_the_file(exported: Path) -> None:
    graph = onnx.load(exported / "annotator.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in operators and "Conv" in operators
    assert {path.name for path in exported.iterdir()} == {"bundle.json", "annotator.onnx"}


def test_the_bundle_says_where_it_comes_from(exported: Path) -> None:
    bundle = bundles.load(exported)
    assert bundle.weights_licence == "test only" and bundle.multiple == 32
    assert bundle.training["pictures"] == bundle.training["iterations"] * 4
    assert bundle.training["torch_difference"] <= 1e-4
    assert bundle.training["config"]["seed"] == 1
    assert bundle.calibration.authentic <= bundle.calibration.spliced


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such checkpoint"):
        app(["export", str(tmp_path), str(tmp_path / "out")], standalone_mode=False)


def test_the_logistic_fit_finds_the_odds_it_was_drawn_from() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 20000)
    y = (rng.random(20000) < 1 / (1 + np.exp(-(1.5 * x - 0.7)))).astype(float)
    assert fit_logistic(x, y) == pytest.approx((1.5, -0.7), abs=0.1)


def test_the_logistic_fit_stays_finite_on_separable_data() -> None:
    slope, intercept = fit_logistic(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert 0 < slope < 100 and abs(intercept) < 10
