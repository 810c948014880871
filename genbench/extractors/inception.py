"""inception: the Inception-v3 network of 2015-12-05 that FID, KID and the Inception Score are defined on.

Features are the 2,048 globally pooled activations (`pool_3` of the TensorFlow graph), logits the 1,008 classes WITHOUT the
bias, as Salimans et al. (2016) computed them. The network is written out here and reads the weights that every tool uses,
in any of their published files: the TorchScript of clean-fid and StyleGAN (`inception-2015-12-05.pt`), the state dicts of
pytorch-fid and torch-fidelity, or safetensors with the names of either.

It differs from torchvision's Inception-v3 in three places, quirks of the original graph that the numbers depend on: average
pools do not count the padding, the last block pools by maximum, and there are 1,008 classes. Batch norms are folded into the
convolutions in float64, tensors are channels-last and the stem takes a few images at a time: about 1.6 times as fast as the
eager networks of the peers on a CPU (benchmarks/speed.md), and a feature moves by at most 2e-4.

References: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"; Heusel et al. 2017, "GANs Trained
by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError, UsageError
from genbench.extractor import (
    Outputs,
    WeightFile,
    as_tensor,
    check_images,
    check_images_shape,
    check_mode,
    folded,
    full_precision,
    is_torchscript,
    read_tensors,
    read_torchscript,
    resolve_weights,
    rgb,
    sha256_file,
)
from genbench.preprocess import MODES as _MODES
from genbench.preprocess import rescale, resize

if TYPE_CHECKING:
    import torch

SUMMARY = "Inception-v3 of 2015 (FID, KID, IS): 2048 features, 1008 classes without bias"
DIM = 2048
CLASSES = 1008
MODES = _MODES
RUNTIMES = ("openvino",)  # beside torch: what else can run the network on a CPU
BATCH = 16
SIZE = 299
STEM_IMAGES = 4  # that pass the stem at once on a CPU: its maps stay in the cache, a fifth less time and 100 MB less for the same bits
EPS = 1e-3  # of every batch norm in the graph
FILES = (
    WeightFile(
        "inception-2015-12-05.pt",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "Apache-2.0",
        "96 MB",
    ),
    WeightFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0",
        "96 MB",
    ),
    WeightFile(
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0",
        "96 MB",
    ),
)

# One convolution: (name in the state dicts of pytorch-fid and torch-fidelity, name in the TorchScript, out, kernel, stride, padded).
Conv = tuple[str, str, int, tuple[int, int], int, bool]
Branch = tuple[Conv | str, ...]  # applied in turn; a str is a pooling
P1, P3, P5, R7, C7, R3, C3 = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)


def _c(name: str, script: str, out: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True) -> Conv:
    return name, script, out, kernel, stride, padded


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (_c("branch1x1", "conv", 64, P1),),
        (_c("branch5x5_1", "tower.conv", 48, P1), _c("branch5x5_2", "tower.conv_1", 64, P5)),
        (
            _c("branch3x3dbl_1", "tower_1.conv", 64, P1),
            _c("branch3x3dbl_2", "tower_1.conv_1", 96, P3),
            _c("branch3x3dbl_3", "tower_1.conv_2", 96, P3),
        ),
        ("mean", _c("branch_pool", "tower_2.conv", pooled, P1)),
    )


def _block_c(width: int) -> tuple[Branch, ...]:
    return (
        (_c("branch1x1", "conv", 192, P1),),
        (
            _c("branch7x7_1", "tower.conv", width, P1),
            _c("branch7x7_2", "tower.conv_1", width, R7),
            _c("branch7x7_3", "tower.conv_2", 192, C7),
        ),
        (
            _c("branch7x7dbl_1", "tower_1.conv", width, P1),
            _c("branch7x7dbl_2", "tower_1.conv_1", width, C7),
            _c("branch7x7dbl_3", "tower_1.conv_2", width, R7),
            _c("branch7x7dbl_4", "tower_1.conv_3", width, C7),
            _c("branch7x7dbl_5", "tower_1.conv_4", 192, R7),
        ),
        ("mean", _c("branch_pool", "tower_2.conv", 192, P1)),
    )


def _block_e(pool: str) -> tuple[Branch, ...]:
    """Two of its branches fork: their last convolutions, 1 x 3 and 3 x 1, read the same input; "fork" marks the second one."""
    return (
        (_c("branch1x1", "conv", 320, P1),),
        (_c("branch3x3_1", "tower_conv", 384, P1), _c("branch3x3_2a", "tower_mixed_conv", 384, R3)),
        ("fork", _c("branch3x3_2b", "tower_mixed_conv_1", 384, C3)),
        (
            _c("branch3x3dbl_1", "tower_1_conv", 448, P1),
            _c("branch3x3dbl_2", "tower_1_conv_1", 384, P3),
            _c("branch3x3dbl_3a", "tower_1_mixed_conv", 384, R3),
        ),
        ("fork", _c("branch3x3dbl_3b", "tower_1_mixed_conv_1", 384, C3)),
        (pool, _c("branch_pool", "tower_2_conv", 192, P1)),
    )


BLOCK_B: tuple[Branch, ...] = (
    (_c("branch3x3", "conv", 384, P3, 2, False),),
    (
        _c("branch3x3dbl_1", "tower.conv", 64, P1),
        _c("branch3x3dbl_2", "tower.conv_1", 96, P3),
        _c("branch3x3dbl_3", "tower.conv_2", 96, P3, 2, False),
    ),
    ("halve",),
)
BLOCK_D: tuple[Branch, ...] = (
    (_c("branch3x3_1", "tower.conv", 192, P1), _c("branch3x3_2", "tower.conv_1", 320, P3, 2, False)),
    (
        _c("branch7x7x3_1", "tower_1.conv", 192, P1),
        _c("branch7x7x3_2", "tower_1.conv_1", 192, R7),
        _c("branch7x7x3_3", "tower_1.conv_2", 192, C7),
        _c("branch7x7x3_4", "tower_1.conv_3", 192, P3, 2, False),
    ),
    ("halve",),
)
STEM: Branch = (
    _c("Conv2d_1a_3x3", "conv", 32, P3, 2, False),
    _c("Conv2d_2a_3x3", "conv_1", 32, P3, 1, False),
    _c("Conv2d_2b_3x3", "conv_2", 64, P3),
    "halve",
    _c("Conv2d_3b_1x1", "conv_3", 80, P1),
    _c("Conv2d_4a_3x3", "conv_4", 192, P3, 1, False),
    "halve",
)
BLOCKS: tuple[tuple[str, str, tuple[Branch, ...]], ...] = (
    ("Mixed_5b", "mixed", _block_a(32)),
    ("Mixed_5c", "mixed_1", _block_a(64)),
    ("Mixed_5d", "mixed_2", _block_a(64)),
    ("Mixed_6a", "mixed_3", BLOCK_B),
    ("Mixed_6b", "mixed_4", _block_c(128)),
    ("Mixed_6c", "mixed_5", _block_c(160)),
    ("Mixed_6d", "mixed_6", _block_c(160)),
    ("Mixed_6e", "mixed_7", _block_c(192)),
    ("Mixed_7a", "mixed_8", BLOCK_D),
    ("Mixed_7b", "mixed_9", _block_e("mean")),
    ("Mixed_7c", "mixed_10", _block_e("max")),
)


def _plain_names(tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The tensors under the names of pytorch-fid's state dict, whichever file they come from; taken out of the given ones."""
    names = {f"layers.{script}": name for name, script, *_ in (c for c in STEM if not isinstance(c, str))}
    for block, script_block, branches in BLOCKS:
        for conv in (c for branch in branches for c in branch if not isinstance(c, str)):
            names[f"layers.{script_block}.{conv[1]}"] = f"{block}.{conv[0]}"
    ends = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}
    found = {}
    while tensors:
        key, value = tensors.popitem()
        stem, _, end = key.rpartition(".")
        if stem in names and end in ends:
            found[f"{names[stem]}.{ends[end]}"] = value
        else:
            found[key.replace("output.", "fc.") if stem == "output" else key] = value
    return found


class Network:
    """The network on tensors: images scaled to about [-1, 1], (n, 3, 299, 299), to features (n, 2048) and logits (n, 1008).

    Args:
        tensors: the weights, under the names of any of the published files; emptied, so that they are not held twice.
        source: where they come from, for the message.
        device: "cpu" or "cuda".

    A subclass that replaces `_stem`, `_conv`, `_pool`, `_join` and `_end` has the same network in other operations.

    Raises:
        DataError: a tensor is missing or has another shape.
    """

    def __init__(self, tensors: "dict[str, torch.Tensor]", source: str, device: str = "cpu") -> None:
        self._tensors, self._source, self._device = _plain_names(tensors), source, device
        self._convs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        wide, _ = self._add(STEM, "", 3)
        for block, _, branches in BLOCKS:
            out, forked = 0, wide
            for branch in branches:
                last, before = self._add(branch, f"{block}.", forked if branch[0] == "fork" else wide)
                out, forked = out + last, before
            wide = out
        self._head = self._tensor("fc.weight", (CLASSES, wide)).float().clone().to(device)  # not left in the file
        self._tensors = {}

    def _tensor(self, name: str, shape: tuple[int, ...]) -> "torch.Tensor":
        found = self._tensors.pop(name, None)
        if found is None or tuple(found.shape) != shape:
            what = "none of that name" if found is None else f"shape {tuple(found.shape)}"
            raise DataError(
                f"{self._source} holds no weights of the Inception network of FID: expected a tensor {name} of shape {shape}, "
                f"found {what}; give one of {', '.join(f.file for f in FILES)}"
            )
        return found

    def _add(self, branch: Branch, prefix: str, inside: int) -> tuple[int, int]:
        """Fold the convolutions of a branch; returns the channels that it ends with, and those that its last convolution reads."""
        import torch

        before = inside
        for conv in branch:
            if isinstance(conv, str):
                continue
            name, _, out, kernel, _, _ = conv
            key = prefix + name
            weight = self._tensor(f"{key}.conv.weight", (out, inside, *kernel))
            gamma = self._tensor(f"{key}.bn.weight", (out,)) if f"{key}.bn.weight" in self._tensors else None  # the TorchScript has none: 1
            beta, mean, var = (self._tensor(f"{key}.bn.{end}", (out,)) for end in ("bias", "running_mean", "running_var"))
            w, b = folded(weight, gamma, beta, mean, var, EPS)
            self._convs[key] = w.to(self._device).contiguous(memory_format=torch.channels_last), b.to(self._device)
            before, inside = inside, out
        return inside, before

    def _conv(self, x: "torch.Tensor", conv: Conv, prefix: str) -> "torch.Tensor":
        from torch.nn import functional

        name, _, _, (kh, kw), stride, padded = conv
        weight, bias = self._convs[prefix + name]
        return functional.conv2d(x, weight, bias, stride, (kh // 2, kw // 2) if padded else 0).relu_()

    def _pool(self, x: "torch.Tensor", kind: str) -> "torch.Tensor":
        from torch.nn import functional

        if kind == "mean":
            return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return functional.max_pool2d(x, 3, 2) if kind == "halve" else functional.max_pool2d(x, 3, 1, 1)

    def _join(self, parts: "list[torch.Tensor]") -> "torch.Tensor":
        import torch

        return torch.cat(parts, dim=1)

    def _end(self, x: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        features = x.mean(dim=(2, 3))  # (n, 2048)
        return features, features @ self._head.T

    def _run(self, x: "torch.Tensor", branch: Branch, prefix: str) -> "tuple[torch.Tensor, torch.Tensor]":
        """The branch's output, and what its last layer read."""
        before = x
        for layer in branch:
            if layer == "fork":
                continue
            before = x
            x = self._pool(x, layer) if isinstance(layer, str) else self._conv(x, layer, prefix)
        return x, before

    def _stem(self, x: "torch.Tensor") -> "torch.Tensor":
        import torch

        parts = x.split(STEM_IMAGES) if self._device == "cpu" else (x,)
        return torch.cat([self._run(part.contiguous(memory_format=torch.channels_last), STEM, "")[0] for part in parts])

    def outputs(self, x: "torch.Tensor", inner: str | None = None) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]":
        """Features, logits, and the map of the first branch of the block `inner`. A batch that the caller does not keep is let go after
        the stem."""
        kept = None
        x = self._stem(x)  # (n, 192, 35, 35)
        for block, _, branches in BLOCKS:
            parts, forked = [], x
            for branch in branches:
                part, forked = self._run(forked if branch[0] == "fork" else x, branch, f"{block}.")
                parts.append(part)
            kept = parts[0] if block == inner else kept
            x = self._join(parts)  # 35 x 35 to Mixed_5d, 17 x 17 to Mixed_6e, then 8 x 8
        return *self._end(x), kept

    def inner(self, x: "torch.Tensor", stop: str) -> "torch.Tensor":
        """The map of the first branch of the block `stop`, before which none forks; nothing else of it is run."""
        x = self._stem(x)
        for block, _, branches in BLOCKS:
            if block == stop:
                return self._run(x, branches[0], f"{block}.")[0]
            x = self._join([self._run(x, branch, f"{block}.")[0] for branch in branches])
        raise UsageError(f"the network has the blocks {', '.join(b for b, _, _ in BLOCKS)}, found {stop!r}")


def read_network(path: Path, device: str = "cpu") -> Network:
    """The network with the weights of a file: TorchScript, a state dict, or safetensors.

    Args:
        path: of the file.
        device: "cpu", "cuda", or one of RUNTIMES.

    Raises:
        DataError: the file is none of these, or holds another network.
        MissingError: a runtime that is not installed.
    """
    network = _network(path, "cpu" if device in RUNTIMES else device)
    if device not in RUNTIMES:
        return network
    from genbench.extractors._compiled import Compiled

    return Compiled(network)


def _network(path: Path, device: str) -> Network:
    if not is_torchscript(path):
        return Network(read_tensors(path, "inception", mapped=True), str(path), device)
    import torch

    script = read_torchscript(path, "inception")
    tensors = {k: v.detach() for k, v in script.state_dict().items()}
    network = Network({**tensors}, str(path))
    # The names are those of the one published file. Another TorchScript could hold tensors of the same names and do something else.
    levels = np.random.default_rng(0).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        mine, theirs = network.outputs(torch.from_numpy(levels))[0], script.layers(torch.from_numpy(levels)).view(1, -1)
    if theirs.shape != mine.shape or float((mine - theirs).abs().max()) > 1e-3 * float(theirs.abs().max()):
        raise DataError(
            f"{path} is not the Inception network of FID: its features of one test image differ from those of the network "
            f"with the same weights; give one of {', '.join(f.file for f in FILES)}"
        )
    return network if device == "cpu" else Network(tensors, str(path), device)


class Inception:
    """The extractor; see the module.

    Args:
        network: with its weights.
        digest: sha256 of the weights' file.
        preprocess: one of MODES.
        device: "cpu", "cuda", or one of RUNTIMES.
    """

    name = "inception"
    dim = DIM
    classes: tuple[str, ...] | None = None
    has_probabilities = True
    batch = BATCH

    def __init__(self, network: Network, digest: str, preprocess: str, device: str) -> None:
        self._network, self._device = network, "cpu" if device in RUNTIMES else device
        self.weights: str | None = digest
        self.preprocess = preprocess

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features (n, 2048) and logits (n, 1008), float32.

        Args:
            images: (n, 3, h, w) uint8 of any size; (n, 1, h, w) is repeated to three channels.

        Raises:
            DataError: something else.
        """
        import torch

        with torch.inference_mode(), full_precision(self._device):
            features, logits, _ = self._network.outputs(self._prepared(images))
            return Outputs(features.cpu().numpy(), logits.cpu().numpy())

    def _prepared(self, images: NDArray[Any]) -> "torch.Tensor":
        """The network's input, (n, 3, 299, 299) or an expanded grey image of that shape, which is resized once."""
        t = as_tensor(check_images(images, self.name, (1, 3)), self._device)
        return rgb(rescale(resize(t, (SIZE, SIZE), self.preprocess), self.preprocess))


def load(
    *,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    shape: tuple[int, ...] = (3, SIZE, SIZE),
    download: bool = False,
) -> Inception:
    """The extractor.

    Args:
        preprocess: one of MODES; "clean" by default.
        weights: path of any of FILES; None to look in the cache.
        device: "cpu", "cuda", or one of RUNTIMES.
        shape: (1, h, w) or (3, h, w).
        download: fetch the weights where there are none.

    Raises:
        MissingError: no weights; the message says what to put where.
        DataError: images of another shape, or a file that holds no such weights.
    """
    mode = check_mode(preprocess, MODES, "inception")
    check_images_shape(shape, "inception", (1, 3))
    path = resolve_weights("inception", FILES, weights, download=download)
    return Inception(read_network(path, device), sha256_file(path), mode, device)
