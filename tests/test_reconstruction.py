"""Reconstructions and latent paths: by hand, against a peer, and through a model."""

import math

import numpy as np
import pytest

import genbench
from genbench import registry
from genbench.errors import DataError, UsageError
from genbench.estimate import Undefined
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
