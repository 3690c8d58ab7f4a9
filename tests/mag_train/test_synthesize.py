"""magtrain synthesize: a dataset that others can read, the same bytes however it was interrupted or shared out."""

import contextlib
import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mag_rt.bundle import CLASS_NAMES
from mag_rt.errors import ResultsError
from mag_rt.sinks.alone import alone
from mag_train.cli import app
from mag_train.data import writing
from mag_train.data.photos import labelled_photos
from mag_train.data.synthesis import EDGE_WIDTH, Paste, Picture, mask_edge
from mag_train.data.tampered import read
from mag_train.data.targets import mask_edge as training_edge
from mag_train.data.writing import FAKE, MANIFEST, MASK, REAL, Recipe, UnfinishedError, begin, write
from tests.conftest import save
from tests.mag_train.conftest import labelled_photo
from tests.mag_train.test_coco import annotated, box

FOLDERS = [FAKE, REAL, MASK, "SegmentationFakeEdge", "SegmentationFakeClass", "SegmentationRealClass"]


def synthesize(*words: object) -> Any:
    return CliRunner().invoke(app, ["synthesize", *(str(word) for word in words)])


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of the twelve photos, made by one process."""
    out = tmp_path_factory.mktemp("synthesized") / "out"
    result = synthesize(photo_folder, out, "--count", 30, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "30 spliced and 30 authentic pictures" in result.output
    return out


def test_evaluate_reads_what_was_written_and_the_manifest_says_what_the_masks_say(dataset: Path) -> None:
    pictures = read("fantastic-reality/spliced", dataset)
    listed = rows(dataset)
    assert [each.image.relative_to(dataset).as_posix() for each in pictures] == [row["spliced"] for row in listed]
    for each, row in zip(pictures, listed, strict=True):
        picture, truth = each.read()
        assert picture.shape == (row["height"], row["width"], 3) and not truth.inverted
        left, top, width, height = cv2.boundingRect(truth.mask.astype(np.uint8))
        boxes = [paste["bbox"] for paste in row["pastes"]]
        assert left == min(x for x, *_ in boxes) and top == min(y for _, y, *_ in boxes)
        assert left + width == max(x + w for x, _, w, _ in boxes) and top + height == max(y + h for _, y, _, h in boxes)
    assert any(paste["classes"] == ["person"] for row in listed for paste in row["pastes"])
    assert len(read("fantastic-reality/authentic", dataset)) == 30
    assert {each.dataset for each in pictures} == {"synthesized"}  # the paper's row does not belong beside it


def test_names_and_arrays_are_what_the_authors_code_reads(dataset: Path) -> None:
    for path in sorted((dataset / FAKE).iterdir()):
        host = cv2.imread(str(dataset / REAL / path.name[12:]))  # its `fname[12:]`
        spliced = cv2.imread(str(path))
        assert host.shape == spliced.shape and path.suffix == ".jpg"
        for folder in FOLDERS[2:]:
            stem = path.stem[12:] if folder == "SegmentationRealClass" else path.stem
            with np.load(dataset / folder / f"{stem}.npz") as arrays:
                assert arrays["arr_0"].shape == (*spliced.shape[:2], 1) and arrays["arr_0"].dtype == np.uint8


def test_a_splice_is_its_host_but_for_what_was_pasted(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "publish", lambda image, rng: image)  # each of the two has a later history of its own
    synthesize(photo_folder, tmp_path / "out", "--count", 8, "--workers", 1, "--pictures", "png", "--masks", "png")
    relabelled = []
    for row in rows(tmp_path / "out"):
        name, host = Path(row["spliced"]).stem, Path(row["authentic"]).stem
        grey = cv2.IMREAD_GRAYSCALE
        mask, edge, labels = (
            cv2.imread(str(tmp_path / "out" / folder / f"{name}.png"), grey) for folder in FOLDERS[2:5]
        )
        before = cv2.imread(str(tmp_path / "out" / "SegmentationRealClass" / f"{host}.png"), grey)
        assert np.array_equal(labels[mask == 0], before[mask == 0])
        relabelled.append(not np.array_equal(labels, before))
        assert set(np.unique(mask)) == {0, 255} and np.array_equal(edge, 255 * mask_edge(mask // 255))
        named = {CLASS_NAMES.index(name) + 1 for paste in row["pastes"] for name in paste["classes"]}
        assert set(np.unique(labels[mask > 0])) - {0, 255} <= named
        spliced, authentic = (
            cv2.imread(str(tmp_path / "out" / row[kind])).astype(int) for kind in ("spliced", "authentic")
        )
        change = np.abs(spliced - authentic).sum(axis=2)
        soft_edge = np.ones((15, 15), np.uint8)
        assert not change[cv2.dilate(mask, soft_edge) == 0].any() and change[mask > 0].mean() > 5
    assert any(relabelled)  # by what was pasted


def test_splice_and_host_lie_each_in_their_own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "publish", lambda image, _: image)
    mask, grey = np.zeros((40, 40), np.uint8), np.full((40, 40, 3), 90, np.uint8)
    mask[10:20, 10:20] = 1
    spliced, host = Picture(grey + 100 * mask[..., None], mask, 1 + mask), Picture(grey, mask, 1 - mask // 2)
    recipe = Recipe(1, None, "png", None, "png")
    files = writing._files(spliced, host, "name", recipe, np.random.default_rng(1))
    planes = {name.split("/")[0]: cv2.imdecode(np.frombuffer(file, np.uint8), -1) for name, file in files.items()}
    for folder, plane in ((FAKE, spliced.image), (REAL, grey), (MASK, 255 * mask)):
        assert np.array_equal(planes[folder], plane)
    assert np.array_equal(planes["SegmentationFakeClass"], spliced.labels)
    assert np.array_equal(planes["SegmentationRealClass"], host.labels)


def test_the_manifest_names_the_photo_that_a_paste_is_from() -> None:
    """Of those that were read, the first is the host; a copy within the picture has no other."""
    plane, box = np.zeros((8, 9), np.uint8), (1, 2, 3, 4)
    pastes = [Paste(box, (1, 8), 0), Paste(box, (), None), Paste(box, (), 1)]
    row = writing._row(Picture(plane, plane, plane, pastes), ["host", "one", "two"], [1, 5, 0], ["real", "fake"])
    assert [paste["donor"] for paste in row["pastes"]] == ["one", None, "two"]
    assert row["pastes"][0]["classes"] == ["person", "dog"] and (row["width"], row["height"]) == (9, 8)
    assert (row["number"], row["host"], row["authentic"], row["spliced"]) == (5, "host", "real", "fake")


def test_the_edge_on_disk_is_the_edge_that_training_makes() -> None:
    mask = np.zeros((40, 50), np.uint8)
    cv2.circle(mask, (10, 12), 16, 1, -1)
    edge = training_edge(torch.from_numpy(mask)[None, None].float())[0, 0].numpy()
    assert np.array_equal(mask_edge(mask), edge.astype(np.uint8)) and EDGE_WIDTH == 4


def test_seed_and_photos_decide_and_processes_do_not(photo_folder: Path, dataset: Path, tmp_path: Path) -> None:
    result = synthesize(photo_folder, tmp_path / "three", "--count", 30, "--workers", 3)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "three") == contents(dataset)
    synthesize(photo_folder, tmp_path / "seed", "--count", 3, "--workers", 1, "--seed", 2)
    assert (
        contents(tmp_path / "seed")
        .items()
        .isdisjoint({name: data for name, data in contents(dataset).items() if name.startswith(FAKE)}.items())
    )


def test_a_killed_run_is_finished_with_the_bytes_of_an_undisturbed_one(
    photo_folder: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["synthesize", str(photo_folder), str(out), "--count", "30", "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-c", "from mag_train.cli import main; main()", *words])
    deadline = time.monotonic() + 90
    while not (out / MANIFEST).is_file() or len(rows_so_far(out)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    workers = [number for number, parent in running().items() if parent == process.pid]
    process.send_signal(signal.SIGKILL)
    process.wait()
    while running().keys() & set(workers):  # they end with it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with (out / MANIFEST).open("a") as file:
        file.write('{"number": 3')  # as a line that was cut off
    kept = len(rows_so_far(out))
    (out / rows_so_far(out)[1]["spliced"]).unlink()
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg") if int(path.stem.split("_")[-2]) < kept}
    result = synthesize(*words[1:])
    assert result.exit_code == 0 and f"{30 - kept + 1} of each made now" in result.output
    assert contents(out) == contents(dataset)
    rewritten = [path.name for path, when in left.items() if path.stat().st_mtime_ns != when]
    assert all("_0000001_" in f"_{name}" for name in rewritten)  # only the picture of which a file was gone


def running() -> dict[int, int]:
    """The processes that run, and their parents; none where there is no /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def rows_so_far(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MANIFEST).read_bytes().split(b"\n")[:-1]]


def test_a_larger_count_adds_and_the_same_again_does_nothing(photo_folder: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for count, made in ((4, 4), (4, 0), (30, 26)):
        result = synthesize(photo_folder, out, "--count", count, "--workers", 1)
        assert f"{made} of each made now" in result.output
    assert contents(out) == contents(dataset)
    said = f"{out}: 30 spliced and 30 authentic pictures, 0 of each made now"  # what is there, not what was asked for
    assert said in synthesize(photo_folder, out, "--count", 4, "--workers", 1).output


def test_one_synthesis_at_a_time_writes_to_a_folder(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with alone(out, "synthesis"):
        result = synthesize(photo_folder, out, "--count", 2, "--workers", 1)
        assert isinstance(result.exception, ResultsError) and "another synthesis is writing" in str(result.exception)
        assert not (out / MANIFEST).exists()
    making = write(labelled_photos(photo_folder), photo_folder, Recipe(1, None, "jpg", None, "npz"), out, range(2), 1)
    next(making)
    with pytest.raises(ResultsError), alone(out, "synthesis"):
        pass
    list(making)


def test_ctrl_c_stops_between_two_pictures(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = writing.make

    def interrupted(*arguments: Any) -> writing.Made:
        if arguments[-1] == 2:
            signal.raise_signal(signal.SIGINT)
        return make(*arguments)

    monkeypatch.setattr(writing, "make", interrupted)
    result = synthesize(photo_folder, tmp_path / "out", "--count", 10, "--workers", 1)
    assert result.exit_code == 130 and "Stopped with 3 of 10 pictures made" in result.output
    assert len(rows(tmp_path / "out")) == 3
    assert synthesize(photo_folder, tmp_path / "out", "--count", 3, "--workers", 1).exit_code == 0


def test_ctrl_c_at_the_last_picture_comes_too_late(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = writing.make

    def interrupted(*arguments: Any) -> writing.Made:
        signal.raise_signal(signal.SIGINT)
        return make(*arguments)

    monkeypatch.setattr(writing, "make", interrupted)
    result = synthesize(photo_folder, tmp_path / "out", "--count", 1, "--workers", 1)
    assert result.exit_code == 0 and "1 spliced and 1 authentic pictures" in result.output


def test_a_full_disk_is_said_and_leaves_a_dataset_to_go_on_with(
    photo_folder: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, recipe = labelled_photos(photo_folder), Recipe(1, None, "jpg", None, "npz")
    out, write_bytes, written = tmp_path / "out", Path.write_bytes, []

    def until_full(self: Path, data: bytes) -> int:
        if len(written) > 20:
            write_bytes(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        written.append(self)
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        begin(out, recipe, photos, photo_folder)
        with pytest.raises(UnfinishedError, match="the disk is full"):
            list(write(photos, photo_folder, recipe, out, range(30), 1))
        result = synthesize(photo_folder, out, "--count", 30, "--workers", 1)
        assert isinstance(result.exception, UnfinishedError)
        assert "3 of 30 pictures are made, the same command goes on" in str(result.exception)
    assert not list(out.rglob("*.partial"))
    assert synthesize(photo_folder, out, "--count", 30, "--workers", 1).exit_code == 0
    assert contents(out) == contents(dataset)


def test_photos_that_cannot_be_used_give_way_are_named_and_counted(tmp_path: Path) -> None:
    for index in range(20):
        image, labels = labelled_photo(index)
        save(tmp_path / "photos" / "images" / f"{index:02d}.jpg", image)
        save(tmp_path / "photos" / "labels" / f"{index:02d}.png", labels)
    (tmp_path / "photos" / "images" / "03.jpg").write_bytes(b"corrupt")
    save(tmp_path / "photos" / "labels" / "07.png", np.zeros((9, 9), np.uint8))
    result = synthesize(tmp_path / "photos", tmp_path / "out", "--workers", 2, "--count", 24)
    assert result.exit_code == 0 and "24 spliced" in result.output
    assert "2 of 20 photos could not be used" in result.output
    assert result.output.count("skipped ") == 2  # each once, however often it was drawn
    assert "03.jpg: the file is no picture" in result.output and "07.png: 9 x 9, not a label map" in result.output
    used = {row["host"] for row in rows(tmp_path / "out")}
    used |= {paste["donor"] for row in rows(tmp_path / "out") for paste in row["pastes"]}
    assert not used & {"images/03.jpg", "images/07.jpg"}


def test_of_many_photos_that_cannot_be_read_ten_are_named(tmp_path: Path) -> None:
    for index in range(14):
        save(tmp_path / "photos" / "images" / f"{index:02d}.jpg", labelled_photo(index)[0])
        if index < 12:
            (tmp_path / "photos" / "images" / f"{index:02d}.jpg").write_bytes(b"corrupt")
    result = synthesize(tmp_path / "photos", tmp_path / "out", "--workers", 1)
    assert result.output.count("skipped ") == 10 and result.output.count("further ones are counted only") == 1
    assert "12 of 14 photos could not be used" in result.output


def test_photos_none_of_which_can_be_read_end_in_one_line(tmp_path: Path) -> None:
    for index in range(9):
        (tmp_path / "photos" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "images" / f"{index}.jpg").write_bytes(b"corrupt")
    result = synthesize(tmp_path / "photos", tmp_path / "out", "--workers", 1)
    assert isinstance(result.exception, RuntimeError)
    assert "none of the photos can be read" in str(result.exception) and "and 6 more" in str(result.exception)


def test_tiny_photos_are_refused_and_small_ones_are_not(tmp_path: Path) -> None:
    save(tmp_path / "tiny" / "images" / "a.png", np.zeros((6, 5, 3), np.uint8))
    result = synthesize(tmp_path / "tiny", tmp_path / "out", "--workers", 1)
    assert isinstance(result.exception, RuntimeError) and "are the photos tiny?" in str(result.exception)
    save(tmp_path / "small" / "images" / "a.png", labelled_photo(1, 30, 36)[0])
    assert synthesize(tmp_path / "small", tmp_path / "small-out", "--workers", 1).exit_code == 0


def test_a_host_into_which_nothing_can_be_pasted_gives_way(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "images" / "tiny.png", np.zeros((6, 5, 3), np.uint8))
    save(tmp_path / "photos" / "images" / "usual.png", labelled_photo(1)[0])
    result = synthesize(tmp_path / "photos", tmp_path / "out", "--count", 3, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert {row["host"] for row in rows(tmp_path / "out")} == {"images/usual.png"}


def test_square_crops_of_fixed_quality(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qualities, jpeg = set(), writing.jpeg
    monkeypatch.setattr(writing, "jpeg", lambda image, *of: qualities.add(of[:2]) or jpeg(image, *of))
    synthesize(photo_folder, tmp_path / "drawn", "--count", 1, "--size", 96, "--workers", 1)
    assert qualities == {(50, 100)}
    qualities.clear()
    synthesize(photo_folder, tmp_path / "out", "--count", 2, "--size", 96, "--quality", 80, "--workers", 1)
    assert qualities == {(80, 80)}
    assert {(row["width"], row["height"]) for row in rows(tmp_path / "out")} == {(96, 96)}
    result = synthesize(photo_folder, tmp_path / "out", "--count", 2, "--quality", 80, "--workers", 1)
    assert "was begun with size 96, not None" in str(result.exception)
    result = synthesize(photo_folder, tmp_path / "png", "--pictures", "png", "--quality", 80)
    assert "--quality is for JPEG" in str(result.exception)


def test_a_folder_of_something_else_is_left_alone(photo_folder: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty" in str(synthesize(photo_folder, tmp_path, "--workers", 1).exception)
    other = tmp_path / "photos"
    save(other / "images" / "a.jpg", labelled_photo(1)[0])
    assert "was begun with other photos" in str(synthesize(other, dataset, "--workers", 1).exception)
    renamed = shutil.copytree(photo_folder, tmp_path / "renamed")  # as many, of other names
    (renamed / "images" / "00.jpg").rename(renamed / "images" / "0.jpg")
    assert "was begun with other photos" in str(synthesize(renamed, dataset, "--workers", 1).exception)
    assert "no such folder" in str(synthesize(tmp_path / "nowhere", tmp_path / "out").exception)
    assert "neither manifest.tsv nor a folder images/" in str(synthesize(tmp_path, tmp_path / "out").exception)


def test_coco_instances_are_pasted(tmp_path: Path) -> None:
    annotations = annotated(tmp_path / "photos", (18, [box(10, 5, 40, 40)], 0), images=4)
    (tmp_path / "photos" / "3.jpg").unlink()
    result = synthesize(
        tmp_path / "photos", tmp_path / "out", "--annotations", annotations, "--count", 12, "--workers", 2
    )
    assert result.exit_code == 0, result.output
    assert "1 photos of" in result.output and "there are 3" in result.output
    assert any("dog" in paste["classes"] for row in rows(tmp_path / "out") for paste in row["pastes"])
