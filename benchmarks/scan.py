"""`magrt scan` against the plain loop and against what the machine allows.

    python benchmarks/scan.py PHOTOS [--megapixels 0.2 1 3 12] [--count 48] [--json FILE]

Photos of each size are made from those in PHOTOS (enlarged or shrunk, the noise of a sensor added so that they are as
hard to decode as photos are, JPEG quality 90) and scanned in turns by the plain loop (benchmarks/plain_loop.py), by
torch in eager mode, and by magrt with its defaults and with the plain loop's own library and precision. Every figure is
the median over rounds, every ratio of what was found within one round. Of each size there is in seconds a picture

- the whole of every way, loading of Python and of the model not counted in;
- decode_alone, network_alone: the physical limits, on all cores, shapes known to the network beforehand;
- share_of_the_limit: the slower of the two over the whole of magrt;

and start_to_first_finding_s, from the command to the first line. The network against the peak of the machine's
arithmetic is benchmarks/network.py, memory and endurance are benchmarks/endurance.py. Few photos flatter nobody: the
first calls of each shape are slow, so a share of the limit is worth something from some 48 photos on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from machine import machine

from mag_rt import Scanner
from mag_rt.pictures import decode
from mag_rt.sources import find

NOISE = 3
"""Of the sensor, grey levels: standard deviation."""
HERE = Path(__file__).parent
MAGRT = [sys.executable, "-c", "from mag_rt.cli import main; main()", "scan"]


def make(photos: list[Path], megapixels: float, count: int, folder: Path) -> None:
    """`count` JPEG files of a size."""
    folder.mkdir()
    for index in range(count):
        picture = cv2.imread(str(photos[index % len(photos)]))
        factor = (megapixels * 1e6 / (picture.shape[0] * picture.shape[1])) ** 0.5
        resized = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        noise = cv2.randn(np.empty(resized.shape, np.int16), 0, NOISE)
        noisy = cv2.add(resized, noise, dtype=cv2.CV_8U)
        cv2.imwrite(str(folder / f"{index:04d}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def run(command: list[str]) -> str:
    """What a command prints. Ends the benchmark with what it complains of when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def plain(folder: Path, out: Path, *options: str) -> float:
    printed = run([sys.executable, str(HERE / "plain_loop.py"), str(folder), str(out), *options])
    return float(json.loads(printed)["seconds"])


def magrt(folder: Path, out: Path, *options: str) -> float:
    run([*MAGRT, str(folder), "--out", str(out), *options])
    return float(json.loads((out / "run.json").read_text())["timings"]["scanning_seconds"])


def decode_alone(folder: Path) -> float:
    """Reading and decoding, as the scan does, on all cores and with nothing else."""
    with Scanner() as scanner:
        enough = scanner.max_side
    files = [Path(frame.source) for frame in find([folder]) if frame.source]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        began = time.perf_counter()
        list(pool.map(lambda path: decode(path.read_bytes(), enough), files))
        return time.perf_counter() - began


def network_alone(folder: Path) -> float:
    """The reader's network on what it is given in the scan, on all cores and with nothing else."""
    with Scanner() as scanner:
        inputs = [
            scanner.reader.prepared(decode(path.read_bytes(), scanner.max_side).picture)
            for path in sorted(folder.iterdir())
        ]
        with ThreadPoolExecutor(scanner.reader.threads) as pool:
            list(pool.map(scanner.reader.network, inputs))
            began = time.perf_counter()
            list(pool.map(scanner.reader.network, inputs))
            return time.perf_counter() - began


def start_to_first_finding(folder: Path, out: Path) -> float:
    """Seconds from the command to the first line of findings.jsonl."""
    began = time.perf_counter()
    command = [*MAGRT, str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = out / "findings.jsonl"
    while not (lines.is_file() and lines.stat().st_size):
        if process.poll() not in (None, 0):
            sys.exit(f"{' '.join(command)}\nended with status {process.returncode}")
        time.sleep(0.005)
    taken = time.perf_counter() - began
    process.send_signal(signal.SIGINT)
    process.wait()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.2, 1, 3, 12])
    parser.add_argument("--count", type=int, default=48, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true", help="leave torch out, which takes longest")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not photos:
        sys.exit(f"{arguments.photos}: no JPEG photos there")
    results: dict[str, Any] = {
        "machine": machine(),
        "load": {"before": os.getloadavg()[0]},
        "photos": arguments.count,
        "rounds": arguments.rounds,
        "sizes": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for size in arguments.megapixels:
            folder = Path(scratch) / f"{size}"
            make(photos, size, arguments.count, folder)
            results["sizes"][str(size)] = measure(folder, Path(scratch), arguments)
    results["load"]["after"] = os.getloadavg()[0]
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def measure(folder: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Median seconds a picture of each way, and the ratios between them, over rounds in which each has its turn."""
    first = [
        start_to_first_finding(folder, scratch / f"{folder.name}-first-{turn}") for turn in range(arguments.rounds)
    ]
    ways = {
        "plain_loop": lambda out: plain(folder, out),
        "magrt": lambda out: magrt(folder, out),
        "magrt_same_model": lambda out: magrt(folder, out, "--backend", "onnxruntime", "--precision", "float32"),
        "decode_alone": lambda out: decode_alone(folder),
        "network_alone": lambda out: network_alone(folder),
    }
    if not arguments.no_torch:
        ways["torch_eager"] = lambda out: plain(folder, out, "--torch")
    rounds = [
        {name: way(scratch / f"{folder.name}-{name}-{turn}") / arguments.count for name, way in ways.items()}
        for turn in range(arguments.rounds)
    ]
    figures: dict[str, float] = {f"{name}_s": median(each[name] for each in rounds) for name in ways}
    figures["ratio_to_plain_loop"] = median(each["plain_loop"] / each["magrt"] for each in rounds)
    figures["ratio_with_the_same_model"] = median(each["plain_loop"] / each["magrt_same_model"] for each in rounds)
    if not arguments.no_torch:
        figures["ratio_to_torch_eager"] = median(each["torch_eager"] / each["magrt"] for each in rounds)
    figures["share_of_the_limit"] = median(
        max(each["decode_alone"], each["network_alone"]) / each["magrt"] for each in rounds
    )
    figures["start_to_first_finding_s"] = median(first)
    backend = json.loads((scratch / f"{folder.name}-magrt-0" / "run.json").read_text())["backend"]
    return {"backend": f"{backend['name']} {backend['precision']}", **figures}


if __name__ == "__main__":
    main()
