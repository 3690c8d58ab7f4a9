"""The PTX in the tree: made from these sources, callable as mag_rt.cuda calls it, and in the wheel."""

import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from mag_rt.driver import KERNELS

ROOT = Path(__file__).parents[2]
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
PTX_TYPE = {"P": "u64", "Q": "u64", "i": "u32", "f": "f32"}


NO_FRAME = ("0", "0", "0")


def frames(log: str) -> list[tuple[str, str, str]]:
    """Of each kernel the bytes of stack, of spill stores and of spill loads, as ptxas -v says."""
    return re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)


@pytest.mark.skipif(
    not (find_spec("nvidia") and find_spec("nvidia.cuda_nvrtc")),
    reason="NVRTC is not installed: nvidia-cuda-nvrtc-cu12",
)
def test_the_ptx_is_what_the_sources_give() -> None:
    if (have := version("nvidia-cuda-nvrtc-cu12")) != "12.6.85":
        pytest.skip(f"the PTX was made by NVRTC 12.6.85, here is {have}")
    made = runpy.run_path(str(ROOT / "kernels/scripts/compile.py"))["ptx"]()
    assert made == (ROOT / "kernels/magrt.ptx").read_text(), "run `make kernels`"


def test_the_ptx_says_nothing_of_where_it_was_made() -> None:
    ptx = (ROOT / "kernels/magrt.ptx").read_text()
    assert str(ROOT) not in ptx and ".file" not in ptx and ".loc" not in ptx
    assert ".target sm_75" in ptx


def test_every_kernel_is_called_with_the_parameters_that_it_has() -> None:
    ptx = (ROOT / "kernels/magrt.ptx").read_text()
    entries = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.S)
    types = {name: re.findall(r"\.param \.(\w+)", parameters) for name, parameters in entries}
    assert types == {name: [PTX_TYPE[letter] for letter in letters] for name, letters in KERNELS.items()}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_nvcc_has_nothing_to_warn_of_and_spills_nothing(tmp_path: Path) -> None:
    supported = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    architectures = [number for number in ARCHITECTURES if f"sm_{number}" in supported]
    assert architectures
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    flags = ["-std=c++17", "--fmad=false", "-Werror", "all-warnings", "-Xptxas", "-v", "--threads", "2"]
    command = [
        "nvcc",
        "-fatbin",
        *targets,
        *flags,
        str(ROOT / "kernels/magrt.cu"),
        "-o",
        str(tmp_path / "magrt.fatbin"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    log = result.stdout + result.stderr
    assert result.returncode == 0 and "warning" not in log, log
    assert frames(log) == [NO_FRAME] * len(architectures) * len(KERNELS)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_driver_makes_of_the_ptx_spills_nothing(architecture: int, tmp_path: Path) -> None:
    command = [
        "ptxas",
        "-v",
        f"-arch=sm_{architecture}",
        str(ROOT / "kernels/magrt.ptx"),
        "-o",
        str(tmp_path / "cubin"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    log = result.stdout + result.stderr
    if "is not defined for option 'gpu-name'" in log:
        pytest.skip(f"this ptxas does not know sm_{architecture}")
    assert result.returncode == 0 and "warning" not in log, log
    assert frames(log) == [NO_FRAME] * len(KERNELS)


def test_a_wheel_finds_its_ptx_outside_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    checkout = tmp_path / "checkout"
    for name in ("pyproject.toml", "README.md", "LICENSE", "mag_rt", "mag_train", "kernels"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (checkout / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, checkout / name)
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if "kernels" in name] == ["mag_rt/_kernels/magrt.ptx"]
        archive.extractall(tmp_path / "site")
    shutil.rmtree(checkout)
    look = "import mag_rt.driver; print(mag_rt.driver.__file__); print(len(mag_rt.driver.ptx()))"
    found = subprocess.run(
        [sys.executable, "-c", look],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert found == [str(tmp_path / "site/mag_rt/driver.py"), str((ROOT / "kernels/magrt.ptx").stat().st_size)]
