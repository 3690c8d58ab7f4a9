"""Mutated files of every format through real scans: nothing may crash, hang, leak, or cost a neighbour.

    python benchmarks/fuzz.py --minutes 30 [--seed 1] [--isolate] [--model BUNDLE] [--keep OFFENDERS]

A scan runs in a process of its own, over folders of mutated files with good ones between them. Where it crashes, hangs
or says anything wrong, the folder is kept. Prints a summary as JSON; the exit status is 1 when there was an offence.
"""

import argparse
import gc
import io
import json
import math
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mag_rt import Finding, Scanner
from mag_rt.pictures import silence_decoders
from mag_rt.video import Sampling

PICTURES, NEIGHBOURS = 40, 8
"""Mutated files in a folder, and how many of them between two good ones."""
HUNG = 120.0
"""Seconds without a word from the scan after which it is taken to hang: longer than any limit of the scan's own."""
LEAK = 64 << 20
"""Bytes that a scan may grow by in the second half of its time; in the first it takes what it needs for any file."""
ERRORS = {"empty", "truncated", "not-a-picture", "not-a-video", "too-large", "decoder-crashed", "decoder-timeout"}
"""What may be said of a mutated file; it can be read, and nobody changes it."""

Files = dict[str, bytes]


def originals() -> Files:
    """A small valid file of every kind, by a name that a folder scan picks up."""
    scene = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 72))
    image = Image.fromarray(scene)
    turned = Image.Exif()
    turned[274] = 6

    def encoded(name: str, mode: str = "RGB", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, name, **options)
        return buffer.getvalue()

    several = {"save_all": True, "append_images": [image.rotate(180)]}
    files = {
        "plain.jpg": encoded("JPEG", exif=turned, icc_profile=b"profile" * 20),
        "progressive.jpg": encoded("JPEG", progressive=True, quality=95, subsampling=0),
        "cmyk.jpg": encoded("JPEG", "CMYK"),
        "grey.jpg": encoded("JPEG", "L"),
        "plain.png": encoded("PNG", exif=turned),
        "palette.png": encoded("PNG", "P", transparency=0),
        "alpha.png": encoded("PNG", "RGBA"),
        "bits.png": encoded("PNG", "1"),
        "animated.png": encoded("PNG", **several),
        "deep.png": cv2.imencode(".png", scene.astype(np.uint16) * 257)[1].tobytes(),
        "lossy.webp": encoded("WEBP", exif=turned),
        "lossless.webp": encoded("WEBP", "RGBA", lossless=True),
        "animated.webp": encoded("WEBP", **several),
        "plain.tif": encoded("TIFF"),
        "lzw.tif": encoded("TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
        "deflate.tif": encoded("TIFF", "CMYK", compression="tiff_deflate"),
        "jpeg.tif": encoded("TIFF", compression="jpeg"),
        "pages.tif": encoded("TIFF", **several),
        "deep.tif": cv2.imencode(".tif", scene.astype(np.uint16) * 257)[1].tobytes(),
        "fax.tif": encoded("TIFF", "1", compression="group4"),
        "plain.bmp": encoded("BMP"),
        "palette.bmp": encoded("BMP", "P"),
        "animated-gif.jpg": encoded("GIF", **several),
        "avif.jpg": encoded("AVIF"),
        "jp2.jpg": encoded("JPEG2000"),
    }
    for name, codec in (("film.avi", "MJPG"), ("film.mkv", "MJPG"), ("film.mp4", "mp4v")):
        files[name] = film(name, codec, scene)
    return files


def film(name: str, codec: str, scene: np.ndarray) -> bytes:
    """Two seconds of a video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 5, (96, 72))
        for index in range(10):
            writer.write(np.roll(scene, 5 * index, axis=1))
        writer.release()
        return path.read_bytes()


def flip(data: bytearray, rng: random.Random, _: Files) -> None:
    """A few bits, anywhere."""
    for _count in range(rng.choice((1, 1, 2, 8, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random, _: Files) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def drop(data: bytearray, rng: random.Random, _: Files) -> None:
    """A piece is missing."""
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 50, 1000))]


def blank(data: bytearray, rng: random.Random, _: Files) -> None:
    """A piece is zeros or ones, as on a damaged disk."""
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 512, 4096))
    data[start : start + length] = rng.choice((b"\0", b"\xff")) * len(data[start : start + length])


def splice(data: bytearray, rng: random.Random, files: Files) -> None:
    """Goes on as another file."""
    other = files[rng.choice(sorted(files))]
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def duplicate(data: bytearray, rng: random.Random, _: Files) -> None:
    """A piece comes again, there or elsewhere."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((4, 12, 100, 2000))]
    at = rng.choice((start, rng.randrange(len(data))))
    data[at:at] = piece * rng.choice((1, 1, 1, 100))


def field(data: bytearray, rng: random.Random, _: Files) -> None:
    """A number, most likely one of a header, is an awkward one."""
    size = rng.choice((1, 2, 4))
    at = rng.randrange(min(len(data), rng.choice((64, 256, len(data)))))
    value = rng.choice((0, 1, 2, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, 2 ** (4 * size)))
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


MUTATIONS: tuple[Callable[[bytearray, random.Random, Files], None], ...] = (
    flip, cut, drop, blank, splice, duplicate, field, field, field,
)  # fmt: skip


def mutated(rng: random.Random, files: Files) -> tuple[str, bytes]:
    """A file of `files` with one to four things wrong, and its name."""
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(MUTATIONS)(data, rng, files)
        data = data or bytearray(b"\0")
    if name.endswith(".png") and rng.random() < 0.7:
        sum_chunks(data)
    return name, bytes(data)


def sum_chunks(data: bytearray) -> None:
    """Give the chunks of a PNG the checksums that they should have, so that a decoder goes on to what is in them."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def fill(folder: Path, rng: random.Random, files: Files) -> None:
    """A folder of mutated files with good ones, of any of the formats, between them."""
    for index in range(PICTURES + 1):
        if index % NEIGHBOURS == 0:
            name = f"{index:03d}-a-good.png"
            (folder / name).write_bytes(files["plain.png"])
        name, data = mutated(rng, files)
        (folder / f"{index:03d}-b-{name}").write_bytes(data)
    (folder / "999-a-good.png").write_bytes(files["plain.png"])


def offences(folder: Path, findings: list[Finding], good: Finding) -> list[str]:
    """What is wrong with the findings of a folder; `good` is that of the good file alone."""
    found = []
    names = [name for name, _ in groupby(Path(finding.source or "").name for finding in findings)]
    if names != sorted(path.name for path in folder.iterdir()):
        found.append("lines are missing, too many, or out of order")
    for finding in findings:
        name = Path(finding.source or "").name
        said = json.dumps(finding.as_json())
        if "-good" in name and said != json.dumps(good.as_json()):
            found.append(f"{name} is not what it is alone: {said}")
        if finding.error and finding.error.type not in ERRORS:
            found.append(f"{name}: {finding.error}")
        if finding.error is None:
            whole = finding.mask is not None and finding.mask.shape == (finding.height, finding.width)
            if not whole or finding.score is None or not 0 <= finding.score <= 1:
                found.append(f"{name}: no whole result")
        if finding.time_s is not None and not math.isfinite(finding.time_s):
            found.append(f"{name}: no time")
    return found


def good_finding(scanner: Scanner, folder: Path, files: Files) -> Finding:
    """Of the good file alone."""
    path = folder / "good.png"
    path.write_bytes(files["plain.png"])
    (finding,) = scanner.scan([path])
    path.unlink()
    return finding


def scan_folders(folder: Path, seed: int, model: Path | None, isolate: bool) -> Iterator[dict[str, Any]]:
    """Scan one folder of mutated files after the other, forever; after each, what there is to say of it."""
    silence_decoders()
    files, rng = originals(), random.Random(seed)
    options = {"isolate": True} if isolate else {}
    with Scanner(model, max_side=64, sampling=Sampling(every=3), **options) as scanner:
        good = good_finding(scanner, folder, files)
        for index in range(sys.maxsize):
            batch = folder / str(index)
            batch.mkdir()
            fill(batch, rng, files)
            yield {"folder": str(batch)}
            findings = list(scanner.scan([batch]))
            gc.collect()
            yield {
                "folder": str(batch),
                "files": len(list(batch.iterdir())),
                "offences": offences(batch, findings, good),
                "errors": Counter(finding.error.type if finding.error else "none" for finding in findings),
                "resident": resident(),
                "open": len(os.listdir("/proc/self/fd")),
            }


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--model", type=Path, help="instead of the one that ships")
    parser.add_argument("--keep", type=Path, default=Path("offenders"), help="where folders with an offence go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        for report in scan_folders(arguments.child, arguments.seed, arguments.model, arguments.isolate):
            print(json.dumps(report), flush=True)
        return
    summary = fuzz(arguments)
    print(json.dumps(summary, indent=2))
    sys.exit(bool(summary["offences"]))


def fuzz(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keep a scan going for the time asked for, again after each crash; what came of it."""
    ends = time.monotonic() + 60 * arguments.minutes
    total: dict[str, Any] = {"seed": arguments.seed, "isolate": arguments.isolate, "minutes": arguments.minutes}
    total.update(folders=0, files=0, scans=0, offences=[], errors=Counter())
    while time.monotonic() < ends:
        with tempfile.TemporaryDirectory() as folder:
            seed = arguments.seed * 1000 + total["scans"]
            total["scans"] += 1
            run_one(arguments, seed, Path(folder), ends, total)
    return total


def run_one(arguments: argparse.Namespace, seed: int, folder: Path, ends: float, total: dict[str, Any]) -> None:
    """One process that scans until the time is over or it dies; adds to `total`."""
    command = [sys.executable, __file__, "--child", str(folder), "--seed", str(seed)]
    command += ["--isolate"] * arguments.isolate
    command += ["--model", str(arguments.model)] if arguments.model else []
    as_a_scan_has_it = os.environ | {"MALLOC_ARENA_MAX": "2"}
    child = subprocess.Popen(command, env=as_a_scan_has_it, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reports: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in child.stdout or ():
            reports.put(line)
        reports.put(None)

    threading.Thread(target=listen, daemon=True).start()
    memory, files_open, last = [], [], ""
    while time.monotonic() < ends:
        try:
            line = reports.get(timeout=HUNG)
        except queue.Empty:
            offend(arguments.keep, total, last, [f"hung for {HUNG:.0f} s"])
            break
        if line is None:
            offend(arguments.keep, total, last, [f"crashed, status {child.wait()}"])
            break
        report = json.loads(line)
        last = report["folder"]
        if "files" not in report:
            continue
        total["folders"] += 1
        total["files"] += report["files"]
        total["errors"].update(report["errors"])
        memory.append(report["resident"])
        files_open.append(report["open"])
        if report["offences"]:
            offend(arguments.keep, total, last, report["offences"])
        shutil.rmtree(last)
    child.kill()
    child.wait()
    if len(memory) > 40:
        begin, middle = memory[20], memory[len(memory) // 2]
        total["resident_mb"] = [round(each / 1e6) for each in (begin, middle, memory[-1])]
        total["open_files"] = [files_open[20], files_open[-1]]
        if memory[-1] - middle > LEAK or files_open[-1] > files_open[20] + 4:
            total["offences"].append("grew")


def offend(keep: Path, total: dict[str, Any], folder: str, what: list[str]) -> None:
    """Note an offence and keep the folder it came of."""
    kept = keep / f"{total['seed']}-{total['scans']}-{Path(folder).name}"
    if Path(folder).is_dir() and folder:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
    total["offences"] += [f"{kept}: {each}" for each in what]


if __name__ == "__main__":
    main()
