"""The benchmark measures what it says, on a GPU; on the CUDA host it can only be seen to run."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mag_rt.cuda import Gpu


@pytest.fixture
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/kernels.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_times_every_launch(
    open_gpu: Callable[..., Gpu],
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = {"SIDE": 32, "PHOTO": (30, 40), "SHRUNK": (24, 32), "TILE": 16, "OVERLAP": 2, "ARENA": 4 << 20}
    once = {"WARM_UP": 1, "LAUNCHES": 1, "ROUNDS": 1}
    for name, value in {**small, **once}.items():
        monkeypatch.setattr(script, name, value)
    script.measure(2)
    assert capsys.readouterr().out.count("µs/picture") == len(script.cases())


def test_the_readme_has_the_derived_bounds(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    script.roofline()
    assert capsys.readouterr().out in (Path(__file__).parents[2] / "kernels/README.md").read_text()
