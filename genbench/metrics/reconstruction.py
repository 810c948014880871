"""Reconstruction error: MSE, PSNR, SSIM and LPIPS."""

from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from genbench.errors import UsageError
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.likelihood import mean_interval
from genbench.metric import Outcome, metric
from genbench.statistics import Reconstructions

WINDOW, SIGMA = 11, 1.5  # of the SSIM's Gaussian window


@metric(
    Quantity("reconstruction_mse", "lower", unit="sample²", ideal=0.0, range=(0, inf)),
    Quantity("reconstruction_psnr", "higher", unit="dB"),
    Quantity("reconstruction_ssim", "higher", ideal=1.0, range=(-1, 1)),
    Quantity("reconstruction_lpips", "lower", ideal=0.0, range=(0, inf)),
    cost="n d + 2 n forward passes",
    source="Wang et al. 2004, eqs. 13-14; Zhang et al. 2018, eq. 1",
)
def reconstruction(test: Reconstructions, *, peak: float = 0.0) -> tuple[Outcome, Outcome, Outcome, Outcome]:
    """Error of held-out samples that a model encodes and decodes.

        MSE = mean over samples of ‖x − y‖²/d      PSNR = 10 log10(peak²/MSE)
        SSIM = mean over samples, channels and windows of (2 μx μy + c1)(2 σxy + c2)/((μx² + μy² + c1)(σx² + σy² + c2))

    with c1 = (0.01 peak)², c2 = (0.03 peak)² and Gaussian windows of 11 pixels, σ = 1.5 (7 pixels where an image is smaller), whole windows
    only. LPIPS is the mean learned distance of the extractor `lpips`, where its weights are.

    Args:
        test: held-out samples, their reconstructions and the LPIPS of each pair.
        peak: largest minus smallest possible value; 0 for 255 (images) or the originals' own range (vectors).

    Returns:
        `reconstruction_mse` in [0, ∞), lower is better, in squared grey levels or units of the vectors. `reconstruction_psnr` in dB, higher
        is better: of the mean MSE, not the mean of the samples' PSNR, which one perfect sample makes infinite. `reconstruction_ssim` in
        [−1, 1], higher is better, images of at least 7 pixels only. `reconstruction_lpips` in [0, ∞), lower is better, images of at least
        16 pixels only: v0.1 on VGG16 in the images' own size (AlexNet where `--extractor lpips` is given its weights). Undefined, with
        what to put where, without the weights.

        Intervals: mean over samples, t widened for skewness; the PSNR's from the MSE's. Over new test samples, the model as it is.

    Note:
        Says nothing of samples: an autoencoder that copies its input is perfect. MSE and PSNR favour blur, LPIPS punishes it.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004), eqs. 13 and 14.
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), eq. 1.

    Example:
        >>> x = np.zeros((4, 2))
        >>> reconstruction.function(Reconstructions(x, x + 0.5), peak=1.0)[0].value
        0.25
    """
    if peak < 0:
        raise UsageError(f"reconstruction needs peak >= 0, found {peak}")
    n = len(test)
    if not n:
        return (Undefined("needs at least one test sample, found none"),) * 4
    x, y = test.x.astype(np.float64), test.y.astype(np.float64)
    if max(float(np.abs(x).max()), float(np.abs(y).max())) > 1e70:
        return (Undefined("the samples are too large for float64: their squares overflow; rescale them"),) * 4
    full = peak or (255.0 if x.ndim == 4 else float(np.ptp(x)))
    errors = ((x - y) ** 2).reshape(n, -1).mean(axis=1)
    mse = _mean(errors, 0.0, inf)
    lpips = test.lpips if isinstance(test.lpips, Undefined) else _mean(test.lpips.astype(np.float64), 0.0, inf)
    return mse, _psnr(mse, full), _similarity(x, y, full), lpips


def _mean(values: NDArray[np.float64], low: float, high: float) -> Estimate:
    if len(values) < 2:
        return Estimate(float(values[0]), None, None, 1, None, notes=("no interval: 1 sample",))
    value, a, b = mean_interval(values)
    influence = {"test": values - values.mean()}
    return Estimate(value, max(a, low), min(b, high), len(values), "t, widened for skewness", influence=influence)


def _psnr(mse: Estimate, peak: float) -> Outcome:
    if mse.value <= 0 or peak <= 0:
        return Undefined(
            "the reconstruction is perfect: the PSNR is infinite" if peak > 0 else "the samples are constant: they have no peak"
        )

    def decibel(error: float) -> float:
        return 10 * log10(peak**2 / error)

    value = decibel(mse.value)
    if mse.low is None or mse.high is None:
        return Estimate(value, None, None, mse.n, None, notes=mse.notes)
    # an error of 0 is within reach: the end stays where a tenth of the error would put it
    return Estimate(value, decibel(mse.high), decibel(max(mse.low, mse.value / 10)), mse.n, "from the MSE's")


def _similarity(x: NDArray[np.float64], y: NDArray[np.float64], peak: float) -> Outcome:
    if x.ndim != 4 or min(x.shape[2:]) < 7:
        return Undefined(f"SSIM needs images of at least 7 × 7 pixels, found samples of shape {x.shape[1:]}")
    size = WINDOW if min(x.shape[2:]) >= WINDOW else 7
    at = np.arange(size) - size // 2
    window = np.exp(-(at**2) / (2 * SIGMA**2))
    window /= window.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = np.empty(len(x))
    for start in range(0, len(x), 256):
        a, b = x[start : start + 256], y[start : start + 256]
        ma, mb = _smooth(a, window), _smooth(b, window)
        va, vb, cov = _smooth(a * a, window) - ma**2, _smooth(b * b, window) - mb**2, _smooth(a * b, window) - ma * mb
        ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        values[start : start + len(a)] = ssim.mean(axis=(1, 2, 3))
    return _mean(np.clip(values, -1, 1), -1.0, 1.0)


def _smooth(x: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole windows only."""
    from scipy.ndimage import correlate1d

    cut = len(window) // 2
    return correlate1d(correlate1d(x, window, axis=2), window, axis=3)[:, :, cut:-cut, cut:-cut]
