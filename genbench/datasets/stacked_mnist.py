"""Stacked MNIST: three random digits of an MNIST split as the red, green and blue channel, 1,000 modes of nearly equal weight."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genbench.arrays import Drawn
from genbench.errors import UsageError
from genbench.protocol import Protocol
from genbench.samples import ArraySamples, Samples, load_idx, subset

SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "three random MNIST digits as RGB, 28×28, 1,000 modes, 60,000 / 26,000 or any n"
SOURCE = "Metz et al. 2017, Unrolled GANs; Srivastava et al. 2017, VEEGAN, arXiv:1705.07761; Lin et al. 2018, PacGAN, arXiv:1712.04086"
EXTRACTOR = "stacked_mnist"
SIZES = {"train": 60_000, "test": 26_000}
PROTOCOLS = {
    "stacked_mnist-1": Protocol("stacked_mnist-1", "stacked_mnist/train", ("stacked_modes", "fid", "prdc"), "stacked_mnist", n=26_000)
}
_BLOCK = 2048


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split: each channel an independent draw, with replacement, from the MNIST split of that name; its seed is (name, split), the same
    everywhere. The label is the number whose digits are red, green and blue.

    Args:
        name: "stacked_mnist".
        split: train or test.
        seed: of the subset, where n is below the split's size.
        n: how many; more than the split's size continue the same stream.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: fetch MNIST's files with torchvision where they are missing.
    """
    digits = load_idx(name, split, SPLITS, "MNIST", seed=0, n=None, root=root, download=download)
    if n is not None and n < 1:
        raise UsageError(f"n must be at least 1, found {n}")
    assert digits.labels is not None
    key = int.from_bytes(hashlib.sha256(f"{name}/{split}".encode()).digest()[:8], "big")
    size = max(n or 0, SIZES[split])

    def chosen(start: int, count: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(start // _BLOCK,)))
        return rng.integers(len(digits), size=(_BLOCK, 3))[:count]  # whole blocks: a longer set begins with the shorter one

    def draw(start: int, count: int) -> NDArray[np.uint8]:
        index = chosen(start, count)
        return digits.take(index.ravel()).reshape(count, 3, *digits.shape[1:])

    labels = np.concatenate([digits.labels[chosen(a, min(_BLOCK, size - a))] @ [100, 10, 1] for a in range(0, size, _BLOCK)])
    what = f"{name}/{split}"
    made = ArraySamples(Drawn(draw, size, what, _BLOCK), name=what, kind="dataset", labels=labels.astype(np.int64))
    return made if n is None else subset(made, n, seed)
