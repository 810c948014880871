"""The engine end to end: one set in many containers, caching, planning, the streaming form."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import genbench
from genbench import registry, report
from genbench.errors import DataError, MissingError, UsageError
from genbench.estimate import Detail, Estimate, Quantity
from genbench.metric import metric
from genbench.numerics import neighbours
from genbench.statistics import Features, Law, LogLikelihood, Moments

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
        ({"metrics": ["fdi"]}, "'fid'"),
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


# -- views and tables that single metrics ask for ------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, function, *quantities: Quantity, extractor: str | None = None) -> None:
    """Put a metric named like its function in the registry, for one test."""
    made = metric(*quantities, cost="n", source="a test", extractor=extractor)(function)
    real = registry.metric
    monkeypatch.setattr(registry, "metric", lambda name: made if name == made.name else real(name))


def test_a_law_comes_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(ref: Law, gen: Features) -> Estimate:
        return Estimate(-float(ref.log_density(gen.x.astype(np.float64)).mean()) - ref.entropy, None, None, len(gen), None)

    planted(monkeypatch, surprise, Quantity("surprise", "lower"))
    run = genbench.evaluate("ring8/test", "ring8", metrics=["surprise"], cache=None)
    assert abs(run["surprise"].value) < 0.1, "cross-entropy of the law's own draws is its entropy"
    other = genbench.evaluate(np.zeros((9, 2)), np.ones((9, 2)), metrics=["surprise"], cache=None)
    assert "no known density" in other.record["skipped"][0]["reason"]
    elsewhere = genbench.evaluate("ring8/test", "ring8", metrics=["surprise@pixels"], cache=None, n=50)
    assert elsewhere.record["skipped"], "a density lives in the samples' own space"


class Coin:
    """A model of vectors with a likelihood: a standard normal law."""

    bound, dims, measure, provenance = "exact", 2, "density", {"name": "coin"}

    def sample(self, n: int, *, seed: int, start: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(start + n, 2))[start:]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return -(x**2).sum(axis=1) / 2 - np.log(2 * np.pi)


def test_likelihoods_come_from_the_model_that_drew_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(test: LogLikelihood) -> Estimate:
        return Estimate(-float(test.nats.mean()), None, None, len(test), None, bound=test.bound, measure=test.measure)

    planted(monkeypatch, surprise, Quantity("surprise", "lower", unit="nats"))
    rows = np.random.default_rng(3).normal(size=(40, 2))
    run = genbench.evaluate(Coin(), np.zeros((9, 2)), test=rows, metrics=["surprise"], n=20, cache=None)
    assert run["surprise"].value == pytest.approx(-Coin().log_prob(rows).mean(), rel=1e-12)
    assert run["surprise"].measure == "density"
    without = genbench.evaluate(rows, np.zeros((9, 2)), test=rows, metrics=["surprise"], cache=None)
    assert "trained baseline" in without.record["skipped"][0]["reason"]


def test_tables_have_names_and_pairs_have_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def closest(gen: Features, train: Features) -> Estimate:
        d2, at = neighbours(gen, train, 1)
        rows = tuple((i, int(at[i, 0]), float(d2[i, 0])) for i in np.argsort(d2[:, 0])[:5])
        return Estimate(float(d2.mean()), None, None, len(gen), None, details=(Detail("pairs", ("gen", "train", "distance"), rows),))

    planted(monkeypatch, closest, Quantity("closest", "higher"))
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6), dtype=np.uint8)
    run = genbench.evaluate(images[:10], images, train=images[::-1], metrics=["closest"], extractor="pixels", cache=None)
    (table,) = run.tables
    assert table.columns == ("gen", "train", "distance")
    for gen, train, distance in table.rows:
        assert distance == 0
        assert int(gen.split()[-1]) == 29 - int(train.split()[-1]), "row numbers became the samples' own names"
    assert np.array_equal(*table.images)
    assert list(table.to_pandas().columns) == ["gen", "train", "distance"]
    written = report.write_tables(run, tmp_path)
    assert [p.suffix for p in written] == [".csv", ".png"]
    assert written[0].read_text().splitlines()[0] == "gen,train,distance"


def test_a_metric_with_an_extractor_of_its_own_is_skipped_without_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))

    def apart(ref: Features, gen: Features) -> Estimate:
        return Estimate(0.0, None, None, len(gen), None)

    planted(monkeypatch, apart, Quantity("apart", "lower"), extractor="inception")
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    run = genbench.evaluate(images, images, metrics=["apart", "fid"], extractor="pixels")
    assert next(s["metric"] for s in run.record["skipped"]) == "apart@inception"
    assert run["fid"].value == pytest.approx(0, abs=1e-6)
    with pytest.raises(MissingError):
        genbench.evaluate(images, images, metrics=["apart"], extractor="pixels")


def test_one_set_in_two_roles_is_one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(ref: Features, train: Features) -> Estimate:
        return Estimate(float(ref is train), None, None, len(ref), None)

    planted(monkeypatch, same, Quantity("same", "higher"))
    x = np.random.default_rng(0).normal(size=(20, 2))
    assert genbench.evaluate(x[:5], x, train=x.copy(), metrics=["same"], cache=None)["same"].value == 1


def test_all_means_every_metric_and_lists_what_does_not_apply() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    run = genbench.evaluate(x[:30], x[30:], metrics=["all"], cache=None)
    told = {r["metric"].partition(":")[0] for r in run.record["results"]} | {s["metric"].partition("@")[0] for s in run.record["skipped"]}
    assert told == set(registry.modules("metrics"))
    assert all(len(s["reason"]) > 10 for s in run.record["skipped"])


def test_likelihoods_that_were_computed_elsewhere_come_from_a_file(tmp_path: Path) -> None:
    nats = -np.random.default_rng(0).gamma(5, size=50)
    np.savez(tmp_path / "l.npz", nats=nats, dims=4, bound="lower", measure="mass")
    x = np.random.default_rng(0).normal(size=(30, 2))
    run = genbench.evaluate(x, x, metrics=["nll", "bits_per_dim"], likelihood=tmp_path / "l.npz", cache=None)
    assert run["nll"].value == pytest.approx(-nats.mean(), rel=1e-12)
    assert (run["nll"].bound, run["nll"].measure) == ("upper", "mass")
    assert run["bits_per_dim"].value == pytest.approx(-nats.mean() / 4 / np.log(2), rel=1e-12)
    assert run.record["likelihood"]["n"] == 50
    assert run["nll"] == genbench.evaluate(x, x, metrics=["nll"], likelihood=LogLikelihood(nats, 4, "lower", "mass"), cache=None)["nll"]


def test_a_runtime_that_is_not_installed_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(MissingError, match=r"pip install 'genbench\[fast\]'"):
        genbench.evaluate("digits/test", "digits/train", metrics=["fid"], device="openvino", cache=None)


def test_a_runtime_is_recorded_and_an_extractor_that_does_not_know_it_runs_on_the_cpu() -> None:
    pytest.importorskip("openvino")
    plain, fast = (genbench.evaluate("digits/test", "digits/train", metrics=["fid"], device=d, cache=None) for d in ("cpu", "openvino"))
    assert fast.record["environment"]["device"].startswith("openvino 20")
    assert fast.record["protocol"] == plain.record["protocol"]
    assert fast["fid"] == plain["fid"]


def test_a_slow_likelihood_says_how_far_it_is() -> None:
    from genbench import trained

    module, data = registry.module("baselines", "independent"), trained.open_data("digits")
    seen: list[tuple[str, int, int]] = []
    model = module.train(module.RECIPES["*"], data, seed=0)
    genbench.evaluate(model, data.train, metrics=["nll"], n=10, test=data.test, progress=lambda *a: seen.append((a[0], a[1], a[2])))
    assert [s for s in seen if s[0].startswith("log p")] == [("log p of digits/test", 256, 447), ("log p of digits/test", 447, 447)]
