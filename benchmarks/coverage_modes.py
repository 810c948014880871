"""Settings of the coverage simulation for modes, histograms and diversity.

Targets are population values in closed form where the quantity has them: the numbers of modes and classes, the divergences of two laws;
for `ndb`, `ndb_js` of unequal laws, `stacked_modes`, `stacked_kl` and `vendi` the mean over the replications.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from simulate import Setting

from genbench.statistics import Features, Law, Probabilities

Draw = Callable[[np.random.Generator, int], np.ndarray]


def settings() -> Iterator[Setting]:
    yield from _modes()
    yield from _classes()
    yield from _stacked()
    yield from _ndb()
    yield from _vendi()
    yield from _rke()


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _tilted(k: int, power: float) -> np.ndarray:
    p = np.arange(1, k + 1) ** -power
    return p / p.sum()


def _modes() -> Iterator[Setting]:
    side = np.arange(5) * 2.0
    centres = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    law = Law("grid", 2, lambda x: np.zeros(len(x)), 0.0, centres, 0.05)
    even = np.full(25, 0.04)
    half = np.append(_tilted(12, 0.5), np.zeros(13))
    rare = np.where(np.arange(25) < 20, 0.9 / 20, 0.1 / 5)
    two = np.where(np.arange(25) < 2, [0.998, 0.002] + [0.0] * 23, 0.0)
    cases = (
        ("even modes", even, 1.0, 2_500),
        ("even modes", even, 1.0, 400),
        ("even modes, twice the width", even, 2.0, 1_000),
        ("12 of 25 modes, uneven", half, 1.0, 1_000),
        ("5 of 25 modes at half weight", rare, 1.0, 2_000),
        ("one mode and a trace of a second", two, 1.0, 1_000),
        ("weights k^-0.5", _tilted(25, 0.5), 1.0, 600),
    )
    for name, p, width, n in cases:

        def draw(rng: np.random.Generator, p: np.ndarray = p, width: float = width, n: int = n) -> dict[str, object]:
            at = rng.choice(25, n, p=p)
            return {"ref": law, "gen": Features(centres[at] + 0.05 * width * rng.standard_normal((n, 2)))}

        targets = {
            "modes": float((p >= 1 / 125).sum()),
            "mode_kl": _kl(p, even),
            "high_quality": 1 - math.exp(-4.5 / width**2),
        }
        yield Setting("modes", name, 25, n, 0, 400, draw, targets)


def _one_hot(at: np.ndarray, k: int) -> Probabilities:
    return Probabilities(np.eye(k)[at])


def _classes() -> Iterator[Setting]:
    ten = np.full(10, 0.1)
    dropped = np.where(np.arange(10) < 9, 1 / 9, 0.0)
    digits = np.array([0.099, 0.112, 0.099, 0.102, 0.097, 0.09, 0.099, 0.104, 0.098, 0.1])
    cases = (
        ("equal, 10 classes", ten, ten, 1_000, 1_000),
        ("equal, 3 classes", np.array([0.7, 0.2, 0.1]), np.array([0.7, 0.2, 0.1]), 300, 500),
        ("equal, weights 1/k", _tilted(30, 1.0), _tilted(30, 1.0), 500, 2_000),
        ("equal digits", digits, digits, 10_000, 60_000),
        ("one class dropped", dropped, ten, 2_000, 2_000),
        ("weights k^-0.3 against even", _tilted(10, 0.3), ten, 1_000, 4_000),
        ("weights 1/k against even", _tilted(20, 1.0), np.full(20, 0.05), 3_000, 10_000),
    )
    for name, p, q, n, m in cases:

        def draw(rng: np.random.Generator, p: np.ndarray = p, q: np.ndarray = q, n: int = n, m: int = m) -> dict[str, object]:
            k = len(p)
            return {"gen": _one_hot(rng.choice(k, n, p=p), k), "ref": _one_hot(rng.choice(k, m, p=q), k)}

        targets = {"class_kl": _kl(p, q), "missing_classes": float((p < q / 5).sum())}
        yield Setting("class_histogram", name, len(p), n, m, 400, draw, targets)


def _stacked() -> Iterator[Setting]:
    digits = np.array([0.099, 0.112, 0.099, 0.102, 0.097, 0.09, 0.099, 0.104, 0.098, 0.1])
    law = np.einsum("a,b,c->abc", digits, digits, digits).ravel()
    tail = law * np.exp(np.random.default_rng(0).normal(size=1000) * 2)
    cases = (
        ("the reference's law", law, 6_000, 15_000),
        ("the reference's law, few", law, 1_000, 5_000),
        ("300 modes", np.where(np.arange(1000) < 300, law, 0.0), 6_000, 15_000),
        ("log-normal weights", tail, 6_000, 15_000),
    )
    eye = np.eye(1000)
    for name, weights, n, m in cases:
        p = weights / weights.sum()

        def draw(rng: np.random.Generator, p: np.ndarray = p, n: int = n, m: int = m) -> dict[str, object]:
            return {"gen": Probabilities(eye[rng.choice(1000, n, p=p)]), "ref": Probabilities(eye[rng.choice(1000, m, p=law)])}

        targets = {"stacked_kl_debiased": _kl(p, law)}
        yield Setting("stacked_modes", name, 1000, n, m, 200, draw, targets)


def _mixture(rng: np.random.Generator, n: int, d: int, weights: np.ndarray) -> np.ndarray:
    centres = 4 * np.random.default_rng(1).standard_normal((len(weights), d)) / math.sqrt(d)
    return centres[rng.choice(len(weights), n, p=weights)] + rng.standard_normal((n, d)) / math.sqrt(d)


def _ndb() -> Iterator[Setting]:
    even, nine = np.full(10, 0.1), np.where(np.arange(10) < 9, 1 / 9, 0.0)
    twenty = np.full(20, 0.05)
    third = np.where(np.arange(20) < 5, 0.025, np.where(np.arange(20) < 10, 0.075, 0.05))
    cases: tuple[tuple[str, Draw, Draw, int, int, int], ...] = (
        ("equal Gaussians", lambda r, n: r.standard_normal((n, 8)), lambda r, n: r.standard_normal((n, 8)), 8, 2_000, 4_000),
        ("equal exponentials", lambda r, n: r.standard_exponential((n, 4)), lambda r, n: r.standard_exponential((n, 4)), 4, 500, 1_000),
        ("shift of 0.3", lambda r, n: r.standard_normal((n, 4)) + 0.15, lambda r, n: r.standard_normal((n, 4)), 4, 2_000, 4_000),
        ("one of ten modes dropped", lambda r, n: _mixture(r, n, 8, nine), lambda r, n: _mixture(r, n, 8, even), 8, 2_000, 4_000),
        ("uneven modes", lambda r, n: _mixture(r, n, 8, _tilted(10, 1.0)), lambda r, n: _mixture(r, n, 8, even), 8, 1_000, 3_000),
        ("10 of 20 modes at 0.5 or 1.5", lambda r, n: _mixture(r, n, 8, third), lambda r, n: _mixture(r, n, 8, twenty), 8, 3_000, 9_000),
    )
    for name, gen, ref, d, n, m in cases:

        def draw(rng: np.random.Generator, gen: Draw = gen, ref: Draw = ref, n: int = n, m: int = m) -> dict[str, object]:
            return {"gen": Features(gen(rng, n)), "ref": Features(ref(rng, m))}

        targets = {"ndb_js": 0.0} if name.startswith("equal") else {}
        yield Setting("ndb", name, d, n, m, 300, draw, targets)


def _vendi() -> Iterator[Setting]:
    scales = np.arange(1, 33) ** -0.5
    cases: tuple[tuple[str, Draw, int, int, float], ...] = (
        ("isotropic Gaussians", lambda r, n: r.standard_normal((n, 16)), 16, 500, 1.0),
        ("Gaussians, variance 1/k", lambda r, n: scales * r.standard_normal((n, 32)), 32, 300, 1.0),
        ("after a ReLU", lambda r, n: np.maximum(scales * r.standard_normal((n, 32)), 1e-9), 32, 1_000, 1.0),
        ("fewer rows than features", lambda r, n: r.standard_normal((n, 200)) * np.arange(1, 201) ** -0.5, 200, 100, 1.0),
        ("ten modes", lambda r, n: _mixture(r, n, 32, _tilted(10, 1.0)), 32, 400, 1.0),
        ("ten modes, q = 2", lambda r, n: _mixture(r, n, 32, _tilted(10, 1.0)), 32, 400, 2.0),
        ("ten modes, q = 0.5", lambda r, n: _mixture(r, n, 32, _tilted(10, 1.0)), 32, 400, 0.5),
        ("ten modes, q = inf", lambda r, n: _mixture(r, n, 32, _tilted(10, 1.0)), 32, 400, math.inf),
        ("exponentials", lambda r, n: r.standard_exponential((n, 8)) ** 2, 8, 200, 1.0),
    )
    for name, law, d, n, q in cases:

        def draw(rng: np.random.Generator, law: Draw = law, n: int = n) -> dict[str, object]:
            return {"gen": Features(law(rng, n))}

        yield Setting("vendi", name, d, n, 0, 400, draw, options={"q": q})


def _rke() -> Iterator[Setting]:
    centres = 20.0 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    cases = (
        ("8 even modes", np.full(8, 1 / 8), 0.3, 1.0, 500),
        ("8 uneven modes", _tilted(8, 1.0), 0.3, 1.0, 500),
        ("one Gaussian", np.array([1.0] + [0.0] * 7), 1.0, 1.0, 300),
        ("8 even modes, narrow kernel", np.full(8, 1 / 8), 1.0, 0.2, 400),
        ("8 uneven modes, few", _tilted(8, 1.0), 0.3, 1.0, 60),
    )
    for name, p, width, sigma, n in cases:

        def draw(rng: np.random.Generator, p: np.ndarray = p, width: float = width, n: int = n) -> dict[str, object]:
            x = centres[rng.choice(8, n, p=p)] + width * rng.standard_normal((n, 2))
            return {"gen": Features(x), "ref": Features(centres)}

        def reach(width: float = width, sigma: float = sigma) -> float:
            """E K² of two samples of one mode: (1 + 4 width²/σ²)^(−d/2)."""
            return 1 / (1 + 4 * width**2 / sigma**2)

        yield Setting("rke", name, 2, n, 8, 400, draw, {"rke": 1 / (float(p @ p) * reach())}, {"bandwidth": sigma})
    d, n = 32, 400
    mixed = _tilted(10, 1.0)

    def high(rng: np.random.Generator) -> dict[str, object]:
        fixed = np.random.default_rng(5)
        return {"gen": Features(_mixture(rng, n, d, mixed)), "ref": Features(_mixture(fixed, 1_000, d, np.full(10, 0.1)))}

    yield Setting("rke", "ten modes in 32 dimensions, σ by rule", d, n, 1_000, 300, high)
