"""The errors of genbench.

    GenbenchError
    ├── UsageError      a mistyped name, flag or setting                        exit code 2
    ├── DataError       samples, files or arrays that cannot be scored          exit code 2
    ├── MissingError    weights, a dataset or an extra that is not installed    exit code 3
    └── FailedError     a gate or a cell of a suite failed; the rest was kept   exit code 1

Every message says what was expected, what was found and what to do.
"""

from collections.abc import Iterable


class GenbenchError(Exception):
    """Base of all errors that genbench raises on purpose."""

    exit_code = 2


class UsageError(GenbenchError):
    """A name, flag or setting that does not exist or does not fit."""


class DataError(GenbenchError):
    """Samples, files or arrays that cannot be scored as they are."""


class MissingError(GenbenchError):
    """Weights, a dataset or an optional package is absent; the message says how to get it."""

    exit_code = 3


class FailedError(GenbenchError):
    """A gate or a cell of a suite failed; every other cell was kept."""

    exit_code = 1


def near_miss(found: str, known: Iterable[str], what: str) -> UsageError:
    """The error for an unknown name, with the nearest known ones.

    Args:
        found: the name the user wrote.
        known: the names that exist.
        what: the kind of thing, e.g. "metric".
    """
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(found, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"known: {', '.join(names)}"
    return UsageError(f"unknown {what} {found!r}; {hint}")
