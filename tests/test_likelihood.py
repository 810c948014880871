"""Likelihoods: the traps of bounds, units and dequantisation; the metrics against closed forms and slow implementations; files."""

import itertools
import math
from math import log, log2, pi

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import genbench
from genbench import likelihood, models, registry
from genbench.datasets import toy2d
from genbench.errors import DataError, UsageError
from genbench.estimate import Estimate, Undefined
from genbench.likelihood import (
    check_binary,
    dequantisation_noise,
    dequantised_bound,
    iwae_bound,
    mean_interval,
    offset_bits,
    to_bits_per_dim,
)
from genbench.samples import open_samples
from genbench.statistics import Features, LogLikelihood


def measured(name: str, **arguments: object) -> Estimate | Undefined:
    (found,) = registry.metric(name)(**arguments).values()
    return found


def values(n: int = 300, seed: int = 0) -> np.ndarray:
    return -np.random.default_rng(seed).exponential(size=n)


# -- models: mass that sums to one, units --------------------------------------------------------------------------------------


BINARY = np.array(list(itertools.product([0, 1], repeat=9)), np.uint8).reshape(512, 1, 3, 3)


def test_an_independent_bernoulli_model_sums_to_one_over_all_binary_images() -> None:
    p = np.random.default_rng(0).random(9)
    x = check_binary(255 * BINARY).reshape(512, 9)
    log_p = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=1)
    assert logsumexp(log_p) == pytest.approx(0, abs=1e-12)
    grey = np.full((1, 9), 0.5)
    assert (grey * np.log(p) + (1 - grey) * np.log1p(-p)).shape == (1, 9), "the formula takes grey values without complaint"
    with pytest.raises(DataError, match="image 0 holds 0.5"):
        check_binary(grey)


@pytest.mark.parametrize("name", ["independent", "gmm", "kde", "uniform_noise"])
def test_a_baseline_sums_to_one_over_all_binary_images(name: str) -> None:
    module = registry.module("baselines", name)
    rng = np.random.default_rng(0)
    rows = open_samples((255 * (rng.random((200, 1, 3, 3)) < rng.random((1, 3, 3)))).astype(np.uint8), layout="nchw")
    settings = {"components": (3,), "covariances": ("diag",)} if name == "gmm" else {}
    model = module.train(module.Config(**settings), models.TrainingData("binary", rows), seed=0)
    found = np.concatenate([model.log_prob(255 * BINARY[a : a + 100]) for a in range(0, 512, 100)])
    assert logsumexp(found) == pytest.approx(0, abs=1e-9)
    assert model.measure == "mass"
    again = np.concatenate([model.log_prob(255 * BINARY[a : a + 7]) for a in range(0, 512, 7)])
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_a_uniform_model_is_exactly_eight_bits() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(256, size=(100, 3, 8, 8)).astype(np.uint8)
    module = registry.module("baselines", "uniform_noise")
    model = module.train(module.Config(), models.TrainingData("noise", open_samples(rows)), seed=0)
    found = measured("bits_per_dim", test=LogLikelihood(model.log_prob(rows), model.dims, model.bound, model.measure))
    assert f"{found.value:.12f}" == "8.000000000000"
    assert found.high - found.low < 1e-12
    bound = dequantised_bound(lambda x: np.zeros(len(x)), rows)
    assert (bound.bound, bound.measure, bound.dims) == ("lower", "mass", 192)
    assert measured("bits_per_dim", test=bound).value == pytest.approx(8, abs=1e-12)


def test_offsets_between_scalings() -> None:
    assert offset_bits() == 8
    assert offset_bits(256, -1, 1) == 7
    assert offset_bits(17) == pytest.approx(log2(17))
    assert offset_bits(256, 0, 256) == 0
    with pytest.raises(UsageError, match="low < high"):
        offset_bits(256, 1, 0)


@pytest.mark.parametrize(("levels", "low", "high"), [(256, 0, 1), (256, -1, 1), (17, 0, 1), (256, 0, 256)])
def test_one_law_on_any_scale_has_one_mass(levels: int, low: float, high: float) -> None:
    """A triangular density per pixel, written on [0, 1] and moved to [low, high]: the bound does not change."""
    x = np.random.default_rng(0).integers(levels, size=(50, 2, 2))

    def on_unit(u: np.ndarray) -> np.ndarray:
        return np.log(2 * u).reshape(len(u), -1).sum(axis=1)

    def moved(v: np.ndarray) -> np.ndarray:
        return on_unit((v - low) / (high - low)) - 4 * log(high - low)

    plain = dequantised_bound(on_unit, x, levels=levels, seed=3)
    other = dequantised_bound(moved, x, levels=levels, low=low, high=high, seed=3)
    np.testing.assert_allclose(other.nats, plain.nats, rtol=1e-9)
    raw = dequantised_bound(moved, x, levels=levels, low=low, high=high, seed=3).nats + 4 * offset_bits(levels, low, high) * log(2)
    assert to_bits_per_dim(plain.nats, 4).mean() == pytest.approx(
        to_bits_per_dim(raw, 4).mean() + offset_bits(levels, low, high), rel=1e-12
    ), "density's bits per dimension plus the offset"


def test_bits_per_dim_of_an_array() -> None:
    assert np.allclose(to_bits_per_dim([-2 * log(2), 0.0], 2), [1, 0])
    with pytest.raises(UsageError, match="dimension"):
        to_bits_per_dim(-1.0, 0)


# -- dequantisation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_covers_exactly_one_bin(dtype: type) -> None:
    noise = dequantisation_noise((500, 400), 7, seed=1, dtype=dtype)
    assert noise.dtype == dtype
    assert noise.shape == (1, 500, 400)
    for level in (0, 1, 127, 254, 255):
        moved = dtype(level) + noise
        assert moved.dtype == dtype
        assert (moved > level).all()
        assert (moved < level + 1).all(), "never the next level, not even by rounding"
        assert np.array_equal(moved - dtype(level), noise), "level + noise is exact"
    counts = np.histogram(noise, 20, (0, 1))[0]
    assert stats.chisquare(counts).pvalue > 0.001
    assert noise.min() < 1e-4
    assert noise.max() > 1 - 1e-4


def test_a_plain_uniform_draw_reaches_the_next_level() -> None:
    """The trap: the largest float32 below 1, added to 255, is 256."""
    assert np.float32(255) + np.nextafter(np.float32(1), np.float32(0)) == 256


def test_noise_depends_on_seed_and_index_alone() -> None:
    a = dequantisation_noise((2, 3), 5, seed=0, draws=4)
    assert np.array_equal(a, dequantisation_noise((2, 3), 5, seed=0, draws=4))
    assert np.array_equal(a[:2], dequantisation_noise((2, 3), 5, seed=0, draws=2)), "more draws continue the same ones"
    assert not np.array_equal(a, dequantisation_noise((2, 3), 6, seed=0, draws=4))
    assert not np.array_equal(a, dequantisation_noise((2, 3), 5, seed=1, draws=4))
    with pytest.raises(UsageError, match="seed >= 0"):
        dequantisation_noise((1,), 0, seed=-1)


def bell(x: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(x, 0.5, 0.2).reshape(len(x), -1).sum(axis=1)


def test_batches_and_shares_do_not_move_a_dequantised_bound() -> None:
    """Ten images in batches of 3 leave a ragged last one; two workers share the set by `start`."""
    x = np.random.default_rng(0).integers(256, size=(10, 1, 2, 2)).astype(np.uint8)
    whole = dequantised_bound(bell, x, draws=3, seed=2)
    np.testing.assert_allclose(dequantised_bound(bell, x, draws=3, seed=2, batch=3).nats, whole.nats, rtol=1e-13)
    shared = [dequantised_bound(bell, part, draws=3, seed=2, start=start).nats for start, part in ((0, x[:4]), (4, x[4:]))]
    np.testing.assert_allclose(np.concatenate(shared), whole.nats, rtol=1e-13)
    assert len(dequantised_bound(bell, x[:0])) == 0


def test_a_dequantised_bound_lies_below_the_mass_and_tightens() -> None:
    """Four grey values under p(u) = 3 u²: the mass of value v is ((v + 1)³ − v³)/64."""
    x = np.tile(np.arange(4), 500).reshape(-1, 1)
    mass = np.log(((x + 1.0) ** 3 - x**3) / 64).ravel()
    means = [dequantised_bound(lambda u: np.log(3 * u.ravel() ** 2), x, levels=4, draws=k, seed=0).nats.mean() for k in (1, 2, 4, 64)]
    assert means == sorted(means)
    assert means[0] < mass.mean() - 0.1
    assert means[-1] == pytest.approx(mass.mean(), abs=0.02)


def test_dequantisation_refuses_what_has_no_bins() -> None:
    x = np.zeros((3, 1, 2, 2), np.uint8)
    with pytest.raises(DataError, match="whole numbers"):
        dequantised_bound(bell, x / 255)
    x[1, 0, 0, 0] = 17
    with pytest.raises(DataError, match="0 to 16, image 1"):
        dequantised_bound(bell, x, levels=17)
    with pytest.raises(DataError, match="one number per row"):
        dequantised_bound(lambda u: u, x)
    with pytest.raises(UsageError, match="levels"):
        dequantised_bound(bell, x, levels=1)


def test_grey_values_are_refused_for_a_bernoulli_head() -> None:
    assert np.array_equal(check_binary(np.array([[0, 255], [255, 0]], np.uint8)), [[0, 1], [1, 0]])
    assert np.array_equal(check_binary(np.array([[0, 1], [1, 1]], np.uint8)), [[0, 1], [1, 1]])
    assert np.array_equal(check_binary(np.array([[False, True]])), [[0, 1]])
    for grey in (np.array([[0, 255], [128, 255]], np.uint8), np.array([[0.0, 1.0], [0.2, 1.0]]), np.array([[1, 0], [1, 255]], np.uint8)):
        with pytest.raises(DataError, match="image [01] holds (128|0.2|1);"):
            check_binary(grey)
    with pytest.raises(DataError, match="image 0 holds nan"):
        check_binary(np.array([[math.nan]]))


# -- bounds from many draws -------------------------------------------------------------------------------------------------------


def linear_gaussian(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """log weights and exact log p of x = W z + noise with a proposal that is shifted and too wide."""
    rng = np.random.default_rng(seed)
    w, sd = np.array([1.0, -0.5, 2.0]), 0.7
    x = rng.normal(size=(n, 1)) * w + sd * rng.normal(size=(n, 3))
    exact = stats.multivariate_normal.logpdf(x, np.zeros(3), np.outer(w, w) + sd**2 * np.eye(3))
    precision = 1 + w @ w / sd**2
    mean, scale = x @ w / sd**2 / precision + 0.1, 1.6 / math.sqrt(precision)
    z = mean[:, None] + scale * rng.normal(size=(n, k))
    log_joint = stats.norm.logpdf(z) + stats.norm.logpdf(x[:, None], z[..., None] * w, sd).sum(axis=2)
    return log_joint - stats.norm.logpdf(z, mean[:, None], scale), exact


def test_elbo_is_below_iwae_below_exact_and_monotone_in_k() -> None:
    weights, exact = linear_gaussian(2000, 64)
    n = len(weights)
    bounds = {k: iwae_bound(weights.reshape(n * 64 // k, k)).reshape(n, -1).mean(axis=1) for k in (1, 2, 4, 8, 16, 32, 64)}
    np.testing.assert_allclose(bounds[1], weights.mean(axis=1), rtol=1e-12, err_msg="one draw is the ELBO")
    for lower, higher in itertools.pairwise(bounds.values()):
        assert (lower <= higher + 1e-12).all(), "of the same draws, sample by sample"
    gap = bounds[64] - exact
    assert gap.mean() < 3 * gap.std() / math.sqrt(n)
    assert bounds[1].mean() < exact.mean() - 0.2
    assert bounds[64].mean() == pytest.approx(exact.mean(), abs=0.02)


def test_exact_posterior_draws_make_every_bound_exact() -> None:
    exact = np.array([-3.0, -700.0, -1e5])
    np.testing.assert_allclose(iwae_bound(np.repeat(exact[:, None], 50, axis=1)), exact, rtol=1e-14)


def test_logsumexp_runs_over_draws_before_the_mean_over_samples() -> None:
    w = np.log([[1.0, 3.0], [10.0, 30.0], [5.0, 5.0]])
    right = (log(2) + log(20) + log(5)) / 3
    assert iwae_bound(w).mean() == pytest.approx(right)
    assert abs(w.mean() - right) > 0.05, "the ELBO"
    assert abs(np.log(np.exp(w).mean()) - right) > 0.05, "the mean over samples first"
    assert abs(iwae_bound(w.T).mean() - right) > 0.05, "draws and samples exchanged"


def test_a_bound_names_the_sample_that_is_not_a_number() -> None:
    w = np.zeros((5, 4))
    w[3, 1] = math.nan
    with pytest.raises(DataError, match="found nan in sample 3, draw 1"):
        iwae_bound(w)
    w[1, 2] = math.inf
    with pytest.raises(DataError, match="inf in sample 1, draw 2 and 1 more samples"):
        iwae_bound(w)
    with pytest.raises(DataError, match=r"\(samples, draws\)"):
        iwae_bound(np.zeros(4))
    with pytest.raises(DataError, match="real numbers"):
        iwae_bound(np.zeros((2, 2), complex))


def test_zero_weights_are_a_fact_not_a_fault() -> None:
    w = np.array([[-np.inf, 0.0], [-np.inf, -np.inf]])
    assert np.array_equal(iwae_bound(w), [-log(2), -np.inf])


# -- the mean's interval ----------------------------------------------------------------------------------------------------------


def slow_interval(x: np.ndarray, y: np.ndarray | None = None) -> tuple[float, float]:
    """Student or Welch, and Hall's correction by solving T + g T²/3 + g² T³/27 + g/6 = t for T."""
    sides = [(1, x)] + ([] if y is None else [(-1, y)])
    value = sum(s * z.mean() for s, z in sides)
    square = sum(z.var(ddof=1) / len(z) for _, z in sides)
    freedom = square**2 / sum((z.var(ddof=1) / len(z)) ** 2 / (len(z) - 1) for _, z in sides)
    t = stats.t.ppf(0.975, freedom)
    g = sum(s * ((z - z.mean()) ** 3).mean() / len(z) ** 2 for s, z in sides) / square**1.5

    def solve(at: float) -> float:
        roots = np.roots([g**2 / 27, g / 3, 1, g / 6 - at])
        return float(roots[np.abs(roots.imag).argmin()].real)

    ends = [value - math.sqrt(square) * at for at in (t, -t, solve(t), solve(-t))]
    return min(ends), max(ends)


@pytest.mark.parametrize("sides", [(40, None), (7, None), (30, 200), (500, 20)])
def test_interval_agrees_with_a_slow_one(sides: tuple[int, int | None]) -> None:
    x = np.random.default_rng(0).exponential(size=sides[0])
    y = None if sides[1] is None else np.random.default_rng(1).exponential(size=sides[1]) ** 2
    value, low, high = mean_interval(x, y)
    assert (low, high) == pytest.approx(slow_interval(x, y), rel=1e-9)
    assert low < value < high


def test_interval_without_skewness_is_students_t() -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    found = stats.ttest_1samp(x, 0).confidence_interval()
    assert mean_interval(x) == pytest.approx((0, found.low, found.high), abs=1e-12)
    y = 3 * x
    welch = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    assert mean_interval(x, y) == pytest.approx((0, welch.low, welch.high), abs=1e-12)


def test_interval_is_longer_on_the_side_of_the_tail_and_turns_with_the_sign() -> None:
    x, y = -values(50), values(60, 1) * 2
    value, low, high = mean_interval(x)
    assert high - value > 1.2 * (value - low)
    assert mean_interval(-x) == pytest.approx((-value, -high, -low))
    assert mean_interval(y, x) == pytest.approx(tuple(-v for v in (lambda a, b, c: (a, c, b))(*mean_interval(x, y))))
    assert mean_interval(1e60 * x) == pytest.approx((1e60 * value, 1e60 * low, 1e60 * high))


def test_interval_of_constants_is_a_point() -> None:
    assert mean_interval(np.full(4, 2.5)) == (2.5, 2.5, 2.5)
    assert mean_interval(np.full(4, 2.5), np.full(3, 1.0)) == (1.5, 1.5, 1.5)


def test_interval_covers_where_students_t_does_not() -> None:
    """Log-normal, n = 50, 1,000 draws: t covers 88 to 90 %."""
    x, truth = np.random.default_rng(5).lognormal(size=(1000, 50)), math.exp(0.5)
    ends = [mean_interval(row)[1:] for row in x]
    plain = [stats.ttest_1samp(row, 0).confidence_interval() for row in x[:300]]
    assert np.mean([low <= truth <= high for low, high in ends]) >= 0.92
    assert np.mean([c.low <= truth <= c.high for c in plain]) < 0.92


# -- nll, bits_per_dim, perplexity ------------------------------------------------------------------------------------------------


def test_nll_of_a_known_mixture_is_scipys() -> None:
    gmm = registry.module("baselines", "gmm")
    weights, means = np.array([0.2, 0.8]), np.array([[0.0, 1.0], [3.0, -1.0]])
    factors = np.array([[[1.0, 0.0], [0.5, 2.0]], [[0.3, 0.0], [-0.1, 0.4]]])
    model = gmm.Model(gmm.Config(), {"weights": weights, "means": means, "factors": factors, "values": np.empty(0, np.uint8)}, (2,))
    x = np.random.default_rng(0).normal(size=(447, 2)) * 2
    parts = [stats.multivariate_normal.logpdf(x, m, f @ f.T) for m, f in zip(means, factors, strict=True)]
    expected = -logsumexp(np.stack(parts), b=weights[:, None], axis=0).mean()
    found = measured("nll", test=LogLikelihood(model.log_prob(x), model.dims, model.bound, model.measure))
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert (found.bound, found.measure, found.n) == ("exact", "density", 447)


@pytest.mark.parametrize(("of_log_p", "of_nll"), [("exact", "exact"), ("lower", "upper"), ("upper", "lower"), ("estimate", "estimate")])
@pytest.mark.parametrize(("name", "measure"), [("nll", "binarised"), ("bits_per_dim", "binarised"), ("perplexity", "tokens")])
def test_bounds_turn_round_and_measures_are_carried(name: str, measure: str, of_log_p: str, of_nll: str) -> None:
    found = measured(name, test=LogLikelihood(values(), 4, of_log_p, measure))
    assert (found.bound, found.measure) == (of_nll, measure)


def test_the_three_are_one_number_in_three_units() -> None:
    nats = 8 * values()
    nll = measured("nll", test=LogLikelihood(nats, 16, measure="mass"))
    bits = measured("bits_per_dim", test=LogLikelihood(nats, 16, measure="mass"))
    perplexity = measured("perplexity", test=LogLikelihood(nats, 16, measure="tokens"))
    for part in ("value", "low", "high"):
        assert getattr(bits, part) == pytest.approx(getattr(nll, part) / 16 / log(2))
        assert getattr(perplexity, part) == pytest.approx(math.exp(getattr(nll, part) / 16))
    assert nll.low < nll.value < nll.high


def test_a_uniform_model_has_the_vocabulary_as_perplexity() -> None:
    found = measured("perplexity", test=LogLikelihood(np.full(30, -7 * log(1000)), 7, measure="tokens"))
    assert found.value == pytest.approx(1000)


def test_measures_that_do_not_fit_have_a_reason() -> None:
    density = measured("bits_per_dim", test=LogLikelihood(values(), 4))
    assert isinstance(density, Undefined)
    assert all(part in density.reason for part in ("other units", "+8", "+7", "log2 17"))
    tokens = measured("bits_per_dim", test=LogLikelihood(values(), 4, measure="tokens"))
    assert isinstance(tokens, Undefined)
    assert "perplexity" in tokens.reason
    for measure in ("mass", "density"):
        other = measured("perplexity", test=LogLikelihood(values(), 4, measure=measure))
        assert isinstance(other, Undefined)
        assert measure in other.reason


def test_samples_without_probability_are_named() -> None:
    nats = values(447)
    nats[[5, 17, 400]] = -np.inf
    names = [f"{i:03d}.png" for i in range(447)]
    found = measured("nll", test=LogLikelihood(nats, 2, names=names))
    assert isinstance(found, Undefined)
    assert found.reason == "the model gives no probability to 3 of 447 test samples (005.png, 017.png, 400.png); their nll is infinite"
    bound = measured("nll", test=LogLikelihood(np.full(9, -np.inf), 2, "lower"))
    assert isinstance(bound, Undefined)
    assert bound.reason.startswith("the bound on log p is −∞ for 9 of 9 test samples (row 0, row 1, row 2, ...)")


def test_one_nan_is_an_error_with_its_row() -> None:
    nats = values()
    nats[123] = math.nan
    with pytest.raises(DataError, match="row 123"):
        LogLikelihood(nats, 2)
    with pytest.raises(DataError, match="c.png"):
        LogLikelihood(np.array([0.0, 1.0, math.inf]), 2, names=["a.png", "b.png", "c.png"])


def test_a_mass_above_one_is_refused() -> None:
    nats = values()
    nats[7] = 0.5
    found = measured("bits_per_dim", test=LogLikelihood(nats, 2, measure="mass"))
    assert isinstance(found, Undefined)
    assert "row 7" in found.reason
    assert isinstance(measured("nll", test=LogLikelihood(nats, 2, "lower", "mass")), Undefined)
    assert isinstance(measured("nll", test=LogLikelihood(nats, 2)), Estimate), "a density may be above 1"
    assert isinstance(measured("nll", test=LogLikelihood(nats, 2, "upper", "mass")), Estimate), "so may an upper bound on single samples"
    vacuous = measured("bits_per_dim", test=LogLikelihood(nats + 5, 2, "upper", "mass"))
    assert isinstance(vacuous, Undefined)
    assert "says nothing" in vacuous.reason
    rounded = measured("bits_per_dim", test=LogLikelihood(np.full(5, 1e-6), 2, measure="mass"))
    assert (rounded.value, rounded.low, rounded.high) == (0, 0, 0)


@pytest.mark.parametrize(("name", "measure"), [("nll", "density"), ("bits_per_dim", "mass"), ("perplexity", "tokens")])
def test_few_samples(name: str, measure: str) -> None:
    assert isinstance(measured(name, test=LogLikelihood(np.empty(0), 3, measure=measure)), Undefined)
    one = measured(name, test=LogLikelihood(np.array([-3.0]), 3, measure=measure))
    assert (one.low, one.interval, one.n) == (None, None, 1)
    assert any("no interval" in note for note in one.notes)
    two = measured(name, test=LogLikelihood(np.array([-3.0, -4.0]), 3, measure=measure))
    assert two.low < two.value < two.high


def test_extremes_have_a_value_or_a_reason() -> None:
    assert isinstance(measured("nll", test=LogLikelihood(-1e80 * np.ones(5), 3)), Undefined)
    assert isinstance(measured("nll", test=LogLikelihood(1e60 * values(), 3)), Estimate)
    assert isinstance(measured("nll", test=LogLikelihood(1e-200 * values(), 3)), Estimate)
    beyond = measured("perplexity", test=LogLikelihood(1e5 * values(), 3, measure="tokens"))
    assert isinstance(beyond, Undefined)
    assert "float64" in beyond.reason
    assert isinstance(measured("perplexity", test=LogLikelihood(values(), 0, measure="tokens")), Undefined)
    assert isinstance(measured("bits_per_dim", test=LogLikelihood(values(), 0, measure="mass")), Undefined)


def test_influences_make_the_variance() -> None:
    nats = 4 * values(500)
    for name, measure in (("nll", "density"), ("bits_per_dim", "mass"), ("perplexity", "tokens")):
        found = measured(name, test=LogLikelihood(nats, 4, measure=measure))
        influence = found.influence["test"]
        assert influence.mean() == pytest.approx(0, abs=1e-12)
        moved = measured(name, test=LogLikelihood(np.append(nats, nats[0]), 4, measure=measure))
        assert (moved.value - found.value) * 501 == pytest.approx(influence[0], rel=0.02), name
        assert 2 * 1.96 * influence.std() / math.sqrt(500) == pytest.approx(found.high - found.low, rel=0.1)


def test_nll_hardly_sees_99_percent_of_noise() -> None:
    """Theis et al. 2016, section 3.2: the mixture's nll is at most log 100 higher, its samples are noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 50))
    good, noise = stats.norm.logpdf(x).sum(axis=1), stats.norm.logpdf(x, 0, 10).sum(axis=1)
    mixed = np.logaddexp(log(0.01) + good, log(0.99) + noise)
    excess = measured("nll", test=LogLikelihood(mixed, 50)).value - measured("nll", test=LogLikelihood(good, 50)).value
    assert 4 < excess <= log(100) + 1e-9


# -- ll_gap -----------------------------------------------------------------------------------------------------------------------


def gap(model_sd: float, n: int = 2000, m: int = 1500, seed: int = 0, **kinds: str) -> Estimate | Undefined:
    """Of N(0, model_sd² I₂) for data of N(0, I₂)."""
    rng = np.random.default_rng(seed)

    def log_p(x: np.ndarray) -> np.ndarray:
        return stats.norm.logpdf(x, 0, model_sd).sum(axis=1)

    sides = (log_p(model_sd * rng.normal(size=(n, 2))), log_p(rng.normal(size=(m, 2))))
    return measured("ll_gap", gen=LogLikelihood(sides[0], 2, **kinds), test=LogLikelihood(sides[1], 2, **kinds))


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_gap_of_gaussians_is_the_closed_form(sd: float) -> None:
    """E log p over the data less over the model: 1 − 1/sd² in two dimensions; 0 for equal laws."""
    found = gap(sd)
    assert found.low < 1 - 1 / sd**2 < found.high
    assert (found.n, found.bound, found.measure) == (2000, "exact", "density")


def test_gap_is_negative_for_a_narrow_model_and_positive_for_a_broad_one() -> None:
    assert gap(0.5).high < 0
    assert gap(2.0).low > 0


def test_gap_is_blind_to_a_missing_mode_behind_noise() -> None:
    """Two models with equal mean log p on both sides are told apart by nothing here."""
    nats = values()
    shuffled = np.random.default_rng(1).permutation(nats)
    assert measured("ll_gap", gen=LogLikelihood(nats, 2), test=LogLikelihood(shuffled, 2)).value == pytest.approx(0, abs=1e-12)


def test_a_gap_of_bounds_is_an_estimate() -> None:
    assert gap(1.0, bound="lower").bound == "estimate"
    one, other = LogLikelihood(values(), 2, "lower"), LogLikelihood(values(), 2)
    found = measured("ll_gap", gen=one, test=other)
    assert isinstance(found, Undefined)
    assert found.reason.endswith("lower, density, 2 dims against exact, density, 2 dims")
    assert isinstance(measured("ll_gap", gen=other, test=LogLikelihood(values(), 2, measure="mass")), Undefined)
    assert isinstance(measured("ll_gap", gen=other, test=LogLikelihood(values(), 3)), Undefined)


def test_gap_of_few_or_impossible_samples() -> None:
    some, one = LogLikelihood(values(), 2), LogLikelihood(values(1), 2)
    assert measured("ll_gap", gen=some, test=one).low is None
    assert measured("ll_gap", gen=one, test=some).n == 1
    none = measured("ll_gap", gen=LogLikelihood(np.array([0.0, -np.inf]), 2), test=some)
    assert isinstance(none, Undefined)
    assert "1 of 2 generated samples" in none.reason
    assert isinstance(measured("ll_gap", gen=some, test=LogLikelihood(np.empty(0), 2)), Undefined)


# -- Parzen windows ---------------------------------------------------------------------------------------------------------------


def parzen(gen: np.ndarray, test: np.ndarray, **settings: object) -> Estimate | Undefined:
    return measured("parzen_legacy", gen=Features(gen), test=Features(test), **settings)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_parzen_of_a_fixed_bandwidth_is_the_formula(offset: float) -> None:
    x, y, h = normal(40, 3, 0), normal(30, 3, 1), 0.37
    terms = stats.norm.logpdf(y[:, None], x[None], h).sum(axis=2)
    expected = (logsumexp(terms, axis=1) - log(40)).mean()
    found = parzen(x + offset, y + offset, bandwidth=h)
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert (found.n, found.bound, found.measure) == (40, "estimate", "density")


def test_parzen_of_one_window_chooses_its_best_bandwidth() -> None:
    """One window at the mean: the best σ is the data's standard deviation."""
    y = normal(4000, 5, 0)
    found = parzen(np.zeros((1, 5)), y)
    assert found.value == pytest.approx(-2.5 * (1 + log(2 * pi)), abs=0.05)
    assert "bandwidth 0.99" in found.notes[1] or "bandwidth 1" in found.notes[1]


def test_the_chosen_bandwidth_is_near_the_best_of_a_fine_grid() -> None:
    x, y = normal(200, 2, 0), normal(300, 2, 1)
    best = max(parzen(x, y, bandwidth=h).value for h in np.geomspace(0.05, 2, 60))
    found = parzen(x, y)
    assert best - 0.03 < found.value <= best + 1e-9


def test_parzen_moves_with_the_units_only() -> None:
    x, y = normal(100, 3, 0), normal(80, 3, 1)
    plain = parzen(x, y).value
    assert parzen(x + 7, y + 7).value == pytest.approx(plain, rel=1e-6)
    assert parzen(1e-100 * x, 1e-100 * y).value == pytest.approx(plain + 300 * log(10), rel=1e-6)
    assert parzen(1e250 * x, 1e250 * y).value == pytest.approx(plain - 750 * log(10), rel=1e-6)


def test_every_parzen_value_carries_its_warning() -> None:
    found = parzen(normal(50, 2, 0), normal(50, 2, 1))
    assert "mislead" in found.notes[0]
    assert "Theis" in found.notes[0]
    assert "50 windows" in found.notes[1]


def test_centroids_beat_the_data_themselves() -> None:
    """The reason for the warning: centroids of k-means, which are no digits, read better than as many real digits."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    x = load_digits().data / 16
    order = np.random.default_rng(0).permutation(len(x))
    train, real, test = x[order[:900]], x[order[900:1100]], x[order[1100:]]
    centroids = KMeans(200, n_init=1, max_iter=20, random_state=0).fit(train).cluster_centers_
    planted, honest = parzen(centroids, test), parzen(real, test)
    assert planted.low > honest.high


def test_copies_of_the_test_samples_are_rewarded_and_noted() -> None:
    y = normal(100, 8, 0)
    found, honest = parzen(y, y), parzen(normal(100, 8, 1), y)
    assert found.value > honest.value + 5
    assert any("at an end of those tried" in note for note in found.notes)
    assert not any("at an end" in note for note in honest.notes)


def test_parzen_of_what_has_no_density() -> None:
    x = normal(20, 2, 0)
    assert isinstance(parzen(x[:0], x), Undefined)
    assert isinstance(parzen(x, x[:3]), Undefined)
    equal = parzen(np.ones((5, 2)), np.ones((9, 2)))
    assert isinstance(equal, Undefined)
    assert "without bound" in equal.reason
    assert isinstance(parzen(np.ones((5, 2)), x), Estimate), "a collapsed generator has a wide window"
    fine = parzen(x, x, bandwidth=1e-9)
    assert isinstance(fine, Undefined)
    assert "rounding" in fine.reason
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="bandwidth >= 0"):
            parzen(x, x, bandwidth=wrong)


def test_parzen_in_tiles_is_parzen(monkeypatch: pytest.MonkeyPatch) -> None:
    import genbench.metrics.parzen_legacy as module

    x, y = normal(60, 4, 0), normal(50, 4, 1)
    whole = parzen(x, y, bandwidth=0.5).value
    monkeypatch.setattr(module, "PAIRS", 200)
    assert parzen(x, y, bandwidth=0.5).value == pytest.approx(whole, rel=1e-12)


# -- files ------------------------------------------------------------------------------------------------------------------------


def test_load_takes_nats_or_weights(tmp_path) -> None:
    path = tmp_path / "ll.npz"
    np.savez(path, nats=values(7).astype(np.float32), dims=784, bound="lower", measure="binarised")
    found = likelihood.load(path)
    assert (len(found), found.dims, found.bound, found.measure) == (7, 784, "lower", "binarised")
    assert found.nats.dtype == np.float64
    weights, exact = linear_gaussian(50, 200)
    np.savez(path, log_weights=weights)
    found = likelihood.load(path, dims=3)
    assert (found.bound, found.dims) == ("lower", 3)
    np.testing.assert_allclose(found.nats, iwae_bound(weights))
    assert found.nats.mean() == pytest.approx(exact.mean(), abs=0.1)
    np.save(tmp_path / "ll.npy", values(5))
    found = likelihood.load(tmp_path / "ll.npy", dims=10, bound="upper", measure="mass")
    assert (len(found), found.dims, found.bound, found.measure) == (5, 10, "upper", "mass")


WRONG = [
    ({"nat": values(5), "dims": 2}, {}, UsageError, "did you mean 'nats'"),
    ({"nats": values(5), "dims": 2, "bounds": "lower"}, {}, UsageError, "did you mean 'bound'"),
    ({"dims": 2}, {}, UsageError, "found neither"),
    ({"nats": values(5), "log_weights": np.zeros((5, 2)), "dims": 2}, {}, UsageError, "found both"),
    ({"nats": values(5)}, {}, UsageError, "pass dims"),
    ({"nats": values(5), "dims": 2}, {"dims": 3}, UsageError, "the file says dims 2, 3 was passed"),
    ({"nats": values(5), "dims": 0}, {}, DataError, "from 1 on, found 0"),
    ({"nats": values(5), "dims": 2.5}, {}, DataError, "one whole number"),
    ({"nats": values(5), "dims": 2, "bound": "loewr"}, {}, UsageError, "did you mean 'lower'"),
    ({"nats": values(5), "dims": 2, "bound": 3}, {}, DataError, "bound is one word"),
    ({"log_weights": np.zeros((5, 2)), "dims": 2, "bound": "exact"}, {}, UsageError, "a lower bound"),
    ({"nats": np.zeros((5, 2)), "dims": 2}, {}, DataError, "found shape"),
    ({"nats": np.array(["a"]), "dims": 2}, {}, DataError, "real numbers"),
    ({"log_weights": np.zeros(5), "dims": 2}, {}, DataError, "draws"),
    ({"nats": np.array([0.0, math.nan, 1.0]), "dims": 2}, {}, DataError, "found nan in sample 1;"),
    ({"log_weights": np.array([[0.0, 1.0], [0.0, math.inf]]), "dims": 2}, {}, DataError, "sample 1, draw 1"),
    ({"nats": np.array([None, 1.0], object), "dims": 2}, {}, DataError, "plain numbers"),
]


@pytest.mark.parametrize(("content", "settings", "error", "message"), WRONG, ids=[w[3] for w in WRONG])
def test_load_says_what_is_wrong(tmp_path, content, settings, error, message) -> None:
    path = tmp_path / "ll.npz"
    np.savez(path, **content)
    with pytest.raises(error, match=message) as caught:
        likelihood.load(path, **settings)
    assert "ll.npz" in str(caught.value)


def test_load_of_files_that_are_none(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        likelihood.load(tmp_path / "absent.npz", dims=2)
    with pytest.raises(UsageError, match=r"\.npz or \.npy"):
        likelihood.load(tmp_path / "ll.csv", dims=2)
    for name, content in (("empty.npz", b""), ("text.npy", b"1.0 2.0"), ("cut.npz", b"PK\x03\x04 cut")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            likelihood.load(tmp_path / name, dims=2)
    np.save(tmp_path / "plain.npy", values(3))
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    with pytest.raises(DataError, match="ending"):
        likelihood.load(tmp_path / "plain.npz", dims=2)


def test_a_loaded_likelihood_is_scored(tmp_path) -> None:
    np.savez(tmp_path / "ll.npz", nats=np.full(9, -64 * log(17)), dims=64, measure="mass")
    assert measured("bits_per_dim", test=likelihood.load(tmp_path / "ll.npz")).value == pytest.approx(log2(17))


# -- from a trained model to a record --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A mixture fitted to ring8, as a run folder."""
    module = registry.module("baselines", "gmm")
    data = models.TrainingData("ring8", open_samples("ring8", n=2000))
    model = module.train(module.Config(components=(8,), restarts=3), data, seed=0)
    about = models.describe("gmm", module, model, passed={}, seed=0, dataset="ring8")
    return models.save_model(tmp_path_factory.mktemp("run") / "gmm", model, about), model


def test_a_run_folder_is_scored_by_its_likelihood(trained) -> None:
    folder, model = trained
    run = genbench.evaluate(
        folder, reference="ring8", test="ring8/test", metrics=["nll", "ll_gap", "bits_per_dim", "perplexity"], n=500, cache=None
    )
    law = toy2d.toy("ring8")
    fresh = law.sample(50_000, np.random.default_rng(1))
    entropy = law.entropy()[0]
    kl = float((law.log_density(fresh) - model.log_prob(fresh)).mean())
    assert 0 < kl < 0.1
    nll, found = run["nll"], run["ll_gap"]
    assert nll.low < entropy + kl < nll.high
    assert (nll.n, nll.bound, nll.measure) == (10_000, "exact", "density")
    own = float(model.log_prob(model.sample(50_000, seed=9)).mean())
    # within three standard errors: this seed's 500 samples are among the 5 %
    assert abs(found.value - (-entropy - kl - own)) < 0.75 * (found.high - found.low)
    assert found.n == 500
    reasons = {s["quantity"]: s["reason"] for s in run.record["skipped"]}
    assert "other units" in reasons["bits_per_dim"]
    assert "tokens" in reasons["perplexity"]


def test_samples_alone_have_no_likelihood() -> None:
    run = genbench.evaluate(normal(100, 2, 0), reference="ring8", test="ring8/test", metrics=["nll", "parzen_legacy"], cache=None, n=100)
    assert "needs a model's likelihood" in run.record["skipped"][0]["reason"]
    assert run["parzen_legacy"].measure == "density"
