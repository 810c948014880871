"""fid_infinity, sfid with its extractor, class_fd and realism."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import genbench
from genbench import registry
from genbench.errors import DataError, UsageError
from genbench.estimate import Estimate, Undefined
from genbench.extractors import inception, inception_spatial
from genbench.numerics import neighbours
from genbench.statistics import Features, Moments

RNG = np.random.default_rng


def normal(n: int, d: int, seed: int, shift: float = 0.0, labels: np.ndarray | None = None) -> Features:
    return Features(RNG(seed).normal(size=(n, d)) + shift, labels=labels)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance the slow way: eigenvalues of the product of the covariances."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots)


# -- fid_infinity --------------------------------------------------------------------------------------------------------------


def infinity(ref: Features | Moments, gen: Features, **settings: int) -> Estimate:
    found = registry.metric("fid_infinity")(ref=ref, gen=gen, **settings)["fid_infinity"]
    assert isinstance(found, Estimate), found
    return found


@pytest.mark.parametrize("points", [3, 7])
def test_the_intercept_is_that_of_a_line_through_the_subsets_distances(points: int) -> None:
    gen, ref = normal(150, 3, 0, 0.2), normal(300, 3, 1)
    g, r, shares, values = RNG((5, 0)), RNG((5, 1)), np.linspace(24 / 150, 1, points), []
    for share in shares:
        rows = [np.sort(draw.permutation(n)[: round(share * n)]) for draw, n in ((g, 150), (r, 300))]
        values.append(distance(gen.x[rows[0]], ref.x[rows[1]]))
    expected = np.polyfit(1 / shares, values, 1)[1]
    assert infinity(ref, gen, points=points, seed=5).value == pytest.approx(expected, rel=1e-9)


def test_the_extrapolation_takes_the_bias_off() -> None:
    """Equal laws of 8 features: the raw value is about 0.27, the mean of the extrapolated ones is within three of its errors of 0."""
    found, raw = [], []
    for seed in range(40):
        ref, gen = normal(200, 8, 2 * seed), normal(200, 8, 2 * seed + 1)
        found.append(infinity(ref, gen).value)
        raw.append(registry.metric("fid")(ref=ref, gen=gen)["fid"].value)
    assert np.mean(raw) > 0.2
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(40)


def test_a_whole_reference_would_leave_its_own_bias() -> None:
    """Against rows taken as the target itself the value ends higher: the reference is not subsampled then, and its bias stays."""
    pairs = [(normal(120, 8, 2 * s), normal(120, 8, 2 * s + 1)) for s in range(30)]
    both, one = (np.mean([infinity(Moments.of(r) if fixed else r, g).value for r, g in pairs]) for fixed in (False, True))
    assert one > both + 0.1


def test_moments_of_a_reference_are_the_target() -> None:
    target = Moments(None, np.zeros(3), np.eye(3))
    found = infinity(target, normal(4000, 3, 0, 0.5))
    assert found.low < 0.75 < found.high
    assert any("taken as the target" in note for note in found.notes)
    assert set(found.influence) == {"gen"}


def test_the_regressions_own_error_is_named_and_not_used() -> None:
    found = infinity(normal(400, 8, 0), normal(400, 8, 1))
    own = float(next(n for n in found.notes if "standard error" in n).split("standard error, ")[1].split(", ")[0])
    assert 1.96 * own < (found.high - found.low) / 2


def test_one_seed_one_value_and_other_seeds_within_the_interval() -> None:
    ref, gen = normal(300, 4, 0), normal(300, 4, 1, 0.3)
    first = infinity(ref, gen)
    assert infinity(ref, gen).value == first.value
    others = {infinity(ref, gen, seed=s).value for s in range(1, 6)}
    assert len(others) == 5
    assert all(first.low < v < first.high for v in others)


def test_the_references_subsets_do_not_depend_on_the_samples() -> None:
    """So that two models' errors of the shared reference cancel: equal subsets leave equal weights."""
    ref = normal(300, 2, 0)
    a, b = (infinity(ref, normal(n, 2, 5, 3.0)).influence["ref"] for n in (300, 300))
    assert np.array_equal(a, b)
    assert np.corrcoef(a, infinity(ref, normal(300, 2, 6, 3.0)).influence["ref"])[0, 1] > 0.99


def test_too_few_samples_or_sizes() -> None:
    found = registry.metric("fid_infinity")(ref=normal(30, 20, 0), gen=normal(500, 20, 1))["fid_infinity"]
    assert isinstance(found, Undefined)
    assert "at least 44" in found.reason
    with pytest.raises(UsageError, match="points"):
        infinity(normal(300, 2, 0), normal(300, 2, 1), points=2)
    assert any("low n" in note for note in infinity(normal(60, 8, 0), normal(60, 8, 1)).notes)


def test_a_constant_feature_changes_nothing() -> None:
    x, y = normal(300, 3, 0), normal(300, 3, 1)
    wide = [Features(np.hstack([z.x, np.ones((300, 1))])) for z in (x, y)]
    assert infinity(*wide, points=3).value == pytest.approx(infinity(x, y, points=3).value, abs=0.05)


# -- sfid and its extractor ------------------------------------------------------------------------------------------------------


def spatial(ref: Features | Moments, gen: Features) -> dict[str, Estimate]:
    return registry.metric("sfid")(ref=ref, gen=gen)


@pytest.mark.parametrize(("n", "d", "blocks"), [(200, 5, 20), (200, 30, 5), (40, 60, 5)])
def test_the_raw_value_is_the_frechet_distance(n: int, d: int, blocks: int) -> None:
    ref, gen = normal(n + 20, d, 0), normal(n, d, 1, 0.2)
    found = spatial(ref, gen)
    assert found["sfid"].value == pytest.approx(registry.metric("fid")(ref=ref, gen=gen)["fid"].value, rel=1e-9)
    if n > d:
        rest = [distance(gen.x[np.arange(n) % blocks != b], ref.x[np.arange(n + 20) % blocks != b]) for b in range(blocks)]
        full = distance(gen.x, ref.x)
        assert found["sfid_debiased"].value == pytest.approx(full - (blocks - 1) * (np.mean(rest) - full), rel=1e-9)
        assert found["sfid_debiased"].interval == ("jackknife-20" if blocks == 20 else "influence functions")
    else:
        assert found["sfid"].low is None
        assert "too small" in found["sfid"].notes[0]


def test_sfid_against_a_statistics_file() -> None:
    found = spatial(Moments(None, np.zeros(4), np.eye(4)), normal(2000, 4, 0, 0.5))
    assert found["sfid_debiased"].low < 1 < found["sfid_debiased"].high
    assert "taken as the target" in found["sfid"].notes[0]
    assert set(found["sfid"].influence) == {"gen"}


def test_sfid_of_few_samples() -> None:
    found = spatial(normal(3, 2, 0), normal(4, 2, 1))
    assert found["sfid"].low is None
    assert isinstance(found["sfid_debiased"], Undefined)


def test_sfid_is_skipped_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    assert registry.metric("sfid").extractor == "inception_spatial"
    x = RNG(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    run = genbench.evaluate(x, x[::-1].copy(), metrics=["fid", "sfid"], extractor="pixels")
    assert {r["quantity"] for r in run.record["results"]} == {"fid", "fid_debiased"}
    (skipped,) = run.record["skipped"]
    assert skipped["metric"] == "sfid@inception_spatial"
    assert inception.FILES[0].file in skipped["reason"]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    """torchvision's Inception-v3 with random weights under which activations neither explode nor vanish."""
    from torchvision.models.inception import Inception3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False).eval()
    draw = torch.Generator().manual_seed(0)
    for name, value in made.state_dict().items():
        if value.ndim == 4:
            value.copy_(torch.randn(value.shape, generator=draw) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=draw) * 0.1)
    return made


@pytest.fixture(scope="module")
def weights(net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(net.state_dict(), path)
    return path


IMAGES = RNG(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


def test_the_features_are_seven_channels_of_the_branch_after_its_rectifier(
    net: torch.nn.Module, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genbench.preprocess import rescale, resize

    seen = []
    hook = net.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, out: seen.append(out))
    plain = torch.nn.functional.avg_pool2d
    monkeypatch.setattr(torch.nn.functional, "avg_pool2d", partial(plain, count_include_pad=False))  # as the graph of 2015
    with torch.no_grad():
        net(rescale(resize(torch.from_numpy(IMAGES), (299, 299), "clean"), "clean"))
    hook.remove()
    out = inception_spatial.load(weights=weights, shape=(3, 32, 32))(IMAGES)
    assert out.logits is None
    assert out.features.shape == (2, 2023)
    assert out.features.dtype == np.float32
    assert out.features.min() == 0
    assert seen[0].shape == (2, 192, 17, 17)
    places = seen[0].numpy().transpose(0, 2, 3, 1)[..., :7]
    assert places.std() > 0.01
    assert np.abs(out.features.reshape(2, 17, 17, 7) - places).max() <= 2e-4


def test_the_extractor_shares_weights_preprocessing_and_refusals_with_inception(weights: Path) -> None:
    assert inception_spatial.FILES is inception.FILES
    e = inception_spatial.load(weights=weights, shape=(1, 32, 32), preprocess="tf1")
    assert (e.name, e.dim, e.preprocess, e.has_probabilities) == ("inception_spatial", 2023, "tf1", False)
    assert e.weights == inception.load(weights=weights, shape=(3, 32, 32)).weights
    grey = e(IMAGES[:, :1]).features
    assert np.abs(grey - e(np.repeat(IMAGES[:, :1], 3, axis=1)).features).max() < 1e-4
    assert np.abs(e(IMAGES[1:, :1]).features - grey[1:]).max() < 1e-5 * grey.max()
    with pytest.raises(DataError, match="inception_spatial"):
        e(np.zeros((2, 7)))
    with pytest.raises(DataError, match="inception_spatial"):
        inception_spatial.load(weights=weights, shape=(2,))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_extractor_equals_a_hook_on_pytorch_fid(net: torch.nn.Module, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: net.state_dict())
    theirs = peer.InceptionV3([2]).eval()
    seen = []
    theirs.blocks[2][6].register_forward_hook(lambda _, __, out: seen.append(out))  # Mixed_6d, after 5b to 5d and 6a to 6c
    with torch.no_grad():
        theirs(torch.from_numpy(IMAGES).float() / 255)
    mine = inception_spatial.load(weights=weights, shape=(3, 32, 32), preprocess="torch")(IMAGES).features
    assert np.abs(mine.reshape(2, 17, 17, 7) - seen[0].numpy()[:, :7].transpose(0, 2, 3, 1)).max() <= 2e-4


# -- class_fd --------------------------------------------------------------------------------------------------------------------


def intra(ref: Features, gen: Features) -> dict[str, Estimate]:
    return registry.metric("class_fd")(ref=ref, gen=gen)


THREE = np.arange(600) % 3


def test_class_fd_is_the_mean_of_the_classes_distances() -> None:
    ref, gen = normal(600, 4, 0, labels=THREE), normal(600, 4, 1, 0.3, labels=np.sort(THREE))
    found = intra(ref, gen)
    each = [[ref.x[ref.labels == c], gen.x[gen.labels == c]] for c in range(3)]
    assert found["class_fd"].value == pytest.approx(np.mean([distance(g, r) for r, g in each]), rel=1e-9)
    (table,) = found["class_fd"].details
    assert [row[:3] for row in table.rows] == [(0, 200, 200), (1, 200, 200), (2, 200, 200)]
    assert np.mean([row[4] for row in table.rows]) == pytest.approx(found["class_fd_debiased"].value)
    assert all(row[5] < row[4] < row[6] for row in table.rows)
    worst = max(table.rows, key=lambda row: row[4])
    assert f"is {worst[0]}:" in found["class_fd"].notes[0]
    wide = np.mean([row[6] - row[5] for row in table.rows])
    assert found["class_fd_debiased"].high - found["class_fd_debiased"].low < 0.8 * wide


def test_the_interval_holds_what_the_next_order_takes_off() -> None:
    """12.5, −16 and 4.5 are the parabola's weights at 1/n = 0, and the half width is not below its difference."""
    weights = registry.module("metrics", "class_fd").SECOND
    assert np.linalg.inv(np.vander([1, 5 / 4, 5 / 3], 3, increasing=True))[0] == pytest.approx(weights)
    labels = np.arange(400) % 10
    ref, gen = (Features(RNG(s).standard_t(8, size=(400, 16)), labels=labels) for s in (0, 1))
    e, left = intra(ref, gen)["class_fd_debiased"], []
    for c in range(10):
        x, y = gen.x[labels == c], ref.x[labels == c]
        block = np.arange(40) % 5
        one = [distance(x[block != b], y[block != b]) for b in range(5)]
        two = [distance(*(z[(block != b) & (block != (b + 2) % 5)] for z in (x, y))) for b in range(5)]
        full = distance(x, y)
        left.append(full - 4 * (np.mean(one) - full) - np.dot(weights, (full, np.mean(one), np.mean(two))))
    assert (e.high - e.low) / 2 > abs(np.mean(left)) > 0


def test_a_generator_that_confuses_classes_is_seen_by_class_fd_alone() -> None:
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    ref = Features(RNG(0).normal(size=(600, 2)) + centres[THREE], labels=THREE)
    x = RNG(1).normal(size=(600, 2)) + centres[THREE]
    right, wrong = Features(x, labels=THREE), Features(x, labels=(THREE + 1) % 3)
    fid = registry.metric("fid")
    assert fid(ref=ref, gen=right)["fid"] == fid(ref=ref, gen=wrong)["fid"]
    assert intra(ref, right)["class_fd_debiased"].value < 0.1
    assert intra(ref, wrong)["class_fd_debiased"].low > 30


def test_one_bad_class_is_named() -> None:
    gen = normal(600, 2, 1, labels=THREE)
    gen = Features(gen.x + 2.0 * (THREE == 1)[:, None], labels=THREE)
    assert "is 1:" in intra(normal(600, 2, 0, labels=THREE), gen)["class_fd"].notes[0]


def test_class_fd_is_blind_to_the_shares_of_the_classes() -> None:
    ref, gen = normal(600, 2, 0, labels=THREE), normal(600, 2, 1, labels=THREE)
    twice = gen.take(np.concatenate([np.arange(600), np.flatnonzero(THREE == 0)]))
    rest = 1e-2  # copies change the denominators of one class only
    assert intra(ref, twice)["class_fd"].value == pytest.approx(intra(ref, gen)["class_fd"].value, rel=rest)


def test_influences_make_up_the_variance() -> None:
    """Far apart, the influence functions are the whole error: their variance is that of the value over new samples."""
    values, said = [], []
    for seed in range(60):
        ref, gen = normal(240, 2, 2 * seed, labels=THREE[:240]), normal(300, 2, 2 * seed + 1, 3.0, labels=THREE[:300])
        e = intra(ref, gen)["class_fd_debiased"]
        values.append(e.value)
        said.append(sum(v.var() / len(v) for v in e.influence.values()))
    assert all(abs(v.mean()) < 1e-9 for v in e.influence.values())
    assert 0.6 < np.mean(said) / np.var(values) < 1.6


@pytest.mark.parametrize("side", ["gen", "ref"])
def test_labels_are_asked_for(side: str) -> None:
    views = {"gen": normal(30, 2, 0, labels=THREE[:30]), "ref": normal(30, 2, 1, labels=THREE[:30])}
    views[side] = Features(views[side].x)
    for found in registry.metric("class_fd")(**views).values():
        assert isinstance(found, Undefined)
        assert "sub-folders" in found.reason


def test_a_dropped_class_is_no_way_to_a_better_value() -> None:
    ref, gen = normal(600, 2, 0, labels=THREE), normal(600, 2, 1, labels=THREE)
    for a, b in ((ref, gen.take(np.flatnonzero(THREE != 2))), (ref.take(np.flatnonzero(THREE != 2)), gen)):
        found = intra(a, b)["class_fd"]
        assert isinstance(found, Undefined)
        assert "class 2 (" in found.reason


def test_small_classes_have_a_value_without_an_interval() -> None:
    found = intra(normal(60, 30, 0, labels=THREE[:60]), normal(60, 30, 1, labels=THREE[:60]))
    assert found["class_fd"].low is None
    assert found["class_fd_debiased"].low is None
    assert "20 samples for 30 features" in found["class_fd"].notes[1]
    few = intra(normal(9, 1, 0, labels=THREE[:9]), normal(9, 1, 1, labels=THREE[:9]))
    assert isinstance(few["class_fd"], Estimate)
    assert isinstance(few["class_fd_debiased"], Undefined)


# -- realism ---------------------------------------------------------------------------------------------------------------------


def slow(ref: np.ndarray, gen: np.ndarray, k: int) -> np.ndarray:
    within = np.sqrt(((ref[:, None] - ref) ** 2).sum(2))
    radius = np.sort(within, axis=1)[:, k]
    keep = radius <= np.median(radius)
    apart = np.sqrt(((gen[:, None] - ref[keep]) ** 2).sum(2))
    with np.errstate(divide="ignore"):
        return np.where(apart > 0, radius[keep] / np.where(apart > 0, apart, 1), np.inf).max(1)


def real(ref: np.ndarray, gen: np.ndarray, **settings: int) -> dict[str, Estimate]:
    return registry.metric("realism")(ref=Features(ref), gen=Features(gen), **settings)


def scores(found: dict[str, Estimate], n: int) -> np.ndarray:
    (table,) = found["realistic_share"].details
    out = np.empty(n)
    for row, value in table.rows:
        out[row] = value
    return out


@pytest.mark.parametrize(("n", "m", "d", "k"), [(60, 51, 2, 1), (70, 80, 5, 3), (30, 40, 20, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_realism_equals_the_formula(n: int, m: int, d: int, k: int, dtype: type) -> None:
    ref, gen = (RNG(0).normal(size=(m, d)) + 50).astype(dtype), (RNG(1).normal(size=(n, d)) + 50.2).astype(dtype)
    gen[:3] = ref[:3]
    found, expected = real(ref, gen, k=k), slow(ref.astype(float), gen.astype(float), k)
    assert scores(found, n) == pytest.approx(expected, rel=1e-9)
    assert found["realistic_share"].value == (expected >= 1).mean()
    assert found["realism_median"].value == pytest.approx(np.median(expected), rel=1e-9)
    order = [row[1] for row in found["realistic_share"].details[0].rows]
    assert order == sorted(order)


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ref, gen = RNG(0).normal(size=(170, 2)), RNG(1).normal(size=(101, 2))
    whole = scores(real(ref, gen), 101)
    monkeypatch.setattr(registry.module("metrics", "realism"), "TILE", 16)
    assert scores(real(ref, gen), 101) == pytest.approx(whole, rel=1e-12)


def test_near_copies_far_from_the_origin_are_not_lost_in_rounding() -> None:
    """Two distant clusters: norms of 1e7 against distances of 1e-3, which a matrix product in float64 cannot tell apart."""
    ref = RNG(0).normal(size=(80, 3))
    ref[40:] += 1e7
    gen = ref[::2] + 1e-3 * RNG(1).normal(size=(40, 3))
    assert scores(real(ref, gen), 40) == pytest.approx(slow(ref, gen, 3), rel=1e-6)


def test_realism_is_invariant_to_motion_and_scale() -> None:
    ref, gen = RNG(0).normal(size=(100, 3)), RNG(1).normal(size=(90, 3))
    turn = np.linalg.qr(RNG(2).normal(size=(3, 3)))[0]
    plain = scores(real(ref, gen), 90)
    assert scores(real(1e-5 * ref @ turn + 3, 1e-5 * gen @ turn + 3), 90) == pytest.approx(plain, rel=1e-6)


def test_a_ball_of_an_outlier_makes_nothing_real() -> None:
    """One far reference sample has a huge ball, in which precision counts all that lies there; realism leaves it out."""
    ref = np.concatenate([RNG(0).normal(size=(100, 2)), [[50.0, 0.0]]])
    gen = np.array([[25.0, 0.0]]) + RNG(1).normal(size=(100, 2))
    assert registry.metric("prdc")(ref=Features(ref), gen=Features(gen), k=3)["precision"].value > 0.9
    assert real(ref, gen)["realistic_share"].value == 0
    assert real(ref, gen)["realism_median"].value < 0.1


def test_copies_are_infinitely_real_and_counted() -> None:
    ref = RNG(0).normal(size=(100, 2))
    gen = np.concatenate([ref[:20], RNG(1).normal(size=(80, 2)) + 5])
    found = real(ref, gen)
    radius = neighbours(Features(ref), None, 3)[0][:, -1]
    infinite = int((radius[:20] <= np.median(radius)).sum())
    assert np.isinf(scores(found, 100)).sum() == infinite
    assert 0 < infinite < 20, "copies of samples whose balls are left out are judged by the other balls"
    assert f"{infinite} generated samples are exact copies" in found["realistic_share"].notes[0]
    everything = real(ref, np.repeat(ref[np.argmin((ref**2).sum(1))][None], 50, axis=0))
    assert everything["realistic_share"].value == 1
    assert isinstance(everything["realism_median"], Undefined)


def test_copies_of_repeated_reference_samples_are_real() -> None:
    ref = np.repeat(RNG(0).normal(size=(10, 2)), 10, axis=0)  # every radius is 0
    found = real(ref, np.concatenate([ref[:30], ref[:70] + 1e-9]))
    assert found["realistic_share"].value == 0.3
    assert found["realism_median"].value == 0


def test_a_large_reference_is_cut_and_says_so() -> None:
    ref, gen = RNG(0).normal(size=(300, 2)), RNG(1).normal(size=(100, 2))
    found = real(ref, gen, ref_size=200, seed=4)
    assert found["realistic_share"].notes[0] == "200 of the 300 reference samples are used"
    assert scores(found, 100) == pytest.approx(slow(Features(ref).cut(200, 4).x, gen, 3), rel=1e-9)
    assert scores(real(ref, gen, ref_size=0), 100) == pytest.approx(slow(ref, gen, 3), rel=1e-9)


def test_realism_is_blind_to_a_dropped_mode_and_sees_blurring_noise() -> None:
    ref = np.concatenate([RNG(0).normal(size=(150, 2)), RNG(1).normal(size=(150, 2)) + 8])
    half, noisy = RNG(2).normal(size=(200, 2)), ref[:200] + 2 * RNG(3).normal(size=(200, 2))
    good = np.concatenate([RNG(4).normal(size=(100, 2)), RNG(5).normal(size=(100, 2)) + 8])
    read = {name: real(ref, x)["realistic_share"] for name, x in (("half", half), ("noisy", noisy), ("good", good))}
    assert read["half"].low < read["good"].value < read["half"].high
    assert read["noisy"].high < read["good"].low


def test_settings_and_few_samples() -> None:
    with pytest.raises(UsageError, match="k >= 1"):
        real(np.zeros((9, 1)), np.zeros((9, 1)), k=0)
    assert isinstance(real(RNG(0).normal(size=(3, 2)), RNG(1).normal(size=(30, 2)))["realistic_share"], Undefined)
    few = real(RNG(0).normal(size=(12, 2)), RNG(1).normal(size=(12, 2)))
    assert few["realistic_share"].low is None
    assert "too few" in few["realism_median"].notes[-1]
    assert isinstance(real(np.full((50, 2), 1e200), np.full((50, 2), 1e200))["realistic_share"], Undefined)
