"""Which backend runs is of no consequence but for speed, and none talks to anybody."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mag_rt import BundleError, bundle
from mag_rt.backends.choice import choose
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.backends.openvino import OpenVINOBackend
from mag_rt.bundle import Bundle
from mag_rt.errors import BackendError, PictureError
from mag_rt.findings import Failure, Reading
from mag_rt.parity import check_pictures
from mag_rt.reading import HostReader
from mag_train.quantise import quantise
from tests.conftest import grey_with_red_box, save, small_unet

SAME, ALIKE = 2e-5, 0.02
"""The greatest difference of a probability between backends: of float32, and of INT8, where they clip differently."""

BACKENDS = (OpenVINOBackend, OnnxRuntimeBackend)


@pytest.fixture(scope="module")
def small(red_bundle: Bundle) -> Bundle:
    """A bundle with an INT8 network beside the float32 one."""
    images = [red_bundle.normalisation([picture]) for picture in check_pictures((96, 64))]
    return replace(red_bundle, networks={"float32": small_unet(), "int8": quantise(small_unet(), images)})


def picture(height: int, width: int, count: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(height)
    smooth = np.cumsum(rng.normal(0, 0.1, (count, 3, height, width)), axis=3)
    return np.clip(smooth, -1, 1).astype(np.float32)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", SAME), ("int8", ALIKE)])
def test_backends_agree_on_pictures_of_any_shape(small: Bundle, precision: str, tolerance: float) -> None:
    """And each gives the grey level that is nearest to the probability."""
    one, other = OpenVINOBackend(small, precision), OnnxRuntimeBackend(small, precision)
    for image in (picture(32, 32), picture(64, 96), picture(96, 64, 3), picture(32, 32)):
        exact = 255 * other.probabilities(image)
        assert np.ptp(exact) > 100
        for given, differs in ((one(image), tolerance), (other(image), SAME)):
            assert given.dtype == np.uint8 and given.shape == exact.shape == (len(image), 12, *image.shape[2:])
            assert np.abs(given - exact).max() <= 0.5 + 255 * differs


def test_openvino_has_room_for_what_calibration_has_not_seen(small: Bundle) -> None:
    """Where nothing is negative twice as much fits before it is clipped."""
    image = 3 * picture(96, 96)
    expected = 255 * OnnxRuntimeBackend(small).probabilities(image)
    in_openvino, signed = (np.abs(backend(small, "int8")(image) - expected).mean() for backend in BACKENDS)
    assert in_openvino < 0.7 * signed


def dequantised_twice(network: bytes, turned: bool) -> bytes:
    """The INT8 network where each reader of some numbers dequantises them itself; `turned`: one moves them first."""
    model = onnx.load_from_string(network)
    nodes = model.graph.node
    shared = next(node for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] == "stem_relu_q")
    readers = [node for node in nodes if shared.output[0] in node.input]
    assert len(readers) == 3
    at = list(nodes).index(shared)
    for number, reader in enumerate(readers):
        integers, own = shared.input[0], f"own{number}"
        if turned and reader.op_type == "Conv":  # there and back again
            for name in ("there", "back"):
                nodes.insert(at, helper.make_node("Transpose", [integers], [name], perm=[0, 1, 3, 2]))
                at, integers = at + 1, name
        nodes.insert(at, helper.make_node("DequantizeLinear", [integers, *shared.input[1:]], [own]))
        at += 1
        reader.input[list(reader.input).index(shared.output[0])] = own
    nodes.remove(shared)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("turned", [False, True])
def test_a_network_may_dequantise_the_same_numbers_several_times(small: Bundle, turned: bool) -> None:
    twice = replace(small, networks={**small.networks, "int8": dequantised_twice(small.networks["int8"], turned)})
    image = picture(64, 96)
    expected = 255 * OnnxRuntimeBackend(twice, "int8").probabilities(image)
    assert np.abs(OpenVINOBackend(twice, "int8")(image) - expected).max() <= 0.5 + 255 * ALIKE


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_that_the_network_does_not_run_on_costs_one_picture(
    small: Bundle, backend: type[OpenVINOBackend] | type[OnnxRuntimeBackend]
) -> None:
    reader = HostReader(backend(small), replace(small, multiple=1), 256, tiles=False, threads=1)
    # The sides of the second are no multiples of 2: its two scales do not fit each other.
    first, failure, last = reader([grey_with_red_box(side, side) for side in (64, 33, 64)], [(64, 64)] * 3)
    assert isinstance(failure, Failure) and failure.type == "not-run"
    assert failure.message.startswith(backend.name) and "\n" not in failure.message
    assert isinstance(first, Reading) and isinstance(last, Reading) and first.evidence == last.evidence


def test_an_answer_that_is_no_number_is_no_authentic_picture(small: Bundle) -> None:
    backend = OnnxRuntimeBackend(small)
    image = picture(64, 96)
    image[0, 0, 5, 5] = np.nan
    with pytest.raises(PictureError, match="NaN or infinite"):
        backend(image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_with_weights_that_are_no_numbers_is_refused(
    small: Bundle, backend: type[OpenVINOBackend] | type[OnnxRuntimeBackend]
) -> None:
    network = onnx.load_from_string(small.network)
    (bias,) = (each for each in network.graph.initializer if each.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(12, np.nan, np.float32), bias.name))
    with pytest.raises(BundleError, match="number"):
        backend(replace(small, networks={"float32": network.SerializeToString()}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_share_a_backend(small: Bundle, backend: type[OpenVINOBackend] | type[OnnxRuntimeBackend]) -> None:
    shared = backend(small, "float32", calls=2)
    images = [picture(32 * (1 + number % 3), 64) for number in range(12)]
    expected = [shared(image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        for given, should in zip(threads.map(shared, images), expected, strict=True):
            np.testing.assert_array_equal(given, should)
    shared.close()
    shared.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_given_is_not_overwritten_later(
    small: Bundle, backend: type[OpenVINOBackend] | type[OnnxRuntimeBackend]
) -> None:
    open_backend = backend(small)
    first = open_backend(picture(32, 32))
    kept = first.copy()
    open_backend(-picture(32, 32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_network_that_is_none_is_one_line(
    small: Bundle, backend: type[OpenVINOBackend] | type[OnnxRuntimeBackend], precision: str
) -> None:
    broken = replace(small, networks={**small.networks, precision: b"nothing"})
    with pytest.raises(BundleError, match=f"refuses the {precision} network") as error:
        backend(broken, precision)
    assert "\n" not in str(error.value)


OPENED_AND_CLOSED = """
import signal, sys
from pathlib import Path
from mag_rt import Scanner
first, second = Scanner(sys.argv[1], backend="openvino"), Scanner(sys.argv[1], backend="openvino")
first.close()
second.close()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_program_that_closed_its_scanners_can_still_take_a_signal(small: Bundle, tmp_path: Path) -> None:
    """OpenVINO puts the stack of signal handlers elsewhere, and that place must not be freed: Ctrl-C would crash."""
    bundle.save(small, tmp_path / "model")
    words = [sys.executable, "-c", OPENED_AND_CLOSED, str(tmp_path / "model")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


FORKED = """
import multiprocessing, sys
import numpy as np
from mag_rt import MagrtError, Scanner
picture = np.full((64, 64, 3), 200, np.uint8)

def read():
    with Scanner(sys.argv[1]) as own:
        print(own.reader.name, own.scan_image(picture).verdict, own.reader.reason)
    try:
        inherited.scan_image(picture)
    except MagrtError as error:
        print(error, flush=True)

with Scanner(sys.argv[1], backend="openvino") as closed:
    closed.scan_image(picture)
inherited = Scanner(sys.argv[1], backend="openvino")
child = multiprocessing.get_context("fork").Process(target=read)
child.start()
child.join(30)
print("ended" if child.exitcode == 0 else "still waiting")
child.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_reads_without_openvino_instead_of_waiting_forever(small: Bundle, tmp_path: Path) -> None:
    bundle.save(small, tmp_path / "model")
    words = [sys.executable, "-c", FORKED, str(tmp_path / "model")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    own, inherited, ended = done.stdout.splitlines()
    assert own.startswith("onnxruntime ") and "openvino was used before this process was forked" in own
    assert "spawn or forkserver" in inherited and ended == "ended"


def test_a_missing_openvino_is_one_line(small: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'magrt\[openvino\]'"):
        OpenVINOBackend(small)


def test_an_openvino_that_is_broken_says_what_of(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"openvino cannot be loaded: libtbb\.so\.12: cannot open"):
        OpenVINOBackend(small)


def test_a_program_may_report_its_own_use_of_openvino(small: Bundle) -> None:
    """Only where it is imported here does it not find the package that does so."""
    OpenVINOBackend(small)
    assert "openvino_telemetry" not in sys.modules


def test_the_choice_says_why(small: Bundle) -> None:
    fast = choose(small)
    assert (fast.backend.name, fast.backend.precision) == ("openvino", "int8")
    assert fast.reason == "openvino is installed; int8 is the faster one there"
    plain = choose(replace(small, networks={"float32": small.network}))
    assert plain.backend.precision == "float32" and "the bundle has no int8 network" in plain.reason
    asked = choose(small, "onnxruntime", "int8")
    assert (asked.backend.name, asked.backend.precision) == ("onnxruntime", "int8")
    assert asked.reason == "onnxruntime was asked for; int8 was asked for"
    assert choose(small, "onnxruntime").backend.precision == "float32"


def test_without_openvino_onnxruntime_is_chosen(small: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mag_rt.backends.choice.find_spec", lambda name: None)
    choice = choose(small)
    assert (choice.backend.name, choice.backend.precision) == ("onnxruntime", "float32")
    assert "not installed" in choice.reason


def test_an_openvino_that_does_not_load_is_no_reason_to_stop(small: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose(small).backend.name == "onnxruntime"
    with pytest.raises(BackendError):
        choose(small, "openvino")


def test_what_cannot_be_had_is_refused(small: Bundle, red_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no int8 network \(it has float32\)"):
        choose(red_bundle, precision="int8")
    with pytest.raises(BackendError, match="auto, openvino or onnxruntime"):
        choose(small, "tensorflow")
    with pytest.raises(BackendError, match="auto, float32 or int8"):
        choose(small, precision="float16")


NETWORK_DENIED = """
import socket, sys
def denied(*arguments, **options):
    print("the network was asked for:", arguments, file=sys.stderr)
    raise OSError("denied")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = denied
from mag_rt.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_scan_asks_nobody_and_leaves_nothing_at_home(backend: str, small: Bundle, tmp_path: Path) -> None:
    bundle.save(small, tmp_path / "model")
    save(tmp_path / "photo.png", grey_with_red_box(64, 64))
    (tmp_path / "home").mkdir()
    arguments = ["scan", "photo.png", "--out", "out", "--model", "model", "--backend", backend]
    # Both report their use by themselves unless they are told not to, or believe to run in CI or within tests. ONNX
    # Runtime asks for the network behind Python's back and later, but notes at once what it is going to tell.
    silent = {"CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    done = subprocess.run(
        [sys.executable, "-c", NETWORK_DENIED, *arguments],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["backend"]["name"] == backend
    assert "the network was asked for" not in done.stderr
    assert not list((tmp_path / "home").iterdir())
