"""Files that are there whole or not at all, whatever ends the scan while they are written, but for a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what was written there takes the place of `path` when the block ends well."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    os.replace(partial, path)
