"""Fashion-MNIST: 28×28 grey images of clothes, in torchvision's layout."""

from pathlib import Path

from genbench.protocol import Protocol
from genbench.samples import Samples, load_idx

SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "clothes, 28×28 grey, 60,000 / 10,000"
SOURCE = "Xiao, Rasul, Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747"
EXTRACTOR = "inception"
PROTOCOLS = {
    "fashion_mnist-1": Protocol("fashion_mnist-1", "fashion_mnist/train", ("fid", "kid", "inception_score", "prdc"), "inception", n=10_000)
}


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split, mapped from FashionMNIST/raw under the data folder.

    Args:
        name: "fashion_mnist".
        split: train or test.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: fetch the files with torchvision where they are missing.
    """
    return load_idx(name, split, SPLITS, "FashionMNIST", seed=seed, n=n, root=root, download=download)
