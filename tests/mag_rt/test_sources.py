"""What the user names becomes the pictures to scan: each once, in a stable order, never the tool's own results."""

from pathlib import Path

import pytest

from mag_rt import SourceError
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


def test_a_loop_of_links_ends(inbox: Path) -> None:
    (inbox / "deep" / "loop").symlink_to(inbox)
    assert names(find([inbox])).count("b.jpg") == 1


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        find([tmp_path / "gone"])
    with pytest.raises(SourceError, match="nothing to scan"):
        find([tmp_path])
