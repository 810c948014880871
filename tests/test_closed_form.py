"""Known answers: closed forms, and brute force on small samples."""

import math

import numpy as np
import pytest

from genbench import registry
from genbench.numerics import Z95, cubic_moments, cubic_sums, frechet, frechet_spread, polynomial_sums, square_interval, student95
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


# -- intervals, against a NumPy re-implementation of their formulas ------------------------------------------------------------


def normal(seed: int, n: int, d: int) -> np.ndarray:
    """Rows of their own seed: the tests below do not depend on the order in which tests run."""
    return np.random.default_rng(seed).normal(size=(n, d))


def symmetric_root(s: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def brute_frechet(x: np.ndarray, mu: np.ndarray, cov: np.ndarray) -> float:
    own = np.atleast_2d(np.cov(x, rowvar=False))
    s = np.linalg.svd(symmetric_root(own) @ symmetric_root(cov), compute_uv=False).sum()
    return float(((x.mean(0) - mu) ** 2).sum() + np.trace(own) + np.trace(cov) - 2 * s)


def brute_spread(x: np.ndarray, y: np.ndarray, fixed: bool) -> tuple[float, float, float]:
    """Bias, v1 and v2 with symmetric roots and one SVD (the project's prototype `fd_ci`)."""
    n, m, s1, s2 = len(x), len(y), np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    r1, r2, delta = symmetric_root(s1), symmetric_root(s2), x.mean(0) - y.mean(0)
    p, s, qt = np.linalg.svd(r1 @ r2)
    c = s[:, None] * s[None] / (s[:, None] + s[None])

    def side(z: np.ndarray, root: np.ndarray, basis: np.ndarray, sign: int) -> tuple[float, np.ndarray]:
        z = z - z.mean(0)
        w2 = (z @ root @ basis / s) ** 2
        influence = sign * 2 * (z @ delta) + (z**2).sum(1) - w2 @ s
        return influence.var(ddof=1), w2.T @ w2 / len(z) - np.eye(len(s))

    var_x, vx = side(x, r2, qt.T, 1)
    bias, v1, v, cov = (np.trace(s1) + 0.5 * (vx * c).sum()) / n, var_x / n, vx / n, s1 / n
    if not fixed:
        var_y, vy = side(y, r1, p, -1)
        bias += (np.trace(s2) + 0.5 * (vy * c).sum()) / m
        v1, v, cov = v1 + var_y / m, v + vy / m, cov + s2 / m
    q = (c * v) ** 2
    return bias, v1, q.sum() - 0.5 * np.trace(q) + 2 * (cov**2).sum()


def brute_jackknife(x: np.ndarray, y: np.ndarray, blocks: int, fixed: bool) -> tuple[float, float]:
    """Point and variance from rows that are really deleted."""

    def distance(keep_x: np.ndarray, keep_y: np.ndarray) -> float:
        y_kept = y[keep_y]
        return brute_frechet(x[keep_x], y_kept.mean(0), np.cov(y_kept, rowvar=False))

    ix, iy = np.arange(len(x)) % blocks, np.arange(len(y)) % blocks
    full = distance(ix >= 0, iy >= 0)
    left = np.array([distance(ix != b, (iy >= 0) if fixed else (iy != b)) for b in range(blocks)])
    return full - (blocks - 1) * (left.mean() - full), (blocks - 1) / blocks * ((left - left.mean()) ** 2).sum()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("n", "m", "d", "shift"), [(120, 150, 20, 0.3), (60, 80, 10, 0.0), (900, 700, 12, 0.2)])
def test_fid_and_its_interval_by_the_formulas(n: int, m: int, d: int, shift: float, fixed: bool) -> None:
    x, y = 1.3 * normal(21, n, d) + shift, np.random.default_rng(22).exponential(size=(m, d))
    ref = Moments(None, y.mean(0), np.cov(y, rowvar=False)) if fixed else Features(y)
    raw, debiased = fid(gen=Features(x), ref=ref).values()
    bias, v1, v2 = brute_spread(x, y, fixed)
    assert raw.value == pytest.approx(brute_frechet(x, y.mean(0), np.cov(y, rowvar=False)), rel=1e-8)
    spread = frechet_spread(Features(x), ref, Moments.of(x), ref if fixed else Moments.of(y))
    assert (spread.bias, spread.v1, spread.v2) == pytest.approx((bias, v1, v2), rel=1e-6)
    smallest = n if fixed else min(n, m)  # a fixed reference has no number of rows
    fine = smallest >= 10 * d
    assert debiased.interval == ("jackknife-20" if fine else "influence functions")
    (five, _), (twenty, variance) = (brute_jackknife(x, y, blocks, fixed) for blocks in (5, 20))
    assert debiased.value == pytest.approx(twenty if fine else five, rel=1e-8)
    if fine:
        half = half_raw = student95(19) * math.sqrt(max(variance - v2, v2))
        shift, shift_raw = (half**2 / (4 * max(e.value, half)) for e in (debiased, raw))
    else:
        half, half_raw = Z95 * math.sqrt(max(v1, v2)), Z95 * math.sqrt((max(v1 - v2, v2) + variance) / 2)
        shift = shift_raw = 0.0
    assert (debiased.low, debiased.high) == pytest.approx((debiased.value - half + shift, debiased.value + half + shift), rel=1e-6)
    assert raw.high == pytest.approx(raw.value + half_raw + shift_raw, rel=1e-6)
    assert raw.low == pytest.approx(max(raw.value - half_raw + shift_raw, 0), rel=1e-6)


@pytest.mark.parametrize("d", [1, 4, 50])
def test_fid_of_exact_diagonal_moments(d: int) -> None:
    rng = np.random.default_rng(d)
    a, b, mu, nu = rng.uniform(0.1, 4, d), rng.uniform(0.1, 4, d), rng.normal(size=d), rng.normal(size=d)
    exact = float(((mu - nu) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    found = fid(gen=Moments(None, mu, np.diag(a)), ref=Moments(None, nu, np.diag(b)))
    assert found["fid"].value == pytest.approx(exact, rel=1e-10)
    assert found["fid"].low is None
    assert "moments only" in found["fid_debiased"].reason


@pytest.mark.parametrize("constant_gen", [0, 1, 3])
@pytest.mark.parametrize("constant_ref", [0, 2])
def test_fid_with_constant_features(constant_gen: int, constant_ref: int) -> None:
    """Features that do not vary on one side or both, at different values."""
    x, y = normal(31, 60, 5), normal(32, 50, 5) + 0.4
    x[:, :constant_gen], y[:, :constant_ref] = 0.1, 0.7
    exact = brute_frechet(x, y.mean(0), np.cov(y, rowvar=False))
    assert fid(gen=Features(x), ref=Features(y))["fid"].value == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 50, 20), (41, 33, 2), (300, 260, 4)])
def test_kid_and_its_interval_by_kernel_matrices(n: int, m: int, d: int) -> None:
    """v1 and v2 of the project's prototype `kid_ci`; the last two sizes take the path that is linear in n."""
    x, y = normal(41, n, d), 1.2 * normal(42, m, d) + 0.2

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / d + 1) ** 3

    kx, ky, kxy = kernel(x, x), kernel(y, y), kernel(x, y)
    np.fill_diagonal(kx, 0)
    np.fill_diagonal(ky, 0)
    rx, ry, cx, cy = kx.sum(1) / (n - 1), ky.sum(1) / (m - 1), kxy.mean(1), kxy.mean(0)
    value = rx.mean() + ry.mean() - 2 * kxy.mean()

    def degenerate(k: np.ndarray, r: np.ndarray) -> float:
        t = k - r[:, None] - r[None] + r.mean()
        np.fill_diagonal(t, 0)
        return (t**2).sum() / (len(k) * (len(k) - 1))

    across = ((kxy - cx[:, None] - cy[None] + kxy.mean()) ** 2).mean()
    parts = 4 * (rx - cx).var(ddof=1) / n, 4 * (ry - cy).var(ddof=1) / m
    v1, v2 = sum(parts), 2 * degenerate(kx, rx) / (n * (n - 1)) + 2 * degenerate(ky, ry) / (m * (m - 1)) + 4 * across / (n * m)

    def kurtosis(h: np.ndarray) -> float:
        return ((h - h.mean()) ** 4).mean() / h.var() ** 2

    noise = parts[0] ** 2 * (kurtosis(rx - cx) - 1) / n + parts[1] ** 2 * (kurtosis(ry - cy) - 1) / m
    own = [((z * z).sum(axis=1) / d + 1) ** 3 for z in (x, y)]
    lift = (own[0].mean() - rx.mean()) / n + (own[1].mean() - ry.mean()) / m
    found = kid(gen=Features(x), ref=Features(y))["kid"]
    assert found.value == pytest.approx(value, rel=1e-9)
    ends = square_interval(value, lift, v1, v2, student95(max(2 * v1**2 / noise, 4.0)))
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)


@pytest.mark.parametrize("d", [1, 3, 9])
def test_kid_in_linear_time_equals_kid_over_pairs(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    x, y = Features(normal(43, 90, d)), Features(normal(44, 70, d) + 0.5)
    linear = kid(gen=x, ref=y)["kid"]
    module = sys.modules["genbench.metrics.kid"]
    monkeypatch.setattr(module, "cubic_moments", None)  # not to be called: the dimension below is too large for the linear path
    pad = np.zeros((90, 40))
    scale = math.sqrt((d + 40) / d)  # k depends on x·y/d alone
    pairs = kid(gen=Features(scale * np.hstack([x.x, pad])), ref=Features(scale * np.hstack([y.x, pad[:70]])))["kid"]
    assert (linear.value, linear.low, linear.high) == pytest.approx((pairs.value, pairs.low, pairs.high), rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(80, 3), (200, 10)])
def test_the_score_and_its_interval_by_the_formulas(n: int, k: int) -> None:
    """The project's prototype `is_ci`, with the second-order variance."""
    p = np.random.default_rng(n).dirichlet(np.full(k, 0.3), n)
    q = p.mean(0)
    kl = (p * (np.log(np.maximum(p, 1e-300)) - np.log(q))).sum(1)
    point = kl.mean() + (p.var(0, ddof=1) / q).sum() / (2 * n)
    v2 = (np.cov(p, rowvar=False) ** 2 / np.outer(q, q)).sum() / (2 * n**2)
    half = Z95 * math.sqrt(kl.var(ddof=1) / n + v2)
    raw, debiased = score(gen=Probabilities(p)).values()
    assert raw.value == pytest.approx(math.exp(kl.mean()), rel=1e-9)
    assert (raw.low, raw.high) == pytest.approx((max(math.exp(kl.mean() - half), 1), math.exp(kl.mean() + half)), rel=1e-9)
    expected = math.exp(point), math.exp(point - half), math.exp(point + half)
    assert (debiased.value, debiased.low, debiased.high) == pytest.approx(expected, rel=1e-9)
