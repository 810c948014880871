"""Kernels: exact neighbours and copies, factors of any rank, influence functions, bounded memory."""

import subprocess
import sys

import numpy as np
import pytest

from genbench import numerics, registry, statistics
from genbench.numerics import (
    _congruent,
    block_moments,
    cholesky,
    cubic_moments,
    cubic_sums,
    cubic_total,
    factor,
    frechet,
    frechet_spread,
    jackknife_se,
    manifold,
    manifold_design,
    nearest,
    neighbours,
    polynomial_mmd,
    polynomial_sums,
    self_product,
    squared_differences,
    wilson,
    without,
    without_rows,
)
from genbench.statistics import Features, Moments


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def brute(x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    a = x.astype(np.float64)
    b = a if y is None else y.astype(np.float64)
    d2 = ((a[:, None] - b[None]) ** 2).sum(-1)
    if y is None:
        np.fill_diagonal(d2, np.inf)
    return d2


# -- neighbours ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(50, 70, 2, 5), (50, None, 2, 5), (90, 60, 80, 3), (90, None, 80, 1), (6, None, 80, 5)])
def test_nearest_is_exact(n: int, m: int | None, d: int, k: int, dtype: type) -> None:
    x = rng(n).normal(size=(n, d)).astype(dtype)
    y = None if m is None else rng(m + 1).normal(size=(m, d)).astype(dtype)
    distance, index = nearest(x, y, k)
    exact = brute(x, y)
    assert np.allclose(distance, np.sort(exact, axis=1)[:, :k], rtol=1e-12)
    assert np.array_equal(index, np.argsort(exact, axis=1)[:, :k])


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_are_at_distance_exactly_zero(dtype: type, offset: float) -> None:
    x = (rng().normal(size=(400, 256)) + offset).astype(dtype)
    y = np.concatenate([rng(1).normal(size=(300, 256)).astype(dtype) + dtype(offset), x[::-1]])
    distance, index = nearest(x, y, 2)
    assert (distance[:, 0] == 0).all()
    assert np.array_equal(index[:, 0], 699 - np.arange(400))
    assert (distance[:, 1] > 0).all()


def test_neighbours_are_exact_where_float32_products_cannot_tell() -> None:
    """Pairs 1e-5 apart, far from each other: the product's rounding is larger than their distance."""
    centres = 1e3 * rng().normal(size=(100, 64))
    x = np.concatenate([centres, centres + 1e-3 * rng(1).normal(size=centres.shape)]).astype(np.float32)
    distance, index = nearest(x, None, 1)
    assert np.array_equal(index[:, 0], (np.arange(200) + 100) % 200)
    assert np.allclose(distance[:, 0], brute(x, None).min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_whose_distances_differ_by_less_than_rounding(k: int) -> None:
    """60 rows around each of two points, at distances that differ by 1e-6: all but one look equally far to a float32 product."""
    centre = 10 * rng().normal(size=(2, 80))
    step = rng(1).normal(size=(120, 80))
    step *= ((1 + 1e-6 * np.arange(120)) / np.linalg.norm(step, axis=1))[:, None]
    y = (centre[np.arange(120) % 2] + step).astype(np.float32)
    x = centre.astype(np.float32)
    distance, index = nearest(x, y, k)
    assert np.array_equal(index, np.argsort(brute(x, y), axis=1)[:, :k])
    assert np.allclose(distance, np.sort(brute(x, y), axis=1)[:, :k], rtol=1e-12)


def test_rows_that_may_not_be_written_to_are_read() -> None:
    x = rng().normal(size=(30, 70)).astype(np.float32)
    found = nearest(x, None, 2)[1]
    x.setflags(write=False)
    assert np.array_equal(nearest(x, None, 2)[1], found)


@pytest.mark.parametrize("n", [1, 2, 333, 768])
def test_self_product_is_the_product(n: int) -> None:
    import torch

    a = torch.as_tensor(rng(n).normal(size=(n, 5)))
    assert torch.allclose(self_product(a), a @ a.T, rtol=1e-13, atol=1e-13)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (rng(s).normal(size=(333, 70)).astype(np.float32) for s in (0, 1))
    whole, own, counts = nearest(x, y, 4), nearest(x, None, 4), manifold(Features(x), Features(y), 4)
    monkeypatch.setattr(numerics, "TILE", 64)
    assert np.array_equal(nearest(x, y, 4)[1], whole[1])
    assert np.array_equal(nearest(x, None, 4)[1], own[1])
    assert np.array_equal(manifold(Features(x), Features(y), 4).value, counts.value)


def test_some_rows_equal_all_rows() -> None:
    x, rows = rng().normal(size=(120, 5)), np.array([3, 77, 119])
    assert np.array_equal(nearest(x, None, 3, rows)[1], nearest(x, None, 3)[1][rows])


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 9"):
        nearest(np.zeros((10, 2)), None, 10)


@pytest.mark.parametrize("step", [0.1, 1 / 3, 1e-3])
def test_ties_up_to_rounding_are_ties(step: float) -> None:
    """A grid whose steps differ in the last bit: every neighbour at one step is in every closed ball of one step."""
    grid = step * np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) + 0.7
    found = manifold(Features(grid), Features(grid), 2)
    edge = ((np.arange(64) % 8 % 7 == 0).astype(int) + (np.arange(64) // 8 % 7 == 0)).astype(int)
    assert found.value[2] == pytest.approx((5 - edge).mean() / 2)  # itself and its neighbours, over k


@pytest.mark.slow
def test_memory_of_a_large_pass_is_bounded() -> None:
    code = (
        "import numpy as np, resource\nfrom genbench.numerics import manifold\nfrom genbench.statistics import Features\n"
        "x = np.random.default_rng(0).normal(size=(50_000, 64)).astype(np.float32); manifold(Features(x[:500]), Features(x[:500]), 5)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nmanifold(Features(x[:25_000]), Features(x[25_000:]), 5)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert float(done.stdout) < 1000  # MiB; the distances alone would be 2.3 GiB


# -- manifolds -----------------------------------------------------------------------------------------------------------------


def test_design_effects_are_at_least_one_and_seeded() -> None:
    x, y = Features(rng(0).normal(size=(400, 3))), Features(rng(1).normal(size=(400, 3)))
    design = manifold_design(x, y, 5, 0)
    assert design is not None
    assert (design >= 1).all()
    assert np.array_equal(design, manifold_design(x, y, 5, 0))
    assert manifold_design(x.cut(30), y.cut(30), 5, 0) is None


@pytest.mark.parametrize("n", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("p", [0.0, 0.003, 0.5, 1.0])
def test_wilson_holds_the_proportion_within_its_range(p: float, n: float) -> None:
    low, high = wilson(p, n, 2.0)
    assert 0 <= low <= p <= high <= 1
    assert low < high
    mirrored = wilson(1 - p, n, 2.0)
    assert mirrored == pytest.approx((1 - high, 1 - low))


# -- Fréchet distance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(5, 20), (30, 20), (20, 20), (21, 20)])
def test_factors_give_back_the_covariance(n: int, d: int) -> None:
    x = Features(rng().normal(size=(n, d)))
    for made in (factor(x), factor(Moments.of(x))):
        assert np.allclose((made @ made.T).numpy(), np.cov(x.x, rowvar=False), atol=1e-12)


@pytest.mark.parametrize("d", [1, 255, 256, 300])
def test_the_upper_triangle_of_a_congruence(d: int) -> None:
    import torch

    lower = torch.as_tensor(np.tril(rng(d).normal(size=(d, d))))
    cov = torch.as_tensor(np.cov(rng(1).normal(size=(2 * d + 2, d)), rowvar=False).reshape(d, d))
    assert torch.allclose(_congruent(lower, cov).triu(), (lower.T @ cov @ lower).triu(), rtol=1e-11, atol=1e-11)


def test_moments_in_blocks_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = (rng().normal(size=(300, 5)) + 3).astype(np.float32)
    monkeypatch.setattr(statistics, "BLOCK", 64)
    found = Moments.of(x)
    assert np.allclose(found.mean, x.astype(np.float64).mean(axis=0), rtol=1e-14)
    assert np.allclose(found.cov, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-13)


def test_a_tiny_spectrum_keeps_nine_digits() -> None:
    """Diagonal covariances over 16 decades: the sum of the roots is known."""
    d = 64
    a, b = 10.0 ** -np.linspace(0, 12, d), 10.0 ** -np.linspace(0, 12, d) * 2
    exact = float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    zero = np.zeros(d)
    assert frechet(Moments(None, zero, np.diag(a)), Moments(None, zero, np.diag(b))) == pytest.approx(exact, rel=1e-9)


def test_influence_is_the_derivative_in_the_weight_of_a_row() -> None:
    """(1 − ε) P + ε δ_x moves the distance by ε IF(x)."""
    x, y = rng(0).normal(size=(60, 4)) * 1.3 + 0.2, rng(1).normal(size=(80, 4))
    mx, my = Moments.of(x), Moments.of(y)
    spread = frechet_spread(Features(x), Features(y), mx, my)
    assert spread.inf_ref is not None

    def weighted(z: np.ndarray, i: int, e: float, scale: float) -> Moments:
        w = np.full(len(z), (1 - e) / len(z))
        w[i] += e
        mean = w @ z
        return Moments(None, mean, ((z - mean) * w[:, None]).T @ (z - mean) * scale)

    for z, fixed, influence, gen in ((x, my, spread.inf_gen, True), (y, mx, spread.inf_ref, False)):
        scale = len(z) / (len(z) - 1)

        def at(e: float, i: int, z: np.ndarray = z, fixed: Moments = fixed, gen: bool = gen, scale: float = scale) -> float:
            moved, other = weighted(z, i, e, scale), Moments(None, fixed.mean, fixed.cov)
            return frechet(moved, other) if gen else frechet(other, moved)

        slopes = np.array([(at(1e-5, i) - at(-1e-5, i)) / 2e-5 for i in range(10)])
        assert np.allclose(slopes - slopes.mean(), influence[:10] - influence[:10].mean(), rtol=0.03, atol=0.03)


def test_the_closed_form_bias_is_the_bias() -> None:
    """300 pairs of equal Gaussians, n = 300, d = 4: the mean raw value within 5 % (three standard errors) of the predicted bias."""
    raw, bias = [], []
    for seed in range(300):
        g = rng(seed)
        x, y = (Features(g.normal(size=(300, 4))) for _ in range(2))
        mx, my = Moments.of(x), Moments.of(y)
        raw.append(frechet(mx, my))
        bias.append(frechet_spread(x, y, mx, my).bias)
    assert np.mean(raw) == pytest.approx(np.mean(bias), rel=0.05 + 3 * np.std(raw) / np.mean(raw) / np.sqrt(300))


@pytest.mark.parametrize("blocks", [5, 20])
def test_moments_without_a_block_are_those_of_the_other_rows(blocks: int) -> None:
    x = Features(rng().normal(size=(203, 3)) + 4)
    parts = block_moments(x, blocks)
    for b in (0, blocks - 1):
        made, exact = without(parts, b), Moments.of(without_rows(x, b, blocks))
        assert made.n == exact.n
        assert np.allclose(made.mean, exact.mean)
        assert np.allclose(made.m2, exact.m2)


# -- kernels -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_mmd_of_degree_one_to_three_is_symmetric_and_unbiased_for_one_sample(degree: int) -> None:
    """Two halves of one sample, all 200 splits: the mean is 0 up to chance (seeded)."""
    x = rng().normal(size=(60, 3))
    assert polynomial_mmd(x[:30], x[30:], degree) == pytest.approx(polynomial_mmd(x[30:], x[:30], degree))
    found = []
    for seed in range(200):
        order = rng(seed).permutation(60)
        found.append(polynomial_mmd(x[order[:30]], x[order[30:]], degree))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)


# -- against direct computation, on sizes that do not divide the tile ----------------------------------------------------------


def test_squared_differences_are_exactly_zero_for_copies() -> None:
    x, i = (rng().normal(size=(90, 3)) + 1e3).astype(np.float32), np.arange(90)
    assert (squared_differences(x, i, x.copy(), i) == 0).all()
    assert (nearest(np.concatenate([x, x]), None, 1)[0] == 0).all()
    assert (nearest(np.full((20, 3), 0.1), None, 19)[0] == 0).all()


@pytest.mark.parametrize("tile", [7, 16, 1000])
@pytest.mark.parametrize(("n", "m", "d", "dtype"), [(37, 23, 3, np.float64), (50, 33, 70, np.float32), (15, 16, 1, np.float64)])
def test_every_tile_is_visited_once(tile: int, n: int, m: int, d: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "TILE", tile)
    x, y = rng(2).normal(size=(n, d)).astype(dtype), rng(3).normal(size=(m, d)).astype(dtype)
    for other in (y, None):
        distance, index = nearest(x, other, 4)
        assert np.allclose(distance, np.sort(brute(x, other), axis=1)[:, :4], rtol=1e-12, atol=0)
        assert all(len(set(row)) == 4 for row in index.tolist())


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_neighbours_survive_cancellation(offset: float) -> None:
    """Two clouds far apart: large norms, distances of 1 within."""
    x = np.concatenate([rng(6).normal(size=(40, 4)), rng(7).normal(size=(40, 4)) + offset])
    assert np.allclose(nearest(x, None, 3)[0], np.sort(brute(x, None), axis=1)[:, :3], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tile", [7, 1000])
@pytest.mark.parametrize("discrete", [True, False])
def test_manifold_counts_and_variances_directly(tile: int, discrete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "TILE", tile)
    g, r, k = rng(9).normal(size=(37, 2)), rng(10).normal(size=(31, 2)), 3
    if discrete:
        g, r = np.round(g), np.round(r)
    radius_g, radius_r = (np.sort(brute(z, None), axis=1)[:, k - 1] for z in (g, r))
    in_ref, in_gen = brute(r, g) <= radius_r[:, None], brute(r, g) <= radius_g[None]
    units = in_ref.any(0), in_gen.any(1), in_ref.sum(0) / k, in_ref.any(1)
    found = manifold(Features(g), Features(r), k)
    assert found.value == pytest.approx([u.mean() for u in units], rel=1e-12)
    assert found.variance == pytest.approx([u.var() for u in units], rel=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [2, 1025])
def test_polynomial_sums_within_leave_out_the_diagonal(degree: int, n: int) -> None:
    x = rng(13).normal(size=(n, 3))
    k = (x @ x.T / 3 + 1) ** degree
    np.fill_diagonal(k, 0)
    found = polynomial_sums(x, None, degree)
    assert np.allclose(found.rows, k.sum(1), rtol=1e-10, atol=1e-9)
    assert np.array_equal(found.rows, found.columns)
    assert found.squares == pytest.approx((k**2).sum(), rel=1e-10)


@pytest.mark.parametrize("size", [0.4, 40.0])
@pytest.mark.parametrize(("n", "m", "d"), [(900, 850, 64), (300, 1500, 300)])
def test_kernel_sums_of_float32_features_are_those_of_float64(n: int, m: int, d: int, size: float) -> None:
    """Positive features with a mean of their own, as those of Inception: products in float32, the result within 1e-8 of the mean kernel."""
    x, y = ((size * rng(seed).gamma(0.5 + 0.01 * seed, 2, (rows, d))).astype(np.float32) for seed, rows in ((17, n), (18, m)))
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    exact, found = polynomial_mmd(wide_x, wide_y), polynomial_mmd(x, y)
    assert abs(found - exact) < 1e-8 * ((wide_x @ wide_y.T / d + 1) ** 3).mean()
    assert found == pytest.approx(exact, rel=1e-5)
    for other, wide in ((None, None), (y, wide_y)):
        fast, slow = polynomial_sums(x, other), polynomial_sums(wide_x, wide)
        assert np.allclose(fast.rows, slow.rows, rtol=1e-7)
        assert np.allclose(fast.columns, slow.columns, rtol=1e-7)
        assert fast.squares == pytest.approx(slow.squares, rel=1e-7)


def test_kernel_sums_of_features_too_large_for_a_float32_product() -> None:
    x = (1e16 * rng(19).normal(size=(20, 64))).astype(np.float32)
    y = (1e16 * rng(20).normal(size=(25, 64))).astype(np.float32)
    assert polynomial_mmd(x, y) == pytest.approx(polynomial_mmd(x.astype(np.float64), y.astype(np.float64)), rel=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(70, 131, 1), (130, 65, 7), (33, 40, 25)])
def test_cubic_sums_directly(n: int, m: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "CUBIC_ROWS", 64)
    x, y, z = rng(14).normal(size=(n, d)), rng(15).normal(size=(m, d)) + 1, rng(16).normal(size=(9, d))
    for of, found in zip((y, z), cubic_sums(x, [cubic_moments(y), cubic_moments(z)]), strict=True):
        assert np.allclose(found, [sum((a @ b / d + 1) ** 3 for b in of) for a in x], rtol=1e-10, atol=1e-9)
        assert cubic_total(cubic_moments(x), cubic_moments(of)) == pytest.approx(found.sum(), rel=1e-10)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """With one row a block: sqrt((n - 1)/n Σ (θ_i - mean)²) = sd/sqrt(n)."""
    x = rng(19).normal(size=(25, 2))
    left_out = np.array([np.delete(x, i, axis=0).mean(0) for i in range(25)])
    assert jackknife_se(left_out) == pytest.approx(x.std(0, ddof=1) / 5, rel=1e-12)


def test_cholesky_refuses_what_is_singular() -> None:
    x = rng(21).normal(size=(30, 4))
    good = np.cov(x, rowvar=False)
    lower = cholesky(good)
    assert lower is not None
    assert np.allclose(lower.numpy() @ lower.numpy().T, good, rtol=1e-12)
    dependent = np.cov(np.hstack([x, x[:, :1] + x[:, 1:2]]), rowvar=False)
    for singular in (np.zeros((3, 3)), np.diag([1.0, 0.0]), np.diag([1.0, -1.0]), np.ones((4, 4)), dependent, np.cov(x[:3], rowvar=False)):
        assert cholesky(singular) is None


def test_a_factor_of_constant_features_is_zero() -> None:
    f = factor(Features(np.full((9, 3), 0.1))).numpy()
    assert np.abs(f @ f.T).max() < 1e-30
    assert factor(Moments.of(np.zeros((9, 3)))).numel() == 0


def test_neighbours_are_shared_and_a_set_is_its_own_nearest() -> None:
    x, y = Features(rng(20).normal(size=(60, 3))), Features(rng(21).normal(size=(50, 3)))
    first = neighbours(x, y, 1)
    assert np.array_equal(first[0], nearest(x.x, y.x, 1)[0])
    assert neighbours(x, y, 3)[0].base is neighbours(x, y, 2)[0].base, "one pass for all who ask"
    assert np.array_equal(neighbours(x, y, 2, rows=np.array([5, 7]))[0], nearest(x.x, y.x, 2)[0][[5, 7]])
    distance, index = neighbours(x, x, 2)
    assert (distance[:, 0] == 0).all()
    assert np.array_equal(index[:, 0], np.arange(60))
    assert np.array_equal(distance[:, 1:], neighbours(x, None, 1)[0])


def test_a_copy_of_the_training_set_is_one_even_as_the_same_object() -> None:
    x, test = Features(rng(22).normal(size=(300, 3))), Features(rng(23).normal(size=(300, 3)))
    for name, quantity, value in (
        ("authenticity", "authenticity", 0),
        ("nn_copies", "exact_copies", 1),
        ("mifid", "memorisation_distance", 0),
    ):
        metric = registry.metric(name)
        roles = {"gen": x, "train": x, "test": test, "ref": test}
        assert metric(**{role: roles[role] for role in metric.needs})[quantity].value == value
    assert registry.metric("ct_score")(gen=x, train=x, test=test)["ct_score"].high < -3
