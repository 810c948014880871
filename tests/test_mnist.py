"""The main job on real data: 10,000 PNGs of MNIST's test split against its training split."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import genbench

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module")
def digits(mnist_root: Path) -> tuple[np.ndarray, np.ndarray]:
    samples = genbench.open_samples("mnist/test")
    return samples.read(0, len(samples)), samples.labels


@pytest.fixture(scope="module")
def folder(digits: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mnist") / "png"
    write(digits[0], root)
    return root


def write(images: np.ndarray, root: Path) -> None:
    from PIL import Image

    root.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(root / f"{i:05d}.png")


def content(run: genbench.Run) -> dict[str, object]:
    record = {k: v for k, v in run.record.items() if k not in ("id", "timing")}
    record["subject"] = {k: v for k, v in record["subject"].items() if k != "name"}
    return record


@pytest.fixture(scope="module")
def clean(folder: Path) -> genbench.Run:
    return genbench.evaluate(folder, "mnist")


def test_real_digits_are_near_real_digits(clean: genbench.Run) -> None:
    assert clean.record["subject"]["n"] == 10_000
    assert clean.record["reference"]["name"] == "mnist/train"
    fid = clean["fid_debiased"]
    spread = fid.high - fid.low
    assert fid.low - spread / 2 < 0 < fid.high + spread / 2, "test and training digits are nearly one law"
    assert clean["precision"].value > 0.9
    assert clean["recall"].value > 0.85
    assert clean["coverage"].value > 0.85
    assert 9 < clean["mnist_score"].value <= 10


def test_one_record_for_every_container(folder: Path, digits: tuple[np.ndarray, np.ndarray], clean: genbench.Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z, tarfile.open(tmp_path / "x.tar", "w") as t:
        for path in sorted(folder.iterdir()):
            z.write(path, path.name)
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            t.addfile(member, io.BytesIO(path.read_bytes()))
    np.savez(tmp_path / "x.npz", digits[0])
    metrics = ["fid", "inception_score"]
    plain = genbench.evaluate(folder, "mnist", metrics=metrics)
    assert plain["fid"] == clean["fid"]
    for source in (tmp_path / "x.zip", tmp_path / "x.tar", tmp_path / "x.npz", digits[0]):
        assert content(genbench.evaluate(source, "mnist", metrics=metrics)) == content(plain)
    assert content(genbench.evaluate(folder, "mnist/test", cache=None, workers=3, batch_size=7, metrics=metrics)) == content(
        genbench.evaluate(folder, "mnist/test", metrics=metrics)
    )


def test_the_second_run_extracts_nothing(folder: Path, clean: genbench.Run) -> None:
    again = genbench.evaluate(folder, "mnist", metrics=["fid"])
    assert again.record["timing"]["extracted"] == 0
    assert again["fid"] == clean["fid"]


def test_blurred_digits_are_far(digits: tuple[np.ndarray, np.ndarray], clean: genbench.Run) -> None:
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(digits[0].astype(np.float32), (0, 0, 1.0, 1.0)).round().clip(0, 255).astype(np.uint8)
    run = genbench.evaluate(blurred, "mnist", metrics=["fid"])
    assert run["fid_debiased"].low > 5 * clean["fid_debiased"].high


def test_a_dropped_class_is_far(digits: tuple[np.ndarray, np.ndarray], clean: genbench.Run) -> None:
    run = genbench.evaluate(digits[0][digits[1] != 7], "mnist", metrics=["fid", "inception_score", "prdc:baseline=false"])
    assert run["fid_debiased"].low > 5 * clean["fid_debiased"].high
    assert run["recall"].high < clean["recall"].low
    assert run["mnist_score"].high < clean["mnist_score"].low
