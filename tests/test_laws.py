"""Laws that hold for every metric found, and metamorphic relations of each."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from genbench import registry
from genbench.estimate import Estimate, Undefined
from genbench.metric import Metric
from genbench.statistics import Features, LogLikelihood, Moments, Probabilities

METRICS = registry.modules("metrics")
SEEDS = {"gen": 1, "ref": 2, "train": 3, "test": 4}


def rows(role: str, n: int = 200, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(SEEDS[role])
    return rng.normal(size=(n, d)) + (0.3 if role == "gen" else 0.0)


def view(kind: type, x: np.ndarray):
    """A statistic of the wanted kind from the same rows."""
    if kind is Features:
        return Features(x)
    if kind is Probabilities:
        return Probabilities.of_logits(x)
    if kind is Moments:
        return Moments.of(x)
    return LogLikelihood(x[:, 0], x.shape[1])


def arguments(metric: Metric, x: Mapping[str, np.ndarray]):
    return {role: view(kinds[0], x[role]) for role, kinds in metric.needs.items()}


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
        assert isinstance(outcome, Estimate), q
        assert quantity.range[0] <= outcome.value <= quantity.range[1]
        assert outcome.n == 200
        assert outcome.low is not None
        assert outcome.high is not None
        assert outcome.low <= outcome.value <= outcome.high
        assert outcome.low < outcome.high


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(9)
    plain, other = values(name, DATA), values(name, {role: x[rng.permutation(len(x))] for role, x in DATA.items()})
    for q, value in plain.items():
        if q != "fid_debiased":  # its jackknife blocks follow the rows' places; the engine puts rows in the order of their digests
            assert other[q] == pytest.approx(value, rel=1e-9, abs=1e-12), q


@pytest.mark.parametrize("name", METRICS)
def test_float32_rows_agree_with_float64_rows(name: str) -> None:
    single = {role: x.astype(np.float32) for role, x in DATA.items()}
    for q, value in values(name, single).items():
        assert value == pytest.approx(values(name, DATA)[q], rel=1e-4, abs=1e-5), q


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
