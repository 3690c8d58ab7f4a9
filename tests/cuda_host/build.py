"""Builds what the CUDA host is made of: the driver, kernels for it, and pycuda; each once, in a cache."""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
INCLUDE = HERE / "include"

PYCUDA = "2026.1"
PYCUDA_REQUIREMENTS = (
    "pytools==2026.1.1",
    "platformdirs==4.12.4",  # the last for Python 3.10
    "mako==1.4.3",
    "MarkupSafe==3.0.4",
    "typing-extensions==4.15.0",
)
PYCUDA_BUILD_REQUIREMENTS = ("setuptools==84.2.1", "wheel==0.48.0", "numpy==2.4.6; python_version >= '3.11'")

_COMPILE = ("-std=c++17", "-g", "-fPIC")
_UNDEFINED = "alignment,bounds,integer-divide-by-zero,shift-exponent,float-cast-overflow,signed-integer-overflow"
_DEVICE = (
    "-O1",
    "-ffp-contract=off",  # a product and a sum are two roundings, as with --fmad=false
    "-fno-strict-aliasing",  # nvcc has none
    "-fno-tree-vectorize",
    "-fno-store-merging",  # every access as the source has it
    "-fno-exceptions",
    "-fno-semantic-interposition",
    "-fno-gnu-unique",  # each load of a module has its own shared memory, of templates too
    "-Wno-unknown-pragmas",
    f"-fsanitize={_UNDEFINED}",
)
# g++ tells instrumentation.cpp of every access; with AddressSanitizer it tells that one instead.
_CHECKED = ("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-D__shared__=static thread_local")
_SANITIZED = ("-fsanitize=address", "-fno-omit-frame-pointer", "-D__shared__=static")

_ALIGNMENT = r"(?:__attribute__\s*\(\(aligned\(\d+\)\)\)|alignas\s*\([^)]*\))"
_DYNAMIC_SHARED = re.compile(
    rf"\bextern\s+(?:{_ALIGNMENT}\s*)?__shared__\s+(?:{_ALIGNMENT}\s*)?([\w:\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
_KERNEL = re.compile(r"(?:__global__\s+void|void\s+__global__)\s+(\w+)\s*\(")


class BuildError(Exception):
    """Something cannot be built here; the message says what, and what would help."""


def cache() -> Path:
    """Where builds are kept: $CUDA_HOST_CACHE, or `.cache/cuda_host` at the root of the checkout."""
    return Path(os.environ.get("CUDA_HOST_CACHE") or HERE.parent.parent / ".cache" / "cuda_host")


def headers() -> Path:
    """NVIDIA's cuda.h, cuda_fp16.h and others, from the wheel nvidia-cuda-runtime-cu12."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations if spec else None) or ():
        if (include := Path(root) / "cuda_runtime" / "include").joinpath("cuda_fp16.h").exists():
            return include
    raise BuildError("NVIDIA's headers are missing: pip install 'nvidia-cuda-runtime-cu12==12.6.*'")


def build_driver(sanitize: bool = False) -> Path:
    """The functional libcuda.so.1; with `sanitize`, under AddressSanitizer."""
    sources = sorted((HERE / "driver").glob("*.cpp"))
    flags = [*_COMPILE, "-fvisibility=hidden", "-O2", "-Wall", "-Wextra", "-Wno-deprecated-declarations"]
    flags += ["-DCUDA_HOST_DRIVER"]
    includes = [f"-I{INCLUDE}", f"-isystem{headers()}"]
    if sanitize:
        flags += ["-fsanitize=address", "-fno-omit-frame-pointer"]

    def make(folder: Path) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [folder / f"{source.stem}.o" for source in sources]
            jobs = zip(sources, objects, strict=True)
            list(pool.map(lambda job: _gxx("-c", str(job[0]), "-o", str(job[1]), *flags, *includes), jobs))
        library = folder / "libcuda.so.1"
        link = ["-shared", "-Wl,-soname,libcuda.so.1", "-Wl,-z,defs", *(["-fsanitize=address"] if sanitize else [])]
        _gxx(*link, *map(str, objects), "-o", str(library), "-ldl")
        (folder / "libcuda.so").symlink_to(library.name)  # pycuda's linker asks for this name
        for each in objects:
            each.unlink()

    inputs = [*sources, *sorted((HERE / "driver").glob("*.h")), INCLUDE / "cuda_host" / "abi.h"]
    return _once("driver", _digest(flags, *(path.read_bytes() for path in inputs)), make) / "libcuda.so.1"


def build_kernels(source: Path, include_dirs: Iterable[Path] = (), sanitize: bool = False) -> Path:
    """A CUDA C++ source, unmodified, as a library that the driver can load in place of its PTX.

    Every `extern "C" __global__ void` becomes a kernel. With `sanitize`, under AddressSanitizer instead of the driver's
    own checks of every access. Raises BuildError with the compiler's words.
    """
    driver = build_driver(sanitize)
    includes = [f"-I{folder}" for folder in (*include_dirs, source.parent)] + [f"-I{INCLUDE}", f"-isystem{headers()}"]
    flags = [*_COMPILE, *_DEVICE, *(_SANITIZED if sanitize else _CHECKED)]
    text = _gxx("-E", "-xc++", "-std=c++17", *includes, "-include", "cuda_host/device.h", str(source))
    names = list(dict.fromkeys(_KERNEL.findall(text)))
    if not names:
        raise BuildError(f'{source}: no extern "C" __global__ void function')
    # The pointer stands for the array: unlike an array of unknown size it needs no definition elsewhere.
    text = _DYNAMIC_SHARED.sub(r"\1 *const \2 = cuda_host::dynamic_shared<\1>();", text)
    text += '\nextern "C" __attribute__((visibility("default"))) thread_local char cuda_host_shared = 0;\n'
    text += 'extern "C" __attribute__((visibility("default"))) const cuda_host::Kernel cuda_host_kernels[] = {\n'
    text += "".join(f'    cuda_host::Entry<{name}>::describe("{name}"),\n' for name in names) + "    {}};\n"
    text = re.sub(r"\b__global__\b", "", text)

    def make(folder: Path) -> None:
        (folder / "kernels.ii.cpp").write_text(text)
        _gxx(*flags, "-c", str(folder / "kernels.ii.cpp"), "-o", str(folder / "kernels.o"))
        hooks = [*_COMPILE, "-fvisibility=hidden", "-O2", "-Wno-builtin-declaration-mismatch", *includes]
        _gxx(*hooks, "-c", str(INCLUDE / "cuda_host" / "instrumentation.cpp"), "-o", str(folder / "hooks.o"))
        link = ["-shared", "-Wl,-z,defs,-Bsymbolic", *(["-fsanitize=address"] if sanitize else [])]
        _gxx(*link, str(folder / "kernels.o"), str(folder / "hooks.o"), "-o", str(folder / "kernels.so"), str(driver))

    hooks = (INCLUDE / "cuda_host" / "instrumentation.cpp").read_bytes()
    return _once("kernels", _digest(flags, text.encode(), hooks, str(driver).encode()), make) / "kernels.so"


def build_pycuda() -> Path:
    """pycuda from its source, linked to the driver; a folder for `sys.path`. Takes a minute or two the first time."""
    driver = build_driver()
    python = f"{sys.implementation.cache_tag}"
    key = _digest([PYCUDA, *PYCUDA_REQUIREMENTS, *PYCUDA_BUILD_REQUIREMENTS, python], b"")

    def make(folder: Path) -> None:
        environment = os.environ | {
            "CPLUS_INCLUDE_PATH": f"{INCLUDE}:{headers()}",
            "LIBRARY_PATH": str(driver.parent),
            **dict.fromkeys(("CFLAGS", "CXXFLAGS"), "-O0 -g0 -w"),  # most of it is Boost.Python, which may be slow
        }
        with tempfile.TemporaryDirectory() as scratch:
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text("\n".join(PYCUDA_BUILD_REQUIREMENTS))
            config = Path(scratch) / ".aksetup-defaults.py"
            config.write_text(f"CUDA_ENABLE_CURAND = False\nCUDADRV_LIB_DIR = [{str(driver.parent)!r}]\n")
            environment |= {"HOME": scratch, "PIP_CONSTRAINT": str(constraints)}
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
            source = ["--no-binary=pycuda", f"pycuda=={PYCUDA}", *PYCUDA_REQUIREMENTS]
            done = subprocess.run([*pip, "--no-deps", "--target", str(folder), *source], env=environment, **_CAPTURED)
        if done.returncode:
            raise BuildError(f"pycuda {PYCUDA} cannot be built (is PyPI reachable?):\n{done.stdout[-4000:]}")

    return _once("pycuda", f"{PYCUDA}-{python}-{key}", make)


_CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def runtime_library(name: str) -> Path:
    """Where GCC keeps a library of its own, such as libasan.so."""
    path = Path(_gxx(f"-print-file-name={name}").strip())
    if not path.is_absolute():
        raise BuildError(f"GCC's {name} is missing: install it")
    return path.resolve()


def _gxx(*arguments: str) -> str:
    """Run g++; what it prints."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise BuildError(f"{compiler} is missing: install a C++17 compiler of GCC")
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{compiler} {' '.join(arguments)}:\n{done.stderr[-8000:]}")
    return done.stdout


def _digest(flags: Iterable[str], *contents: bytes) -> str:
    digest = hashlib.sha256("\0".join(flags).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:24]


def _once(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` has filled, now or earlier, in this process or another."""
    folder = cache() / kind / key
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{key}.unfinished-"))
            try:
                make(unfinished)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished)
                raise
    return folder
