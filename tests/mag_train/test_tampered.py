"""Each reader finds the pictures and masks of its published layout, and what does not fit is named, never guessed."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from mag_rt.errors import PictureError
from mag_train.data.tampered import READERS, Tampered, TruthError, read
from mag_train.data.tampered.picture import white
from tests.conftest import save

HEIGHT, WIDTH = 24, 32
BOX = np.s_[4:12, 8:20]
"""What is spliced in every miniature: 8 x 12 pixels."""


def picture(path: Path) -> Path:
    return save(path, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def mask(path: Path, inside: object = 255, outside: object = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = outside
    pixels[BOX] = inside
    return save(path, pixels)


def kinds(pictures: list[Tampered]) -> dict[str, int]:
    return Counter(each.kind for each in pictures)


def assert_marks_the_box(each: Tampered) -> None:
    _, truth = each.read()
    assert truth.mask[BOX].all() and truth.mask.sum() == 96


def casia(folder: Path) -> None:
    picture(folder / "CASIA 1.0 dataset" / "Au" / "Au_ani_0001.jpg")
    for kind, name in (("Sp", "Sp_D_CND_A_pla0005_pla0023_0281"), ("CM", "Sp_S_CND_A_pla0016_pla0016_0196")):
        picture(folder / "CASIA 1.0 dataset" / "Modified Tp" / "Tp" / kind / f"{name}.jpg")
        mask(folder / "CASIA 1.0 groundtruth" / kind / f"{name}_gt.png")


def test_casia1(tmp_path: Path) -> None:
    casia(tmp_path)
    pictures = read("casia1", tmp_path)
    assert kinds(pictures) == {"spliced": 1, "copymove": 1, "authentic": 1}
    for each in pictures[:2]:
        assert_marks_the_box(each)
        assert each.mask is not None and each.mask.stem == f"{each.image.stem}_gt"
    assert pictures[2].mask is None and not pictures[2].read()[1].mask.any()


def test_casia_finds_a_mask_of_another_name_by_its_number(tmp_path: Path) -> None:
    casia(tmp_path)
    picture(tmp_path / "Sp_D_NRN_A_ani0001_arc0059_0404.jpg")  # its sources stand in the other order
    mask(tmp_path / "Sp_D_NRN_A_arc0059_ani0001_0404_gt.png")
    picture(tmp_path / "Sp_D_NRN_A_cha0011_sec0011_0542.jpg")  # has none at all
    picture(tmp_path / "Sp_D_NRN_A_cha0001_sec0001_0196.jpg")  # its number's mask belongs to another picture
    found = {each.image.stem[-4:] + each.image.stem[3]: each for each in read("casia1", tmp_path)}
    assert found["0404D"].renamed and not found["0281D"].renamed
    assert_marks_the_box(found["0404D"])
    for number in ("0542D", "0196D"):
        with pytest.raises(TruthError, match="no such mask") as caught:
            found[number].read()
        assert caught.value.kind == "mask missing" and not found[number].renamed


def test_casia_leaves_a_mask_of_its_own_name_to_a_picture(tmp_path: Path) -> None:
    """Also where another picture of its number has found another mask."""
    casia(tmp_path)
    for name, own in (("ani0001_arc0059", False), ("sec0001_sec0002", True)):
        picture(tmp_path / f"Sp_D_NRN_A_{name}_0404.jpg")
        mask(tmp_path / f"Sp_D_NRN_A_{name if own else 'arc0059_ani0001'}_0404_gt.png")
    masks = {
        each.image.stem[11:26]: (each.mask.stem[11:26], each.renamed) for each in read("casia1", tmp_path) if each.mask
    }
    assert masks["sec0001_sec0002"] == ("sec0001_sec0002", False)
    assert masks["ani0001_arc0059"] == ("arc0059_ani0001", True)


def test_casia_does_not_choose_between_two_masks_of_one_number(tmp_path: Path) -> None:
    casia(tmp_path)
    picture(tmp_path / "Sp_D_NRN_A_ani0001_arc0059_0404.jpg")
    for name in ("arc0059_ani0001", "arc0060_ani0001"):
        mask(tmp_path / f"Sp_D_NRN_A_{name}_0404_gt.png")
    (orphan,) = (each for each in read("casia1", tmp_path) if "0404" in each.image.name)
    with pytest.raises(TruthError, match="no such mask"):
        orphan.read()


def test_casia2_takes_only_its_own_names(tmp_path: Path) -> None:
    casia(tmp_path / "CASIA1")
    for name in ("Tp_D_CRN_S_N_cha00063_art00014_11818.tif", "Tp_S_NRN_S_N_pla00005_pla00005_10937.jpg"):
        picture(tmp_path / "CASIA2" / "Tp" / name)
        mask(tmp_path / "CASIA2" / "CASIA 2 Groundtruth" / f"{Path(name).stem}_gt.png")
    picture(tmp_path / "CASIA2" / "Tp" / "Tp_D_NRD_S_N_cha10002_cha10001_20094.jpg")
    mask(tmp_path / "CASIA2" / "CASIA 2 Groundtruth" / "Tp_D_NRD_S_N_cha10002_cha10001_20094_gt3.png")
    picture(tmp_path / "CASIA2" / "Au" / "Au_ani_00001.bmp")
    pictures = read("casia2", tmp_path)
    assert kinds(pictures) == {"spliced": 2, "copymove": 1, "authentic": 1}
    for each in pictures[:3]:
        assert_marks_the_box(each)
    assert kinds(read("casia1", tmp_path)) == {"spliced": 1, "copymove": 1, "authentic": 1}


def test_casia_twice_in_one_folder_is_refused(tmp_path: Path) -> None:
    casia(tmp_path / "a")
    casia(tmp_path / "b")
    with pytest.raises(ValueError, match="keep one copy"):
        read("casia1", tmp_path)


@pytest.mark.parametrize("nested", ["", "4cam_splc"])
def test_columbia_green_is_spliced_bright_or_not_in_a_lossy_mask(tmp_path: Path, nested: str) -> None:
    name = "canong3_canonxt_sub_01"
    image = picture(tmp_path / "4cam_splc" / nested / f"{name}.tif")
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = 0, 0, 200
    pixels[:, WIDTH // 2 - 2 :] = 0, 0, 255
    pixels[:, WIDTH // 2 + 2 :] = 0, 255, 0
    pixels[:, WIDTH // 2 + 6 :] = 0, 200, 0
    save(image.parent / "edgemask" / f"{name}_edgemask.jpg", pixels)
    picture(tmp_path / "4cam_auth" / "canong3_02_sub_01.tif")
    save(tmp_path / "4cam_auth" / "edgemask" / "canong3_02_sub_01_edgemask.jpg", pixels)
    spliced, authentic = read("columbia", tmp_path)
    truth = spliced.read()[1].mask
    assert truth[:, WIDTH // 2 + 4 :].all() and not truth[:, : WIDTH // 2].any()
    assert authentic.kind == "authentic" and authentic.mask is None


def test_carvalho_black_is_spliced(tmp_path: Path) -> None:
    for part in ("DSO-1", "DSI-1"):
        picture(tmp_path / part / "splicing-01.png")
        picture(tmp_path / part / "normal-01.png")
    mask(tmp_path / "DSO-1-Fake-Images-Masks" / "splicing-01.png", inside=0, outside=255)
    pictures = read("carvalho", tmp_path)
    assert [(each.dataset, each.kind) for each in pictures] == [
        ("DSO-1", "authentic"), ("DSO-1", "spliced"), ("DSI-1", "authentic"), ("DSI-1", "spliced"),
    ]  # fmt: skip
    assert_marks_the_box(pictures[1])
    assert not pictures[1].read()[1].inverted
    with pytest.raises(TruthError, match="no such mask"):
        pictures[3].read()


@pytest.mark.parametrize("root", ["", "data-images"])
def test_realistic_tampering_counts_grey_as_tampered(tmp_path: Path, root: str) -> None:
    for camera in ("Canon_60D", "Nikon_D90"):
        picture(tmp_path / root / camera / "tampered-realistic" / "r1.TIF")
        picture(tmp_path / root / camera / "pristine" / "r1.TIF")
        mask(tmp_path / root / camera / "ground-truth" / "r1.PNG", inside=96)
    pictures = read("realistic-tampering", tmp_path)
    assert kinds(pictures) == {"tampered": 2, "authentic": 2}
    for each in pictures[::2]:
        assert_marks_the_box(each)


def test_coverage(tmp_path: Path) -> None:
    for number in ("1", "21"):
        picture(tmp_path / "image" / f"{number}.tif")
        picture(tmp_path / "image" / f"{number}t.tif")
        mask(tmp_path / "mask" / f"{number}forged.tif")
        mask(tmp_path / "mask" / f"{number}copy.tif", inside=0, outside=255)
    pictures = read("coverage", tmp_path)
    assert kinds(pictures) == {"copymove": 2, "authentic": 2}
    for each in pictures[:2]:
        assert_marks_the_box(each)


def test_fantastic_reality_with_masks_as_pictures_and_as_arrays(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "ColorFakeImages" / f"{name}.jpg")
    mask(tmp_path / "SegmentationFake" / "a.png", inside=7)
    mask(tmp_path / "SegmentationFake" / "b.bmp")
    array = np.zeros((HEIGHT, WIDTH, 1), np.int64)
    array[BOX] = 3
    np.savez_compressed(tmp_path / "SegmentationFake" / "c.npz", array)
    picture(tmp_path / "ColorRealImages" / "real.jpg")
    pictures = read("fantastic-reality", tmp_path)
    assert kinds(pictures) == {"spliced": 3, "authentic": 1}
    for each in pictures[:3]:
        assert_marks_the_box(each)


def test_pair_does_not_take_a_picture_without_a_mask_for_authentic(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "images" / "b.png")
    mask(tmp_path / "masks" / "a.png")
    picture(tmp_path / "authentic" / "c.jpg")
    a, b, c = read("pair", tmp_path)
    assert (a.dataset, a.kind, c.kind) == (tmp_path.name, "tampered", "authentic")
    assert_marks_the_box(a)
    with pytest.raises(TruthError, match="no such mask"):
        b.read()


def manifest(folder: Path) -> None:
    rows = [
        "dataset\trole\tkind\timage\tmask",
        "one\tdevelopment\tspliced\ta.png\ta_mask.png",
        "one\tdevelopment\tcopymove\tb.png\ta_mask.png",
        "one\tdevelopment\tauthentic\tc.png\t",
        "two\tdevelopment\tspliced\td.png\t",
        "three\ttraining\tauthentic\te.png\t",
    ]
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    mask(folder / "a_mask.png")
    for name in "abcde":
        picture(folder / f"{name}.png")


def test_manifest_gives_the_rows_of_role_development(tmp_path: Path) -> None:
    manifest(tmp_path)
    pictures = read("manifest", tmp_path)
    assert [each.image.name for each in pictures] == ["a.png", "b.png", "c.png", "d.png"]
    assert_marks_the_box(pictures[0])
    assert pictures[2].mask is None
    with pytest.raises(TruthError, match="no such mask"):
        pictures[3].read()  # no mask in the table does not make it authentic


def test_a_dataset_or_a_kind_can_be_chosen(tmp_path: Path) -> None:
    manifest(tmp_path)
    assert [each.image.name for each in read("manifest/one", tmp_path)] == ["a.png", "b.png", "c.png"]
    assert [each.image.name for each in read("manifest/one/copymove", tmp_path)] == ["b.png"]
    assert [each.image.name for each in read("manifest/spliced", tmp_path)] == ["a.png", "d.png"]
    with pytest.raises(ValueError, match=r"nothing is manifest/four; there is one/authentic, .*two/spliced"):
        read("manifest/four", tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_something_else_is_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "holiday" / "beach.jpg")
    with pytest.raises(ValueError, match=rf"{name}.*, of which is expected: .*; missing: \w+") as caught:
        read(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_name_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset 'casia3'; there are .*casia1"):
        read("casia3", tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        read("casia1", tmp_path / "nowhere")


def tampered(folder: Path) -> Tampered:
    return Tampered(picture(folder / "a.png"), folder / "mask.png", "mine", "spliced")


def test_a_mask_that_covers_more_than_half_is_inverted(tmp_path: Path) -> None:
    mask(tmp_path / "mask.png", inside=0, outside=255)
    _, truth = tampered(tmp_path).read()
    assert truth.inverted and truth.mask[BOX].all() and truth.mask.sum() == 96


def test_a_mask_of_just_half_of_the_picture_is_taken_as_it_is(tmp_path: Path) -> None:
    """Of two regions of one size neither is the smaller one."""
    save(tmp_path / "mask.png", np.repeat([[255] * (WIDTH // 2) + [0] * (WIDTH // 2)], HEIGHT, axis=0).astype(np.uint8))
    _, truth = tampered(tmp_path).read()
    assert not truth.inverted and truth.mask[:, : WIDTH // 2].all()


def test_white_is_what_is_nearer_to_white_than_to_black_in_any_channel() -> None:
    pixels = np.array([[[127, 127, 127], [128, 128, 128], [0, 0, 255]]], np.uint8)
    assert white(pixels).tolist() == [[False, True, True]]


def test_a_mask_of_another_size_but_the_same_shape_is_stretched(tmp_path: Path) -> None:
    mask(tmp_path / "mask.png", size=(2 * HEIGHT, 2 * WIDTH))
    _, truth = tampered(tmp_path).read()
    assert truth.stretched and truth.mask[2:6, 4:10].all() and truth.mask.sum() == 24


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH + 2), (HEIGHT + 1, WIDTH)])
def test_a_mask_of_another_shape_is_never_used(tmp_path: Path, size: tuple[int, int]) -> None:
    mask(tmp_path / "mask.png", size=size)
    with pytest.raises(TruthError, match=r"mask\.png: \d+ x \d+, but the picture is 32 x 24") as caught:
        tampered(tmp_path).read()
    assert caught.value.kind == "mask of another shape"


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_of_one_colour_has_nothing_to_find(tmp_path: Path, value: int) -> None:
    mask(tmp_path / "mask.png", inside=value, outside=value)
    with pytest.raises(TruthError, match="marks no region"):
        tampered(tmp_path).read()


@pytest.mark.parametrize("name", ["mask.png", "mask.npz"])
def test_a_damaged_mask_is_told_from_a_damaged_picture(tmp_path: Path, name: str) -> None:
    each = Tampered(picture(tmp_path / "a.png"), tmp_path / name, "mine", "spliced")
    (tmp_path / name).write_bytes(b"no mask at all")
    with pytest.raises(TruthError) as caught:
        each.read()
    assert caught.value.kind == "mask unreadable"
    each.image.write_bytes(b"no picture at all")
    with pytest.raises(PictureError):
        each.read()


def test_a_damaged_array_is_an_unreadable_mask(tmp_path: Path) -> None:
    each = Tampered(picture(tmp_path / "a.png"), tmp_path / "mask.npz", "mine", "spliced")
    np.savez_compressed(tmp_path / "mask.npz", np.random.default_rng(0).random((HEIGHT, WIDTH)))
    whole = (tmp_path / "mask.npz").read_bytes()
    np.savez(tmp_path / "colour.npz", np.ones((HEIGHT, WIDTH, 3)))
    for damaged in (whole[:-30], whole[:200] + bytes(400) + whole[600:], (tmp_path / "colour.npz").read_bytes()):
        (tmp_path / "mask.npz").write_bytes(damaged)
        with pytest.raises(TruthError) as caught:
            each.read()
        assert caught.value.kind == "mask unreadable"


def test_an_array_of_objects_is_not_unpacked(tmp_path: Path) -> None:
    np.savez(tmp_path / "mask.npz", np.array([{"code": "may run"}], dtype=object))
    each = Tampered(picture(tmp_path / "a.png"), tmp_path / "mask.npz", "mine", "spliced")
    with pytest.raises(TruthError, match="allow_pickle"):
        each.read()


def test_a_lossy_mask_is_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[8:16, 8:24] = 255
    noisy = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    (tmp_path / "mask.png").write_bytes(noisy.tobytes())
    _, truth = tampered(tmp_path).read()
    assert truth.mask.sum() == 128
