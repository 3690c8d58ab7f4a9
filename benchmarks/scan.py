"""`magrt scan` against the plain loop and against what the machine allows.

    python benchmarks/scan.py PHOTOS [--megapixels 0.2 1 3 12] [--count 24] [--json FILE]

Photos of each size are made from those in PHOTOS (enlarged, JPEG quality 90), and scanned in turns by the plain loop
(benchmarks/plain_loop.py), by torch in eager mode, and by magrt with its defaults and with the plain loop's own library
and precision. Every figure is the median over rounds of a ratio within one round. Start-up is not counted in, and
measured by itself.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cv2

from mag_rt import Scanner
from mag_rt.pictures import decode
from mag_rt.sources import find

HERE = Path(__file__).parent
MAGRT = [sys.executable, "-c", "from mag_rt.cli import main; main()", "scan"]


def make(photos: list[Path], megapixels: float, count: int, folder: Path) -> None:
    """`count` JPEG files of a size."""
    folder.mkdir()
    for index in range(count):
        picture = cv2.imread(str(photos[index % len(photos)]))
        factor = (megapixels * 1e6 / (picture.shape[0] * picture.shape[1])) ** 0.5
        resized = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index:04d}.jpg"), resized, [cv2.IMWRITE_JPEG_QUALITY, 90])


def plain(folder: Path, out: Path, *options: str) -> float:
    command = [sys.executable, str(HERE / "plain_loop.py"), str(folder), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


def magrt(folder: Path, out: Path, *options: str) -> float:
    subprocess.run([*MAGRT, str(folder), "--out", str(out), *options], capture_output=True, check=True)
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
            list(pool.map(scanner.reader.network, inputs[: 2 * scanner.reader.threads]))
            began = time.perf_counter()
            list(pool.map(scanner.reader.network, inputs))
            return time.perf_counter() - began


def start_to_first_finding(folder: Path, out: Path) -> float:
    """Seconds from the command to the first line of findings.jsonl."""
    began = time.perf_counter()
    process = subprocess.Popen([*MAGRT, str(folder), "--out", str(out)], stdout=subprocess.DEVNULL)
    lines = out / "findings.jsonl"
    while process.poll() is None and not (lines.is_file() and lines.stat().st_size):
        time.sleep(0.01)
    taken = time.perf_counter() - began
    process.wait()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.2, 1, 3, 12])
    parser.add_argument("--count", type=int, default=24, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true", help="leave torch out, which takes longest")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    results: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "sizes": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for size in arguments.megapixels:
            folder = Path(scratch) / f"{size}"
            make(photos, size, arguments.count, folder)
            results["sizes"][str(size)] = measure(folder, Path(scratch), arguments)
        results["start_to_first_finding_s"] = median(
            start_to_first_finding(folder, Path(scratch) / f"first{index}") for index in range(3)
        )
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def measure(folder: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds a picture of each way, and the ratios between them, over rounds in which each has its turn."""
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
    figures = {f"{name}_s": median(each[name] for each in rounds) for name in ways}
    figures["ratio_to_plain_loop"] = median(each["plain_loop"] / each["magrt"] for each in rounds)
    figures["ratio_with_the_same_model"] = median(each["plain_loop"] / each["magrt_same_model"] for each in rounds)
    if not arguments.no_torch:
        figures["ratio_to_torch_eager"] = median(each["torch_eager"] / each["magrt"] for each in rounds)
    figures["share_of_the_limit"] = median(
        max(each["decode_alone"], each["network_alone"]) / each["magrt"] for each in rounds
    )
    return figures


if __name__ == "__main__":
    main()
