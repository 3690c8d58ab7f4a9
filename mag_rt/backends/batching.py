"""A call of the TensorRT reader cut into runs of its engine: what goes through together, within the memory there is."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np

from mag_rt.backends.loaded_engine import LoadedEngine
from mag_rt.cuda import LARGEST_SIDE
from mag_rt.device_memory import ALIGNMENT, Arena, DoesNotFitError
from mag_rt.engines import Size
from mag_rt.pictures import Picture, shrink, shrunk
from mag_rt.reading import tiling


@dataclass(frozen=True, eq=False)
class Task:
    """A look at a picture of a call. `picture`: what goes up; `size`: of its mask; `placed`: as the network sees it;
    `plane`: the engine's input that it goes into, `tiled` when it takes several."""

    index: int
    picture: Picture
    size: Size
    placed: Size
    plane: Size
    tiled: bool


@dataclass(frozen=True)
class Tiles:
    """Tiles of one picture. `placed`: its size; `corners`: (left, top) of each; `first`: none came before them."""

    placed: Size
    corners: list[tuple[int, int]]
    first: bool


@dataclass(frozen=True)
class Run:
    """A run of the engine. `pictures`: what goes up, whole or tiles; `placed`: the size that the network sees each at;
    `finishes`: whose masks are done with it."""

    plane: Size
    pictures: list[Picture]
    placed: list[Size]
    finishes: list[Task]
    tiles: Tiles | None = None


class Batching:
    """Which pictures, or tiles of one, go through an engine together.

    Pictures with a side over `max_side` are shrunk to it, and with `tiles` looked at a second time in tiles of it; what
    the engine's profile is too small for is cut into tiles as well. `slot_bytes`: of device memory for a run's pictures
    and masks; `plane_bytes`: for its input, its maps and the sums of tiles.
    """

    def __init__(self, engine: LoadedEngine, max_side: int, tiles: bool, *, slot_bytes: int, plane_bytes: int) -> None:
        self._engine, self._max_side, self._tiles = engine, max_side, tiles
        self._slot_bytes, self._plane_bytes = slot_bytes, plane_bytes

    def tasks(self, index: int, picture: Picture, size: Size) -> list[Task]:
        """The looks at a picture, the one of this index in the call, for a mask of `size`: whole, and close if any."""
        own, seen_whole = picture.shape[:2], shrunk(picture.shape[:2], self._max_side)
        whole = self._task(index, picture, size, seen_whole, self._engine.plane(seen_whole))
        if not self._tiles or seen_whole == own:
            return [whole]
        return [whole, self._task(index, picture, size, own, self._engine.plane(own, self._max_side))]

    def _task(self, index: int, picture: Picture, size: Size, placed: Size, plane: Size) -> Task:
        if placed[0] > plane[0] or placed[1] > plane[1]:  # tiles are cut out by the host, at the size that is read
            return Task(index, shrink(picture, max(placed)), size, placed, plane, tiled=True)
        return Task(index, picture, size, placed, plane, tiled=False)

    def fits(self, task: Task) -> bool:
        """Whether the memory and the kernels take a picture."""
        if max(*task.picture.shape, *task.size) > LARGEST_SIDE:
            return False
        batch = self._batch_within(task)
        if batch < self._engine.batch_least:
            return False
        shapes = [(*task.plane, 3)] * batch if task.tiled else [task.picture.shape]
        return self._room_for([*shapes, task.size]) > len(shapes)

    def runs(self, tasks: list[Task]) -> Iterator[Run]:
        """What runs there are of pictures that fit: those of one plane together, a picture in tiles by itself."""
        alike: dict[Size, list[Task]] = defaultdict(list)
        for task in tasks:
            if task.tiled:
                yield from self._runs_of_tiles(task)
            else:
                alike[task.plane].append(task)
        for plane, waiting in alike.items():
            while waiting:
                run = waiting[: self._how_many(waiting)]
                yield Run(plane, [task.picture for task in run], [task.placed for task in run], run)
                del waiting[: len(run)]

    def _runs_of_tiles(self, task: Task) -> Iterator[Run]:
        rows, columns = ([start for start, _ in tiling(*each)] for each in zip(task.placed, task.plane, strict=True))
        corners = [(left, top) for top in rows for left in columns]
        height, width = task.plane
        most = self._batch_within(task)
        for begin in range(0, len(corners), most):
            batch = corners[begin : begin + most]
            crops = [task.picture[top : top + height, left : left + width] for left, top in batch]
            finishes = [task] if begin + most >= len(corners) else []
            sizes = [crop.shape[:2] for crop in crops]
            yield Run(task.plane, crops, sizes, finishes, Tiles(task.placed, batch, first=begin == 0))

    def _batch_within(self, task: Task) -> int:
        """How many pictures (or tiles) of a plane go through the engine at once."""
        room = self._plane_bytes - 4 * ALIGNMENT
        if task.tiled:
            room -= prod(task.placed) * 4 * (self._engine.channels + 1)
        return min(self._engine.batch_most, room // self._engine.bytes_of(task.plane))

    def _how_many(self, waiting: list[Task]) -> int:
        """Of pictures of one plane, how many of the first go into a run."""
        first = waiting[: self._batch_within(waiting[0])]
        return self._room_for([shape for task in first for shape in (task.picture.shape, task.size)]) // 2

    def _room_for(self, shapes: list[tuple[int, ...]]) -> int:
        """How many of the first of such pictures and masks a slot has room for."""
        trial, count = Arena(0, self._slot_bytes), 0
        with suppress(DoesNotFitError):
            for shape in shapes:
                trial.take(shape, np.uint8, aligned_rows=True)
                count += 1
        return count
