"""Settings of the likelihood metrics: values of log p from laws whose mean is known; for Parzen windows, windows that are kept."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import e, exp, log, pi
from typing import Any

import numpy as np
from simulate import Setting

from genbench.statistics import Features, LogLikelihood

Values = Callable[[np.random.Generator, int], np.ndarray]


def gaussian(rng: np.random.Generator, n: int, d: int, scale: float = 1.0) -> np.ndarray:
    """log p of N(0, I) at draws of N(0, scale² I)."""
    return -0.5 * scale**2 * rng.chisquare(d, n) - d / 2 * log(2 * pi)


def student(rng: np.random.Generator, n: int) -> np.ndarray:
    """log p of N(0, 1) at draws of Student's t with 8 degrees of freedom."""
    return -0.5 * rng.standard_t(8, n) ** 2 - 0.5 * log(2 * pi)


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    """−log p log-normal: a few samples that the model all but rules out."""
    return -rng.lognormal(0, 1, n)


def outliers(rng: np.random.Generator, n: int) -> np.ndarray:
    """3 % of the samples cost 20 nats more."""
    return rng.normal(-80, 1, n) - 20 * (rng.random(n) < 0.03)


def pixels(rng: np.random.Generator, n: int) -> np.ndarray:
    """log mass of 64 independent pixels whose probabilities share a strength per image."""
    strength = rng.beta(4, 2, (n, 1)) * 0.45 + 0.05
    return np.where(rng.random((n, 64)) < 0.9, np.log(0.5 + strength), np.log(0.5 - strength * 0.9)).sum(axis=1)


LAWS: dict[str, tuple[Values, float | None]] = {
    "Gaussian, d = 1": (partial(gaussian, d=1), -0.5 * log(2 * pi * e)),
    "Gaussian, d = 10": (partial(gaussian, d=10), -5 * log(2 * pi * e)),
    "Student t(8) under a Gaussian": (student, -0.5 * 8 / 6 - 0.5 * log(2 * pi)),
    "log-normal nats": (lognormal, -exp(0.5)),
    "3 % of outliers": (outliers, -80.6),
    "pixels of varied strength": (pixels, None),
}


def one(name: str, n: int, dims: int, measure: str, rng: np.random.Generator) -> Mapping[str, Any]:
    return {"test": LogLikelihood(LAWS[name][0](rng, n), dims, measure=measure)}


def two(gen: Values, test: Values, n: int, m: int, rng: np.random.Generator) -> Mapping[str, Any]:
    return {"gen": LogLikelihood(gen(rng, n), 2), "test": LogLikelihood(test(rng, m), 2)}


def windows(draw: Values, centres: Features, m: int, rng: np.random.Generator) -> Mapping[str, Any]:
    return {"gen": centres, "test": Features(draw(rng, m))}


def settings() -> Iterator[Setting]:
    """Every setting of this group."""
    for name, n in (
        ("Gaussian, d = 1", 30),
        ("Gaussian, d = 10", 200),
        ("Student t(8) under a Gaussian", 500),
        ("log-normal nats", 200),
        ("3 % of outliers", 500),
        ("pixels of varied strength", 100),
        ("Gaussian, d = 10", 10_000),
    ):
        mean = LAWS[name][1]
        yield Setting("nll", name, 1, n, 0, 2000, partial(one, name, n, 1, "density"), {} if mean is None else {"nll": -mean})
    for name, n, dims in (("pixels of varied strength", 200, 64), ("3 % of outliers", 500, 64), ("log-normal nats", 100, 1)):
        mean = LAWS[name][1]
        known = {} if mean is None else {"bits_per_dim": -mean / dims / log(2)}
        yield Setting("bits_per_dim", name, dims, n, 0, 2000, partial(one, name, n, dims, "mass"), known)
    for name, n, dims in (("pixels of varied strength", 100, 64), ("3 % of outliers", 500, 20), ("log-normal nats", 100, 4)):
        mean = LAWS[name][1]
        known = {"perplexity": exp(-mean / dims)} if mean is not None else {}
        yield Setting("perplexity", name, dims, n, 0, 2000, partial(one, name, n, dims, "tokens"), known)
    plain = partial(gaussian, d=2)
    for name, gen, test, n, m, gap in (
        ("equal Gaussians", plain, plain, 200, 200, 0.0),
        ("data twice as wide", plain, partial(gaussian, d=2, scale=2), 1000, 100, -3.0),
        ("data half as wide", plain, partial(gaussian, d=2, scale=0.5), 30, 500, 0.75),
        ("equal log-normal nats", lognormal, lognormal, 100, 300, 0.0),
        ("Student t(8) against a Gaussian", partial(gaussian, d=1), student, 2000, 500, -0.5 * 8 / 6 + 0.5),
    ):
        yield Setting("ll_gap", name, 2, n, m, 2000, partial(two, gen, test, n, m), {"ll_gap": gap})
    for name, draw, d, n, m, count in (
        ("windows kept, Gaussian", lambda r, n: r.normal(size=(n, 2)), 2, 200, 200, 400),
        ("windows kept, exponentials", lambda r, n: r.standard_exponential((n, 8)), 8, 500, 100, 400),
        ("windows kept, Student t(8)", lambda r, n: r.standard_t(8, (n, 32)), 32, 300, 1000, 200),
        ("windows kept, two clusters", lambda r, n: r.normal(size=(n, 3)) + 9 * (r.random((n, 1)) < 0.2), 3, 50, 40, 400),
    ):
        centres = Features(draw(np.random.default_rng(0), n))
        yield Setting("parzen_legacy", name, d, n, m, count, partial(windows, draw, centres, m))
