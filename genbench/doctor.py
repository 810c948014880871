"""`genbench doctor`: what the machine has, and the exact fix for each fault."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from genbench.cache import cache_root
from genbench.samples import data_root

State = Literal["ok", "note", "fault"]
Finding = tuple[State, str, str]
_NEEDED = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pillow",
    "safetensors",
    "cyclopts",
    "rich",
    "pydantic",
    "platformdirs",
)
_EXTRAS = {"encoders": ("timm", "open_clip"), "parity": ("pytorch_fid", "torch_fidelity", "prdc", "torchmetrics")}


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


def examine() -> Iterator[Finding]:
    """Yield (state, what was found, fix) for each thing that an evaluation needs."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield ("ok" if ok else "fault", f"Python {sys.version.split()[0]}", "" if ok else "install Python 3.11, 3.12 or 3.13")
    for name in _NEEDED:
        try:
            yield "ok", f"{name} {importlib.metadata.version(name)}", ""
        except importlib.metadata.PackageNotFoundError:
            yield "fault", f"{name} is not installed", f"pip install {name}"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            yield "ok", f"device cuda ({torch.cuda.get_device_name()}), torch built for CUDA {torch.version.cuda}", ""
        else:
            yield (
                "note",
                f"device cpu, torch built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}",
                "no GPU was found; scoring runs on the CPU",
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = torch.get_num_threads()
        fewer = threads < cores
        yield (
            "note" if fewer else "ok",
            f"{threads} threads on {cores} cores",
            f"unset OMP_NUM_THREADS, or set it to {cores}, to use all" if fewer else "",
        )
    cache = cache_root()
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free / 1e9
    if not _writable(cache):
        yield "fault", f"cache {cache} cannot be written", "set GENBENCH_CACHE to a writable folder"
    else:
        yield (
            "ok" if free > 2 else "fault",
            f"cache {cache}, {free:,.0f} GB free",
            "" if free > 2 else "free some disk, or set GENBENCH_CACHE to another disk",
        )
    root = data_root()
    there = root.is_dir()
    yield (
        "ok" if there else "note",
        f"data folder {root}{'' if there else ' does not exist'}",
        "" if there else "set GENBENCH_DATA to the folder that holds MNIST/raw and others, or pass --download",
    )
    weights = sorted(p.name for p in (cache / "weights").glob("*")) if (cache / "weights").is_dir() else []
    yield (
        "ok" if weights else "note",
        f"cached weights: {', '.join(weights) or 'none'}",
        "" if weights else "extractor inception needs its weights: pass --weights FILE, or --download",
    )
    for extra, packages in _EXTRAS.items():
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        yield (
            "note" if missing else "ok",
            f"extra [{extra}]: {'missing ' + ', '.join(missing) if missing else 'installed'}",
            f"pip install 'genbench[{extra}]'" if missing else "",
        )


def main() -> int:
    """Print every finding with its fix; exit code 1 where there is a fault."""
    faults = 0
    for state, what, fix in examine():
        faults += state == "fault"
        print(f"{state:5}  {what}{'  →  ' + fix if fix else ''}")
    return 1 if faults else 0
