"""What an extractor is, and what extractors share: checks of their input, weights by path / cache / announced download, folded batch norms.

An extractor maps one fixed-size batch of samples to rows (features, class logits). It is the only expensive step of an
evaluation. A row depends on its own sample alone, and the same batch gives the same bits.
"""

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError, MissingError, UsageError, near_miss
from genbench.files import replacing

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outputs:
    """What an extractor returns for one batch.

    Args:
        features: (n, d) float32 or float64.
        logits: (n, k) float32 unnormalised log-probabilities of the classes; None where the network has no classes.
    """

    features: NDArray[Any]
    logits: NDArray[np.float32] | None = None


class Extractor(Protocol):
    """A loaded network.

    Attributes:
        name: the extractor's name, that of its file.
        dim: d, numbers per feature row.
        classes: class names; None where they are unknown or there are none.
        has_probabilities: whether Outputs.logits is given.
        weights: sha256 (hex) of the weights; None where there are none.
        preprocess: the resizing mode in use; "none" where nothing is resized.
        batch: rows per forward pass that the engine should use.
    """

    name: str
    dim: int
    classes: tuple[str, ...] | None
    has_probabilities: bool
    weights: str | None
    preprocess: str
    batch: int

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Rows of one batch.

        Args:
            images: uint8 (n, c, h, w) or float64 (n, d).
        """
        ...


class InnerLayer(Extractor, Protocol):
    """An extractor that reads an inner layer of another one's network: its module names that one in NETWORK, and takes its weights,
    resizing and batch. Without `both`, which may be left out, the network runs once for each of the two."""

    def both(self, images: NDArray[Any]) -> tuple[Outputs, Outputs]:
        """What the other one gives and what this one gives, of one pass; the same bits as apart."""
        ...


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that an extractor can read.

    Args:
        file: its published file name, looked for in the cache.
        url: where it is published.
        sha256: its digest as published; None where none was. The full one, or its leading digits.
        licence: under which terms it is published.
        size: about how large it is, e.g. "95 MB".
    """

    file: str
    url: str
    sha256: str | None
    licence: str
    size: str


# ---------------------------------------------------------------- input


def check_mode(mode: str | None, modes: Sequence[str], name: str) -> str:
    """The preprocessing mode to use, the first of the modes by default.

    Raises:
        UsageError: an unknown mode; the message has the near miss.
    """
    if mode is None:
        return modes[0]
    if mode not in modes:
        raise near_miss(mode, modes, f"preprocessing mode of extractor {name}")
    return mode


def check_no_weights(weights: str | Path | None, name: str) -> None:
    """Refuse a weights file where the extractor has no use for one.

    Raises:
        UsageError: a file was given.
    """
    if weights is not None:
        raise UsageError(f"extractor {name} takes no weights, found {str(weights)!r}; leave them out, or choose the extractor they are for")


def check_images(
    images: NDArray[Any], name: str, channels: tuple[int, ...] | None = None, size: tuple[int, int] | None = None
) -> NDArray[Any]:
    """The batch, if it is uint8 (n, c, h, w) of the wanted channel count and size; or float32 grey levels that are not rounded, of the
    path metrics, whose images differ by less than a level.

    Args:
        images: what the extractor was called with.
        name: the extractor, for the message.
        channels: the channel counts it takes; None for any.
        size: the (height, width) it takes; None for any.

    Raises:
        DataError: something else was found.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        hint = "; choose the extractor identity for vectors" if images.ndim == 2 else ""
        raise DataError(f"extractor {name} takes {_wanted(channels, size)}, found {images.dtype} of shape {images.shape}{hint}")
    check_images_shape(images.shape[1:], name, channels, size)
    return images


def check_images_shape(
    shape: Sequence[int], name: str, channels: tuple[int, ...] | None = None, size: tuple[int, int] | None = None
) -> None:
    """Refuse a sample shape that the extractor cannot take, before any image is read.

    Args:
        shape: of one sample, (c, h, w) for images and (d,) for vectors.
        name: the extractor, for the message.
        channels: the channel counts it takes; None for any.
        size: the (height, width) it takes; None for any.

    Raises:
        DataError: something else was found.
    """
    shape = tuple(shape)
    if len(shape) != 3:
        raise DataError(f"extractor {name} takes {_wanted(channels, size)}, found vectors of shape {shape}; choose the extractor identity")
    if (channels and shape[0] not in channels) or (size and shape[1:] != size) or 0 in shape:
        raise DataError(
            f"extractor {name} takes {_wanted(channels, size)}, found images of shape {shape}; convert the images, "
            "or choose another extractor, e.g. inception, pixels or random"
        )


def _wanted(channels: tuple[int, ...] | None, size: tuple[int, int] | None) -> str:
    h, w = size or ("h", "w")
    return f"uint8 images (n, {' or '.join(map(str, channels or ['c']))}, {h}, {w})"


def grey(images: NDArray[Any], name: str) -> NDArray[Any]:
    """One channel, (n, 1, h, w), of grey images; RGB whose three channels are equal is grey.

    Raises:
        DataError: a coloured image, with its index.
    """
    if images.shape[1] == 1:
        return images
    coloured = np.flatnonzero((images != images[:, :1]).any(axis=(1, 2, 3)))
    if len(coloured):
        raise DataError(
            f"extractor {name} takes grey images, image {coloured[0]} of the batch has unequal channels "
            f"({len(coloured)} of {len(images)} do); convert the images to grey, or choose another extractor"
        )
    return images[:, :1]


def as_tensor(images: NDArray[Any], device: str) -> "torch.Tensor":
    """The images on the device. A read-only array (e.g. mapped from a file) is copied, as torch has no read-only tensors."""
    import torch

    return torch.from_numpy(np.require(images, requirements=("C", "W"))).to(device)


def rgb(images: "torch.Tensor") -> "torch.Tensor":
    """Three channels, (n, 3, h, w): a single grey channel is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


# ---------------------------------------------------------------- weights


def sha256_file(path: str | Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """The sha256 (hex) of named arrays: names, dtypes, shapes and bytes in the order of the names."""
    h = hashlib.sha256()
    for key in sorted(arrays):
        a = np.ascontiguousarray(arrays[key])
        h.update(f"{key}|{a.dtype.str}|{a.shape}|".encode())
        h.update(a.tobytes())
    return h.hexdigest()


def weights_root() -> Path:
    """Where weights are looked for and downloaded to: GENBENCH_CACHE/weights, else the user's cache folder."""
    if os.environ.get("GENBENCH_CACHE"):
        return Path(os.environ["GENBENCH_CACHE"]) / "weights"
    from platformdirs import user_cache_path

    return Path(user_cache_path("genbench")) / "weights"


def resolve_weights(
    name: str, files: Sequence[WeightFile], given: str | Path | None, *, download: bool = False, beside: Path | None = None
) -> Path:
    """The weights file to read: the given path, else one in the cache, else an announced download.

    Args:
        name: the extractor.
        files: what it can read, the one to download first.
        given: a path the user wrote; None to look in the cache.
        download: fetch the first of the files when none is there.
        beside: a file of the same extractor, whose folder is looked into first; the wanted one has no option of its own then.

    Raises:
        MissingError: no file; the message says what to put where.
        DataError: the file in the cache is not the published one.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            known = ", ".join(f.file for f in files)
            raise MissingError(f"weights of extractor {name}: no file at {str(given)!r}; give the path of one of: {known}")
        return path
    folders = [*([] if beside is None else [beside.parent]), weights_root()]
    for path, file in ((folder / f.file, f) for folder in folders for f in files):
        if path.is_file():
            _check_digest(path, file, "delete it and fetch it again")
            return path
    if download:
        return _download(name, files[0])
    lines = [f"  {f.file} ({f.size}, {f.licence}) from {f.url}" for f in files]
    other = "give its path (--weights FILE)" if beside is None else f"beside {beside}"
    raise MissingError(
        f"extractor {name} needs weights, and none of these files is in {weights_root()}:\n"
        + "\n".join(lines)
        + f"\nPut one there, or {other}, or allow the download of {files[0].size} (--download)"
    )


def _check_digest(path: Path, file: WeightFile, mend: str) -> None:
    if file.sha256 is not None and not sha256_file(path).startswith(file.sha256):
        raise DataError(f"{path} is not the published {file.file}: sha256 expected {file.sha256}, found {sha256_file(path)}; {mend}")


def _download(name: str, file: WeightFile) -> Path:
    """Fetch a file by https to a temporary name, check its digest, then rename it."""
    import urllib.error
    import urllib.request

    if not file.url.startswith("https://"):
        raise UsageError(f"weights are fetched by https only, found {file.url}")
    path = weights_root() / file.file
    print(f"genbench: downloading the weights of {name} ({file.size}, {file.licence}) from {file.url} to {path}", file=sys.stderr)
    try:
        with replacing(path) as out:
            with urllib.request.urlopen(file.url, timeout=60) as source:
                while block := source.read(1 << 20):
                    out.write(block)
            out.flush()
            _check_digest(
                Path(out.name), file, "the download was damaged or the file has changed; try again, or put the file there by hand"
            )
    except urllib.error.URLError as e:
        raise MissingError(
            f"extractor {name}: {file.url} cannot be reached ({e.reason}); fetch {file.file} elsewhere and put it into {path.parent}"
        ) from e
    return path


def read_tensors(path: Path, name: str, *, mapped: bool = False) -> dict[str, "torch.Tensor"]:
    """The tensors of a file of weights, by name; pickled code in it is never run.

    Args:
        path: .safetensors, or a state dict saved by torch.
        name: the extractor, for the message.
        mapped: leave a state dict in its file where its form allows, for tensors that are copied one by one.

    Raises:
        DataError: not such a file.
    """
    import warnings

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    unsafe = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]  # raised for a file that holds more than tensors
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # of a file that is then refused
            found: Any
            if path.suffix == ".safetensors":
                found = load_file(path)
            else:
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except (SafetensorError, unsafe, RuntimeError, ValueError, EOFError, KeyError) as e:
        raise DataError(
            f"{path} holds no weights that extractor {name} can read: expected .safetensors or a state dict of tensors, found: "
            f"{str(e).splitlines()[0] if str(e) else type(e).__name__}"
        ) from e
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise DataError(
            f"{path} holds no weights that extractor {name} can read: expected a state dict of tensors, found {type(found).__name__}"
        )
    return dict(found)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which torch.load refuses, rather than a saved state dict."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as z:
        return any(name.endswith("/constants.pkl") for name in z.namelist())


def read_torchscript(path: Path, name: str) -> Any:
    """The module of a TorchScript archive, on the CPU and in evaluation. Loading one runs no Python code of the file.

    Args:
        path: the archive.
        name: the extractor, for the message.

    Raises:
        DataError: this torch cannot read it.
    """
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            # torch 2.9 on calls the format deprecated; the weights are published in it.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
            return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as e:
        raise DataError(
            f"{path} holds no weights that extractor {name} can read: expected a TorchScript archive, found: {str(e).splitlines()[0]}"
        ) from e


# ---------------------------------------------------------------- networks

RUNTIMES = ("openvino",)
"""What may be asked for as a device beside torch's own: another runtime on the CPU. An extractor that knows one says so in its RUNTIMES."""


def runtime_version(name: str) -> str:
    """The version of an installed runtime.

    Raises:
        MissingError: it is not installed.
    """
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as e:
        raise MissingError(f"device {name} needs the package {name}: pip install 'genbench[fast]', or pass --device cpu") from e


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Convolutions on a GPU in whole float32 and by a fixed algorithm; torch's default there is TF32, with 10 bits of mantissa.

    Args:
        device: "cpu", where nothing changes, or "cuda".
    """
    if device.partition(":")[0] != "cuda":
        yield
        return
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def folded(
    weight: "torch.Tensor", gamma: "torch.Tensor | None", beta: "torch.Tensor", mean: "torch.Tensor", var: "torch.Tensor", eps: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """A convolution's weight and bias with the batch norm behind it folded in.

    BN(W*x) = g/√(v+ε) (W*x − m) + b  =  (g/√(v+ε) W)*x + (b − m g/√(v+ε)), computed in float64 and rounded once.

    Args:
        weight: (out, in, kh, kw), without a bias.
        gamma: (out,) scale; None for 1.
        beta: (out,) shift.
        mean: (out,) running mean.
        var: (out,) running variance.
        eps: the batch norm's ε.
    """
    scale = (var.double() + eps).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    return (weight.double() * scale[:, None, None, None]).float(), (beta.double() - mean.double() * scale).float()


def fold_batch_norms(layers: "torch.nn.Sequential") -> "torch.nn.Sequential":
    """The same layers in evaluation, each batch norm folded into the convolution before it."""
    import torch

    out: list[torch.nn.Module] = []
    for layer in layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            conv = out.pop()
            assert isinstance(conv, torch.nn.Conv2d)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            gamma, beta = layer.weight.detach(), layer.bias.detach()
            weight, bias = folded(conv.weight.detach(), gamma, beta, layer.running_mean, layer.running_var, layer.eps)
            if conv.bias is not None:
                scale = gamma.double() * (layer.running_var.double() + layer.eps).rsqrt()
                bias = (bias.double() + conv.bias.detach().double() * scale).float()
            plain = torch.nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
            with torch.no_grad():
                plain.weight.copy_(weight)
                plain.bias.copy_(bias)  # type: ignore[union-attr]
            out.append(plain)
        else:
            out.append(layer)
    return torch.nn.Sequential(*out)


class SmallClassifier:
    """The digits and mnist extractors: a small classifier shipped with genbench, its features the layer before the classes.

    Args:
        name: the extractor.
        network: makes the layers without batch norms: (convolutions up to the pooled features, linear head).
        size: side of the square images it takes.
        dim: d of its features.
        mean: of the training pixels in [0, 1].
        std: of the training pixels in [0, 1].
        path: the file of weights.
        batch: rows per forward pass.
        device: "cpu" or "cuda".
    """

    preprocess = "none"
    has_probabilities = True

    def __init__(
        self,
        name: str,
        network: "Callable[[], tuple[torch.nn.Sequential, torch.nn.Linear]]",
        size: int,
        dim: int,
        mean: float,
        std: float,
        path: Path,
        batch: int,
        device: str,
    ) -> None:
        import torch

        self.name, self.dim, self.batch, self.size = name, dim, batch, size
        self.classes: tuple[str, ...] | None = tuple("0123456789")
        self.weights: str | None = sha256_file(path)
        self._device, self._mean, self._std = device, mean, std
        tensors = read_tensors(path, name)
        self._layers, self._head = network()
        whole = torch.nn.ModuleDict({"layers": self._layers, "head": self._head})
        expected = {k: tuple(v.shape) for k, v in whole.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in tensors.items()}
        if expected != found:
            raise DataError(
                f"{path} does not fit extractor {name}: expected tensors {expected}, found {found}; give the weights of this network"
            )
        whole.load_state_dict(tensors)
        whole.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: NDArray[Any]) -> Outputs:
        """Features and logits of grey images.

        Args:
            images: (n, 1, size, size) uint8, or (n, 3, size, size) with equal channels.

        Raises:
            DataError: images of another size, or coloured ones.
        """
        import torch

        x = grey(check_images(images, self.name, (1, 3), (self.size, self.size)), self.name)
        with torch.inference_mode(), full_precision(self._device):
            t = as_tensor(x, self._device)
            t = (t.float().div_(255) - self._mean) / self._std
            features = self._layers(t.contiguous(memory_format=torch.channels_last))  # (n, dim)
            logits = self._head(features)  # (n, 10)
        return Outputs(features.cpu().numpy(), logits.cpu().numpy())


def shipped_weights(name: str) -> Path:
    """The file of weights that the package ships for an extractor, checked against the digest in its JSON.

    Raises:
        MissingError: the file is absent or damaged.
    """
    import json

    path = Path(__file__).parent / "extractors" / "_weights" / f"{name}.safetensors"
    if not path.is_file():
        raise MissingError(
            f"the shipped weights {path} are absent; install genbench again, or train them: python benchmarks/train_classifiers.py {name}"
        )
    wanted = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if sha256_file(path) != wanted:
        raise MissingError(
            f"the shipped weights {path} are damaged: sha256 expected {wanted}, found {sha256_file(path)}; install genbench again"
        )
    return path


def given_or_shipped(name: str, weights: str | Path | None) -> Path:
    """The weights file of a shipped classifier: the given path, else the package's own.

    Raises:
        MissingError: no such file.
    """
    if weights is None:
        return shipped_weights(name)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MissingError(
            f"weights of extractor {name}: no file at {str(weights)!r}; give the path of a .safetensors file of this "
            "network, or leave it out for the shipped ones"
        )
    return path
