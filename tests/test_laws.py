"""Laws that hold for every metric found, and metamorphic relations of each."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from genbench import registry
from genbench.estimate import Estimate, Undefined
from genbench.metric import Metric
from genbench.statistics import Features, LatentPath, Law, LogLikelihood, Moments, Probabilities, Reconstructions

METRICS = registry.modules("metrics")
SEEDS = {"gen": 1, "ref": 2, "train": 3, "test": 4}


def rows(role: str, n: int = 200, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(SEEDS[role])
    return rng.normal(size=(n, d)) + (0.3 if role == "gen" else 0.0)


def view(kind: type, x: np.ndarray, name: str = ""):
    """A statistic of the wanted kind from the same rows."""
    if kind is Features:
        return Features(x, labels=(x[:, 0] > 0).astype(np.int64))
    if kind is Reconstructions:
        images = x[:, np.arange(64) % x.shape[1]].reshape(-1, 1, 8, 8)
        return Reconstructions(images, 0.9 * images)
    if kind is LatentPath:
        return LatentPath(x, 0.9 * x, 0.5)
    if kind is Law:
        return gaussian_law(x.shape[1])
    if kind is Probabilities and name == "stacked_modes":
        digits = (np.resize(x.T, (3, len(x))) > 0).astype(np.int64)
        return Probabilities(np.eye(1000)[digits[0] * 100 + digits[1] * 10 + digits[2]])
    if kind is Probabilities:
        return Probabilities.of_logits(x)
    if kind is Moments:
        return Moments.of(x)
    measure = {"bits_per_dim": "mass", "perplexity": "tokens"}.get(name, "density")
    return LogLikelihood(-np.abs(x[:, 0]), x.shape[1], measure=measure)  # the log of a mass is not above 0


def gaussian_law(d: int) -> Law:
    """Two unit Gaussians 6 apart; the rows are of one of them."""
    modes = np.zeros((2, d))
    modes[1, 0] = 6.0

    def log_density(x: np.ndarray) -> np.ndarray:
        squares = ((x[:, None] - modes) ** 2).sum(axis=2)
        return np.logaddexp.reduce(-squares / 2, axis=1) - math.log(2) - d / 2 * math.log(2 * math.pi)

    return Law("two Gaussians", d, log_density, math.log(2) + d / 2 * math.log(2 * math.pi * math.e), modes, 1.0)


def arguments(metric: Metric, x: Mapping[str, np.ndarray]):
    return {role: view(kinds[0], x[role], metric.name) for role, kinds in metric.needs.items()}


def values(name: str, x: Mapping[str, np.ndarray], **settings: object) -> dict[str, float]:
    found = registry.metric(name)(**arguments(registry.metric(name), x), **settings)
    return {q: e.value for q, e in found.items() if isinstance(e, Estimate)}


DATA = {role: rows(role) for role in SEEDS}


@pytest.mark.parametrize("name", METRICS)
def test_the_same_input_gives_the_same_bits(name: str) -> None:
    metric = registry.metric(name)
    assert metric(**arguments(metric, DATA)) == metric(**arguments(metric, DATA))


@pytest.mark.parametrize("name", METRICS)
def test_values_lie_in_their_range_and_intervals_hold_them(name: str) -> None:
    metric = registry.metric(name)
    for quantity, (q, outcome) in zip(metric.quantities, metric(**arguments(metric, DATA)).items(), strict=True):
        assert isinstance(outcome, Estimate), (q, outcome)
        assert quantity.range[0] <= outcome.value <= quantity.range[1]
        assert outcome.n == 200
        if not quantity.interval:
            assert outcome.low is None
            continue
        assert outcome.low is not None
        assert outcome.high is not None
        assert outcome.low <= outcome.value <= outcome.high
        assert outcome.low < outcome.high or outcome.value == round(outcome.value), "only of a count may all values but one be excluded"


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(9)
    plain, other = values(name, DATA), values(name, {role: x[rng.permutation(len(x))] for role, x in DATA.items()})
    placed = {q.name for q in registry.metric(name).quantities if q.placed}
    for q, value in plain.items():
        if q not in placed:  # the engine puts rows in the order of their digests
            assert other[q] == pytest.approx(value, rel=1e-9, abs=1e-12), q


@pytest.mark.parametrize("name", METRICS)
def test_float32_rows_agree_with_float64_rows(name: str) -> None:
    single = {role: x.astype(np.float32) for role, x in DATA.items()}
    placed = {q.name for q in registry.metric(name).quantities if q.placed}
    for q, value in values(name, single).items():
        assert q in placed or value == pytest.approx(values(name, DATA)[q], rel=1e-4, abs=1e-5), q


DEGENERATE = {
    "n = 0": np.empty((0, 3)),
    "n = 1": rows("gen", 1),
    "n = 2": rows("gen", 2),
    "n = 3": rows("gen", 3),
    "n = k": rows("gen", 5),
    "n = k + 1": rows("gen", 6),
    "n < d": rows("gen", 12, 40),
    "constant": np.full((60, 3), 2.5),
    "duplicates": np.repeat(rows("gen", 6), 10, axis=0),
    "one feature constant": np.concatenate([rows("gen", 60), np.ones((60, 1))], axis=1),
    "large": 1e12 * rows("gen", 60),
    "tiny": 1e-12 * rows("gen", 60),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("both", [True, False])
def test_degenerate_input_has_a_value_or_a_reason(name: str, case: str, both: bool) -> None:
    x = DEGENERATE[case]
    others = rows("ref", 60, x.shape[1])
    metric = registry.metric(name)
    for q, outcome in metric(**arguments(metric, {role: x if both or role == "gen" else others for role in SEEDS})).items():
        if isinstance(outcome, Undefined):
            assert len(outcome.reason) > 10, q
        else:
            assert math.isfinite(outcome.value), q


# -- Fréchet distance ----------------------------------------------------------------------------------------------------------


def fid(gen: np.ndarray, ref: np.ndarray) -> float:
    return values("fid", {"gen": gen, "ref": ref})["fid"]


def rotation(d: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


G, R = DATA["gen"], DATA["ref"]


@pytest.mark.parametrize("pair", [(G, R), (rows("gen", 20, 40), rows("ref", 30, 40)), (rows("gen", 20, 40), rows("ref", 80, 40))])
def test_fid_is_symmetric_and_invariant_to_motion(pair: tuple[np.ndarray, np.ndarray]) -> None:
    g, r = pair
    plain, q = fid(g, r), rotation(g.shape[1])
    assert fid(r, g) == pytest.approx(plain, rel=1e-9)
    assert fid(g + 5, r + 5) == pytest.approx(plain, rel=1e-8)
    assert fid(g @ q, r @ q) == pytest.approx(plain, rel=1e-8)
    assert fid(3 * g, 3 * r) == pytest.approx(9 * plain, rel=1e-9)
    assert fid(-g, -r) == pytest.approx(plain, rel=1e-9)
    assert fid(g, g) == pytest.approx(0, abs=1e-6)


def test_fid_of_a_shift_is_its_square() -> None:
    assert fid(R + np.array([3.0, 0.0, 4.0]), R) == pytest.approx(25, rel=1e-9)


def test_fid_of_padded_features_is_unchanged() -> None:
    pad = np.zeros((200, 4))
    assert fid(np.hstack([G, pad]), np.hstack([R, pad])) == pytest.approx(fid(G, R), rel=1e-7)


def test_fid_adds_over_independent_blocks_of_features() -> None:
    a, b = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.array([[2.0, 0], [-2, 0], [0, 3], [0, -3]])
    assert fid(a, b) == pytest.approx(fid(a[:, :1], b[:, :1]) + fid(a[:, 1:], b[:, 1:]), rel=1e-9)


def test_fid_debiased_is_near_zero_for_equal_laws() -> None:
    """Seeds 0 to 19; each interval misses 0 with at most 5 %, four or more misses of 20 have a chance of 1.6 %."""
    missed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        e = registry.metric("fid")(gen=Features(rng.normal(size=(400, 8))), ref=Features(rng.normal(size=(400, 8))))["fid_debiased"]
        missed += not e.low <= 0 <= e.high
    assert missed <= 3


# -- kernel distance -----------------------------------------------------------------------------------------------------------


def kid(gen: np.ndarray, ref: np.ndarray) -> float:
    return values("kid", {"gen": gen, "ref": ref})["kid"]


@pytest.mark.parametrize("d", [3, 40])
def test_kid_is_symmetric_and_invariant_to_rotation(d: int) -> None:
    g, r, q = rows("gen", 100, d), rows("ref", 80, d), rotation(d)
    assert kid(r, g) == pytest.approx(kid(g, r), rel=1e-9)
    assert kid(g @ q, r @ q) == pytest.approx(kid(g, r), rel=1e-8)


# -- manifolds -----------------------------------------------------------------------------------------------------------------


def prdc(gen: np.ndarray, ref: np.ndarray, **settings: object) -> dict[str, float]:
    return values("prdc", {"gen": gen, "ref": ref}, **settings)


def test_prdc_is_invariant_to_motion_and_scale() -> None:
    plain, q = prdc(G, R), rotation(3)
    assert prdc(G @ q, R @ q) == pytest.approx(plain)
    assert prdc(G + 7, R + 7) == pytest.approx(plain)
    assert prdc(0.01 * G, 0.01 * R) == pytest.approx(plain)


def test_swapping_the_sides_swaps_precision_and_recall() -> None:
    forth, back = prdc(G, R), prdc(R, G)
    assert forth["precision"] == back["recall"]
    assert forth["recall"] == back["precision"]


def test_identical_discrete_data_read_one() -> None:
    x = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    found = prdc(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_copies_read_one(dtype: type) -> None:
    x = (np.random.default_rng(0).normal(size=(300, 64)) + 100).astype(dtype)
    found = prdc(x[::-1], x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_a_collapsed_generator_has_high_precision_and_low_recall() -> None:
    found = prdc(np.repeat(R[:1], 200, axis=0) + 1e-6 * G, R)
    assert found["precision"] == 1
    assert found["recall"] < 0.1


def test_far_away_samples_read_zero() -> None:
    assert prdc(G + 1000, R) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


# -- Inception score -----------------------------------------------------------------------------------------------------------


def score(p: np.ndarray, **settings: object) -> float:
    return registry.metric("inception_score")(gen=Probabilities(p), **settings)["{extractor}_score"].value


def test_scores_of_known_predictions() -> None:
    assert score(np.full((50, 10), 0.1)) == pytest.approx(1)
    assert score(np.eye(10)[np.arange(100) % 10]) == pytest.approx(10)
    assert score(np.tile(np.eye(10)[3], (50, 1))) == pytest.approx(1)


def test_the_score_ignores_class_names_and_repetition() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(6), 100)
    assert score(p[:, ::-1].copy()) == pytest.approx(score(p))
    assert score(np.concatenate([p, p])) == pytest.approx(score(p))


def test_a_sorted_folder_reads_low_only_without_the_shuffle() -> None:
    p = np.eye(10)[np.repeat(np.arange(10), 100)]
    assert score(p, splits=10, shuffle=False) == pytest.approx(1)
    assert score(p, splits=10) > 9


# -- more laws over all metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", METRICS)
def test_a_permutation_moves_a_value_by_less_than_its_interval(name: str, seed: int) -> None:
    """Values that follow the rows' places too: they stay within one half width."""
    rng = np.random.default_rng(seed)
    metric = registry.metric(name)
    plain = metric(**arguments(metric, DATA))
    other = metric(**arguments(metric, {role: x[rng.permutation(len(x))] for role, x in DATA.items()}))
    for q, e in plain.items():
        assert other[q].n == e.n
        assert e.low is None or abs(other[q].value - e.value) <= (e.high - e.low) / 2, q


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", METRICS)
def test_degenerate_input_stays_in_range_and_in_its_interval(name: str, case: str) -> None:
    metric = registry.metric(name)
    found = metric(**arguments(metric, dict.fromkeys(SEEDS, DEGENERATE[case])))
    for quantity, (q, e) in zip(metric.quantities, found.items(), strict=True):
        if isinstance(e, Estimate):
            assert quantity.range[0] <= e.value <= quantity.range[1], q
            assert e.low is None or e.low <= e.value <= e.high, q
            assert e.n == len(DEGENERATE[case]), q


@pytest.mark.parametrize("name", METRICS)
def test_a_call_leaves_its_input_alone(name: str) -> None:
    metric = registry.metric(name)
    copies = {role: x.copy() for role, x in DATA.items()}
    metric(**arguments(metric, copies))
    for role, x in copies.items():
        assert np.array_equal(x, DATA[role]), role


def test_doubling_all_rows_changes_fid_by_the_denominator_only() -> None:
    """Means stay; covariances, and so the rest of the distance, shrink by 2 (n − 1)/(2 n − 1)."""
    square = float(((G.mean(0) - R.mean(0)) ** 2).sum())
    doubled = fid(np.concatenate([G, G]), np.concatenate([R, R]))
    assert doubled - square == pytest.approx((fid(G, R) - square) * 398 / 399, rel=1e-8)


def test_fid_of_a_scaled_copy_is_the_trace() -> None:
    """tr Σ (s − 1)² for centred rows."""
    x = R - R.mean(0)
    assert fid(3 * x, x) == pytest.approx(4 * float(np.trace(np.cov(x, rowvar=False))), rel=1e-9)


def test_kid_is_not_invariant_to_a_translation_but_is_to_the_order_of_features() -> None:
    assert kid(G[:, ::-1].copy(), R[:, ::-1].copy()) == pytest.approx(kid(G, R), rel=1e-9)
    assert kid(G + 3, R + 3) != pytest.approx(kid(G, R), rel=1e-2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_of_equal_discrete_laws_counts_ties(k: int) -> None:
    """Closed balls: every grid point holds copies, so radii are 0 and copies are still inside."""
    x = np.repeat(np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), 30, axis=0)
    found = prdc(x, x[::-1].copy(), k=k)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["density"] == pytest.approx(30 / k)


def test_prdc_of_one_generated_class_loses_recall_and_coverage_only() -> None:
    x = np.repeat(np.array([[0.0], [1.0], [2.0], [3.0]]), 25, axis=0)
    found = prdc(np.zeros((100, 1)), x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 0.25, 0.25)
