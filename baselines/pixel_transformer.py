"""Transformer over pixels: a GPT whose tokens are image patches.

Family: autoregressive. Source: Chen, Radford, Child, Wu, Jun, Luan & Sutskever 2020, "Generative pretraining from pixels", ICML; the net is
GPT-2's (Vaswani et al. 2017, "Attention is all you need", arXiv 1706.03762, normalised before each part) with rectifiers. A token's input
is a causal convolution of the patches around it rather than the one before it alone (Xiao et al. 2021, arXiv 2106.14881).
p(x) = Π_t p(x_t | x_<t) over square patches t in raster order, each a categorical over all that a patch can be (16 for 2×2 binary
pixels). Sampling keeps the keys and values of every layer: a sample costs as much as one forward pass.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only pixel_transformer

Time: on mnist-dynbin the budget of twenty minutes (one thread, bfloat16) reached 81.5 ± 0.4 nats on the test split; 1,400 steps, 122
CPU-seconds, 87.7 on 500 images of the validation split (standard error .9). digits: 120 CPU-seconds, 85.0 nats on the test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError
from genbench.models import TrainingData

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "autoregressive"
SUMMARY = "transformer over image patches (GPT), exact"
SOURCE = "Chen et al. 2020, Generative pretraining from pixels; arXiv:1706.03762"

MOST = 4096  # values of a patch


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        patch: side of a token in pixels; divides the image's sides.
        width: of the tokens.
        layers: of attention and feed-forward.
        heads: of attention; divide the width.
        near: rows above, columns to either side there, and patches before whose pixels go into a token directly.
        weight_decay: of the matrices.
        temperature: of sampling: divides the logits; 1 for the model's own law.
    """

    patch: int = 1
    width: int = 64
    layers: int = 4
    heads: int = 2
    near: int = 2
    weight_decay: float = 0.01
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.patch, self.width, self.layers, self.heads, self.near) < 1:
            raise UsageError("patch, width, layers, heads and near are at least 1, found one below")
        if self.width % self.heads:
            raise UsageError(f"heads divide the width, found {self.heads} and {self.width}")
        if not self.weight_decay >= 0 or not self.temperature > 0:
            raise UsageError(f"weight_decay is at least 0 and temperature above 0, found {self.weight_decay} and {self.temperature}")


RECIPES = {
    "mnist-dynbin": Config(patch=2, steps=3300, batch=16, lr=3e-3, clip=1.0, bf16=True),
    "digits": Config(steps=600, batch=100, lr=3e-3, clip=1.0),
}
BUDGETS = {"mnist-dynbin": {"1min": {"steps": 700}, "5min": {}, "20min": {"width": 96, "steps": 8500}}}
SMOKE = {"images": Config(width=16, layers=2, steps=60, batch=50, lr=1e-2)}


def attend(q: "Tensor", k: "Tensor", v: "Tensor") -> "Tensor":
    """softmax(q kᵀ/√d + mask) v, eq. 1 of Vaswani et al.; the last query sees all keys, each one before it one less."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if q.is_cuda:  # no T × T matrix in memory; on a CPU it takes twice as long in bfloat16
        return scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
    hidden = torch.full((q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype).triu(1 + k.shape[2] - q.shape[2])
    return torch.softmax((q * q.shape[3] ** -0.5) @ k.transpose(2, 3) + hidden, dim=3) @ v


def network(inputs: int, height: int, width: int, config: Config, outputs: int) -> "nn.Module":
    """Patches (n, c p², H, W) to logits (n, H W, outputs), each of which sees the patches before its own."""
    import torch
    from torch import nn
    from torch.nn.functional import pad

    near, size, heads = config.near, config.width, config.heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
            self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
            self.feed = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size))

        def split(self, x: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
            """Queries, keys, values (n, heads, T, d)."""
            q, k, v = self.qkv(self.before(x)).unflatten(2, (3, heads, size // heads)).permute(2, 0, 3, 1, 4)
            return q, k, v

        def finish(self, x: "Tensor", seen: "Tensor") -> "Tensor":
            x = x + self.out(seen.transpose(1, 2).flatten(2))
            return x + self.feed(self.between(x))

        def forward(self, x: "Tensor") -> "Tensor":
            return self.finish(x, attend(*self.split(x)))

    class PixelTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.above = nn.Conv2d(inputs, size, (near, 2 * near + 1))  # rows above, without the own
            self.last = nn.Conv1d(inputs, size, near)  # the patches before in raster order: the end of a row is seen by the next one
            self.place = nn.Parameter(torch.randn(height * width, size) * 0.02)
            self.blocks = nn.ModuleList(Block() for _ in range(config.layers))
            self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, outputs))
            with torch.no_grad():  # GPT-2: what goes into the residual stream is smaller the more layers there are
                for block in self.blocks:
                    for layer in (block.out, block.feed[2]):
                        layer.weight.mul_((2 * config.layers) ** -0.5)

        def forward(self, x: "Tensor") -> "Tensor":
            above = self.above(pad(x, (near, near, near, 0))[:, :, :-1])
            last = self.last(pad(x.flatten(2), (near, -1)))
            h = (above.flatten(2) + last).transpose(1, 2) + self.place  # (n, T, size)
            for block in self.blocks:
                h = block(h)
            return self.head(h)

        def walk(self, x: "Tensor", choose: "Any") -> None:
            """Fill x patch by patch with a cache of keys and values: choose(t, logits (n, outputs)) gives a patch (n, c p²)."""
            n = len(x)
            canvas, line = pad(x, (near, near, near, 0)), pad(x.flatten(2), (near, 0))
            cache = [x.new_zeros(2, n, heads, height * width, size // heads) for _ in self.blocks]
            for t in range(height * width):
                r, c = divmod(t, width)
                above = self.above(canvas[:, :, r : r + near, c : c + 2 * near + 1])
                h = (above[:, :, 0] + self.last(line[:, :, t : t + near])).transpose(1, 2) + self.place[t]  # (n, 1, size)
                for block, (ks, vs) in zip(self.blocks, cache, strict=True):
                    q, ks[:, :, t : t + 1], vs[:, :, t : t + 1] = block.split(h)
                    h = block.finish(h, attend(q, ks[:, :, : t + 1], vs[:, :, : t + 1]))
                line[:, :, t + near] = canvas[:, :, r + near, c + near] = choose(t, self.head(h)[:, 0])
            x.copy_(canvas[:, :, near:, near : near + width])

    return PixelTransformer()


class Model(training.GreyModel):
    """A transformer. constants: values (L,) the dataset's grey values."""

    @property
    def bound(self) -> str:
        return "exact"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        (size, rows, columns), values = training.patched(shape, config.patch), len(constants["values"])
        if values**size > MOST:
            raise UsageError(f"a patch of {size} values with {values} grey values each is too much for one categorical; lower patch")
        return network(size, rows, columns, config, values**size - 1)

    @property
    def parts(self) -> NDArray[np.int64]:
        return self.patch_of_pixels(self.config.patch)

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        from torch.nn.functional import pixel_unshuffle

        patches = pixel_unshuffle(self.ranks(x), self.config.patch)  # (n, c p², H, W)
        return densities.categorical(self.net(self.scaled(patches)), self.joined(patches).flatten(1))

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch
        from torch.nn.functional import pixel_shuffle

        (c, h, w), p = self.shape, self.config.patch
        u = torch.rand(h // p * (w // p), n, generator=rng).to(self.device)
        x = torch.zeros(n, c * p * p, h // p, w // p, device=self.device)

        def choose(t: int, logits: "Tensor") -> "Tensor":
            return self.scaled(self.apart(densities.draw_categorical(logits, u[t], self.config.temperature), c * p * p))

        self.net.walk(x, choose)
        return self.greys(pixel_shuffle(torch.round(x * (self.levels - 1)).long(), p))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood with AdamW.

    Raises:
        DataError: the data are vectors, or all pixels are equal.
        UsageError: the patch does not fit the images.
    """
    import torch

    model = Model.new(config, data.shape, training.grey_constants(data), seed=seed)
    matrices = [p for p in model.net.parameters() if p.ndim > 1]
    others = [p for p in model.net.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.conditionals_rows(now.x).sum(dim=1).mean()
        now.update(loss)
        return {"nats": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
