"""PRD, α-precision and β-recall, Clipped Density and Coverage, CAS: transcriptions of their formulas, closed forms, planted defects."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import betaln, gammaln

from genbench import registry
from genbench.errors import UsageError
from genbench.estimate import Estimate, Undefined
from genbench.metrics.alpha_precision_beta_recall import _polygon
from genbench.metrics.clipped import _balls, _expected
from genbench.statistics import Features


def call(name: str, gen: np.ndarray, ref: np.ndarray, **settings: object) -> dict[str, Estimate]:
    return registry.metric(name)(ref=Features(ref), gen=Features(gen), **settings)


def read(name: str, gen: np.ndarray, ref: np.ndarray, **settings: object) -> dict[str, float]:
    return {q: e.value for q, e in call(name, gen, ref, **settings).items()}


def normal(seed: int, n: int = 300, d: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def modes(keep: int, n: int, seed: int, first: int = 0) -> np.ndarray:
    """Far modes of equal weight, in turn; rows of a mode differ by little."""
    x = 0.01 * normal(seed, n, 2)
    x[:, 0] += 100.0 * (first + np.arange(n) % keep)
    return x


# -- PRD -----------------------------------------------------------------------------------------------------------------------


def f_scores(gen: np.ndarray, ref: np.ndarray, angles: int = 1001) -> tuple[float, float]:
    """Maximum F_8 and F_1/8 of two histograms, angle by angle from precision and recall."""
    best = [0.0, 0.0]
    for angle in np.linspace(1e-10, np.pi / 2 - 1e-10, angles):
        slope = np.tan(angle)
        p = sum(min(slope * r, g) for r, g in zip(ref, gen, strict=True))
        r = sum(min(r, g / slope) for r, g in zip(ref, gen, strict=True))
        for i, beta in enumerate((8.0, 1 / 8)):
            best[i] = max(best[i], (1 + beta**2) * p * r / (beta**2 * p + r))
    return best[0], best[1]


def test_prd_of_separate_modes_is_that_of_their_histograms() -> None:
    """Far modes are the clusters, whatever the k-means start; the curve is then known."""
    gen = np.concatenate([modes(1, 240, 0), modes(1, 40, 1, first=1), modes(1, 20, 2, first=2)])
    ref = np.concatenate([modes(1, 100, 3), modes(1, 200, 4, first=1)])
    found = read("prd", gen, ref, clusters=3, runs=2)
    f8, f1_8 = f_scores(np.array([240, 40, 20]) / 300, np.array([100, 200, 0]) / 300)
    assert found["prd_f8"] == pytest.approx(f8, rel=1e-9)
    assert found["prd_f1_8"] == pytest.approx(f1_8, rel=1e-9)


def test_prd_curve_runs_from_full_recall_to_full_precision() -> None:
    """Half of ref's modes: no precision is lost and half of the recall; an extra mode is the mirror."""
    half, full = modes(2, 400, 0), modes(4, 400, 1)
    curve = np.array(call("prd", half, full, clusters=4, runs=2)["prd_f8"].details[0].rows)
    assert curve[-1, 0] == pytest.approx(1)
    assert curve[0, 1] == pytest.approx(0.5)
    forth, back = read("prd", half, full, clusters=4, runs=2), read("prd", full, half, clusters=4, runs=2)
    assert forth["prd_f1_8"] > 0.97
    assert forth["prd_f8"] < 0.53
    assert back["prd_f8"] == pytest.approx(forth["prd_f1_8"], rel=1e-2)
    assert back["prd_f1_8"] == pytest.approx(forth["prd_f8"], rel=1e-2)


def test_prd_reads_one_for_equal_rows_and_zero_for_others_far_away() -> None:
    x = normal(0)
    assert list(read("prd", x, x).values()) == pytest.approx([1, 1], abs=1e-9)
    assert list(read("prd", x + 1000, x).values()) == pytest.approx([0, 0], abs=1e-9)


def test_prd_is_blind_within_a_cluster() -> None:
    """Copies of one row per mode read as well as the whole modes."""
    full = modes(4, 400, 1)
    copies = np.repeat(full[:4], 100, axis=0)
    assert list(read("prd", copies, full, clusters=4).values()) == pytest.approx([1, 1], abs=1e-9)


def test_prd_cuts_the_larger_side_and_says_so() -> None:
    found = call("prd", normal(0, 100), normal(1, 500))["prd_f8"]
    assert found.n == 100
    assert any("cut to 100" in note for note in found.notes)
    assert any("few for 20 clusters" in note for note in found.notes)


# -- α-precision and β-recall --------------------------------------------------------------------------------------------------


def authors(real: np.ndarray, fake: np.ndarray, steps: int) -> tuple[float, float]:
    """Level by level, as the paper's curves are drawn: quantile balls, nearest rows; the integrals by the trapezoid rule."""
    levels = np.linspace(0, 1, steps)
    centre, own = real.mean(axis=0), fake.mean(axis=0)
    radii = np.quantile(np.linalg.norm(real - centre, axis=1), levels)
    to_centre = np.linalg.norm(fake - centre, axis=1)
    across, within = cdist(real, fake), cdist(real, real)
    np.fill_diagonal(within, np.inf)
    index = across.argmin(axis=1)
    covered = across.min(axis=1) <= within.min(axis=1)
    matched = np.linalg.norm(fake[index] - own, axis=1)
    matched_radii = np.quantile(matched, levels)
    p = np.array([np.mean(to_centre <= r) for r in radii])
    q = np.array([np.mean(covered & (matched <= r)) for r in matched_radii])
    area = [np.sum((v[1:] + v[:-1]) / 2) / (steps - 1) for v in (np.abs(p - levels), np.abs(q - levels))]
    return 1 - 2 * area[0], 1 - 2 * area[1]


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.6), (0.4, 1.5)])
def test_alpha_precision_and_beta_recall_follow_the_curves(shift: float, stretch: float) -> None:
    real, fake = normal(0), stretch * normal(1) + shift
    found = call("alpha_precision_beta_recall", fake, real)
    precision, recall = authors(real, fake, 20_001)
    assert found["alpha_precision"].value == pytest.approx(precision, abs=5e-3)  # quantiles are interpolated there
    assert found["beta_recall"].value == pytest.approx(recall, abs=5e-3)
    levels, p, r = np.array(found["alpha_precision"].details[0].rows).T
    assert 1 - 2 * np.abs(p - levels).mean() == pytest.approx(precision, abs=0.02)
    assert 1 - 2 * np.abs(r - levels).mean() == pytest.approx(recall, abs=0.02)


def test_the_polygon_is_the_area_between_two_distribution_functions() -> None:
    """Against a fine sum, with ties and crossings."""
    rng = np.random.default_rng(0)
    g, r = rng.integers(0, 6, 40).astype(float), rng.integers(1, 7, 30).astype(float)
    p, a, value = _polygon(g, r, np.full(40, 1 / 40), np.full(30, 1 / 30))
    x = np.linspace(0, 1, 400_001)[1:] - 1 / 800_000
    keep = np.append(np.diff(a) > 0, True)  # upright pieces have no area
    assert keep.sum() < len(a)
    assert value == pytest.approx(1 - 2 * np.abs(np.interp(x, a, p) - x).mean(), abs=1e-5)


def test_alpha_precision_sees_distances_and_nothing_else() -> None:
    real, fake = normal(0, 800, 2), normal(1, 800, 2)
    assert call("alpha_precision_beta_recall", np.abs(fake), real)["alpha_precision"].value > 0.9  # one quadrant, at the same distances
    assert read("alpha_precision_beta_recall", 0.2 * fake, real)["alpha_precision"] < 0.3
    assert read("alpha_precision_beta_recall", fake + 100, real)["alpha_precision"] == pytest.approx(0, abs=1e-9)


def test_beta_recall_of_equal_laws_is_the_chance_to_be_covered() -> None:
    """A ref row's nearest gen row is nearer than its k nearest others with probability 1 − 2^−k."""
    real, fake = normal(0, 1000), normal(1, 1000)
    for k in (1, 3):
        found = call("alpha_precision_beta_recall", fake, real, k=k)["beta_recall"]
        assert found.low < 1 - 2.0**-k < found.high


def test_beta_recall_sees_a_collapse_but_not_a_dropped_outer_mode() -> None:
    """Rows of the outer mode weigh least, and the modes that are kept hold more rows each."""
    full = modes(4, 400, 0)
    all_of_them, three, one = (read("alpha_precision_beta_recall", modes(keep, 400, 1), full)["beta_recall"] for keep in (4, 3, 1))
    assert three > all_of_them
    assert one < 0.8 * all_of_them


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_equal_discrete_data_read_one(levels: int) -> None:
    x = np.random.default_rng(0).integers(0, levels, (300, 2)).astype(float)
    found = read("alpha_precision_beta_recall", x[::-1].copy(), x)
    assert found["alpha_precision"] == pytest.approx(1, abs=1e-9)
    assert found["beta_recall"] == pytest.approx(1, abs=1e-9)
    assert list(read("clipped", x[::-1].copy(), x).values()) == [1, 1]


# -- Clipped Density and Coverage ----------------------------------------------------------------------------------------------


def transcribed(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """The definitions in loops, with the whole distance matrices; f by its double sum."""
    n, m = len(fake), len(real)
    within, across = cdist(real, real), cdist(real, fake)
    radius = np.array([np.sort(np.delete(within[j], j))[k - 1] for j in range(m)])
    short = np.minimum(radius, np.median(radius))

    def score(i: int, distances: np.ndarray, own: bool) -> float:
        return min(1.0, sum(distances[j, i] <= short[j] for j in range(m) if not (own and i == j)) / k)

    density = np.mean([score(i, across, False) for i in range(n)]) / np.mean([score(i, within, True) for i in range(m)])
    raw = np.mean([min(k, (across[j] <= radius[j]).sum()) / k for j in range(m)])

    def f(i: int) -> float:
        total = 0.0
        for j in range(i + 1):
            chance = np.exp(gammaln(i + 1) - gammaln(j + 1) - gammaln(i - j + 1) + betaln(j + k, i - j + m - k) - betaln(k, m - k))
            total += min(j, k) / k * chance
        return total

    values = [f(i) for i in range(n + 1)]
    above = next((i for i, v in enumerate(values) if v >= raw), None)
    if above is None:
        coverage = 1.0
    else:
        coverage = 0.0 if above == 0 else (above - 1 + (raw - values[above - 1]) / (values[above] - values[above - 1])) / n
    return min(1.0, density), coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (9.0, 1.0)])
def test_clipped_follows_its_definition(k: int, shift: float, stretch: float) -> None:
    real, fake = normal(0, 60), stretch * normal(1, 60) + shift
    found = call("clipped", fake, real, k=k)
    density, coverage = transcribed(real, fake, k)
    assert found["clipped_density"].value == pytest.approx(density, rel=1e-9)
    assert found["clipped_coverage"].value == pytest.approx(coverage, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_balls_are_counted_exactly(dtype: type) -> None:
    """Single precision, a far offset, copies and rows exactly on the boundary; more rows than one tile."""
    x, y = ((normal(s, n, 64) + 30).astype(dtype) for s, n in ((0, 2100), (1, 2200)))
    y[:50] = x[:50]
    exact = ((x[:300].astype(np.float64)[:, None] - y[None, :700]) ** 2).sum(axis=2)
    radius = np.full(700, 90.0)
    radius[:50], radius[50:100] = 0.0, exact[np.arange(50), np.arange(50, 100)]
    wanted = (exact * (1 - 1e-12) <= radius).sum(axis=1)
    assert wanted[:50].min() >= 1
    assert np.array_equal(_balls(x[:300], y[:700], radius), wanted)
    large = np.full(len(y), 1e6)
    assert np.array_equal(_balls(x, y, large), np.full(len(x), len(y)))


def test_expected_coverage_is_that_of_uniform_draws() -> None:
    """f against a simulation on the circle; f(0) = 0 and f rises."""
    n, m, k, rng = 40, 50, 3, np.random.default_rng(0)
    found = []
    for _ in range(1500):
        real, fake = rng.random((m, 1)), rng.random((n, 1))
        apart, across = (np.abs(real - z.T) for z in (real, fake))
        apart, across = np.minimum(apart, 1 - apart), np.minimum(across, 1 - across)
        radius = np.sort(apart, axis=1)[:, k]
        found.append(np.minimum((across <= radius[:, None]).sum(axis=1), k).mean() / k)
    expected = _expected(n, m, k)
    assert expected[0] == 0
    assert (np.diff(expected) > 0).all()
    assert expected[-1] == pytest.approx(np.mean(found), abs=4 * np.std(found) / 1500**0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_clipped_reads_the_share_of_good_samples(share: float) -> None:
    """The promise of the paper: both fall linearly with samples that are far away."""
    fake = normal(1, 1000)
    fake[: round((1 - share) * 1000)] += 1000
    for e in call("clipped", fake, normal(0, 1000)).values():
        assert e.low < share < e.high
        assert e.value == pytest.approx(share, abs=0.06)


def test_outliers_of_the_reference_hardly_move_clipped() -> None:
    """Unclipped density counts bad samples around one outlier; the clipped one does not."""
    real, fake = normal(0, 500), normal(1, 500)
    fake[:250] = 300 + 20 * normal(2, 250)
    spoilt = real.copy()
    spoilt[:6] = 300 + 40 * normal(3, 6)  # six real outliers whose balls hold the bad samples
    clean, dirty = read("clipped", fake, real), read("clipped", fake, spoilt)
    assert abs(dirty["clipped_density"] - clean["clipped_density"]) < 0.02
    assert abs(dirty["clipped_coverage"] - clean["clipped_coverage"]) < 0.03
    density = [call("prdc", fake, x, baseline=False)["density"].value for x in (real, spoilt)]
    assert density[1] > density[0] + 0.2


def test_a_dropped_mode_lowers_coverage_only() -> None:
    found = read("clipped", modes(2, 600, 1), modes(4, 600, 0))
    assert found["clipped_density"] > 0.85
    assert found["clipped_coverage"] < 0.6


def test_what_was_clipped_is_told() -> None:
    """Samples at the centre of ref lie in more balls than real ones do."""
    found = call("clipped", 0.3 * normal(1, 400), normal(0, 400))["clipped_density"]
    assert found.value == 1
    assert found.low < 1
    assert "before it was clipped" in " ".join(found.notes)


# -- CAS -----------------------------------------------------------------------------------------------------------------------


def labelled(seed: int, n: int = 300, classes: int = 3, distance: float = 2.0, d: int = 4) -> Features:
    rng = np.random.default_rng(seed)
    centres = distance * np.random.default_rng(99).normal(size=(classes, d))
    y = rng.integers(0, classes, n)
    return Features(centres[y] + rng.normal(size=(n, d)), labels=y)


def cas(gen: Features, test: Features, **settings: object) -> Estimate:
    return registry.metric("cas")(gen=gen, test=test, **settings)["cas"]


def test_cas_is_the_accuracy_of_a_softmax_regression() -> None:
    """Against gradient descent on the same penalised likelihood."""
    gen, test = labelled(0, distance=0.8), labelled(1, distance=0.8)
    mean, scale = gen.x.mean(axis=0), gen.x.std(axis=0)
    x, z = (np.column_stack([(v - mean) / scale, np.ones(len(v))]) for v in (gen.x, test.x))
    w, target = np.zeros((5, 3)), np.eye(3)[gen.labels]
    for _ in range(4000):
        p = np.exp(x @ w - (x @ w).max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        w -= 0.005 * (x.T @ (p - target) + np.vstack([w[:-1], np.zeros((1, 3))]))  # the intercept is free
    assert cas(gen, test).value == pytest.approx(np.mean((z @ w).argmax(axis=1) == test.labels), abs=1e-9)


def test_cas_of_ignored_labels_is_chance_and_of_good_ones_is_high() -> None:
    gen, test = labelled(0), labelled(1, 600)
    good = cas(gen, test)
    mixed = cas(Features(gen.x, labels=np.random.default_rng(2).integers(0, 3, 300)), test)
    assert good.low > 0.85
    assert mixed.low < 0.6
    assert cas(Features(np.random.default_rng(3).permutation(gen.x), labels=gen.labels), test).high < 0.8


def test_cas_is_invariant_to_shift_and_scale_of_single_features() -> None:
    gen, test = labelled(0, distance=0.7), labelled(1, distance=0.7)
    a, b = np.array([1e3, 1e-3, 5.0, 1.0]), np.array([7.0, 0.0, -3.0, 100.0])
    moved = cas(Features(gen.x * a + b, labels=gen.labels), Features(test.x * a + b, labels=test.labels))
    assert moved.value == pytest.approx(cas(gen, test).value, abs=0.01)


def test_cas_names_missing_classes_and_counts_them_wrong() -> None:
    gen, test = labelled(0), labelled(1)
    kept = gen.take(np.flatnonzero(gen.labels != 2))
    found = cas(kept, test)
    assert "lack the test classes 2" in found.notes[0]
    rows = {row[0]: row[1:] for row in found.details[0].rows}
    assert rows[2][1:] == (0, 0.0)
    assert found.value <= np.mean(test.labels != 2)
    assert sum(tested * accuracy for tested, _, accuracy in rows.values()) == pytest.approx(found.value * 300)


def test_cas_is_not_tested_on_what_it_learnt_from() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60)
    digests = rng.integers(0, 256, (60, 16), dtype=np.uint8)
    test = Features(x, labels=y, digests=digests)
    found = cas(Features(x[:40], labels=y[:40], digests=digests[:40]), test)
    assert "40 of 40" in found.reason
    fresh = rng.integers(0, 256, (40, 16), dtype=np.uint8)
    fresh[:5] = digests[:5]
    found = cas(Features(x[:40], labels=y[:40], digests=fresh), test)
    assert found.notes[0] == "5 generated samples are test samples"


def test_cas_with_one_class_is_its_share() -> None:
    gen, test = labelled(0), labelled(1)
    assert cas(gen.take(np.flatnonzero(gen.labels == 1)), test).value == np.mean(test.labels == 1)


def test_few_generated_samples_widen_the_interval_of_cas() -> None:
    test = labelled(1, 2000, distance=0.5)
    few = labelled(0, 40, distance=0.5)
    free, bound = cas(few, test), cas(few, test, splits=0)
    assert free.value == bound.value
    assert free.high - free.low > 1.5 * (bound.high - bound.low)
    assert any("does not hold" in note for note in bound.notes)


def test_cas_without_labels_says_how_to_give_them() -> None:
    gen, test = labelled(0), labelled(1)
    for found in (cas(Features(gen.x), test), cas(gen, Features(test.x))):
        assert isinstance(found, Undefined)
        assert "sub-folders" in found.reason


# -- all -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("prd", {"clusters": 1}),
        ("prd", {"angles": 2}),
        ("prd", {"runs": 0}),
        ("clipped", {"k": 0}),
        ("alpha_precision_beta_recall", {"k": 0}),
        ("cas", {"penalty": 0.0}),
        ("cas", {"splits": -1}),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict[str, object]) -> None:
    x = labelled(0)
    roles = {"gen": x, "test": x} if name == "cas" else {"gen": x, "ref": x}
    with pytest.raises(UsageError, match=name):
        registry.metric(name)(**roles, **settings)


@pytest.mark.parametrize("name", ["prd", "alpha_precision_beta_recall", "clipped"])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(name: str, scale: float) -> None:
    gen, ref = normal(1) + 0.3, normal(0)
    plain = read(name, gen, ref)
    for q, value in read(name, scale * gen, scale * ref).items():
        assert value == pytest.approx(plain[q], abs=0.02 if name == "prd" else 1e-9), q


@pytest.mark.parametrize("name", ["prd", "alpha_precision_beta_recall", "clipped"])
def test_intervals_of_equal_and_of_different_laws_are_apart(name: str) -> None:
    equal, apart = call(name, normal(1), normal(0)), call(name, normal(1) + 2.0, normal(0))
    for q, e in equal.items():
        assert apart[q].high < e.low, q
