"""Settings of the two-sample tests: c2st, nn_two_sample, mmd, cmmd."""

from collections.abc import Callable, Iterator

import numpy as np
from simulate import Setting

from genbench.statistics import Features

Rows = Callable[[np.random.Generator, int], np.ndarray]


def normal(d: int, shift: float = 0.0, scale: float = 1.0) -> Rows:
    """Gaussian rows."""
    return lambda rng, n: scale * rng.standard_normal((n, d)) + shift


def student(d: int, shift: float = 0.0) -> Rows:
    """Student's t with 3 degrees of freedom, one radius for all coordinates."""
    return lambda rng, n: rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(3, (n, 1)) / 3) + shift


def exponential(d: int, scale: float = 1.0) -> Rows:
    """Skewed rows."""
    return lambda rng, n: scale * rng.standard_exponential((n, d))


def modes(d: int, count: int) -> Rows:
    """The first `count` of ten Gaussian modes."""
    centres = 2 * np.random.default_rng(5).standard_normal((10, d))
    return lambda rng, n: centres[rng.integers(0, count, n)] + 0.7 * rng.standard_normal((n, d))


def grid(d: int, skew: float) -> Rows:
    """Vectors of 0, 1, 2: many copies and ties."""
    return lambda rng, n: rng.choice(3, (n, d), p=[1 / 3 - skew, 1 / 3, 1 / 3 + skew]).astype(np.float64)


def embeddings(d: int, shift: float) -> Rows:
    """Rows around one direction, as a network's embeddings are."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5
        x[:, 0] += 2
        x[:, 1] += shift
        return x

    return draw


def setting(metric: str, law: str, gen: Rows, ref: Rows, n: int, m: int, count: int, **targets: float) -> Setting:
    """A pair of laws."""
    d = gen(np.random.default_rng(0), 1).shape[1]
    return Setting(metric, law, d, n, m, count, lambda rng: {"gen": Features(gen(rng, n)), "ref": Features(ref(rng, m))}, targets)


def settings() -> Iterator[Setting]:
    """Equal, shifted, scaled, skewed, heavy-tailed and discrete laws."""
    for n, count in ((50, 400), (300, 200)):
        yield setting("c2st", "equal Gaussians", normal(4), normal(4), n, n, count, c2st=0.5)
        yield setting("c2st", "scale 1.3", normal(4, scale=1.3), normal(4), n, n, count)
    yield setting("c2st", "equal Gaussians", normal(32), normal(32), 200, 200, 200, c2st=0.5)
    yield setting("c2st", "shift 0.5", normal(32, 0.5), normal(32), 200, 200, 200)
    yield setting("c2st", "equal Student t(3)", student(8), student(8), 300, 300, 200, c2st=0.5)
    yield setting("c2st", "a mode of ten dropped", modes(8, 9), modes(8, 10), 400, 400, 200)

    for n, count in ((50, 1000), (300, 500)):
        equal = (n - 1) / (2 * n - 1)
        half = {"nn_accuracy": equal, "nn_accuracy_real": equal, "nn_accuracy_gen": equal}
        yield setting("nn_two_sample", "equal Gaussians", normal(2), normal(2), n, n, count, **half)
        yield setting("nn_two_sample", "equal Gaussians", normal(64), normal(64), n, n, count, **half)
        yield setting("nn_two_sample", "shift 1", normal(2, 1.0), normal(2), n, n, count)
        yield setting("nn_two_sample", "scale 0.8", normal(16, scale=0.8), normal(16), n, n, count)
        yield setting("nn_two_sample", "exponentials, scale 1.2", exponential(8, 1.2), exponential(8), n, n, count)
        yield setting("nn_two_sample", "a mode of ten dropped", modes(8, 9), modes(8, 10), n, n, count)
        yield setting("nn_two_sample", "equal grids", grid(3, 0.0), grid(3, 0.0), n, n, count, **half)
        yield setting("nn_two_sample", "skewed grid", grid(3, 0.15), grid(3, 0.0), n, n, count)

    for n, m, count in ((50, 50, 600), (100, 150, 600)):
        yield setting("mmd", "equal Gaussians", normal(1), normal(1), n, m, count, mmd=0.0)
        yield setting("mmd", "equal Gaussians", normal(32), normal(32), n, m, count, mmd=0.0)
        yield setting("mmd", "equal Student t(3)", student(4), student(4), n, m, count, mmd=0.0)
        yield setting("mmd", "equal exponentials", exponential(2), exponential(2), n, m, count, mmd=0.0)
        yield setting("mmd", "shift 0.2", normal(2, 0.2), normal(2), n, m, count)
        yield setting("mmd", "shift 0.3", normal(8, 0.3), normal(8), n, m, count)
        yield setting("mmd", "shift 1.5", normal(2, 1.5), normal(2), n, m, count)
        yield setting("mmd", "scale 1.3", normal(8, scale=1.3), normal(8), n, m, count)
    yield setting("mmd", "shift 0.3", normal(8, 0.3), normal(8), 500, 1000, 200)

    for n, m, count in ((50, 50, 500), (300, 500, 300)):
        yield setting("cmmd", "equal embeddings", embeddings(32, 0.0), embeddings(32, 0.0), n, m, count, cmmd_debiased=0.0)
        yield setting("cmmd", "shift 0.2", embeddings(32, 0.2), embeddings(32, 0.0), n, m, count)
        yield setting("cmmd", "shift 1", embeddings(32, 1.0), embeddings(32, 0.0), n, m, count)
        yield setting("cmmd", "equal Gaussians", normal(64), normal(64), n, m, count, cmmd_debiased=0.0)
        yield setting("cmmd", "exponentials against Gaussians", exponential(8), normal(8, 1.0), n, m, count)
