"""What moves no bit, and what moves the last ones: batches, threads, workers, containers, the order in which files were made.

The promise: the same samples under the same protocol, on one machine with one number of threads, give the same record, whatever the
container, the order in which its files were written, the workers, the size of a read, and the cache. Another forward batch, or another
number of threads, is another setting and in the record: features then agree to 5e-5 of their standard deviation (root mean square over
features), values and ends of intervals to 1e-5 of the interval's width.
"""

import io
import itertools
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genbench
from genbench import arrays, registry
from genbench.protocol import Protocol

FEATURES = 5e-5  # of the features' standard deviation; the most that was seen is 9e-6
VALUES = 1e-5  # of an interval's width; the most that was seen is 2e-7
METRICS = ("kid", "inception_score", "prdc")


def protocol(batch: int | None = None, shard: int = 64, metrics: tuple[str, ...] = METRICS) -> Protocol:
    return Protocol("matrix", "digits/test", metrics, "digits", n_ref=128, shard=shard, batch=batch)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch and the linear algebra of NumPy with so many threads."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return genbench.open_samples("digits/valid").read(0, 96)


@pytest.fixture(scope="module")
def containers(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images as folder, zip and tar, each written in order and in a shuffled one."""
    from PIL import Image

    root = tmp_path_factory.mktemp("containers")
    png = {}
    for i, image in enumerate(images):
        out = io.BytesIO()
        Image.fromarray(image[0]).save(out, "png")
        png[f"{i:03d}.png"] = out.getvalue()
    paths = {}
    for order, index in (("sorted", np.arange(len(png))), ("shuffled", np.random.default_rng(5).permutation(len(png)))):
        names = [sorted(png)[i] for i in index]
        folder = root / order
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(png[name])
        with zipfile.ZipFile(root / f"{order}.zip", "w") as z, tarfile.open(root / f"{order}.tar", "w") as t:
            for name in names:
                z.writestr(name, png[name])
                member = tarfile.TarInfo(name)
                member.size = len(png[name])
                t.addfile(member, io.BytesIO(png[name]))
        paths |= {f"{order} folder": folder, f"{order} zip": root / f"{order}.zip", f"{order} tar": root / f"{order}.tar"}
    return paths


def content(run: genbench.Run) -> dict[str, Any]:
    """The record without its digest, its clock and what the user called the samples."""
    record = {k: v for k, v in run.record.items() if k not in ("id", "timing")}
    record["subject"] = {k: v for k, v in record["subject"].items() if k != "name"}
    return record


def close(one: genbench.Run, other: genbench.Run) -> None:
    """Equal to the promised tolerance."""
    for a, b in zip(one.record["results"], other.record["results"], strict=True):
        assert (a["metric"], a["quantity"], a["n"]) == (b["metric"], b["quantity"], b["n"])
        width = a["high"] - a["low"]
        for key in ("value", "low", "high"):
            assert abs(a[key] - b[key]) <= VALUES * width, (a["quantity"], key, a[key], b[key])


def test_containers_orders_workers_and_reads_move_no_bit(containers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = content(genbench.evaluate(containers["sorted folder"], protocol=protocol(), cache=None, workers=1))
    assert len(first["results"]) == 7
    combinations = zip(containers.items(), itertools.product((1, 3), (1, 7, 256)), strict=True)
    for (name, path), (workers, read) in combinations:
        run = genbench.evaluate(path, protocol=protocol(), cache=None, workers=workers, batch_size=read)
        assert content(run) == first, (name, workers, read)
        if workers == 1:
            continue
        with monkeypatch.context() as m:  # memory that does not hold the images: every shard is decoded anew
            m.setattr(arrays, "CACHE_BYTES", 0)
            again = genbench.evaluate(path, protocol=protocol(metrics=("kid",)), cache=None, batch_size=read)
        assert content(again)["results"] == [r for r in first["results"] if r["metric"] == "kid"], (name, read)


@pytest.mark.slow
def test_every_combination_moves_no_bit(containers: dict[str, Path]) -> None:
    metrics = (*METRICS, "fid", "fid@pixels")
    first = None
    for (name, path), workers, read in itertools.product(containers.items(), (1, 3), (1, 7, 256)):
        found = content(genbench.evaluate(path, protocol=protocol(metrics=metrics), cache=None, workers=workers, batch_size=read))
        first = first or found
        assert found == first, (name, workers, read)


def test_a_record_has_one_digest(containers: dict[str, Path], tmp_path: Path) -> None:
    path = containers["sorted folder"]
    ids = {
        genbench.evaluate(path, protocol=protocol(), cache=cache, workers=workers, batch_size=read).id
        for cache, workers, read in ((None, 1, None), (tmp_path, 1, 1), (tmp_path, 3, None), (None, 3, 7))
    }
    shutil.copytree(path, tmp_path / "copy")
    moved = genbench.evaluate(tmp_path / "copy", protocol=protocol(), cache=None)
    assert len(ids) == 1
    assert moved.record["subject"]["fingerprint"] == genbench.open_samples(path).fingerprint()


@pytest.mark.parametrize("count", [1, 2])
def test_threads_are_in_the_record_and_the_same_number_gives_the_same_bits(images: np.ndarray, count: int) -> None:
    with threads(count):
        one, two = (genbench.evaluate(images, protocol=protocol(), cache=None) for _ in range(2))
    assert one.id == two.id
    assert one.record["environment"]["threads"] == count


def test_another_number_of_threads_agrees_to_the_tolerance(images: np.ndarray) -> None:
    runs = []
    for count in (1, 2):
        with threads(count):
            runs.append(genbench.evaluate(images, protocol=protocol(metrics=(*METRICS, "fid")), cache=None))
    close(*runs)
    assert runs[0].id != runs[1].id, "the number of threads is a part of the record"


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_the_forward_batch_is_in_the_record_and_agrees_to_the_tolerance(images: np.ndarray, batch: int) -> None:
    usual = genbench.evaluate(images, protocol=protocol(), cache=None)
    run = genbench.evaluate(images, protocol=protocol(batch), cache=None)
    again = genbench.evaluate(images, protocol=protocol(batch), cache=None, workers=3, batch_size=5)
    assert run.id == again.id
    assert run.record["extractors"]["digits"]["batch"] == run.record["protocol"]["batch"] == batch
    close(usual, run)
    assert (run.id == usual.id) == (batch == 256), "256 is this extractor's own"


@pytest.mark.parametrize("name", ["digits", "random", "pixels"])
def test_features_agree_whatever_the_batch_and_the_threads(images: np.ndarray, name: str) -> None:
    rows = images if name != "random" else np.repeat(images, 3, axis=1)
    extractor = registry.module("extractors", name).load(shape=rows.shape[1:])
    with threads(1):
        whole = extractor(rows).features.astype(np.float64)
    scale = np.sqrt(whole.var(axis=0).mean())
    for count, batch in itertools.product((1, 2), (1, 7, 64)):
        with threads(count):
            parts = [extractor(rows[a : a + batch]).features for a in range(0, len(rows), batch)]
            assert np.array_equal(extractor(rows[:batch]).features, parts[0]), "the same batch gives the same bits"
        assert np.abs(np.concatenate(parts) - whole).max() <= FEATURES * scale, (count, batch)


@pytest.mark.parametrize("shard", [16, 64, 2048])
def test_shards_hold_whole_batches_and_move_values_by_the_tolerance_alone(images: np.ndarray, shard: int, tmp_path: Path) -> None:
    usual = genbench.evaluate(images, protocol=protocol(), cache=None)
    close(usual, genbench.evaluate(images, protocol=protocol(shard=shard), cache=tmp_path))
