"""A COCO annotation file becomes label maps: every kind of segmentation, every kind of category, and bad entries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mag_rt.bundle import CLASS_NAMES
from mag_train.data.coco import annotated_photos, decompress, polygons, run_lengths
from tests.conftest import save

HEIGHT, WIDTH = 50, 74
CATEGORIES = {1: "person", 2: "bicycle", 3: "Car", 7: "train", 18: "dog"}
COMPRESSED = {"size": [50, 74], "counts": "m77[1000000000000000em2"}
"""As pycocotools 2.0.11 writes 7 rows from the 4th and 9 columns from the 6th."""


def box(left: int, top: int, width: int, height: int) -> list[float]:
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def runs(left: int, top: int, width: int, height: int) -> dict[str, Any]:
    before = left * HEIGHT + top
    counts = [before, *([height, HEIGHT - height] * width)]
    counts[-1] += HEIGHT * WIDTH - sum(counts)
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def annotated(folder: Path, *annotations: tuple[int, Any, int], images: int = 1) -> Path:
    """A folder of grey pictures and its annotations: category, segmentation, crowd."""
    for number in range(images):
        save(folder / f"{number}.jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    tree = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(images)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": [
            {"id": 100 + n, "image_id": 0, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
            for n, (category, segmentation, crowd) in enumerate(annotations)
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(tree))
    return path


def labels(folder: Path, *annotations: tuple[int, Any, int]) -> np.ndarray:
    (photo,), absent = annotated_photos(folder, annotated(folder, *annotations))
    assert not absent
    return photo.read()[1]


@pytest.mark.parametrize("segmentation", [[box(5, 3, 9, 7)], runs(5, 3, 9, 7), COMPRESSED])
def test_polygons_and_both_run_length_codes_mark_the_same_pixels(tmp_path: Path, segmentation: object) -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:10, 5:14] = 1 + CLASS_NAMES.index("dog")
    assert np.array_equal(labels(tmp_path, (18, segmentation, 0)), expected)


def test_annotations_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = annotated(tmp_path, (18, [box(5, 3, 9, 7)], 0))
    path.write_text(path.read_text(), encoding="utf-8-sig")
    ((photo,), _) = annotated_photos(tmp_path, path)
    assert len(photo.instances) == 1


def test_an_object_of_several_polygons_is_whole_where_they_overlap() -> None:
    region = polygons([box(2, 2, 10, 10), box(6, 6, 10, 10), box(40, 20, 5, 5)], (HEIGHT, WIDTH))
    assert region[6:12, 6:12].all() and region[20:25, 40:45].all()
    assert region.sum() == 100 + 100 - 36 + 25


def test_a_polygon_takes_the_pixels_of_which_it_covers_most() -> None:
    assert polygons([[2.4, 2.4, 6.6, 2.4, 6.6, 6.6, 2.4, 6.6]], (10, 10)).sum() == 25  # 2.4 to 6.6: pixels 2 to 6
    assert polygons([[2.8, 2.8, 6.2, 2.8, 6.2, 6.2, 2.8, 6.2]], (10, 10)).sum() == 9
    assert polygons([[-5, -5, 4, -5, 4, 4, -5, 4]], (10, 10)).sum() == 16  # what hangs out is cut off


def test_categories_are_mapped_by_name_and_what_is_not_known_is_unlabelled_or_other(tmp_path: Path) -> None:
    painted = labels(
        tmp_path,
        (1, [box(0, 0, 4, 4)], 0),
        (3, [box(10, 0, 4, 4)], 0),
        (2, [box(20, 0, 4, 4)], 0),  # a bicycle is no class of ours
        (7, [box(30, 0, 4, 4)], 0),  # a train may be a tram
        (1, runs(40, 0, 4, 4), 1),  # a crowd
    )
    assert [int(painted[2, column]) for column in (2, 12, 22, 32, 42)] == [1, 2, 0, 255, 255]


def test_small_objects_lie_over_large_ones_and_objects_over_crowds(tmp_path: Path) -> None:
    painted = labels(tmp_path, (18, [box(8, 8, 4, 4)], 0), (1, [box(0, 0, 20, 20)], 0), (3, runs(0, 0, 40, 40), 1))
    assert painted[10, 10] == 1 + CLASS_NAMES.index("dog") and painted[2, 2] == 1 and painted[30, 30] == 255


def test_negative_differences_of_a_compressed_code() -> None:
    assert decompress("022O31MO31MO00010O00010O00010O00010O00010O31MO3")[:6] == [0, 2, 2, 1, 5, 2]
    with pytest.raises(ValueError, match="middle of a number"):
        decompress("m7W")


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [[1, 2, 3]],
        [["x", 1]],
        {"size": [HEIGHT, WIDTH], "counts": [10, 10]},
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": "\x7f"},
        {"counts": [1]},
    ],
)
def test_a_segmentation_that_cannot_be_made_out_is_named(tmp_path: Path, segmentation: object) -> None:
    with pytest.raises(ValueError, match=r"0\.jpg: its annotation 100 is no polygon and no run-length code"):
        labels(tmp_path, (1, segmentation, 0))


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="picture has"):
        run_lengths([4, 6], (2, 5), (5, 2))


def test_photos_that_are_not_there_are_counted_and_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    annotations = annotated(tmp_path, (1, [box(0, 0, 4, 4)], 0), images=3)
    (tmp_path / "1.jpg").unlink()
    photos, absent = annotated_photos(tmp_path, annotations)
    assert [photo.image.name for photo in photos] == ["0.jpg", "2.jpg"] and absent == 1
    save(tmp_path / "2.jpg", np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(ValueError, match=r"2\.jpg: 50 x 74, but annotated as 74 x 50"):
        photos[1].read()
    with pytest.raises(ValueError, match="holds none of the 3 photos"):
        annotated_photos(tmp_path / "elsewhere", annotations)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "categories": [{"id": 1}], "annotations": []}'])
def test_a_file_that_is_no_annotation_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"instances\.json: not COCO annotations"):
        annotated_photos(tmp_path, path)


def test_annotations_without_a_class_of_ours_are_refused(tmp_path: Path) -> None:
    path = annotated(tmp_path)
    tree = json.loads(path.read_text()) | {"categories": [{"id": 1, "name": "screw"}]}
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="none of its categories is a class"):
        annotated_photos(tmp_path, path)
