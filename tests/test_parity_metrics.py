"""The same features through the peers' own functions (extra [parity])."""

import numpy as np
import pytest

from genbench import registry
from genbench.statistics import Features, Moments, Probabilities

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
RNG = np.random.default_rng(5)


def pair(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    mix = RNG.normal(size=(d, d)) / np.sqrt(d)
    return RNG.normal(size=(n, d)) @ mix + 0.2, RNG.exponential(size=(n + 50, d)) @ mix


@pytest.mark.parametrize(("n", "d"), [(200, 2), (400, 64), (600, 192)])
def test_fid_equals_pytorch_fid(n: int, d: int) -> None:
    peer = pytest.importorskip("pytorch_fid.fid_score")
    x, y = pair(n, d)
    mine = registry.metric("fid")(gen=Features(x), ref=Features(y))["fid"].value
    theirs = peer.calculate_frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    assert mine == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 2), (400, 64), (600, 192)])
def test_fid_equals_torch_fidelity(n: int, d: int) -> None:
    peer = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = pair(n, d)
    stats = [{"mu": z.mean(0), "sigma": np.cov(z, rowvar=False)} for z in (x, y)]
    theirs = peer.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert registry.metric("fid")(gen=Features(x), ref=Features(y))["fid"].value == pytest.approx(theirs, rel=1e-6)


def test_fid_from_a_statistics_file_equals_pytorch_fid(tmp_path) -> None:
    peer = pytest.importorskip("pytorch_fid.fid_score")
    x, y = pair(400, 32)
    np.savez(tmp_path / "s.npz", mu=y.mean(0), sigma=np.cov(y, rowvar=False))
    mine = registry.metric("fid")(gen=Features(x), ref=Moments.load(tmp_path / "s.npz"))["fid"].value
    theirs = peer.calculate_frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    assert mine == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 8), (400, 300)])
def test_kid_subsets_equal_torch_fidelity(n: int, d: int) -> None:
    import torch

    peer = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = pair(n, d)
    theirs = peer.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=20, kid_subset_size=100, rng_seed=2020, verbose=False
    )
    mine = registry.metric("kid")(gen=Features(x), ref=Features(y), subsets=20, subset_size=100, seed=2020)["kid"]
    assert mine.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert mine.low is None


@pytest.mark.parametrize("shuffle", [True, False])
def test_split_scores_equal_torch_fidelity(shuffle: bool) -> None:
    import torch

    peer = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * RNG.normal(size=(530, 12))
    theirs = peer.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=shuffle, rng_seed=2020)
    found = registry.metric("inception_score")(gen=Probabilities.of_logits(logits), splits=10, shuffle=shuffle, seed=2020)
    assert found["{extractor}_score"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)


@pytest.mark.parametrize(("n", "d", "k"), [(200, 2, 5), (300, 64, 3)])
def test_prdc_equals_the_authors_package_where_there_are_no_ties(n: int, d: int, k: int) -> None:
    peer = pytest.importorskip("prdc")
    x, y = pair(n, d)
    theirs = peer.compute_prdc(real_features=y, fake_features=x, nearest_k=k)
    mine = registry.metric("prdc")(gen=Features(x), ref=Features(y), k=k, equal=False)
    for name, value in theirs.items():
        assert mine[name].value == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("d", [16, 128])
def test_fid_equals_both_peers_on_the_same_moments(d: int) -> None:
    first, second = pytest.importorskip("pytorch_fid.fid_score"), pytest.importorskip("torch_fidelity.metric_fid")
    rng = np.random.default_rng(d)
    x, y = 1.4 * rng.normal(size=(500, d)), rng.exponential(size=(450, d))
    mu, sigma = (x.mean(0), y.mean(0)), (np.cov(x, rowvar=False), np.cov(y, rowvar=False))
    mine = registry.metric("fid")(gen=Features(x), ref=Features(y))["fid"].value
    assert mine == pytest.approx(first.calculate_frechet_distance(mu[0], sigma[0], mu[1], sigma[1]), rel=1e-6)
    stats = [{"mu": m, "sigma": s} for m, s in zip(mu, sigma, strict=True)]
    assert mine == pytest.approx(second.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"], rel=1e-6)
    moments = registry.metric("fid")(gen=Moments.of(x), ref=Moments.of(y))["fid"].value
    assert moments == pytest.approx(mine, rel=1e-9)


def test_kid_of_a_hundred_subsets_equals_torch_fidelity() -> None:
    import torch

    peer = pytest.importorskip("torch_fidelity.metric_kid")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 24)), rng.normal(size=(260, 24)) + 0.2
    theirs = peer.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=100, kid_subset_size=100, rng_seed=2020, verbose=False
    )
    mine = registry.metric("kid")(gen=Features(x), ref=Features(y), subsets=100, subset_size=100, seed=2020)["kid"]
    assert mine.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    spread = float(theirs["kernel_inception_distance_std"])
    assert any(f"{spread:.3g}" in note for note in mine.notes)


@pytest.mark.parametrize("d", [4, 60])
def test_kid_equals_torchmetrics_on_the_full_sample(d: int) -> None:
    import torch

    peer = pytest.importorskip("torchmetrics.image.kid")
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(150, d)), rng.normal(size=(150, d)) + 0.3
    theirs = float(peer.poly_mmd(torch.from_numpy(y), torch.from_numpy(x)))
    assert registry.metric("kid")(gen=Features(x), ref=Features(y))["kid"].value == pytest.approx(theirs, rel=1e-9)
