"""Reconstructions and latent paths: by hand, against a peer, and through a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genbench
from genbench import evaluation, registry
from genbench.errors import DataError, UsageError
from genbench.estimate import Undefined
from genbench.extractor import Outputs
from genbench.extractors import identity, lpips
from genbench.statistics import LatentPath, Reconstructions

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 16, 20), dtype=np.uint8)
NOISY = np.clip(IMAGES + RNG.normal(0, 20, IMAGES.shape), 0, 255).astype(np.uint8)
reconstruction, ppl = registry.metric("reconstruction"), registry.metric("ppl")


def test_mse_and_psnr_by_hand() -> None:
    found = reconstruction(test=Reconstructions(IMAGES, NOISY))
    mse = ((IMAGES.astype(float) - NOISY) ** 2).mean()
    assert found["reconstruction_mse"].value == pytest.approx(mse, rel=1e-12)
    assert found["reconstruction_psnr"].value == pytest.approx(10 * math.log10(255**2 / mse), rel=1e-12)
    assert found["reconstruction_psnr"].low < found["reconstruction_psnr"].value < found["reconstruction_psnr"].high


def test_a_perfect_reconstruction() -> None:
    found = reconstruction(test=Reconstructions(IMAGES, IMAGES))
    assert found["reconstruction_mse"].value == 0
    assert found["reconstruction_ssim"].value == pytest.approx(1, abs=1e-12)
    assert isinstance(found["reconstruction_psnr"], Undefined)


def test_ssim_of_an_inverted_image_is_negative_and_of_vectors_undefined() -> None:
    flipped = reconstruction(test=Reconstructions(IMAGES, 255 - IMAGES))
    assert flipped["reconstruction_ssim"].value < -0.5
    assert "7 × 7" in reconstruction(test=Reconstructions(np.ones((5, 2)), np.zeros((5, 2))))["reconstruction_ssim"].reason


def test_ssim_of_one_window_by_hand() -> None:
    x, y = RNG.uniform(0, 255, (1, 1, 7, 7)), RNG.uniform(0, 255, (1, 1, 7, 7))
    at = np.arange(7) - 3
    w = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, cov = (w * x * x).sum() - mx**2, (w * y * y).sum() - my**2, (w * x * y).sum() - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    exact = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert reconstruction(test=Reconstructions(x, y))["reconstruction_ssim"].value == pytest.approx(exact, rel=1e-10)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_ssim_and_psnr_are_those_of_torchmetrics() -> None:
    peer = pytest.importorskip("torchmetrics.functional.image")
    import torch

    x, y = (torch.from_numpy(v.astype(np.float64)) for v in (IMAGES, NOISY))
    found = reconstruction(test=Reconstructions(IMAGES, NOISY))
    assert found["reconstruction_psnr"].value == pytest.approx(float(peer.peak_signal_noise_ratio(y, x, data_range=255.0)), rel=1e-6)
    theirs = float(peer.structural_similarity_index_measure(y, x, data_range=255.0))
    # it also averages over windows that hang over the edge, of reflected pixels
    assert found["reconstruction_ssim"].value == pytest.approx(theirs, abs=0.02)


def test_bad_calls() -> None:
    with pytest.raises(UsageError, match="peak"):
        reconstruction(test=Reconstructions(IMAGES, NOISY), peak=-1.0)
    with pytest.raises(DataError, match="shape"):
        Reconstructions(IMAGES, NOISY[:3])
    with pytest.raises(DataError, match="row 1"):
        Reconstructions(np.zeros((2, 2)), np.array([[0, 0], [np.nan, 0]]))
    with pytest.raises(DataError, match="one LPIPS per pair"):
        Reconstructions(IMAGES, NOISY, np.zeros(3))
    with pytest.raises(DataError, match="row 2"):
        Reconstructions(np.zeros((3, 2)), np.zeros((3, 2)), np.array([0, 0, np.nan]))
    with pytest.raises(DataError, match="step"):
        LatentPath(np.zeros((2, 2)), np.zeros((2, 2)), 0.0)


def test_path_length_of_a_linear_model() -> None:
    """f(G(z)) = A z along straight lines between two draws: the speed is ‖A (z1 − z0)‖, its mean square 2 ‖A‖²_F."""
    a = np.array([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0]])
    z0, z1, t = RNG.normal(size=(20_000, 2)), RNG.normal(size=(20_000, 2)), RNG.uniform(size=(20_000, 1))
    rows = [(z0 + (t + s) * (z1 - z0)) @ a.T for s in (0.0, 1e-3)]
    found = ppl(gen=LatentPath(*rows, 1e-3))["ppl"]
    assert found.low < 2 * (a**2).sum() < found.high


class Linear:
    """A model with a latent space of one dimension, on a line in the plane."""

    provenance = {"name": "linear"}  # noqa: RUF012

    def sample(self, n: int, *, seed: int, start: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(start + n, 1))[start:] * np.array([3.0, 4.0])

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        line = np.array([0.6, 0.8])
        return (x @ line)[:, None] * line

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        z0, z1, t = rng.normal(size=(n, 1)), rng.normal(size=(n, 1)), rng.uniform(size=(n, 1))
        return tuple((z0 + s * (z1 - z0)) * np.array([3.0, 4.0]) for s in (t, t + step))


def test_a_model_is_asked_for_reconstructions_and_paths() -> None:
    rows = RNG.normal(size=(300, 2))
    run = genbench.evaluate(Linear(), rows, test=rows, metrics=["reconstruction", "ppl"], n=4000, cache=None)
    off = rows @ np.array([-0.8, 0.6])
    assert run["reconstruction_mse"].value == pytest.approx((off**2).mean() / 2, rel=1e-9)
    assert run["ppl"].low < 2 * 25 < run["ppl"].high
    without = genbench.evaluate(rows, rows, test=rows, metrics=["reconstruction", "ppl"], cache=None)
    assert [s["metric"] for s in without.record["skipped"]] == ["reconstruction@identity", "ppl@identity"]


# -- LPIPS ---------------------------------------------------------------------------------------------------------------------------


class Dimmer:
    """A model of images: the latent is a share of the light, and encoding loses the same of it everywhere."""

    provenance = {"name": "dimmer"}  # noqa: RUF012

    def __init__(self, lost: float, shape: tuple[int, ...] = (3, 16, 20)) -> None:
        self.lost, self.shape = lost, shape

    def sample(self, n: int, *, seed: int, start: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (start + n, *self.shape), dtype=np.uint8)[start:]

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        return np.round(x * (1 - self.lost)).astype(np.uint8)

    def latent_pairs(self, n: int, step: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        x, t = self.sample(n, seed=seed).astype(np.float32), np.random.default_rng(seed).uniform(size=(n, 1, 1, 1))
        return tuple((x * (1 - (t + s) / 2)).astype(np.float32) for s in (0.0, step))


def test_lpips_is_the_mean_of_the_pairs() -> None:
    found = reconstruction(test=Reconstructions(IMAGES, NOISY, np.arange(12.0)))["reconstruction_lpips"]
    assert found.value == 5.5
    assert found.low < 5.5 < found.high
    assert "not computed" in reconstruction(test=Reconstructions(IMAGES, NOISY))["reconstruction_lpips"].reason


def test_lpips_and_its_path_length_through_the_engine(lpips_cache: Path) -> None:
    model = Dimmer(0.3)
    run = genbench.evaluate(model, IMAGES, test=IMAGES, metrics=["reconstruction", "ppl@lpips"], extractor="pixels", n=6, cache=None)
    e = lpips.load(shape=(3, 16, 20))
    assert run.record["extractors"]["lpips"] == {"weights": e.weights, "preprocess": "none", "batch": lpips.BATCH}

    def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ((e(x).features.astype(float) - e(y).features) ** 2).sum(axis=1)

    assert run["reconstruction_lpips"].value == pytest.approx(apart(IMAGES, model.reconstruct(IMAGES)).mean(), rel=1e-6)
    assert run["reconstruction_lpips"].n == 12
    assert run["ppl@lpips"].value == pytest.approx(apart(*model.latent_pairs(6, 1e-4, seed=0)).mean() / 1e-8, rel=1e-6)


def test_lpips_on_the_network_of_a_given_file(lpips_cache: Path) -> None:
    shape = (1, 32, 32)
    x = Dimmer(0, shape).sample(5, seed=0)
    run = genbench.evaluate(
        Dimmer(0.3, shape),
        x,
        test=x,
        metrics=["reconstruction"],
        extractor="lpips",
        weights=lpips_cache / "weights" / lpips.ALEX.backbone.file,
        n=5,
        cache=None,
    )
    e = lpips.load(weights=lpips_cache / "weights" / lpips.ALEX.backbone.file, shape=shape)
    a, b = (e(v).features.astype(float) for v in (x, Dimmer(0.3).reconstruct(x)))
    assert run["reconstruction_lpips"].value == pytest.approx(((a - b) ** 2).sum(axis=1).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((3, 16, 20), "vgg16-397923af.pth (528 MB) from https"), ((1, 8, 8), "at least 16 × 16")],
    ids=["no weights", "too small"],
)
def test_without_lpips_the_other_quantities_stay(
    shape: tuple[int, ...], reason: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(*_: object, **__: object) -> None:
        raise AssertionError("nothing is fetched unasked")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    if shape == (3, 16, 20):
        monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    else:
        request.getfixturevalue("lpips_cache")
    x = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    run = genbench.evaluate(Dimmer(0.3, shape), x, test=x, metrics=["reconstruction"], extractor="pixels", n=6, cache=None)
    assert {"reconstruction_mse", "reconstruction_psnr", "reconstruction_ssim"} == {r["quantity"] for r in run.record["results"]}
    (skipped,) = run.record["skipped"]
    assert skipped["quantity"] == "reconstruction_lpips"
    assert reason in skipped["reason"]
    assert str(tmp_path) not in skipped["reason"], "a record does not tell where its author keeps files"


@pytest.mark.parametrize("failure", ["no route to host", "another file"])
def test_a_failed_download_of_lpips_ends_no_run(failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        if failure == "another file":
            return io.BytesIO(b"<html>")
        raise ConnectionResetError(failure)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    run = genbench.evaluate(
        Dimmer(0.3), IMAGES, test=IMAGES, metrics=["reconstruction"], extractor="pixels", n=6, cache=None, download=True
    )
    (skipped,) = run.record["skipped"]
    assert ("is not the published" if failure == "another file" else failure) in skipped["reason"]
    assert run["reconstruction_mse"].value > 0


def test_levels_that_overflow_the_network_of_lpips_end_no_run(lpips_cache: Path) -> None:
    class Bright(Dimmer):
        def reconstruct(self, x: np.ndarray) -> np.ndarray:
            return x * 1e37

    run = genbench.evaluate(Bright(0.3), IMAGES, test=IMAGES, metrics=["reconstruction"], extractor="pixels", n=6, cache=None)
    assert "too large for LPIPS" in next(s["reason"] for s in run.record["skipped"] if s["quantity"] == "reconstruction_lpips")
    assert run["reconstruction_mse"].value > 1e70


class Long:
    """An extractor of rows of 40 numbers, that counts what it is given at once."""

    name, dim, classes, has_probabilities, weights, preprocess, batch = "long", 40, None, False, "digest", "none", 8

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, rows: np.ndarray) -> Outputs:
        self.calls.append(len(rows))
        return Outputs(np.repeat(rows, 20, axis=1))


@pytest.mark.parametrize(("paired", "columns", "batch"), [(1 << 24, 1 << 20, 8), (120, 7, 3), (1, 1, 1)])
def test_distances_hold_no_more_than_they_may(paired: int, columns: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PAIRED", paired)
    monkeypatch.setattr(evaluation, "COLUMNS", columns)
    x, y = RNG.normal(size=(10, 2)), RNG.normal(size=(10, 2))
    e = Long()
    assert evaluation.distances(e, x, y) == pytest.approx(np.sqrt(20 * ((x - y) ** 2).sum(axis=1)), rel=1e-12)
    assert set(e.calls) == {batch}
    assert len(e.calls) == 2 * -(-10 // batch)


def test_distances_of_none_and_of_numbers_whose_squares_overflow() -> None:
    e: Any = identity.load(shape=(2,))
    assert evaluation.distances(e, np.empty((0, 2)), np.empty((0, 2))).shape == (0,)
    far = evaluation.distances(e, np.array([[3e200, 0.0], [1.0, 1.0]]), np.array([[0.0, 4e200], [1.0, 1.0]]))
    assert far == pytest.approx([5e200, 0.0], rel=1e-12)


def test_a_comparison_asks_each_model_for_its_own_reconstructions() -> None:
    """Held-out samples stay when the model changes; what a model makes of them does not."""
    found = genbench.compare(
        {"near": Dimmer(0.1), "far": Dimmer(0.5)}, IMAGES, test=IMAGES, metrics=["reconstruction"], extractor="pixels", n=6
    )
    near, far = (found.runs[name]["reconstruction_mse"].value for name in ("near", "far"))
    assert near == pytest.approx(((IMAGES - Dimmer(0.1).reconstruct(IMAGES).astype(float)) ** 2).mean(), rel=1e-12)
    assert far == pytest.approx(((IMAGES - Dimmer(0.5).reconstruct(IMAGES).astype(float)) ** 2).mean(), rel=1e-12)
