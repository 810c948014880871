"""Metrics that look for copies of training data: authenticity, C_T, MiFID, FLD."""

import math

import numpy as np
import pytest

from genbench import registry
from genbench.errors import UsageError
from genbench.estimate import Estimate, Undefined
from genbench.statistics import Features, Moments

METRICS = ("authenticity", "ct_score", "mifid", "fld")


def call(name: str, x: dict[str, np.ndarray], **settings: object) -> dict[str, Estimate | Undefined]:
    metric = registry.metric(name)
    return metric(**{role: Features(x[role]) for role in metric.needs}, **settings)


def value(name: str, x: dict[str, np.ndarray], quantity: str | None = None, **settings: object) -> float:
    return call(name, x, **settings)[quantity or name].value


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=2))


def drawn(seed: int, n: int = 400, m: int = 400, d: int = 6) -> dict[str, np.ndarray]:
    """Equal laws: two modes."""
    rng = np.random.default_rng(seed)
    sizes = {"gen": n, "ref": m, "train": m, "test": m}
    return {role: rng.normal(size=(k, d)) + 8 * (rng.random((k, 1)) < 0.5) for role, k in sizes.items()}


CLEAN = drawn(0)
COPIED = {**CLEAN, "gen": np.concatenate([CLEAN["train"][:200], CLEAN["gen"][:200]])}


# -- planted copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "quantity"),
    [("authenticity", "authenticity"), ("ct_score", "ct_score"), ("mifid", "memorisation_distance"), ("fld", "fld_gap")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_half_copies_fall_below_the_clean_interval(name: str, quantity: str, dtype: type) -> None:
    clean, copied = (call(name, {role: v.astype(dtype) for role, v in x.items()})[quantity] for x in (CLEAN, COPIED))
    assert copied.high < clean.low


def test_half_copies_halve_what_counts_samples() -> None:
    """Exact copies are never authentic and at cosine distance 0."""
    rest = {**CLEAN, "gen": CLEAN["gen"][:200]}
    assert value("authenticity", COPIED) == pytest.approx(value("authenticity", rest) / 2, rel=1e-12)
    assert value("mifid", COPIED, "memorisation_distance") == pytest.approx(value("mifid", rest, "memorisation_distance") / 2, rel=1e-12)


def test_copies_only() -> None:
    x = {**CLEAN, "gen": CLEAN["train"][::-1].copy()}
    assert value("authenticity", x) == 0
    assert value("mifid", x, "memorisation_distance") == 0
    found = call("ct_score", x)["ct_score"]
    assert {row[3] for row in found.details[0].rows} == {0.0}  # every pair: the copy is nearer
    gap = call("fld", x)["fld_gap"]
    assert gap.high < -100


@pytest.mark.parametrize("seed", range(3))
def test_held_out_rows_as_samples_are_clean(seed: int) -> None:
    x = drawn(seed)
    x["gen"] = x["test"]
    assert value("ct_score", x) == 0
    new, same = (call("fld", {**x, "gen": rows}) for rows in (drawn(seed + 10)["gen"], x["test"]))
    for q in ("fld", "fld_gap"):  # a row does not explain itself
        assert abs(same[q].value - new[q].value) < 1.5 * max(new[q].high - new[q].low, same[q].high - same[q].low)
    found = call("authenticity", x)["authenticity"]
    assert found.low - 0.05 < float(found.notes[0].split()[3].rstrip(":")) < found.high + 0.05


def test_a_dropped_or_preferred_mode_is_not_copying() -> None:
    """Two modes of unlike density: which of them a generator prefers moves distances, but not within a cell."""
    rng = np.random.default_rng(3)

    def two(n: int, share: float) -> np.ndarray:
        dense = rng.random((n, 1)) < share
        return np.where(dense, 0.3 * rng.normal(size=(n, 4)), 20 + 3 * rng.normal(size=(n, 4)))

    x = {"gen": two(800, 0.9), "train": two(800, 0.5), "test": two(800, 0.5)}
    found = call("ct_score", x, cells=2)["ct_score"]
    assert found.low < 0 < found.high
    assert value("ct_score", x, cells=1) < -5  # without cells it looks like copying
    dropped = call("ct_score", {**x, "gen": two(800, 1.0)}, cells=2)["ct_score"]
    assert dropped.low < 0 < dropped.high
    assert "1 of 2 cells" in dropped.notes[0]


def test_samples_too_far_off_are_underfitting_and_hide_nothing_from_authenticity() -> None:
    x = {**CLEAN, "gen": CLEAN["gen"] + 5 * np.random.default_rng(1).normal(size=(400, 6))}
    assert call("ct_score", x, cells=2)["ct_score"].low > 3
    assert value("authenticity", x) > 0.95
    assert value("fld", x) > value("fld", CLEAN)


# -- authenticity --------------------------------------------------------------------------------------------------------------


def authentic(gen: np.ndarray, train: np.ndarray) -> float:
    count = 0
    for g in gen:
        to_train = np.sqrt(((train - g) ** 2).sum(axis=1))
        star = int(to_train.argmin())
        others = np.delete(train, star, axis=0)
        count += bool(to_train[star] > np.sqrt(((others - train[star]) ** 2).sum(axis=1)).min())
    return count / len(gen)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(30, 20, 2), (7, 90, 5), (90, 3, 1)])
def test_authenticity_is_its_definition(shape: tuple[int, int, int], seed: int) -> None:
    n, m, d = shape
    rng = np.random.default_rng(seed)
    x = {"gen": 1.5 * rng.normal(size=(n, d)), "train": rng.normal(size=(m, d))}
    assert value("authenticity", x) == authentic(x["gen"], x["train"])


def test_authenticity_of_points_on_a_line() -> None:
    """Train 0, 1, 10: spacings 1, 1, 9. A tie is not authentic."""
    train = np.array([[0.0], [1.0], [10.0]])
    for at, expected in ((-0.9, 0), (-1.0, 0), (-1.1, 1), (2.5, 1), (6.0, 0), (18.9, 0), (19.1, 1), (10.0, 0)):
        assert value("authenticity", {"gen": np.array([[at]]), "train": train}) == expected, at


def test_real_data_read_a_third_in_one_dimension_and_the_note_says_so() -> None:
    """g falls into a gap of size-biased length L between neighbours: P(U L/2 > min(L, next gap)) = 1/3 for exponential gaps."""
    rng = np.random.default_rng(0)
    found = call("authenticity", {"gen": rng.random((3000, 1)), "train": rng.random((3000, 1))})["authenticity"]
    assert found.value == pytest.approx(1 / 3, abs=0.03)
    assert float(found.notes[0].split()[3].rstrip(":")) == pytest.approx(1 / 3, abs=0.06)


def test_held_out_training_rows_are_left_out_of_the_spacing() -> None:
    """Train 0, 1, 3: 0 is 1 from 1, whose spacing is 2 without it; 1 is 1 from 0, whose is 3; 3 is 2 from 1, whose is 1."""
    found = call("authenticity", {"gen": np.zeros((1, 1)), "train": np.array([[0.0], [1.0], [3.0]])})["authenticity"]
    assert found.notes[0].startswith("real samples read 0.333")


def test_authenticity_widens_where_samples_share_training_rows() -> None:
    rng = np.random.default_rng(0)
    gen = rng.normal(size=(2000, 2))
    few, many = (call("authenticity", {"gen": gen, "train": rng.normal(size=(m, 2))})["authenticity"] for m in (20, 4000))
    assert few.high - few.low > 2 * (many.high - many.low)


# -- C_T -----------------------------------------------------------------------------------------------------------------------


def mann_whitney(gen: np.ndarray, test: np.ndarray) -> float:
    from scipy.stats import mannwhitneyu

    n, m = len(gen), len(test)
    return (mannwhitneyu(gen, test).statistic - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


def test_one_cell_is_the_mann_whitney_z() -> None:
    x = {**drawn(1, 150, 90), "gen": 0.8 * drawn(1, 150, 90)["gen"]}
    to_gen, to_test = (distances(x[role], x["train"]).min(axis=1) for role in ("gen", "test"))
    assert value("ct_score", x, cells=1) == pytest.approx(mann_whitney(to_gen, to_test), rel=1e-12)


def test_cells_are_averaged_by_their_test_mass() -> None:
    """Modes far apart are the cells, whatever the start of k-means."""
    rng = np.random.default_rng(2)
    sizes = {"gen": (50, 80), "train": (100, 60), "test": (150, 40)}
    x = {r: np.concatenate([rng.normal(size=(k, 3)) + 1000 * c for c, k in enumerate(s)]) for r, s in sizes.items()}
    expected = 0.0
    for c in range(2):
        part = {role: v[(v[:, 0] > 500) == bool(c)] for role, v in x.items()}
        to_gen, to_test = (distances(part[role], part["train"]).min(axis=1) for role in ("gen", "test"))
        expected += sizes["test"][c] / 190 * mann_whitney(to_gen, to_test)
    found = call("ct_score", x, cells=2)["ct_score"]
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert sorted(row[1:3] for row in found.details[0].rows) == [(50, 150), (80, 40)]
    alone = call("ct_score", x, cells=2, smallest=60)["ct_score"]
    assert alone.n == 130
    assert "1 cells instead of 2" in alone.notes[0]


def test_the_standard_error_at_equal_laws_is_that_of_a_z() -> None:
    one, four = (call("ct_score", drawn(5, 1000, 1000), cells=c)["ct_score"] for c in (1, 4))
    assert (one.high - one.low) / 2 == pytest.approx(1.96, rel=0.05)
    shares = np.array([row[2] for row in four.details[0].rows]) / 1000
    assert (four.high - four.low) / 2 == pytest.approx(1.96 * math.sqrt((shares**2).sum()), rel=0.1)


def test_influences_make_the_standard_error() -> None:
    found = call("ct_score", COPIED)["ct_score"]
    variance = sum(float(h.var(ddof=1)) / len(h) for h in found.influence.values())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=1e-4)
    assert all(abs(h.mean()) < 1e-9 for h in found.influence.values())


# -- MiFID ---------------------------------------------------------------------------------------------------------------------


def cosine(gen: np.ndarray, train: np.ndarray) -> float:
    return float(np.mean([min(1 - g @ t / math.sqrt((g @ g) * (t @ t)) for t in train) for g in gen]))


@pytest.mark.parametrize("shape", [(20, 30, 4), (15, 40, 80)])
def test_memorisation_distance_is_the_mean_over_generated_samples(shape: tuple[int, int, int]) -> None:
    n, m, d = shape
    rng = np.random.default_rng(0)
    x = {"gen": rng.normal(size=(n, d)), "train": rng.normal(size=(m, d)), "ref": rng.normal(size=(m, d))}
    expected = cosine(x["gen"], x["train"])
    assert value("mifid", x, "memorisation_distance") == pytest.approx(expected, rel=1e-12)
    single = {role: v.astype(np.float32) for role, v in x.items()}
    assert value("mifid", single, "memorisation_distance") == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(cosine(x["train"], x["gen"]), rel=1e-2)  # the mean over training samples


def test_a_few_copies_repeated_read_zero_though_most_of_train_is_far_from_them() -> None:
    x = {**CLEAN, "gen": np.repeat(CLEAN["train"][:4], 50, axis=0)}
    assert value("mifid", x, "memorisation_distance") == 0
    assert cosine(x["train"], x["gen"][::50]) > 0.01


def test_the_distance_sees_directions_only_and_keeps_their_sign() -> None:
    e = np.eye(3)
    far = {"gen": np.array([[0.0, 0, -2]]), "train": 5 * e[2:], "ref": e}
    assert value("mifid", far, "memorisation_distance") == 2
    assert value("mifid", {**far, "gen": 1e-200 * e[2:]}, "memorisation_distance") == 0
    assert value("mifid", {**far, "gen": 1e200 * e[2:]}, "memorisation_distance") == 0


def test_rows_of_zeros_have_a_distance() -> None:
    e, zero = np.eye(2), np.zeros((1, 2))
    for gen, train, expected in (
        (zero, e, 1),
        (zero, np.vstack([e, zero]), 0),
        (-e[:1], np.vstack([e[:1], zero]), 1),
        (e, zero, 1),
        (zero, zero, 0),
    ):
        assert value("mifid", {"gen": gen, "train": train, "ref": e}, "memorisation_distance") == expected


def test_the_penalty_is_kaggles() -> None:
    fid = value("fid", {"gen": COPIED["gen"], "ref": COPIED["ref"]})
    s = value("mifid", COPIED, "memorisation_distance")
    assert value("mifid", COPIED, tau=s / 2) == pytest.approx(fid, rel=1e-9)
    assert value("mifid", COPIED, tau=2 * s) == pytest.approx(fid / (s + 1e-6), rel=1e-9)
    assert value("mifid", COPIED, tau=2 * s, eps=0.5) == pytest.approx(fid / (s + 0.5), rel=1e-9)
    exact = {**CLEAN, "gen": CLEAN["train"]}
    assert value("mifid", exact) == pytest.approx(1e6 * value("fid", {"gen": CLEAN["train"], "ref": CLEAN["ref"]}), rel=1e-6)


def test_the_note_says_whether_the_penalty_is_active() -> None:
    assert "no penalty" in call("mifid", CLEAN, tau=0.0)["mifid"].notes[0]
    assert "multiplied by" in call("mifid", CLEAN, tau=2.0)["mifid"].notes[0]


def test_a_statistics_file_as_reference_has_no_sampling_error() -> None:
    mifid, gen, train = registry.metric("mifid"), Features(CLEAN["gen"] + 1), Features(CLEAN["train"])
    ref = Features(CLEAN["ref"])
    moments = Moments.of(ref)
    fixed, sample = (mifid(ref=r, gen=gen, train=train)["mifid"] for r in (Moments(None, moments.mean, moments.cov), ref))
    assert fixed.value == pytest.approx(sample.value, rel=1e-9)
    assert fixed.high - fixed.low < sample.high - sample.low


def test_influences_of_the_penalty_are_those_of_leaving_a_row_out() -> None:
    found = call("mifid", COPIED, tau=2.0)["mifid"]
    for i in (0, 210, 399):
        without = value("mifid", {**COPIED, "gen": np.delete(COPIED["gen"], i, axis=0)}, tau=2.0)
        assert 399 * (found.value - without) == pytest.approx(found.influence["gen"][i], rel=0.15, abs=0.05 * found.value)


# -- FLD -----------------------------------------------------------------------------------------------------------------------


def log_density(x: np.ndarray, centres: np.ndarray, variances: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    terms = [multivariate_normal(c, v * np.eye(len(c))).logpdf(x) for c, v in zip(centres, variances, strict=True)]
    return logsumexp(terms, axis=0) - math.log(len(centres))


def bandwidths(centres: np.ndarray, train: np.ndarray) -> np.ndarray:
    """EM, one component at a time."""
    from scipy.stats import multivariate_normal

    d, n = train.shape[1], len(centres)
    s = np.maximum((distances(train, centres) ** 2).min(axis=0) / d + 1e-3 / d, 1e-4)
    mean = train.mean(axis=0)
    broad = float(((train - mean) ** 2).mean())
    for _ in range(20):
        parts = np.array([multivariate_normal(c, v * np.eye(d)).pdf(train) / n for c, v in zip(centres, s, strict=True)])
        around = multivariate_normal(mean, broad * np.eye(d)).pdf(train)
        total = parts.sum(axis=0) + around
        for j in range(n):
            r = parts[j] / total
            s[j] = max(float((r * ((train - centres[j]) ** 2).mean(axis=1)).sum() / r.sum()), 1e-4)
        r = around / total
        broad = float((r * ((train - mean) ** 2).mean(axis=1)).sum() / r.sum())
    return s


def test_fld_is_its_definition() -> None:
    x = {role: v[:40] for role, v in drawn(1, d=2).items()}
    x["gen"] = 1.1 * x["gen"][:20]  # as many as half of train, so that all are used
    mean, sd = x["train"].mean(axis=0), x["train"].std(axis=0)
    gen, train, test = ((x[role] - mean) / sd for role in ("gen", "train", "test"))
    s = bandwidths(gen, train)
    on_train, on_test = log_density(train, gen, s), log_density(test, gen, s)
    found = call("fld", x)
    assert found["fld_gap"].value == pytest.approx(50 * (on_test.mean() - on_train.mean()), rel=1e-9)

    draw = np.random.default_rng(0)
    draw.permutation(20)
    order = draw.permutation(40)
    real, rest = np.sort(order[:20]), np.sort(order[20:])
    baseline = log_density(test, train[real], bandwidths(train[real], train[rest]))
    assert found["fld"].value == pytest.approx(50 * (baseline.mean() - on_test.mean()), rel=1e-9)


def test_fld_of_equal_laws_is_near_zero_and_of_a_worse_generator_is_not() -> None:
    x = drawn(2, 300, 1200)
    found = call("fld", x)["fld"]
    assert found.low < 0 < found.high
    one_mode = {**x, "gen": x["gen"][x["gen"].mean(axis=1) > 4]}
    for gen in (1.5 * x["gen"], x["gen"] + 2, one_mode["gen"]):
        assert call("fld", {**x, "gen": gen})["fld"].low > found.high


def test_fld_does_not_depend_on_the_features_units() -> None:
    plain = call("fld", CLEAN)
    units = np.array([1e-3, 1e3, 5, 0.1, 1, 7])
    other = call("fld", {role: units * v + 3 for role, v in CLEAN.items()})
    for q, e in plain.items():
        assert other[q].value == pytest.approx(e.value, rel=1e-6)
        assert other[q].high == pytest.approx(e.high, rel=1e-6)


def test_copies_are_not_thinned_away() -> None:
    """A part of train is kept, but every copied row of it: the gap is about that with all of train."""
    rng = np.random.default_rng(4)
    x = {"gen": rng.normal(size=(100, 5)), "train": rng.normal(size=(1000, 5)), "test": rng.normal(size=(500, 5))}
    x["gen"][:50] = x["train"][rng.permutation(1000)[:50]]
    whole, thin = (call("fld", x, size=size)["fld_gap"] for size in (2000, 200))
    assert thin.low < whole.value < thin.high
    assert whole.value != thin.value == pytest.approx(whole.value, rel=0.35)
    rest = call("fld", {**x, "gen": rng.normal(size=(100, 5))}, size=200)["fld_gap"]
    assert thin.high < rest.low


def test_fld_says_what_real_data_read() -> None:
    found = call("fld", CLEAN)["fld_gap"]
    real = float(found.notes[-1].split()[3].rstrip(":"))
    assert found.low - 10 < real < found.high + 10
    assert "200 of 400 generated samples used" in found.notes[0]


# -- settings and degenerate input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ct_score", {"cells": 0}), ("ct_score", {"smallest": 1}), ("mifid", {"eps": 0.0}), ("mifid", {"tau": -1.0}), ("fld", {"size": 1})],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=name):
        call(name, CLEAN, **settings)


EMPTY = np.empty((0, 6))


@pytest.mark.parametrize("role", ["gen", "train", "test", "ref"])
@pytest.mark.parametrize("name", METRICS)
def test_an_empty_side_has_a_reason(name: str, role: str) -> None:
    if role in registry.metric(name).needs:
        found = call(name, {**CLEAN, role: EMPTY})
        assert any(isinstance(e, Undefined) and "found" in e.reason for e in found.values())


ODD = {
    "grid": np.random.default_rng(0).integers(0, 2, (80, 6)).astype(float),
    "one outlier": np.concatenate([CLEAN["gen"][:79], np.full((1, 6), 1e9)]),
    "all at one train row": np.repeat(CLEAN["train"][:1], 80, axis=0),
    "zeros": np.zeros((80, 6)),
    "huge": 1e60 * CLEAN["gen"][:80],
    "subnormal": 1e-310 * CLEAN["gen"][:80],
    "integers": np.arange(480.0).reshape(80, 6),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("where", ["gen", "train", "test", "all"])
@pytest.mark.parametrize("name", METRICS)
def test_odd_rows_give_finite_values_within_their_intervals(name: str, where: str, case: str) -> None:
    metric = registry.metric(name)
    x = {role: ODD[case] if where in (role, "all") else v for role, v in CLEAN.items()}
    for quantity, e in zip(metric.quantities, call(name, x).values(), strict=True):
        if isinstance(e, Undefined):
            assert len(e.reason) > 10
            continue
        assert quantity.range[0] <= e.value <= quantity.range[1]
        assert e.low is None or (math.isfinite(e.low) and math.isfinite(e.high) and e.low <= e.value <= e.high)


def test_fewer_distinct_rows_than_cells() -> None:
    x = {role: np.repeat(np.eye(3), 100, axis=0) for role in ("gen", "train", "test")}
    assert value("ct_score", x, cells=6) == 0


def test_authenticity_of_duplicated_training_rows_counts_them_as_their_own_neighbours() -> None:
    train = np.repeat(np.array([[0.0], [5.0]]), 2, axis=0)
    assert value("authenticity", {"gen": np.array([[0.0], [0.1], [5.0], [6.0]]), "train": train}) == 0.5
