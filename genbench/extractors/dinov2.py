"""dinov2: the ViT-L/14 of DINOv2 (Oquab et al. 2023), on whose features Fréchet distances agree best with human judgement.

Features are the class token behind the last norm, 1,024 numbers, as in dgm-eval (Stein et al. 2023, "Exposing flaws of generative
model evaluation metrics and their unfair treatment of diffusion models"): images at 224 px, standardised by ImageNet's mean and
deviation. Position embeddings are resampled as the authors' code does it (bicubic, not antialiased, with its offset of 0.1), where
timm by itself antialiases. Needs the extra: pip install "genbench[encoders]".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from genbench.errors import DataError, MissingError
from genbench.extractor import (
    Outputs,
    WeightFile,
    as_tensor,
    check_images,
    check_images_shape,
    check_mode,
    full_precision,
    read_tensors,
    resolve_weights,
    rgb,
    sha256_file,
)
from genbench.preprocess import MODES as _MODES
from genbench.preprocess import resize, standardise

if TYPE_CHECKING:
    import torch

SUMMARY = "DINOv2 ViT-L/14 (FD-DINOv2): 1024 features; needs the extra [encoders]"
DIM = 1024
CLASSES = None
MODES = _MODES
BATCH = 16
SIZE = 224
PATCH = 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in the authors' transforms
ARCHITECTURE = "vit_large_patch14_dinov2"
FILES = (
    WeightFile(
        "dinov2_vitl14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        "Apache-2.0",
        "1.2 GB",
    ),
)


def resample_positions(embedding: "torch.Tensor", side: int) -> "torch.Tensor":
    """Position embeddings for a grid of side x side patches, as `interpolate_pos_encoding` of the authors' code.

    Args:
        embedding: (1, 1 + m * m, d); the first one is the class token's.
        side: patches per side.

    Returns:
        (1, 1 + side * side, d).
    """
    import torch
    from torch.nn import functional

    m = round((embedding.shape[1] - 1) ** 0.5)
    if m == side:
        return embedding
    grid = embedding[:, 1:].float().reshape(1, m, m, -1).permute(0, 3, 1, 2)
    scale = (side + 0.1) / m  # the authors' offset against a grid that rounds down
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)  # (1, d, side, side)
    return torch.cat([embedding[:, :1].float(), grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)


def build(tensors: "Mapping[str, torch.Tensor]", source: str, architecture: str = ARCHITECTURE) -> "torch.nn.Module":
    """The network with its weights, in evaluation.

    Args:
        tensors: the authors' state dict, or timm's.
        source: where they come from, for the message.
        architecture: timm's name for it.

    Raises:
        MissingError: timm is not installed.
        DataError: other weights.
    """
    try:
        import timm
    except ModuleNotFoundError as e:
        raise MissingError('extractor dinov2 needs the package timm; pip install "genbench[encoders]"') from e

    model = timm.create_model(architecture, pretrained=False, num_classes=0, img_size=SIZE)
    kept = {k: v.float() for k, v in tensors.items() if k != "mask_token"}  # only pre-training masks patches
    if "pos_embed" in kept:
        kept["pos_embed"] = resample_positions(kept["pos_embed"], SIZE // PATCH)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    wrong = sorted(k for k in expected.keys() | kept.keys() if k not in kept or expected.get(k) != tuple(kept[k].shape))
    if wrong:
        found = tuple(kept[wrong[0]].shape) if wrong[0] in kept else "none"
        raise DataError(
            f"{source} holds no weights of {architecture}: expected {wrong[0]} of shape {expected.get(wrong[0], 'none')}, "
            f"found {found} ({len(wrong)} tensors differ); give {FILES[0].file}"
        )
    model.load_state_dict(kept)
    return model.eval().requires_grad_(False)


class Dinov2:
    """The extractor; see the module.

    Args:
        model: images (n, 3, 224, 224) to the class token (n, d).
        digest: sha256 of the weights' file.
        preprocess: one of MODES.
        device: "cpu" or "cuda".
    """

    name = "dinov2"
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    batch = BATCH

    def __init__(self, model: "torch.nn.Module", digest: str, preprocess: str, device: str) -> None:
        self._model, self._device = model.to(device), device
        self.dim = int(getattr(model, "num_features", DIM))
        self.weights: str | None = digest
        self.preprocess = preprocess

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features (n, 1024) float32.

        Args:
            images: (n, 3, h, w) uint8 of any size; (n, 1, h, w) is repeated to three channels.

        Raises:
            DataError: something else.
        """
        import torch

        x = check_images(images, self.name, (1, 3))
        with torch.inference_mode(), full_precision(self._device):
            t = as_tensor(x, self._device)
            t = standardise(rgb(resize(t, (SIZE, SIZE), self.preprocess)), MEAN, STD)
            return Outputs(self._model(t).float().cpu().numpy())


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, SIZE, SIZE),
    download: bool = False,
) -> Dinov2:
    """The extractor.

    Args:
        preprocess: one of MODES; "clean" by default.
        weights: path of the authors' state dict or of timm's safetensors; None to look in the cache.
        device: "cpu" or "cuda".
        shape: (1, h, w) or (3, h, w).
        download: fetch the weights where there are none.

    Raises:
        MissingError: no weights, or timm is not installed.
        DataError: images of another shape, or a file that holds no such weights.
    """
    mode = check_mode(preprocess, MODES, "dinov2")
    check_images_shape(shape, "dinov2", (1, 3))
    path = resolve_weights("dinov2", FILES, weights, download=download)
    return Dinov2(build(read_tensors(path, "dinov2"), str(path)), sha256_file(path), mode, device)
