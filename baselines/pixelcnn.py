"""Gated PixelCNN on tokens: a causal convolutional net that draws an image patch by patch.

Family: autoregressive. Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, "Conditional image generation
with PixelCNN decoders", arXiv 1606.05328; causality by shifts instead of masks and the discretised logistic mixture: Salimans, Karpathy,
Chen & Kingma 2017, PixelCNN++, arXiv 1701.05517; sampling that computes every feature once: Ramachandran et al. 2017, arXiv 1704.06001.
p(x) = Π_t p(x_t | x_<t) over square patches t in raster order. A vertical stack sees all rows above, a horizontal one those before in the
same row and, through a 1×1 convolution, the vertical stack; each layer is gated, eq. 2: y = tanh(W_f ∗ x) ⊙ σ(W_g ∗ x). A patch has one
categorical over all that it can be (16 for 2×2 binary pixels); or, for patches of one pixel, every channel has a mixture of discretised
logistics whose means move linearly with the channels before it.
Can: sample; log p exact.

    genbench bench mnist-dynbin --only pixelcnn

Time: on one thread with bfloat16, mnist-dynbin 62 CPU-seconds for the budget of one minute, which reached 90.2 nats on 500
images of the validation split (standard error .9); 276 for that of five minutes, 84.9 on 1,000 (.6). Many small steps pay: at 20,000
images seen, 400 steps of 50 of 6 layers of 32 were at 104.8 and 1,000 of 20 at 94.1. digits: 78 CPU-seconds, 81.1 nats on the test split.
8-bit MNIST: 54 CPU-seconds with 600 steps, 1.32 bits per pixel on 500 test images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import densities, training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FAMILY = "autoregressive"
SUMMARY = "gated PixelCNN over patches, exact"
SOURCE = "arXiv:1606.05328"

MOST = 4096  # values of a patch that one categorical may have


@dataclass(frozen=True)
class Config(training.Config):
    """Settings, beside those of every trained net.

    Args:
        patch: side of a token in pixels; divides the image's sides.
        channels: features of either stack.
        layers: gated layers.
        reach: rows and columns that a layer sees besides its own.
        first: rows and columns that the layer on the image sees.
        head: "categorical", or "logistic" for a mixture of discretised logistics (patch 1).
        components: of the mixture.
        temperature: of sampling: divides the categorical's or the mixture's logits, and the logistics' scales are multiplied by it.
        conditional: on the class: what the gates are given has a bias of its own for every class (eq. 4).
    """

    patch: int = 1
    channels: int = 32
    layers: int = 6
    reach: int = 1
    first: int = 3
    head: str = "categorical"
    components: int = 5
    temperature: float = 1.0
    conditional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.patch, self.channels, self.layers, self.reach, self.first, self.components) < 1:
            raise UsageError("patch, channels, layers, reach, first and components are at least 1, found one below")
        if self.head not in ("categorical", "logistic"):
            raise near_miss(self.head, ("categorical", "logistic"), "head")
        if self.head == "logistic" and self.patch != 1:
            raise UsageError(f"head logistic needs patch 1, found {self.patch}")
        if not self.temperature > 0:
            raise UsageError(f"temperature is above 0, found {self.temperature}")


RECIPES = {
    "mnist-dynbin": Config(patch=2, channels=48, layers=4, first=5, steps=5500, batch=16, lr=3e-3, bf16=True),
    "digits": Config(steps=600, lr=3e-3),
    "images": Config(head="logistic", layers=3, first=5, steps=3000, batch=16, lr=3e-3, bf16=True),
    # Sized by its arithmetic for 20 minutes of one GPU; not run yet.
    "cifar10": Config(
        head="logistic", components=10, channels=128, layers=8, reach=2, steps=30_000, batch=64, lr=1e-3, ema=0.9995, bf16=True
    ),
}
VARIANTS = {"conditional": {key: replace(config, conditional=True) for key, config in RECIPES.items() if key != "mnist-dynbin"}}
BUDGETS = {
    "mnist-dynbin": {"1min": {"channels": 32, "layers": 3, "steps": 2200}, "5min": {}, "20min": {"layers": 6, "steps": 16_000}},
    "mnist": {"1min": {"steps": 600}, "5min": {}, "20min": {"steps": 12_000}},
    "cifar10": {"20min": {}},
}
SMOKE = {
    "images": Config(channels=8, layers=2, steps=60, batch=50, lr=1e-2),
    "images:conditional": Config(channels=8, layers=2, steps=60, batch=50, lr=1e-2, conditional=True),
}


def gate(x: "Tensor") -> "Tensor":
    """Eq. 2; tanh(f) as 2 σ(2f) − 1, which torch computes 20 times faster in bfloat16."""
    import torch

    f, g = x.chunk(2, dim=1)
    return (2 * torch.sigmoid(2 * f) - 1) * torch.sigmoid(g)


def network(inputs: int, height: int, width: int, config: Config, outputs: int, classes: int) -> "nn.Module":
    """Patches (n, c p², H, W) to parameters (n, outputs, H, W), each of which sees the patches before its own and the class."""
    import torch
    from torch import nn
    from torch.nn.functional import pad

    k, first, size = config.reach, config.first, config.channels

    class Layer(nn.Module):
        """Its convolutions do not pad: `forward` pads whole images, sampling gives them the few rows and columns that they see."""

        def __init__(self) -> None:
            super().__init__()
            self.vertical = nn.Conv2d(size, 2 * size, (k + 1, 2 * k + 1))  # the own row and those above
            self.across = nn.Conv2d(2 * size, 2 * size, 1)
            self.horizontal = nn.Conv2d(size, 2 * size, (1, k + 1))  # the own column and those before
            self.out = nn.Conv2d(size, size, 1)
            self.told = nn.Linear(classes, 2 * size, bias=False) if classes else None

        def seen(self, v: "Tensor", condition: "Tensor | None") -> "Tensor":
            above = self.vertical(v)
            return above if self.told is None or condition is None else above + self.told(condition)[:, :, None, None]

        def forward(self, v: "Tensor", h: "Tensor", condition: "Tensor | None") -> "tuple[Tensor, Tensor]":
            above = self.seen(pad(v, (k, k, k, 0)), condition)
            h = h + self.out(gate(self.horizontal(pad(h, (k, 0, 0, 0))) + self.across(above)))
            return v + gate(above), h

    class PixelCnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.above = nn.Conv2d(inputs, size, (first, 2 * first + 1))  # rows above, without the own
            self.before = nn.Conv2d(inputs, size, (1, first))  # columns before, without the own
            self.place = nn.Parameter(torch.zeros(2, size, height, width))
            self.layers = nn.ModuleList(Layer() for _ in range(config.layers))
            self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(size, 2 * size, 1), nn.ReLU(), nn.Conv2d(2 * size, outputs, 1))

        def forward(self, x: "Tensor", condition: "Tensor | None" = None) -> "Tensor":
            v = self.above(pad(x, (first, first, first, 0))[:, :, :-1]) + self.place[0]
            h = self.before(pad(x, (first, 0, 0, 0))[:, :, :, :-1]) + self.place[1]
            for layer in self.layers:
                v, h = layer(v, h, condition)
            return self.head(h)

        def walk(self, x: "Tensor", choose: "Any", condition: "Tensor | None" = None) -> None:
            """Fill x patch by patch, each feature computed once: choose(row, column, parameters (n, outputs)) gives a patch (n, c p²)."""
            n = len(x)
            canvas = pad(x, (first, first, first, 0))
            vs = [x.new_zeros(n, size, height + k, width + 2 * k) for _ in self.layers]
            for r in range(height):
                v = self.above(canvas[:, :, r : r + first]) + self.place[0, :, r : r + 1]
                across = []
                for layer, kept in zip(self.layers, vs, strict=True):
                    kept[:, :, r + k, k : k + width] = v[:, :, 0]
                    above = layer.seen(kept[:, :, r : r + k + 1], condition)
                    across.append(layer.across(above))
                    v = v + gate(above)
                hs = [x.new_zeros(n, size, 1, width + k) for _ in self.layers]
                for c in range(width):
                    h = self.before(canvas[:, :, r + first : r + first + 1, c : c + first]) + self.place[1, :, r : r + 1, c : c + 1]
                    for layer, kept, seen in zip(self.layers, hs, across, strict=True):
                        kept[:, :, :, c + k] = h[..., 0]
                        h = h + layer.out(gate(layer.horizontal(kept[..., c : c + k + 1]) + seen[..., c : c + 1]))
                    canvas[:, :, r + first, c + first] = choose(r, c, self.head(h)[:, :, 0, 0])
            x.copy_(canvas[:, :, first:, first : first + width])

    return PixelCnn()


class Model(training.GreyModel):
    """PixelCNN. constants: values (L,) the dataset's grey values."""

    @property
    def bound(self) -> str:
        return "exact"

    @classmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        (size, rows, columns), values = training.patched(shape, config.patch), len(constants["values"])
        if config.head == "categorical" and values**size > MOST:
            raise UsageError(
                f"a patch of {size} values with {values} grey values each is too much for one categorical; lower patch or take "
                "head=logistic"
            )
        # Of a logistic component: weight, mean, log scale, and how its mean moves with every channel before.
        outputs = values**size - 1 if config.head == "categorical" else size * config.components * (3 + size - 1)
        return network(size, rows, columns, config, outputs, training.class_count(constants))

    @property
    def parts(self) -> NDArray[np.int64]:
        patch, c = self.patch_of_pixels(self.config.patch), self.shape[0]
        if self.config.head == "categorical":
            return patch
        return patch * c + np.repeat(np.arange(c), self.dims // c)

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        from torch.nn.functional import pixel_unshuffle

        patches = pixel_unshuffle(self.ranks(x), self.config.patch)  # (n, c p², H, W)
        out = self.net(self.scaled(patches), self.condition).float().permute(0, 2, 3, 1)  # (n, H, W, outputs)
        if self.config.head == "categorical":
            return densities.categorical(out, self.joined(patches)).flatten(1)
        channels = patches.permute(0, 2, 3, 1)  # (n, H, W, c)
        return densities.logistic_mixture(*self.mixture(out, channels), channels, self.levels).flatten(1)

    def mixture(self, out: "Tensor", patches: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
        """Weights, means and log scales (..., c, K); a channel's mean is moved by the channels before it only."""
        import torch

        c = self.shape[0]
        weights, means, log_scales, *slopes = out.unflatten(-1, (c, 2 + c, self.config.components)).unbind(dim=-2)
        x = 2 * self.scaled(patches)[..., None, :] - 1  # (..., 1, c)
        for channel, slope in enumerate(slopes):  # of the means of the channels after `channel`
            later = (torch.arange(c, device=out.device) > channel).float()[:, None]
            means = means + later * torch.tanh(slope) * x[..., channel : channel + 1]
        return weights, means, (log_scales - 2).clamp(min=-9)

    def draw(self, n: int, rng: "torch.Generator") -> NDArray[Any]:
        import torch
        from torch.nn.functional import pixel_shuffle

        (c, h, w), p, heat = self.shape, self.config.patch, self.config.temperature
        u, v = torch.rand(2, h // p, w // p, c, n, generator=rng).to(self.device)
        x = torch.zeros(n, c * p * p, h // p, w // p, device=self.device)

        def choose(row: int, column: int, out: "Tensor") -> "Tensor":
            if self.config.head == "categorical":
                return self.scaled(self.apart(densities.draw_categorical(out, u[row, column, 0], heat), c * p * p))
            ranks = torch.zeros(n, c, dtype=torch.long, device=self.device)
            for channel in range(c):
                weights, means, log_scales = (a[:, channel] for a in self.mixture(out, ranks))
                cool = (weights / heat, means, log_scales + np.log(heat))
                ranks[:, channel] = densities.draw_logistic_mixture(*cool, u[row, column, channel], v[row, column, channel], self.levels)
            return self.scaled(ranks)

        self.net.walk(x, choose, self.condition)
        return self.greys(pixel_shuffle(torch.round(x * (self.levels - 1)).long(), p))


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Maximise the likelihood with Adam.

    Raises:
        DataError: the data are vectors, or all pixels are equal.
        UsageError: the patch does not fit the images.
    """
    import torch

    constants = training.grey_constants(data) | (training.class_constants(data) if config.conditional else {})
    model = Model.new(config, data.shape, constants, seed=seed)
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        loss = -model.given(now.labels).conditionals_rows(now.x).sum(dim=1).mean()
        now.update(loss)
        return {"nats": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
