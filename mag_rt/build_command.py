"""`magrt build`: a TensorRT engine of a bundle, ahead of the first scan or for another machine."""

from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from mag_rt import bundle as bundles
from mag_rt.backends.loaded_engine import annotating
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu
from mag_rt.driver import CudaError
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import EngineError, Size, Spec, check, checked_bytes, describe, load_library, timed_build, title
from mag_rt.errors import MagrtError
from mag_rt.terminal import NOT_WRITTEN, UNUSABLE, stop


class Precision(str, Enum):
    """What `--precision` takes."""

    fp16 = "fp16"
    fp32 = "fp32"
    int8 = "int8"


NOT_SCANNED_WITH = "for trtexec and other programs: scans take the engine of the default --batch and --size"
NETWORKS = {Precision.fp16: "float16", Precision.fp32: "float32", Precision.int8: "int8"}


def build(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="thorough, or the folder or zip of another annotator. [edge]"),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Which of the bundle's networks: fp16 is the fastest that reads as fp32 does.")
    ] = Precision.fp16,
    batch: Annotated[
        str | None, typer.Option(metavar="MIN,OPT,MAX", help="Pictures at once; one number for always so many. [1,1,4]")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="MIN,OPT,MAX",
            help="Sides of the network's input in pixels, each SIDE or HEIGHTxWIDTH, multiples of the model's own "
            "(32); one for tiles of that size alone. [32,768x1024,1024]",
        ),
    ] = None,
    rtx: Annotated[
        bool, typer.Option("--rtx", help="Build with TensorRT-RTX, which needs no GPU to build, instead of TensorRT.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the engine here instead of into this user's cache.")
    ] = None,
) -> None:
    """Build a TensorRT engine.

    A scan with --backend tensorrt builds the engine that it lacks; this does it beforehand, since TensorRT takes
    minutes on a small machine. The engine is for this GPU and this version of TensorRT. One of TensorRT-RTX is for
    every RTX GPU from compute capability 8.0 on, and is built in a second, with or without a GPU.

    Scans take the engine of the default --batch and --size; another one is for trtexec and other programs.

    Beside the engine lies a JSON that says what it is. An engine is used only when it reads the check pictures as the
    float32 network does. That is found out here, or without a GPU in the first scan on one.

    Exit status: 0 built; 2 usage or model error, no TensorRT, cannot be built; 4 cannot be written.
    """
    try:
        bundle = bundles.load(bundles.located(model))
        spec = specification(bundle, NETWORKS[precision], batch, size)
        built = build_into(EngineCache(out), bundle, spec, rtx)
    except MagrtError as error:
        stop(error, UNUSABLE)
    except OSError as error:
        stop(f"cannot write the engine to {error.filename or out}: {error.strerror or error}", NOT_WRITTEN)
    Console(emoji=False).print(built, markup=False, highlight=False, soft_wrap=True)


def specification(bundle: Bundle, precision: str, batch: str | None, size: str | None) -> Spec:
    """What an engine is to be, from the words of the command line. Raises EngineError where they say nothing clear."""
    spec = Spec.default(bundle, precision)
    batches = spec.batch if batch is None else _three(batch, "--batch", int)
    sizes = spec.sizes if size is None else _three(size, "--size", _size)
    odd = [side for each in sizes for side in each if side % bundle.multiple]
    if odd:
        raise EngineError(
            f"--size: the {bundle.annotator} annotator takes multiples of {bundle.multiple}, not {odd[0]}"
        )
    return Spec(precision, batches, sizes)


def build_into(cache: EngineCache, bundle: Bundle, spec: Spec, rtx: bool) -> str:
    """Build an engine and keep it: with TensorRT for the GPU here, or with TensorRT-RTX for any. Check it on a GPU.

    A GPU that TensorRT-RTX does not run on counts as none. Gives a line for a person. Raises EngineError, ParityError
    when it is checked and fails, CudaError where there is no GPU and has to be one, and OSError when the engine cannot
    be written.
    """
    trt = load_library(rtx)
    with ExitStack() as held:
        gpu: Gpu | None = None
        unchecked = ""
        try:
            gpu = held.enter_context(Gpu(checked_bytes(spec, bundle)))
            describe(trt, bundle, spec, gpu)
        except (CudaError, EngineError) as error:
            if not rtx:
                raise
            gpu, unchecked = None, str(error)  # the engine is for other GPUs
        engine, notes = timed_build(trt, bundle, spec, gpu, cache)
        if gpu is not None:
            annotate = held.enter_context(annotating(trt, engine, bundle, gpu))
            notes["agreements"] = check(annotate, bundle, spec, gpu)
    path = cache.store(describe(trt, bundle, spec, gpu), engine, notes)
    library = f"{title(trt.__name__)} {trt.__version__}"
    checked = f"unchecked: {unchecked}" if unchecked else "agrees with float32"
    size, seconds = len(engine) / 1e6, notes["seconds"]
    built = f"{path}: {spec.precision}, {size:.1f} MB, built in {seconds:.1f} s by {library}, {checked}"
    return built if spec == Spec.default(bundle, spec.precision) else f"{built}; {NOT_SCANNED_WITH}"


_Value = TypeVar("_Value")


def _three(text: str, option: str, read: Callable[[str], _Value]) -> tuple[_Value, _Value, _Value]:
    """MIN,OPT,MAX, or one value for all three. Raises EngineError."""
    try:
        values = [read(part) for part in text.split(",")]
        if len(values) == 1:
            values *= 3
        low, best, high = values
    except ValueError:
        raise EngineError(f"{option} takes MIN,OPT,MAX or one value, not {text}") from None
    return low, best, high


def _size(text: str) -> Size:
    """SIDE or HEIGHTxWIDTH."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)
