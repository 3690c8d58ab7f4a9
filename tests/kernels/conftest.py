"""Every test here may ask for a Gpu, or for a Board to lay arrays out on it."""

from tests.kernels.fixtures import board as board
from tests.kernels.fixtures import cuda as cuda
from tests.kernels.fixtures import gpu as gpu
from tests.kernels.fixtures import open_gpu as open_gpu
