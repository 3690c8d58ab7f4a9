"""`magtrain export`: a run turned into a bundle, and what can be made of it in the same go."""

from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mag_rt import bundle as bundles
from mag_rt.build_command import NETWORKS, Precision, build_into
from mag_rt.bundle import MANIFEST, Bundle
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import Spec


class Extra(str, Enum):
    """What `--with` takes."""

    retoucher = "retoucher"


Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Folder of a run; or a bundle, to calibrate it anew (--data) or to add INT8 (--int8) to it."
    ),
]
Target = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder to write the bundle to.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Authentic photos that calibrate mask and score and check the networks; the run's own.",
    ),
]
LICENCE_UNKNOWN = "unknown: as the licences of the training photos allow"
WeightsLicence = Annotated[
    str | None,
    typer.Option(
        "--weights-licence",
        help=f"What the training photos allow the weights of a run to be used for. [{LICENCE_UNKNOWN}]",
    ),
]
AverageWith = Annotated[
    Path | None,
    typer.Option(
        "--average-with",
        metavar="BUNDLE",
        help="Write the mean of the run's weights and those of the bundle that it started from.",
    ),
]
Int8 = Annotated[
    Path | None,
    typer.Option(
        "--int8",
        metavar="PHOTOS",
        help="Add the INT8 network, calibrated on the authentic photos in a folder, as --data takes one.",
    ),
]
Thorough = Annotated[
    bool,
    typer.Option("--thorough", help="Let the annotator read each picture four ways: better, and four times as slow."),
]
Engine = Annotated[
    Precision | None,
    typer.Option(
        "--engine", help="Build a TensorRT engine too, as magrt build does; where only TensorRT-RTX is, by that."
    ),
]
With = Annotated[
    Extra | None,
    typer.Option("--with", help="retoucher: its ONNX beside the bundle, as BUNDLE.retoucher.onnx, for studies."),
]


def export(
    run: Run,
    bundle: Target,
    data: Data = None,
    weights_licence: WeightsLicence = None,
    average_with: AverageWith = None,
    int8: Int8 = None,
    thorough: Thorough = False,
    engine: Engine = None,
    extra: With = None,
) -> None:
    """Turn the best checkpoint of a run into a bundle that magrt scans with.

    The annotator is written in float32, the reference, in float16, for TensorRT, and with --int8 in INT8, for OpenVINO
    and TensorRT. They are checked on photos, and bundle.json says how far they are from torch or from the reference.
    """
    from mag_train import export as exporting
    from mag_train.data.opening import authentic_photos
    from mag_train.quantise import with_int8

    is_bundle = run.suffix == ".zip" or (run / MANIFEST).is_file()
    # Now: what cannot be had is said before the work, and before anything is written.
    if bundle.exists() and not bundle.is_dir():
        raise ValueError(f"{bundle} is a file; name the folder to write the bundle to")
    retoucher = exporting.retoucher_of_run(run) if extra and not is_bundle else b""
    quantised_on = authentic_photos(int8) if int8 else []
    if is_bundle:
        if extra or average_with or weights_licence or not (data or (int8 and not thorough)):
            raise typer.BadParameter(
                "a bundle has no retoucher and no photos, name some by --data, or by --int8 if no more than INT8 is "
                "wanted; it keeps its licence; and runs are averaged, not bundles",
                param_hint="RUN",
            )
        written = exporting.calibrated_anew(run, data, thorough) if data else bundles.load(run)
    else:
        written = exporting.bundle_of_run(run, data, weights_licence or LICENCE_UNKNOWN, average_with, thorough)
    if int8:
        written = with_int8(written, quantised_on)
    bundles.save(written, bundle)  # now, complete: whatever failed before leaves what lay there alone
    _report(written, bundle)
    if extra:
        beside = bundle.with_name(f"{bundle.name}.retoucher.onnx")
        beside.write_bytes(retoucher)
        typer.echo(f"{beside}: hides splices, for studies of robustness; never part of a bundle")
    if engine:
        rtx = find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is not None
        typer.echo(build_into(EngineCache(), written, Spec.default(written, NETWORKS[engine]), rtx))


def _report(written: Bundle, folder: Path) -> None:
    typer.echo(f"{folder}: {written.annotator} annotator, {written.training.get('pictures', 'unknown')} pictures seen")
    if check := written.training.get("calibration_check"):
        shares = (
            f"{check[f'{kind}_called_spliced']:.1%} of the {kind}"
            for kind in ("authentic", "published", "spliced")
            if f"{kind}_called_spliced" in check
        )
        typer.echo(
            f"on halves of {check['photos']} photos, by the fit of the other half, are called spliced: "
            f"{', '.join(shares)} pictures"
        )
    for precision in written.networks:
        if facts := written.training.get(f"{precision}_difference"):
            typer.echo(
                f"{precision} masks differ from float32 by {facts['mask']:.4f} on {facts['photos']} photos, IoU "
                f"{facts['iou']:.3f}"
            )
