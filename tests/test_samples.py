"""One set in every container: the same order, pixels, digests and fingerprint; bounded memory; labels, subsets, generators."""

import io
import json
import pickle  # what worker processes are sent
import tarfile
import threading
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench import arrays
from genbench.errors import DataError, UsageError
from genbench.samples import ArraySamples, Samples, as_rows, data_root, digests_of, open_samples, subset

RNG = np.random.default_rng(3)
X = RNG.integers(0, 256, (70, 3, 9, 7), dtype=np.uint8)
NAMES = [f"{i // 10}/{i:03d}.png" for i in range(70)]


def png(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(x.transpose(1, 2, 0) if x.ndim == 3 else x).save(out, "png")
    return out.getvalue()


FILES = {name: png(x) for name, x in zip(NAMES, X, strict=True)}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w", prefix: str = "") -> Path:
    with tarfile.open(path, mode) as t:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    import torch
    from safetensors.numpy import save_file

    root = tmp_path_factory.mktemp("sources")
    shuffled = {n: FILES[n] for n in RNG.permutation(NAMES)}
    np.savez(root / "stored.npz", arr_0=X.transpose(0, 2, 3, 1), arr_1=np.arange(70))
    np.savez_compressed(root / "packed.npz", samples=X)
    np.save(root / "x.npy", X)
    np.save(root / "fortran.npy", np.asfortranarray(X))
    save_file({"images": X}, root / "x.safetensors")
    shards = root / "shards"
    shards.mkdir()
    for s in range(3):
        write_tar(shards / f"part-{s:02d}.tar", {f"{i:03d}.png": FILES[NAMES[i]] for i in range(70)[s * 25 : s * 25 + 25]})

    class Items(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            return Image.fromarray(X[i].transpose(1, 2, 0)), i % 10

    class Tensors(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> torch.Tensor:
            return torch.from_numpy(X[i]).float() / 255

    return {
        "folder": write_folder(root / "folder", shuffled),
        "zip": write_zip(root / "x.zip", shuffled),
        "stored zip": write_zip(root / "stored.zip", shuffled, zipfile.ZIP_STORED),
        "tar": write_tar(root / "x.tar", shuffled),
        "tar with dots": write_tar(root / "dots.tar", shuffled, prefix="./"),
        "tar in a folder": write_tar(root / "wrapped.tar", shuffled, prefix="samples/"),
        "tar.gz": write_tar(root / "x.tar.gz", shuffled, "w:gz"),
        "tgz": write_tar(root / "x.tgz", shuffled, "w:gz"),
        "tar.bz2": write_tar(root / "x.tar.bz2", shuffled, "w:bz2"),
        "tar.xz": write_tar(root / "x.tar.xz", shuffled, "w:xz"),
        "glob": str(shards / "part-*.tar"),
        "braces": str(shards / "part-{00..02}.tar"),
        "stored npz": root / "stored.npz",
        "packed npz": str(root / "packed.npz"),
        "npy": root / "x.npy",
        "fortran npy": root / "fortran.npy",
        "safetensors": root / "x.safetensors",
        "array": X,
        "channels last": X.transpose(0, 2, 3, 1),
        "tensor": torch.from_numpy(X),
        "float tensor": torch.from_numpy(X).float() / 255,
        "half tensor": (torch.from_numpy(X).double() / 127.5 - 1).requires_grad_(),
        "dataset": Items(),
        "tensor dataset": Tensors(),
        "samples": ArraySamples(X),
    }


def test_every_container_has_the_same_content(sources: dict[str, object]) -> None:
    for name, source in sources.items():
        samples = open_samples(source)
        assert len(samples) == 70, name
        assert samples.shape == (3, 9, 7), name
        assert np.array_equal(samples.read(0, 70), X), name
        assert np.array_equal(samples.read(13, 40), X[13:40]), name
        assert np.array_equal(samples.digests(), digests_of(X)), name
        assert samples.fingerprint() == ArraySamples(X).fingerprint(), name
        assert len(samples.names) == 70


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_containers_are_decoded_again_when_the_cache_is_too_small(
    sources: dict[str, object], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 3000)
    for name in ("folder", "zip", "tar", "tar.gz", "braces", "dataset", "tensor dataset"):
        samples = open_samples(sources[name], workers=workers)
        order = RNG.permutation(70)
        assert np.array_equal(samples.take(order), X[order]), name
        assert np.array_equal(samples.read(30, 60), X[30:60]), name
        assert np.array_equal(samples.read(0, 3), X[:3]), name


def test_workers_have_no_effect(sources: dict[str, object]) -> None:
    for name in ("folder", "zip", "tar", "tar.gz"):
        one, many = (open_samples(sources[name], workers=w) for w in (1, 4))
        assert one.fingerprint() == many.fingerprint()
        assert list(one.names) == list(many.names)
        assert one.warnings == many.warnings


def test_reading_from_many_threads_gives_the_same(sources: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 3000)
    for name in ("zip", "tar.gz", "packed npz", "tensor dataset"):
        samples = open_samples(sources[name])
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda a, s=samples: s.read(a, a + 10), range(0, 70, 10)))
        assert np.array_equal(np.concatenate(parts), X)


def test_samples_can_be_sent_to_another_process(sources: dict[str, object]) -> None:
    for name in ("folder", "zip", "tar.gz", "packed npz", "npy"):
        samples = open_samples(sources[name])
        samples.read(0, 2)
        assert np.array_equal(pickle.loads(pickle.dumps(samples)).read(3, 9), X[3:9]), name


def test_order_is_bytewise_by_full_name(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a.png", "Z.png", "é.png", "10.png", "9.png", "a/b/c.png"]
    files = {n: png(np.full((1, 4, 4), i, np.uint8)[0]) for i, n in enumerate(names)}
    wanted = ["10.png", "9.png", "Z.png", "a.png", "a/b/c.png", "a/z.png", "b.png", "é.png"]
    for source in (
        write_folder(tmp_path / "f", files),
        write_zip(tmp_path / "x.zip", files),
        write_tar(tmp_path / "x.tar.gz", files, "w:gz"),
    ):
        samples = open_samples(source)
        assert list(samples.names) == wanted
        assert samples.read(0, 8)[:, 0, 0, 0].tolist() == [names.index(n) for n in wanted]


def test_content_moves_the_fingerprint_and_names_do_not() -> None:
    base = ArraySamples(X).fingerprint()
    other = X.copy()
    other[5, 0, 0, 0] ^= 1
    assert ArraySamples(other).fingerprint() != base
    assert ArraySamples(X[::-1]).fingerprint() != base
    assert ArraySamples(X[:-1]).fingerprint() != base
    assert ArraySamples(X.reshape(70, 3, 7, 9)).fingerprint() != base
    assert ArraySamples(X, name="another").fingerprint() == base


def test_all_grey_images_have_one_channel(tmp_path: Path) -> None:
    samples = open_samples(write_folder(tmp_path, {f"{i}.png": png(X[i, 0]) for i in range(5)}))
    assert samples.shape == (1, 9, 7)
    assert samples.fingerprint() == ArraySamples(X[:5, 0]).fingerprint() == ArraySamples(X[:5, :1]).fingerprint()


# -- labels ------------------------------------------------------------------------------------------------------------------------


def test_class_folders_are_labels_and_a_warning(sources: dict[str, object]) -> None:
    for name in ("folder", "zip", "tar", "tar in a folder"):
        samples = open_samples(sources[name])
        assert samples.labels is not None
        assert samples.labels.tolist() == [i // 10 for i in range(70)], name
        assert any("sorted into 7 folders (0, 1, 2, ... 4 more)" in w for w in samples.warnings)


def test_webdataset_labels(tmp_path: Path) -> None:
    shards = []
    for s in range(2):
        files: dict[str, bytes] = {}
        for i in range(4):
            files |= {f"{s}{i}.png": png(X[4 * s + i]), f"{s}{i}.cls": str(10 * s + i).encode(), f"{s}{i}.json": b"{}"}
        shards.append(write_tar(tmp_path / f"s-{s}.tar", files))
    samples = open_samples(str(tmp_path / "s-{0..1}.tar"))
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert samples.names[4] == "s-1.tar/10.png"
    assert np.array_equal(samples.read(0, 8), X[:8])
    one = open_samples(shards[1])
    assert one.labels is not None
    assert one.labels.tolist() == [10, 11, 12, 13]
    assert any("4 other files are no images" in w for w in one.warnings)


def test_a_missing_or_odd_label_is_said(tmp_path: Path) -> None:
    files = {"a.png": png(X[0]), "a.cls": b"1", "b.png": png(X[1]), "b.cls": b"cat"}
    samples = open_samples(write_tar(tmp_path / "x.tar", files))
    assert samples.labels is None
    assert any("1 .cls labels are no class numbers (b.cls: 'cat')" in w for w in samples.warnings)
    assert any("1 of 2 images have no .cls label" in w for w in samples.warnings)


def test_labels_of_arrays_and_datasets(sources: dict[str, object]) -> None:
    for name, wanted in {"stored npz": list(range(70)), "dataset": [i % 10 for i in range(70)], "tensor dataset": None}.items():
        labels = open_samples(sources[name]).labels
        assert (None if labels is None else labels.tolist()) == wanted


# -- patterns ----------------------------------------------------------------------------------------------------------------------


def test_a_pattern_with_missing_parts_names_them(sources: dict[str, object]) -> None:
    pattern = str(sources["braces"]).replace("00..02", "00..04")
    with pytest.raises(DataError, match=r"2 of its parts are not there: .*part-03\.tar, .*part-04\.tar"):
        open_samples(pattern)
    with pytest.raises(DataError, match="not there"):
        open_samples(pattern.replace("part-{00..04}", "none-*"))
    with pytest.raises(UsageError, match="more than"):
        open_samples("x-{000000..999999}.tar")


def test_a_pattern_of_images_asks_for_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": png(X[0]), "b.png": png(X[1])})
    with pytest.raises(DataError, match=r"a\.png is an image; pass the folder"):
        open_samples(str(tmp_path / "*.png"))


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("s-{8..11}.tar", ["s-8.tar", "s-9.tar", "s-10.tar", "s-11.tar"]),
        ("s-{08..10}.tar", ["s-08.tar", "s-09.tar", "s-10.tar"]),
        ("{a,b}-{1..2}.zip", ["a-1.zip", "a-2.zip", "b-1.zip", "b-2.zip"]),
        ("plain{.tar", ["plain{.tar"]),
    ],
)
def test_brace_expansion(pattern: str, wanted: list[str]) -> None:
    from genbench.samples import _braces

    assert _braces(pattern) == wanted


# -- subsets -----------------------------------------------------------------------------------------------------------------------


def test_a_subset_is_seeded_ascending_and_carries_everything(sources: dict[str, object]) -> None:
    whole = open_samples(sources["folder"])
    part = open_samples(sources["folder"], n=20, seed=4)
    index = [whole.names.index(n) for n in part.names]
    assert index == sorted(set(index))
    assert np.array_equal(part.read(0, 20), X[index])
    assert np.array_equal(part.digests(), whole.digests()[index])
    assert part.labels is not None
    assert part.labels.tolist() == [i // 10 for i in index]
    assert list(open_samples(X, n=20, seed=4).names) == [f"image {i}" for i in index]
    assert open_samples(X, n=20, seed=4).fingerprint() == part.fingerprint()
    assert open_samples(X, n=20, seed=5).fingerprint() != part.fingerprint()
    assert subset(whole, 70, 9) is whole


def test_too_few_samples_say_how_many_to_add() -> None:
    with pytest.raises(DataError, match="100 samples were asked for, it has 70; add 30, or ask for n = 70"):
        open_samples(X, n=100)
    with pytest.raises(UsageError, match="at least 1"):
        open_samples(X, n=0)


def test_read_checks_its_bounds() -> None:
    samples = open_samples(X)
    assert samples.read(70, 70).shape == (0, 3, 9, 7)
    for start, stop in ((-1, 3), (0, 71), (5, 4)):
        with pytest.raises(IndexError):
            samples.read(start, stop)


def test_what_is_read_can_be_changed_without_harm(sources: dict[str, object]) -> None:
    for name in ("array", "npy", "folder", "tensor"):
        samples = open_samples(sources[name])
        samples.read(0, 5)[:] = 0
        assert np.array_equal(samples.read(0, 5), X[:5]), name


# -- vectors -----------------------------------------------------------------------------------------------------------------------


def test_vectors_are_doubles_in_every_container(tmp_path: Path) -> None:
    import torch

    v = RNG.normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "v.npz", arr_0=v)
    np.save(tmp_path / "v.npy", v)
    prints = set()
    for source in (v, v.astype(np.float64), torch.from_numpy(v), tmp_path / "v.npz", tmp_path / "v.npy", lambda n, seed: v):
        samples = open_samples(source, n=30)
        assert samples.shape == (4,)
        assert samples.read(0, 2).dtype == np.float64
        prints.add(samples.fingerprint())
    assert len(prints) == 1


def test_bfloat16_in_safetensors_and_tensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    v = torch.from_numpy(RNG.normal(size=(30, 4))).bfloat16()
    save_file({"samples": v}, tmp_path / "v.safetensors")
    assert np.array_equal(open_samples(tmp_path / "v.safetensors").read(0, 30), v.double().numpy())
    assert np.array_equal(open_samples(v).read(0, 30), v.double().numpy())


# -- generators --------------------------------------------------------------------------------------------------------------------


def draw(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)


def test_a_function_is_called_in_blocks_with_seeds_of_their_own() -> None:
    calls = []

    def f(n: int, seed: int) -> np.ndarray:
        calls.append((n, seed))
        return draw(n, seed)

    samples = open_samples(f, n=5000, seed=3)
    assert samples.read(0, 5000).shape == (5000, 1, 4, 4)
    assert [n for n, _ in calls] == [2048, 2048, 904]
    assert len({s for _, s in calls}) == 3
    assert all(0 <= s < 2**31 for _, s in calls)
    again = open_samples(draw, n=5000, seed=3)
    assert again.fingerprint() == samples.fingerprint()
    assert np.array_equal(again.read(2040, 2060), samples.read(2040, 2060))
    assert open_samples(draw, n=5000, seed=4).fingerprint() != samples.fingerprint()
    assert len(np.unique(samples.digests(), axis=0)) == 5000, "blocks differ"


def test_a_function_of_tensors_and_of_floats() -> None:
    import torch

    def f(n: int, seed: int) -> torch.Tensor:
        return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))

    samples = open_samples(f, n=10)
    assert samples.read(0, 10).dtype == np.uint8
    assert "taken as 0 to 1" in samples.warnings[0]


def test_generated_samples_beyond_the_cache_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 2 * 2048 * 16)
    samples = open_samples(draw, n=20_000)
    first = samples.read(0, 100)
    samples.digests()
    assert isinstance(samples, ArraySamples)
    assert len(samples._rows._kept) <= 2
    assert np.array_equal(samples.read(0, 100), first)


def test_an_object_that_samples_is_a_generator() -> None:
    class Model:
        def sample(self, n: int, *, seed: int) -> np.ndarray:
            return draw(n, seed)

    class Stream:
        provenance = {"name": "stream", "family": "test"}  # noqa: RUF012
        notes = ("it did not converge",)

        def sample(self, n: int, *, seed: int, start: int = 0) -> np.ndarray:
            return np.stack([draw(1, 1000 * seed + i)[0] for i in range(start, start + n)])

    model = open_samples(Model(), n=3000)
    assert model.kind == "baseline"
    assert model.read(0, 3000).shape == (3000, 1, 4, 4)
    stream = open_samples(Stream(), n=2100, seed=2)
    assert np.array_equal(stream.read(2040, 2060), Stream().sample(20, seed=2, start=2040))
    assert stream.info["baseline"] == {"name": "stream", "family": "test", "sample_seed": 2}
    assert "it did not converge" in stream.warnings


def test_a_run_folder_is_the_trained_baseline(tmp_path: Path) -> None:
    from genbench import models, registry

    module = registry.module("baselines", "train_replay")
    config = next(c for k, c in module.RECIPES.items() if k != "images")
    data = models.TrainingData("ring8", open_samples("ring8", n=600))
    model = module.train(config, data, seed=0)
    models.save_model(tmp_path / "run", model, models.describe("train_replay", module, model, passed={}, seed=0, dataset="ring8"))
    samples = open_samples(tmp_path / "run", n=500, seed=1)
    assert samples.kind == "baseline"
    assert np.allclose(samples.read(0, 500), model.sample(500, seed=1))
    assert samples.info["baseline"]["name"] == "train_replay"
    with pytest.raises(UsageError, match="say how many"):
        open_samples(tmp_path / "run")


def test_a_dataset_that_changes_between_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CACHE_BYTES", 10)
    rng = np.random.default_rng(0)

    class Augmented:
        def __len__(self) -> int:
            return 600

        def __getitem__(self, i: int) -> np.ndarray:
            return rng.integers(0, 256, (1, 4, 4), dtype=np.uint8)

    with pytest.raises(DataError, match="item 0 is another one than when it was opened; switch random augmentation off"):
        open_samples(Augmented())


# -- batches in memory -------------------------------------------------------------------------------------------------------------


def test_as_rows_is_what_open_samples_reads() -> None:
    import torch

    for x in (X, X.transpose(0, 2, 3, 1), torch.from_numpy(X)):
        assert np.array_equal(as_rows(x), X)
    assert np.array_equal(as_rows(X / 255.0, value_range=(0, 1)), X)
    assert np.array_equal(as_rows(X / 127.5 - 1, value_range=(-1, 1)), X)
    assert np.array_equal(as_rows(X, value_range=(-1, 1)), X), "bytes are bytes whatever the range of floats"
    assert as_rows(X[:, 0]).shape == (70, 1, 9, 7)
    assert as_rows(np.zeros((0, 2))).shape == (0, 2)
    with pytest.raises(DataError, match="value_range"):
        as_rows(X / 255.0)
    with pytest.raises(DataError, match="row 3"):
        as_rows(np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0))


# -- memory ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.npy", "stored.npz", "packed.npz", "x.safetensors"])
def test_array_files_are_not_held_in_memory(tmp_path: Path, name: str) -> None:
    from safetensors.numpy import save_file

    big = np.zeros((1500, 3, 96, 96), np.uint8)  # 41 MB
    big[:, 0, 0, 0] = np.arange(1500) % 251
    path = tmp_path / name
    if name == "x.npy":
        np.save(path, big)
    elif name == "x.safetensors":
        save_file({"images": big}, path)
    else:
        (np.savez if name == "stored.npz" else np.savez_compressed)(path, images=big)
    del big
    tracemalloc.start()
    samples = open_samples(path)
    opened = tracemalloc.get_traced_memory()[1]
    assert samples.read(1400, 1410)[:, 0, 0, 0].tolist() == [i % 251 for i in range(1400, 1410)]
    assert samples.read(3, 5)[:, 0, 0, 0].tolist() == [3, 4]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened < 2 * 2**20
    assert peak < 20 * 2**20


def test_the_cache_of_decoded_images_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = png(np.zeros((3, 200, 200), np.uint8))
    write_folder(tmp_path, {f"{i:03d}.png": image for i in range(200)})  # 24 MB decoded
    monkeypatch.setattr(arrays, "CACHE_BYTES", 2**20)
    tracemalloc.start()
    samples = open_samples(tmp_path, workers=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples._pixels is None  # type: ignore[attr-defined]
    assert peak < 12 * 2**20


# -- the rest ----------------------------------------------------------------------------------------------------------------------


def test_data_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "d"))
    assert data_root() == tmp_path / "d"
    monkeypatch.delenv("GENBENCH_DATA")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "c"))
    assert data_root() == tmp_path / "c" / "data"


def test_a_path_called_like_a_dataset_is_written_with_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "digits", {"a.png": png(X[0])})
    assert open_samples("digits").kind == "dataset"
    assert len(open_samples("./digits")) == 1
    assert len(open_samples(Path("digits"))) == 1


def test_what_a_record_stores_is_json(sources: dict[str, object], tmp_path: Path) -> None:
    files = dict(FILES) | {".DS_Store": b"x", "notes.txt": b"y", "odd\n.png": b"", "grey.png": png(X[0, 0])}
    samples = open_samples(write_folder(tmp_path, files), on_bad="skip")
    stored = {
        "converted": samples.converted,
        "skipped": samples.skipped,
        "warnings": samples.warnings,
        "info": samples.info,
        "names": list(samples.names),
    }
    assert json.loads(json.dumps(stored))["info"]["ignored"] == [".DS_Store"]


def test_an_object_that_is_samples_already_is_returned() -> None:
    class Own(Samples):
        def __len__(self) -> int:
            return 3

        def read(self, start: int, stop: int) -> np.ndarray:
            return np.arange(start, stop, dtype=float)[:, None]

    own = Own("own", (1,))
    assert open_samples(own) is own
    assert own.digests().shape == (3, 16)
    assert open_samples(own, n=2, seed=0).read(0, 2).shape == (2, 1)
    assert own.names[2] == "row 2"


def test_warning_filters_are_left_as_they_were(sources: dict[str, object]) -> None:
    import warnings

    before = list(warnings.filters)
    workers = [threading.Thread(target=lambda: open_samples(sources["folder"])) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert list(warnings.filters) == before
