"""What every member must have. Members are found, not listed: a new file is tested unasked."""

import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genbench import protocol, registry
from genbench.errors import DataError, GenbenchError, MissingError, UsageError
from genbench.estimate import Quantity
from genbench.metric import Metric, parse_spec
from genbench.samples import Samples

ROOT = Path(__file__).resolve().parent.parent
METRICS = registry.modules("metrics")
EXTRACTORS = registry.modules("extractors")
DATASETS = sorted(registry.datasets())
BASELINES = registry.modules("baselines")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_has_members(kind: str) -> None:
    assert registry.modules(kind)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_mistyped_name_gets_the_near_miss(kind: str) -> None:
    name = registry.modules(kind)[0]
    with pytest.raises(UsageError, match=re.escape(repr(name))):
        registry.module(kind, name[:-1] + "x" + name[-1:])


@pytest.mark.parametrize("name", METRICS)
def test_metric_declares_itself(name: str) -> None:
    found = registry.metric(name)
    assert isinstance(found, Metric)
    assert found.name == name
    assert found.quantities
    assert all(isinstance(q, Quantity) for q in found.quantities)
    for q in found.quantities:
        assert q.better in ("lower", "higher", "closer")
        assert q.range[0] < q.range[1]
        assert q.ideal is None or q.range[0] <= q.ideal <= q.range[1]
        assert (q.better == "closer") <= (q.ideal is not None)
    assert found.needs
    assert found.cost
    assert found.source
    assert parse_spec(name).name == name


def test_the_readme_has_the_present_table_of_metrics() -> None:
    """Printed by `genbench ls metrics --markdown`."""
    from genbench.listing import metrics_markdown

    text = (ROOT / "README.md").read_text("utf-8")
    found = text.partition("<!-- metrics -->\n")[2].partition("<!-- end of metrics -->")[0]
    assert found == metrics_markdown()


@pytest.mark.parametrize("name", METRICS)
def test_metric_docstring_is_complete(name: str) -> None:
    doc = registry.metric(name).__doc__ or ""
    for section in ("Args:", "Returns:", "References:"):
        assert section in doc, f"{name} has no section {section}"
    assert re.search(r"\b(19|20)\d\d\b", doc), f"{name} names no year of its source"


@pytest.mark.parametrize("name", METRICS)
def test_every_interval_has_been_simulated(name: str) -> None:
    with (ROOT / "benchmarks" / "coverage.csv").open() as f:
        rows = [r for r in csv.DictReader(f) if r["metric"] == name]
    simulated = {r["quantity"] for r in rows}
    wanted = {q.named("inception") for q in registry.metric(name).quantities}
    assert {q for q in wanted if not q.endswith("_p")} <= simulated  # a p-value has no interval
    for r in rows:
        assert float(r["coverage"]) >= 0.92, r
        assert r["width"] == "nan" or float(r["width"]) <= 1.6, r


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_contract(name: str) -> None:
    module = registry.dataset(name)
    assert module.DEFAULT in module.SPLITS
    assert module.SUMMARY
    assert module.SOURCE
    try:
        split = "test" if "test" in module.SPLITS else module.DEFAULT
        samples = module.load(name, split)
    except MissingError as e:
        assert "--download" in str(e) or "put" in str(e)  # noqa: PT017
        return
    assert isinstance(samples, Samples)
    assert samples.name == f"{name}/{split}"
    assert samples.kind == "dataset"
    first = samples.read(0, 3)
    assert first.shape == (3, *samples.shape)
    assert first.dtype == (np.uint8 if len(samples.shape) == 3 else np.float64)
    assert np.array_equal(first[1:], samples.read(1, 3))
    assert samples.digests().shape == (len(samples), 16)
    assert samples.fingerprint() == module.load(name, split).fingerprint()


@pytest.mark.parametrize("name", DATASETS)
def test_an_unknown_split_gets_the_known_ones(name: str) -> None:
    with pytest.raises((UsageError, DataError, MissingError), match="train"):
        registry.dataset(name).load(name, "tset")


def loaded(name: str):
    module = registry.module("extractors", name)
    shape = {"identity": (3,), "digits": (1, 8, 8), "mnist": (1, 28, 28)}.get(name, (3, 32, 32))
    try:
        return module, module.load(shape=shape), shape
    except MissingError as e:
        assert len(str(e)) > 20  # noqa: PT017
        pytest.skip(f"{name}: {e}")


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_contract(name: str) -> None:
    module, extractor, shape = loaded(name)
    assert module.SUMMARY
    assert module.MODES
    assert module.BATCH >= 1
    rng = np.random.default_rng(0)
    count = min(extractor.batch, 16)
    x = rng.normal(size=(count, *shape)) if len(shape) == 1 else rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    out = extractor(x)
    assert out.features.shape == (count, extractor.dim)
    assert out.features.dtype in (np.float32, np.float64)
    assert np.isfinite(out.features).all()
    assert (out.logits is not None) == extractor.has_probabilities
    assert module.DIM in (None, extractor.dim)
    if extractor.has_probabilities:
        assert out.logits.shape[1] == module.CLASSES
        assert extractor.classes is None or len(extractor.classes) == module.CLASSES
    assert np.array_equal(extractor(x).features, out.features), "the same input gives the same bits"
    back = extractor(x[::-1].copy())
    scale = np.abs(out.features).max()
    assert np.abs(back.features[::-1] - out.features).max() <= 1e-5 * scale, "a row does not depend on its neighbours"


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_refuses_what_it_cannot_read(name: str) -> None:
    _, extractor, shape = loaded(name)
    wrong = np.zeros((2, 7), float) if len(shape) == 3 else np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(DataError):
        extractor(wrong)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_refuses_an_unknown_preprocessing_mode(name: str) -> None:
    _, _, shape = loaded(name)
    with pytest.raises(GenbenchError, match="bicubicc"):
        registry.module("extractors", name).load(shape=shape, preprocess="bicubicc")


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_contract(name: str) -> None:
    module = registry.module("baselines", name)
    assert module.FAMILY
    assert module.SUMMARY
    assert module.SOURCE
    assert module.RECIPES
    assert module.__doc__
    assert dataclasses.is_dataclass(module.Config)
    for dataset, recipe in module.RECIPES.items():
        assert dataset in ("*", "images", "vectors") or dataset in DATASETS
        assert isinstance(recipe, module.Config)


@pytest.mark.parametrize("name", sorted(protocol.protocols()))
def test_protocol_contract(name: str) -> None:
    found = protocol.protocol(name)
    assert found.name == name
    again = dataclasses.replace(found, name="other")
    assert again.hash == found.hash, "the name is not part of the hash"
    assert dataclasses.replace(found, seed=found.seed + 1).hash != found.hash
    assert found.resolved().resolved() == found.resolved()
    assert json.loads(json.dumps(found.to_dict()))["hash"] == found.hash
    if found.reference == protocol.ANY:  # of the presets: the user's own
        return
    dataset, _, split = found.reference.partition("/")
    assert split in registry.dataset(dataset).SPLITS


@pytest.mark.parametrize("name", METRICS)
def test_metric_examples_run(name: str) -> None:
    """pytest finds the doctests of functions and classes; a metric is an object of a class."""
    import doctest
    import sys

    found = registry.metric(name)
    names = vars(sys.modules[found.function.__module__])
    test = doctest.DocTestParser().get_doctest(found.__doc__ or "", dict(names), name, None, 0)
    assert test.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0


NEW_METRIC = '''
from math import inf
from genbench.estimate import Estimate, Quantity
from genbench.metric import metric
from genbench.statistics import Features

@metric(Quantity("planted_mean", "closer", ideal=0.0), cost="n d", source="a test of 2026")
def planted(gen: Features) -> Estimate:
    """Mean of all features.

    Args:
        gen: (n, d).

    Returns:
        The mean.

    References:
        A test (2026).
    """
    return Estimate(float(gen.x.mean()), None, None, len(gen), None)
'''
NEW_DATASET = """
import numpy as np
from genbench.samples import open_samples
SPLITS = ("train", "test")
DEFAULT = "train"
SUMMARY = "planted"
SOURCE = "a test"
EXTRACTOR = "planted_twice"

def load(name, split, *, seed=0, n=None, root=None, download=False):
    from genbench.samples import ArraySamples
    if split not in SPLITS:
        raise ValueError("train or test")
    x = np.random.default_rng(SPLITS.index(split)).normal(size=(n or 50, 2))
    return ArraySamples(x, name=f"{name}/{split}", kind="dataset")
"""
NEW_EXTRACTOR = """
from genbench.extractor import Outputs
SUMMARY = "twice the vector"
DIM = None
CLASSES = None
MODES = ("none",)
BATCH = 64

class Twice:
    name = "planted_twice"
    classes = None
    has_probabilities = False
    weights = None
    preprocess = "none"
    batch = BATCH

    def __init__(self, shape):
        self.dim = shape[0]

    def __call__(self, rows):
        return Outputs(2 * rows, None)

def load(*, preprocess=None, weights=None, device="cpu", shape, download=False):
    return Twice(shape)
"""
NEW_BASELINE = '''
"""A planted baseline: repeats the first training rows."""
from dataclasses import dataclass
from genbench import models
FAMILY = "control"
SUMMARY = "planted"
SOURCE = "a test"

@dataclass(frozen=True)
class Config(models.Config):
    rows: int = 3

RECIPES = {"ring8": Config()}

class Model(models.Replay):
    cycle = True

def train(config, data, *, seed, out=None):
    return Model(config, data.train.read(0, config.rows), data.shape)
'''


def test_adding_a_member_is_one_file(tmp_path: Path) -> None:
    """Metric, dataset, extractor and baseline dropped in as one file each appear in ls, eval and bench with no other edit."""
    house = tmp_path / "house"
    shutil.copytree(ROOT / "genbench", house / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "baselines", house / "baselines", ignore=shutil.ignore_patterns("__pycache__"))
    (house / "genbench/metrics/planted.py").write_text(NEW_METRIC)
    (house / "genbench/datasets/planted_noise.py").write_text(NEW_DATASET)
    (house / "genbench/extractors/planted_twice.py").write_text(NEW_EXTRACTOR)
    (house / "baselines/planted_row.py").write_text(NEW_BASELINE)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "genbench", *words],
            cwd=house,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={"PATH": "", "PYTHONPATH": str(house), "GENBENCH_CACHE": str(tmp_path / "c"), "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "planted_mean" in run("ls", "metrics")
    assert "planted_noise" in run("ls", "datasets")
    assert "planted_twice" in run("ls", "extractors")
    assert "planted_row" in run("ls", "baselines")
    record = json.loads(run("eval", "planted_noise/test", "--reference", "planted_noise", "--metrics", "planted", "--json", "--quiet"))
    (row,) = record["results"]
    assert row["quantity"] == "planted_mean"
    assert row["extractor"] == "planted_twice"
    assert math.isclose(row["value"], 2 * np.random.default_rng(1).normal(size=(50, 2)).mean(), rel_tol=1e-12)
    assert "planted_row" in run("bench", "toy2d", "--dry-run")
