"""Map functions: the engine asks for results in order and knows nothing of workers."""

import contextlib
import errno
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from genbench.errors import GenbenchError

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3
PAUSE = 0.1  # seconds before the second try, twice that before the third
_NAMES = ("EIO", "EAGAIN", "EBUSY", "EINTR", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ENETRESET")
PASSING = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}
"""What a disk, a network drive or a machine that is short of something may say once and not again."""


def ordered(function: Callable[[T], R], tasks: Iterable[T], workers: int = 1) -> Iterator[R]:
    """Results of `function` over `tasks`, in the order of the tasks whatever the number of workers.

    A task that dies of a fault that may pass is tried three times in all; the last error is raised as it is.

    Args:
        function: safe to call from several threads at once.
        tasks: what to map over.
        workers: threads; at most workers + 1 results wait, so memory stays bounded.
    """

    def tried(task: T) -> R:
        for attempt in range(1, TRIES):
            try:
                return function(task)
            except (OSError, GenbenchError) as e:
                if not _may_pass(e):
                    raise
                print(f"genbench: a worker failed ({e}); its part is tried again", file=sys.stderr)
                time.sleep(PAUSE * attempt)
        return function(task)

    if workers <= 1:
        yield from map(tried, tasks)
        return
    waiting: deque[Future[R]] = deque()
    todo = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        try:
            with contextlib.suppress(StopIteration):
                for _ in range(workers + 1):
                    waiting.append(pool.submit(tried, next(todo)))
            while waiting:
                done = waiting.popleft().result()
                with contextlib.suppress(StopIteration):
                    waiting.append(pool.submit(tried, next(todo)))
                yield done
        finally:
            for future in waiting:
                future.cancel()


def _may_pass(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is a fault of the moment."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno in PASSING
        error = error.__cause__
    return False
