"""magtrain, the command line of the training backend."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mag_train.evaluate_command import evaluate
from mag_train.export_command import export
from mag_train.preview_command import preview
from mag_train.synthesize_command import synthesize

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="markdown"
)

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
        typer.Option(
            metavar="DIR",
            help="Photos to splice on the fly (manifest.tsv, or images/ and labels/), or splices: FantasticReality's "
            "folders, or images/, masks/ and authentic/.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="edge (what ships), paper (as published) or smoke (a check). [edge]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in RUN from its last checkpoint.")] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Start from this bundle's or run's annotator instead of random weights."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed; short for --set precision=... [the preset's]")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or without any CPU processes, on each machine.")] = 1,
    num_nodes: Annotated[
        int, typer.Option(min=1, help="Machines; start the command on each, by torchrun or your cluster's launcher.")
    ] = 1,
    overrides: Overrides = None,
) -> None:
    """Train the networks on splices made on the fly from photos with class labels.

    RUN/metrics.csv has every loss term as training goes, RUN/validation.csv the AP on held-out photos by epoch. Ctrl-C
    and SIGTERM save and stop with exit status 130; after a crash --resume loses ten minutes at most.

    The ablations of the paper's Table 1: --set model.retoucher=none and --set model.tasks=mask.
    """
    from mag_train import config, trainer

    settings = [*([f"precision={precision}"] if precision else []), *(overrides or [])]
    if resume:
        if start_from:
            raise typer.BadParameter("a run that is resumed has its own weights", param_hint="--start-from")
        if preset:
            raise typer.BadParameter(
                "a run that is resumed has its own settings; --set changes one", param_hint="--preset"
            )
        run = trainer.resume(out, data, settings, devices, num_nodes)
    elif data is None:
        raise typer.BadParameter("needed to start a run", param_hint="--data")
    else:
        run = trainer.start(config.load(preset or "edge", settings), data, out, start_from, devices, num_nodes)
    finished = run.fit()
    if not finished and run.fabric.is_global_zero:  # its own launcher takes another process's status for a crash
        raise typer.Exit(130)


app.command()(evaluate)
app.command()(export)
app.command()(preview)
app.command()(synthesize)


def main() -> None:
    """Entry point: an error that a person can mend is one line on stderr and exit status 2.

    Of several processes the first one speaks.
    """
    errors = Console(stderr=True, emoji=False, quiet=os.environ.get("LOCAL_RANK", "0") != "0")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name, whatever the terminal can show
    try:
        app()
    except ModuleNotFoundError as error:
        said = f"{error.name} is missing: pip install 'magrt[train]'"
    except (ValueError, OSError, RuntimeError) as error:
        said = str(error)
    else:
        return
    errors.print(f"magtrain: {said}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
