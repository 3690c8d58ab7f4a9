"""magrt info: what the model is, what its verdicts mean, what it cannot tell, and under which licence it comes."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mag_rt import bundle as bundles
from mag_rt.bundle import NETWORKS, Bundle, numbers
from mag_rt.errors import BundleError
from mag_rt.findings import TELLING_QUALITY
from mag_rt.terminal import UNUSABLE, stop
from mag_rt.wording import printable

FEW = 50
"""Training photos of a class, below which what its channel says means little."""
LIMITS = (
    "A mask is a hint for a person who looks, no proof; that nothing is found does not prove a photo genuine.",
    "It looks for traces of a paste: another camera's noise, another JPEG history, resampling, cut edges. Strong "
    "recompression, scaling down, messengers and screenshots wipe them out.",
    "Pictures made by a generator and edits of the whole picture (colour, crop, filters) are no splices; objects "
    "removed or copied within one photo leave few traces.",
    "Photos shrunk a lot, product shots on white, screenshots, scans and strongly denoised photos give false alarms.",
    "Of a paste that covers more than half of a picture the rest may be marked instead.",
)
"""Of the method, whatever the weights."""


def info(
    model: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="thorough, or the folder or zip of another annotator. [edge]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Say what the model is: its verdicts, training, licence and limits.

    Exit status: 0; 2 no such bundle, or one that cannot be used.
    """
    path = bundles.located(model)
    try:
        bundle = bundles.load(path)
    except BundleError as error:
        stop(error, UNUSABLE)
    if as_json:
        typer.echo(json.dumps(as_facts(path, bundle), indent=2))
    else:
        _show(path, bundle)


def as_facts(path: Path, bundle: Bundle) -> dict[str, Any]:
    """All that is known of a bundle, for machines: the manifest's facts, sizes in bytes, limits in words."""
    return {
        "schema": 1,
        "bundle": os.path.abspath(path),
        "ships": any(path.samefile(bundles.bundled(name)) for name in bundles.SHIPPED),
        "format": bundle.format,
        "annotator": bundle.annotator,
        "multiple": bundle.multiple,
        "max_side": bundle.max_side,
        "classes": list(bundle.classes),
        "mask_threshold": bundle.mask_threshold,
        "calibration": asdict(bundle.calibration),
        "training": bundle.training,
        "weights_licence": bundle.weights_licence,
        "networks": [
            {
                "precision": precision,
                "file": NETWORKS[precision],
                "bytes": len(network),
                "sha256": hashlib.sha256(network).hexdigest(),
            }
            for precision, network in bundle.networks.items()
        ],
        "limits": limits(bundle),
    }


def limits(bundle: Bundle) -> list[str]:
    """What the model cannot tell, a sentence or two each: of the method, and of these weights as far as is recorded."""
    photos = bundle.training.get("photos_by_class")
    if not isinstance(photos, dict):
        return [*LIMITS, "How many training photos showed each class is not recorded in this bundle."]
    known = numbers(photos)
    few = [f"{name} ({known.get(name, 0):.0f})" for name in bundle.classes if known.get(name, 0) < FEW]
    if not few:
        return list(LIMITS)
    return [*LIMITS, f"Classes with hardly any training photos, whose channels mean little: {', '.join(few)}."]


def _show(path: Path, bundle: Bundle) -> None:
    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = 4096  # a pipe has no width to wrap at
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, says in _lines(path, bundle):
        table.add_row(heading, Text(printable(says)))
    console.print(table)


def _lines(path: Path, bundle: Bundle) -> list[tuple[str, str]]:
    facts = as_facts(path, bundle)
    where = "which ships with magrt" if facts["ships"] else str(path)
    million = len(bundle.network) / 4e6  # float32; the graph around the weights is small beside them
    side = bundle.multiple
    return [
        ("model", f"{bundle.annotator} annotator, {where} (bundle format {facts['format']})"),
        ("parameters", f"about {million:.1f} million"),
        ("input", f"RGB, sides padded to multiples of {side}; pictures beyond {bundle.max_side} pixels are shrunk"),
        ("output", f"the probability of a splice at each pixel, edges, and classes: {', '.join(bundle.classes)}"),
        ("regions", f"where that probability reaches {bundle.mask_threshold:g}"),
        *(("verdict" if not at else "", says) for at, says in enumerate(_verdicts(bundle))),
        *(("training" if not at else "", says) for at, says in enumerate(_training(bundle))),
        ("licence", f"of the weights: {bundle.weights_licence}"),
        *(("limits" if not at else "", says) for at, says in enumerate(facts["limits"])),
        *(
            (each["precision"], f"{each['file']}, {each['bytes'] / 1e6:.1f} MB, SHA-256 {each['sha256']}")
            for each in facts["networks"]
        ),
    ]


def _verdicts(bundle: Bundle) -> list[str]:
    """What the thresholds mean, and how well they held where that was measured."""
    calibration = bundle.calibration
    meaning = (
        f"spliced from score {calibration.spliced:.2f} on, authentic up to {calibration.authentic:.2f}, inconclusive "
        "between; the score is a probability at even odds"
    )
    if calibration.small > 1:
        meaning += f"; pictures of fewer than {calibration.small:,} pixels are never called spliced"
    meaning += f"; a JPEG of a quality below {TELLING_QUALITY} is not called authentic unless it is shrunk a lot"
    check = bundle.training.get("calibration_check")
    share = numbers(check if isinstance(check, dict) else {})
    try:
        return [
            meaning,
            f"measured on {share['photos']:.0f} photos and splices of them, each half by the fit of the other:",
            f"of authentic photos {share['authentic_called_spliced']:.1%} are called spliced (false alarms), "
            f"{share['authentic_called_authentic']:.1%} authentic;",
            f"of spliced pictures {share['spliced_called_spliced']:.1%} are called spliced, "
            f"{share['spliced_called_authentic']:.1%} authentic (missed)",
        ]
    except KeyError:
        return [meaning, "how often that is wrong is not recorded in this bundle"]


def _training(bundle: Bundle) -> list[str]:
    facts = numbers(bundle.training)
    amounts = [f"{facts[unit]:,.10g} {unit}" for unit in ("pictures", "iterations", "hours") if unit in facts]
    machine = f" on {bundle.training['machine']}" if "machine" in bundle.training else ""
    lines = [(", ".join(amounts) or "not recorded in this bundle") + machine]
    if "validation_ap" in facts:
        lines.append(f"AP {facts['validation_ap']:.3f} on splices of photos that were held out")
    return lines
