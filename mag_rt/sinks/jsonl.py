"""findings.jsonl: one line of JSON for each picture or frame, in source order (docs/formats.md)."""

import json
import os
from pathlib import Path

from mag_rt.findings import Finding

SCHEMA = 1


class JsonlSink:
    """Appends findings to `findings.jsonl` below a folder; a line is there as soon as `write` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = (folder / "findings.jsonl").open("w", encoding="ascii", newline="\n")

    def write(self, finding: Finding, mask: str | None, overlay: str | None) -> None:
        """`mask` and `overlay`: paths relative to the folder. Raises OSError."""
        result = finding.as_json()
        error = result.pop("error")
        source = finding.source and os.path.relpath(finding.source, self.folder)
        line = {"schema": SCHEMA, "source": source, **result, "mask": mask, "overlay": overlay, "error": error}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
