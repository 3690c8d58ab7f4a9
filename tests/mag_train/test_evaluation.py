"""Known splices through a network whose answer is known: the numbers of the table are those worked out by hand."""

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import typer
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.optim.swa_utils import AveragedModel

from mag_rt import Scanner
from mag_rt import bundle as bundles
from mag_rt.backends.choice import choose
from mag_rt.bundle import Bundle
from mag_train import config
from mag_train.checkpoint import save_checkpoint
from mag_train.data.tampered import Tampered, read
from mag_train.degradations import as_jpeg, degradation
from mag_train.evaluate_command import PAPER_TABLE, as_markdown, evaluate, paper_column, terminal
from mag_train.evaluation import (
    Answer,
    Method,
    Protocol,
    Result,
    Row,
    error_level,
    load_model,
    methods,
    native,
    paper,
    summarise,
)
from mag_train.evaluation import evaluate as measured
from mag_train.models.annotator import ANNOTATORS
from tests.conftest import grey_with_red_box, save, small_unet

app = typer.Typer()
app.command()(evaluate)


def run(*arguments: object) -> None:
    app([str(each) for each in arguments], standalone_mode=False)


def white_box(height: int, width: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    left, top, w, h = box
    mask[top : top + h, left : left + w] = 255
    return mask


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two pictures of 64 x 64: red where spliced; red from row 8 to 24, spliced from row 0 to 16. One authentic."""
    folder = tmp_path / "mine"
    for name, red in (("exact", 0), ("shifted", 8)):
        save(folder / "images" / f"{name}.png", grey_with_red_box(64, 64, (0, red, 64, 16)))
        save(folder / "masks" / f"{name}.png", white_box(64, 64, (0, 0, 64, 16)))
    save(folder / "authentic" / "grey.png", grey_with_red_box(64, 64))
    return folder


SHIFTED = {
    "AP": 0.5 * 0.5 + 0.5 * 0.25,  # half of the splice at precision 1/2, the rest with everything
    "cIoU": (8 / 24 + 40 / 56) / 2,
    "F1@0.5": 0.5,
    "best F1": 0.5,
}
"""What the red network gets on the shifted picture."""


def results(folder: Path, model: Path, protocol: Protocol = "native") -> list[Result]:
    return list(measured(read("pair", folder), methods([load_model(model)], protocol), protocol))


def test_the_numbers_of_each_picture_are_those_worked_out_by_hand(pair: Path, red_model: Path) -> None:
    exact, shifted, grey = results(pair, red_model)
    red = str(red_model)
    assert set(exact.metrics[red].values()) == {1.0}
    assert {name: shifted.metrics[red][name] for name in SHIFTED} == pytest.approx(SHIFTED)
    assert shifted.metrics["constant map"]["AP"] == 0.25 and "F1@0.5" not in shifted.metrics["constant map"]
    assert exact.flagged == {red: True} and grey.flagged == {red: False}
    assert grey.scores[red] < 0.3 < 0.7 < exact.scores[red] and not grey.metrics


def test_rows_are_means_over_tampered_pictures_against_the_authentic_ones(pair: Path, red_model: Path) -> None:
    ways = methods([load_model(red_model)], "native")
    red, ela, constant = summarise(results(pair, red_model), ways)
    assert (red.dataset, red.kind, red.tampered, red.authentic) == ("mine", "tampered", 2, 1)
    for name, value in SHIFTED.items():
        assert red.metrics[name].mean == pytest.approx((1 + value) / 2)
        assert red.metrics[name].low == pytest.approx(value) and red.metrics[name].high == pytest.approx(1.0)
    assert (red.auc, red.flagged) == (1.0, 0.0)
    assert (ela.method, constant.method) == ("error level analysis", "constant map")
    assert constant.metrics["AP"].mean == 0.25 and constant.auc is None and constant.flagged is None


def test_kinds_have_their_own_rows_against_all_authentic_pictures() -> None:
    def result(kind: str, score: float) -> Result:
        mask = None if kind == "authentic" else Path("mask")
        metrics = {} if mask is None else {"m": {"AP": score}}
        return Result(Tampered(Path(f"{score}"), mask, "set", kind), "none", metrics, {"m": score}, {"m": score > 0.5})

    every = [result("spliced", 0.9), result("copymove", 0.3), result("spliced", 0.2)]
    every += [result("authentic", score) for score in (0.1, 0.2, 0.6)]
    way = Method("m", lambda _: Answer(np.zeros((1, 1), np.float32)), judges=True)
    spliced, copymove = summarise(every, [way])
    assert (spliced.kind, spliced.tampered, spliced.authentic) == ("spliced", 2, 3)
    assert spliced.auc == pytest.approx(roc_auc_score([1, 1, 0, 0, 0], [0.9, 0.2, 0.1, 0.2, 0.6]))
    assert (copymove.kind, copymove.tampered, copymove.metrics["AP"].mean) == ("copymove", 1, 0.3)
    assert spliced.flagged == copymove.flagged == pytest.approx(1 / 3)
    (alone,) = summarise(every[3:], [way])
    assert (alone.kind, alone.tampered, alone.auc, alone.metrics) == ("authentic", 0, None, {})


@pytest.mark.parametrize("shape", [(60, 75), (64, 96), (333, 500)])  # padded; as it is; shrunk to 256 and padded
def test_native_is_what_the_scanner_does(red_model: Path, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    answer = native(load_model(red_model), picture)
    with Scanner(red_model) as scanner:
        finding = scanner.scan_image(picture)
    assert finding.probability is not None
    np.testing.assert_allclose(answer.map, finding.probability, atol=1 / 255)  # which was enlarged in grey levels
    assert answer.score == finding.score and answer.flagged == (finding.verdict == "spliced")


def test_the_papers_protocol_stretches_picture_and_mask_to_512(tmp_path: Path, red_model: Path) -> None:
    box = (0, 0, 512, 256)
    for size in (1024, 128):  # shrunk and enlarged
        scaled = tuple(side * size // 1024 for side in box)
        picture = grey_with_red_box(size, size // 2, scaled)  # type: ignore[arg-type]
        answer = paper(load_model(red_model), picture)
        expected = np.zeros((512, 512), bool)
        expected[:128] = True
        assert answer.map.shape == (512, 512) and (answer.map > 0.5)[expected].mean() > 0.99
        assert not (answer.map > 0.5)[140:].any()
        save(tmp_path / "images" / f"{size}.png", picture)
        save(tmp_path / "masks" / f"{size}.png", white_box(size, size // 2, scaled))  # type: ignore[arg-type]
    for result in results(tmp_path, red_model, "paper"):
        assert result.metrics[str(red_model)]["AP"] > 0.99
        assert result.metrics["constant map"]["AP"] == 0.25  # at 512x512 as well
        assert result.metrics["error level analysis"]["AP"] > 0


def test_the_papers_protocol_averages_what_it_shrinks_and_enlarges_by_cubics(red_model: Path) -> None:
    model, rng = load_model(red_model), np.random.default_rng(0)
    large = rng.integers(0, 256, (1536, 1536, 3), dtype=np.uint8)
    means = large[..., 2].reshape(512, 3, 512, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(paper(model, large).map, means, atol=0.005)  # a grey level
    small = rng.integers(0, 256, (96, 64, 3), dtype=np.uint8)
    cubic = cv2.resize(small[..., 2], (512, 512), interpolation=cv2.INTER_CUBIC) / 255
    np.testing.assert_allclose(paper(model, small).map, cubic, atol=0.005)


def test_maps_and_masks_meet_at_512_in_the_papers_protocol_and_at_the_pictures_size_in_the_products(
    tmp_path: Path, red_model: Path
) -> None:
    size = 1030
    save(tmp_path / "images" / "speck.png", grey_with_red_box(size, size))
    save(tmp_path / "masks" / "speck.png", white_box(size, size, (0, 0, 1, 1)))  # which 512 x 512 pixels step over
    (native_one,) = results(tmp_path, red_model)
    (paper_one,) = results(tmp_path, red_model, "paper")
    assert native_one.metrics["constant map"]["AP"] == pytest.approx(1 / size**2)
    assert paper_one.skipped == "splice lost" and not paper_one.metrics
    for protocol, shape in (("native", (size, size)), ("paper", (512, 512))):
        (way, *_) = methods([load_model(red_model)], protocol)
        assert way.answer(grey_with_red_box(size, size)).map.shape == shape


def test_a_pixel_counts_at_a_probability_of_one_half_for_f1(pair: Path, red_model: Path) -> None:
    picture = grey_with_red_box(64, 64, (0, 0, 64, 16))
    picture[32:40] = (90, 90, 122)  # red is .48 of what it can be
    picture[:8] = (90, 90, 132)  # and .52
    save(pair / "images" / "exact.png", picture)
    assert results(pair, red_model)[0].metrics[str(red_model)]["F1@0.5"] == 1.0


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The folder of a run as `fit` leaves it, as far as its annotator goes."""
    rules = config.load("smoke", [])
    torch.manual_seed(0)
    average = AveragedModel(ANNOTATORS[rules.model.annotator](), use_buffers=True)
    folder = tmp_path / "run"
    folder.mkdir()
    state = {"config": rules.model_dump(mode="json"), "before": {}, "average": average.state_dict()}
    save_checkpoint(state, folder / "last.pt")
    return folder


def test_a_run_and_its_checkpoint_are_one_model_without_a_verdict(pair: Path, checkpoint: Path) -> None:
    folder, file = results(pair, checkpoint), results(pair, checkpoint / "last.pt")
    for one, other in zip(folder, file, strict=True):
        assert one.metrics.get(str(checkpoint)) == other.metrics.get(str(checkpoint / "last.pt"))
        assert not one.scores and not one.flagged
    assert load_model(checkpoint).multiple == 32


def test_a_bare_network_is_scored_as_its_bundle(pair: Path, red_model: Path, red_bundle: Bundle) -> None:
    network = pair / "red.onnx"
    network.write_bytes(red_bundle.network)
    bare, bundle = results(pair, network), results(pair, red_model)
    assert [each.metrics.get(str(network)) for each in bare] == [each.metrics.get(str(red_model)) for each in bundle]
    assert not bare[0].scores


def test_a_zipped_bundle_is_the_bundle(pair: Path, red_model: Path) -> None:
    zipped = Path(shutil.make_archive(str(red_model), "zip", red_model))
    for one, other in zip(results(pair, zipped), results(pair, red_model), strict=True):
        assert one.metrics.get(str(zipped)) == other.metrics.get(str(red_model))


def test_the_int8_network_is_measured_where_it_is_asked_for(
    pair: Path, red_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = replace(red_bundle, networks={**red_bundle.networks, "int8": small_unet()})
    bundles.save(both, tmp_path / "both")
    model = load_model(tmp_path / "both", "int8")
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32) * 2 - 1
    expected = choose(both, precision="int8").backend(image) / 255
    np.testing.assert_allclose(model.run(image), expected, atol=1e-6)
    assert np.abs(load_model(tmp_path / "both").run(image) - expected).max() > 0.1
    run(tmp_path / "both", "--dataset", f"pair:{pair}", "--precision", "int8")
    assert model.name.startswith(f"{tmp_path / 'both'} (int8, ") and model.name in capsys.readouterr().out


def test_a_network_of_a_fixed_size_gets_that_size(pair: Path, red_bundle: Bundle) -> None:
    fixed = onnx.load_from_string(red_bundle.network)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in (2, 3):
            value.type.tensor_type.shape.dim[dimension].dim_value = 512
    (pair / "fixed.onnx").write_bytes(fixed.SerializeToString())
    model = load_model(pair / "fixed.onnx")
    assert native(model, grey_with_red_box(600, 1200)).map.shape == (600, 1200)


def test_what_is_no_model_is_refused_by_name(tmp_path: Path, red_model: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "other.onnx").write_bytes(_identity())
    (red_model / "annotator.onnx").write_bytes(b"nothing")
    for path, message in (
        (tmp_path / "model.txt", "neither a bundle"),
        (tmp_path / "broken.onnx", r"broken\.onnx"),
        (tmp_path / "other.onnx", "does not turn `image`"),
        (red_model, "damaged"),
        (tmp_path, "no such checkpoint"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            load_model(path)
    with pytest.raises(OSError, match=r"absent\.onnx"):
        load_model(tmp_path / "absent.onnx")


def _identity() -> bytes:
    side = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", side[:1], side[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_a_network_that_gives_no_numbers_is_an_error_with_both_names(pair: Path) -> None:
    broken = Method("broken", lambda picture: Answer(np.full(picture.shape[:2], np.nan, np.float32)))
    with pytest.raises(ValueError, match=r"broken on .*exact\.png: .*no numbers"):
        list(measured(read("pair", pair), [broken], "native"))


def test_error_level_analysis_sees_a_part_that_was_never_compressed() -> None:
    rng = np.random.default_rng(0)
    photo = cv2.GaussianBlur(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8), (0, 0), 1)
    saved = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    mask = white_box(128, 128, (40, 40, 48, 48)) > 0
    saved[mask] = photo[mask]
    changes = np.abs(as_jpeg(saved, 90).astype(int) - saved).max(axis=2)
    assert error_level(saved).map[20, 30] == pytest.approx(changes[16:25, 26:35].mean())
    assert average_precision_score(mask.ravel(), error_level(saved).map.ravel()) > 0.9


def test_what_cannot_be_used_is_left_out_and_said(pair: Path, red_model: Path) -> None:
    (pair / "images" / "corrupt.jpg").write_bytes(b"\xff\xd8\xff no picture")
    save(pair / "images" / "turned.png", grey_with_red_box(64, 96))
    save(pair / "masks" / "turned.png", white_box(96, 64, (0, 0, 9, 9)))
    save(pair / "images" / "speck.png", grey_with_red_box(64, 64))
    save(pair / "masks" / "speck.png", white_box(64, 64, (3, 3, 1, 1)))
    ways = methods([load_model(red_model)], "native")
    pictures = [*read("pair", pair), Tampered(pair / "images" / "absent.png", None, "mine", "authentic")]
    every = list(measured(pictures, ways, "native", degradation("resize:0.3")))
    skipped = {each.picture.image.stem: each.skipped for each in every if each.skipped}
    assert skipped.pop("corrupt") in {"picture truncated", "picture not-a-picture"}
    assert skipped == {
        "turned": "mask of another shape", "speck": "splice lost", "absent": "picture unreadable",
    }  # fmt: skip
    assert summarise(every, ways)[0].tampered == 2


def test_the_command_writes_what_it_prints(
    pair: Path, red_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pair / "images" / "corrupt.png").write_bytes(b"no picture")
    save(pair / "masks" / "corrupt.png", white_box(64, 64, (0, 0, 64, 60)))
    save(pair / "masks" / "shifted.png", 255 - white_box(64, 64, (0, 0, 64, 16)))
    files = [tmp_path / name for name in ("out.csv", "out.json", "out.md")]
    run(red_model, "--dataset", f"pair:{pair}", "--degrade", "jpeg:90", "--degrade", "resize:0.5",
        "--csv", files[0], "--json", files[1], "--markdown", files[2])  # fmt: skip
    table = json.loads(files[1].read_text())
    rows = {(row["degradation"], row["method"]): row for row in table["rows"]}
    assert {name for name, _ in rows} == {"none", "jpeg:90", "resize:0.5"} and table["protocol"] == "native"
    red = rows["none", str(red_model)]
    assert red["metrics"]["AP"]["mean"] == pytest.approx((1 + SHIFTED["AP"]) / 2)
    assert (red["tampered"], red["authentic"], red["auc"], red["flagged"]) == (2, 1, 1.0, 0.0)
    with files[0].open(newline="") as file:
        lines = list(csv.DictReader(file))
    exact = next(line for line in lines if line["image"].endswith("exact.png") and line["method"] == str(red_model))
    assert float(exact["AP"]) == 1.0 and exact["flagged"] == "1" and exact["degradation"] == "none"
    assert exact["mask"] == str(pair / "masks" / "exact.png")
    assert [line["skipped"] for line in lines if "corrupt" in line["image"]] == ["picture not-a-picture"] * 3
    assert sum(line["inverted"] == "1" and line["degradation"] == "none" for line in lines) == 3  # methods
    printed, markdown = capsys.readouterr().out, files[2].read_text()
    for text in (printed, markdown):
        for promise in (
            "0.688 (0.38-1.00)", "mine: 2 tampered, 1 authentic", "constant map", "error level analysis", "jpeg:90",
            "Protocol: native", "best threshold for each picture", "1 masks covered more than half",
            "1 of 4 left out: picture not-a-picture", "corrupt.png",
        ):  # fmt: skip
            assert promise in text
        assert "Rows of the paper" not in text  # there is none


def test_the_command_measures_under_the_protocol_that_it_is_told(tmp_path: Path, red_model: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 75, 3), dtype=np.uint8)
    save(tmp_path / "images" / "noise.png", noise)
    save(tmp_path / "masks" / "noise.png", white_box(60, 75, (5, 5, 30, 30)))
    found = {}
    for protocol in ("native", "paper"):
        run(red_model, "--dataset", f"pair:{tmp_path}", "--protocol", protocol, "--csv", tmp_path / "out.csv")
        with (tmp_path / "out.csv").open(newline="") as file:
            found[protocol] = float(next(csv.DictReader(file))["AP"])
        (alone,) = results(tmp_path, red_model, protocol)
        assert found[protocol] == pytest.approx(alone.metrics[str(red_model)]["AP"], abs=1e-9)
    assert abs(found["native"] - found["paper"]) > 1e-4


def test_what_was_done_to_masks_is_said_once_whatever_the_degradations(
    red_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = white_box(64, 64, (8, 8, 16, 16))
    for number, mask in (("0404", box), ("0405", box.repeat(2, axis=0).repeat(2, axis=1))):
        save(tmp_path / "casia" / f"Sp_D_NRN_A_ani0001_arc0059_{number}.jpg", grey_with_red_box(64, 64, (8, 8, 16, 16)))
        save(tmp_path / "casia" / f"Sp_D_NRN_A_arc0059_ani0001_{number}_gt.png", mask)
    table = tmp_path / "out.csv"
    run(red_model, "--dataset", f"casia1:{tmp_path / 'casia'}", "--degrade", "resize:0.02", "--csv", table)
    printed = capsys.readouterr().out
    assert "1 masks were of another size and were stretched" in printed and "were inverted" not in printed
    assert "2 masks had another name and were found by their number" in printed
    assert "2 of 2 left out under resize:0.02: splice lost" in printed
    with table.open(newline="") as file:
        lines = {
            (line["image"][-8:-4], line["inverted"], line["stretched"], line["renamed"])
            for line in csv.DictReader(file)
        }
    assert {("0404", "0", "0", "1"), ("0405", "0", "1", "1")} <= lines


def test_brackets_in_names_are_brackets_and_a_narrow_terminal_has_intervals_below_means(
    pair: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, dataset = red_model.rename(tmp_path / "[red]"), pair.rename(tmp_path / "[mine]")
    monkeypatch.setattr(terminal, "width", 120)
    monkeypatch.chdir(tmp_path)
    run(model.name, "--dataset", f"pair:{dataset}")
    printed = capsys.readouterr().out
    table = printed[: printed.index("Protocol:")]
    assert "[red]" in table and "[mine]: 2 tampered, 1 authentic" in table
    assert "0.688 (" not in table and "(0.38-1.00)" in table and max(map(len, table.splitlines())) <= 120


def test_a_file_that_cannot_be_written_does_not_cost_the_table(
    pair: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_text", full_disk)
        run(red_model, "--dataset", f"pair:{pair}", "--json", tmp_path / "out.json")
    assert "mine: 2 tampered, 1 authentic" in capsys.readouterr().out
    for option in ("--csv", "--json", "--markdown"):
        with pytest.raises(ValueError, match=f"{option} .*: there is no folder .*nowhere"):
            run(red_model, "--dataset", "pair:not-read-yet", option, tmp_path / "nowhere" / "out")
        with pytest.raises(ValueError, match="is a folder; name a file"):
            run(red_model, "--dataset", "pair:not-read-yet", option, tmp_path)


def test_the_table_says_how_well_pictures_are_told_apart_and_how_many_authentic_ones_are_flagged() -> None:
    about = {"degradation": "none", "dataset": "mine", "kind": "spliced", "metrics": {}}
    row = Row(method="model", tampered=3, authentic=8, auc=0.875, flagged=0.125, **about)
    table = as_markdown([row], [])
    assert "**mine: 3 spliced, 8 authentic**" in table and table.split("\n")[4].endswith("| 0.875 | 12.5% |")
    without = as_markdown([replace(row, authentic=0, auc=None, flagged=None)], [])
    assert "**mine: 3 spliced**" in without and without.split("\n")[4].endswith("|  |  |")


def test_a_bar_in_a_models_name_makes_no_column_of_the_markdown(pair: Path, red_model: Path, tmp_path: Path) -> None:
    red_model.rename(tmp_path / "red|blue")
    run(tmp_path / "red|blue", "--dataset", f"pair:{pair}", "--markdown", tmp_path / "out.md")
    rows = [line for line in (tmp_path / "out.md").read_text().splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1 and any(
        "red\\|blue" in line for line in rows
    )


def test_a_picture_whose_name_is_no_unicode_is_in_the_files_by_escapes(
    pair: Path, red_model: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"\xe9.png")
    (pair / "images" / "exact.png").rename(pair / "images" / odd)
    (pair / "masks" / "exact.png").rename(pair / "masks" / odd)
    (pair / "images" / "shifted.png").write_bytes(b"no picture")
    named = red_model.rename(tmp_path / os.fsdecode(b"mod\xe9l"))
    files = [tmp_path / name for name in ("out.csv", "out.json", "out.md")]
    run(named, "--dataset", f"pair:{pair}", "--csv", files[0], "--json", files[1], "--markdown", files[2])
    written = [file.read_text() for file in files]
    assert "\\udce9.png" in written[0] and all("mod\\udce9l" in text for text in written)


def test_two_runs_give_the_same_bytes(pair: Path, red_model: Path, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        files = [tmp_path / f"{name}.{suffix}" for suffix in ("csv", "json")]
        run(red_model, "--dataset", f"pair:{pair}", "--protocol", "paper", "--csv", files[0], "--json", files[1])
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_models_stand_under_each_other_and_above_the_paper(
    red_model: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Sp_D_CND_A_pla0005_pla0023_0281"
    save(tmp_path / "casia" / f"{name}.jpg", grey_with_red_box(64, 64, (8, 8, 16, 16)))
    save(tmp_path / "casia" / f"{name}_gt.png", white_box(64, 64, (8, 8, 16, 16)))
    save(tmp_path / "casia" / "Au_ani_0001.jpg", grey_with_red_box(64, 64))
    run(red_model, checkpoint, "--dataset", f"casia1:{tmp_path / 'casia'}", "--json", tmp_path / "out.json")
    printed = capsys.readouterr().out
    order = [str(red_model), str(checkpoint), "constant map", "CASIA v2: ManTra-Net", "CASIA v2: MAG, single-task"]
    places = [printed.index(each) for each in order]
    assert places == sorted(places)
    assert "The paper's CASIA is v2; the pictures measured here as casia1 are of v1." in printed
    assert "only under --degrade jpeg:QUALITY" in printed and "Rows of the paper are as printed in it" in printed
    beside = json.loads((tmp_path / "out.json").read_text())["paper"]["casia1"]
    assert beside["column"] == "CASIA v2" and beside["methods"]["MAG"] == [0.74, 0.74, 0.76]
    assert beside["metrics"] == ["AP", "p-AP", "cIoU"]
    run(red_model, "--dataset", f"casia1/authentic:{tmp_path / 'casia'}")
    assert "ManTra-Net" not in capsys.readouterr().out  # the paper says nothing of authentic pictures
    run(red_model, "--dataset", f"casia1/spliced:{tmp_path / 'casia'}")
    assert "image AUC" not in capsys.readouterr().out  # and there is nothing to warn of without them


def test_the_papers_row_stands_beside_what_it_was_measured_on() -> None:
    columns = {name: paper_column(name) for name in ("casia2", "columbia", "DSO-1", "DSI-1", "coverage", "synthesized")}
    assert columns == {
        "casia2": "CASIA v2", "columbia": "Columbia", "DSO-1": "Carvalho",
        "DSI-1": None, "coverage": None, "synthesized": None,
    }  # fmt: skip


def test_the_papers_table_has_four_methods_and_three_numbers_in_every_column() -> None:
    assert all(len(column) == 4 and all(len(row) == 3 for row in column) for column in PAPER_TABLE.values())
    assert PAPER_TABLE["Realistic Tampering"][1] == (0.50, 0.51, 0.55)
    assert PAPER_TABLE["FantasticReality"][0] == (0.57, 0.57, 0.73)


def test_datasets_that_cannot_be_told_apart_are_refused(pair: Path, red_model: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / "mine"
    save(twin / "images" / "a.png", grey_with_red_box(64, 64))
    save(twin / "masks" / "a.png", white_box(64, 64, (0, 0, 9, 9)))
    with pytest.raises(ValueError, match=r"mine is in .* already"):
        run(red_model, "--dataset", f"pair:{pair}", "--dataset", f"pair:{twin}")
    with pytest.raises(ValueError, match=r"exact\.png is named by more than one"):
        run(red_model, "--dataset", f"pair:{pair}", "--dataset", f"pair/tampered:{pair}")
    for text in ("casia1", "casia1:"):
        with pytest.raises(ValueError, match="write NAME:DIR"):
            run(red_model, "--dataset", text)


def test_nothing_measured_is_an_error_after_the_reasons(
    tmp_path: Path, red_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "mine" / "masks" / "a.png", white_box(64, 64, (0, 0, 9, 9)))
    (tmp_path / "mine" / "images").mkdir()
    (tmp_path / "mine" / "images" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="nothing could be measured"):
        run(red_model, "--dataset", f"pair:{tmp_path / 'mine'}")
    assert "1 of 1 left out: picture empty" in capsys.readouterr().out
