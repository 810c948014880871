"""scikit-learn's handwritten digits: 8×8 grey images with 17 levels, nothing to download."""

from pathlib import Path

import numpy as np

from genbench.protocol import Protocol
from genbench.samples import ArraySamples, Samples, check_split, subset

SPLITS = ("train", "valid", "test")
DEFAULT = "train"
SUMMARY = "scikit-learn's handwritten digits, 8×8 grey, 17 levels, 1000 / 350 / 447"
SOURCE = "Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49; the copy in scikit-learn"
EXTRACTOR = "digits"

# n = n_ref = the size of the test split, so that the real test set is a row of the table and precision and recall see two equal counts.
# digits-2 has likelihoods, latent spaces, and shows copies and missing classes too, which none of the first one's metrics sees.
_BESIDE = ("nn_copies", "class_histogram", "reconstruction", "ppl")
_QUALITY = ("fid", "kid", "inception_score", "prdc")
PROTOCOLS = {
    "digits-1": Protocol("digits-1", "digits/train", _QUALITY, "digits", n=447, n_ref=447),
    "digits-2": Protocol("digits-2", "digits/train", ("nll", *_QUALITY, *_BESIDE), "digits", n=447, n_ref=447),
    "digits-conditional-1": Protocol(
        "digits-conditional-1", "digits/train", ("cas", "class_fd", *_QUALITY, "nn_copies", "class_histogram"), "digits", n=447, n_ref=447
    ),
}

_BOUNDS = {"train": (0, 1000), "valid": (1000, 1350), "test": (1350, 1797)}


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split; the levels v = 0 ... 16 are stored as the bytes round(255 v / 16).

    Args:
        name: "digits".
        split: train, valid or test.
        seed: of the subset of n.
        n: how many; None for all.
        root: not used, the data come with scikit-learn.
        download: not used.
    """
    check_split(name, split, SPLITS)
    from sklearn.datasets import load_digits

    found = load_digits()
    start, stop = _BOUNDS[split]
    images = np.rint(found.images[start:stop] * 255 / 16).astype(np.uint8)[:, None]
    made = ArraySamples(images, name=f"{name}/{split}", kind="dataset", labels=found.target[start:stop].astype(np.int64))
    return made if n is None else subset(made, n, seed)
