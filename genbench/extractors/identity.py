"""identity: vectors as they are, e.g. toy points, or features that were made elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError
from genbench.extractor import Outputs, check_mode, check_no_weights

SUMMARY = "vectors as they are (toy points, features made elsewhere)"
DIM = None
CLASSES = None
MODES = ("none",)
BATCH = 65536


class Identity:
    """Rows are the samples themselves, float64."""

    name = "identity"
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    weights: str | None = None
    preprocess = "none"
    batch = BATCH

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """The rows.

        Args:
            images: (n, d) floats.

        Raises:
            DataError: images, or vectors of another length.
        """
        rows = np.asarray(images)
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.dtype.kind != "f":
            raise _refused(rows.shape[1:], f"{rows.dtype} of shape {rows.shape}", self.dim)
        return Outputs(rows.astype(np.float64))


def _refused(shape: tuple[int, ...], found: str, dim: int | None = None) -> DataError:
    hint = "give vectors of one length"
    if len(shape) == 3:
        hint = "choose an extractor for images: pixels, inception, or the data set's own classifier"
    return DataError(f"extractor identity takes float vectors (n, {dim or 'd'}), found {found}; {hint}")


def load(
    *, preprocess: str | None = None, weights: str | Path | None = None, device: str = "cpu", shape: tuple[int, ...], download: bool = False
) -> Identity:
    """The extractor.

    Args:
        preprocess: "none".
        weights: None.
        device: not used.
        shape: (d,).
        download: not used.

    Raises:
        DataError: the samples are images.

    Example:
        >>> load(shape=(2,))(np.array([[0.5, 1.0]])).features
        array([[0.5, 1. ]])
    """
    check_mode(preprocess, MODES, "identity")
    check_no_weights(weights, "identity")
    if len(shape) != 1 or shape[0] < 1:
        raise _refused(tuple(shape), f"samples of shape {tuple(shape)}")
    return Identity(shape[0])
