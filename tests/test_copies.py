"""nn_copies and duplicates: planted copies and repeats, what hides them, calibration, ties, reasons."""

import itertools

import numpy as np
import pytest
from scipy.special import betaincinv

from genbench.errors import UsageError
from genbench.estimate import Estimate, Undefined
from genbench.evaluation import evaluate
from genbench.metrics.duplicates import duplicates
from genbench.metrics.nn_copies import nn_copies
from genbench.statistics import Features


def normal(seed: int, n: int, d: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


TRAIN, TEST, NEW = normal(0, 2000), normal(1, 1000), normal(2, 1000)


def copies(gen: np.ndarray, train: np.ndarray = TRAIN, test: np.ndarray = TEST, **settings: object):
    return nn_copies.function(Features(gen), Features(train), Features(test), **settings)


def repeats(gen: np.ndarray, ref: np.ndarray = TEST, **settings: object):
    return duplicates.function(Features(gen), Features(ref), **settings)


def half(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[:500], NEW[:500]])


# -- copies of training data ---------------------------------------------------------------------------------------------------


def test_exact_copies_are_counted_and_named() -> None:
    near, exact = copies(half(TRAIN))
    assert exact.value == 0.5
    assert (exact.low, exact.high) == pytest.approx((betaincinv(500, 501, 0.025), betaincinv(501, 500, 0.975)))
    assert near.value == pytest.approx(0.5, abs=0.02)
    assert near.low > 0.45
    assert near.notes == ("500 of 1,000 samples are exact copies of training samples; 50.3 % of samples are nearer to training data "
                          "than 1 % of held-out ones",)  # fmt: skip
    assert exact.notes == ()  # one verdict


def test_copies_under_small_noise_are_near_but_not_exact() -> None:
    near, exact = copies(half(TRAIN + 1e-4 * normal(3, 2000)))
    assert exact.value == 0
    assert near.value == pytest.approx(0.5, abs=0.02)
    assert near.low > 0.45
    assert "near-copies" in near.notes[0]


def test_new_samples_are_clean() -> None:
    near, exact = copies(NEW)
    assert near.low < 0.01 < near.high
    assert exact.value == 0
    assert near.notes[0].startswith("no sign of copying: ")


def test_held_out_data_are_clean_against_themselves() -> None:
    test = Features(TEST)
    for gen in (test, Features(TEST[::-1].copy())):
        near, exact = nn_copies.function(gen, Features(TRAIN), test)
        assert near.value == pytest.approx(0.01, abs=0.001)
        assert near.notes[0].startswith("no sign of copying: ")
        assert exact.value == 0


def test_the_value_is_the_share_below_the_interpolated_order_statistic() -> None:
    a, b = (np.sqrt(((x[:, None] - TRAIN) ** 2).sum(axis=2)).min(axis=1) for x in (1.1 * NEW[:300], TEST[:299]))
    b.sort()
    for alpha in (0.01, 0.1, 0.305):
        place = alpha * 300
        j = int(place)
        wanted = (1 - place % 1) * (a < b[j - 1]).mean() + place % 1 * (a < b[j]).mean()
        assert copies(1.1 * NEW[:300], test=TEST[:299], alpha=alpha)[0].value == pytest.approx(wanted, abs=1e-12)


def test_equal_laws_read_alpha_on_average_continuous_or_not() -> None:
    for draw in (lambda r, n: r.normal(size=(n, 2)), lambda r, n: r.integers(0, 12, (n, 2)).astype(float)):
        rng = np.random.default_rng(0)
        found = [copies(draw(rng, 60), draw(rng, 80), draw(rng, 29), alpha=0.1)[0] for _ in range(150)]
        values = [e.value for e in found if isinstance(e, Estimate)]
        assert np.mean(values) == pytest.approx(0.1, abs=4 * np.std(values) / 12)
        assert np.std(values) < 0.12


def test_a_real_share_of_exact_copies_is_no_alarm() -> None:
    """Data sets have duplicates across their splits: 3 % here, in test and in gen alike."""
    test, gen = TEST.copy(), NEW.copy()
    test[:30], gen[:30] = TRAIN[:30], TRAIN[100:130]
    near, exact = copies(gen, test=test)
    assert exact.value == 0.03
    assert near.value == pytest.approx(0.01, abs=0.001)
    assert near.low < 0.01 < near.high
    assert near.notes[0].startswith(
        "no sign of copying: 30 of 1,000 samples are exact copies of training samples, of held-out ones 30 of 1,000"
    )
    gen[:200] = TRAIN[:200]
    near = copies(gen, test=test)[0]
    assert near.low > 0.01
    assert near.notes[0].startswith("200 of 1,000")


def test_shrunk_samples_read_as_near_copies_without_an_exact_one() -> None:
    """The known blind spot: the note says both."""
    near, exact = copies(0.5 * NEW)
    assert near.low > 0.01
    assert exact.value == 0
    assert "shrink" in near.notes[0]


def test_pairs_are_the_nearest_first() -> None:
    gen = NEW[:200].copy()
    gen[17], gen[5] = TRAIN[42], TRAIN[7] + 1e-3
    (pairs,) = copies(gen)[0].details
    assert pairs.columns == ("gen", "train", "distance")
    assert pairs.rows[0] == (17, 42, 0.0)
    assert pairs.rows[1] == (5, 7, pytest.approx(np.sqrt(8) * 1e-3))
    assert len(pairs.rows) == 100
    distances = [r[2] for r in pairs.rows]
    assert distances == sorted(distances)
    g, t, d = pairs.rows[50]
    assert d == pytest.approx(np.linalg.norm(gen[g] - TRAIN[t]))


def test_equal_contents_are_copies_whatever_the_features_say() -> None:
    digests = np.random.default_rng(0).integers(0, 256, (2300, 16), dtype=np.uint8)
    train = Features(TRAIN, digests=digests[:2000])
    gen = Features(NEW[:100], digests=np.concatenate([digests[:7], digests[2000:2093]]))
    assert nn_copies.function(gen, train, Features(TEST))[1].value == 0.07


def test_training_data_given_as_samples_are_all_copies() -> None:
    """One object for two roles, as the engine makes of equal samples: a row's own training row is not left out."""
    train = Features(TRAIN)
    near, exact = nn_copies.function(train, train, Features(TEST))
    assert (near.value, exact.value) == (1, 1)
    near, exact = nn_copies.function(Features(NEW), train, train)
    assert isinstance(near, Undefined)
    assert "not fitted on" in near.reason
    assert exact.value == 0


def test_few_held_out_samples_still_tell_half_copies() -> None:
    near, _ = copies(half(TRAIN), test=TEST[:120])
    assert near.low > 0.4
    few = copies(NEW, test=TEST[:120])[0]
    assert few.low < 0.01 < few.high
    assert few.high > 0.02


def test_influence_functions_give_the_variance_and_are_centred() -> None:
    near, exact = copies(0.8 * NEW)
    for e in (near, exact):
        assert all(abs(np.mean(v)) < 1e-12 for v in e.influence.values())
    assert len(near.influence["test"]) == 1000
    se = np.sqrt(sum(np.var(v) / len(v) for v in near.influence.values()))
    assert (near.high - near.low) / 3.92 == pytest.approx(se, rel=0.3)


# -- shifts and flips ----------------------------------------------------------------------------------------------------------

SHAPE = (1, 8, 9)


def images(seed: int, n: int) -> np.ndarray:
    """Bright pixels within a dark margin, so that a shift loses nothing."""
    x = np.zeros((n, *SHAPE))
    x[:, :, 2:-2, 2:-2] = np.random.default_rng(seed).random((n, 1, 4, 5))
    return x.reshape(n, -1)


def pixels(x: np.ndarray) -> Features:
    return Features(x, "pixels", shape=SHAPE)


def moved(x: np.ndarray, dy: int, dx: int, flip: bool) -> np.ndarray:
    square = np.roll(x.reshape(-1, *SHAPE), (dy, dx), (2, 3))
    return (square[..., ::-1] if flip else square).reshape(len(x), -1)


I_TRAIN, I_TEST, I_NEW = images(0, 400), images(1, 250), images(2, 200)


@pytest.mark.parametrize(("dy", "dx", "flip"), [(1, 0, False), (0, -1, False), (-1, 1, False), (0, 0, True), (1, 1, True)])
def test_moved_copies_show_only_where_they_are_looked_for(dy: int, dx: int, flip: bool) -> None:
    gen = np.concatenate([moved(I_TRAIN[:100], dy, dx, flip), I_NEW[:100]])

    def value(**settings: object) -> float:
        near, exact = nn_copies.function(pixels(gen), pixels(I_TRAIN), pixels(I_TEST), **settings)
        assert exact.value == 0
        return near.value

    assert value() < 0.1
    assert value(shift=1, flip=True) == pytest.approx(0.5, abs=0.03)
    assert (value(shift=1) > 0.4) == (not flip)
    assert (value(flip=True) > 0.4) == (dy == dx == 0)


def test_the_distance_is_the_least_over_all_versions() -> None:
    gen, train = np.random.default_rng(3).random((2, 30, 72))
    wanted = np.full(30, np.inf)
    for dy, dx, flip in itertools.product((-1, 0, 1), (-1, 0, 1), (False, True)):
        padded = np.pad(gen.reshape(-1, *SHAPE), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        version = padded[:, :, 1 + dy : 9 + dy, 1 + dx : 10 + dx]
        version = (version[..., ::-1] if flip else version).reshape(30, -1)
        wanted = np.minimum(wanted, np.sqrt(((version[:, None] - train) ** 2).sum(axis=2)).min(axis=1))
    near, _ = nn_copies.function(pixels(gen), pixels(train), pixels(I_TEST), shift=1, flip=True)
    found = {row[0]: row[2] for row in near.details[0].rows}
    assert [found[i] for i in range(30)] == pytest.approx(wanted)


def test_real_images_stay_clean_when_moved_ones_are_looked_for() -> None:
    """Held-out images are moved as the generated ones are."""
    near, _ = nn_copies.function(pixels(I_NEW), pixels(I_TRAIN), pixels(I_TEST), shift=1, flip=True)
    assert near.low < 0.01 < near.high


def test_only_pixels_can_be_moved() -> None:
    near, exact = copies(NEW, shift=1)
    assert isinstance(near, Undefined)
    assert "@pixels" in near.reason
    assert exact.value == 0
    near, _ = nn_copies.function(pixels(I_NEW), pixels(I_TRAIN), pixels(I_TEST), shift=8)
    assert "smaller shift" in near.reason


# -- reasons -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"shift": -1}])
def test_nn_copies_refuses_settings(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="nn_copies needs"):
        copies(NEW, **settings)


def test_too_few_held_out_samples_have_a_reason_and_exact_copies_still_count() -> None:
    near, exact = copies(half(TRAIN), test=TEST[:98])
    assert "at least 99 test samples, found 98" in near.reason
    assert exact.value == 0.5
    assert exact.notes == ("500 of 1,000 samples are exact copies of training samples",)
    assert isinstance(copies(half(TRAIN), test=TEST[:99])[0], Estimate)
    assert all(isinstance(e, Undefined) for e in copies(NEW, train=TRAIN[:0]))


# -- repeats -------------------------------------------------------------------------------------------------------------------


def test_repeats_are_counted_and_grouped() -> None:
    gen = NEW[:400].copy()
    gen[100:130] = gen[7]
    gen[200] = gen[300]
    exact, near = repeats(gen, TEST[:400])
    assert exact.value == pytest.approx(31 / 400)
    assert exact.low < 31 / 400 < exact.high
    assert exact.details[0].columns == ("gen", "copies")
    assert exact.details[0].rows == ((7, 31), (200, 2))
    assert exact.notes == ("31 of 400 samples repeat another one",)
    assert near.value >= 33 / 400  # both members of a pair
    assert near.low > 0.01


def test_contents_decide_where_they_are_known() -> None:
    digests = np.zeros((300, 16), np.uint8)
    digests[:, :2] = np.arange(300)[:, None] // [1, 256] % 256
    digests[1] = digests[0]
    found = duplicates.function(Features(NEW[:300], digests=digests), Features(TEST))
    assert found[0].value == pytest.approx(1 / 300)
    assert repeats(np.array([[0.0], [-0.0], [1.0]]), TEST[:, :1])[0].value == pytest.approx(1 / 3)


def test_near_repeats_show_without_an_exact_one() -> None:
    gen = np.concatenate([NEW[:400], NEW[:100] + 1e-4 * normal(5, 100)])
    exact, near = repeats(gen, TEST[:500])
    assert exact.value == 0
    assert exact.notes == ()
    assert near.value == pytest.approx(0.4, abs=0.02)
    assert near.low > 0.3
    assert "repeats, or samples that are less spread out" in near.notes[0]


def test_equal_laws_have_no_repeats() -> None:
    exact, near = repeats(NEW)
    assert exact.value == exact.low == 0
    assert exact.high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert near.low < 0.01 < near.high
    assert near.notes[0].startswith("no sign of repetition: ")


def test_near_duplicates_of_equal_laws_read_alpha_on_average() -> None:
    rng = np.random.default_rng(0)
    values = [repeats(rng.normal(size=(120, 3)), rng.normal(size=(120, 3)), alpha=0.1)[1].value for _ in range(150)]
    assert np.mean(values) == pytest.approx(0.1, abs=4 * np.std(values) / 12)


def test_discrete_data_that_repeat_as_the_reference_does_are_no_alarm() -> None:
    rng = np.random.default_rng(0)
    gen, ref = (rng.integers(0, 60, (500, 2)).astype(float) for _ in range(2))
    exact, near = repeats(gen, ref)
    assert exact.value > 0.04
    assert "of the reference" in exact.notes[0]
    assert near.low < 0.01 < near.high
    assert near.notes[0].startswith("no sign of repetition: ")


def test_sides_of_unequal_size_are_cut() -> None:
    """Twice the sample has nearer neighbours: without the cut the smaller reference would make an alarm."""
    near = repeats(normal(6, 2000), TEST)[1]
    assert near.n == 2000
    assert near.low < 0.01 < near.high
    assert "(at 1,000 each)" in near.notes[0]


def test_one_repeated_sample_reads_all_but_one() -> None:
    exact, near = repeats(np.tile(NEW[:1], (300, 1)))
    assert exact.value == exact.high == pytest.approx(299 / 300)
    assert exact.low > 0.97
    assert near.value == 1


def test_the_interval_of_repeats_has_the_variance_of_the_number_of_contents() -> None:
    """500 draws of 5,000 contents (few repeats) and of 200 (nearly all seen), against the variance over 300 samples."""
    rng = np.random.default_rng(0)
    for contents in (5000, 500, 200):
        found = [repeats(rng.integers(0, contents, (500, 1)).astype(float), TEST[:1, :1])[0] for _ in range(300)]
        half_widths = np.mean([(e.high - e.low) / 2 for e in found])
        assert half_widths == pytest.approx(1.96 * np.std([e.value for e in found]), rel=0.2)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_duplicates_refuses_settings(alpha: float) -> None:
    with pytest.raises(UsageError, match="duplicates needs"):
        repeats(NEW, alpha=alpha)


def test_too_few_samples_for_near_duplicates_have_a_reason() -> None:
    exact, near = repeats(NEW[:197], TEST)
    assert exact.value == 0
    assert "at least 198 samples on each side, found 197 and 1000" in near.reason
    assert isinstance(repeats(NEW[:198], TEST)[1], Estimate)
    assert all(isinstance(e, Undefined) for e in repeats(NEW[:1]))


def test_held_out_samples_among_the_generated_ones_are_said() -> None:
    rng = np.random.default_rng(0)
    train, test, new = (rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8) for n in (300, 200, 100))

    def said(gen: np.ndarray) -> bool:
        run = evaluate(gen, train, train=train, test=test, metrics=["nn_copies"], extractor="pixels", cache=None)
        return any("held-out samples are among the generated ones" in w for w in run.record["warnings"])

    assert said(np.concatenate([new, test[:20]]))
    assert not said(new)
    assert not said(np.concatenate([new, test[:1]])), "1 in 200 may be chance"
    assert not said(test[::-1]), "the held-out set itself, which is what real data score"
