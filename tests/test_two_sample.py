"""c2st, nn_two_sample, mmd and cmmd: slow counterparts, closed forms, what they see and what they are blind to."""

import math

import numpy as np
import pytest

from genbench import registry
from genbench.errors import UsageError
from genbench.estimate import Estimate, Undefined
from genbench.metrics import c2st as c2st_module
from genbench.metrics import cmmd as cmmd_module
from genbench.metrics import mmd as mmd_module
from genbench.numerics import square_interval
from genbench.statistics import Features

RNG = np.random.default_rng(3)


def run(name: str, gen: np.ndarray, ref: np.ndarray, **settings: object) -> dict[str, Estimate]:
    return registry.metric(name)(gen=Features(gen), ref=Features(ref), **settings)


def normal(n: int, d: int = 2, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, d)) + shift


def modes(n: int, count: int, seed: int) -> np.ndarray:
    """The first `count` of ten well separated modes in the plane."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(0, count, n) / 10
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(n, 2))


def moons(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t, second = rng.uniform(0, np.pi, n), rng.integers(0, 2, n).astype(bool)
    x = np.stack([np.where(second, 1 - np.cos(t), np.cos(t)), np.where(second, 0.5 - np.sin(t), np.sin(t))], axis=1)
    return x + 0.1 * rng.normal(size=(n, 2))


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("c2st", {"c2st": 0.5}),
        ("nn_two_sample", {"nn_accuracy": 0.5, "nn_accuracy_gen": 0.5}),
        ("mmd", {"mmd": 0}),
        ("cmmd", {"cmmd_debiased": 0}),
    ],
)
def test_equal_laws_lie_in_the_interval(name: str, truth: dict[str, float]) -> None:
    """Of 40 intervals that miss with 5 %, six or more do with a chance of 1.4 %."""
    missed = dict.fromkeys(truth, 0)
    for seed in range(40):
        found = run(name, normal(60, 3, seed), normal(60, 3, 1000 + seed))
        for q, value in truth.items():
            missed[q] += not found[q].low <= value <= found[q].high
    assert max(missed.values()) <= 5


@pytest.mark.parametrize(("name", "q"), [("c2st", "c2st_p"), ("mmd", "mmd_p")])
def test_p_values_of_equal_laws_are_uniform(name: str, q: str) -> None:
    """Of 50, 8 or more below 0.05 have a chance of 0.1 %; the mean of 50 uniform numbers has a standard error of 0.04."""
    p = np.array([run(name, normal(30, 2, seed), normal(30, 2, 1000 + seed))[q].value for seed in range(50)])
    assert (p <= 0.05).sum() < 8
    assert abs(p.mean() - 0.5) < 0.13


@pytest.mark.parametrize("name", ["c2st", "mmd"])
def test_a_dropped_mode_is_seen(name: str) -> None:
    found = run(name, modes(400, 8, 1), modes(400, 10, 2))
    assert found[name].low > registry.metric(name).quantities[0].ideal
    assert found[f"{name}_p"].value < 0.01


def test_a_dropped_mode_is_seen_by_neighbours() -> None:
    found = run("nn_two_sample", modes(1000, 8, 1), modes(1000, 10, 2))
    assert found["nn_accuracy"].low > 0.5
    assert found["nn_accuracy_real"].low > 0.5


# -- classifier ------------------------------------------------------------------------------------------------------------------


def test_a_set_against_itself_reads_one_half() -> None:
    x = normal(100, 3)
    found = run("c2st", x, x[::-1].copy())
    assert found["c2st"].value == 0.5
    assert found["c2st_p"].value == 1


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_copies_of_the_reference_make_no_difference(share: float) -> None:
    """Nearly equal rows with equal digests, as a copy's features may have: neither below nor above one half."""
    ref, n = normal(300, 3, 1), int(300 * share)
    gen = normal(300, 3, 2)
    gen[:n] = ref[:n] + 1e-9 * normal(n, 3, 3)
    digest = np.random.default_rng(0).integers(0, 256, (600, 16), dtype=np.uint8)
    other = np.concatenate([digest[:n], digest[300 + n :]])
    order = np.random.default_rng(1).permutation(300)
    found = registry.metric("c2st")(gen=Features(gen[order], digests=other[order]), ref=Features(ref, digests=digest[:300]))
    assert found["c2st"].low < 0.5 < found["c2st"].high
    assert found["c2st"].value == pytest.approx(0.5, abs=1e-12 if share == 1 else 0.06)


def test_pairs_are_copies_first() -> None:
    ref = np.array([[0.0], [0.0], [1.0], [2.0], [3.0], [-0.0]])
    gen = np.array([[2.0], [0.0], [7.0], [0.0], [2.0], [8.0]])
    i, j = c2st_module._pairs(Features(gen), Features(ref), np.random.default_rng(0))
    assert sorted(i) == sorted(j) == list(range(6))
    assert (gen[i] == ref[j]).sum() == 3  # two zeros and one 2


def test_a_collapsed_generator_is_seen_although_it_repeats_itself() -> None:
    ref = normal(200, 2)
    assert run("c2st", np.repeat(ref[:1], 200, axis=0), ref)["c2st"].low > 0.7


def test_the_kernel_sees_what_a_linear_classifier_does_not() -> None:
    wide, like = normal(400, 4, 1, scale=1.4), moons(400, 1)
    flat = np.random.default_rng(2).multivariate_normal(like.mean(0), np.cov(like.T), 400)
    for gen, ref in ((wide, normal(400, 4, 2)), (flat, moons(400, 3))):
        assert run("c2st", gen, ref)["c2st"].low > 0.55
        blind = run("c2st", gen, ref, classifier="linear")
        assert blind["c2st"].low < 0.5 < blind["c2st"].high
    assert run("c2st", normal(400, 4, 1, shift=0.5), normal(400, 4, 2), classifier="linear")["c2st"].low > 0.6


def test_folds_equal_a_slow_ridge_regression() -> None:
    """Hat matrices in place of eigenvectors, one labelling and one fold at a time."""
    n, p, folds = 30, 7, 3
    gen, ref = RNG.normal(size=(n, p)) + 0.3, RNG.normal(size=(n, p))
    flips = np.where(RNG.random((n, 4)) < 0.5, -1.0, 1.0)
    found = c2st_module._accuracies(gen, ref, flips, folds)
    for column in range(4):
        right = 0
        for k in range(folds):
            train, test = np.arange(n) % folds != k, np.arange(n) % folds == k
            x = np.concatenate([gen[train], ref[train]])
            y = np.concatenate([flips[train, column], -flips[train, column]])
            best = (np.inf, np.zeros(p))
            for penalty in c2st_module.PENALTIES:
                solve = np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(p), x.T)
                gcv = ((y - x @ (solve @ y)) ** 2).sum() / (len(x) - np.trace(x @ solve)) ** 2
                best = min(best, (gcv, solve @ y), key=lambda pair: pair[0])
            right += (np.sign(gen[test] @ best[1]) == flips[test, column]).sum()
            right += (np.sign(ref[test] @ best[1]) == -flips[test, column]).sum()
        assert found[column] == pytest.approx(right / (2 * n))


def test_features_are_standardised_and_projected() -> None:
    rows = normal(300, 600, 1) * np.linspace(1, 1e6, 600) + 5
    rows[:, 0] = 5.0
    phi = c2st_module._features(rows, "kernel", np.random.default_rng(0))
    assert phi.shape == (300, 512 + 2 * 75)
    assert phi.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert (phi**2).mean(axis=0) == pytest.approx(1)
    few = c2st_module._features(rows[:, :3], "linear", np.random.default_rng(0))
    assert (few[:, 0] == 0).all()


def test_c2st_is_invariant_to_scale_of_single_features() -> None:
    gen, ref = normal(100, 3, 1, 0.4), normal(100, 3, 2)
    factors = np.array([1e-6, 1.0, 2.0**20])
    assert run("c2st", gen * factors, ref * factors)["c2st"].value == pytest.approx(run("c2st", gen, ref)["c2st"].value, abs=0.02)


def test_c2st_says_what_it_cuts_and_refuses() -> None:
    found = run("c2st", normal(100, 2, 1), normal(40, 2, 2))["c2st"]
    assert found.n == 100
    assert "100 generated and 40 reference" in found.notes[0]
    assert isinstance(run("c2st", normal(9), normal(40))["c2st"], Undefined)
    for wrong in ({"folds": 1}, {"classifier": "forest"}):
        with pytest.raises(UsageError):
            run("c2st", normal(40), normal(40), **wrong)


# -- nearest neighbours ------------------------------------------------------------------------------------------------------------


def slow_votes(gen: np.ndarray, ref: np.ndarray) -> np.ndarray:
    z, side = np.concatenate([gen, ref]), np.arange(len(gen) + len(ref)) < len(gen)
    votes = np.empty(len(z))
    for i in range(len(z)):
        d = ((z - z[i]) ** 2).sum(axis=1)
        d[i] = np.inf
        near = d <= d.min() * (1 + 1e-12)
        votes[i] = (side[near] == side[i]).mean()
    return votes


@pytest.mark.parametrize(
    "make", [lambda r: r.normal(size=(60, 3)), lambda r: r.integers(0, 2, (60, 5)).astype(float), lambda r: r.integers(0, 3, (60, 1)) * 0.1]
)
def test_votes_equal_brute_force(make) -> None:
    rng = np.random.default_rng(5)
    gen, ref = make(rng), make(rng)
    votes = slow_votes(gen, ref)
    found = run("nn_two_sample", gen, ref)
    assert found["nn_accuracy"].value == pytest.approx(votes.mean(), rel=1e-12)
    assert found["nn_accuracy_gen"].value == pytest.approx(votes[:60].mean(), rel=1e-12)
    assert found["nn_accuracy_real"].value == pytest.approx(votes[60:].mean(), rel=1e-12)
    shuffled = run("nn_two_sample", gen[rng.permutation(60)], ref[rng.permutation(60)])
    for q, e in found.items():
        assert shuffled[q].value == pytest.approx(e.value, rel=1e-12)
        assert shuffled[q].low == pytest.approx(e.low, rel=1e-9)


def test_the_interval_is_the_sum_over_pairs_of_rows_that_meet() -> None:
    """The closed form against a double loop over the edges, for the total."""
    n = 80
    gen, ref = normal(n, 2, 1, 0.3), normal(n, 2, 2)
    z, side = np.concatenate([gen, ref]), np.arange(2 * n) < n
    d = ((z[:, None] - z) ** 2).sum(axis=2) + np.diag(np.full(2 * n, np.inf))
    edge = d.argmin(axis=1)
    vote = (side == side[edge]).astype(float)
    u = vote - vote.mean()
    total = sum(u[i] * u[j] for i in range(2 * n) for j in range(2 * n) if {i, edge[i]} & {j, edge[j]})
    reach = np.array([u[v] + u[edge == v].sum() for v in range(2 * n)])
    total -= n * (reach[side].mean() ** 2 + reach[~side].mean() ** 2)
    design = ((1 + 5 / n) * total + 2) / (2 * n * vote.mean() * (1 - vote.mean()) + 1)
    found = run("nn_two_sample", gen, ref)["nn_accuracy"]
    scale = 1 / math.sqrt(vote.mean() * (1 - vote.mean()) * design / (2 * n))
    z_value = (found.high - found.low) / 2 * scale
    assert 1.9 < z_value < 2.2, "Wilson's half width with a quantile of Student's t"


def test_the_design_effect_of_equal_laws_is_that_of_mutual_neighbours() -> None:
    """Schilling 1986: 1 + share of mutual neighbours, 0.6215 in the plane (Henze 1987)."""
    found = run("nn_two_sample", normal(4000, 2, 1), normal(4000, 2, 2))["nn_accuracy"]
    assert ((found.high - found.low) / 2 / 1.96) ** 2 * 8000 / 0.25 == pytest.approx(1.6215, rel=0.06)


def test_neighbours_show_collapse_and_copies() -> None:
    ref = normal(200, 2, 1)
    collapsed = run("nn_two_sample", 0.01 * normal(200, 2, 2), ref)
    assert collapsed["nn_accuracy_gen"].low > 0.9
    assert collapsed["nn_accuracy_real"].value > 0.9
    truncated = run("nn_two_sample", 0.7 * normal(200, 16, 2), normal(200, 16, 1))
    assert truncated["nn_accuracy_gen"].low > 0.5 > truncated["nn_accuracy_real"].high
    copies = run("nn_two_sample", ref + 1e-6 * normal(200, 2, 3), ref)
    assert copies["nn_accuracy"].high < 0.05
    assert run("nn_two_sample", ref, ref)["nn_accuracy"].value == 0


def test_neighbours_see_frequencies_of_a_discrete_law() -> None:
    gen, ref = (np.repeat([[0.0], [1.0]], counts, axis=0) for counts in ((90, 10), (50, 50)))
    found = run("nn_two_sample", gen, ref)
    assert found["nn_accuracy"].value == pytest.approx((90 * 89 / 139 + 10 * 9 / 59 + 50 * 49 / 139 + 50 * 49 / 59) / 200)
    assert found["nn_accuracy"].low > 0.5


def test_constant_rows_read_one_half_less_a_row() -> None:
    x = np.full((50, 3), 2.5)
    for e in run("nn_two_sample", x, x).values():
        assert e.value == pytest.approx(49 / 99)
        assert e.high - e.low < 0.15


def test_unequal_sides_are_cut() -> None:
    found = run("nn_two_sample", normal(300, 2, 1), normal(100, 2, 2))["nn_accuracy"]
    assert found.n == 300
    assert "cut to 100" in found.notes[0]
    assert found.low < 0.5 < found.high, "without the cut, gen has most of the neighbours"


# -- Gaussian kernel ---------------------------------------------------------------------------------------------------------------


def kernel(x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-((x[:, None] - y) ** 2).sum(axis=2) / (2 * sigma**2))


def slow_mmd(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    n, m = len(x), len(y)
    xx, yy = kernel(x, x, sigma), kernel(y, y, sigma)
    return (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * kernel(x, y, sigma).mean()


def median_distance(x: np.ndarray) -> float:
    return float(np.median(np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))[np.triu_indices(len(x), 1)]))


@pytest.mark.parametrize("bandwidth", [None, 0.7])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mmd_equals_its_formula(bandwidth: float | None, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd_module, "TILE", 16)
    x, y = normal(40, 3, 1, 0.5) + offset, normal(51, 3, 2) + offset
    pooled = np.concatenate([x, y])
    sigma = bandwidth or median_distance(pooled)
    settings = {} if bandwidth is None else {"bandwidth": bandwidth}
    found = run("mmd", x, y, **settings)
    assert found["mmd"].value == pytest.approx(slow_mmd(x, y, sigma), rel=1e-6 if bandwidth is None or offset else 1e-10)
    draw, larger = np.random.default_rng(0), 1
    for _ in range(200):
        first = np.zeros(len(pooled), bool)
        first[draw.permutation(len(pooled))[:40]] = True
        larger += slow_mmd(pooled[first], pooled[~first], sigma) >= slow_mmd(x, y, sigma)
    assert found["mmd_p"].value == pytest.approx(larger / 201, abs=1e-12)


@pytest.mark.parametrize("bandwidth", [None, 1.5])
def test_influences_are_what_a_row_more_or_less_does(bandwidth: float | None) -> None:
    x, y = normal(150, 2, 1, 0.7), normal(120, 2, 2)
    settings = {} if bandwidth is None else {"bandwidth": bandwidth}
    found = run("mmd", x, y, **settings)["mmd"]
    for role, rows in (("gen", x), ("ref", y)):
        left = []
        for i in range(len(rows)):
            pair = {"gen": x, "ref": y, role: np.delete(rows, i, axis=0)}
            sigma = bandwidth or median_distance(np.concatenate([pair["gen"], pair["ref"]]))
            left.append(slow_mmd(pair["gen"], pair["ref"], sigma))
        change = -(len(rows) - 1) * (np.array(left) - np.mean(left))
        assert found.influence[role].mean() == pytest.approx(0, abs=1e-12)
        assert np.corrcoef(change, found.influence[role])[0, 1] > 0.995
        assert found.influence[role].std() == pytest.approx(change.std(), rel=0.05)


def test_mmd_of_gaussians_has_a_closed_form() -> None:
    """k of width σ and two unit Gaussians δ apart: 2 (σ²/(σ² + 2))^(d/2) (1 − exp(−δ²/(2 (σ² + 2))))."""
    d, sigma, shift = 3, 1.3, 0.5
    s = sigma**2 + 2
    truth = 2 * (sigma**2 / s) ** (d / 2) * (1 - math.exp(-d * shift**2 / (2 * s)))
    found = run("mmd", normal(1500, d, 1, shift), normal(1500, d, 2), bandwidth=sigma)["mmd"]
    assert found.low < truth < found.high
    assert found.high - found.low < truth


def test_mmd_is_symmetric_and_invariant_to_motion_and_scale() -> None:
    x, y = normal(80, 3, 1, 0.4), normal(60, 3, 2)
    q = np.linalg.qr(normal(3, 3, 4))[0]
    plain = run("mmd", x, y)["mmd"]
    for other in (run("mmd", y, x), run("mmd", x @ q + 3, y @ q + 3), run("mmd", 1e9 * x, 1e9 * y), run("mmd", x[::-1].copy(), y)):
        assert other["mmd"].value == pytest.approx(plain.value, rel=1e-7)
        assert other["mmd"].high == pytest.approx(plain.high, rel=1e-6)


def test_mostly_copies_still_have_a_bandwidth() -> None:
    x, y = np.concatenate([np.full((90, 2), 3.0), normal(10, 2, 1)]), np.concatenate([np.full((90, 2), 3.0), normal(10, 2, 2)])
    found = run("mmd", x, y)["mmd"]
    assert "bandwidth" in found.notes[0]
    assert 0.5 < float(found.notes[0].split()[1].strip(",")) < 10
    assert found.low < 0 < found.high
    same = run("mmd", np.full((30, 2), 0.1), np.full((30, 2), 0.1))
    assert same["mmd"].value == 0
    assert same["mmd_p"].value == 1


def test_a_permutation_test_on_large_samples_says_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd_module, "MOST", 50)
    found = run("mmd", normal(120, 2, 1, 1.0), normal(40, 2, 2))
    assert found["mmd_p"].notes[0] == "the p-value is of 50 generated and 40 reference samples"
    assert found["mmd_p"].value == 1 / 201
    assert found["mmd"].influence["gen"].shape == (120,)
    assert found["mmd"].low > 0


def test_a_large_side_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(40, 2, 1, 0.5), normal(90, 2, 2)
    whole = run("mmd", x, y, bandwidth=1.0)["mmd"]
    monkeypatch.setattr(mmd_module, "LARGE", 60)
    found = run("mmd", x, y, bandwidth=1.0)["mmd"]
    assert found.notes == ("40 generated and 90 reference samples are cut to 40 and 60",)
    assert found.n == 40
    assert found.value == pytest.approx(slow_mmd(x, Features(y).cut(60, 0).x, 1.0), rel=1e-9)
    assert found.value != whole.value


def test_mmd_refuses_what_it_cannot_use() -> None:
    for wrong in ({"bandwidth": 0.0}, {"bandwidth": math.inf}, {"permutations": 0}):
        with pytest.raises(UsageError):
            run("mmd", normal(20), normal(20), **wrong)
    for gen, settings in ((normal(1), {}), (1e200 * normal(20), {}), (normal(20), {"bandwidth": 1e-200})):
        assert isinstance(run("mmd", gen, normal(20), **settings)["mmd"], Undefined)
    few = run("mmd", normal(3, 2, 1), normal(3, 2, 2))["mmd"]
    assert few.low is None
    assert "3 samples" in few.notes[-1]


def test_mmd_is_blind_to_small_structure_at_the_median_distance() -> None:
    """A two-point law against its blur: seen at the blur's own scale only."""
    rng = np.random.default_rng(0)
    x, y = ((10.0 * rng.integers(0, 2, (200, 1))).repeat(2, axis=1) for _ in range(2))
    x = x + 0.1 * rng.normal(size=x.shape)
    assert run("mmd", x, y)["mmd_p"].value > 0.05
    assert run("mmd", x, y, bandwidth=0.1)["mmd_p"].value < 0.01


# -- CLIP embeddings ---------------------------------------------------------------------------------------------------------------


def slow_cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """The published definition, written out."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return 1000 * (kernel(x, x, 10.0).mean() + kernel(y, y, 10.0).mean() - 2 * kernel(x, y, 10.0).mean())


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 8), (30, 55, 64)])
def test_cmmd_equals_its_formula(n: int, m: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmmd_module, "TILE", 16)
    x, y = normal(n, d, 1, 0.3), normal(m, d, 2)
    found = run("cmmd", x, y)
    assert found["cmmd"].value == pytest.approx(slow_cmmd(x, y), rel=1e-9)
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    assert found["cmmd_debiased"].value == pytest.approx(1000 * slow_mmd(x, y, 10.0), rel=1e-9)


def test_cmmd_is_computed_on_clip_and_says_so_elsewhere() -> None:
    found = registry.metric("cmmd")
    assert found.extractor == "clip"
    x, y = normal(30, 4, 1), normal(30, 4, 2)
    on_clip = found(gen=Features(x, "clip"), ref=Features(y, "clip"))
    assert not any("published" in note for note in on_clip["cmmd"].notes)
    assert any("published values are of clip" in note for note in run("cmmd", x, y)["cmmd"].notes)


def test_cmmd_ignores_norms_but_not_zero_rows() -> None:
    x, y = normal(50, 4, 1, 0.5), normal(50, 4, 2)
    lengths = np.exp(normal(50, 1, 3)) * 1e200
    assert run("cmmd", x * lengths, y)["cmmd"].value == pytest.approx(run("cmmd", x, y)["cmmd"].value, rel=1e-9)
    x[:7] = 0
    found = run("cmmd", x, y)["cmmd"]
    assert any("7 generated and 0 reference rows are zero" in note for note in found.notes)
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    rest = x[7:] / np.linalg.norm(x[7:], axis=1, keepdims=True)
    mixed = np.concatenate([np.zeros((7, 4)), rest])
    parts = kernel(mixed, mixed, 10.0).mean() + kernel(unit, unit, 10.0).mean() - 2 * kernel(mixed, unit, 10.0).mean()
    assert found.value == pytest.approx(1000 * parts, rel=1e-9)


def test_cmmd_is_nearly_ten_times_the_distance_of_mean_directions() -> None:
    x, y = normal(200, 6, 1, 0.8), normal(200, 6, 2)
    mean_x, mean_y = ((z / np.linalg.norm(z, axis=1, keepdims=True)).mean(axis=0) for z in (x, y))
    assert run("cmmd", x, y)["cmmd"].value == pytest.approx(10 * ((mean_x - mean_y) ** 2).sum(), rel=0.03)


def test_cmmd_is_blind_to_variance() -> None:
    """Both laws are symmetric about 0, one of them along one line: their mean directions are equal."""
    x = normal(400, 4, 1) * np.array([1.0, 0.05, 0.05, 0.05])
    found = run("cmmd", x, normal(400, 4, 2))["cmmd_debiased"]
    assert found.value < 0.1
    assert run("mmd", x, normal(400, 4, 2))["mmd_p"].value < 0.01


def test_the_diagonals_lift_cmmd_at_small_samples() -> None:
    small, large = (run("cmmd", normal(n, 8, 1), normal(n, 8, 2)) for n in (20, 400))
    assert small["cmmd"].value > 5 * large["cmmd"].value
    assert small["cmmd_debiased"].low < 0 < small["cmmd_debiased"].high
    lift = small["cmmd"].value - small["cmmd_debiased"].value
    assert any(f"{lift:.3g}" in note for note in small["cmmd"].notes)
    assert small["cmmd"].high - small["cmmd_debiased"].high == pytest.approx(lift)


# -- the interval of a squared distance --------------------------------------------------------------------------------------------


def test_one_direction_gives_the_interval_of_a_square() -> None:
    """For w = (z + δ)² − 1 with z normal: v1 = 4 (w + 1), v2 = 2, lift = 1; the ends are (|z + δ| ± t)²."""
    for root in (0.5, 3.0, 8.0):
        low, high = square_interval(root**2 - 1, 1.0, 4 * root**2, 2.0, 1.96)
        assert high == pytest.approx((root + 1.96) ** 2, rel=0.02)
        assert low <= max(root - 1.96, 0) ** 2 + 1e-9


def test_far_from_zero_the_interval_is_that_of_the_first_order() -> None:
    low, high = square_interval(1.0, 1e-6, 1e-4, 1e-12, 2.0)
    assert (low, high) == (pytest.approx(0.98, abs=2e-4), pytest.approx(1.02, abs=2e-4))
    assert square_interval(0.5, 0.1, 0.0, 0.0, 2.0) == (0.5, 0.5)
