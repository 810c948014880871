"""Other libraries' models as genbench's: whatever draws samples can be checked and scored.

    evaluate(adapt(pipeline), ...)                      a diffusers pipeline: __call__(batch_size=..., generator=...).images
    evaluate(adapt(decoder, prior=64), ...)             an nn.Module that maps latent vectors to images
    evaluate(torch.distributions.Normal(...), ...)      a Distribution, with its log_prob
    evaluate(f, n=10_000, ...)                          a callable f(n, seed)
    evaluate(model, n=10_000, ...)                      what has sample(n), or sample(n, seed=)

`genbench check` and `genbench eval` take `module:attribute`: such an object, or a function without arguments that returns one. All draw
in shards whose random numbers depend on (seed, shard) alone, whatever the library does with torch's global generator, which is left as it
was.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError, UsageError, near_miss
from genbench.models import Stream, seeded, torch_generator

if TYPE_CHECKING:
    import torch

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def adapt(source: Any, *, prior: Any = None, call: Mapping[str, Any] | None = None) -> Any:
    """A sampler with `sample(n, seed=)` of a foreign model.

    Args:
        source: a torch Distribution, a diffusers-like pipeline, an nn.Module that decodes latent vectors, a callable f(n, seed), what has
            `sample(n)`, or what has `sample(n, seed=)` already, which is returned as it is.
        prior: of a decoder: the length or shape of a standard normal vector, a torch Distribution, or a callable (n, torch.Generator) ->
            tensor.
        call: more arguments of the pipeline, e.g. {"prompt": "a cat", "num_inference_steps": 50}.

    Raises:
        UsageError: nothing of these; or a decoder without a prior.
    """
    if is_distribution(source):
        return FromDistribution(source)
    if _is_pipeline(source):
        return FromPipeline(source, call or {})
    if _is_module(source):
        if prior is None:
            raise UsageError(
                f"{type(source).__name__} is a decoder: say what it decodes, e.g. adapt(decoder, prior=64) for standard normal vectors"
            )
        return FromDecoder(source, prior)
    if _is_seedless(source):
        return FromFunction(lambda n, seed: source.sample(n), type(source).__name__)
    if callable(getattr(source, "sample", None)):
        return source
    if callable(source):
        return FromFunction(source, getattr(source, "__name__", type(source).__name__))
    raise UsageError(
        "expected a torch Distribution, a pipeline whose call takes generator and returns .images, an nn.Module with prior=, a callable "
        f"f(n, seed), or an object with sample(n, seed=), found {type(source).__name__}"
    )


def is_foreign(source: Any) -> bool:
    """Whether `adapt` makes something of it that `open_samples` does not know by itself."""
    return is_distribution(source) or _is_pipeline(source) or _is_module(source) or _is_seedless(source)


def is_distribution(source: Any) -> bool:
    """A torch Distribution, or what looks like one."""
    return all(hasattr(source, a) for a in ("batch_shape", "event_shape", "log_prob", "sample")) and not isinstance(source, type)


def _is_pipeline(source: Any) -> bool:
    if not callable(source) or isinstance(source, type):
        return False
    try:
        taken = inspect.signature(source).parameters
    except (TypeError, ValueError):  # built-in callables have none
        return False
    return "generator" in taken and any(k in taken for k in ("batch_size", "num_images_per_prompt"))


def _is_module(source: Any) -> bool:
    return callable(getattr(source, "state_dict", None)) and callable(getattr(source, "forward", None)) and not hasattr(source, "sample")


def _is_seedless(source: Any) -> bool:
    draw = getattr(source, "sample", None)
    if not callable(draw) or isinstance(source, type):
        return False
    taken = inspect.signature(draw).parameters
    return "seed" not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values())


def referred(name: str) -> Any | None:
    """What "module:attribute" names: the attribute, or what it returns where it is a function without arguments; None for another text.

    Raises:
        UsageError: there is no such module or attribute.
    """
    if not _REFERENCE.fullmatch(name):
        return None
    home, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # where `python -m genbench` looks too
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as e:
        raise UsageError(f"{name!r}: cannot import {e.name!r}; install it, or run from the folder that holds it") from e
    if not hasattr(module, attribute):
        raise near_miss(attribute, [a for a in dir(module) if not a.startswith("_")], f"attribute of {home}")
    found = getattr(module, attribute)
    return found() if inspect.isroutine(found) and not inspect.signature(found).parameters else found


def _numpy(found: Any) -> NDArray[Any]:
    if callable(getattr(found, "detach", None)):
        found = found.detach().cpu()
        found = found.float().numpy() if found.is_floating_point() else found.numpy()
    return np.asarray(found)


class _Foreign(Stream):
    """Base: the shape is that of the first shard, and torch's global generator is put back after each.

    Attributes:
        title: what the samples are called.
    """

    def __init__(self, source: Any, title: str | None = None) -> None:
        self.source, self.title = source, title or type(source).__name__
        super().__init__(self._drawn(0, 0).shape[1:])

    def _draw(self, n: int, seed: int, index: int) -> NDArray[Any]:
        raise NotImplementedError

    def _drawn(self, index: int, seed: int) -> NDArray[Any]:
        import torch

        with torch.no_grad(), seeded(seed, index):
            x = _numpy(self._draw(self.SHARD, seed, index))
        x = x.reshape(len(x), -1) if x.ndim < 2 else x
        if len(x) != self.SHARD or x.ndim not in (2, 4):
            raise DataError(
                f"{self.title}: expected {self.SHARD} samples, (n, d) vectors or (n, c, h, w) images, found an array of shape {x.shape}"
            )
        return x.astype(np.float64) if x.ndim == 2 else x

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        return self._drawn(index, seed)

    @property
    def parameters(self) -> int | None:
        """Number of learnt weights; None where it is not known."""
        return None


class FromFunction(_Foreign):
    """Samples of a callable f(n, seed)."""

    def _draw(self, n: int, seed: int, index: int) -> NDArray[Any]:
        own = int(torch_generator(seed, index).initial_seed() % 2**31)  # 31 bits: every library's seed takes them
        found: NDArray[Any] = self.source(n, own)
        return found


class FromDistribution(_Foreign):
    """Samples and log p of a torch Distribution over numbers or vectors; of images only the samples, as their unit is not known.

    Raises:
        UsageError: a batch of distributions.
    """

    ROUNDING: ClassVar[float] = 1e-6  # float32

    def __init__(self, source: Any) -> None:
        if tuple(source.batch_shape):
            raise UsageError(
                f"expected one distribution, found a batch of shape {tuple(source.batch_shape)}; wrap it: torch.distributions."
                f"Independent(p, {len(source.batch_shape)})"
            )
        super().__init__(source)

    def _draw(self, n: int, seed: int, index: int) -> NDArray[Any]:
        found: NDArray[Any] = self.source.sample((n,))
        return found

    @property
    def bound(self) -> str | None:
        return "exact" if len(self.shape) == 1 else None

    @property
    def measure(self) -> str:
        return "mass" if getattr(getattr(self.source, "support", None), "is_discrete", False) else "density"

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        import torch

        if self.bound is None:
            return super().log_prob(x)
        like = self.source.sample()
        rows = torch.as_tensor(self.check_rows(x), dtype=like.dtype, device=like.device)
        with torch.no_grad():
            return np.asarray(self.source.log_prob(rows.reshape(len(rows), *self.source.event_shape)).double().cpu().numpy())


class FromPipeline(_Foreign):
    """Samples of a diffusers-like pipeline, a few at a time.

    Args:
        source: called with batch_size (or num_images_per_prompt) and generator, returns an object with `images`.
        call: more arguments.
    """

    SHARD: ClassVar[int] = 16

    def __init__(self, source: Any, call: Mapping[str, Any]) -> None:
        self.call = dict(call)
        taken = inspect.signature(source).parameters
        self._many = "batch_size" if "batch_size" in taken else "num_images_per_prompt"
        if "output_type" in taken:
            self.call.setdefault("output_type", "np")
        steps = self.call.get("num_inference_steps", getattr(taken.get("num_inference_steps"), "default", None))
        self._steps = steps if isinstance(steps, int) else None
        super().__init__(source)

    def _draw(self, n: int, seed: int, index: int) -> NDArray[Any]:
        images = self.source(**{self._many: n}, generator=torch_generator(seed, index), **self.call).images
        if not isinstance(images, np.ndarray):  # Pillow's
            images = np.stack([np.asarray(im) for im in images])
        if images.ndim == 3:
            images = images[..., None]
        bytes_ = images if images.dtype == np.uint8 else np.clip(np.rint(255 * images), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(bytes_, -1, 1))

    @property
    def nfe(self) -> int | None:
        """Denoising steps of one image."""
        return self._steps

    @property
    def parameters(self) -> int | None:
        parts = [p for p in getattr(self.source, "components", {}).values() if callable(getattr(p, "parameters", None))]
        return sum(w.numel() for p in parts for w in p.parameters()) if parts else None


class FromDecoder(_Foreign):
    """Samples of an nn.Module that decodes draws of a prior. It is put into evaluation mode.

    Args:
        source: maps (n, ...) latent vectors to (n, c, h, w) images or (n, d) vectors.
        prior: see `adapt`.
    """

    def __init__(self, source: Any, prior: Any) -> None:
        import torch

        first = next(iter(source.parameters()), torch.empty(0))
        self._like = first.detach()
        self._prior = _prior(prior)
        source.eval()
        super().__init__(source)

    def _draw(self, n: int, seed: int, index: int) -> NDArray[Any]:
        z = self._prior(n, torch_generator(seed, index)).to(self._like)
        found: NDArray[Any] = self.source(z)
        return found

    @property
    def nfe(self) -> int | None:
        return 1

    @property
    def parameters(self) -> int | None:
        return sum(p.numel() for p in self.source.parameters())


def _prior(prior: Any) -> "Callable[[int, torch.Generator], torch.Tensor]":
    import torch

    if is_distribution(prior):
        return lambda n, rng: prior.sample((n,))  # from torch's own generator, which is seeded
    if callable(prior):
        drawn: Callable[[int, torch.Generator], torch.Tensor] = prior
        return drawn
    shape = (prior,) if isinstance(prior, int) else tuple(prior)
    if not shape or not all(isinstance(s, int) and s > 0 for s in shape):
        raise UsageError(f"prior is a length or shape, a torch Distribution or a callable (n, torch.Generator), found {prior!r}")
    return lambda n, rng: torch.randn(n, *shape, generator=rng)
