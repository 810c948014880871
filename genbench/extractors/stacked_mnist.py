"""stacked_mnist: the shipped mnist classifier on each channel of an RGB image of three digits.

Features are the 3 × 128 pooled activations, red first. The class is the number whose three digits are the channels', and its
log-probability the sum of theirs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError
from genbench.extractor import Outputs, SmallClassifier, check_images, check_images_shape, check_mode, given_or_shipped
from genbench.extractors import mnist

SUMMARY = "the shipped mnist classifier on each of three channels: 384 features, 1,000 classes"
DIM = 3 * mnist.DIM
CLASSES = mnist.CLASSES**3
MODES = ("none",)
BATCH = 128
PADDED = 32  # digits are often padded by 2 pixels on each side, for networks that halve the size five times


class StackedClassifier:
    """One classifier for three channels.

    Args:
        one: the classifier of grey digits.
    """

    name = "stacked_mnist"
    dim = DIM
    classes: tuple[str, ...] | None = tuple(f"{i:03d}" for i in range(CLASSES))
    has_probabilities = True
    preprocess = "none"
    batch = BATCH

    def __init__(self, one: SmallClassifier) -> None:
        self._one = one
        self.weights = one.weights

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features (n, 384) and log-probabilities (n, 1000) of three digits each.

        Args:
            images: (n, 3, 28, 28) uint8, or (n, 3, 32, 32), whose border of 2 pixels is cut off.

        Raises:
            DataError: images of another shape.
        """
        x = check_images(images, self.name, (3,))
        _check_size(x.shape[1:])
        border = (x.shape[2] - mnist.SIZE) // 2
        x = x[:, :, border : border + mnist.SIZE, border : border + mnist.SIZE]
        n = len(x)
        out = self._one(x.reshape(3 * n, 1, mnist.SIZE, mnist.SIZE))
        assert out.logits is not None
        logits = out.logits.astype(np.float64).reshape(n, 3, mnist.CLASSES)
        logits -= logits.max(axis=2, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=2, keepdims=True))
        red, green, blue = logits[:, 0], logits[:, 1], logits[:, 2]
        joint = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        return Outputs(out.features.reshape(n, DIM), joint.reshape(n, CLASSES).astype(np.float32))


def _check_size(shape: tuple[int, ...]) -> None:
    check_images_shape(shape, "stacked_mnist", (3,))
    if shape[1:] not in ((mnist.SIZE, mnist.SIZE), (PADDED, PADDED)):
        raise DataError(
            f"extractor stacked_mnist takes uint8 images (n, 3, 28, 28), or (n, 3, 32, 32) with a border of 2 pixels, found images of "
            f"shape {shape}; resize the images"
        )


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, mnist.SIZE, mnist.SIZE),
    download: bool = False,
) -> StackedClassifier:
    """The extractor.

    Args:
        preprocess: "none".
        weights: another .safetensors file of the mnist network; None for the shipped one.
        device: "cpu" or "cuda".
        shape: (3, 28, 28), or (3, 32, 32) for padded digits.
        download: not used, the weights are shipped.

    Raises:
        DataError: images of another shape.
        MissingError: no weights at the given path.
    """
    check_mode(preprocess, MODES, "stacked_mnist")
    _check_size(tuple(shape))
    path = given_or_shipped("mnist", weights)
    one = SmallClassifier("stacked_mnist", mnist.network, mnist.SIZE, mnist.DIM, mnist.MEAN, mnist.STD, path, BATCH, device)
    return StackedClassifier(one)
