"""The machine that a benchmark runs on, in words, for its results."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Cores and what the processor calls itself, as in `2 x AMD EPYC`."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{os.cpu_count()} x {next(names, platform.processor() or platform.machine())}"
