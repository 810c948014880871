"""The main job on real data: 10,000 PNGs of MNIST's test split against its training split."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import genbench
from genbench import registry

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


MEMORISATION = ["nn_copies", "authenticity", "ct_score", "mifid", "duplicates"]


def memorisation(gen: np.ndarray) -> genbench.Run:
    return genbench.evaluate(gen, "mnist", train="mnist/train", test="mnist/test", metrics=[*MEMORISATION, "fid", "class_histogram"])


def test_half_copies_of_the_training_set_are_flagged_as_such_and_as_nothing_else(digits: tuple[np.ndarray, np.ndarray]) -> None:
    train = genbench.open_samples("mnist/train")
    half = np.concatenate([digits[0][:5000], train.take(np.random.default_rng(0).permutation(len(train))[:5000])])
    clean, copied = memorisation(digits[0]), memorisation(half)
    assert clean["exact_copies"].value == 0
    assert clean["nn_copies"].low < 0.01 < clean["nn_copies"].high
    assert clean["ct_score"].value == 0
    assert copied["exact_copies"].low <= 0.5 <= copied["exact_copies"].high
    assert copied["nn_copies"].low > 0.4
    assert copied["authenticity"].high < clean["authenticity"].low - 0.2
    assert copied["ct_score"].high < -3
    assert copied["memorisation_distance"].high < clean["memorisation_distance"].low
    for run in (clean, copied):
        assert run["fid_debiased"].low < 0.05, "copies are no worse than real digits"
        assert run["missing_classes"].value == 0
        assert run["duplicates"].value == 0
    verdict = [w for w in copied.record["warnings"] if w.startswith("nn_copies")]
    assert any("5,000 of 10,000 samples are exact copies" in w for w in verdict)
    (pairs,) = [t for t in copied.tables if t.name == "pairs"]
    assert all(row[2] == 0 for row in pairs.rows)


def test_a_missing_digit_is_named(digits: tuple[np.ndarray, np.ndarray]) -> None:
    run = genbench.evaluate(digits[0][digits[1] != 7], "mnist", metrics=["class_histogram"])
    assert run["missing_classes"].value == 1
    assert any("7" in w and "missing" in w for w in run.record["warnings"])


def test_every_metric_is_computed_or_says_why_not(digits: tuple[np.ndarray, np.ndarray]) -> None:
    run = genbench.evaluate(digits[0][:2000], "mnist/test", train="mnist/test", test=digits[0][5000:7000], metrics=["all"])
    told = {r["metric"].partition(":")[0] for r in run.record["results"]} | {s["metric"].partition("@")[0] for s in run.record["skipped"]}
    assert told == set(registry.modules("metrics"))
    assert len(run.record["results"]) > 40
