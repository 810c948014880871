"""Resizing: laws of the weight matrices, and parity with the tools whose modes they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from genbench import preprocess
from genbench.errors import UsageError

SIZES = [(8, 8), (28, 28), (32, 32), (64, 64), (256, 256), (299, 299), (300, 200)]
SHAPES = [(c, *size) for c in (1, 3) for size in SIZES]
OUT = (299, 299)


def noise(shape: tuple[int, int, int], n: int = 3) -> np.ndarray:
    """White noise: the largest gradients that images can have, so that a wrong position shows."""
    return np.random.default_rng([0, *shape]).integers(0, 256, (n, *shape), dtype=np.uint8)


def resized(images: np.ndarray, mode: str, size: tuple[int, int] = OUT) -> np.ndarray:
    return preprocess.resize(torch.from_numpy(images), size, mode).numpy()


@pytest.mark.parametrize("mode", preprocess.MODES)
@pytest.mark.parametrize("n_in", [1, 2, 8, 299, 640])
def test_each_output_is_an_average_of_inputs(mode: str, n_in: int) -> None:
    w = preprocess.weights(mode, n_in, 299)
    assert w.shape == (299, n_in)
    assert w.dtype == np.float64
    assert np.abs(w.sum(axis=1) - 1).max() < 1e-12
    assert mode == "clean" or w.min() >= 0, "only a cubic kernel has negative lobes"


@pytest.mark.parametrize("mode", preprocess.MODES)
def test_a_flat_image_stays_flat(mode: str) -> None:
    assert np.abs(resized(np.full((1, 3, 17, 23), 77, np.uint8), mode) - 77).max() < 1e-4


@pytest.mark.parametrize("mode", preprocess.MODES)
def test_an_image_of_the_right_size_is_not_touched(mode: str) -> None:
    images = noise((3, 299, 299), 2)
    assert np.array_equal(resized(images, mode), images.astype(np.float32))


@pytest.mark.parametrize("mode", ["clean", "torch", "torch-aa"])
def test_half_pixel_modes_commute_with_a_flip(mode: str) -> None:
    images = noise((1, 20, 30))
    assert np.abs(resized(images[..., ::-1].copy(), mode)[..., ::-1] - resized(images, mode)).max() < 1e-2


def test_tf1_does_not_commute_with_a_flip() -> None:
    """Its sampling grid starts at the corner: that is the defect that the mode keeps."""
    images = noise((1, 20, 30))
    assert np.abs(resized(images[..., ::-1].copy(), "tf1")[..., ::-1] - resized(images, "tf1")).max() > 50


@pytest.mark.parametrize("mode", preprocess.MODES)
def test_a_row_does_not_depend_on_its_neighbours(mode: str) -> None:
    images = noise((3, 32, 32), 6)
    whole = resized(images, mode)
    for i in range(6):
        assert np.abs(resized(images[i : i + 1], mode)[0] - whole[i]).max() < 1e-4


def test_clean_is_cut_to_the_range_of_levels() -> None:
    edge = np.zeros((1, 1, 16, 16), np.uint8)
    edge[..., 8:] = 255
    out = resized(edge, "clean")
    assert out.min() == 0
    assert out.max() == 255


def test_blocks_hold_every_weight() -> None:
    for n_in in (32, 300, 1000):
        dense = np.zeros((299, n_in), np.float32)
        for a, b, lo, hi, block in preprocess._blocks("clean", n_in, 299, "cpu"):
            dense[a:b, lo:hi] = block.numpy()
        assert np.array_equal(dense, preprocess.weights("clean", n_in, 299).astype(np.float32))


def test_modes_differ_by_grey_levels() -> None:
    """The reason why the mode is part of the protocol."""
    images = noise((3, 64, 64))
    out = {mode: resized(images, mode, (32, 32)) for mode in preprocess.MODES}
    for a in preprocess.MODES:
        for b in preprocess.MODES:
            assert a == b or np.abs(out[a] - out[b]).mean() > 2


def test_an_unknown_mode_gets_the_near_miss() -> None:
    with pytest.raises(UsageError, match="clean"):
        preprocess.resize(torch.zeros(1, 1, 2, 2), (4, 4), "claen")


def test_scaling_follows_the_mode() -> None:
    levels = torch.tensor([0.0, 128.0, 255.0])
    assert preprocess.rescale(levels, "torch").tolist() == pytest.approx([-1, 128 / 127.5 - 1, 1], abs=1e-6)
    assert preprocess.rescale(levels, "clean").tolist() == pytest.approx([-1, 0, 127 / 128])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_clean_is_pil_bicubic_in_floats(shape: tuple[int, int, int]) -> None:
    images = noise(shape)
    for image, mine in zip(images, resized(images, "clean"), strict=True):
        for channel, got in zip(image, mine, strict=True):
            pil = Image.fromarray(channel.astype(np.float32)).resize(OUT[::-1], Image.Resampling.BICUBIC)
            assert np.abs(np.asarray(pil).clip(0, 255) - got).max() < 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_is_interpolate(shape: tuple[int, int, int]) -> None:
    images = noise(shape)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(images).float() / 255, size=OUT, mode="bilinear", align_corners=False) * 255
    assert np.abs(theirs.numpy() - resized(images, "torch")).max() < 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_aa_is_antialiased_interpolate(shape: tuple[int, int, int]) -> None:
    """Within 0.01 levels: torch makes its weights in float32, ours are made in float64."""
    images = noise(shape)
    levels = torch.from_numpy(images).float()
    theirs = torch.nn.functional.interpolate(levels, size=OUT, mode="bilinear", align_corners=False, antialias=True)
    assert np.abs(theirs.numpy() - resized(images, "torch-aa")).max() < 1e-2


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_clean_is_clean_fid(shape: tuple[int, int, int]) -> None:
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    images = noise(shape)
    for image, mine in zip(images, resized(images, "clean"), strict=True):
        colour = np.repeat(image, 3, axis=0) if shape[0] == 1 else image
        theirs = resize(colour.transpose(1, 2, 0)).transpose(2, 0, 1)[: shape[0]]
        assert np.abs(theirs - mine).max() < 1e-3


@pytest.mark.parity
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tf1_is_torch_fidelity(shape: tuple[int, int, int]) -> None:
    peer = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = noise(shape)
    theirs = peer.interpolate_bilinear_2d_like_tensorflow1x(torch.from_numpy(images).float(), size=OUT, align_corners=False)
    assert np.abs(theirs.numpy() - resized(images, "tf1")).max() < 1e-3
