"""The engine end to end: one set in many containers, caching, planning, the streaming form."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import genbench
from genbench.errors import DataError, UsageError
from genbench.statistics import Moments

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (90, 3, 12, 12), dtype=np.uint8)
OTHERS = RNG.integers(0, 200, (120, 3, 12, 12), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, "png")
    return out.getvalue()


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same images as folder, zip, tar, npz, npy, safetensors, array and tensor."""
    import torch
    from safetensors.numpy import save_file

    root = tmp_path_factory.mktemp("containers")
    files = {f"{i:04d}.png": png(image) for i, image in enumerate(IMAGES)}
    (root / "folder").mkdir()
    for name, data in reversed(files.items()):
        (root / "folder" / name).write_bytes(data)
    with zipfile.ZipFile(root / "x.zip", "w") as z:
        for name, data in files.items():
            z.writestr(name, data)
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz")):
        with tarfile.open(root / f"x.{suffix}", mode) as t:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                t.addfile(member, io.BytesIO(data))
    np.savez(root / "x.npz", arr_0=IMAGES.transpose(0, 2, 3, 1))
    np.savez_compressed(root / "compressed.npz", images=IMAGES)
    np.save(root / "x.npy", IMAGES)
    save_file({"samples": IMAGES}, root / "x.safetensors")
    paths = {p.name: str(p) for p in root.iterdir()}
    return paths | {"array": IMAGES, "tensor": torch.from_numpy(IMAGES)}


def content(run: genbench.Run) -> dict[str, object]:
    record = {k: v for k, v in run.record.items() if k not in ("id", "timing")}
    record["subject"] = {k: v for k, v in record["subject"].items() if k != "name"}
    return record


def test_every_container_gives_the_same_record(containers: dict[str, object]) -> None:
    runs = {
        name: genbench.evaluate(x, OTHERS, extractor="random", metrics=["fid", "kid", "prdc", "fid@pixels"])
        for name, x in containers.items()
    }
    first = content(runs["folder"])
    assert len(first["results"]) >= 8
    for name, run in runs.items():
        assert content(run) == first, name


@pytest.mark.parametrize(
    "settings", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 256}, {"workers": 3}, {"workers": 3, "batch_size": 7}]
)
def test_batch_size_and_workers_do_not_move_a_bit(settings: dict[str, int]) -> None:
    plain = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"], cache=None)
    other = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"], cache=None, **settings)
    assert other.id == plain.id


def test_a_second_run_extracts_nothing(tmp_path: Path) -> None:
    first = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"], cache=tmp_path)
    again = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid", "kid"], cache=tmp_path)
    assert first.record["timing"]["extracted"] == len(IMAGES) + len(OTHERS)
    assert again.record["timing"]["extracted"] == 0
    assert again["fid"] == first["fid"]


def test_a_damaged_cache_file_is_noticed_and_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"], cache=tmp_path)
    for path in (tmp_path / "features").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(bytes(data))
    again = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"], cache=tmp_path)
    assert again.id == first.id
    assert "damaged" in capsys.readouterr().err


def test_one_set_in_two_roles_reads_zero() -> None:
    run = genbench.evaluate(IMAGES, IMAGES, extractor="pixels", metrics=["fid", "prdc"], cache=None)
    assert abs(run["fid"].value) < 1e-9
    assert run["precision"].value == run["recall"].value == 1.0


def test_a_statistics_file_is_a_reference(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(300, 4)), RNG.normal(size=(400, 4))
    Moments.of(y).save(tmp_path / "stats.npz")
    run = genbench.evaluate(x, tmp_path / "stats.npz", extractor="identity", metrics=["fid", "kid", "prdc"])
    full = genbench.evaluate(x, y, metrics=["fid"])
    assert np.isclose(run["fid"].value, full["fid"].value, rtol=1e-9)
    reasons = {s["metric"]: s["reason"] for s in run.record["skipped"]}
    assert "statistics file" in reasons["kid@identity"]
    assert "statistics file" in reasons["prdc@identity"]


def test_a_statistics_file_of_another_dimension_is_refused(tmp_path: Path) -> None:
    Moments.of(RNG.normal(size=(50, 3))).save(tmp_path / "stats.npz")
    with pytest.raises(DataError, match="rows of 4 numbers"):
        genbench.evaluate(RNG.normal(size=(300, 4)), tmp_path / "stats.npz", extractor="identity", metrics=["fid"])


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"mu": np.zeros(3)}, "keys mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "found"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "finite"),
        ({"mu": np.zeros(2), "sigma": np.diag([1.0, -1.0])}, "negative eigenvalue"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
    ],
)
def test_a_bad_statistics_file_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=match):
        genbench.evaluate(np.zeros((5, 2)), tmp_path / "s.npz", extractor="identity", metrics=["fid"])


def test_what_a_metric_lacks_is_said() -> None:
    run = genbench.evaluate(RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2)), metrics=["fid", "inception_score"])
    (skipped,) = run.record["skipped"]
    assert "has no classes" in skipped["reason"]
    with pytest.raises(KeyError, match="no classes"):
        run["inception_score"]


def test_images_are_not_compared_with_vectors() -> None:
    with pytest.raises(DataError, match="images with images"):
        genbench.evaluate(IMAGES, RNG.normal(size=(50, 2)), metrics=["fid"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"metrics": ["fdi"]}, "did you mean 'fid'"),
        ({"metrics": ["kid:subsetz=3"]}, "did you mean 'subset"),
        ({"metrics": ["fid@pixel"]}, "did you mean 'pixels'"),
        ({"extractor": "pixelz"}, "did you mean 'pixels'"),
        ({"protocol": "ring-1"}, "did you mean 'ring8-1'"),
        ({"on_bad": "ignore"}, "on_bad"),
        ({"device": "tpu"}, "device"),
        ({"batch_size": 0}, "batch_size"),
        ({"n": 0}, "at least 1"),
    ],
)
def test_a_mistyped_setting_gets_the_near_miss(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        genbench.evaluate(RNG.normal(size=(50, 2)), **{"reference": RNG.normal(size=(50, 2)), **arguments})


def test_n_takes_a_seeded_subset_and_refuses_too_few() -> None:
    x, y = RNG.normal(size=(100, 2)), RNG.normal(size=(100, 2))
    first = genbench.evaluate(x, y, metrics=["fid"], n=60)
    assert first.record["subject"]["n"] == 60
    assert genbench.evaluate(x, y, metrics=["fid"], n=60).id == first.id
    assert genbench.evaluate(x, y, metrics=["fid"], n=60, seed=1)["fid"] != first["fid"]
    with pytest.raises(DataError, match="add 50"):
        genbench.evaluate(x, y, metrics=["fid"], n=150)


def test_a_named_protocol_that_is_changed_loses_its_name() -> None:
    x = genbench.open_samples("ring8/test").read(0, 10_000)
    plain = genbench.evaluate(x, protocol="ring8-1", metrics=None)
    assert plain.record["protocol"]["name"] == "ring8-1"
    changed = genbench.evaluate(x, protocol="ring8-1", metrics=["fid"])
    assert changed.record["protocol"]["name"] == "ring8-1 (changed)"
    assert changed.record["protocol"]["hash"] != plain.record["protocol"]["hash"]


@pytest.mark.parametrize("cuts", [[90], [1] * 90, [7] * 12 + [6], [64, 26], [33, 33, 24]])
def test_monitor_equals_the_folder_form(cuts: list[int], containers: dict[str, object]) -> None:
    whole = genbench.evaluate(containers["folder"], OTHERS, extractor="random", metrics=["fid", "kid"])
    monitor = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid", "kid"])
    start = 0
    for size in cuts:
        monitor.update(IMAGES[start : start + size])
        start += size
    assert content(monitor.compute()) == content(whole)


def test_monitors_merge() -> None:
    whole = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=["fid"])
    a = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid"])
    b = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid"])
    a.update(IMAGES[:37])
    b.update(IMAGES[37:])
    before = a.compute()["fid"].value
    a.merge(b)
    assert content(a.compute()) == content(whole)
    a.reset()
    a.update(IMAGES[:37])
    assert a.compute()["fid"].value == before


def test_monitor_wants_the_range_of_float_images() -> None:
    monitor = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid"])
    with pytest.raises(DataError, match="value_range"):
        monitor.update(IMAGES / 255.0)
    scaled = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid"], value_range=(-1, 1))
    scaled.update(IMAGES / 127.5 - 1)
    monitor.update(IMAGES)
    assert scaled.compute()["fid"] == monitor.compute()["fid"]


def test_monitor_with_nothing_says_so() -> None:
    monitor = genbench.Monitor(reference=OTHERS, extractor="random", metrics=["fid"])
    with pytest.raises(DataError, match="update"):
        monitor.compute()


def test_nan_in_a_vector_names_the_row() -> None:
    x = RNG.normal(size=(50, 2))
    x[17, 1] = np.nan
    with pytest.raises(DataError, match="17"):
        genbench.evaluate(x, RNG.normal(size=(50, 2)), metrics=["fid"])


def test_run_views() -> None:
    run = genbench.evaluate(RNG.normal(size=(200, 2)), RNG.normal(size=(200, 2)), metrics=["fid"])
    frame = run.to_pandas()
    assert list(frame["quantity"]) == ["fid", "fid_debiased"]
    assert set(frame.columns) == {"metric", "extractor", "quantity", "value", "low", "high", "n", "interval", "bound", "better", "unit"}
    assert json.loads(run.to_json()) == run.record


def test_the_order_of_the_samples_moves_no_bit() -> None:
    shuffled = IMAGES[np.random.default_rng(1).permutation(len(IMAGES))]
    metrics = ["fid", "kid", "prdc", "kid:subsets=3,subset_size=20"]
    plain = genbench.evaluate(IMAGES, OTHERS, extractor="random", metrics=metrics)
    other = genbench.evaluate(shuffled, OTHERS[::-1].copy(), extractor="random", metrics=metrics)
    for mine, theirs in zip(plain.record["results"], other.record["results"], strict=True):
        for key in ("value",) if mine["low"] is None else ("value", "low", "high"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-9), mine["quantity"]
