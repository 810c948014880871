"""Coverage settings of the transport distances and of the divergences from laws with a known density.

Targets: sliced_wasserstein_debiased, mind_debiased and kl_forward in closed form (the mean over replications for the exponential law),
kl_reverse from 400,000 samples; sliced_wasserstein, mind and wasserstein2, for their expectation at these sizes, from the replications.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from simulate import Setting

from genbench.statistics import Features, Law, LogLikelihood

Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(d: int, shift: float = 0.0, stretch: float = 1.0) -> Draw:
    return lambda rng, n: shift + stretch * rng.standard_normal((n, d))


def exponential(d: int) -> Draw:
    return lambda rng, n: rng.exponential(size=(n, d)) - 1


def laplace(d: int) -> Draw:
    return lambda rng, n: rng.laplace(size=(n, d))


def sides(gen: Draw, ref: Draw, n: int, m: int) -> Callable[[np.random.Generator], Mapping[str, Any]]:
    return lambda rng: {"gen": Features(gen(rng, n)), "ref": Features(ref(rng, m))}


def sliced() -> Iterator[Setting]:
    debiased = "sliced_wasserstein_debiased"
    for law, d, n, m, gen, ref, true in (
        ("equal Gaussians", 1, 200, 200, normal(1), normal(1), 0.0),
        ("equal Gaussians", 2, 60, 60, normal(2), normal(2), 0.0),
        ("equal Gaussians", 16, 500, 1000, normal(16), normal(16), 0.0),
        ("equal Laplace laws", 3, 400, 700, laplace(3), laplace(3), 0.0),
        ("Gaussians shifted by 0.1", 2, 400, 400, normal(2, 0.1), normal(2), 0.01),
        ("Gaussians stretched by 1.5", 2, 400, 400, normal(2, 0.0, 1.5), normal(2), 0.25),
        ("Gaussians shifted by 0.3", 16, 400, 800, normal(16, 0.3), normal(16), 0.09),
        ("exponential and Gaussian", 3, 400, 400, exponential(3), normal(3), None),
    ):
        targets = {} if true is None else {debiased: true}
        yield Setting("sliced_wasserstein", law, d, n, m, 400, sides(gen, ref, n, m), targets)


def monge() -> Iterator[Setting]:
    for law, d, n, gen, ref, true in (
        ("equal Gaussians", 16, 200, normal(16), normal(16), 0.0),
        ("Gaussians stretched by 1.5", 16, 200, normal(16, 0.0, 1.5), normal(16), 3 * 16 * 0.25),
        ("exponential and Gaussian", 4, 200, exponential(4), normal(4), None),
    ):
        yield Setting("mind", law, d, n, n, 200, sides(gen, ref, n, n), {} if true is None else {"mind_debiased": true})


def assigned() -> Iterator[Setting]:
    for law, d, n, gen, ref in (
        ("equal Gaussians", 2, 200, normal(2), normal(2)),
        ("equal Gaussians", 16, 200, normal(16), normal(16)),
        ("Gaussians shifted by 0.3", 2, 100, normal(2, 0.3), normal(2)),
        ("Gaussians stretched by 2", 2, 200, normal(2, 0.0, 2.0), normal(2)),
        ("exponential and Gaussian", 3, 200, exponential(3), normal(3)),
    ):
        yield Setting("wasserstein2", law, d, n, n, 400, sides(gen, ref, n, n), {}, {"baseline": False})


def gaussian_log(x: np.ndarray, mean: float, scale: float) -> np.ndarray:
    found: np.ndarray = -(((x - mean) / scale) ** 2).sum(axis=1) / 2 - x.shape[1] * (math.log(scale) + math.log(2 * math.pi) / 2)
    return found


def forward() -> Iterator[Setting]:
    for name, d, n, mean, scale in (
        ("the law itself", 2, 100, 0.0, 1.0),
        ("the law shifted by 1", 2, 200, 1.0, 1.0),
        ("half the law's width", 2, 200, 0.0, 0.5),
        ("twice the law's width", 8, 500, 0.0, 2.0),
    ):
        law = Law("normal", d, lambda x: gaussian_log(x, 0.0, 1.0), d / 2 * math.log(2 * math.pi * math.e))
        true = d * (math.log(scale) + (1 + mean**2) / (2 * scale**2) - 0.5)

        def draw(
            rng: np.random.Generator, law: Law = law, d: int = d, n: int = n, mean: float = mean, scale: float = scale
        ) -> Mapping[str, Any]:
            return {"ref": law, "test": LogLikelihood(gaussian_log(rng.standard_normal((n, d)), mean, scale), d)}

        yield Setting("kl_forward", name, d, n, 0, 1000, draw, {"kl_forward": true})


def mixture(d: int, modes: int, spread: float, sigma: float, shift: float = 0.0) -> tuple[Draw, Callable[[np.ndarray], np.ndarray]]:
    """Sampler and log density of an equal-weight mixture whose centres do not depend on sigma."""
    centres = np.random.default_rng(5).standard_normal((modes, d)) * spread + shift

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        found: np.ndarray = centres[rng.integers(0, modes, n)] + sigma * rng.standard_normal((n, d))
        return found

    def log_density(x: np.ndarray) -> np.ndarray:
        squares = (x**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * x @ centres.T
        top = squares.min(axis=1, keepdims=True)
        total: np.ndarray = np.log(np.exp((top - squares) / (2 * sigma**2)).sum(axis=1)) - top[:, 0] / (2 * sigma**2)
        return total - math.log(modes) - d / 2 * math.log(2 * math.pi * sigma**2)

    return draw, log_density


def reverse() -> Iterator[Setting]:
    for name, d, n, model, data in (
        ("mixture of 8, equal", 2, 200, (8, 4, 1.0), (8, 4, 1.0)),
        ("mixture of 8, modes 1.3 as wide", 2, 400, (8, 4, 1.3), (8, 4, 1.0)),
        ("mixture of 8, modes 0.7 as wide", 2, 400, (8, 4, 0.7), (8, 4, 1.0)),
        ("mixture of 8, shifted by half a width", 2, 400, (8, 4, 1.0, 0.5), (8, 4, 1.0)),
        ("one Gaussian over a mixture of 8 narrow ones", 2, 400, (1, 0, 4.0), (8, 4, 0.5)),
        ("mixture of 8, equal", 5, 300, (8, 4, 1.0), (8, 4, 1.0)),
    ):
        (draw, log_q), (_, log_p) = mixture(d, *model), mixture(d, *data)
        x = draw(np.random.default_rng(0), 400_000)
        true = float((log_q(x) - log_p(x)).mean())
        law = Law("mixture", d, log_p, 0.0)

        def rows(rng: np.random.Generator, draw: Draw = draw, law: Law = law, n: int = n) -> Mapping[str, Any]:
            return {"ref": law, "gen": Features(draw(rng, n))}

        yield Setting("kl_reverse", name, d, n, 0, 200, rows, {"kl_reverse": true})


def settings() -> Iterator[Setting]:
    """Of all four metrics."""
    for group in (sliced, monge, assigned, forward, reverse):
        yield from group()
