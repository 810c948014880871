"""Modes, class histograms, bins and diversity: closed forms, slow twins, and what each of them sees and does not see."""

import math
from itertools import product

import numpy as np
import pytest

from genbench import registry
from genbench.errors import DataError, MissingError, UsageError
from genbench.estimate import Estimate, Undefined
from genbench.statistics import Features, Law, Probabilities

GRID = np.array(list(product(np.arange(-4.0, 5.0, 2.0), repeat=2)))


def grid25() -> Law:
    return registry.dataset("grid25").law("grid25")


def draw(counts: np.ndarray | list[int], width: float = 0.05, seed: int = 0) -> Features:
    at = np.repeat(np.arange(25), counts)
    return Features(GRID[at] + width * np.random.default_rng(seed).standard_normal((len(at), 2)))


def call(name: str, **arguments: object) -> dict[str, Estimate]:
    return registry.metric(name)(**arguments)


def hot(counts: list[int] | np.ndarray, classes: int | None = None) -> Probabilities:
    return Probabilities(np.eye(classes or len(counts))[np.repeat(np.arange(len(counts)), counts)])


# -- modes ---------------------------------------------------------------------------------------------------------------------


def test_true_samples_cover_all_modes() -> None:
    found = call("modes", ref=grid25(), gen=Features(registry.dataset("grid25").load("grid25", "test").read(0, 5000)))
    covered, quality, kl = found.values()
    assert (covered.low, covered.value, covered.high) == (25, 25, 25)
    assert quality.low < 1 - math.exp(-4.5) < quality.high
    assert kl.low < 0 < kl.high


def test_a_blob_reaches_every_mode_with_tiny_quality() -> None:
    found = call("modes", ref=grid25(), gen=Features(3 * np.random.default_rng(0).standard_normal((10_000, 2))))
    assert found["modes"].value >= 20
    assert found["high_quality"].high < 0.03
    assert any("only" in note for note in found["modes"].notes)


def test_a_stray_sample_covers_no_mode() -> None:
    counts = np.full(25, 100)
    counts[[3, 17]] = 1, 0
    found = call("modes", ref=grid25(), gen=draw(counts))["modes"]
    assert (found.low, found.value, found.high) == (23, 23, 23)
    assert "mode 3, 17" in found.notes[0]
    table = {row[0]: row[2] for row in found.details[0].rows}
    assert table[17] == 0
    assert table[3] <= 1
    assert table[0] >= 90


def test_a_mode_in_doubt_widens_the_count() -> None:
    counts = np.full(25, 40)
    counts[7] = 8  # a fifth of its share
    found = call("modes", ref=grid25(), gen=draw(counts))["modes"]
    assert (found.low, found.high) == (24, 25)


def test_modes_agree_with_a_slow_twin() -> None:
    rng = np.random.default_rng(1)
    x = draw(rng.integers(0, 30, 25), width=0.08).x
    counts = np.zeros(25)
    for point in x:
        squares = [((point - c) ** 2).sum() for c in GRID]
        if min(squares) <= 0.15**2:
            counts[int(np.argmin(squares))] += 1
    n = counts.sum()
    found = call("modes", ref=grid25(), gen=Features(x))
    assert found["modes"].value == (counts >= n / 125).sum()
    assert found["high_quality"].value == n / len(x)
    kl = sum(c / n * math.log(25 * c / n) for c in counts if c)
    assert found["mode_kl"].value == pytest.approx(kl - ((counts > 0).sum() - 1) / (2 * n), abs=0.01)


def test_narrow_modes_are_told() -> None:
    found = call("modes", ref=grid25(), gen=draw([100] * 25, width=0.01))["high_quality"]
    assert found.value == 1
    assert any("narrow" in note for note in found.notes)


def test_one_mode_reads_log_k() -> None:
    kl = call("modes", ref=grid25(), gen=draw([500] + [0] * 24, width=0.02))["mode_kl"]
    assert kl.value == pytest.approx(math.log(25))
    assert kl.high == pytest.approx(math.log(25))
    assert math.log(25) - 0.1 < kl.low < kl.high


def test_other_dimensions_have_another_ideal() -> None:
    centres = 10.0 * np.eye(5)
    law = Law("five", 5, lambda x: np.zeros(len(x)), 0.0, centres, 1.0)
    rng = np.random.default_rng(0)
    found = call("modes", ref=law, gen=Features(centres[rng.integers(5, size=4000)] + rng.standard_normal((4000, 5))))["high_quality"]
    ideal = 0.8909359  # P(χ² with 5 degrees of freedom <= 9)
    assert found.low < ideal < found.high
    assert f"{ideal:.2%}" in found.notes[0]


def test_a_law_without_modes_and_samples_far_from_all() -> None:
    moons = registry.dataset("moons").law("moons")
    assert all(isinstance(e, Undefined) for e in call("modes", ref=moons, gen=draw([4] * 25)).values())
    far = call("modes", ref=grid25(), gen=Features(np.full((50, 2), 1e9)))
    assert (far["modes"].value, far["modes"].high, far["high_quality"].value) == (0, 25, 0)
    assert isinstance(far["mode_kl"], Undefined)


# -- class histogram -----------------------------------------------------------------------------------------------------------

DIGITS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of MNIST's test set
TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_real_digits_are_clean() -> None:
    kl, missing = call("class_histogram", gen=hot(DIGITS), ref=hot(TRAIN)).values()
    assert kl.low < 0.0 < kl.high < 0.003
    assert (missing.low, missing.value, missing.high) == (0, 0, 0)
    assert missing.notes == ()


def test_a_dropped_digit_is_named() -> None:
    counts = [*DIGITS]
    counts[7] = 3
    kl, missing = call("class_histogram", gen=hot(counts), ref=hot(TRAIN)).values()
    assert (missing.low, missing.value, missing.high) == (1, 1, 1)
    assert missing.notes == (f"class 7 is missing: 3 of {sum(counts):,} samples, {sum(counts) * TRAIN[7] / 60_000:,.4g} expected",)
    assert kl.low > 0.05
    row = missing.details[0].rows[7]
    assert row[:2] == ("7", 3)
    assert row[4] < row[2] < row[5] < row[3]


def test_rare_and_doubled_classes_are_named_but_not_missing() -> None:
    missing = call("class_histogram", gen=hot([300, 3000, 1000, 1000]), ref=hot([1000] * 4))["missing_classes"]
    assert missing.value == 0
    assert [note.split(":")[0] for note in missing.notes] == ["class 0 is under-represented", "class 1 is over-represented"]
    many = call("class_histogram", gen=hot([10_000] + [0] * 40), ref=hot([200] * 41))["missing_classes"]
    assert many.value == 40
    assert "31 more classes" in many.notes[9]


def test_few_samples_prove_nothing() -> None:
    missing = call("class_histogram", gen=hot([3] + [0] * 9), ref=hot([100] * 10))["missing_classes"]
    assert (missing.value, missing.high) == (0, 9)


def test_class_kl_in_closed_form_and_its_bias() -> None:
    a, b = np.array([50, 30, 20]), np.array([100, 200, 300])
    p, q = a / 100, b / 600
    raw = float((p * np.log(p / q)).sum())
    bias = 2 / 200 + float((p / q * (1 - q)).sum()) / 1200  # the digammas differ from it by 1/(12 n²)
    found = call("class_histogram", gen=hot(a), ref=hot(b))["class_kl"]
    assert found.value == pytest.approx(raw - bias, abs=1e-4)
    rng = np.random.default_rng(0)
    mean = np.mean(
        [call("class_histogram", gen=hot(rng.multinomial(100, p)), ref=hot(rng.multinomial(600, q)))["class_kl"].value for _ in range(400)]
    )
    assert mean == pytest.approx(raw, abs=0.02)


def test_a_class_that_the_reference_lacks_leaves_no_interval() -> None:
    found = call("class_histogram", gen=hot([50, 50]), ref=hot([100, 0], 2))["class_kl"]
    assert found.low is None
    assert found.value > 1


def test_the_share_that_counts_as_missing_is_checked() -> None:
    with pytest.raises(UsageError, match="share"):
        call("class_histogram", gen=hot([5, 5]), ref=hot([5, 5]), share=1.0)


# -- stacked MNIST -------------------------------------------------------------------------------------------------------------


def stacked(at: np.ndarray) -> Probabilities:
    return Probabilities(np.eye(1000)[at])


def test_the_reference_law_reads_the_floor() -> None:
    rng = np.random.default_rng(0)
    q = np.array(TRAIN) / 60_000
    law = np.einsum("a,b,c->abc", q, q, q).ravel()
    gen, ref = (stacked(rng.choice(1000, n, p=law)) for n in (26_000, 8_000))
    covered, raw, debiased = call("stacked_modes", gen=gen, ref=ref).values()
    assert (covered.low, covered.value, covered.high) == (1000, 1000, 1000)
    assert raw.value == pytest.approx(999 / 52_000, abs=0.003)
    assert debiased.low < 0 < debiased.high
    assert any("0.0192" in note for note in raw.notes)
    even = call("stacked_modes", gen=gen, ref=ref, even=True)["stacked_kl_debiased"]
    exact = 3 * float((q * np.log(10 * q)).sum())
    assert even.low < exact < even.high


def test_modes_that_are_absent_are_not_counted() -> None:
    rng = np.random.default_rng(0)
    ref = stacked(rng.integers(1000, size=10_000))
    found = call("stacked_modes", gen=stacked(rng.integers(100, size=5_000)), ref=ref)
    assert found["stacked_modes"].value == 100
    assert found["stacked_modes"].low == 100
    assert found["stacked_kl"].value == pytest.approx(math.log(10), abs=0.05)
    assert found["stacked_kl_debiased"].value < found["stacked_kl"].value
    assert found["stacked_modes"].notes == ("published numbers are of 26,000 samples, these are 5,000",)


def test_the_spread_of_a_count_is_that_of_new_modes() -> None:
    rng = np.random.default_rng(0)
    ref = stacked(rng.integers(1000, size=2_000))
    found = [call("stacked_modes", gen=stacked(rng.integers(1000, size=1_000)), ref=ref)["stacked_modes"] for _ in range(40)]
    half = np.mean([(e.high - e.low) / 2 for e in found])
    exact = 1.96 * math.sqrt(1000 * (math.exp(-1) - math.exp(-2) - math.exp(-2)))  # λ = 1, the sample's size fixed
    assert half == pytest.approx(exact, rel=0.15)


def test_other_numbers_of_classes_are_refused() -> None:
    found = call("stacked_modes", gen=hot([5, 5]), ref=hot([5, 5]))
    assert all(isinstance(e, Undefined) and "found 2" in e.reason for e in found.values())
    gen = stacked(np.arange(1000))
    zeros = call("stacked_modes", gen=gen, ref=stacked(np.zeros(50, np.int64)))
    assert isinstance(zeros["stacked_modes"], Estimate)
    assert isinstance(zeros["stacked_kl"], Undefined)


def test_the_extractor_reads_three_digits() -> None:
    one = registry.module("extractors", "mnist").load()
    three = registry.module("extractors", "stacked_mnist").load()
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 28, 28), dtype=np.uint8)
    out = three(x)
    parts = [one(np.ascontiguousarray(x[:, c : c + 1])) for c in range(3)]
    logs = [np.log(Probabilities.of_logits(p.logits).p) for p in parts]
    at = np.array([7, 0, 3])
    assert out.logits[:, 703] == pytest.approx(sum(log[:, a] for log, a in zip(logs, at, strict=True)), abs=1e-4)
    assert np.exp(out.logits.astype(float)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert out.features == pytest.approx(np.concatenate([p.features for p in parts], axis=1), abs=1e-4)
    padded = np.zeros((4, 3, 32, 32), np.uint8)
    padded[:, :, 2:30, 2:30] = x
    assert np.array_equal(three(padded).logits, out.logits)
    assert three.classes[703] == "703"
    with pytest.raises(DataError, match="3, 28, 28"):
        three(np.zeros((2, 3, 30, 30), np.uint8))
    with pytest.raises(DataError):
        three(np.zeros((2, 1, 28, 28), np.uint8))


def write_idx(folder, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    for what, x in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, x.ndim]) + b"".join(int(s).to_bytes(4, "big") for s in x.shape)
        (folder / f"{part}-{what}-ubyte").write_bytes(head + x.astype(np.uint8).tobytes())


def test_the_dataset_stacks_digits_of_one_split(tmp_path) -> None:
    module = registry.dataset("stacked_mnist")
    with pytest.raises(MissingError, match="t10k-images"):
        module.load("stacked_mnist", "test", root=tmp_path)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    labels = np.arange(50) % 10
    write_idx(folder, "t10k", np.broadcast_to(labels[:, None, None] * 20, (50, 28, 28)), labels)
    whole = module.load("stacked_mnist", "test", root=tmp_path)
    assert (len(whole), whole.shape, whole.name) == (26_000, (3, 28, 28), "stacked_mnist/test")
    x = whole.read(2000, 2100)  # over the bound of a block
    assert np.array_equal(x[:, :, 0, 0] // 20 @ [100, 10, 1], whole.labels[2000:2100])
    assert len(np.unique(whole.labels)) == 1000
    few, more = (module.load("stacked_mnist", "test", n=n, root=tmp_path) for n in (10, 30_000))
    assert len(few) == 10
    assert np.array_equal(more.read(25_990, 26_000), whole.read(25_990, 26_000))
    assert np.array_equal(more.labels[:26_000], whole.labels)
    with pytest.raises(UsageError):
        module.load("stacked_mnist", "test", n=0, root=tmp_path)


# -- bins ----------------------------------------------------------------------------------------------------------------------


def blobs(n: int, modes: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return Features(np.random.default_rng(9).normal(size=(10, 6))[rng.integers(modes, size=n)] * 8 + rng.normal(size=(n, 6)))


def test_bins_of_equal_laws_differ_at_the_level_of_the_test() -> None:
    """Mean of 12 runs of 40 bins: 0.05 with a standard error of 0.01."""
    found = [call("ndb", gen=blobs(600, 10, i), ref=blobs(1500, 10, 100 + i), bins=40) for i in range(12)]
    assert np.mean([f["ndb"].value for f in found]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([f["ndb_js"].value for f in found]) == pytest.approx(0.0, abs=0.002)


def test_dropped_modes_are_different_bins() -> None:
    different, js = call("ndb", gen=blobs(2000, 5, 1), ref=blobs(3000, 10, 2), bins=50).values()
    assert different.low > 0.5
    p = np.array([0.2] * 5 + [0.0] * 5)
    q = np.full(10, 0.1)
    mid = (p + q) / 2
    exact = 0.5 * float((p[:5] * np.log(p[:5] / mid[:5])).sum() + (q * np.log(q / mid)).sum())
    assert js.low < exact < js.high
    rows = different.details[0].rows
    assert sum(r[1] for r in rows) == pytest.approx(1)
    assert sum(r[2] for r in rows) == pytest.approx(1)
    assert np.mean([abs(r[3]) > 1.96 for r in rows]) == different.value
    for _, share, other, z in rows[:3]:
        r = (2000 * share + 1500 * other) / 3500
        assert z == pytest.approx((share - other) / math.sqrt(r * (1 - r) * (1 / 2000 + 1 / 1500)))


def test_bins_are_blind_to_quality_and_do_not_follow_places() -> None:
    ref = blobs(1500, 10, 2)
    far = Features(np.random.default_rng(9).normal(size=(10, 6))[np.random.default_rng(3).integers(10, size=1000)] * 8)
    assert call("ndb", gen=far, ref=ref, bins=10)["ndb"].value <= 0.3
    turned = Features(ref.x[::-1].copy())
    assert call("ndb", gen=far, ref=ref, bins=10)["ndb"].value == call("ndb", gen=far, ref=turned, bins=10)["ndb"].value


def test_bins_shrink_with_the_samples() -> None:
    found = call("ndb", gen=blobs(150, 10, 0), ref=blobs(400, 10, 1))["ndb"]
    assert "15 bins instead of 100" in found.notes[0]
    assert isinstance(call("ndb", gen=blobs(19, 10, 0), ref=blobs(400, 10, 1))["ndb"], Undefined)
    assert isinstance(call("ndb", gen=blobs(90, 10, 0), ref=Features(np.ones((100, 6))))["ndb"], Undefined)
    with pytest.raises(UsageError, match="bins"):
        call("ndb", gen=blobs(90, 10, 0), ref=blobs(90, 10, 1), bins=1)


# -- diversity -----------------------------------------------------------------------------------------------------------------


def slow_vendi(x: np.ndarray, q: float) -> float:
    """From the whole similarity matrix, as the paper defines it."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(x @ x.T / len(x))
    values = values[values > 1e-12]
    if q == 1:
        return math.exp(-(values * np.log(values)).sum())
    return 1 / values.max() if math.isinf(q) else (values**q).sum() ** (1 / (1 - q))


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, 7.5, math.inf])
@pytest.mark.parametrize("shape", [(80, 5), (60, 200), (50, 50)])
def test_vendi_agrees_with_a_slow_twin(q: float, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape) + 0.3
    assert call("vendi", gen=Features(x), q=q)["vendi"].value == pytest.approx(slow_vendi(x, q), rel=1e-9)


def test_vendi_counts_orthogonal_kinds() -> None:
    at = np.repeat(np.arange(4), [40, 30, 20, 10])
    found = call("vendi", gen=Features(np.eye(6)[at]))["vendi"]
    p = np.array([0.4, 0.3, 0.2, 0.1])
    assert found.value == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert found.low < found.value < found.high
    assert call("vendi", gen=Features(np.eye(6)[at]), q=2.0)["vendi"].value == pytest.approx(1 / (p**2).sum())
    assert call("vendi", gen=Features(1e-200 * np.eye(6)[at]))["vendi"].value == pytest.approx(found.value)


def test_vendi_falls_with_its_order_and_large_orders_are_finite() -> None:
    x = Features(np.random.default_rng(0).normal(size=(300, 20)) * np.arange(1, 21))
    values = [call("vendi", gen=x, q=q)["vendi"].value for q in (0.2, 1.0, 2.0, 10.0, 1000.0, math.inf)]
    assert values == sorted(values, reverse=True)
    assert values[-2] == pytest.approx(values[-1], rel=0.01)
    with pytest.raises(UsageError, match="order"):
        call("vendi", gen=x, q=0.0)


def test_vendi_of_zero_rows_and_few_rows() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    x[3] = 0
    assert isinstance(call("vendi", gen=Features(x))["vendi"], Undefined)
    assert call("vendi", gen=Features(x[4:30]))["vendi"].low is None


def test_mode_dropping_lowers_vendi_and_rke_beyond_their_intervals() -> None:
    ref, all_modes, some = blobs(1000, 10, 0), blobs(1000, 10, 1), blobs(1000, 3, 2)
    for name, arguments in (("vendi", {}), ("rke", {"ref": ref})):
        high, low = (call(name, gen=gen, **arguments)[name] for gen in (all_modes, some))
        assert low.high < high.low, name


@pytest.mark.parametrize("shape", [(40, 3), (1100, 2)])
def test_rke_agrees_with_a_slow_twin(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape) + 50
    n = len(x)
    k = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / (2 * 0.8**2))
    found = call("rke", gen=Features(x), ref=Features(x), bandwidth=0.8)["rke"]
    assert found.value == pytest.approx(1 / (((k**2).sum() - n) / (n * (n - 1))), rel=1e-9)


def test_rke_counts_modes_and_ignores_scale() -> None:
    rng = np.random.default_rng(0)
    x = 100 * np.eye(5)[rng.integers(5, size=600)] + 0.01 * rng.normal(size=(600, 5))
    found = call("rke", gen=Features(x), ref=Features(x))["rke"]
    assert found.low < 5 < found.high
    assert call("rke", gen=Features(1e9 * x), ref=Features(1e9 * x))["rke"].value == pytest.approx(found.value, rel=1e-6)
    assert found.notes[0].startswith("bandwidth ")
    assert "the reference reads" in found.notes[1]


def test_rke_is_unbiased_at_every_size() -> None:
    """One Gaussian in two dimensions, σ = 1: 1/E K² = 5; the mean K² of 300 samples of 20 has a standard error of 2 %."""
    rng = np.random.default_rng(0)
    ref = Features(np.zeros((1, 2)))
    found = [call("rke", gen=Features(rng.normal(size=(20, 2))), ref=ref, bandwidth=1.0)["rke"].value for _ in range(300)]
    assert np.mean([1 / v for v in found]) == pytest.approx(0.2, rel=0.06)


def test_rke_says_where_it_cannot_count() -> None:
    x = Features(np.arange(50.0)[:, None])
    assert isinstance(call("rke", gen=x, ref=x, bandwidth=0.01)["rke"], Undefined)
    assert isinstance(call("rke", gen=x, ref=Features(np.ones((50, 1))))["rke"], Undefined)
    assert call("rke", gen=Features(np.ones((50, 1))), ref=x)["rke"].value == 1
    pairs = Features(np.repeat(10.0 * np.arange(60), 2)[:, None])  # 60 pairs of 7,140 are within reach
    assert not any("more modes than samples" in note for note in call("rke", gen=pairs, ref=x, bandwidth=0.5)["rke"].notes)
    spread = Features(np.arange(400.0)[:, None] * 3)
    assert any("more modes than samples" in note for note in call("rke", gen=spread, ref=x, bandwidth=1.8)["rke"].notes)
    cut = call("rke", gen=x, ref=x, rows=30)["rke"]
    assert cut.n == 50
    assert any("30 of 50" in note for note in cut.notes)
    with pytest.raises(UsageError, match="fraction"):
        call("rke", gen=x, ref=x, fraction=0.0)
