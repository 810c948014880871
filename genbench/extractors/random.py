"""random: a convolutional network of fixed random weights, for images of any size; it needs no download.

Random features tell distributions apart, yet know nothing of what people see: use them where no trained network fits (other
channel counts, tests, machines without weights). Naeem et al. 2020, sec. 3.3, found them useful where ImageNet features are not.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.extractor import (
    Outputs,
    as_tensor,
    check_images,
    check_images_shape,
    check_mode,
    check_no_weights,
    full_precision,
    sha256_arrays,
)

SUMMARY = "convolutional network of fixed random weights, any image size: 256 features"
DIM = 256
CLASSES = None
MODES = ("none",)
BATCH = 64
SLOPE = 0.2  # of the leaky ReLU: a plain one leaves units that are 0 for every image of a data set, and a singular covariance
SEED = 20170626  # the day the Fréchet Inception distance was put on arXiv
WIDTHS = (32, 64, 64, 128)  # the last three, pooled over space, are the features


def draw_weights(channels: int) -> dict[str, NDArray[np.float32]]:
    """The weights, uniform in ±√(6 / ((1 + s²) fan-in)) (He et al. 2015, eq. 15: what a ReLU of slope s keeps), for `channels` channels.

    They come from the raw 64-bit words of PCG64, which NumPy keeps the same between versions, unlike the draws of its Generator.
    """
    arrays, inside = {}, channels
    for i, outside in enumerate(WIDTHS):
        words = np.random.PCG64([SEED, channels, i]).random_raw(outside * inside * 9)
        unit = (np.asarray(words) >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
        bound = np.sqrt(6 / ((1 + SLOPE**2) * inside * 9))
        arrays[f"conv{i}.weight"] = ((2 * unit - 1) * bound).astype(np.float32).reshape(outside, inside, 3, 3)
        inside = outside
    return arrays


class RandomNetwork:
    """Four 3 x 3 convolutions with leaky ReLU, the last three halving the image; means over space of the last three layers."""

    name = "random"
    dim = DIM
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    preprocess = "none"
    batch = BATCH

    def __init__(self, shape: tuple[int, int, int], device: str) -> None:
        import torch

        arrays = draw_weights(shape[0])
        self.shape = shape
        self.weights: str | None = sha256_arrays(arrays)
        self._device = device
        self._kernels = [torch.from_numpy(a).to(device).contiguous(memory_format=torch.channels_last) for a in arrays.values()]

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features, (n, 256) float32.

        Args:
            images: (n, c, h, w) uint8.

        Raises:
            DataError: images of another shape.
        """
        import torch
        from torch.nn import functional

        x = check_images(images, self.name, (self.shape[0],), self.shape[1:])
        pooled = []
        with torch.inference_mode(), full_precision(self._device):
            t = as_tensor(x, self._device).float().div_(127.5).sub_(1)  # in [-1, 1]
            t = t.contiguous(memory_format=torch.channels_last)
            for i, kernel in enumerate(self._kernels):
                t = functional.conv2d(t, kernel, stride=2 if i else 1, padding=1)
                t = functional.leaky_relu_(t, SLOPE)  # (n, WIDTHS[i], h', w')
                if i:
                    pooled.append(t.mean(dim=(2, 3)))
            return Outputs(torch.cat(pooled, dim=1).cpu().numpy())


def load(
    *, preprocess: str | None = None, weights: str | Path | None = None, device: str = "cpu", shape: tuple[int, ...], download: bool = False
) -> RandomNetwork:
    """The extractor.

    Args:
        preprocess: "none".
        weights: None; they are drawn from a fixed seed.
        device: "cpu" or "cuda".
        shape: (c, h, w), any.
        download: not used.

    Raises:
        DataError: the samples are vectors.
    """
    check_mode(preprocess, MODES, "random")
    check_no_weights(weights, "random")
    check_images_shape(shape, "random")
    return RandomNetwork((shape[0], shape[1], shape[2]), device)
