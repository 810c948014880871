"""lpips: maps of an image network scaled such that the squared distance of two rows IS the learned perceptual distance LPIPS v0.1.

    d(x, y) = Σ_l 1/(H_l W_l) Σ_hw ‖√w_l ⊙ (x̂_l,hw − ŷ_l,hw)‖²

x̂_l are the activations of layer l (after the last rectifier before each pooling; of AlexNet after every one), divided at each place by
their norm over the channels, and w_l >= 0 the published weights of the channels (Zhang et al. 2018, eq. 1). A row is the list of all
√(w_l/(H_l W_l)) x̂_l, so `ppl@lpips` is the path length of Karras et al. (2019), and `reconstruction` reports the distance itself.

The network is the VGG16 that both papers take. A file with the weights of AlexNet, the faster one of the LPIPS package, gives that
network instead; without a path only VGG16 is taken. Images keep their size, so a row is long: 122 numbers per pixel, 32 MB at 256 px.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError
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
from genbench.preprocess import standardise

if TYPE_CHECKING:
    import torch

SUMMARY = "LPIPS on VGG16 (PPL): a squared distance of rows is the perceptual distance"
DIM = None  # it grows with the image
CLASSES = None
MODES = ("none",)
BATCH = 16
EPS = 1e-10  # added to a norm, as the authors do
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; the authors' shift and scale of [-1, 1] are the same numbers

Conv = tuple[int, int, int, int, int]  # number in torchvision's `features`, channels out, kernel, stride, padding


@dataclass(frozen=True)
class Network:
    """A network of torchvision up to its last convolution, and what LPIPS reads of it.

    Args:
        name: as torchvision calls it.
        backbone: file of its weights.
        linear: file of LPIPS's weights of its channels.
        pool: kernel of its maximum pooling, of stride 2.
        stages: (whether it begins with a pooling, convolutions), cut behind each rectifier whose output is read.
    """

    name: str
    backbone: WeightFile
    linear: WeightFile
    pool: int
    stages: tuple[tuple[bool, tuple[Conv, ...]], ...]

    def sizes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(channels, height, width) of every map that is read; a side is 0 or less where the image is too small."""
        found, sides = [], (height, width)
        for pooled, convs in self.stages:
            if pooled:
                sides = ((sides[0] - self.pool) // 2 + 1, (sides[1] - self.pool) // 2 + 1)
            for _, _, kernel, stride, padding in convs:
                more = 2 * padding - kernel
                sides = ((sides[0] + more) // stride + 1, (sides[1] + more) // stride + 1)
            found.append((convs[-1][1], *sides))
        return found


def _linear(name: str, digest: str) -> WeightFile:
    url = f"https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/{name}"
    return WeightFile(name, url, digest, "BSD-2-Clause", "7 kB")


def _vgg_stage(first: int, channels: int, count: int) -> tuple[bool, tuple[Conv, ...]]:
    return first > 0, tuple((first + 2 * i, channels, 3, 1, 1) for i in range(count))


VGG = Network(
    "VGG16",
    WeightFile(
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "BSD-3-Clause",
        "528 MB",
    ),
    _linear("vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    2,
    (_vgg_stage(0, 64, 2), _vgg_stage(5, 128, 2), _vgg_stage(10, 256, 3), _vgg_stage(17, 512, 3), _vgg_stage(24, 512, 3)),
)
ALEX = Network(
    "AlexNet",
    WeightFile(
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "BSD-3-Clause",
        "233 MB",
    ),
    _linear("alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    3,
    (
        (False, ((0, 64, 11, 4, 2),)),
        (True, ((3, 192, 5, 1, 2),)),
        (True, ((6, 384, 3, 1, 1),)),
        (False, ((8, 256, 3, 1, 1),)),
        (False, ((10, 256, 3, 1, 1),)),
    ),
)
NETWORKS = (VGG, ALEX)
FILES = (VGG.backbone,)
NEEDED = (VGG.backbone, VGG.linear)  # without a path


def _tensor(tensors: "Mapping[str, torch.Tensor]", name: str, shape: tuple[int, ...], source: Path, wanted: WeightFile) -> "torch.Tensor":
    found = tensors.get(name)
    if found is None or tuple(found.shape) != shape:
        what = "none of that name" if found is None else f"shape {tuple(found.shape)}"
        raise DataError(f"{source} is not {wanted.file}: expected a tensor {name} of shape {shape}, found {what}; give {wanted.file}")
    return found.float()


def _which(tensors: "Mapping[str, torch.Tensor]", source: Path) -> Network:
    """The network that the backbone's weights are of, told by its first kernel."""
    first = tensors.get("features.0.weight")
    for network in NETWORKS:
        _, channels, kernel, _, _ = network.stages[0][1][0]
        if first is not None and tuple(first.shape) == (channels, 3, kernel, kernel):
            return network
    raise DataError(
        f"{source} holds no weights that extractor lpips can read: expected features.0.weight of shape (64, 3, 3, 3) or (64, 3, 11, 11), "
        f"found {'none' if first is None else tuple(first.shape)}; give {' or '.join(n.backbone.file for n in NETWORKS)}"
    )


class Lpips:
    """The extractor; see the module.

    Args:
        network: what the weights are of.
        backbone: path of its weights, and the tensors in it.
        linear: path of the weights of its channels.
        shape: (c, h, w) of the images.
        device: "cpu" or "cuda".

    Raises:
        DataError: other weights, or images that are too small.
    """

    name = "lpips"
    classes: tuple[str, ...] | None = None
    has_probabilities = False
    preprocess = "none"
    batch = BATCH

    def __init__(
        self, network: Network, backbone: "tuple[Path, Mapping[str, torch.Tensor]]", linear: Path, shape: Sequence[int], device: str
    ) -> None:
        import torch

        self._network, self._device = network, device
        self._size = (int(shape[1]), int(shape[2]))
        sizes = network.sizes(*self._size)
        if min(min(s) for s in sizes) < 1:
            least = next(side for side in range(1, 100) if min(min(s) for s in network.sizes(side, side)) > 0)
            raise DataError(
                f"extractor lpips on {network.name} takes images of at least {least} × {least} pixels, found {tuple(shape)}; choose "
                "another extractor, e.g. pixels or random"
            )
        self.dim = sum(c * h * w for c, h, w in sizes)
        path, tensors = backbone
        self.weights: str | None = hashlib.sha256((sha256_file(path) + sha256_file(linear)).encode()).hexdigest()
        self._convs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        inside = 3
        for number, out, kernel, _, _ in (conv for _, convs in network.stages for conv in convs):
            weight = _tensor(tensors, f"features.{number}.weight", (out, inside, kernel, kernel), path, network.backbone)
            bias = _tensor(tensors, f"features.{number}.bias", (out,), path, network.backbone)
            self._convs[number], inside = (weight.to(device), bias.to(device)), out
        known = {f"features.{n}.{end}" for n in self._convs for end in ("weight", "bias")}
        if extra := {k for k in tensors if k.startswith("features.")} - known:
            raise DataError(f"{path} is not {network.backbone.file}: expected no tensor {min(extra)}; give {network.backbone.file}")
        scales = read_tensors(linear, self.name)
        self._scales = []
        for i, (c, h, w) in enumerate(sizes):
            found = _tensor(scales, f"lin{i}.model.1.weight", (1, c, 1, 1), linear, network.linear)
            if float(found.min()) < 0:
                raise DataError(f"{linear} is not {network.linear.file}: LPIPS weighs channels by numbers >= 0, found {float(found.min())}")
            self._scales.append((found.double() / (h * w)).sqrt().float().to(device))

    def _maps(self, x: "torch.Tensor") -> "Iterator[torch.Tensor]":
        """The scaled maps (n, c_l, h_l, w_l) of standardised images, one after the other."""
        from torch.nn import functional

        for (pooled, convs), scale in zip(self._network.stages, self._scales, strict=True):
            if pooled:
                x = functional.max_pool2d(x, self._network.pool, 2)
            for number, _, _, stride, padding in convs:
                x = functional.conv2d(x, *self._convs[number], stride, padding).relu_()
            yield x * (scale / (x.square().sum(dim=1, keepdim=True).sqrt() + EPS))

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Rows (n, dim) float32.

        Args:
            images: (n, 3, h, w) uint8 of the size that it was made for; (n, 1, h, w) is repeated to three channels.

        Raises:
            DataError: something else.
        """
        import torch

        x = check_images(images, self.name, (1, 3), self._size)
        rows, end = np.empty((len(x), self.dim), np.float32), 0
        with torch.inference_mode(), full_precision(self._device):
            for scaled in self._maps(standardise(rgb(as_tensor(x, self._device).float()), MEAN, STD)):
                start, end = end, end + scaled[0].numel()
                rows[:, start:end] = scaled.flatten(1).cpu().numpy()
        return Outputs(rows)


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, 64, 64),
    download: bool = False,
) -> Lpips:
    """The extractor.

    Args:
        preprocess: "none": images keep their size.
        weights: path of torchvision's weights of VGG16 or AlexNet; None to look for VGG16 in the cache. The weights of the channels are
            looked for beside that file and in the cache.
        device: "cpu" or "cuda".
        shape: (1, h, w) or (3, h, w).
        download: fetch the weights where there are none.

    Raises:
        MissingError: no weights; the message says what to put where.
        DataError: images of another shape, or a file that holds no such weights.
    """
    check_mode(preprocess, MODES, Lpips.name)
    check_images_shape(shape, Lpips.name, (1, 3))
    path = resolve_weights(Lpips.name, FILES, weights, download=download)
    tensors = read_tensors(path, Lpips.name)
    network = _which(tensors, path)
    linear = resolve_weights(Lpips.name, (network.linear,), None, download=download, beside=path)
    return Lpips(network, (path, tensors), linear, shape, device)
