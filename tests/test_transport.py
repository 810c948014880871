"""Sliced and exact transport distances, and divergences from a known density."""

import itertools
import math

import numpy as np
import pytest

from genbench.errors import UsageError
from genbench.estimate import Estimate, Undefined
from genbench.metrics.kl_forward import kl_forward
from genbench.metrics.kl_reverse import _nodes, _terms, kl_reverse
from genbench.metrics.mind import mind
from genbench.metrics.sliced_wasserstein import _directions, sliced_wasserstein
from genbench.metrics.wasserstein2 import _potential, wasserstein2
from genbench.statistics import Features, Law, LogLikelihood


def normal(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def sliced(gen: np.ndarray, ref: np.ndarray, **settings: int) -> Estimate:
    return sliced_wasserstein.function(Features(ref), Features(gen), **settings)[0]


def debiased(gen: np.ndarray, ref: np.ndarray, **settings: int) -> Estimate:
    return sliced_wasserstein.function(Features(ref), Features(gen), **settings)[1]


def assigned(gen: np.ndarray, ref: np.ndarray, **settings: int) -> Estimate:
    return wasserstein2.function(Features(ref), Features(gen), **settings)


# -- sliced --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 9), (5, 8), (1, 4), (12, 4)])
def test_unequal_sizes_are_exact(n: int, m: int) -> None:
    """Repeating every row until both sides have lcm(n, m) of them changes no law: then sorting pairs them."""
    x, y, u = normal(1, n, 3), normal(2, m, 3, 0.5), _directions(3, 5, 0)[0]
    many = math.lcm(n, m)
    px, py = (np.sort(np.repeat(z, many // len(z), axis=0) @ u.T, axis=0) for z in (x, y))
    assert sliced(x, y, directions=5).value == pytest.approx(float(((px - py) ** 2).mean()), rel=1e-12)


def test_directions_are_orthonormal_frames() -> None:
    u, frame = _directions(3, 128, 0)
    assert u.shape == (129, 3)
    assert frame == 3
    for f in range(43):
        assert u[3 * f : 3 * f + 3] @ u[3 * f : 3 * f + 3].T == pytest.approx(np.eye(3), abs=1e-12)
    wide = _directions(300, 128, 0)[0]
    assert wide @ wide.T == pytest.approx(np.eye(128), abs=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5, 100])
def test_sliced_of_a_shift_is_its_square_over_d(d: int) -> None:
    x, v = normal(1, 50, d), np.arange(1.0, d + 1)
    assert sliced(x + v, x).value == pytest.approx(float(v @ v) / d, rel=1e-9)
    assert debiased(x + v, x).value == pytest.approx(float(v @ v) / d, rel=1e-9)


def test_sliced_of_a_scaled_copy() -> None:
    x = normal(1, 60, 4)
    assert sliced(3 * x, x).value == pytest.approx(4 * float((x**2).sum(axis=1).mean()) / 4, rel=1e-9)


def test_mind_is_3d_times_the_mean_of_sorted_differences() -> None:
    """Against the definition, with directions of its own: 20,000 of them leave 1 %."""
    x, y = normal(1, 60, 5), 1.5 * normal(2, 60, 5) + 0.3
    u = np.random.default_rng(9).standard_normal((20_000, 5))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    wanted = 3 * 5 * float(((np.sort(x @ u.T, axis=0) - np.sort(y @ u.T, axis=0)) ** 2).mean())
    found = mind.function(Features(y), Features(x), directions=20_000)[0]
    assert found.value == pytest.approx(wanted, rel=0.02)
    fewer = mind.function(Features(y), Features(x), directions=1000)[0]
    error = float(fewer.notes[0].rpartition(" ")[2])
    assert abs(fewer.value - wanted) < 4 * error < 0.2 * wanted


def test_mind_of_a_shift_is_three_times_its_square() -> None:
    x, v = normal(1, 100, 8), np.arange(8.0)
    found = mind.function(Features(x), Features(x + v), directions=20_000)[0]
    assert found.value == pytest.approx(3 * float(v @ v), rel=0.05)


def test_mind_cuts_the_larger_side_and_its_lines_do_not_depend_on_blocks() -> None:
    x, y = Features(normal(1, 50, 4)), Features(normal(2, 80, 4))
    found = mind.function(y, x, directions=130, seed=3)
    by_hand = mind.function(y.cut(50, 3), x, directions=130, seed=3)
    assert [e.value for e in found] == [e.value for e in by_hand]
    assert "cut to 50" in found[0].notes[0]
    assert mind.function(y, x, directions=130, seed=3, equal=False)[0].value != found[0].value
    with pytest.raises(UsageError, match="directions >= 1"):
        mind.function(y, x, directions=0)


@pytest.mark.parametrize("measure", [sliced, debiased, assigned])
def test_transport_is_symmetric_scales_and_forgets_translations(measure) -> None:
    x, y = normal(1, 64, 3, 0.4), normal(2, 64, 3)
    plain = measure(x, y).value
    assert measure(y, x).value == pytest.approx(plain, rel=1e-9)
    assert measure(x + 7, y + 7).value == pytest.approx(plain, rel=1e-9)
    assert measure(100 * x, 100 * y).value == pytest.approx(1e4 * plain, rel=1e-9)


def test_sliced_is_close_to_the_closed_form_of_gaussians() -> None:
    """E over directions of (mean difference)² + (σ_x − σ_y)² along u, for σ_x = 2 and shift 1 in one of 2 features."""
    found = debiased(2 * normal(3, 6000, 2) + [1.0, 0.0], normal(4, 2500, 2), directions=32)
    assert found.low < 1.5 < found.high
    assert found.value == pytest.approx(1.5, rel=0.08)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (200, 330), (300, 75)])
def test_debiased_is_zero_on_average_for_equal_laws(n: int, m: int) -> None:
    pairs = [sliced_wasserstein.function(Features(normal(1000 + s, m, 2)), Features(normal(s, n, 2)), directions=8) for s in range(100)]
    plug, found = ([pair[i].value for pair in pairs] for i in (0, 1))
    assert abs(np.mean(found)) < 3 * np.std(found) / 10
    assert np.mean(plug) > 4 * abs(np.mean(found))


def test_potentials_are_the_derivative_of_the_plug_in() -> None:
    """A row that moves by h moves the value by its potential's change to first order: φ(x + h) − φ(x) ≈ 2 h (x − T(x))."""
    x, y = np.sort(normal(1, 400, 1), axis=0), 1 + 2 * normal(2, 400, 1)
    phi = sliced(x, y).influence["gen"]
    middle = slice(40, 360)
    slope = np.gradient(phi, x[:, 0])[middle]
    expected = 2 * (x[:, 0] - np.sort(y[:, 0]))[middle]
    assert np.median(np.abs(slope - expected)) < 0.05


def test_sliced_is_blind_to_a_defect_in_few_of_many_features() -> None:
    x, y = normal(1, 300, 64), normal(2, 300, 64)
    x[:, 0] += 1
    assert debiased(x, y).value < 0.05
    assert debiased(x[:, :1], y[:, :1]).value > 0.5


def test_sliced_sees_a_dropped_class_and_a_collapse() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 400)
    centres = 5 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    y = centres[labels] + 0.1 * normal(2, 400, 2)
    dropped = centres[np.minimum(labels, 2)] + 0.1 * normal(1, 400, 2)
    assert debiased(dropped, y).low > 0
    assert assigned(dropped, y).value > 5 * assigned(centres[labels] + 0.1 * normal(3, 400, 2), y).value


def test_sliced_small_and_equal_samples() -> None:
    few = sliced_wasserstein.function(Features(normal(1, 3, 2)), Features(normal(2, 20, 2)))
    assert few[0].low is None
    assert isinstance(few[1], Undefined)
    middle = sliced_wasserstein.function(Features(normal(1, 20, 2)), Features(normal(2, 20, 2)))
    assert middle[1].interval is None
    same = np.full((80, 2), 3.0)
    assert (sliced(same, same).low, debiased(same, same).high) == (0, 0)
    assert isinstance(sliced_wasserstein.function(Features(1e80 * same), Features(same))[0], Undefined)
    with pytest.raises(UsageError, match="directions"):
        sliced(same, same, directions=0)


# -- exact assignment ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein2_is_the_best_of_all_permutations(seed: int) -> None:
    x, y = normal(seed, 6, 2), normal(seed + 50, 6, 2)
    best = min(float(((x - y[list(p)]) ** 2).sum(axis=1).mean()) for p in itertools.permutations(range(6)))
    assert assigned(x, y).value == pytest.approx(best, rel=1e-12)


def test_wasserstein2_of_shifts_scales_copies_and_lines() -> None:
    x, v = normal(1, 80, 5), np.arange(5.0)
    assert assigned(x + v, x[::-1]).value == pytest.approx(30, rel=1e-9)
    assert assigned(3 * x, x).value == pytest.approx(4 * float((x**2).sum(axis=1).mean()), rel=1e-9)
    copies = assigned(x[::-1], x)
    assert (copies.value, copies.low) == (0, 0)
    line = normal(1, 80, 1), normal(2, 80, 1)
    assert assigned(*line).value == pytest.approx(sliced(*line).value, rel=1e-9)


def test_wasserstein2_is_at_least_d_times_the_sliced_one() -> None:
    x, y = normal(1, 100, 4, 0.3), np.random.default_rng(2).exponential(size=(100, 4))
    assert assigned(x, y).value >= 4 * sliced(x, y).value


def test_potentials_are_feasible_and_tight() -> None:
    from scipy.optimize import linear_sum_assignment

    x, y = normal(1, 60, 3), normal(2, 60, 3)
    cost = ((x[:, None] - y) ** 2).sum(axis=2)
    to = linear_sum_assignment(cost)[1]
    phi = _potential(cost, to)
    psi = np.empty(60)
    psi[to] = cost[np.arange(60), to] - phi
    assert (phi[:, None] + psi <= cost + 1e-9).all()
    assert phi.sum() + psi.sum() == pytest.approx(cost[np.arange(60), to].sum())


def test_larger_sides_are_cut_with_a_note_and_a_baseline() -> None:
    found = assigned(normal(1, 300, 2), normal(2, 900, 2), size=200)
    assert "300 samples against 900 of the reference: cut to 200 each" in found.notes[0]
    assert "two real samples of this size read" in found.notes[1]
    assert found.n == 300
    gen = found.influence["gen"]
    assert gen.shape == (300,)
    assert (gen == 0).sum() == 100
    assert found.influence["ref"].shape == (900,)
    half = (found.high - found.low) / 2
    assert 1.96 * math.sqrt(sum(i.var() / len(i) for i in found.influence.values())) == pytest.approx(half, rel=0.15)
    few = assigned(normal(1, 20, 2), normal(2, 20, 2), baseline=False)
    assert few.low is None
    assert len(few.notes) == 1
    with pytest.raises(UsageError, match="size"):
        assigned(normal(1, 20, 2), normal(2, 20, 2), size=1)


def test_wasserstein2_grows_as_samples_shrink() -> None:
    x, y = normal(1, 400, 3), normal(2, 400, 3)
    assert assigned(x, y, size=50).value > 1.5 * assigned(x, y).value


# -- forward divergence --------------------------------------------------------------------------------------------------------

LOG2PI = math.log(2 * math.pi)


def gaussian(d: int) -> Law:
    return Law("standard normal", d, lambda x: -(x**2).sum(axis=1) / 2 - d / 2 * LOG2PI, d / 2 * (LOG2PI + 1))


def nats(x: np.ndarray, mean: float, scale: float, **fields: object) -> LogLikelihood:
    d = x.shape[1]
    return LogLikelihood(-(((x - mean) / scale) ** 2).sum(axis=1) / 2 - d * (math.log(scale) + LOG2PI / 2), d, **fields)


def test_forward_divergence_of_gaussians() -> None:
    x = normal(1, 20_000, 3)
    found = kl_forward.function(gaussian(3), nats(x, 0.5, 2.0))
    true = 3 * (math.log(2) + 1.25 / 8 - 0.5)
    assert found.low < true < found.high
    assert found.value == pytest.approx(-gaussian(3).entropy - nats(x, 0.5, 2.0).nats.mean())
    assert abs(kl_forward.function(gaussian(3), nats(x, 0.0, 1.0)).value) < 0.05


def test_forward_divergence_turns_a_bound_round() -> None:
    x = normal(1, 100, 2)
    turned = {"lower": "upper", "upper": "lower", "exact": "exact", "estimate": "estimate"}
    for bound, expected in turned.items():
        assert kl_forward.function(gaussian(2), nats(x, 0.0, 1.0, bound=bound)).bound == expected


def test_forward_divergence_needs_the_samples_own_density() -> None:
    x = normal(1, 100, 2)
    for law, test, word in (
        (gaussian(3), nats(x, 0, 1), "dimensions"),
        (gaussian(2), nats(x, 0, 1, measure="mass"), "density"),
        (gaussian(2), LogLikelihood(np.where(np.arange(100) < 3, -np.inf, 0.0), 2), "3 of 100"),
        (gaussian(2), LogLikelihood(np.empty(0), 2), "none"),
    ):
        found = kl_forward.function(law, test)
        assert isinstance(found, Undefined)
        assert word in found.reason
    assert kl_forward.function(gaussian(2), nats(x[:5], 0, 1)).low is None


# -- reverse divergence --------------------------------------------------------------------------------------------------------


def reverse(x: np.ndarray, law: Law, **settings: int):
    return kl_reverse.function(law, Features(x), **settings)


def test_reverse_divergence_of_gaussians() -> None:
    """KL(N(μ, s²) ‖ N(0, 1)) = d ((s² + μ²)/2 − ½ − log s)."""
    for mean, scale in ((0.0, 1.0), (0.0, 1.5), (1.0, 0.6)):
        found = reverse(mean + scale * normal(1, 300, 2), gaussian(2))
        true = 2 * ((scale**2 + mean**2) / 2 - 0.5 - math.log(scale))
        assert found.low < true < found.high, (mean, scale)
        assert found.value == pytest.approx(true, abs=0.25)


def test_equal_laws_have_no_bias_where_the_entropy_estimate_has() -> None:
    """The plain Kozachenko–Leonenko estimate, written out, is off by more than its spread in a mixture of ten narrow modes."""
    from scipy.special import digamma

    centres = 3 * normal(5, 10, 2)

    def log_density(x: np.ndarray) -> np.ndarray:
        squares = ((x[:, None] - centres) ** 2).sum(axis=2)
        return np.logaddexp.reduce(-squares / 0.18, axis=1) - math.log(10) - math.log(2 * math.pi * 0.09)

    law, mine, plain = Law("mixture", 2, log_density, 0.0), [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = centres[rng.integers(0, 10, 200)] + 0.3 * rng.normal(size=(200, 2))
        mine.append(float(_terms(Features(x), law, 5, _nodes(2, 64)).mean()))
        squares = np.sort(((x[:, None] - x) ** 2).sum(axis=2), axis=1)[:, 5]
        plain.append(float((digamma(5) - digamma(200) - np.log(np.pi * squares) - log_density(x)).mean()))
    assert abs(np.mean(mine)) < 0.03
    assert abs(np.mean(plain)) > 2 * abs(np.mean(mine))


def test_reverse_divergence_of_one_mode_of_two_is_log_2() -> None:
    far = Law("two", 1, lambda x: np.logaddexp(-(x[:, 0] ** 2) / 2, -((x[:, 0] - 50) ** 2) / 2) - math.log(2) - LOG2PI / 2, 0.0)
    found = reverse(normal(2, 600, 1), far)
    assert found.low < math.log(2) < found.high
    assert found.value == pytest.approx(math.log(2), abs=0.1)


def test_reverse_divergence_of_a_uniform_law_knows_its_edge() -> None:
    square = Law("square", 2, lambda x: np.where((np.abs(x) <= 1).all(axis=1), -math.log(4), -np.inf), math.log(4))
    x = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    found = reverse(x, square)
    assert found.low < 0 < found.high
    x[:7] += 3
    out = reverse(x, square)
    assert isinstance(out, Undefined)
    assert "7 of 400" in out.reason


def test_a_sample_that_diverged_makes_the_reverse_divergence_large_and_leaves_the_rest_alone() -> None:
    x = normal(1, 400, 2)
    x[7] = 1e9, -3e8
    found = reverse(x, gaussian(2))
    true = (0.5 * float((x[7] ** 2).sum())) / 400  # what it adds to −E log p, all else being of order 1
    assert found.value == pytest.approx(true, rel=1e-6)
    terms = _terms(Features(x), gaussian(2), 5, _nodes(2, 64))
    alone = _terms(Features(np.delete(x, 7, axis=0)), gaussian(2), 5, _nodes(2, 64))
    assert abs(float(np.delete(terms, 7).mean() - alone.mean())) < 0.01


def test_reverse_divergence_says_why_not() -> None:
    x = normal(1, 100, 2)
    assert "dimensions" in reverse(x, gaussian(3)).reason
    assert "more than k" in reverse(x[:5], gaussian(2)).reason
    assert "copies" in reverse(np.repeat(x[:10], 10, axis=0), gaussian(2)).reason
    repeated = reverse(np.repeat(x, 2, axis=0), gaussian(2))
    assert any("200 samples are copies" in note for note in repeated.notes)
    assert reverse(x[:30], gaussian(2)).low is None
    assert "above 5 dimensions" in reverse(normal(1, 100, 6), gaussian(6)).notes[0]
    with pytest.raises(UsageError, match="k >= 2"):
        reverse(x, gaussian(2), k=1)
