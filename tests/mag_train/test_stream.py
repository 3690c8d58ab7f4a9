"""Which pictures an iteration sees depends on the seed and its number alone."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mag_rt.pictures import pad
from mag_train.config import DataConfig
from mag_train.data import stream as streams
from mag_train.data.photos import Photo, labelled_photos
from mag_train.data.stream import RawPictures, SpliceStream, batches
from mag_train.data.synthesis import Picture
from tests.mag_train.test_synthesize import running

CONFIG = DataConfig(crop=64, spliced=5, authentic=2, workers=0)


def equal(first: RawPictures, second: RawPictures) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("image", "mask", "labels"))


def test_a_batch_depends_on_seed_and_number_alone(photo_folder: Path) -> None:
    photos = labelled_photos(photo_folder)
    one, two = SpliceStream(photos, CONFIG, seed=1), SpliceStream(photos, CONFIG, seed=1)
    one[0], one[3]  # what was drawn before must not matter
    for first, second in zip(one[7], two[7], strict=True):
        assert equal(first, second)
    assert not equal(one[7][0], SpliceStream(photos, CONFIG, seed=2)[7][0])
    assert not equal(one[7][0], one[8][0])


def test_no_two_pictures_of_a_run_draw_from_one_generator(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[int, ...]] = []

    def drawn(image: NDArray[np.uint8], labels: NDArray[np.uint8], *rest: Any) -> Picture:
        seeds.append(tuple(rest[-1].bit_generator.seed_seq.entropy))
        return Picture(image[:64, :64], labels[:64, :64], labels[:64, :64])

    for name in ("spliced", "authentic"):
        monkeypatch.setattr(streams, name, drawn)
    stream = SpliceStream(labelled_photos(photo_folder), CONFIG, seed=1)
    stream[0], stream[1]
    assert len(seeds) == len(set(seeds)) == 2 * (5 + 2) and {seed for seed, *_ in seeds} == {1}


def test_workers_give_the_same_batches_in_the_same_order(photo_folder: Path) -> None:
    photos = labelled_photos(photo_folder)
    here = list(batches(SpliceStream(photos, CONFIG, seed=1), range(2, 5)))
    there = list(batches(SpliceStream(photos, CONFIG.model_copy(update={"workers": 2}), seed=1), range(2, 5)))
    assert len(here) == len(there) == 3
    for (a, b), (c, d) in zip(here, there, strict=True):
        assert equal(a, c) and equal(b, d)


def test_a_batch_holds_what_was_asked_for(photo_folder: Path) -> None:
    a, b = SpliceStream(labelled_photos(photo_folder), CONFIG, seed=1)[0]
    assert a.image.shape == (5, 64, 64, 3) and b.image.shape == (2, 64, 64, 3)
    assert a.image.dtype == a.mask.dtype == a.labels.dtype == torch.uint8
    assert a.mask.any() and not b.mask.any()


def mirrored_from(plane: NDArray[Any]) -> int:
    """The row from which on the plane mirrors what is above, as the runtime's `pad` makes it; its height if none."""
    height = len(plane)
    return next(
        (start for start in range(height - 31, height) if np.array_equal(pad(plane[:start], height), plane)), height
    )


def test_half_of_the_pictures_end_short_and_are_padded_as_at_run_time(photo_folder: Path) -> None:
    stream = SpliceStream(labelled_photos(photo_folder), CONFIG, seed=1)
    ends = []
    for a, b in (stream[number] for number in range(20)):
        for each in (a, b):
            planes = torch.cat([each.image, each.mask[..., None], each.labels[..., None]], dim=-1).numpy()
            ends += [(mirrored_from(picture), mirrored_from(picture.swapaxes(0, 1))) for picture in planes]
    short = [end for end in ends if end != (64, 64)]
    assert 0.4 < len(short) / len(ends) < 0.6
    for side in zip(*short, strict=True):
        assert min(side) <= 36 and max(side) >= 62


def test_every_photo_is_a_host_once_an_epoch(photo_folder: Path) -> None:
    photos = labelled_photos(photo_folder)
    stream = SpliceStream(photos, CONFIG, seed=1)
    assert stream.batches_per_epoch == 3  # 12 photos, 5 a batch
    for epoch in range(3):
        assert {stream._host(epoch * len(photos) + number) for number in range(len(photos))} == set(range(len(photos)))
    first, second = (
        [stream._host(epoch * len(photos) + number) for number in range(len(photos))] for epoch in range(2)
    )
    other = SpliceStream(photos, CONFIG, seed=2)
    assert first != second and first != [other._host(number) for number in range(len(photos))]


STARTS = """
import sys, time
from pathlib import Path
if __name__ != "__main__":  # the worker, on its way
    Path(sys.argv[2]).write_text("")
    time.sleep(2)
else:
    from mag_train.config import DataConfig
    from mag_train.data.photos import labelled_photos
    from mag_train.data.stream import SpliceStream, batches
    config = DataConfig(crop=64, spliced=1, authentic=1, workers=1)
    drawn = batches(SpliceStream(labelled_photos(Path(sys.argv[1])), config, seed=1), range(10**9))
    time.sleep(100)
"""


def test_workers_end_with_a_trainer_that_is_killed_while_they_start(photo_folder: Path, tmp_path: Path) -> None:
    script, begun = tmp_path / "starts.py", tmp_path / "begun"
    script.write_text(STARTS)
    trainer = subprocess.Popen([sys.executable, script, photo_folder, begun])
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline and trainer.poll() is None
        time.sleep(0.05)
    workers = [number for number, parent in running().items() if parent == trainer.pid]
    trainer.kill()
    trainer.wait()
    while running().keys() & set(workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_photo_that_cannot_be_read_gives_way_to_another(photo_folder: Path, tmp_path: Path) -> None:
    good = labelled_photos(photo_folder)
    (tmp_path / "bad.jpg").write_bytes(b"corrupt")
    photos = [Photo(tmp_path / "bad.jpg", None), *good[:3]]
    drawn = [SpliceStream(photos, CONFIG, seed=1)[iteration][0] for iteration in range(4)]
    assert all(batch.image.shape[0] == 5 for batch in drawn)
    assert {path for batch in drawn for path in batch.unreadable} == {str(tmp_path / "bad.jpg")}
    with pytest.raises(RuntimeError, match="none of the photos"):
        SpliceStream(photos[:1], CONFIG, seed=1)[0]
