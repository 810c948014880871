"""CIFAR-10: 32×32 colour photographs, in torchvision's layout."""

from pathlib import Path

from genbench.protocol import Protocol
from genbench.samples import Samples, load_cifar

SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "photographs of 10 classes, 32×32 colour, 50,000 / 10,000"
SOURCE = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
EXTRACTOR = "inception"
_QUALITY = ("fid", "kid", "inception_score", "prdc")
PROTOCOLS = {
    "cifar10-1": Protocol("cifar10-1", "cifar10/train", _QUALITY, "inception", n=50_000),
    "cifar10-2": Protocol("cifar10-2", "cifar10/train", ("bits_per_dim", *_QUALITY), "inception", n=50_000),
}


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split, through torchvision's reader, which checks the files' md5 sums before it reads them.

    Args:
        name: "cifar10".
        split: train or test.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: fetch the files with torchvision where they are missing.
    """
    return load_cifar(name, split, SPLITS, "CIFAR10", seed=seed, n=n, root=root, download=download)
