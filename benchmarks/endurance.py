"""`magrt scan` of very many pictures: memory and cost as they go on, and kills that must not lose or repeat a line.

    python benchmarks/endurance.py PHOTOS --memory [--count 10000] [--json FILE]
    python benchmarks/endurance.py PHOTOS --kills 10 [--count 10000] [--json FILE]

--memory scans the photos, re-encodings of them at many sizes, and hard links of both, and looks at the process four
times a second: resident memory, CPU seconds (which other work on the machine does not change), threads, open files.

--kills scans cuttings of the photos, 96x64 pixels, each another one: once undisturbed, and once killed with SIGKILL at
random moments (most while lines are being written, some while it starts) and resumed by --resume each time. Lines,
masks and overlays must then be those of the undisturbed run, byte for byte.

Everything goes into a scratch folder (--scratch; some gigabytes for 10,000 pictures of a megapixel). Exit status 1 when
what is promised does not hold: memory below 700 MB, equal results.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from machine import machine

from mag_rt.pictures import Picture

MAGRT = [sys.executable, "-c", "from mag_rt.cli import main; main()", "scan"]
MOST_MEMORY = 700e6
"""Bytes that a scan may take."""
MARKS = (100, 1000, 5000, 10_000)
"""Numbers of pictures between which the cost of one is measured."""
FACTORS = (1.0, 0.83, 0.7, 0.55, 0.4)
"""Sides of the re-encodings, of the photo's own."""
CUTTING = (64, 96)
"""Height and width."""
EVERY = 0.25
"""Seconds between two looks."""
TICK = os.sysconf("SC_CLK_TCK")


def many(photos: list[Path], count: int, folder: Path) -> None:
    """`count` files: re-encodings of each photo in several sizes, then hard links of all of them."""
    folder.mkdir()
    names = [folder / f"{index:06d}.jpg" for index in range(count)]
    made = names[: len(photos) * len(FACTORS)]
    for index, name in enumerate(made):
        picture, factor = cv2.imread(str(photos[index % len(photos)])), FACTORS[index // len(photos)]
        resized = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(name), resized, [cv2.IMWRITE_JPEG_QUALITY, 75 + index % 21])
    for index, name in enumerate(names[len(made) :]):
        name.hardlink_to(made[index % len(made)])


def cuttings(photos: list[Path], count: int, folder: Path) -> None:
    """`count` small files, no two of the same place in the same photo."""
    folder.mkdir()
    rng = random.Random(0)
    height, width = CUTTING
    pictures: list[Picture] = [cv2.imread(str(photo)) for photo in photos]
    for index in range(count):
        picture = pictures[index % len(pictures)]
        top, left = rng.randrange(picture.shape[0] - height), rng.randrange(picture.shape[1] - width)
        cut = np.ascontiguousarray(picture[top : top + height, left : left + width])
        cv2.imwrite(str(folder / f"{index:06d}.jpg"), cut, [cv2.IMWRITE_JPEG_QUALITY, 90])


def start(inbox: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    with (out.parent / "stderr").open("wb") as complaints:
        command = [*MAGRT, str(inbox), "--out", str(out), *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints)


def ended(process: "subprocess.Popen[bytes]", out: Path) -> None:
    """Wait for a scan that nobody disturbs; a failure ends the benchmark."""
    if process.wait():
        sys.exit(f"magrt ended with status {process.returncode}:\n{(out.parent / 'stderr').read_text()}")


def lines_in(out: Path) -> int:
    lines = out / "findings.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def look(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """What the system says of a process: bytes, CPU seconds with those of ended children, threads, open files."""
    about = Path("/proc", str(process.pid))
    status = dict(line.split(":", 1) for line in (about / "status").read_text().splitlines())
    times = (about / "stat").read_text().rpartition(")")[2].split()[11:15]
    return {
        "memory": int(status["VmRSS"].split()[0]) * 1024,
        "peak_memory": int(status["VmHWM"].split()[0]) * 1024,
        "cpu_s": sum(map(int, times)) / TICK,
        "threads": int(status["Threads"]),
        "open_files": len(list((about / "fd").iterdir())),
    }


def memory(photos: list[Path], count: int, scratch: Path) -> dict[str, Any]:
    inbox, out = scratch / "inbox", scratch / "out"
    many(photos, count, inbox)
    began = time.perf_counter()
    process = start(inbox, out)
    samples = []
    while process.poll() is None:
        try:
            samples.append({"pictures": lines_in(out), **look(process)})
        except (OSError, KeyError):  # it ended meanwhile
            break
        time.sleep(EVERY)
    ended(process, out)
    seconds = time.perf_counter() - began
    samples.append({**samples[-1], "pictures": lines_in(out)})
    marks = [mark for mark in MARKS if mark < count] + [count]
    passed = [next(each for each in samples if each["pictures"] >= mark) for mark in marks]
    costs = [
        {
            "from": before["pictures"],
            "to": after["pictures"],
            "cpu_s_per_picture": (after["cpu_s"] - before["cpu_s"]) / (after["pictures"] - before["pictures"]),
        }
        for before, after in pairwise(passed)
    ]
    peak = max(each["peak_memory"] for each in samples)
    return {
        "pictures": lines_in(out),
        "seconds": seconds,
        "peak_memory_mb": peak / 1e6,
        "memory_holds": peak < MOST_MEMORY,
        "cost": costs,
        "last_cost_to_first": costs[-1]["cpu_s_per_picture"] / costs[0]["cpu_s_per_picture"] if costs else None,
        "at": passed,
    }


def kills(photos: list[Path], count: int, number: int, seed: int, scratch: Path) -> dict[str, Any]:
    inbox, straight, killed = scratch / "inbox", scratch / "straight" / "out", scratch / "killed" / "out"
    for out in (straight, killed):
        out.parent.mkdir()
    cuttings(photos, count, inbox)
    ended(start(inbox, straight), straight)
    expected = (straight / "findings.jsonl").read_bytes()
    rng = random.Random(seed)
    moments = sorted(rng.randrange(count) for _ in range(number))
    resumed: list[str] = []
    left = []
    for index, moment in enumerate(moments):
        process = start(inbox, killed, *resumed)
        if index % 4 == 3:
            time.sleep(rng.uniform(0, 1.5))  # while it starts
        else:
            while lines_in(killed) < moment and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.05))
        if process.poll() is not None:
            ended(process, killed)
            sys.exit("the scan ended before it was killed: more pictures, or fewer kills")
        process.kill()
        process.wait()
        data = (killed / "findings.jsonl").read_bytes() if (killed / "findings.jsonl").exists() else b""
        left.append({"lines": data.count(b"\n"), "are_the_first_ones": expected.startswith(data)})
        resumed = ["--resume"] if killed.exists() else []
    ended(start(inbox, killed, *resumed), killed)
    return {
        "pictures": count,
        "seed": seed,
        "kills": left,
        "lines_equal": (killed / "findings.jsonl").read_bytes() == expected,
        **{f"{name}_equal": hashes(killed / name) == hashes(straight / name) for name in ("masks", "overlays")},
        "left_over": sorted(path.name for path in killed.rglob("*.partial")),
    }


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--memory", action="store_true", help="measure memory and cost")
    parser.add_argument("--kills", type=int, metavar="N", help="kill a scan N times")
    parser.add_argument("--count", type=int, default=10_000, help="pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--scratch", type=Path, help="an existing folder for pictures and results; they are removed")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    if not (arguments.memory or arguments.kills):
        parser.error("give --memory, --kills N, or both")
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not photos:
        parser.error(f"{arguments.photos}: no JPEG photos there")
    results: dict[str, Any] = {"machine": machine()}
    if arguments.memory:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            results["memory"] = memory(photos, arguments.count, Path(scratch))
    if arguments.kills:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            results["kills"] = kills(photos, arguments.count, arguments.kills, arguments.seed, Path(scratch))
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    promised = ("memory_holds", "lines_equal", "masks_equal", "overlays_equal")
    if not all(part.get(name, True) for part in results.values() if isinstance(part, dict) for name in promised):
        sys.exit(1)


if __name__ == "__main__":
    main()
