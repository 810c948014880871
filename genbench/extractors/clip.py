"""clip: the image encoder of CLIP (Radford et al. 2021), ViT-L/14 at 336 px, the one of CMMD (Jayasumana et al. 2024).

Features are the projected image embeddings, not yet normalised: 768 numbers. The centre square of an image is resized to 336 px
and standardised by CLIP's own mean and deviation. A file with the weights of ViT-B/32 gives that network instead (224 px, 512
numbers); without a path only ViT-L/14-336 is taken. Needs the extra: pip install "genbench[encoders]".
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
    is_torchscript,
    read_tensors,
    read_torchscript,
    resolve_weights,
    rgb,
    sha256_file,
)
from genbench.preprocess import MODES as _MODES
from genbench.preprocess import resize, standardise

if TYPE_CHECKING:
    import torch

SUMMARY = "CLIP ViT-L/14 at 336 px (CMMD): 768 features; needs the extra [encoders]"
DIM = None  # 768, or the 512 of ViT-B/32 with its weights
CLASSES = None
MODES = _MODES
BATCH = 16
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
URL = "https://openaipublic.azureedge.net/clip/models"
FILES = (
    WeightFile(
        "ViT-L-14-336px.pt",
        f"{URL}/3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "MIT",
        "0.9 GB",
    ),
)
# (width, patch) of the first convolution -> open_clip's name; the -quickgelu ones have the activation that OpenAI trained with.
ARCHITECTURES = {(1024, 14): "ViT-L-14-336-quickgelu", (768, 32): "ViT-B-32-quickgelu"}


def build(tensors: "Mapping[str, torch.Tensor]", source: str) -> "torch.nn.Module":
    """The image encoder with its weights, in evaluation.

    Args:
        tensors: a state dict of OpenAI or of open_clip; the image encoder's names begin with "visual.".
        source: where they come from, for the message.

    Raises:
        MissingError: open_clip is not installed.
        DataError: other weights.
    """
    import torch

    try:
        import open_clip
    except ModuleNotFoundError as e:
        raise MissingError('extractor clip needs the package open_clip_torch; pip install "genbench[encoders]"') from e

    kept = {k.removeprefix("visual."): v.float() for k, v in tensors.items() if k.startswith("visual.")}
    first = kept.get("conv1.weight")
    name = None if first is None or first.ndim != 4 else ARCHITECTURES.get((first.shape[0], first.shape[2]))
    if name is None:
        found = "none" if first is None else tuple(first.shape)
        raise DataError(
            f"{source} holds no weights of CLIP's ViT-L/14-336 or ViT-B/32: expected visual.conv1.weight of shape "
            f"(1024, 3, 14, 14) or (768, 3, 32, 32), found {found}; give {FILES[0].file}"
        )
    with torch.device("meta"):  # shapes alone; the text encoder is never made
        model = open_clip.CLIP(**open_clip.get_model_config(name)).visual
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    wrong = sorted(k for k in expected.keys() | kept.keys() if k not in kept or expected.get(k) != tuple(kept[k].shape))
    if wrong:
        found = tuple(kept[wrong[0]].shape) if wrong[0] in kept else "none"
        raise DataError(
            f"{source} holds no weights of {name}: expected visual.{wrong[0]} of shape {expected.get(wrong[0], 'none')}, "
            f"found {found} ({len(wrong)} tensors differ); give {FILES[0].file}"
        )
    model.load_state_dict(kept, assign=True)
    return model.eval().requires_grad_(False)


class Clip:
    """The extractor; see the module.

    Args:
        model: images (n, 3, size, size) to embeddings (n, d).
        digest: sha256 of the weights' file.
        preprocess: one of MODES.
        device: "cpu" or "cuda".
    """

    name = "clip"
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    batch = BATCH

    def __init__(self, model: Any, digest: str, preprocess: str, device: str) -> None:
        self._model, self._device = model.to(device), device
        self.dim, size = int(model.output_dim), model.image_size
        self.size: tuple[int, int] = (int(size[0]), int(size[1]))
        self.weights: str | None = digest
        self.preprocess = preprocess

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Embeddings (n, 768) float32.

        Args:
            images: (n, 3, h, w) uint8 of any size; (n, 1, h, w) is repeated to three channels.

        Raises:
            DataError: something else.
        """
        import torch

        x = check_images(images, self.name, (1, 3))
        side = min(x.shape[2:])
        top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
        with torch.inference_mode(), full_precision(self._device):
            t = as_tensor(x[:, :, top : top + side, left : left + side], self._device)
            t = standardise(rgb(resize(t, self.size, self.preprocess)), MEAN, STD)
            return Outputs(self._model(t).float().cpu().numpy())


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, 336, 336),
    download: bool = False,
) -> Clip:
    """The extractor.

    Args:
        preprocess: one of MODES; "clean" by default.
        weights: path of OpenAI's file or of open_clip's safetensors, for ViT-L/14-336 or ViT-B/32; None to look in the cache.
        device: "cpu" or "cuda".
        shape: (1, h, w) or (3, h, w).
        download: fetch the weights where there are none.

    Raises:
        MissingError: no weights, or open_clip is not installed.
        DataError: images of another shape, or a file that holds no such weights.
    """
    mode = check_mode(preprocess, MODES, "clip")
    check_images_shape(shape, "clip", (1, 3))
    path = resolve_weights("clip", FILES, weights, download=download)
    if is_torchscript(path):
        tensors = {k: v.detach() for k, v in read_torchscript(path, "clip").state_dict().items()}
    else:
        tensors = read_tensors(path, "clip")
    return Clip(build(tensors, str(path)), sha256_file(path), mode, device)
