"""Settings of the metrics of latent spaces: path lengths and reconstructions whose errors have a known mean."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import exp
from typing import Any

import numpy as np
from simulate import Setting

from genbench.statistics import LatentPath, Reconstructions

STEP = 1e-4
Lengths = Callable[[np.random.Generator, int], np.ndarray]


def paths(lengths: Lengths, d: int, n: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Neighbours whose features lie apart by `lengths` times the step, in directions of their own."""
    direction = rng.normal(size=(n, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    a = rng.normal(size=(n, d))
    return {"gen": LatentPath(a, a + STEP * lengths(rng, n)[:, None] * direction, STEP)}


def vectors(scale: Lengths, d: int, n: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Errors N(0, scale²) per coordinate, the scale a sample's own."""
    x = rng.normal(size=(n, d))
    return {"test": Reconstructions(x, x + scale(rng, n)[:, None] * rng.normal(size=(n, d)))}


def images(amount: Lengths, n: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Smooth blobs of 16 × 16 pixels, with noise of an amount of their own; the LPIPS stands for a distance that grows with it."""
    at = np.arange(16)
    centre, width = rng.uniform(4, 12, (n, 2, 1)), rng.uniform(2, 4, (n, 1))
    rows, columns = (np.exp(-((at - centre[:, i]) ** 2) / (2 * width**2)) for i in (0, 1))
    x = 200 * rows[:, None, :, None] * columns[:, None, None, :]
    noise = amount(rng, n)
    y = x + 255 * noise[:, None, None, None] * rng.normal(size=x.shape)
    return {"test": Reconstructions(x.astype(np.uint8), np.clip(y, 0, 255).astype(np.uint8), rng.gamma(4, noise / 4))}


def settings() -> Iterator[Setting]:
    """Every setting of this group."""
    known: tuple[tuple[str, Lengths, int, int, float], ...] = (
        ("log-normal speeds", lambda r, n: r.lognormal(0, 0.5, n), 64, 200, exp(0.5)),
        ("one speed in ten is 5", lambda r, n: np.where(r.random(n) < 0.1, 5.0, 1.0), 8, 500, 0.9 + 2.5),
        ("Gaussian speeds", lambda r, n: r.normal(3, 1, n), 2, 50, 10.0),
        ("heavy-tailed speeds, Student t(8)", lambda r, n: r.standard_t(8, n), 16, 2000, 8 / 6),
    )
    for name, lengths, d, n, mean in known:
        yield Setting("ppl", name, d, n, 0, 2000, partial(paths, lengths, d, n), {"ppl": mean})
    errors: tuple[tuple[str, Lengths, int, int, float], ...] = (
        ("equal errors", lambda r, n: np.full(n, 0.1), 8, 100, 0.01),
        ("log-normal errors", lambda r, n: 0.1 * r.lognormal(0, 0.5, n), 8, 300, 0.01 * exp(0.5)),
    )
    for name, scale, d, n, mean in errors:
        yield Setting("reconstruction", name, d, n, 0, 2000, partial(vectors, scale, d, n), {"reconstruction_mse": mean}, {"peak": 6.0})
    for name, amount, n in (
        ("images, equal noise", lambda r, n: np.full(n, 0.05), 50),
        ("images, noise from none to much", lambda r, n: r.uniform(0, 0.2, n), 200),
    ):
        yield Setting("reconstruction", name, 256, n, 0, 1000, partial(images, amount, n))
