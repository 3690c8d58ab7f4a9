"""Benchmarks to measure on: pictures and the masks of what was done to them. One short module for each dataset."""

from collections.abc import Callable
from pathlib import Path

from mag_train.data.tampered import (
    carvalho,
    casia,
    columbia,
    coverage,
    fantastic_reality,
    manifest,
    pair,
    realistic_tampering,
)
from mag_train.data.tampered.picture import AUTHENTIC, Tampered, Truth, TruthError, resize_mask

__all__ = ["AUTHENTIC", "READERS", "Tampered", "Truth", "TruthError", "read", "resize_mask"]

READERS: dict[str, Callable[[Path], list[Tampered]]] = {
    "fantastic-reality": fantastic_reality.read,
    "casia1": casia.read_v1,
    "casia2": casia.read_v2,
    "columbia": columbia.read,
    "carvalho": carvalho.read,
    "realistic-tampering": realistic_tampering.read,
    "coverage": coverage.read,
    "pair": pair.read,
    "manifest": manifest.read,
}
"""From a folder in the published layout to its pictures, in a stable order."""


def read(name: str, folder: Path) -> list[Tampered]:
    """The pictures of a dataset in `folder`.

    `name` is one of `READERS`; parts behind a slash keep the pictures of one dataset or kind, as in `casia1/spliced` or
    `manifest/columbia/spliced`.

    Raises ValueError for a name that is not known, a folder that is not as the reader expects, or a selection that
    leaves nothing.
    """
    reader, *wanted = name.split("/")
    if reader not in READERS:
        raise ValueError(f"no dataset {reader!r}; there are {', '.join(READERS)}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    pictures = READERS[reader](folder)
    chosen = [each for each in pictures if set(wanted) <= {each.dataset, each.kind}]
    if not chosen:
        there = sorted({f"{each.dataset}/{each.kind}" for each in pictures})
        raise ValueError(f"{folder}: nothing is {name}; there is {', '.join(there)}")
    return chosen
