"""report.html of very many pictures: how large it gets, and what writing it takes.

    python benchmarks/report.py RESULTS [--count 5000]

RESULTS is the folder of a scan that wrote thumbnails. Its lines and thumbnails are repeated under new names, as often
as it takes, in a scratch folder.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

from machine import machine

from mag_rt.sinks.images import thumbnail_paths
from mag_rt.sinks.jsonl import whole_lines
from mag_rt.sinks.report import write_report


def repeat(results: Path, count: int, folder: Path) -> None:
    """The results of `count` pictures, made of those of fewer."""
    (folder / "thumbnails").mkdir()
    shutil.copy(results / "run.json", folder)
    every = [json.loads(line) for _, line in whole_lines(results)]
    lines = [line for line in every if line["error"] is None]
    with (folder / "findings.jsonl").open("w", encoding="ascii") as file:
        for number in range(count):
            given = lines[number % len(lines)]
            drawn = {"mask": f"masks/{number:06d}.png", "overlay": f"overlays/{number:06d}.jpg"}
            line = {**given, "source": f"inbox/{number:06d}.jpg", **drawn}
            for source, copy in zip(thumbnail_paths(given, results), thumbnail_paths(line, folder), strict=True):
                shutil.copy(results / source, folder / copy)
            file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a folder that magrt scan wrote")
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        repeat(arguments.results, arguments.count, folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.perf_counter(), time.process_time()
        write_report(folder)
        print(
            json.dumps(
                {
                    "machine": machine(),
                    "pictures": arguments.count,
                    "megabytes": (folder / "report.html").stat().st_size / 1e6,
                    "cpu_s": time.process_time() - cpu,
                    "seconds": time.perf_counter() - began,
                    "memory_growth_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
