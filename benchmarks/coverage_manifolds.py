"""Settings of the coverage simulation: prd, alpha_precision_beta_recall, clipped, cas.

The target of all is the mean over the replications: their values are biased by the size of the sample, or conditional on nothing.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from simulate import Setting

from genbench.statistics import Features

Rows = Callable[[np.random.Generator, int], np.ndarray]


def pair(gen: Rows, ref: Rows, n: int, m: int) -> Callable[[np.random.Generator], Mapping[str, Features]]:
    """Draws both sides."""
    return lambda r: {"gen": Features(gen(r, n).astype(np.float32)), "ref": Features(ref(r, m).astype(np.float32))}


def gaussian(d: int, shift: float = 0.0, stretch: float = 1.0) -> Rows:
    """Variances that fall as i^(-1/2)."""
    s = np.arange(1, d + 1) ** -0.25
    return lambda r, n: shift / np.sqrt(d) + stretch * s * r.standard_normal((n, d))


def exponential(d: int, shift: float = 0.0) -> Rows:
    """Skewed, like features after a ReLU."""
    s = np.arange(1, d + 1) ** -0.25
    return lambda r, n: shift / np.sqrt(d) + s * r.standard_exponential((n, d))


def student(d: int, shift: float = 0.0) -> Rows:
    """Student with 5 degrees of freedom: one radius shared by all coordinates."""
    return lambda r, n: shift / np.sqrt(d) + r.standard_normal((n, d)) / np.sqrt(r.chisquare(5, (n, 1)) / 5)


def mixture(d: int, modes: int, of: int) -> Rows:
    """The first `modes` of `of` equal Gaussians on a line."""

    def draw(r: np.random.Generator, n: int) -> np.ndarray:
        x = r.standard_normal((n, d))
        x[:, 0] += 8 * r.integers(0, modes, n)
        return x

    assert modes <= of
    return draw


def bad(d: int, share: float) -> Rows:
    """A share of rows far away."""

    def draw(r: np.random.Generator, n: int) -> np.ndarray:
        return gaussian(d)(r, n) + 50.0 * (r.random((n, 1)) < share)

    return draw


def classes(d: int, count: int, distance: float, noise: float = 1.0) -> Callable[[np.random.Generator, int], Features]:
    """Gaussian classes at seeded places, with their labels."""
    centres = np.random.default_rng(7).normal(size=(count, d)) * distance

    def draw(r: np.random.Generator, n: int) -> Features:
        y = r.integers(0, count, n)
        return Features((centres[y] + noise * r.standard_normal((n, d))).astype(np.float32), labels=y)

    return draw


def labelled(
    gen: Callable[[np.random.Generator, int], Features], test: Callable[[np.random.Generator, int], Features], n: int, m: int
) -> Callable[[np.random.Generator], Mapping[str, Features]]:
    """Draws both sides."""
    return lambda r: {"gen": gen(r, n), "test": test(r, m)}


def settings() -> Iterator[Setting]:
    """Three to seven laws per metric."""
    laws: tuple[tuple[str, int, int, Rows, Rows], ...] = (
        ("equal Gaussians", 2, 200, gaussian(2), gaussian(2)),
        ("equal Gaussians", 16, 500, gaussian(16), gaussian(16)),
        ("Gaussians apart", 16, 300, gaussian(16, 1.0, 1.1), gaussian(16)),
        ("nearly equal Gaussians", 4, 400, gaussian(4, 0.1, 1.03), gaussian(4)),
        ("exponentials apart", 8, 300, exponential(8, 0.5), exponential(8)),
        ("Student t(5) apart", 4, 100, student(4, 0.5), student(4)),
        ("3 of 5 modes", 2, 500, mixture(2, 3, 5), mixture(2, 5, 5)),
        ("3 in 10 far away", 8, 400, bad(8, 0.3), gaussian(8)),
    )
    for metric in ("prd", "alpha_precision_beta_recall", "clipped"):
        for law, d, n, gen, ref in laws:
            yield Setting(metric, law, d, n, n, 200 if metric == "prd" else 400, pair(gen, ref, n, n))
    yield Setting("alpha_precision_beta_recall", "Gaussians apart", 4, 200, 800, 400, pair(gaussian(4, 1.0), gaussian(4), 200, 800))
    yield Setting("clipped", "equal Gaussians", 64, 1000, 1000, 200, pair(gaussian(64), gaussian(64), 1000, 1000))
    for law, d, count, distance, noise, n, m in (
        ("10 classes apart", 8, 10, 1.0, 1.0, 500, 300),
        ("4 classes that overlap", 2, 4, 0.7, 1.0, 100, 400),
        ("few generated samples", 16, 5, 0.4, 1.0, 60, 1000),
        ("classes well apart", 8, 5, 2.0, 1.0, 200, 100),
        ("blurred classes", 16, 10, 0.5, 2.0, 300, 1000),
    ):
        yield Setting("cas", law, d, n, m, 200, labelled(classes(d, count, distance, noise), classes(d, count, distance), n, m))
