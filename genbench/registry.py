"""Names of metrics, baselines, datasets and extractors: the files of a package, plus third parties' entry points.

A name is known without importing its module; a module is imported when it is used.
"""

import functools
import importlib
import importlib.metadata
import pkgutil
from types import ModuleType
from typing import Any

from genbench.errors import MissingError, near_miss

KINDS = ("metrics", "baselines", "datasets", "extractors")


@functools.cache  # a scan of every installed package takes milliseconds, and a suite asks thousands of times
def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=f"genbench.{kind}")}


def modules(kind: str) -> list[str]:
    """Sorted names of all modules of a kind, without importing them."""
    package = importlib.import_module(f"genbench.{kind}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    return sorted(own | set(_entry_points(kind)))


def module(kind: str, name: str) -> ModuleType:
    """Import the module `name` of a kind.

    Raises:
        UsageError: there is no such name; the message has the near miss.
        MissingError: the module needs an optional package that is not installed.
    """
    if name not in modules(kind):
        raise near_miss(name, modules(kind), kind[:-1])
    entry = _entry_points(kind).get(name)
    try:
        return entry.load() if entry else importlib.import_module(f"genbench.{kind}.{name}")
    except ModuleNotFoundError as e:
        if e.name and not e.name.startswith("genbench"):
            raise MissingError(f"{kind[:-1]} {name!r} needs the package {e.name!r}; pip install {e.name}") from e
        raise


def metric(name: str) -> Any:
    """The Metric of the file `metrics/<name>.py`."""
    return getattr(module("metrics", name), name)


def datasets() -> dict[str, str]:
    """Every dataset name -> the module that has it (a module may hold several in NAMES)."""
    found = {}
    for m in modules("datasets"):
        for name in getattr(module("datasets", m), "NAMES", (m,)):
            found[name] = m
    return found


def dataset(name: str) -> ModuleType:
    """The module that has the dataset `name`."""
    known = datasets()
    if name not in known:
        raise near_miss(name, known, "dataset")
    return module("datasets", known[name])
