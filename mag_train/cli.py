"""magtrain, the command line of the training backend."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mag_train.evaluate_command import evaluate

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
errors = Console(stderr=True)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, as in --set optim.lr=1e-4."),
]


@app.callback()
def magtrain() -> None:
    """Train MAG: a retoucher learns to hide splices while an annotator learns to find them."""


@app.command()
def fit(
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run: settings, checkpoints, metrics.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photos: a folder with manifest.tsv, or with images/ and labels/."),
    ] = None,
    preset: Annotated[str, typer.Option(help="edge (what ships), paper (as published) or smoke (a check).")] = "edge",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in RUN from its last checkpoint.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train the networks on splices made on the fly from photos with class labels."""
    from mag_train import config, trainer

    if resume:
        run = trainer.resume(out, data, overrides or [])
    elif data is None:
        raise typer.BadParameter("needed to start a run", param_hint="--data")
    else:
        run = trainer.start(config.load(preset, overrides or []), data, out)
    run.fit()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder to write the bundle to.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photos that calibrate the score. [the run's own folder]")
    ] = None,
    weights_licence: Annotated[
        str, typer.Option(help="What the training photos allow the weights to be used for.")
    ] = "unknown: as the licences of the training photos allow",
) -> None:
    """Turn the best checkpoint of a run into a bundle that magrt scans with."""
    from mag_train.export import export as write_bundle

    written = write_bundle(run, bundle, data, weights_licence)
    check = written.training["calibration_check"]
    typer.echo(f"{bundle}: {written.annotator} annotator, {written.training['pictures']} pictures seen")
    typer.echo(
        f"on {check['photos'] // 2} photos left out of the calibration: {check['authentic_called_spliced']:.1%} of the "
        f"authentic and {check['spliced_called_spliced']:.1%} of the spliced pictures are called spliced"
    )


app.command()(evaluate)


def main() -> None:
    """Entry point: an error that a person can mend is one line on stderr and exit status 2."""
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        errors.print(f"magtrain: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
