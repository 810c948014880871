"""pixels: images flattened, in [0, 1]."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.extractor import Outputs, check_images, check_images_shape, check_mode, check_no_weights

SUMMARY = "images flattened to c*h*w numbers in [0, 1]"
DIM = None
CLASSES = None
MODES = ("none",)
BATCH = 1024


class Pixels:
    """Rows are the images' levels / 255, channel by channel, row by row."""

    name = "pixels"
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    weights: str | None = None
    preprocess = "none"
    batch = BATCH

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.dim = int(np.prod(shape))

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """The rows, (n, c*h*w) float32 in [0, 1].

        Args:
            images: (n, c, h, w) uint8.

        Raises:
            DataError: images of another shape.
        """
        x = check_images(images, self.name, (self.shape[0],), self.shape[1:])
        return Outputs(x.reshape(len(x), self.dim).astype(np.float32) / np.float32(255))


def load(
    *, preprocess: str | None = None, weights: str | Path | None = None, device: str = "cpu", shape: tuple[int, ...], download: bool = False
) -> Pixels:
    """The extractor.

    Args:
        preprocess: "none".
        weights: None.
        device: not used.
        shape: (c, h, w).
        download: not used.

    Raises:
        DataError: the samples are vectors.

    Example:
        >>> load(shape=(1, 1, 2))(np.array([[[[0, 255]]]], np.uint8)).features
        array([[0., 1.]], dtype=float32)
    """
    check_mode(preprocess, MODES, "pixels")
    check_no_weights(weights, "pixels")
    check_images_shape(shape, "pixels")
    return Pixels((shape[0], shape[1], shape[2]))
