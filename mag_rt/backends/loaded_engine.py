"""A TensorRT engine as it runs: loaded, checked against its bundle, queued on one stream."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import Bundle
from mag_rt.cuda import LARGEST_SIDE, Gpu
from mag_rt.device_memory import Arena, DeviceArray
from mag_rt.driver import CudaError
from mag_rt.engines import EngineError, Size, UnloadableError, library_log, title
from mag_rt.parity import Annotate


class LoadedEngine:
    """An engine with its execution context, checked against the bundle.

    `plane` and the `batch_...` numbers come from its first optimisation profile. `stream`: what it runs on, always.
    """

    def __init__(self, trt: Any, engine: bytes, bundle: Bundle, gpu: Gpu, stream: Any) -> None:
        self._gpu, self._stream, self._multiple = gpu, stream, bundle.multiple
        self._log = library_log(trt)
        self.channels = 2 + len(bundle.classes)
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._types: dict[str, np.dtype[Any]] = {}
        self._title = title(trt.__name__)
        try:
            with gpu.current():
                self._load(trt, engine)
        except BaseException:
            self.close()  # here: whoever looks at the error keeps this object alive beyond the Gpu
            raise

    def close(self) -> None:
        """Wait until it does not run, and give the engine back."""
        with suppress(CudaError), self._gpu.current():
            self._stream.synchronize()
        with self._gpu.current():
            self._context = None
            self._engine = None
            self._runtime = None
        self._stream = None  # the Gpu's again

    def _load(self, trt: Any, engine: bytes) -> None:
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise UnloadableError(f"{self._title} does not load this engine: {self._log.reason()}")
        self._check_tensors(trt)
        self._read_profile()
        self._context = self._engine.create_execution_context()
        if self._context is None or not self._context.set_optimization_profile_async(0, self._stream.handle):
            raise self._failed("gives no execution context")
        self._check_smallest()

    def plane(self, placed: Size, side: int | None = None) -> Size:
        """The input for a picture: its size rounded up, within the profile. With `side`, at most that, if it may be."""
        height, width = (
            min(max(-(-length // self._multiple) * self._multiple, least), max(least, min(most, self._floor(side))))
            for length, least, most in zip(placed, self._least, self._most, strict=True)
        )
        return height, width

    def bytes_of(self, plane: Size) -> int:
        """What one picture takes as input and as maps."""
        return prod(plane) * (3 * self._types["image"].itemsize + self.channels * self._types["annotation"].itemsize)

    def take(self, arena: Arena, batch: int, plane: Size) -> tuple[DeviceArray, DeviceArray]:
        """Room for a batch's input and maps."""
        image = arena.take((batch, 3, *plane), self._types["image"])
        return image, arena.take((batch, self.channels, *plane), self._types["annotation"])

    def queue(self, image: DeviceArray, maps: DeviceArray) -> None:
        """Queue a run on the engine's stream: from `image` to `maps`. Raises EngineError."""
        context = self._context
        batch = f"a batch of {' x '.join(map(str, image.shape))}"
        self._log.complaints.clear()  # of earlier runs
        with self._gpu.current():
            if context is None or not context.set_input_shape("image", image.shape):
                raise self._failed(f"does not take {batch}")
            self._check_output(image.shape, maps.shape)  # which has an address for TensorRT, and no size
            ready = (
                context.set_tensor_address("image", image.pointer)
                and context.set_tensor_address("annotation", maps.pointer)
                and context.execute_async_v3(self._stream.handle)
            )
            if not ready:
                raise self._failed(f"does not run {batch}")

    def _floor(self, side: int | None) -> int:
        return LARGEST_SIDE if side is None else max(side // self._multiple, 1) * self._multiple

    def _check_tensors(self, trt: Any) -> None:
        engine = self._engine
        floats = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
        expected = {
            "image": (trt.TensorIOMode.INPUT, 3),
            "annotation": (trt.TensorIOMode.OUTPUT, self.channels),
        }
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if sorted(names) != sorted(expected):
            raise EngineError(f"the engine has {' and '.join(names)}, where image and annotation belong")
        for name, (mode, channels) in expected.items():
            shape, dtype = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
            if engine.get_tensor_mode(name) != mode:
                raise EngineError(f"the engine's {name} is no {mode.name.lower()}")
            if len(shape) != 4 or shape[1] != channels:
                raise EngineError(f"the engine's {name} is {shape}, where N x {channels} x H x W belongs")
            if dtype not in floats:
                raise EngineError(f"the engine's {name} is {dtype.name}; the kernels take FLOAT and HALF")
            self._types[name] = np.dtype(floats[dtype])

    def _read_profile(self) -> None:
        least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape("image", 0))
        self.batch_least, self.batch_most = least[0], most[0]
        of = self._multiple
        self._least = tuple(-(-side // of) * of for side in least[2:])
        self._most = tuple(side // of * of for side in most[2:])
        if any(low > high for low, high in zip(self._least, self._most, strict=True)):
            sides = f"{least[2]} x {least[3]} to {most[2]} x {most[3]}"
            raise EngineError(f"the engine takes pictures of {sides}, the annotator multiples of {of}")

    def _check_smallest(self) -> None:
        shape = (self.batch_least, 3, *self._least)
        if not self._context.set_input_shape("image", shape):
            raise self._failed(f"does not take its own smallest input, {shape}")
        self._check_output(shape, (self.batch_least, self.channels, *self._least))

    def _check_output(self, image: tuple[int, ...], expected: tuple[int, ...]) -> None:
        """Raises EngineError unless the context, which has been given the input's shape, makes the maps expected."""
        maps = tuple(self._context.get_tensor_shape("annotation"))
        if maps != expected:
            raise EngineError(f"the engine makes {maps} of {image}, which is no annotation of it")

    def _failed(self, what: str) -> EngineError:
        return EngineError(f"{self._title} {what}: {self._log.reason()}")


@contextmanager
def annotating(trt: Any, engine: bytes, bundle: Bundle, gpu: Gpu) -> Iterator[Annotate]:
    """What annotates with an engine and nothing around it, for the parity gate.

    The Gpu's arena must be free, and is free again afterwards. Raises as TensorRTReader does.
    """
    stream = gpu.stream()
    network = LoadedEngine(trt, engine, bundle, gpu, stream)

    def annotate(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        gpu.arena.clear()
        height, width = images.shape[2:]
        image, maps = network.take(gpu.arena, len(images), (height, width))
        annotation = np.empty(maps.shape, maps.dtype)
        given = np.ascontiguousarray(images, image.dtype)  # kept until the stream has passed the copy
        gpu.upload(given, image, stream)
        network.queue(image, maps)
        gpu.download(maps, annotation, stream)
        with gpu.current():
            stream.synchronize()
        return annotation

    try:
        yield annotate
    finally:
        network.close()
        gpu.arena.clear()
