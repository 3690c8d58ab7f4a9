"""What runs the network: one module each, one small protocol."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """A network that is ready to run."""

    name: str
    version: str
    """Of the library that runs it."""
    precision: str
    """Of the network: float32 or int8."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Normalised pictures N x 3 x H x W to annotations N x (2+K) x H x W, probabilities in 256 grey levels.

        Nothing behind it asks for finer ones, and as float32 those of a large picture take 50 MB.
        Raises PictureError when it cannot be run on these, or answers with what is no number.
        """
        ...

    def close(self) -> None:
        """Give back what the network holds; calling it again does nothing."""
        ...
