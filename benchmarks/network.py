"""The network alone, on a CPU: how fast each backend and precision is, how near to what the machine can do, and where
the time goes.

    python benchmarks/network.py                        the bundle that ships
    python benchmarks/network.py --model BUNDLE --json FILE

Speed: pictures of one shape in a call, as a scan runs them (a picture in each core's thread) and one at a time on all
cores. All ways are timed in turns; ratios are medians over the rounds, so that what else the machine does cancels out.
What is held against the peak is the fastest round, as the peak itself.
Peak: convolutions that suit the machine best, by the same library, in float32 and INT8; the network's, by the second,
are held against it. Layers: OpenVINO's own counters, one thread, 512x512.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from machine import machine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mag_rt import bundle as bundles
from mag_rt.backends.choice import choose
from mag_rt.backends.openvino import compiled
from mag_rt.bundle import Bundle
from mag_train.quantise import quantise

WAYS = [(backend, precision) for precision in ("float32", "int8") for backend in ("onnxruntime", "openvino")]
SHAPES = [(1, 512, 512), (1, 256, 384), (4, 512, 512)]
"""Batch, height, width."""
PEAK_WIDTHS, PEAK_SIDE, PEAK_DEPTH = (128, 256, 512), 32, 2
"""Of the convolutions that measure the machine: channels, side in pixels, how many in a row."""
PROFILED = 512

Image = NDArray[np.float32]


def speeds(bundle: Bundle, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds for a picture of every way to run the network, and how many times the first one's speed that is."""
    cores = os.cpu_count() or 1
    ways = [way for way in WAYS if way[1] in bundle.networks]
    found = []
    for batch, height, width in SHAPES:
        image = np.random.default_rng(0).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
        for threads in (1, cores):
            run = {way: _in_threads(choose(bundle, *way, calls=threads).backend, image, threads) for way in ways}
            seconds = in_turns(run, rounds)
            pictures = batch * threads
            for way, taken in seconds.items():
                ratio = median(first / each for first, each in zip(seconds[ways[0]], taken, strict=True))
                found.append(
                    {
                        "backend": way[0], "precision": way[1], "batch": batch, "height": height, "width": width,
                        "calls_at_once": threads, "ms_per_picture": 1e3 * median(taken) / pictures,
                        "fastest_ms": 1e3 * min(taken) / pictures, "ratio": ratio,
                    }
                )  # fmt: skip
    return found


def _in_threads(backend: Callable[[Image], Image], image: Image, threads: int) -> Callable[[], Any]:
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(backend, [image] * threads))


def in_turns(ways: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """The seconds that each way takes in each round; one round before is not counted."""
    seconds: dict[Any, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def peak(rounds: int) -> dict[str, float]:
    """The most multiply-adds a second, in 1e9, of 3x3 convolutions in each precision on all cores."""
    cores = os.cpu_count() or 1
    ways: dict[Any, Callable[[], Any]] = {}
    work = {}
    for channels in PEAK_WIDTHS:
        image = np.random.default_rng(0).uniform(0, 1, (1, channels, PEAK_SIDE, PEAK_SIDE)).astype(np.float32)
        network = _convolutions(channels)
        work[channels] = PEAK_DEPTH * cores * 9 * channels**2 * PEAK_SIDE**2
        for precision, given in (("float32", network), ("int8", quantise(network, [image]))):
            model = compiled(given, {"NUM_STREAMS": cores})
            requests = [model.create_infer_request() for _ in range(cores)]
            ways[precision, channels] = _together(requests, image)
    seconds = in_turns(ways, rounds)
    return {
        precision: max(work[way[1]] / min(taken) / 1e9 for way, taken in seconds.items() if way[0] == precision)
        for precision in ("float32", "int8")
    }


def _together(requests: list[Any], image: Image) -> Callable[[], None]:
    def run() -> None:
        for request in requests:
            request.start_async({0: image}, share_inputs=True)
        for request in requests:
            request.wait()

    return run


def _convolutions(channels: int) -> bytes:
    """ReLU, then convolutions 3x3 with ReLU, then a mean, so that little goes in and out."""
    rng = np.random.default_rng(0)
    nodes, constants = [helper.make_node("Relu", ["image"], ["x0"])], []
    for index in range(PEAK_DEPTH):
        weight = rng.normal(0, (9 * channels) ** -0.5, (channels, channels, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"y{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{PEAK_DEPTH}"], ["annotation"]))
    shape = [1, channels, PEAK_SIDE, PEAK_SIDE]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, [1, channels, 1, 1])
    graph = helper.make_graph(nodes, "peak", [image], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def multiply_adds(network: bytes, height: int, width: int) -> dict[str, int]:
    """Of each convolution, by its name, for one picture."""
    model = onnx.load_from_string(network)
    weights = {each.name: each.dims for each in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    outputs = [node.output[0] for node in convolutions]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run(outputs, {"image": np.zeros((1, 3, height, width), np.float32)})
    return {
        node.name: result.size * prod(weights[node.input[1]][1:])
        for node, result in zip(convolutions, results, strict=True)
    }


def layers(network: bytes, work: dict[str, int], rounds: int) -> list[dict[str, Any]]:
    """What OpenVINO says of each of its layers on one thread: milliseconds, and 1e9 multiply-adds a second."""
    options = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    model = compiled(network, options, grey=True)
    request, image = model.create_infer_request(), np.zeros((1, 3, PROFILED, PROFILED), np.float32)
    made_of = {}
    for node in model.get_runtime_model().get_ordered_ops():
        about = node.get_rt_info()
        made_of[node.get_friendly_name()] = about["originalLayersNames"].astype(str).split(",")
    taken: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        request.infer({0: image}, share_inputs=True)
        for each in request.get_profiling_info():
            if each.status == each.status.EXECUTED:
                key = (each.node_name, each.node_type, each.exec_type)
                taken[key].append(each.real_time.total_seconds())
    found = []
    for (name, kind, how), seconds in taken.items():
        spent = median(seconds[1:])
        convolutions = {each.removesuffix("/WithoutBiases") for each in made_of.get(name, [name])}
        macs = sum(work.get(each, 0) for each in convolutions) if kind == "Convolution" else 0
        found.append(
            {"layer": name, "kind": kind, "by": how, "ms": spent * 1e3, "gmac": macs / 1e9,
             "gmac_per_second": macs / spent / 1e9 if spent else 0.0}
        )  # fmt: skip
    return found


def measure(bundle: Bundle, rounds: int) -> dict[str, Any]:
    most = peak(10 * rounds)
    results: dict[str, Any] = {
        "machine": machine(),
        "model": {"annotator": bundle.annotator, "sha256": bundle.sha256},
        "peak_gmac_per_second": most,
        "speeds": speeds(bundle, rounds),
        "layers": {},
    }
    for row in results["speeds"]:
        macs = sum(multiply_adds(bundle.network, row["height"], row["width"]).values())
        row["share_of_peak"] = macs / row["fastest_ms"] / 1e6 / most[row["precision"]]
    work = multiply_adds(bundle.network, PROFILED, PROFILED)
    for precision in ("float32", "int8"):
        if precision in bundle.networks:
            results["layers"][precision] = layers(bundle.networks[precision], work, rounds)
    return results


def show(results: dict[str, Any]) -> None:
    def line(*cells: Any) -> None:
        sys.stdout.write("| " + " | ".join(str(cell) for cell in cells) + " |\n")

    most = results["peak_gmac_per_second"]
    sys.stdout.write(f"{results['machine']}; peak " + ", ".join(f"{k} {v:.0f} GMAC/s" for k, v in most.items()) + "\n")
    line("backend", "precision", "batch x h x w", "calls at once", "ms a picture", "ratio", "of the peak")
    for row in results["speeds"]:
        shape = f"{row['batch']}x{row['height']}x{row['width']}"
        speed = f"{row['ms_per_picture']:.1f}", f"{row['ratio']:.2f}", f"{row['share_of_peak']:.0%}"
        line(row["backend"], row["precision"], shape, row["calls_at_once"], *speed)
    for precision, rows in results["layers"].items():
        total = sum(row["ms"] for row in rows)
        sys.stdout.write(f"\n{precision}, {PROFILED}x{PROFILED}, one thread: {total:.0f} ms\n")
        line("layer", "kind", "by", "ms", "share", "GMAC", "GMAC/s")
        for row in rows:
            if row["ms"] > total / 200:
                work = (f"{row['gmac']:.2f}", f"{row['gmac_per_second']:.0f}") if row["gmac"] else ("", "")
                line(row["layer"], row["kind"], row["by"], f"{row['ms']:.1f}", f"{row['ms'] / total:.1%}", *work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bundles.bundled(), metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.model)
    results = measure(bundle, arguments.rounds)
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
