"""What the user names becomes the pictures to scan: each once, in a stable order, never the tool's own results."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mag_rt import Failure, SourceError
from mag_rt.loading import load_picture
from mag_rt.sources import find


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.tiff", "deep/deeper/d.webp", "out/masks/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(frames: list) -> list[str]:
    return [Path(frame.source).name for frame in frames]


def test_a_folder_is_walked_by_name(inbox: Path) -> None:
    assert names(find([inbox])) == ["a.PNG", "b.jpg", "c.tiff", "d.webp", "e.png"]


def test_results_are_no_sources(inbox: Path) -> None:
    assert "e.png" not in names(find([inbox], exclude=inbox / "out"))
    assert "e.png" in names(find([inbox], exclude=inbox / "ou"))  # beside it, though its name begins alike


def test_results_of_a_scan_before_are_no_sources(inbox: Path) -> None:
    for name in ("findings.jsonl", "run.json", "overlays/e.jpg", "thumbnails/e.jpg", "mine.jpg"):
        (inbox / "out" / name).parent.mkdir(exist_ok=True)
        (inbox / "out" / name).touch()
    globs = [str(inbox / each) for each in ("*", "out/*[gs]", "**/*.[jp]*g")]
    for source in (inbox, inbox / "out", *globs):
        assert names(find([source], exclude=inbox / "second"))[-1] == "mine.jpg"
    masks = inbox / "out" / "masks"
    for wanted in (masks, masks / "e.png", str(masks / "*"), str(masks / "**" / "*.png")):
        assert names(find([wanted])) == ["e.png"]  # who names them wants them
    (inbox / "out" / "findings.jsonl").unlink()  # no results any more
    assert names(find([inbox / "out"])) == ["mine.jpg", "e.png", "e.jpg", "e.jpg"]


def test_globs_pass_over_results_of_a_scan_before_as_folders_do(inbox: Path) -> None:
    for name in ("findings.jsonl", "run.json", "overlays/e.jpg", "thumbnails/e.jpg", "mine.jpg"):
        (inbox / "out" / name).parent.mkdir(exist_ok=True)
        (inbox / "out" / name).touch()
    assert names(find([str(inbox / "**" / "*.[jp]*g")])) == ["b.jpg", "mine.jpg"]
    assert names(find([str(inbox / "ou*" / "*")])) == ["findings.jsonl", "mine.jpg", "run.json"]
    for only_drawn in (inbox / "out" / "mas*", inbox / "*" / "masks" / "*.png"):
        with pytest.raises(SourceError, match="matches nothing but what a scan has drawn"):
            find([str(only_drawn)])
    assert names(find([str(inbox / "out" / "masks" / "*.png")])) == ["e.png"]  # who names their folder wants them
    assert names(find([inbox / "out" / "masks" / "e.png"])) == ["e.png"]
    (inbox / "out" / "findings.jsonl").unlink()  # no results any more
    assert names(find([str(inbox / "**" / "*.png")])) == ["e.png"]


def test_photos_in_the_folder_where_results_are_to_go(inbox: Path) -> None:
    with pytest.raises(SourceError, match=r"lies within .*, where results go: give another --out"):
        find([inbox], exclude=inbox)


def test_results_are_no_sources_by_another_name_of_their_folder(
    inbox: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(inbox)
    assert "e.png" not in names(find([link], exclude=inbox / "out"))
    assert "e.png" not in names(find([inbox], exclude=link / "out"))


def test_each_picture_once_in_the_order_given(inbox: Path) -> None:
    assert names(find([inbox / "deep", inbox / "b.jpg", inbox])) == ["c.tiff", "d.webp", "b.jpg", "a.PNG", "e.png"]


def test_a_named_file_counts_whatever_its_suffix(inbox: Path) -> None:
    assert names(find([inbox / "notes.txt"])) == ["notes.txt"]


def test_globs(inbox: Path) -> None:
    assert names(find([str(inbox / "*.jpg"), str(inbox / "**" / "*.webp")])) == ["b.jpg", "d.webp"]
    with pytest.raises(SourceError, match="matches nothing"):
        find([str(inbox / "*.gif")])


def test_a_name_that_looks_like_a_glob_is_a_name(inbox: Path) -> None:
    (inbox / "[1].jpg").touch()
    assert names(find([inbox / "[1].jpg"])) == ["[1].jpg"]


def test_a_way_up_from_behind_a_link(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inbox / "out")
    Path("link").symlink_to("../deep/deeper")
    for source, within in ((["link/../c.tiff"], []), (["link/../c*"], []), ([], ["link/../c.tiff"])):
        (frame,) = find(source, listed=within)
        assert os.path.abspath(str(frame.source)) == str(inbox / "deep" / "c.tiff")
    assert names(find([".", "link/.."])) == ["e.png", "c.tiff", "d.webp"]
    assert find(["../b.jpg"])[0].source == "../b.jpg"  # no link: as it was named


def test_a_loop_of_links_ends(inbox: Path) -> None:
    (inbox / "deep" / "loop").symlink_to(inbox)
    assert names(find([inbox])).count("b.jpg") == 1


def test_a_folder_that_cannot_be_listed_is_not_passed_over(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.scandir

    def refused(path: str) -> object:
        if os.path.basename(path) == "deeper":
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(os, "scandir", refused)
    frames = find([inbox])
    assert names(frames) == ["a.PNG", "b.jpg", "c.tiff", "deeper", "e.png"]
    loaded = load_picture(str(frames[3].source), None)
    assert loaded.failure == Failure("unreadable", "Permission denied")


def test_a_link_that_leads_nowhere_is_taken_so_that_a_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("gone.jpg")
    for source in (tmp_path, tmp_path / "link.jpg"):
        assert names(find([source])) == ["link.jpg"]


def test_folders_as_deep_as_the_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("deep.jpg").touch()
    os.chdir(tmp_path)
    try:
        assert names(find(["."])) == ["deep.jpg"]
    finally:
        subprocess.run(["rm", "-r", "d"], check=True)  # pytest would not manage


def test_folders_and_links_that_lead_round(inbox: Path) -> None:
    (inbox / "round.jpg").symlink_to("round.jpg")
    (inbox / "deep.jpg").symlink_to(inbox / "deep")
    assert names(find([inbox])) == ["a.PNG", "b.jpg", "round.jpg", "c.tiff", "d.webp", "e.png"]


def test_every_name_of_a_kind_that_is_read_is_taken(tmp_path: Path) -> None:
    for suffix in ("jpg", "JFIF", "MPO", "gif", "avif", "jp2", "mov"):
        (tmp_path / f"a.{suffix}").touch()
    assert len(find([tmp_path])) == 7


def test_what_macos_puts_beside_photos_is_no_photo(inbox: Path) -> None:
    for name in ("._b.jpg", "deep/._c.heic"):
        (inbox / name).touch()
    passed_over = Counter[str]()
    assert names(find([inbox], passed_over=passed_over)) == ["a.PNG", "b.jpg", "c.tiff", "d.webp", "e.png"]
    assert not passed_over
    assert names(find([inbox / "._b.jpg"])) == ["._b.jpg"]  # who names it wants it


def test_pictures_of_kinds_that_are_not_read_are_counted_once(inbox: Path) -> None:
    for name in ("1.HEIC", "deep/2.heic", "deep/3.heic", "deep/4.CR2", "deep/film.rmvb"):
        (inbox / name).touch()
    passed_over = Counter[str]()
    find([inbox / "deep", inbox, str(inbox / "*")], passed_over=passed_over)
    assert passed_over == {"heic": 3, "cr2": 1, "rmvb": 1}
    (inbox / "iphone").mkdir()
    (inbox / "iphone" / "5.heic").touch()
    with pytest.raises(SourceError, match=r"iphone \(passed over: 1 HEIC, of kinds that are not read\)"):
        find([inbox / "iphone"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        find([tmp_path / "gone"])
    with pytest.raises(SourceError, match="nothing to scan"):
        find([tmp_path])
