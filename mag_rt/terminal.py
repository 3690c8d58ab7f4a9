"""How a command of magrt ends early: the exit statuses, and the line on stderr that says why."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer
from rich.console import Console

UNUSABLE, SOME_UNREADABLE, NOT_WRITTEN, SPLICE_FOUND, INTERRUPTED = 2, 3, 4, 10, 130

errors = Console(stderr=True, emoji=False)


def complain(message: object) -> None:
    """A line on stderr."""
    errors.print(f"magrt: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


def stop(message: object, status: int) -> NoReturn:
    """A line on stderr, and the end of the command with this status."""
    complain(message)
    raise typer.Exit(status)


def print_nowhere() -> None:
    """What is left in the buffer of standard output, and all that follows, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt_once() -> None:
    """Have the first Ctrl-C or SIGTERM interrupt this process and later ones change nothing: threads in hand come to
    their end.

    Where one is ignored, as Ctrl-C in the background of a shell, it stays so. The first process of a container would
    not hear a SIGTERM that it does not ask for.
    """
    by_default = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    heard = [number for number, default in by_default.items() if signal.getsignal(number) is default]

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, interrupt)
