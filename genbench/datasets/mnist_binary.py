"""Binary MNIST: mnist-dynbin, whose grey values are probabilities, and mnist-threshold, whose grey values are cut at one half.

Numbers of the two do not compare. train is the first 50,000 images of MNIST's training split, valid the last 10,000, test its test split.
mnist-dynbin: a pixel of grey value v is white with probability v/255. Training draws every image anew each time it enters a minibatch;
what `load` gives are fixed draws. The test split has five, `test` and `test1` ... `test4`. They are splits of their own rather than one
of 50,000 rows because the five draws of an image are dependent: an interval that took them for 50,000 independent rows would be too
narrow by up to √5. The difference between two draws is within the interval of either.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.arrays import Drawn
from genbench.errors import UsageError
from genbench.protocol import Protocol
from genbench.samples import ArraySamples, Samples, check_split, load_idx, subset

NAMES = ("mnist-dynbin", "mnist-threshold")
SPLITS = ("train", "valid", "test", "test1", "test2", "test3", "test4")
DEFAULT = "train"
SUMMARY = "binary MNIST, 28×28, 50,000 / 10,000 / 10,000: grey values as probabilities (dynbin) or cut at one half (threshold)"
SOURCE = (
    "LeCun, Bottou, Bengio, Haffner 1998; dynamic binarisation: Salakhutdinov, Murray 2008, On the quantitative analysis of deep belief "
    "networks, doi:10.1145/1390156.1390266; Burda et al. 2016, arXiv:1509.00519"
)
EXTRACTOR = "mnist"
# n = n_ref = the size of the test split, so that the real test set is a row of the table and precision and recall see two equal counts.
_METRICS = ("nll", "fid", "kid", "inception_score", "prdc", "nn_copies", "class_histogram", "reconstruction")
PROTOCOLS = {f"{name}-2": Protocol(f"{name}-2", f"{name}/train", _METRICS, "mnist", n=10_000, n_ref=10_000) for name in NAMES}
PROTOCOLS |= {f"{p}-1": Protocol(f"{p}-1", f"{p}/train", _METRICS[:-2], "mnist", n=10_000, n_ref=10_000) for p in NAMES}

_TRAIN = 50_000
_BLOCK = 2048


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split, as bytes 0 and 255, with its labels.

    Args:
        name: one of NAMES.
        split: train, valid, test; mnist-dynbin has test1 to test4 too, further draws of the same images.
        seed: of the subset of n; not of the binarisation, whose seed is (split, image), the same everywhere.
        n: how many; None for all.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: fetch MNIST's files with torchvision where they are missing.
    """
    splits = SPLITS if name == "mnist-dynbin" else SPLITS[:3]
    check_split(name, split, splits)
    digits, first, size = _part(name, split, root, download)
    assert digits.labels is not None
    key = int.from_bytes(hashlib.sha256(f"{name}/{split}".encode()).digest()[:8], "big")

    def draw(start: int, count: int) -> NDArray[np.uint8]:
        grey = digits.read(first + start, first + min(start + count, size))
        if name == "mnist-threshold":
            return np.where(grey > 127, 255, 0).astype(np.uint8)
        rng = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(start // _BLOCK,)))
        return binarise(grey, rng)

    labels = digits.labels[first : first + size]
    what = f"{name}/{split}"
    made = ArraySamples(Drawn(draw, size, what, _BLOCK), name=what, kind="dataset", labels=labels)
    return made if n is None else subset(made, n, seed)


def binarise(grey: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """White with probability grey/255, exactly: a whole number below 255 is drawn for every pixel."""
    return np.where(rng.integers(255, size=grey.shape, dtype=np.uint8) < grey, 255, 0).astype(np.uint8)


def redraw(name: str) -> Callable[[NDArray[np.int64], np.random.Generator], NDArray[Any]] | None:
    """How training rows are drawn anew, by their numbers; None for mnist-threshold, which has nothing random."""
    return functools.partial(_redraw, _Grey()) if name == "mnist-dynbin" else None


class _Grey:
    """The grey training images in memory, read when they are first needed."""

    @functools.cached_property
    def images(self) -> NDArray[np.uint8]:
        digits, first, size = _part("mnist-dynbin", "train", None, False)
        return np.asarray(digits.read(first, first + size))


def _redraw(grey: _Grey, index: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    return binarise(grey.images[index], rng)


def _part(name: str, split: str, root: Path | None, download: bool) -> tuple[Samples, int, int]:
    """MNIST's split with the images, the number of the first one, and how many."""
    source = "test" if split.startswith("test") else "train"
    digits = load_idx(name, source, ("train", "test"), "MNIST", seed=0, n=None, root=root, download=download)
    if len(digits) <= (_TRAIN if source == "train" else 0):
        raise UsageError(f"{name} needs MNIST's 60,000 training images, found {len(digits):,}; put the whole files there")
    bounds = {"train": (0, _TRAIN), "valid": (_TRAIN, len(digits) - _TRAIN)}
    return digits, *bounds.get(split, (0, len(digits)))
