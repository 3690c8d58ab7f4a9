"""magrt as its user runs it: a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from mag_rt.cli import main; main()", *map(str, arguments)]


def magrt(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **options)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
