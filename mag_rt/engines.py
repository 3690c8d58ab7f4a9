"""TensorRT engines of a bundle's networks: built when missing, used when they agree with the reference."""

import gc
import hashlib
import importlib
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from mag_rt.bundle import Bundle
from mag_rt.device_memory import ALIGNMENT
from mag_rt.engine_cache import EngineCache, write
from mag_rt.errors import MagrtError
from mag_rt.layout import MOST_CHANNELS
from mag_rt.parity import Annotate, ParityError, gate

Size = tuple[int, int]
"""Height and width, pixels."""

INSTALL = {
    "tensorrt": "pip install 'magrt[gpu-cu12]' or 'magrt[gpu-cu13]'; a Jetson has it in JetPack (python3-libnvinfer)",
    "tensorrt_rtx": "pip install 'magrt[rtx]'",
}
WORKSPACE = 2 << 30
"""Bytes that a layer may use beside its tensors: `paper` at 1024 x 1024 wants 1.2 GB. A Jetson's GPU shares them."""
CHECK_SIZE = (256, 320)
"""Of the check pictures, as far as the engine takes it."""
ANY_GPU = "any"
"""The GPU that an engine of TensorRT-RTX is for."""
BESIDE_THE_POINT = ("cudaError", "CUDA init", "The logger passed into createInfer")
"""In what a library complains of on a machine without a GPU, or where another part of the process uses it too."""


class EngineError(MagrtError):
    """No engine can be built or used here; the message says why and, where something would, what helps."""


class UnloadableError(EngineError):
    """The library does not load an engine. One that was kept may be of another time, and a new one help."""


class Device(Protocol):
    """The GPU that an engine is for; `mag_rt.cuda.Gpu` is one."""

    name: str
    capability: tuple[int, int]


class Built(NamedTuple):
    """What a build gives."""

    engine: bytes
    timings: bytes
    """What the build learnt of this GPU, to make the next one faster; empty for TensorRT-RTX, which times nothing."""


@dataclass(frozen=True)
class Spec:
    """What an engine is to be: smallest, best and largest batch and size. Raises EngineError where they are no such."""

    precision: str
    """float32, float16 or int8: which of the bundle's networks."""
    batch: tuple[int, int, int]
    sizes: tuple[Size, Size, Size]

    def __post_init__(self) -> None:
        heights, widths = zip(*self.sizes, strict=True)
        for what, (low, best, high) in (("batch", self.batch), ("height", heights), ("width", widths)):
            if not 1 <= low <= best <= high:
                raise EngineError(f"{what} {low},{best},{high} is not smallest, best, largest")

    @property
    def shapes(self) -> list[tuple[int, int, int, int]]:
        """N x 3 x H x W of the smallest, the best and the largest input."""
        return [(count, 3, *size) for count, size in zip(self.batch, self.sizes, strict=True)]

    @classmethod
    def default(cls, bundle: Bundle, precision: str) -> "Spec":
        """For pictures as a scan shrinks them by default, best at the shape of a photo, 4:3."""
        multiple, side = bundle.multiple, -(-bundle.max_side // bundle.multiple) * bundle.multiple
        best = (-(-side * 3 // 4 // multiple) * multiple, side)
        return cls(precision, (1, 1, 4), ((multiple, multiple), best, (side, side)))


def load_library(rtx: bool) -> Any:
    """The module tensorrt or tensorrt_rtx. Raises EngineError when it is missing, broken or of the wrong version."""
    name = "tensorrt_rtx" if rtx else "tensorrt"
    try:
        trt = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise EngineError(f"{title(name)} is incomplete ({error}): {INSTALL[name]}") from None
        raise EngineError(f"{title(name)} is not installed: {INSTALL[name]}") from None
    except (ImportError, OSError, RuntimeError) as error:  # its libraries or the driver's are missing
        raise EngineError(f"{title(name)} does not load ({str(error).splitlines()[0]}): {INSTALL[name]}") from None
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if not rtx and not (10, 3) <= version < (12, 0):
        raise EngineError(f"TensorRT {trt.__version__} is here; magrt takes 10.3 to 11.x: {INSTALL[name]}")
    return trt


def title(name: str) -> str:
    """What people call the library of a module."""
    return "TensorRT-RTX" if name == "tensorrt_rtx" else "TensorRT"


def build(trt: Any, network: bytes, spec: Spec, timings: bytes = b"") -> Built:
    """Build the engine of an ONNX network. trt: the module tensorrt (10.3 to 11.x) or tensorrt_rtx.

    The network is strongly typed: what is float16 in the ONNX is float16 in the engine and nothing else is. Input
    `image` N x 3 x H x W, output `annotation`, as docs/formats.md says.

    Raises EngineError, with the library's own words, when it cannot be built or is not what the precision promises.
    """
    journal = library_log(trt)
    try:
        builder = trt.Builder(journal)
    except TypeError:  # how a null pointer from the library surfaces in Python
        raise EngineError(f"{title(trt.__name__)} does not start: {journal.reason()}") from None
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, journal)
    if not parser.parse(network):
        raise EngineError(f"the {spec.precision} network cannot be read: {_complaints(parser) or journal.reason()}")
    _check_interface(definition, spec)
    _check_precision(trt, definition, spec.precision, journal)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    # TF32 has ten bits: it would round the picture before the high-pass, which float16 networks keep in float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    try:
        profile.set_shape("image", *spec.shapes)
    except (RuntimeError, TypeError, ValueError) as error:  # numbers beyond what the library counts to
        raise EngineError(f"{title(trt.__name__)} takes no pictures of {spec.shapes}: {error}") from None
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"the {spec.precision} network does not take {spec.shapes}: {journal.reason()}")
    times = trt.__name__ == "tensorrt"  # in TensorRT-RTX timing caches do nothing, and say that they are deprecated
    if times:
        _set_timings(config, timings)
    engine = builder.build_serialized_network(definition, config)
    if engine is None:
        raise EngineError(f"{title(trt.__name__)} cannot build the {spec.precision} network: {journal.reason()}")
    return Built(bytes(engine), bytes(config.get_timing_cache().serialize()) if times else b"")


def _set_timings(config: Any, known: bytes) -> None:
    """Let the build start from known timings, or from none where they are damaged or another GPU's."""
    for timings in (known, b""):
        cache = config.create_timing_cache(timings)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def engine_for(
    trt: Any,
    bundle: Bundle,
    spec: Spec,
    gpu: Device,
    run: Callable[[bytes], AbstractContextManager[Annotate]],
    cache: EngineCache,
    *,
    anew: bool = False,
) -> bytes:
    """The engine of a bundle for this GPU, from the cache or newly built, that agrees with the float32 reference.

    run: gives, of an engine, what annotates with it on the GPU; used on the first time that an engine meets a GPU.
    anew: build one in the place of the cache's, which does not load. A cache that cannot be written makes it slow, not
    impossible.

    Raises UnloadableError when the cache's does not load, EngineError or ParityError with a line that says why there is
    no such engine; a refusal is remembered, of this GPU alone.
    """
    facts = describe(trt, bundle, spec, gpu)
    notes = cache.notes(facts)
    refused = notes.get("refused") or notes.get("refused_on", {}).get(gpu.name)
    if refused:
        raise EngineError(f"{refused} (magrt build tries again)")
    kept = None if anew else cache.find(facts)
    if kept is not None and gpu.name in kept.notes.get("agreements", {}):
        return kept.engine
    engine, notes = (kept.engine, kept.notes) if kept is not None else timed_build(trt, bundle, spec, gpu, cache)
    try:
        with run(engine) as annotate:
            agreement = check(annotate, bundle, spec, gpu)
    except UnloadableError as error:
        if kept is None:  # another new one would be no better
            raise EngineError(str(error)) from None
        raise
    except ParityError as error:
        with suppress(OSError):
            _refuse(cache, facts, engine, notes, gpu, str(error))
        raise
    with suppress(OSError):
        cache.store(facts, engine, _noted(notes, "agreements", agreement))
    return engine


def check(annotate: Annotate, bundle: Bundle, spec: Spec, gpu: Device) -> dict[str, Any]:
    """The agreement of an engine that passes the gate, by the GPU's name. Raises ParityError when it does not."""
    agreement = gate(annotate, bundle, spec.precision, *checked_shape(spec, bundle.multiple))
    return {gpu.name: asdict(agreement)}


def _refuse(
    cache: EngineCache, facts: dict[str, Any], engine: bytes, notes: dict[str, Any], gpu: Device, reason: str
) -> None:
    """Remember that an engine is wrong on a GPU; one that goes to others is kept for them."""
    if facts["gpu"] == ANY_GPU:
        cache.store(facts, engine, _noted(notes, "refused_on", {gpu.name: reason}))
    else:
        cache.refuse(facts, reason)


def _noted(notes: dict[str, Any], what: str, by_gpu: dict[str, Any]) -> dict[str, Any]:
    """Notes with something more that is known by the GPU's name."""
    return {**notes, what: {**notes.get(what, {}), **by_gpu}}


def timed_build(
    trt: Any, bundle: Bundle, spec: Spec, gpu: Device | None, cache: EngineCache
) -> tuple[bytes, dict[str, Any]]:
    """Build an engine of a bundle and say when and how long; timings are kept in the cache. Raises EngineError.

    gpu: may be None for TensorRT-RTX, which builds for every GPU that it knows.
    """
    facts = describe(trt, bundle, spec, gpu)
    known = (
        cache.folder / f"{facts['library']}-{facts['version']}-{re.sub(r'[^0-9A-Za-z]+', '-', facts['gpu'])}.timings"
    )
    timings = b""
    with suppress(OSError):
        timings = known.read_bytes()
    begun = time.perf_counter()
    built = build(trt, bundle.network_in(spec.precision), spec, timings)
    seconds = time.perf_counter() - begun
    if built.timings:
        with suppress(OSError):
            write(known, built.timings)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return built.engine, {"built": now, "seconds": round(seconds, 2)}


def describe(trt: Any, bundle: Bundle, spec: Spec, gpu: Device | None) -> dict[str, Any]:
    """Everything that an engine depends on, which is what the cache finds it by. Raises EngineError, BundleError.

    An engine of TensorRT-RTX is compiled for the GPU where it is loaded and goes to any of them; one of TensorRT is for
    the GPU that it was built on. None is of use where the kernels do not take what it gives.
    """
    if 2 + len(bundle.classes) > MOST_CHANNELS:
        raise EngineError(f"the kernels take up to {MOST_CHANNELS - 2} classes; the bundle has {len(bundle.classes)}")
    if trt.__name__ == "tensorrt_rtx":
        if gpu is not None and gpu.capability < (8, 0):
            raise EngineError(f"TensorRT-RTX engines need compute capability 8.0; {gpu.name} has {_dotted(gpu)}")
        target = {"gpu": ANY_GPU, "capability": "8.0 and later"}
    elif gpu is None:
        raise EngineError("TensorRT builds for the GPU that it builds on, and there is none here; --rtx needs none")
    else:
        target = {"gpu": gpu.name, "capability": _dotted(gpu)}
    return {
        "annotator": bundle.annotator,
        "bundle": bundle.sha256,
        "input": asdict(bundle.normalisation),
        "mask_threshold": bundle.mask_threshold,
        "network": hashlib.sha256(bundle.network_in(spec.precision)).hexdigest(),
        "precision": spec.precision,
        "batch": list(spec.batch),
        "sizes": [list(size) for size in spec.sizes],
        "library": trt.__name__,
        "version": trt.__version__,
        **target,
    }


def checked_shape(spec: Spec, multiple: int) -> tuple[int, Size]:
    """The batch and the size that an engine is checked at: several pictures if it takes them."""
    (low_h, low_w), _, (high_h, high_w) = spec.sizes
    size = (min(max(CHECK_SIZE[0], low_h), high_h), min(max(CHECK_SIZE[1], low_w), high_w))
    return spec.batch[2], (-(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple)


def checked_bytes(spec: Spec, bundle: Bundle) -> int:
    """Of device memory that an engine is checked in, for the pictures and their maps, float32 at most."""
    batch, (height, width) = checked_shape(spec, bundle.multiple)
    return batch * height * width * (3 + 2 + len(bundle.classes)) * 4 + 2 * ALIGNMENT


def library_log(trt: Any) -> Any:
    """A logger that keeps what the library complains of, to be told when it gives up.

    To be made right before the builder or runtime that it is for. The library logs while it holds a lock, which the end
    of an earlier builder takes too: garbage that holds one is collected now, or Python might do so in the log, and wait
    for itself forever.
    """
    gc.collect()

    class Journal(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.complaints: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                self.complaints.append(_plain(message))

        def reason(self) -> str:
            """The first complaints that say something of what was asked for."""
            telling = [each for each in self.complaints if not any(other in each for other in BESIDE_THE_POINT)]
            return "; ".join((telling or self.complaints)[:3]) or "no reason given"

    return Journal()


def _complaints(parser: Any) -> str:
    """What the ONNX parser found wrong, each with the node where it is."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{each.node_operator()} {each.node_name()}: {_plain(each.desc())}".strip(" :") for each in errors)


def _plain(message: str) -> str:
    """The first line of a message that tells something, without the library's own source files."""
    if "Plugin not found" in message:  # what is looked for when nothing else goes by the operator's name
        return "unknown operator"
    told = [line for line in message.strip().splitlines() if not line.startswith("Invalid Node")]
    return re.sub(r"\s*\.?\s*In \w+ at [^\s)]+:\d+|\S+\.cpp:\d+:\s*", "", told[0]).strip() if told else ""


def _check_interface(definition: Any, spec: Spec) -> None:
    """Raises EngineError unless the network takes `image` of such shapes, gives `annotation`, and nothing else."""
    inputs = [definition.get_input(index) for index in range(definition.num_inputs)]
    outputs = [definition.get_output(index).name for index in range(definition.num_outputs)]
    names = [each.name for each in inputs]
    if names != ["image"] or outputs != ["annotation"]:
        raise EngineError(
            f"the {spec.precision} network turns {_listed(names)} into {_listed(outputs)}; "
            "an annotator turns image into annotation"
        )
    takes = tuple(inputs[0].shape)
    for shape in spec.shapes:
        if len(takes) != 4 or any(have not in (-1, want) for have, want in zip(takes, shape, strict=True)):
            raise EngineError(f"the {spec.precision} network takes {_by(takes)}, and is asked to take {_by(shape)}")


def _check_precision(trt: Any, definition: Any, precision: str, journal: Any) -> None:
    """Raises EngineError when the network computes otherwise than its precision promises."""
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    if precision == "float16":
        heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
        taken = [(layer.name, layer.get_input(0)) for layer in layers if layer.type in heavy]
        # What looks at the picture's own three channels is the high-pass, which has to be float32.
        left = [name for name, tensor in taken if tensor.dtype == trt.float32 and tuple(tensor.shape)[1:2] != (3,)]
        if left:
            raise EngineError(f"float32 is left inside the float16 network: {len(left)} layers, {', '.join(left[:3])}")
    if precision == "int8":
        if not any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
            raise EngineError("the int8 network quantises nothing; TensorRT takes signed QDQ")
        unsigned = [each for each in journal.complaints if "UINT8" in each]  # it would go on with wrong numbers
        if unsigned:
            raise EngineError(f"the int8 network is not signed QDQ: {unsigned[0]}")


def _dotted(gpu: Device) -> str:
    return ".".join(map(str, gpu.capability))


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join("any" if side == -1 else str(side) for side in shape)
