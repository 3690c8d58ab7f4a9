"""A step of the players as a CUDA graph: launched at once, not kernel by kernel."""

from collections.abc import Callable

import torch

from mag_train.data.targets import Pictures
from mag_train.step import Game, Terms

Step = Callable[[Game, Pictures, Pictures], Terms]


class Recorded:
    """A step that is recorded on a GPU and replayed: its thousands of small kernels run faster than they are launched.

    The first calls are taken as they come: in them libraries choose their algorithms and optimisers make their state,
    which cannot be recorded. All calls are of pictures of the same shapes, and of the same game; the optimisers are
    `capturable`, and their rates are tensors.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    BEFORE = 3
    """Calls before the one that is recorded."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, game: Game, a: Pictures, b: Pictures) -> Terms:
        self._calls += 1
        if self._calls <= self.BEFORE:
            return self._aside(game, a, b)
        if self._graph is None:
            self._a, self._b = a, b  # where all later pictures are laid
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # which runs nothing yet
                self._terms = self._step(game, a, b)
        else:
            _lay(a, self._a)
            _lay(b, self._b)
        self._graph.replay()
        return {name: term.clone() for name, term in self._terms.items()}

    def _aside(self, game: Game, a: Pictures, b: Pictures) -> Terms:
        """On a stream of its own: nothing that is to be recorded may have been begun on the one of everything else."""
        aside, usual = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(usual)
        with torch.cuda.stream(aside):
            terms = self._step(game, a, b)
        usual.wait_stream(aside)
        return terms


def _lay(pictures: Pictures, where: Pictures) -> None:
    where.image.copy_(pictures.image)
    where.truth.copy_(pictures.truth)
    where.counted.copy_(pictures.counted)
