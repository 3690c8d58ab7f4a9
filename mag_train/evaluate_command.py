"""magtrain evaluate: from the command line to the table, on the terminal and as Markdown, JSON and CSV."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # at run time only inside the functions: magtrain --help must not wait for OpenCV
    from mag_train.data.tampered import Tampered
    from mag_train.degradations import Degradation
    from mag_train.evaluation import Estimate, Method, Result, Row

terminal, progress_console = Console(emoji=False), Console(stderr=True, emoji=False)
if not terminal.is_terminal:
    terminal.width = 4096  # a pipe has no width to wrap at

WIDE = 160
"""Columns of a terminal on which means and their intervals fit side by side."""

PAPER_METHODS = ("ManTra-Net", "MAG", "MAG, no G_R", "MAG, single-task")
PAPER_TABLE = {
    "CASIA v2": ((0.40, 0.40, 0.45), (0.74, 0.74, 0.76), (0.41, 0.35, 0.12), (0.12, 0.15, 0.24)),
    "Columbia": ((0.48, 0.48, 0.58), (0.69, 0.69, 0.77), (0.34, 0.32, 0.29), (0.11, 0.19, 0.21)),
    "Realistic Tampering": ((0.50, 0.50, 0.54), (0.50, 0.51, 0.55), (0.28, 0.35, 0.18), (0.17, 0.16, 0.14)),
    "Carvalho": ((0.33, 0.33, 0.38), (0.48, 0.48, 0.56), (0.20, 0.37, 0.29), (0.19, 0.15, 0.18)),
    "FantasticReality": ((0.57, 0.57, 0.73), (0.61, 0.61, 0.76), (0.27, 0.45, 0.36), (0.12, 0.17, 0.21)),
}
"""The paper's Table 1: mAP, p-mAP and cIoU of each of `PAPER_METHODS`, as printed."""
PAPER_COLUMNS = {
    "casia": "CASIA v2",
    "columbia": "Columbia",
    "realistic-tampering": "Realistic Tampering",
    "DSO-1": "Carvalho",
    "fantastic-reality": "FantasticReality",
}
"""The column that stands beside a dataset, by the beginning of the dataset's name."""

PROTOCOLS = {
    "native": "native (as the product scans: shrunk if too large, padded, never stretched; maps at the picture's size)",
    "paper": "paper (pictures, maps and masks at 512x512)",
}
THRESHOLDS = "cIoU and best F1 at the best threshold for each picture, F1@0.5 where the probability reaches 0.5"


class Protocol(str, Enum):
    """What `--protocol` takes."""

    native = "native"
    paper = "paper"


class Precision(str, Enum):
    """What `--precision` takes."""

    float32 = "float32"
    int8 = "int8"


Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL...", help="Bundles (folder or .zip), runs, checkpoints (.pt) or .onnx files."),
]
Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        metavar="NAME:DIR",
        help="Pictures with masks; may be repeated. NAME: casia1, casia2, columbia, carvalho, realistic-tampering, "
        "coverage, fantastic-reality, pair (images/ and masks/) or manifest (manifest.tsv, role development); "
        "NAME/KIND keeps one kind, manifest/DATASET/KIND one dataset, as in casia1/spliced:DIR.",
    ),
]
UnderProtocol = Annotated[
    Protocol,
    typer.Option("--protocol", help="native: pictures as the product scans them. paper: stretched to 512x512."),
]
InPrecision = Annotated[
    Precision,
    typer.Option("--precision", help="Which of a bundle's networks; runs and checkpoints have float32 only."),
]
Degrade = Annotated[
    list[str] | None,
    typer.Option(
        "--degrade",
        metavar="HOW",
        help="Repeat the table on pictures degraded by jpeg:QUALITY, resize:FACTOR, crop:PIXELS, screenshot:FACTOR or "
        "blur:SIGMA; may be repeated.",
    ),
]
CsvFile = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every picture's numbers.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON.")]
MarkdownFile = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write the table as Markdown.")]


def evaluate(
    models: Models,
    dataset: Datasets,
    protocol: UnderProtocol = Protocol.native,
    precision: InPrecision = Precision.float32,
    degrade: Degrade = None,
    csv_file: CsvFile = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
) -> None:
    """Measure how well models find splices, beside what the paper reports.

    Means over pictures with 95% intervals; a picture or mask that cannot be used is left out and counted.
    """
    from mag_train.degradations import UNCHANGED, degradation
    from mag_train.evaluation import load_model, methods, summarise

    for option, file in (("--csv", csv_file), ("--json", json_file), ("--markdown", markdown)):
        _refuse_to_lose(option, file)
    pictures = _pictures(dataset)
    degradations = [UNCHANGED, *(degradation(text) for text in degrade or [])]
    ways = methods([load_model(path, precision.value) for path in models], protocol.value)
    results = _results(pictures, ways, protocol, degradations)
    rows = summarise(results, ways)
    notes = _notes(results, rows, protocol)
    try:
        if csv_file:
            _write_csv(csv_file, results, ways)
        if json_file:
            json_file.write_text(
                json.dumps(as_json(rows, notes, protocol), indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )
        if markdown:
            markdown.write_text(as_markdown(rows, notes), encoding="utf-8", errors="backslashreplace")
    finally:  # a disk that is full does not cost the table, nor a pipe that is closed the files
        _print(rows, notes)
    if not rows:
        raise ValueError("nothing could be measured")


def _refuse_to_lose(option: str, file: Path | None) -> None:
    """Before the measuring. Raises ValueError when a file cannot be written for its place."""
    if file is not None and file.is_dir():
        raise ValueError(f"{option} {file}: is a folder; name a file")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"{option} {file}: there is no folder {file.parent}")


def _pictures(datasets: Sequence[str]) -> list["Tampered"]:
    """The pictures of every `NAME:DIR`. Raises ValueError when a picture, or a dataset of one name, comes twice."""
    from mag_train.data.tampered import read

    found: list[Tampered] = []
    homes: dict[str, str] = {}
    for text in datasets:
        name, colon, folder = text.partition(":")
        if not colon or not folder:
            raise ValueError(f"--dataset {text}: write NAME:DIR")
        pictures = read(name, Path(folder))
        for each in {picture.dataset for picture in pictures}:
            if homes.setdefault(each, folder) != folder:
                raise ValueError(f"--dataset {text}: {each} is in {homes[each]} already; measure them one by one")
        found += pictures
    twice = [image for image, times in Counter(each.image for each in found).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named by more than one --dataset")
    return found


def _results(
    pictures: list["Tampered"], ways: list["Method"], protocol: Protocol, degradations: list["Degradation"]
) -> list["Result"]:
    from mag_rt.pictures import silence_decoders
    from mag_train.evaluation import evaluate as measured

    silence_decoders()  # the table says what cannot be read
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = []
    with Progress(*columns, console=progress_console, disable=not progress_console.is_terminal) as progress:
        for degraded in degradations:
            task = progress.add_task(degraded.name if degraded.name != "none" else "measuring", total=len(pictures))
            for result in measured(pictures, ways, protocol.value, degraded):
                results.append(result)
                progress.advance(task)
    return results


def _notes(results: Sequence["Result"], rows: Sequence["Row"], protocol: Protocol) -> list[str]:
    """What a reader of the numbers has to know: rules first, then what was done to masks and what was left out."""
    notes = [
        f"Protocol: {PROTOCOLS[protocol.value]}.",
        f"Thresholds: {THRESHOLDS}.",
        "In parentheses: 95% interval of the mean, by bootstrap over pictures.",
    ]
    if any(paper_column(row.dataset) for row in rows):
        notes.append(
            "Rows of the paper are as printed in it (NeurIPS 2019, Table 1), over its own pictures at 512x512."
        )
    if any(row.dataset.startswith("casia1") for row in rows):
        notes.append("The paper's CASIA is v2; the pictures measured here as casia1 are of v1.")
    if any(row.dataset.startswith("casia") and row.authentic for row in rows):
        notes.append(
            "CASIA's tampered and authentic JPEGs were saved with different tables: its image AUC and share flagged "
            "mean something only under --degrade jpeg:QUALITY, which saves both alike."
        )
    first = results[0].degradation  # masks are the same under every degradation
    once = [each for each in results if each.degradation == first]
    for count, what in (
        (sum(each.inverted for each in once), "masks covered more than half of the picture and were inverted"),
        (sum(each.stretched for each in once), "masks were of another size and were stretched to the picture"),
        (sum(each.picture.renamed for each in once), "masks had another name and were found by their number"),
    ):
        if count:
            notes.append(f"{count} {what}.")
    for (degraded, reason), skipped in _skipped(results).items():
        under = "" if degraded == "none" else f" under {degraded}"
        notes.append(f"{len(skipped)} of {len(once)} left out{under}: {reason} (first: {skipped[0].message}).")
    return notes


def _skipped(results: Sequence["Result"]) -> dict[tuple[str, str], list["Result"]]:
    """What was left out, by degradation and reason."""
    reasons: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.skipped:
            reasons.setdefault((result.degradation, result.skipped), []).append(result)
    return reasons


def paper_column(dataset: str) -> str | None:
    """The column of the paper's table that stands beside a dataset."""
    return next((column for start, column in PAPER_COLUMNS.items() if dataset.startswith(start)), None)


def _sections(rows: Sequence["Row"]) -> list[list["Row"]]:
    """The rows that belong together: one degradation, dataset and kind."""
    sections: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        sections.setdefault((row.degradation, row.dataset, row.kind), []).append(row)
    return list(sections.values())


def _caption(section: Sequence["Row"]) -> str:
    first = section[0]
    counts = [(first.tampered, first.kind), (first.authentic, "authentic")]
    what = f"{first.dataset}: " + ", ".join(f"{count} {kind}" for count, kind in counts if count)
    return what if first.degradation == "none" else f"{what}; degraded by {first.degradation}"


def _head() -> list[str]:
    from mag_train.evaluation import METRICS

    return ["method", *METRICS, "image AUC", "authentic flagged"]


def _lines(section: Sequence["Row"]) -> list[list[str]]:
    """The cells of the measured rows of a section, then of the paper's."""
    lines = [_cells(row) for row in section]
    column = paper_column(section[0].dataset)
    if column and section[0].tampered:
        blank = [""] * (len(_head()) - 4)
        for method, printed in zip(PAPER_METHODS, PAPER_TABLE[column], strict=True):
            lines.append([f"paper, {column}: {method}", *(f"{value:.2f}" for value in printed), *blank])
    return lines


def _cells(row: "Row") -> list[str]:
    from mag_train.evaluation import METRICS

    auc = "" if row.auc is None else f"{row.auc:.3f}"
    flagged = "" if row.flagged is None else f"{row.flagged:.1%}"
    return [row.method, *(_cell(row.metrics.get(metric)) for metric in METRICS), auc, flagged]


def _cell(estimate: "Estimate | None") -> str:
    return "" if estimate is None else f"{estimate.mean:.3f} ({estimate.low:.2f}-{estimate.high:.2f})"


def _print(rows: Sequence["Row"], notes: Sequence[str]) -> None:
    for section in _sections(rows):
        table = Table(
            title=escape(_caption(section)),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        lines = _lines(section)
        filled = [index for index in range(len(_head())) if any(line[index] for line in lines)]
        for index in filled:
            table.add_column(_head()[index], justify="right" if index else "left", overflow="fold")
        for line in lines:
            cells = (escape(line[index]) for index in filled)
            style = "dim" if line[0].startswith("paper, ") else None
            table.add_row(
                *(each if terminal.width >= WIDE else each.replace(" (", "\n(") for each in cells), style=style
            )
        terminal.print(table)
    for note in notes:
        terminal.print(note, markup=False, highlight=False)


def as_markdown(rows: Sequence["Row"], notes: Sequence[str]) -> str:
    """A table for each section, and the notes as a list."""
    parts = []
    for section in _sections(rows):
        cells = [[cell.replace("|", "\\|") for cell in line] for line in _lines(section)]
        lines = [_head(), ["---"] + ["---:"] * (len(_head()) - 1), *cells]
        parts.append(f"**{_caption(section)}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def as_json(rows: Sequence["Row"], notes: Sequence[str], protocol: Protocol) -> dict[str, Any]:
    """The rows with every digit, the paper's beside them, and the notes; a number that does not exist is null."""
    columns = {row.dataset: paper_column(row.dataset) for row in rows}
    return {
        "protocol": protocol.value,
        "rows": [asdict(row) for row in rows],
        "paper": {
            dataset: {
                "column": column,
                "methods": dict(zip(PAPER_METHODS, PAPER_TABLE[column], strict=True)),
                "metrics": ["AP", "p-AP", "cIoU"],
            }
            for dataset, column in columns.items()
            if column
        },
        "notes": list(notes),
    }


def _write_csv(path: Path, results: Sequence["Result"], ways: Sequence["Method"]) -> None:
    """One row for each picture, method and degradation; one row for a picture that was left out."""
    from mag_train.evaluation import METRICS

    about = ["degradation", "dataset", "kind", "image", "mask", "inverted", "stretched", "renamed", "skipped"]
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, [*about, "method", *METRICS, "score", "flagged"], lineterminator="\n")
        table.writeheader()
        for result in results:
            picture = result.picture
            values = (
                result.degradation, picture.dataset, picture.kind, picture.image, picture.mask or "",
                int(result.inverted), int(result.stretched), int(picture.renamed), result.skipped,
            )  # fmt: skip
            start: dict[str, Any] = dict(zip(about, values, strict=True))
            if result.skipped:
                table.writerow(start)
            for way in ways:
                found: dict[str, Any] = dict(result.metrics.get(way.name, {}))
                if way.name in result.scores:
                    found |= {"score": result.scores[way.name], "flagged": int(result.flagged[way.name])}
                if found:
                    table.writerow(start | {"method": way.name} | found)
