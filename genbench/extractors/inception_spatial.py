"""inception_spatial: the spatial features of sFID, an inner layer of the Inception-v3 network of `inception`.

Nash et al. (2021) take the first 7 channels of `mixed_6/conv`, whose map of 17 × 17 places is kept instead of averaged: 2,023
numbers, about as many as FID has. The network, its weights and the preprocessing are those of `inception`; one file of weights
serves both.

Which tensor. The evaluator of OpenAI's guided-diffusion, whose numbers papers quote, reads `mixed_6/conv:0` of the graph
`classify_image_graph_def.pb`. Its blocks are numbered from 0 (`mixed`, `mixed_1`, ...), so `mixed_6` is the seventh: Mixed_6d in
the names of PyTorch (whose Mixed_6e is `mixed_7`), and `mixed_6/conv` is its first branch, the convolution 1 × 1 with 192
channels, branch1x1. In that graph a convolution's nodes are `.../Conv2D`, `.../batchnorm`, `.../CheckNumerics`,
`.../control_dependency` and, last and under the plain name, the rectifier: the features are taken AFTER it, and none is negative.
As the branch comes first in the block's output, they are also that output's first 7 channels. The numbers of a row go by place,
then by channel, as the evaluator's do; a Fréchet distance does not depend on their order.

References: Nash et al. 2021, "Generating Images with Sparse Representations"; Dhariwal & Nichol 2021, "Diffusion
Models Beat GANs on Image Synthesis", section 2.2; Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from genbench.extractor import (
    Outputs,
    check_images_shape,
    check_mode,
    full_precision,
    resolve_weights,
    sha256_file,
)
from genbench.extractors import inception

if TYPE_CHECKING:
    import torch

SUMMARY = "Inception-v3 of 2015, inner layer (sFID): 7 channels of 17 x 17 places"
NETWORK = "inception"  # whose weights, resizing and batch this takes, and whose own rows the same pass gives (`both`)
BLOCK, CHANNELS, PLACES = "Mixed_6d", 7, 17 * 17
DIM = CHANNELS * PLACES
CLASSES = None
MODES = inception.MODES
RUNTIMES = inception.RUNTIMES
BATCH = inception.BATCH
FILES = inception.FILES


class InceptionSpatial(inception.Inception):
    """The extractor; see the module.

    Args:
        network: with its weights.
        digest: sha256 of the weights' file.
        preprocess: one of MODES.
        device: "cpu", "cuda", or one of RUNTIMES.
    """

    name = "inception_spatial"
    dim = DIM
    has_probabilities = False

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features (n, 2023), float32, no logits.

        Args:
            images: (n, 3, h, w) uint8 of any size; (n, 1, h, w) is repeated to three channels.

        Raises:
            DataError: something else.
        """
        import torch

        with torch.inference_mode(), full_precision(self._device):
            return _rows(self._network.inner(self._prepared(images), BLOCK))

    def both(self, images: NDArray[Any]) -> tuple[Outputs, Outputs]:
        """What `inception` gives and what this gives, of one pass; the same bits as apart.

        Args:
            images: as above.

        Raises:
            DataError: something else.
        """
        import torch

        with torch.inference_mode(), full_precision(self._device):
            features, logits, places = self._network.outputs(self._prepared(images), BLOCK)
            assert places is not None
            return Outputs(features.cpu().numpy(), logits.cpu().numpy()), _rows(places)


def _rows(places: "torch.Tensor") -> Outputs:
    """Features of the map of the branch, (n, 192, 17, 17)."""
    return Outputs(places[:, :CHANNELS].permute(0, 2, 3, 1).reshape(len(places), DIM).cpu().numpy())


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, inception.SIZE, inception.SIZE),
    download: bool = False,
) -> InceptionSpatial:
    """The extractor.

    Args:
        preprocess: one of MODES; "clean" by default, "tf1" is the evaluator's.
        weights: path of any of FILES; None to look in the cache.
        device: "cpu", "cuda", or one of RUNTIMES.
        shape: (1, h, w) or (3, h, w).
        download: fetch the weights where there are none.

    Raises:
        MissingError: no weights; the message says what to put where.
        DataError: images of another shape, or a file that holds no such weights.
    """
    mode = check_mode(preprocess, MODES, InceptionSpatial.name)
    check_images_shape(shape, InceptionSpatial.name, (1, 3))
    path = resolve_weights(InceptionSpatial.name, FILES, weights, download=download)
    return InceptionSpatial(inception.read_network(path, device), sha256_file(path), mode, device)
