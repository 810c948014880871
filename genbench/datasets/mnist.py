"""MNIST: 28×28 grey images of handwritten digits, in torchvision's layout."""

from pathlib import Path

from genbench.protocol import Protocol
from genbench.samples import Samples, load_idx

SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "handwritten digits, 28×28 grey, 60,000 / 10,000"
SOURCE = "LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition, doi:10.1109/5.726791"
EXTRACTOR = "mnist"
# mnist-2 has likelihoods, latent spaces, and shows copies and missing classes too, which none of the first one's metrics sees.
_BESIDE = ("nn_copies", "class_histogram", "reconstruction", "ppl")
_QUALITY = ("fid", "kid", "inception_score", "prdc")
PROTOCOLS = {
    "mnist-1": Protocol("mnist-1", "mnist/train", _QUALITY, "mnist", n=10_000),
    "mnist-2": Protocol("mnist-2", "mnist/train", ("bits_per_dim", *_QUALITY, *_BESIDE), "mnist", n=10_000),
}


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split, mapped from MNIST/raw under the data folder.

    Args:
        name: "mnist".
        split: train or test.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: fetch the files with torchvision where they are missing.
    """
    return load_idx(name, split, SPLITS, "MNIST", seed=seed, n=n, root=root, download=download)
