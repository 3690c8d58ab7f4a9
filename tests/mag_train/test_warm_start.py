"""Training that starts from a model goes on from what the model does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_train import config as configuration
from mag_train import trainer
from mag_train.checkpoint import RunError, load_checkpoint, trained_so_far
from mag_train.cli import app
from mag_train.models.annotator import Annotator, EdgeAnnotator, PaperAnnotator
from mag_train.models.folding import folded, midway, rounded, tempered, unfold
from mag_train.warm_start import averaged_weights, slope_of

SHORT = ["schedule.epochs=1", "schedule.decay_epochs=0", "data.spliced=2"]


def seasoned() -> EdgeAnnotator:
    """An annotator whose batch norms have seen something."""
    torch.manual_seed(0)
    network = EdgeAnnotator()
    with torch.no_grad():
        for _ in range(10):
            network(torch.rand(2, 3, 64, 64) * 2 - 1)
    return network.eval()


def test_unfolding_gives_back_what_folding_took() -> None:
    taught, learner = seasoned(), EdgeAnnotator()
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    unfold(learner, folded(taught).state_dict(), images)
    other = torch.rand(2, 3, 96, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(learner.eval()(other), taught(other), atol=1e-5, rtol=1e-4)


def test_midway_lies_in_the_middle_of_both() -> None:
    one, other = seasoned(), seasoned()
    for each in other.parameters():
        each.data.mul_(1.1)
    mean = midway(one, folded(other).state_dict())
    for name, weight in mean.state_dict().items():
        both = [folded(each).state_dict()[name] for each in (one, other)]
        torch.testing.assert_close(weight, (both[0] + both[1]) / 2)
    assert not mean.training and one.state_dict().keys() != mean.state_dict().keys()  # a copy, without batch norm


def test_rounded_weights_are_float16s_and_their_filters_still_sum_to_zero() -> None:
    network = seasoned()
    short = rounded(network)
    for name, weight in short.named_parameters():
        assert torch.equal(weight, weight.half().float()) and weight.dtype == torch.float32
        torch.testing.assert_close(weight, folded(network).state_dict()[name], rtol=2**-11, atol=1e-7)
    high_pass = short.noise.strided()[12:]
    assert high_pass.sum(dim=(2, 3)).abs().max() < 1e-6 < high_pass.abs().max()
    image = torch.rand(1, 3, 96, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(short(image), network(image), atol=2e-3, rtol=0)


@pytest.mark.parametrize("network", [EdgeAnnotator, PaperAnnotator])
def test_tempering_makes_the_mask_softer_and_nothing_else(network: type[Annotator]) -> None:
    torch.manual_seed(0)
    annotator = network().eval()
    image = torch.rand(1, 3, annotator.side_multiple, annotator.side_multiple) * 2 - 1
    with torch.no_grad():
        before, after = annotator(image), tempered(annotator, 0.5)(image)
    torch.testing.assert_close(torch.logit(after[:, 0]), 0.5 * torch.logit(before[:, 0]), atol=1e-4, rtol=1e-4)
    assert torch.equal(after[:, 1:], before[:, 1:])


def test_unfolded_batch_norm_has_the_statistics_of_the_pictures() -> None:
    """So that the first training iterations see what evaluation sees, and nothing jumps."""
    learner = EdgeAnnotator()
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    unfold(learner, folded(seasoned()).state_dict(), images)
    with torch.no_grad():
        torch.testing.assert_close(learner.train()(images), learner.eval()(images), atol=5e-3, rtol=0)


def shipped_as_trained(image: torch.Tensor) -> torch.Tensor:
    """What the bundle that ships says of an image, its mask as sure as before it was calibrated."""
    given = bundles.load(bundles.bundled())
    annotation = torch.from_numpy(OnnxRuntimeBackend(given).probabilities(image.numpy()))
    assert slope_of(given) < 1
    annotation[:, 0] = torch.sigmoid(torch.logit(annotation[:, 0]) / slope_of(given))
    return annotation


def test_a_run_starts_from_the_bundle_that_ships(photo_folder: Path, tmp_path: Path) -> None:
    rules = configuration.load("smoke", SHORT)
    run = trainer.start(rules, photo_folder, tmp_path / "run", warm=bundles.bundled())
    assert run.mag.annotator.training  # else its batch norms would never learn again
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(run.average.eval()(image), shipped_as_trained(image), atol=1e-4, rtol=0)
        torch.testing.assert_close(run.mag.annotator.eval()(image), shipped_as_trained(image), atol=1e-4, rtol=0)


def test_a_run_starts_from_another_run(photo_folder: Path, tmp_path: Path) -> None:
    rules = configuration.load("smoke", SHORT)
    trainer.start(rules, photo_folder, tmp_path / "first").fit()
    second = trainer.start(rules, photo_folder, tmp_path / "second", warm=tmp_path / "first")
    theirs = averaged_weights(load_checkpoint(tmp_path / "first" / "best.pt"))
    assert all(torch.equal(theirs[name], each) for name, each in second.mag.annotator.state_dict().items())


def test_what_a_model_was_trained_on_before_is_counted(photo_folder: Path, tmp_path: Path) -> None:
    """Else a bundle would say of weights that saw a hundred thousand pictures that they saw the last thousand."""
    rules = configuration.load("smoke", [*SHORT, "optim.accumulate=2"])
    each = 2 * (rules.data.spliced + rules.data.authentic)
    shipped = bundles.load(bundles.bundled()).training
    trainer.start(rules, photo_folder, tmp_path / "first", warm=bundles.bundled()).fit()
    first = load_checkpoint(tmp_path / "first/last.pt")
    assert first["pictures"] == each * first["iteration"] > 0
    assert trained_so_far(first)["pictures"] == shipped["pictures"] + first["pictures"]
    second = trainer.start(rules, photo_folder, tmp_path / "second", warm=tmp_path / "first/last.pt")
    assert second.before == trained_so_far(first)
    assert trainer.resume(tmp_path / "second", None, []).before == second.before


def test_what_a_bundle_says_of_its_training_may_be_anything(photo_folder: Path, tmp_path: Path) -> None:
    shipped = bundles.load(bundles.bundled())
    odd = replace(
        shipped, training={"pictures": "many", "iterations": None, "hours": 2}, networks={"float32": shipped.network}
    )
    bundles.save(odd, tmp_path / "odd")
    run = trainer.start(configuration.load("smoke", SHORT), photo_folder, tmp_path / "run", warm=tmp_path / "odd")
    assert run.before == {"hours": 2}


@pytest.mark.parametrize(("said", "slope"), [(0.5, 0.5), (1, 1), (0, 1), (-0.5, 1), (7, 1), ("soft", 1), (None, 1)])
def test_a_slope_that_makes_no_sense_is_none(said: object, slope: float) -> None:
    assert slope_of(replace(bundles.load(bundles.bundled()), training={"mask_slope": said})) == slope


def test_a_checkpoint_that_did_not_count_is_one_line(tmp_path: Path) -> None:
    torch.save({"iteration": 3}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="another version"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("shipped", [True, False], ids=["bundle", "checkpoint"])
def test_an_annotator_of_the_mask_alone_starts_from_one_of_all_tasks(
    shipped: bool, photo_folder: Path, tmp_path: Path
) -> None:
    """So that the paper's ablation "single-task" can begin where full MAG begins."""
    model = bundles.bundled()
    if not shipped:
        model = tmp_path / "first"
        trainer.start(configuration.load("smoke", SHORT), photo_folder, model, warm=bundles.bundled())
        model = model / "last.pt"
    rules = configuration.load("smoke", [*SHORT, "model.tasks=mask"])
    run = trainer.start(rules, photo_folder, tmp_path / "run", warm=model)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        annotation = run.mag.annotator.eval()(image)
    torch.testing.assert_close(annotation[:, :1], shipped_as_trained(image)[:, :1], atol=1e-4, rtol=0)
    assert not annotation[:, 1:].any()


def test_another_annotator_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    trainer.start(configuration.load("smoke", [*SHORT, "model.tasks=mask"]), photo_folder, tmp_path / "mask")
    with pytest.raises(RunError, match=r"not the weights of this run's annotator"):
        trainer.start(
            configuration.load("smoke", SHORT), photo_folder, tmp_path / "run", warm=tmp_path / "mask/last.pt"
        )
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_none_is_said(photo_folder: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--preset", "smoke", "--data", str(photo_folder), "--out", str(tmp_path / "run")]
    with pytest.raises(Exception, match="nowhere"):
        app([*arguments, "--start-from", str(tmp_path / "nowhere")], standalone_mode=False)
