"""digits: a small convolutional classifier of 8 x 8 digits, trained by benchmarks/train_classifiers.py and shipped with genbench.

Features are the 64 pooled activations before the class layer. Its accuracy, seed, sha256 and training settings are in
`_weights/digits.json`. Scores on it are named after it: they are no FID or IS of the Inception network.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from genbench.extractor import SmallClassifier, check_images_shape, check_mode, given_or_shipped

if TYPE_CHECKING:
    import torch

SUMMARY = "small classifier of 8 x 8 grey digits, shipped: 64 features, 10 classes"
DIM = 64
CLASSES = 10
MODES = ("none",)
BATCH = 256
SIZE = 8
MEAN, STD = 0.3053, 0.3761  # of the first 1,000 images, uint8 / 255


def network(batch_norm: bool = False) -> "tuple[torch.nn.Sequential, torch.nn.Linear]":
    """The layers: images (n, 1, 8, 8) to features (n, 64), and the linear head to logits (n, 10).

    Args:
        batch_norm: with a batch norm behind each convolution (training); without, they are folded in.
    """
    from torch import nn

    def conv(inside: int, outside: int) -> list[nn.Module]:
        norm: list[nn.Module] = [nn.BatchNorm2d(outside)] if batch_norm else []
        return [nn.Conv2d(inside, outside, 3, padding=1, bias=not batch_norm), *norm, nn.ReLU()]

    layers = nn.Sequential(
        *conv(1, 32),
        *conv(32, 64),
        nn.MaxPool2d(2),  # (n, 64, 4, 4)
        *conv(64, 64),
        *conv(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return layers, nn.Linear(64, 10)


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (1, SIZE, SIZE),
    download: bool = False,
) -> SmallClassifier:
    """The extractor.

    Args:
        preprocess: "none".
        weights: another .safetensors file of the same network; None for the shipped one.
        device: "cpu" or "cuda".
        shape: (1, 8, 8), or (3, 8, 8) with equal channels.
        download: not used, the weights are shipped.

    Raises:
        DataError: images of another shape.
        MissingError: no weights at the given path.
    """
    check_mode(preprocess, MODES, "digits")
    check_images_shape(shape, "digits", (1, 3), (SIZE, SIZE))
    return SmallClassifier("digits", network, SIZE, DIM, MEAN, STD, given_or_shipped("digits", weights), BATCH, device)
