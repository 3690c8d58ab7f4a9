"""report.html: the results of a scan in one file that a picture editor opens in a browser, without a network."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from mag_rt.findings import Finding
from mag_rt.sinks.images import HEAT, STRONGEST_HEAT, thumbnail_paths
from mag_rt.sinks.jsonl import NAME as FINDINGS
from mag_rt.sinks.jsonl import whole_lines
from mag_rt.sinks.whole import whole
from mag_rt.sources import as_text
from mag_rt.video import Segment, segments
from mag_rt.wording import clock, printable

NAME = "report.html"
HERE = Path(__file__).parent
VERDICTS = ("spliced", "inconclusive", "authentic")
OUTLINE_WIDTH = 1000
"""Units of width in which outlines are drawn over a picture of any size."""
_JPEG, _PNG, _ANIMATED = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"acTL"


@dataclass(frozen=True)
class Card:
    """A picture or frame in the gallery; what takes space (regions, thumbnails) stays on disk until it is written."""

    finding: Finding
    """Without regions and objects; its `source` as from the folder of the report."""
    regions: int
    """How many there are."""
    number: int
    """Of its line in findings.jsonl, from 0."""
    offset: int
    """Where that line begins in the file, bytes."""


def write_report(folder: Path) -> None:
    """Write `folder`/report.html from the findings.jsonl, run.json and thumbnails/ there; the one before is replaced.

    Whatever run.json or a thumbnail lacks is left out. Raises OSError when results cannot be read or written,
    ValueError when a line of findings.jsonl is damaged.
    """
    cards = list(_cards(folder))
    run = _run(folder)
    readable = [card for card in cards if card.finding.error is None]
    groups = ranked(readable)
    in_order = [card for group in groups for card in group]
    template = _environment().get_template("report.html.j2")
    stream = template.stream(
        headline=headline(readable, cards),
        counts={name: sum(card.finding.verdict == name for card in readable) for name in VERDICTS},
        groups=groups,
        failed=[card for card in cards if card.finding.error],
        details=(_detail(card, line, folder) for card, line in _lines(folder, in_order)),
        facts=facts(run),
        unfinished=run.get("finished") is False,
        passed_over=as_text(_part(run, "passed_over")) if run.get("passed_over") else None,
        constants={"heat": _heat(), "strongest": STRONGEST_HEAT, "outline_width": OUTLINE_WIDTH},
        style=_asset("report.css"),
        script=_asset("report.js"),
    )
    stream.enable_buffering(64)
    with whole(folder / NAME) as partial, partial.open("wb") as file:
        stream.dump(file, encoding="utf-8")


def ranked(cards: Iterable[Card]) -> list[list[Card]]:
    """Cards by picture or video, the most suspicious first: a picture alone, the frames of a video in their order."""
    groups: dict[tuple[str | None, int | None], list[Card]] = {}
    for card in cards:
        alone = card.number if card.finding.frame is None else None
        groups.setdefault((card.finding.source, alone), []).append(card)
    return sorted(groups.values(), key=lambda group: -max(card.finding.score or 0 for card in group))


def headline(readable: list[Card], cards: list[Card]) -> str:
    """What came out, in a sentence."""
    if not cards:
        return "Nothing was scanned"
    if not readable:
        return "The file could not be read" if len(cards) == 1 else f"None of {len(cards):,} files could be read"
    frames = sum(card.finding.frame is not None for card in readable)
    kind = "picture" if not frames else "frame" if frames == len(readable) else "picture or frame"
    number = sum(card.finding.verdict == "spliced" for card in readable)
    many = "pictures and frames" if kind == "picture or frame" else f"{kind}s"
    if len(readable) == 1:
        return f"The {kind} " + ("looks spliced" if number else "is not called spliced")
    if not number:
        return f"None of {len(readable):,} {many} is called spliced"
    return f"{number:,} of {len(readable):,} {many} " + ("looks spliced" if number == 1 else "look spliced")


def facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """What run.json says, as far as it says it, in the words of the report."""
    timings, model, backend = (_part(run, name) for name in ("timings", "model", "backend"))
    rows = [
        ("Scan started", _date(timings.get("started"))),
        ("Time taken", timings.get("seconds") and f"{timings['seconds']} s"),
        ("Pictures per second", timings.get("pictures_per_second")),
        ("Model", model.get("annotator")),
        ("SHA-256 of the model", model.get("sha256")),
        ("Run by", " ".join(str(backend[key]) for key in ("name", "precision") if backend.get(key))),
        ("Why by this", backend.get("reason")),
        *((f"Version of {name}", value) for name, value in _part(run, "versions").items()),
        *((f"Option {name.replace('_', '-')}", _option(value)) for name, value in _part(run, "options").items()),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def link(path: str) -> str:
    """The address of a file relative to the report; a name can look like a scheme (`javascript:...`)."""
    return "./" + quote(os.fsencode(path.replace(os.sep, "/")))


def _cards(folder: Path) -> Iterator[Card]:
    for number, (offset, encoded) in enumerate(whole_lines(folder)):
        finding = Finding.from_json(json.loads(encoded), Path())  # where it lies from the report
        yield Card(replace(finding, regions=[], objects=[]), len(finding.regions), number, offset)


def _lines(folder: Path, cards: Iterable[Card]) -> Iterator[tuple[Card, dict[str, Any]]]:
    with (folder / FINDINGS).open("rb") as file:
        for card in cards:
            file.seek(card.offset)
            yield card, json.loads(file.readline())


def _detail(card: Card, line: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All that the browser needs to show one picture."""
    photo, mask = (_embedded(folder / path) for path in thumbnail_paths(line, folder))
    width, height = line["width"], line["height"]
    return {
        "number": card.number,
        "photo": photo,
        "mask": mask,
        "width": width,
        "height": height,
        "path": printable(line["source"]),
        "sha256": line["sha256"],
        "original": link(line["source"]),
        "sharpens": card.finding.frame is None and _looks_alike(folder / line["source"]),
        "full_mask": line["mask"] and link(line["mask"]),
        "overlay": line["overlay"] and link(line["overlay"]),
        "regions": [_region(region, width, height) for region in line["regions"]],
        "objects": [seen["class"] for seen in line["objects"]],
    }


def _looks_alike(original: Path) -> bool:
    """Whether a browser shows a file as it was scanned: a JPEG or a PNG that stands still.

    Of other kinds browsers turn some that were not turned for the scan and the other way round, and play animations.
    """
    try:
        if not original.is_file():  # a pipe would wait forever
            return False
        with original.open("rb") as file:
            head = file.read(1 << 13)
    except OSError:
        return False
    return head.startswith(_JPEG) or (head.startswith(_PNG) and _ANIMATED not in head)


def _region(region: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """`points` of the outline, for SVG, and the `top` one of them, in a frame that is `OUTLINE_WIDTH` wide.

    `extent`: of the box around it; of a region within the outline of another it is the smaller one.
    """
    scale = OUTLINE_WIDTH / width
    outline = [(round(x * scale), round(y * scale)) for x, y in region["polygon"]]
    left, top, wide, high = region["bbox"]
    return {
        "points": " ".join(f"{x},{y}" for x, y in outline),
        "top": min(outline, key=lambda point: point[1]),
        "place": place((left + wide / 2) / width, (top + high / 2) / height),
        "extent": wide * high,
        "area": f"{region['area_fraction']:.1%}",
        "score": f"{region['score']:.2f}",
    }


def place(x: float, y: float) -> str:
    """Where a point lies in a picture, in words. x, y: in [0, 1] from the upper left."""
    column = ("left", "centre", "right")[min(2, int(x * 3))]
    row = ("upper", "middle", "lower")[min(2, int(y * 3))]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def timeline(group: list[Card]) -> list[tuple[float, float, float, str]]:
    """The frames of a video as bars: left, width and height, each in [0, 1], and verdict."""
    times = [card.finding.time_s or 0.0 for card in group]
    step = min((after - before for before, after in pairwise(times) if after > before), default=1)
    begin, length = times[0], times[-1] + step - times[0]
    ends = [*times[1:], times[-1] + step]
    return [
        ((start - begin) / length, (end - start) / length, card.finding.score or 0, card.finding.verdict or "")
        for card, start, end in zip(group, times, ends, strict=True)
    ]


def stretches(group: list[Card]) -> list[tuple[Segment, Card]]:
    """The spliced stretches of a video, each with its most suspicious frame."""
    by_time = {card.finding.time_s: card for card in group}
    return [(segment, by_time[segment.peak_s]) for segment in segments([card.finding for card in group])]


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def shown(value: Any) -> Any:
        """Every name that reaches the page, whatever it holds, is text that can be shown."""
        return printable(value) if type(value) is str else value

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(clock=clock, link=link, name=os.path.basename)
    environment.globals.update(timeline=timeline, stretches=stretches)
    return environment


def _asset(name: str) -> dict[str, Any]:
    """A style sheet or script that goes into the page, and its hash, by which the page's policy lets it in."""
    from markupsafe import Markup

    text = "\n" + (HERE / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "policy": Markup(f"'sha256-{digest}'")}


def _heat() -> list[list[int]]:
    """The colour of each of the 256 levels of a mask, as in overlays/; RGB."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], HEAT)[0, :, ::-1].tolist()


def _embedded(path: Path) -> str | None:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except FileNotFoundError:
        return None


def _run(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "run.json").read_bytes()))
    except FileNotFoundError:
        return {}


def _part(run: dict[str, Any], name: str) -> dict[str, Any]:
    return run.get(name) or {}


def _option(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return None if value is None else str(value)


def _date(started: str | None) -> str | None:
    if not started:
        return None
    try:
        return f"{datetime.fromisoformat(started):%d %B %Y, %H:%M %Z}".lstrip("0")
    except ValueError:
        return started
