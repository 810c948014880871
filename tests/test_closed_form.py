"""Known answers: closed forms, and brute force on small samples."""

import math

import numpy as np
import pytest

from genbench import registry
from genbench.numerics import cubic_moments, cubic_sums, frechet, polynomial_sums
from genbench.statistics import Features, Moments, Probabilities

RNG = np.random.default_rng(11)
fid, kid, prdc, score = (registry.metric(n) for n in ("fid", "kid", "prdc", "inception_score"))


# -- Fréchet distance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_fid_of_one_feature(seed: int) -> None:
    """(μ1 − μ2)² + (σ1 − σ2)²."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(2, 3, (50, 1)), rng.normal(-1, 0.5, (70, 1))
    exact = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert fid(gen=Features(x), ref=Features(y))["fid"].value == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("d", [2, 30, 300])
def test_frechet_of_commuting_covariances(d: int) -> None:
    """Σ (sqrt a_i − sqrt b_i)² + ‖δ‖² in any common basis."""
    a, b, q = RNG.uniform(0.1, 5, d), RNG.uniform(0.1, 5, d), np.linalg.qr(RNG.normal(size=(d, d)))[0]
    delta = RNG.normal(size=d)
    exact = float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum() + delta @ delta)
    assert frechet(Moments(None, delta, q * a @ q.T), Moments(None, np.zeros(d), q * b @ q.T)) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(10, 12, 30), (10, 100, 30), (100, 10, 30), (5, 5, 200), (30, 31, 30)])
def test_frechet_of_rank_deficient_data(n: int, m: int, d: int) -> None:
    """Against the singular values of the two d × d symmetric roots."""
    x, y = RNG.normal(size=(n, d)), RNG.normal(size=(m, d))

    def root(s: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(s)
        return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T

    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    s = np.linalg.svd(root(cx) @ root(cy), compute_uv=False).sum()
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * s
    assert fid(gen=Features(x), ref=Features(y))["fid"].value == pytest.approx(exact, rel=1e-6)


def test_fid_of_gaussians_lies_in_its_interval() -> None:
    """20 seeds; more than 4 misses have a chance of 0.3 % at 95 % coverage."""
    missed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = 1.5 * rng.normal(size=(400, 10)) + 0.2, rng.normal(size=(600, 10))
        e = fid(gen=Features(x), ref=Features(y))["fid_debiased"]
        missed += not e.low <= 10 * (0.04 + 0.25) <= e.high
    assert missed <= 4


def test_a_fixed_reference_has_a_shorter_interval() -> None:
    x, y = RNG.normal(size=(300, 6)), RNG.normal(size=(300, 6)) + 0.5
    sampled, target = fid(gen=Features(x), ref=Features(y))["fid_debiased"], Moments.of(y)
    fixed = fid(gen=Features(x), ref=Moments(None, target.mean, target.cov))
    assert fixed["fid_debiased"].high - fixed["fid_debiased"].low < sampled.high - sampled.low
    assert any("target itself" in note for note in fixed["fid"].notes)


def test_too_few_samples_for_the_dimension_have_no_interval() -> None:
    found = fid(gen=Features(RNG.normal(size=(20, 30))), ref=Features(RNG.normal(size=(100, 30))))
    assert found["fid"].low is None
    assert found["fid_debiased"].low is None
    assert any("no interval" in note for note in found["fid"].notes)


# -- kernel distance -----------------------------------------------------------------------------------------------------------


def brute_kid(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 3, 1), (17, 12, 3), (15, 15, 40)])
def test_kid_by_brute_force(n: int, m: int, d: int) -> None:
    x, y = RNG.normal(size=(n, d)), RNG.normal(size=(m, d)) + 0.3
    assert kid(gen=Features(x), ref=Features(y))["kid"].value == pytest.approx(brute_kid(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(7, 9, 1), (300, 200, 5), (150, 400, 20)])
def test_sums_from_moments_equal_sums_over_pairs(n: int, m: int, d: int) -> None:
    x, y = RNG.normal(size=(n, d)), RNG.exponential(size=(m, d))
    (sums,) = cubic_sums(x, [cubic_moments(y)])
    assert np.allclose(sums, polynomial_sums(x, y, 3).rows, rtol=1e-10)


@pytest.mark.parametrize("n", [3, 1024, 1500])
def test_sums_over_tiles_equal_sums_over_the_matrix(n: int) -> None:
    x, y = RNG.normal(size=(n, 4)), RNG.normal(size=(1100, 4))
    whole = (x @ y.T / 4 + 1) ** 3
    found = polynomial_sums(x, y, 3)
    assert np.allclose(found.rows, whole.sum(1))
    assert np.allclose(found.columns, whole.sum(0))
    assert found.squares == pytest.approx((whole**2).sum())
    own = (x @ x.T / 4 + 1) ** 3
    np.fill_diagonal(own, 0)
    assert np.allclose(polynomial_sums(x, None, 3).rows, own.sum(1))


def test_kid_of_shifted_points_on_a_line() -> None:
    """Two constant samples a and b in 1-D: k(a,a) + k(b,b) − 2 k(a,b)."""
    x, y = np.full((6, 1), 1.0), np.full((5, 1), 2.0)
    assert kid(gen=Features(x), ref=Features(y))["kid"].value == pytest.approx(8 + 125 - 2 * 27)


# -- Inception score -----------------------------------------------------------------------------------------------------------


def test_the_score_of_a_known_mixture() -> None:
    """Half the rows (1, 0), half (½, ½): p̄ = (¾, ¼), IS = exp(½ log 4/3 + ½ (½ log 2/3 + ½ log 2))."""
    p = np.tile([[1.0, 0.0], [0.5, 0.5]], (50, 1))
    exact = math.exp(0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2)))
    found = score(gen=Probabilities(p))
    assert found["{extractor}_score"].value == pytest.approx(exact, rel=1e-12)
    shrink = (p.var(0, ddof=1) / p.mean(0)).sum() / 200
    assert found["{extractor}_score_debiased"].value == pytest.approx(exact * math.exp(shrink), rel=1e-3)


# -- manifolds -----------------------------------------------------------------------------------------------------------------


def brute_prdc(g: np.ndarray, r: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radii(x: np.ndarray) -> np.ndarray:
        return np.sort(distances(x, x) + np.diag(np.full(len(x), np.inf)), axis=1)[:, k - 1]

    cross = distances(r, g)
    in_ref, in_gen = cross <= radii(r)[:, None], cross <= radii(g)[None, :]
    return in_ref.any(0).mean(), in_gen.any(1).mean(), in_ref.sum(0).mean() / k, in_ref.any(1).mean()


@pytest.mark.parametrize(("n", "m", "d", "k"), [(30, 30, 2, 5), (60, 40, 10, 3), (7, 200, 1, 6), (200, 150, 64, 1)])
def test_prdc_by_brute_force(n: int, m: int, d: int, k: int) -> None:
    g, r = RNG.normal(size=(n, d)) + 0.3, RNG.normal(size=(m, d))
    found = prdc(gen=Features(g), ref=Features(r), k=k, equal=False)
    assert [e.value for e in found.values()] == pytest.approx(brute_prdc(g, r, k), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_prdc_by_brute_force_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, r = rng.integers(0, 4, (80, 2)).astype(float), rng.integers(0, 4, (80, 2)).astype(float)
    found = prdc(gen=Features(g), ref=Features(r), k=3)
    assert [e.value for e in found.values()] == pytest.approx(brute_prdc(g, r, 3), rel=1e-12)


def test_prdc_of_too_few_samples_is_undefined() -> None:
    found = prdc(gen=Features(RNG.normal(size=(5, 2))), ref=Features(RNG.normal(size=(50, 2))))
    assert all("k = 5" in e.reason for e in found.values())
