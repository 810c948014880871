"""The datasets: exact toy densities, splits, files in torchvision's layout, and what is said where they are missing."""

import gzip
import math
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from genbench import registry
from genbench.datasets import toy2d
from genbench.errors import DataError, MissingError, UsageError
from genbench.samples import open_samples

# -- toy2d ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", toy2d.NAMES)
def test_a_toy_density_integrates_to_one(name: str) -> None:
    law = toy2d.toy(name)
    # Grids fine against sigma, around the centres only: the sharp laws would need too many points elsewhere.
    step = law.sigma / 4 if name != "checkerboard" else 0.125
    reach = 8 * law.sigma if name != "checkerboard" else 1.5
    if law.modes is not None and name != "two-gaussians":
        side = np.arange(-reach, reach, step)
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        mass = sum(np.exp(law.log_density(c + grid)).sum() for c in law.centres) * step**2
    else:
        low, high = law.centres.min(0) - reach, law.centres.max(0) + reach
        axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2) + step / 2
        mass = np.exp(law.log_density(grid)).sum() * step**2
    assert abs(mass - 1) < 1e-6


@pytest.mark.parametrize("name", toy2d.NAMES)
def test_a_toys_entropy_is_the_mean_of_its_samples(name: str) -> None:
    law = toy2d.toy(name)
    value, error = law.entropy()
    assert error < 1e-5
    nats = -law.log_density(law.sample(40_000, np.random.default_rng(0)))
    # 4 standard errors: a false alarm in 16,000.
    assert abs(nats.mean() - value) <= 4 * nats.std() / math.sqrt(len(nats)) + 1e-9


@pytest.mark.parametrize(("name", "wanted"), [
    ("ring8", math.log(8) + 1 + math.log(2 * math.pi * 0.01**2)),
    ("ring8-r2", math.log(8) + 1 + math.log(2 * math.pi * 0.02**2)),
    ("grid25", math.log(25) + 1 + math.log(2 * math.pi * 0.05**2)),
    ("checkerboard", math.log(32)),
])  # fmt: skip
def test_entropies_in_closed_form(name: str, wanted: float) -> None:
    assert abs(toy2d.toy(name).entropy()[0] - wanted) < 1e-12


def test_quadrature_agrees_with_the_closed_form_where_both_hold() -> None:
    lone = toy2d.Toy("lone", np.zeros((1, 2)), 0.5, True)
    wanted = 1 + math.log(2 * math.pi * 0.25)
    assert abs(toy2d._quadrature(lone, 0.25) - wanted) < 1e-6
    assert abs(toy2d._quadrature(lone, 0.5 / 3) - wanted) < 1e-9


@pytest.mark.parametrize(("name", "k", "spread"), [("ring8", 8, 1.0), ("ring8-r2", 8, 2.0), ("grid25", 25, 4.0), ("two-gaussians", 2, 2.0)])
def test_modes(name: str, k: int, spread: float) -> None:
    found = toy2d.toy(name).modes
    assert found is not None
    centres, sigma = found
    assert centres.shape == (k, 2)
    assert np.isclose(np.abs(centres).max(), spread)
    assert sigma > 0
    assert toy2d.toy("moons").modes is None


def test_toy_samples_lie_in_their_modes_in_equal_shares() -> None:
    law = toy2d.toy("grid25")
    x = open_samples("grid25/test").read(0, 10_000)
    apart = np.linalg.norm(x[:, None] - law.centres, axis=2)
    counts = np.bincount(apart.argmin(axis=1), minlength=25)
    # chi² with 24 degrees of freedom: 60 has p = 7e-5.
    assert ((counts - 400) ** 2 / 400).sum() < 60
    # A perfect sampler has 98.89 % within 3 sigma.
    assert abs((apart.min(axis=1) < 3 * law.sigma).mean() - (1 - math.exp(-4.5))) < 0.005


def test_toy_splits_are_fixed_differ_and_continue() -> None:
    train, test = open_samples("moons"), open_samples("moons/test")
    assert len(train) == len(test) == 10_000
    assert train.fingerprint() == open_samples("moons/train", seed=5).fingerprint(), "a seed chooses subsets, never the data"
    assert train.fingerprint() != test.fingerprint()
    longer = open_samples("moons/train", n=25_000)
    assert len(longer) == 25_000
    assert np.array_equal(longer.read(0, 10_000), train.read(0, 10_000))
    assert len(open_samples("moons", n=100)) == 100


def test_log_density_refuses_another_shape() -> None:
    with pytest.raises(UsageError, match=r"\(n, 2\)"):
        toy2d.toy("moons").log_density(np.zeros((3, 3)))
    with pytest.raises(UsageError, match="did you mean 'moons'"):
        toy2d.toy("mons")


def test_checkerboard_has_no_density_off_its_squares() -> None:
    law = toy2d.toy("checkerboard")
    assert law.log_density(np.array([[-3.0, -1.0], [5.0, 0.0]])).tolist() == [-math.inf, -math.inf]
    assert law.log_density(np.array([[-3.0, -3.0]]))[0] == -math.log(32)


# -- digits ---------------------------------------------------------------------------------------------------------------------------


def test_digits_splits_levels_and_labels() -> None:
    from sklearn.datasets import load_digits

    parts = [open_samples(f"digits/{split}") for split in ("train", "valid", "test")]
    assert [len(p) for p in parts] == [1000, 350, 447]
    images = np.concatenate([p.read(0, len(p)) for p in parts])
    assert images.shape == (1797, 1, 8, 8)
    assert len(np.unique(images)) == 17
    assert np.array_equal(np.rint(images[:, 0] * 16.0 / 255), load_digits().images)
    assert np.array_equal(np.concatenate([p.labels for p in parts if p.labels is not None]), load_digits().target)


# -- torchvision's layout ----------------------------------------------------------------------------------------------------------------


def idx(x: np.ndarray) -> bytes:
    return struct.pack(f">HBB{x.ndim}I", 0, 8, x.ndim, *x.shape) + x.tobytes()


def idx_files(root: Path, folder: str = "MNIST", packed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), rng.integers(0, 10, 12, dtype=np.uint8)
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, x in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        (raw / (name + ".gz" * packed)).write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    return images, labels


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_read_without_torch(tmp_path: Path, name: str, folder: str, packed: bool) -> None:
    images, labels = idx_files(tmp_path, folder, packed)
    samples = registry.dataset(name).load(name, "train", root=tmp_path)
    assert samples.shape == (1, 28, 28)
    assert np.array_equal(samples.read(2, 9)[:, 0], images[2:9])
    assert np.array_equal(samples.labels, labels)
    assert (samples.name, samples.kind) == (f"{name}/train", "dataset")
    assert len(registry.dataset(name).load(name, "train", root=tmp_path, n=5)) == 5


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    idx_files(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for data, match in (
        (whole[:-5], "truncated"),
        (whole[:7], "truncated"),
        (b"<html>" * 9, "not an idx file"),
        (idx(np.zeros((9, 28, 28), np.uint8)), "n labels"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=match):
            registry.dataset("mnist").load("mnist", "train", root=tmp_path)


@pytest.mark.parametrize(("name", "files"), [
    ("mnist", ["MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"]),
    ("fashion_mnist", ["FashionMNIST/raw/t10k-images-idx3-ubyte"]),
    ("cifar10", ["cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"]),
    ("cifar100", ["cifar-100-python/test", "cifar-100-python/meta"]),
    ("cifar10-jpeg", ["cifar10-jpeg/test.tar"]),
])  # fmt: skip
def test_missing_data_say_which_files_to_put_where(tmp_path: Path, name: str, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    with pytest.raises(MissingError) as e:
        open_samples(f"{name}/test")
    assert e.value.exit_code == 3
    assert all(str(tmp_path / f) in str(e.value) for f in files)
    assert "GENBENCH_DATA" in str(e.value)
    assert "--download" in str(e.value)


def test_one_missing_file_is_the_only_one_named(tmp_path: Path) -> None:
    idx_files(tmp_path)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingError) as e:
        registry.dataset("mnist").load("mnist", "train", root=tmp_path)
    assert "train-labels" in str(e.value)
    assert "train-images" not in str(e.value)


def test_an_unknown_split_lists_the_known_ones() -> None:
    for name in ("mnist", "digits", "ring8", "cifar10", "cifar10-jpeg"):
        with pytest.raises(UsageError, match=f"unknown split 'tset' of dataset {name}; it has train.*, test"):
            open_samples(f"{name}/tset")


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, **classes: object) -> None:
    fake = types.ModuleType("torchvision")
    fake.datasets = types.SimpleNamespace(**classes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", fake)


def test_download_asks_torchvision_and_only_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fetch(root: str, train: bool, download: bool) -> None:
        asked.append((root, train, download))
        idx_files(Path(root))

    fake_torchvision(monkeypatch, MNIST=fetch)
    with pytest.raises(MissingError):
        registry.dataset("mnist").load("mnist", "train", root=tmp_path)
    assert not asked
    assert len(registry.dataset("mnist").load("mnist", "train", root=tmp_path, download=True)) == 12
    assert asked == [(str(tmp_path), True, True)]
    assert "downloading mnist" in capsys.readouterr().err
    registry.dataset("mnist").load("mnist", "train", root=tmp_path, download=True)
    assert len(asked) == 1, "what is there is not fetched again"


def test_a_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def fetch(root: str, train: bool, download: bool) -> None:
        raise URLError("no route to host")

    fake_torchvision(monkeypatch, MNIST=fetch, CIFAR10=fetch)
    for name in ("mnist", "cifar10"):
        with pytest.raises(MissingError, match="download to .* failed .*no route to host"):
            registry.dataset(name).load(name, "train", root=tmp_path, download=True)


def test_cifar_through_torchvisions_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    fake_torchvision(monkeypatch, CIFAR10=lambda root, train, download: types.SimpleNamespace(data=data, targets=[1, 2, 3, 4, 5, 6]))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", "batches.meta"):
        (folder / name).write_bytes(b"x")
    samples = registry.dataset("cifar10").load("cifar10", "test", root=tmp_path)
    assert np.array_equal(samples.read(0, 6), data.transpose(0, 3, 1, 2))
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 2, 3, 4, 5, 6]


def test_damaged_cifar_files_are_missing_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: str, train: bool, download: bool) -> None:
        raise RuntimeError("Dataset not found or corrupted")

    fake_torchvision(monkeypatch, CIFAR10=read)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", "batches.meta"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(MissingError, match="md5 sums"):
        registry.dataset("cifar10").load("cifar10", "test", root=tmp_path)


# -- real data ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_mnist_is_mnist(mnist_root: Path) -> None:
    for split, n, mean in (("train", 60_000, 0.1307), ("test", 10_000, 0.1325)):
        samples = registry.dataset("mnist").load("mnist", split, root=mnist_root)
        assert len(samples) == n
        assert abs(samples.read(0, n).mean() / 255 - mean) < 1e-4
        assert samples.labels is not None
        assert len(np.unique(samples.labels)) == 10


@pytest.mark.data
def test_cifar10_jpeg_warns_of_its_coding(mnist_root: Path) -> None:
    if not (mnist_root / "cifar10-jpeg" / "test.tar").is_file():
        pytest.skip("needs cifar10-jpeg under GENBENCH_DATA")
    samples = registry.dataset("cifar10-jpeg").load("cifar10-jpeg", "test", root=mnist_root)
    assert (len(samples), samples.shape) == (10_000, (3, 32, 32))
    assert samples.labels is not None
    assert np.bincount(samples.labels).tolist() == [1000] * 10
    assert any("lossy-coded (JPEG)" in w for w in samples.warnings)
