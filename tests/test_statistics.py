"""The statistics check themselves when they are made, and merge in any split."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.errors import DataError
from genbench.statistics import Features, LogLikelihood, Moments, Probabilities

RNG = np.random.default_rng(3)


# -- Features ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((3, 0)), np.float64(1)])
def test_features_are_rows(x: np.ndarray) -> None:
    with pytest.raises(DataError, match="rows"):
        Features(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_row_is_named(bad: float) -> None:
    x = np.zeros((4, 2))
    x[2, 1] = bad
    with pytest.raises(DataError, match="row 2"):
        Features(x)
    with pytest.raises(DataError, match=r"c\.png"):
        Features(x, names=["a.png", "b.png", "c.png", "d.png"])


def test_many_bad_rows_are_counted() -> None:
    with pytest.raises(DataError, match="row 4 and 3 more"):
        Features(np.full((8, 1), np.nan))


@pytest.mark.parametrize(
    ("dtype", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64), (np.float16, np.float64)]
)
def test_features_keep_float32_and_widen_the_rest(dtype: type, kept: type) -> None:
    f = Features(np.ones((3, 2), dtype))
    assert f.x.dtype == kept
    assert (len(f), f.d) == (3, 2)


def test_features_merge_in_order() -> None:
    x = RNG.normal(size=(9, 2))
    whole = Features.merge([Features(x[:4], "a"), Features(x[4:4], "a"), Features(x[4:], "a")])
    assert np.array_equal(whole.x, x)
    assert whole.extractor == "a"
    for other in (Features(x, "b"), Features(np.zeros((1, 3)), "a")):
        with pytest.raises(DataError, match="one extractor and one dimension"):
            Features.merge([Features(x, "a"), other])


# -- Moments -------------------------------------------------------------------------------------------------------------------


def same(a: Moments, b: Moments) -> None:
    assert a.n == b.n
    assert np.allclose(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    assert np.allclose(a.m2, b.m2, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(b.m2).max())))


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows and any parts of them, empty ones too."""
    n, d = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(n, d)) * draw(st.sampled_from([1e-3, 1.0, 1e3])) + draw(st.sampled_from([0.0, 1.0, -50.0]))
    return x, np.split(x, sorted(draw(st.lists(st.integers(0, n), max_size=6))))


@settings(max_examples=60)
@given(splits())
def test_any_split_merges_to_the_whole(made: tuple[np.ndarray, list[np.ndarray]]) -> None:
    x, parts = made
    same(Moments.merge([Moments.of(p) for p in parts]), Moments.of(x))


@settings(max_examples=60)
@given(splits(), st.randoms(use_true_random=False))
def test_parts_merge_in_any_order(made: tuple[np.ndarray, list[np.ndarray]], random) -> None:
    parts = [Moments.of(p) for p in made[1]]
    shuffled = list(parts)
    random.shuffle(shuffled)
    same(Moments.merge(shuffled), Moments.merge(parts))


@settings(max_examples=60)
@given(splits(), st.integers(0, 7))
def test_merging_is_associative(made: tuple[np.ndarray, list[np.ndarray]], at: int) -> None:
    parts = [Moments.of(p) for p in made[1]]
    empty = Moments.of(made[0][:0])
    left, right = Moments.merge([empty, *parts[:at]]), Moments.merge([empty, *parts[at:]])
    same(Moments.merge([left, right]), Moments.merge(parts))


def test_an_empty_part_changes_nothing() -> None:
    x = RNG.normal(size=(7, 3))
    whole, empty = Moments.of(x), Moments.of(x[:0])
    for parts in ([whole, empty], [empty, whole], [empty, whole, empty]):
        merged = Moments.merge(parts)
        assert np.array_equal(merged.mean, whole.mean)
        assert np.array_equal(merged.m2, whole.m2)
    nothing = Moments.merge([empty, empty])
    assert nothing.n == 0
    assert not nothing.m2.any()


def test_moments_are_the_mean_and_the_covariance() -> None:
    x = RNG.normal(size=(30, 4)) + 1e4
    m = Moments.of(x)
    assert (len(m), m.d) == (30, 4)
    assert np.allclose(m.mean, x.mean(0))
    assert np.allclose(m.cov, np.cov(x, rowvar=False))
    assert Moments.of(Features(x.astype(np.float32))).mean.dtype == np.float64


@pytest.mark.parametrize("n", [0, 1])
def test_a_covariance_needs_two_samples(n: int) -> None:
    with pytest.raises(DataError, match="at least 2 samples"):
        _ = Moments.of(np.ones((n, 2))).cov


def test_moments_check_their_shapes_and_values() -> None:
    for mean, m2 in ((np.zeros(2), np.zeros((3, 3))), (np.zeros((2, 1)), np.eye(2)), (np.zeros(2), np.zeros(2))):
        with pytest.raises(DataError, match="scatter"):
            Moments(5, mean, m2)
    with pytest.raises(DataError, match="finite"):
        Moments(5, np.array([0.0, np.nan]), np.eye(2))
    with pytest.raises(DataError, match="finite"):
        Moments(5, np.zeros(2), np.diag([1.0, np.inf]))


def test_a_statistics_file_cannot_be_merged() -> None:
    fixed = Moments(None, np.zeros(2), np.eye(2))
    assert len(fixed) == 0
    assert np.array_equal(fixed.cov, np.eye(2))
    with pytest.raises(DataError, match="cannot be merged"):
        Moments.merge([Moments.of(np.ones((3, 2))), fixed])


def test_a_statistics_file_round_trips(tmp_path: Path) -> None:
    m = Moments.of(RNG.normal(size=(20, 3)))
    m.save(tmp_path / "s.npz")
    back = Moments.load(tmp_path / "s.npz")
    assert back.n is None
    assert np.array_equal(back.mean, m.mean)
    assert np.array_equal(back.cov, m.cov)
    back.save(tmp_path / "t.npz")
    assert np.array_equal(Moments.load(tmp_path / "t.npz").cov, m.cov)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"mu": np.zeros(2)}, "keys mu and sigma"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, "scatter"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
        ({"mu": np.zeros(2), "sigma": np.diag([1.0, -0.5])}, "negative eigenvalue"),
        ({"mu": np.array([None, 1], object), "sigma": np.eye(2)}, "not a readable"),
    ],
)
def test_a_bad_statistics_file_is_named_with_its_fault(arrays: dict[str, np.ndarray], match: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=match) as e:
        Moments.load(tmp_path / "s.npz")
    assert "s.npz" in str(e.value)


def test_a_file_that_is_no_statistics_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("mu sigma")
    for name in ("empty.npz", "text.npz", "absent.npz"):
        with pytest.raises(DataError, match=name):
            Moments.load(tmp_path / name)


# -- Probabilities and log-likelihoods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [[[0.5, 0.6]], [[1.5, -0.5]], [[2.0, 1.0]]])
def test_probabilities_are_not_logits(p: list[list[float]]) -> None:
    with pytest.raises(DataError, match="softmax"):
        Probabilities(np.array(p))


def test_probabilities_check_shape_and_values() -> None:
    for p in (np.ones(3), np.ones((3, 0))):
        with pytest.raises(DataError, match="rows"):
            Probabilities(p)
    with pytest.raises(DataError, match="b.png"):
        Probabilities(np.array([[1.0, 0.0], [np.nan, 1.0]]), names=["a.png", "b.png"])
    assert len(Probabilities(np.empty((0, 3)))) == 0


def test_the_softmax_does_not_overflow() -> None:
    p = Probabilities.of_logits(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)).p
    assert p.dtype == np.float64
    assert np.array_equal(p, [[1.0, 0.0], [0.5, 0.5]])
    z = RNG.normal(size=(5, 4))
    assert np.allclose(Probabilities.of_logits(z + 300).p, Probabilities.of_logits(z).p, rtol=1e-10)
    with pytest.raises(DataError, match="row 1"):
        Probabilities.of_logits(np.array([[0.0, 0.0], [np.inf, 0.0]]))


def test_probabilities_merge_in_order() -> None:
    p = RNG.dirichlet(np.ones(3), 8)
    merged = Probabilities.merge([Probabilities(p[:5], ("a", "b", "c"), "net"), Probabilities(p[5:], ("a", "b", "c"), "net")])
    assert np.array_equal(merged.p, p)
    assert merged.classes == ("a", "b", "c")
    assert merged.extractor == "net"


def test_log_likelihoods_are_one_finite_number_a_sample() -> None:
    with pytest.raises(DataError, match="one number per sample"):
        LogLikelihood(np.zeros((3, 1)), 2)
    for fault in (np.nan, np.inf):
        with pytest.raises(DataError, match="row 1"):
            LogLikelihood(np.array([0.0, fault]), 2)
    assert LogLikelihood(np.array([0.0, -np.inf]), 2).nats[1] == -np.inf, "no probability at all is a fact about the model"
    with pytest.raises(DataError, match="bound"):
        LogLikelihood(np.zeros(3), 2, "ELBO")
    merged = LogLikelihood.merge([LogLikelihood(np.array([1.0, 2.0]), 4, "lower"), LogLikelihood(np.array([3.0]), 4, "lower")])
    assert merged.nats.tolist() == [1, 2, 3]
    assert (len(merged), merged.dims, merged.bound) == (3, 4, "lower")
