"""magrt, the command line of the runtime."""

import io
import sys
from typing import Annotated

import typer
from rich.console import Console

from mag_rt import MagrtError, __version__
from mag_rt.bench_command import bench
from mag_rt.build_command import build
from mag_rt.doctor_command import doctor
from mag_rt.info_command import info
from mag_rt.scan_command import scan
from mag_rt.terminal import NOT_WRITTEN, UNUSABLE, complain, interrupt_once, print_nowhere

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        Console(emoji=False).print(f"magrt {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def magrt(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find which pixels of a photograph were pasted in from another one. Nothing leaves this machine."""


for command in (scan, bench, build, doctor, info):
    app.command()(command)


def main() -> None:
    """Entry point: an error that a person can mend is one line on stderr and exit status 2, or 4 for a full disk."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any name, whatever the terminal can show
    interrupt_once()
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except MagrtError as error:
        complain(error)
        sys.exit(UNUSABLE)
    except OSError as error:
        complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        if sys.stdout:
            print_nowhere()
        sys.exit(NOT_WRITTEN)
