"""Work ahead of the consumer on other threads: bounded, in order, and nothing else here knows of threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], depth: int, threads: int = 1
) -> Generator[Result, None, None]:
    """`work(item)` for each item, in order, done by other threads up to `depth` items before they are asked for.

    An exception of `work` or of `items` reaches the consumer in its place. Closing the generator waits for the items in
    hand and drops the rest.
    """
    executor = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    source = iter(items)
    try:
        while True:
            for item in islice(source, depth - len(pending)):
                pending.append(executor.submit(work, item))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
        if isinstance(source, Generator):  # what it holds in turn is given back now, and not some time later
            source.close()


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` consecutive items; the last may be shorter."""
    source = iter(items)
    while window := list(islice(source, size)):
        yield window
