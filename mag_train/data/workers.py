"""What processes that make pictures have in common."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """See to it that this process ends when the one that has started it does.

    A parent that is killed ends nobody: without this, its workers would wait for more work forever.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
