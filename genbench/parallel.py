"""Map functions: the engine asks for results in order and knows nothing of workers."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered(function: Callable[[T], R], tasks: Iterable[T], workers: int = 1) -> Iterator[R]:
    """Results of `function` over `tasks`, in the order of the tasks whatever the number of workers.

    Args:
        function: safe to call from several threads at once.
        tasks: what to map over.
        workers: threads; at most workers + 1 results wait, so memory stays bounded.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    waiting: deque[Future[R]] = deque()
    todo = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        try:
            with contextlib.suppress(StopIteration):
                for _ in range(workers + 1):
                    waiting.append(pool.submit(function, next(todo)))
            while waiting:
                done = waiting.popleft().result()
                with contextlib.suppress(StopIteration):
                    waiting.append(pool.submit(function, next(todo)))
                yield done
        finally:
            for future in waiting:
                future.cancel()
