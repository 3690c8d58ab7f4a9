"""What mag_rt calls of TensorRT is there in 10.3 and in 11, and called rightly: held against NVIDIA's own bindings.

The libraries behind the bindings need no GPU to be looked at, yet they are large and are not installed: empty ones
stand in, enough for the bindings to be imported.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import tensorrt_contract
from tests.tensorrt_contract import entries, lacking

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "tensorrt-contract"
WHEELS = {"10.3": "tensorrt-cu12-bindings==10.3.0", "11": "tensorrt-cu13-bindings==11.4.*"}
"""The oldest that is supported, JetPack 6's, and the newest."""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
EMPTY = "\n".join(
    f"void *{name}(void) {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "getPluginRegistry",
        "initLibNvInferPlugins",
    )
)
"""All that the bindings import by name, in C."""


def bindings(version: str) -> Path:
    """A folder with the unpacked bindings and empty libraries, made once and kept."""
    folder = CACHE / f"{version}-{sys.implementation.cache_tag}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(partial), WHEELS[version]]
        fetched = subprocess.run([sys.executable, "-m", "pip", *download], check=False, capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"{WHEELS[version]} for this Python: {(fetched.stderr.strip().splitlines() or ['?'])[-1]}")
        (wheel,) = partial.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
        wheel.unlink()
        for library in LIBRARIES:
            target = partial / f"lib{library}.so.{version.partition('.')[0]}"
            compile_empty = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(target)]
            subprocess.run(compile_empty, input=EMPTY, text=True, check=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


@pytest.fixture(scope="module", params=WHEELS)
def real(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a version's bindings say of the contract; asked in a process of its own, since a process loads one only."""
    if sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("the bindings are looked at on Linux, with gcc")
    folder = bindings(request.param)
    paths = {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, str(ROOT / "tests" / "tensorrt_contract.py")]
    done = subprocess.run(command, env=os.environ | paths, check=True, capture_output=True, text=True)
    return json.loads(done.stdout) | {"asked for": request.param}


def test_everything_that_is_used_is_there(real: dict[str, Any]) -> None:
    assert real["version"].startswith(real["asked for"])
    assert real["lacking"] == []


def test_the_strongly_typed_flag_is_asked_for_by_name(real: dict[str, Any]) -> None:
    # The reason for a rule: the number is another in each.
    assert real["strongly typed"] == {"10.3": 1, "11": 0}[real["asked for"]]


def test_tensorrt_rtx_has_it_too() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (Linux on x86-64 has it)")
    assert lacking(trt) == []


@pytest.mark.parametrize(
    "entry",
    [
        "Builder.create_networks(flags)",
        "Builder.create_network(flag)",
        "Builder.build_serialized_network(network)",
        "IBuilderConfig.set_timing_cache(ignore_mismatch, cache)",
        "BuilderFlag.FP16_OF_OLD",
        "IOptimizationProfile.set_shape(input, min, max)",
    ],
)
def test_what_is_not_there_or_called_otherwise_is_found(entry: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (Linux on x86-64 has it)")
    assert lacking(trt, entry) == [entry]


@pytest.mark.parametrize("source", ["engines.py", "backends/loaded_engine.py"])
def test_the_list_has_every_name_of_the_module_that_the_code_uses(source: str) -> None:
    tree = ast.parse((ROOT / "mag_rt" / source).read_text())
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {chain.removeprefix("trt.") for chain in chains if re.fullmatch(r"trt\.[A-Za-z]\w*(\.\w+)*", chain)}
    listed = [entry.partition("(")[0] for entry in entries(tensorrt_contract.BUILDING + tensorrt_contract.RUNNING)]
    assert used and [name for name in used if not any(f"{each}.".startswith(f"{name}.") for each in listed)] == []
