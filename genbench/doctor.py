"""`genbench doctor`: what the machine has, and the exact fix for each fault. Nothing that is broken breaks it."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from genbench.errors import DataError, GenbenchError, MissingError

State = Literal["ok", "note", "fault"]
Finding = tuple[State, str, str]
_NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "clean-fid": "cleanfid",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "cyclopts": "cyclopts",
    "rich": "rich",
    "pydantic": "pydantic",
    "platformdirs": "platformdirs",
    "tabulate": "tabulate",
}
_EXTRAS = {
    "encoders": ("timm", "open_clip"),
    "plots": ("matplotlib",),
    "fast": ("openvino",),
    "parity": ("pytorch_fid", "torch_fidelity", "prdc", "torchmetrics"),
    "test": ("pytest", "hypothesis"),
}
# What a package that is half installed, a disk that fails or a driver of another version may raise.
_FAULTS = (GenbenchError, ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError, KeyError, AssertionError)
_LOW = 2e9  # bytes


def _python() -> Iterator[Finding]:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    what = f"Python {platform.python_version()} in {sys.prefix}, {platform.system()} {platform.machine()}"
    yield ("ok", what, "") if ok else ("fault", what, "install Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[Finding]:
    for name, module in _NEEDED.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield "fault", f"{name} is not installed", f"pip install {name}"
            continue
        if importlib.util.find_spec(module) is None:
            yield "fault", f"{name} {version} is installed in part: there is no module {module}", f"pip install --force-reinstall {name}"
        else:
            yield "ok", f"{name} {version}", ""


def _device() -> Iterator[Finding]:
    try:
        import torch
    except _FAULTS as e:
        first = next(iter(str(e).splitlines()), type(e).__name__)
        yield "fault", f"torch cannot be imported ({first})", "pip install --force-reinstall torch torchvision"
        return
    built = f"torch built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}"
    if torch.cuda.is_available():
        yield "ok", f"device cuda ({torch.cuda.get_device_name()}), {built}", ""
    else:
        yield "note", f"device cpu, {built}", "no GPU was found; scoring runs on the CPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    fix = f"unset OMP_NUM_THREADS, or set it to {cores}, to use all" if threads < cores else ""
    yield "note" if fix else "ok", f"{threads} threads on {cores} cores", fix


def _cache() -> Iterator[Finding]:
    from genbench.cache import Cache, cache_root

    root = cache_root()
    below = next(p for p in (root, *root.parents) if p.exists())
    another = "set GENBENCH_CACHE to a writable folder"
    if not below.is_dir():
        yield "fault", f"cache {root}: {below} is a file", another
        return
    try:
        tempfile.TemporaryFile(dir=below).close()
    except OSError as e:
        yield "fault", f"cache {root} cannot be written ({e.strerror})", another
    else:
        sizes = [p.stat().st_size for p in Cache(root).entries()]
        yield "ok", f"cache {root}, writable, {len(sizes):,} shards, {sum(sizes) / 1e6:,.1f} MB", ""
    free = shutil.disk_usage(below).free
    fix = "genbench cache clear, free some disk, or set GENBENCH_CACHE to another disk" if free < _LOW else ""
    yield "fault" if fix else "ok", f"{free / 1e9:,.1f} GB free for the cache", fix


def _data() -> Iterator[Finding]:
    from genbench import registry
    from genbench.samples import data_root

    root = data_root()
    if root.is_dir():
        yield "ok", f"data folder {root}", ""
    elif os.environ.get("GENBENCH_DATA"):
        yield "fault", f"GENBENCH_DATA is {root}, which is no folder", "set it to the folder that holds MNIST/raw and others, or unset it"
    else:
        yield (
            "note",
            f"data folder {root} does not exist",
            "set GENBENCH_DATA to the folder that holds MNIST/raw and others, or pass --download",
        )
    there: list[str] = []
    absent: list[str] = []
    for name in sorted(registry.datasets()):
        wanted = _files_of(name)
        found = all((root / f).is_file() or (root / f"{f}.gz").is_file() for f in wanted)
        (there if found else absent).append(name)
    yield "ok", f"datasets that are there: {', '.join(there) or 'none'}", ""
    if absent:
        where = f"put their files under {root} (genbench eval {absent[0]} --reference {absent[0]} lists them), or pass --download"
        yield "note", f"datasets that are not there: {', '.join(absent)}", where


def _files_of(dataset: str) -> list[str]:
    """The files that a dataset needs below the data folder: those that its error names where the data folder can hold nothing."""
    from genbench import registry

    module = registry.dataset(dataset)
    try:
        module.load(dataset, module.DEFAULT, root=Path(os.devnull))
    except MissingError as e:
        return re.findall(rf"{re.escape(os.devnull)}{re.escape(os.sep)}([^\s,]+)", str(e))
    return []


def _weights() -> Iterator[Finding]:
    from genbench import registry
    from genbench.extractor import WeightFile, resolve_weights, weights_root

    users: dict[tuple[WeightFile, ...], list[str]] = {}
    for name in registry.modules("extractors"):
        module = registry.module("extractors", name)
        each: list[tuple[WeightFile, ...]] = [(f,) for f in getattr(module, "NEEDED", ())]
        for found in each or [tuple(getattr(module, "FILES", ()))]:  # one of FILES will do
            users.setdefault(found, []).append(name)
    yield "ok", f"extractors that need no weights of others: {', '.join(users.pop((), ['none']))}", ""
    for files, names in users.items():
        what = f"weights of {' and '.join(names)}"
        try:
            yield "ok", f"{what}: {resolve_weights(names[0], files, None)}", ""
        except DataError as e:
            yield "fault", f"{what}: {e}", "delete that file and fetch it again"
        except MissingError:
            first = files[0]
            fix = f"put {first.file} ({first.size}, {first.licence}) from {first.url} into {weights_root()}"
            yield "note", f"{what} are not there", f"{fix}, or pass --weights FILE or --download"


def _extras() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        what = f"extra [{extra}]: {'missing ' + ', '.join(missing) if missing else 'installed'}"
        yield "note" if missing else "ok", what, f"pip install 'genbench[{extra}]'" if missing else ""


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("Python", _python),
    ("packages", _packages),
    ("device", _device),
    ("cache", _cache),
    ("data", _data),
    ("weights", _weights),
    ("extras", _extras),
)


def examine() -> Iterator[Finding]:
    """Yield (state, what was found, fix) for each thing that an evaluation needs."""
    for what, check in _CHECKS:
        try:
            yield from check()
        except _FAULTS as e:
            missing = e.name if isinstance(e, ModuleNotFoundError) else None
            fix = f"pip install {missing}" if missing else "pip install --force-reinstall genbench, or mend what the message names"
            yield "fault", f"{what} cannot be looked at ({type(e).__name__}: {e})", fix


def main() -> int:
    """Print every finding with its fix; exit code 1 where there is a fault."""
    from genbench.run import printable

    faults = 0
    for state, what, fix in examine():
        faults += state == "fault"
        print(printable(f"{state:5}  {' '.join(what.split())}{'  →  ' + fix if fix else ''}"))
    print(f"{faults} faults" if faults else "no fault")
    return 1 if faults else 0
