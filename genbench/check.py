"""The contract of baselines, run on any one: `genbench check NAME` (as scikit-learn's check_estimator).

Each law is a small function that raises Broken with what it expected and found, or NotApplicable with the reason. Baselines with a
recipe for any vectors or any images are trained on small data made here, where a likelihood can be summed or integrated; others on the
first dataset they name.
"""

import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench import adapters, models, registry, trained, training
from genbench.errors import DataError, FailedError, MissingError, UsageError
from genbench.models import TrainingData
from genbench.run import printable

N = 300  # samples that the laws draw: more than one shard, so that seams are seen
BOUNDS = ("exact", "lower", "upper", "estimate")


class Broken(Exception):
    """The law does not hold; says what was expected and what was found."""


class NotApplicable(Exception):
    """The law does not concern this baseline; says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of one law.

    Args:
        law: what must hold.
        data: on which data.
        status: "ok", "broken" or "skipped".
        detail: expected and found, or the reason for the skip.
    """

    law: str
    data: str
    status: str
    detail: str


@dataclass(frozen=True)
class Report:
    """All laws on one baseline.

    Args:
        name: what was checked.
        outcomes: in the order they were run.
    """

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """No law is broken, and some were run."""
        return bool(self.outcomes) and all(o.status != "broken" for o in self.outcomes)


# -- what is checked -----------------------------------------------------------------------------------------------------------------


def find(name: str) -> Any:
    """A baseline's module, or a sampler.

    Args:
        name: an installed baseline's name, a path to a .py file, or "module:attribute": a baseline, a sampler, what `genbench.adapters`
            makes one of, or a function without arguments that returns one of these.

    Raises:
        UsageError: nothing of that name.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{name}: expected a Python file with a baseline, found none; pass an existing path")
        spec = importlib.util.spec_from_file_location(f"genbench_checked_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up by name
        spec.loader.exec_module(module)
        return module
    if name.partition(":")[0] in registry.modules("baselines"):
        return trained.named(name)[0]
    found = adapters.referred(name)
    if found is None:
        return registry.module("baselines", name)
    return found if hasattr(found, "train") and hasattr(found, "RECIPES") else adapters.adapt(found)


class _Rows:
    """Training data in memory, as a Samples object presents them."""

    def __init__(self, name: str, rows: NDArray[Any], labels: NDArray[np.int64]) -> None:
        self.name, self.kind, self.shape, self.labels = name, "samples", rows.shape[1:], labels
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._rows[start:stop]


def _vectors() -> TrainingData:
    def rows(n: int, key: int) -> Any:
        rng = models.generator(0, 7, key)
        label = rng.integers(2, size=n)
        return _Rows("two small Gaussians", rng.standard_normal((n, 2)) * [1.0, 0.7] + np.where(label, 2.0, -2.0)[:, None], label)

    return TrainingData("check-vectors", rows(500, 0), rows(400, 1), rows(200, 2))


def _images() -> TrainingData:
    def rows(n: int, key: int) -> Any:
        rng = models.generator(0, 8, key)
        label = rng.integers(2, size=n)
        bright = rng.random((n, 1, 3, 3)) < np.where(label, 0.8, 0.25)[:, None, None, None]
        return _Rows("binary 3 × 3 images", np.where(bright, 255, 0).astype(np.uint8), label)

    return TrainingData("check-images", rows(500, 0), rows(400, 1), rows(200, 2))


class _Case:
    """A baseline on one data set; trained when first needed."""

    def __init__(self, name: str, module: Any, config: Any, data: TrainingData) -> None:
        self.name, self.module, self.config, self.data = name, module, config, data

    def train(self, seed: int = 0) -> Any:
        return self.module.train(self.config, self.data, seed=seed, out=None)

    @cached_property
    def model(self) -> Any:
        return self.train()

    @cached_property
    def samples(self) -> NDArray[Any]:
        return np.asarray(self.model.sample(N, seed=1))

    @cached_property
    def total(self) -> tuple[float, float]:
        return _total(self)

    @property
    def held_out(self) -> NDArray[Any]:
        source = self.data.test if self.data.test is not None else self.data.train
        return np.asarray(source.read(0, min(64, len(source))))

    @property
    def density(self) -> Any:
        if getattr(self.model, "bound", None) is None:
            raise NotApplicable("has no likelihood")
        return self.model


def _cases(name: str, module: Any) -> Iterator[_Case]:
    """The baseline on every kind of data that it has a recipe for, and its variants that have settings for a quick training; a variant that
    was asked for and has none gets the baseline's, with what sets its recipe apart."""
    found = False
    _, _, chosen = name.partition(":")
    for data in (_vectors(), _images()):
        config = models.recipe(module, data.name, data.shape, "smoke", chosen or None)
        if config is not None:
            found = True
            yield _Case(name, module, config, data)
        for variant in models.variants(module) if not chosen else ():
            kind = f"{'images' if data.images else 'vectors'}:{variant}"
            if kind in getattr(module, "SMOKE", {}):
                found = True
                yield _Case(f"{name}:{variant}", module, module.SMOKE[kind], data)
    if not found:
        from genbench.bench import Task, open_data

        recipes = models.recipes_of(module, chosen or None)
        dataset = next(iter(recipes))
        vectors = "vectors" if len(_shape(dataset)) == 1 else "images"
        yield _Case(name, module, recipes[dataset], open_data(Task(dataset, vectors)))


def _shape(dataset: str) -> tuple[int, ...]:
    from genbench.samples import open_samples

    return tuple(open_samples(f"{dataset}/train").shape)


# -- the laws ------------------------------------------------------------------------------------------------------------------------


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)


def declares(module: Any) -> None:
    """declares FAMILY, SUMMARY, SOURCE, Config, RECIPES, train, Model"""
    for attribute in ("FAMILY", "SUMMARY", "SOURCE"):
        text = getattr(module, attribute, None)
        _expect(isinstance(text, str) and bool(text), f"expected a text {attribute}, found {text!r}")
    config = getattr(module, "Config", None)
    derived = isinstance(config, type) and issubclass(config, models.Config)
    _expect(derived, f"expected Config to derive from models.Config, found {config!r}")
    _expect(getattr(getattr(config, "__dataclass_params__", None), "frozen", False), "expected Config to be a frozen dataclass")
    recipes = getattr(module, "RECIPES", None)
    _expect(isinstance(recipes, dict) and bool(recipes), f"expected RECIPES, dataset name -> Config, found {recipes!r}")
    variants = getattr(module, "VARIANTS", {})
    _expect(isinstance(variants, dict), f"expected VARIANTS, name -> recipes, found {variants!r}")
    for where, named in {"RECIPES": recipes or {}, **{f"VARIANTS[{v!r}]": found for v, found in variants.items()}}.items():
        for key, value in named.items():
            _expect(
                isinstance(key, str) and isinstance(value, config or object), f"expected {where}[{key!r}] to be a Config, found {value!r}"
            )
    _expect(callable(getattr(module, "train", None)), "expected a function train(config, data, *, seed, out=None)")
    model = getattr(module, "Model", None)
    _expect(isinstance(model, type) and hasattr(model, "from_arrays"), f"expected a class Model with from_arrays, found {model!r}")
    try:
        models.role(module)
    except UsageError as e:
        raise Broken(str(e)) from e


def round_trips_settings(module: Any) -> None:
    """settings survive JSON, and an unknown one is an error with the near miss"""
    for config in module.RECIPES.values():
        found = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
        _expect(found == config, f"expected {config}, found {found} after JSON")
    try:
        module.Config.from_dict({"no_such_setting": 1})
    except UsageError:
        return
    raise Broken("expected an error for the setting 'no_such_setting', found none")


def right_samples(case: _Case) -> None:
    """samples have the data's shape and type, and are finite"""
    x = case.samples
    wanted = np.uint8 if case.data.images else np.float64
    _expect(x.shape == (N, *case.data.shape), f"expected shape {(N, *case.data.shape)}, found {x.shape}")
    _expect(x.dtype == wanted, f"expected {np.dtype(wanted).name}, found {x.dtype}")
    _expect(bool(np.isfinite(x).all()), "expected finite samples, found NaN or infinity")


def same_seed(case: _Case) -> None:
    """the same seed gives the same samples, another seed others"""
    _expect(np.array_equal(case.samples, case.model.sample(N, seed=1)), "expected the same samples for seed 1 twice, found others")
    _expect(not np.array_equal(case.samples, case.model.sample(N, seed=2)), "expected other samples for seed 2 than for 1, found the same")


def same_model(case: _Case) -> None:
    """the same training seed gives the same model"""
    first, second = case.model.arrays(), case.train().arrays()
    _expect(first.keys() == second.keys(), f"expected the arrays {sorted(first)}, found {sorted(second)}")
    for key, value in first.items():
        _expect(np.array_equal(value, second[key]), f"expected the same {key!r} after training with seed 0 twice, found another")


def no_global_generator(case: _Case) -> None:
    """neither training nor sampling touches a global random generator"""

    def state() -> tuple[Any, ...]:
        plain, torch = sys.modules.get("random"), sys.modules.get("torch")
        name, words, *rest = vars(np.random)["get_state"]()  # read, never drawn from
        seen = torch.get_rng_state().numpy().tobytes() if torch else b""
        return (plain.getstate() if plain else None, name, words.tobytes(), rest, seen)

    before = state()
    case.train().sample(10, seed=0)
    after = state()
    if "torch" in sys.modules and before[-1] == b"":  # torch was imported in between
        before, after = before[:-1], after[:-1]
    _expect(before == after, "expected random, numpy.random and torch to be left alone, found one of them advanced; draw from the seed")


def prefixes(case: _Case) -> None:
    """fewer samples are the first of more, and a stream may be cut anywhere"""
    if not getattr(case.model, "PREFIX", False):
        raise NotApplicable("declares PREFIX = False")
    for m in (1, 7, N - 1):
        _expect(np.array_equal(case.model.sample(m, seed=1), case.samples[:m]), f"expected sample({m}) to be the first {m} of sample({N})")
    if isinstance(case.model, models.Model):
        cut = [case.model.sample(b - a, seed=1, start=a) for a, b in ((0, 100), (100, 270), (270, N))]
        _expect(np.array_equal(np.concatenate(cut), case.samples), "expected the same samples when the stream is cut, found others")


def right_labels(case: _Case) -> None:
    """a conditional model says for which class each sample is drawn, and keeps to it whatever the batch"""
    labels_of = getattr(case.model, "sample_labels", None)
    labels = None if labels_of is None else labels_of(N, seed=1)
    if labels_of is None or labels is None:
        raise NotApplicable("is not conditional")
    _expect(labels.shape == (N,) and labels.dtype == np.int64, f"expected {N} int64 classes, found {labels.dtype} {labels.shape}")
    known = np.unique(models.class_labels(case.data))
    _expect(bool(np.isin(labels, known).all()), f"expected classes among {known.tolist()[:20]}, found {np.setdiff1d(labels, known)[:5]}")
    _expect(np.array_equal(labels, labels_of(N, seed=1)), "expected the same classes for seed 1 twice, found others")
    cut = [labels_of(b - a, seed=1, start=a) for a, b in ((0, 1), (1, 270), (270, N))]
    _expect(np.array_equal(np.concatenate(cut), labels), "expected the same classes when the stream is cut, found others")
    with tempfile.TemporaryDirectory() as folder:
        models.save_model(
            folder, case.model, models.describe(case.name, case.module, case.model, passed={}, seed=0, dataset=case.data.name)
        )
        back = models.load_model(folder, module=case.module).sample_labels(N, seed=1)
    _expect(back is not None and np.array_equal(back, labels), "expected the same classes after saving and loading, found others")


def round_trips_checkpoint(case: _Case) -> None:
    """a checkpoint without pickle gives the same model back"""
    with tempfile.TemporaryDirectory() as folder:
        about = models.describe(case.name, case.module, case.model, passed={}, seed=0, dataset=case.data.name)
        models.save_model(folder, case.model, about)
        files = sorted(p.name for p in Path(folder).iterdir())
        _expect(files == ["model.json", "model.safetensors"], f"expected model.json and model.safetensors, found {files}")
        back = models.load_model(folder, module=case.module)
        _expect(np.array_equal(back.sample(N, seed=1), case.samples), "expected the same samples after saving and loading, found others")
        if case.model.bound is not None:
            x = case.held_out
            _expect(np.array_equal(back.log_prob(x), case.model.log_prob(x)), "expected the same log_prob after saving and loading")


def honest_flags(case: _Case) -> None:
    """bound says what log_prob is, and is None exactly where there is none"""
    bound = getattr(case.model, "bound", None)
    if bound is None:
        if not hasattr(case.model, "log_prob"):
            return
        try:
            case.model.log_prob(case.held_out)
        except UsageError:
            return
        raise Broken("expected log_prob to refuse where bound is None, found that it answers; declare its bound")
    _expect(bound in BOUNDS, f"expected bound to be one of {BOUNDS}, found {bound!r}")
    found = np.asarray(case.model.log_prob(case.held_out))
    _expect(found.shape == (len(case.held_out),) and found.dtype == np.float64, f"expected float64 (n,), found {found.dtype} {found.shape}")
    _expect(bool(np.isfinite(found).all()), "expected finite log-likelihoods of held-out data, found NaN or infinity")
    _expect(case.model.dims == int(np.prod(case.data.shape)), f"expected dims = {int(np.prod(case.data.shape))}, found {case.model.dims}")
    if case.model.measure == "mass":
        _expect(bool((found <= _rounding(case)).all()), f"expected log mass at most 0, found {found.max():.3g}")


def one_by_one(case: _Case) -> None:
    """log_prob of a sample does not depend on its batch"""
    x = case.held_out[:20]
    whole = case.density.log_prob(x)
    alone = np.concatenate([case.density.log_prob(x[i : i + 1]) for i in range(len(x))])
    worst = float(np.abs(whole - alone).max())
    loose = _rounding(case) * (1 + float(np.abs(whole).max()))
    _expect(worst <= loose, f"expected the same log_prob alone and in a batch, found a difference of {worst:.3g}")


def opens(case: _Case) -> None:
    """genbench can open its samples: bytes, floats in a known range, or vectors; finite, of one shape"""
    from genbench.samples import open_samples

    found = open_samples(case.model, n=N, seed=1)
    x = found.read(0, N)
    _expect(x.shape == (N, *found.shape), f"expected shape {(N, *found.shape)}, found {x.shape}")
    _expect(bool(np.isfinite(x).all()), "expected finite samples, found NaN or infinity")


def sums_to_one(case: _Case) -> None:
    """exp(log_prob) sums or integrates to one (to at most one for a lower bound)"""
    total, _ = case.total
    bound = case.density.bound
    loose = 10 * _rounding(case) if case.data.images else 0.02  # a grid meets a jump of the density with an error of its step
    if bound == "exact":
        _expect(abs(total - 1) <= loose, f"expected a total of 1 ± {loose:g}, found {total:.6f}")
    elif bound == "lower":
        # A bound of k random draws is below log p on average, its exponential p(x) on average: the total scatters about 1. A fault of the
        # bound, such as bins of half the width, is a factor per dimension.
        _expect(total <= 1.1, f"expected a total of at most 1 and its scatter, 0.1, found {total:.6f}")
    else:
        raise NotApplicable(f"a bound of kind {bound} has no total to check")


def samples_follow(case: _Case) -> None:
    """samples follow the declared law: their mean log_prob is its negative entropy (5 standard errors: one false alarm in 2 million)"""
    if case.density.bound != "exact":
        raise NotApplicable(f"bound is {case.density.bound}")
    _, entropy = case.total
    found = case.density.log_prob(np.asarray(case.model.sample(4000, seed=3)))
    se = float(found.std(ddof=1)) / np.sqrt(len(found))
    slack = 5 * se + (10 * _rounding(case) if case.data.images else 0.03)
    _expect(abs(found.mean() + entropy) <= slack, f"expected a mean of {-entropy:.4f} ± {slack:.4f}, found {found.mean():.4f}")


def _rounding(case: _Case) -> float:
    return float(getattr(case.model, "ROUNDING", models.Model.ROUNDING))


def sees_only_the_past(case: _Case) -> None:
    """autoregressive: conditionals add up to log_prob, and none changes with a part that is drawn after it"""
    if not getattr(case.model, "autoregressive", False):
        raise NotApplicable("is not autoregressive")
    x = case.held_out[:8]
    before = np.asarray(case.model.conditionals(x))
    total = case.density.log_prob(x)
    loose = _rounding(case) * (1 + float(np.abs(total).max()))
    worst = float(np.abs(before.sum(axis=1) - total).max())
    _expect(worst <= loose, f"expected conditionals that add up to log_prob, found a difference of {worst:.3g}")
    part, moved = np.asarray(case.model.parts), False
    for place in range(case.model.dims):
        other = x.reshape(len(x), -1).copy()
        other[:, place] = 255 - other[:, place] if case.data.images else other[:, place] + 0.5
        changed = np.abs(np.asarray(case.model.conditionals(other.reshape(x.shape))) - before).max(axis=0) > 0
        early = int(changed[: part[place]].sum())
        _expect(not early, f"expected no part before {part[place]} to see coordinate {place}, found {early} that do")
        moved |= bool(changed[part[place] + 1 :].any())
    _expect(moved, "expected some part to depend on those before it, found that none does")


def resumes(case: _Case) -> None:
    """a training that was stopped in the middle and went on is the training that was not, bit for bit"""
    steps = getattr(case.config, "steps", None)
    if steps is None or not issubclass(case.module.Model, training.TorchModel):
        raise NotApplicable("is not trained in steps")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        try:
            with training.session(stop_after=max(1, steps // 2)):
                case.module.train(case.config, case.data, seed=0, out=out)
        except training.Stopped:
            pass
        else:
            raise Broken("expected train to pass its steps and `out` to training.fit, found that it did not stop when told to")
        found, wanted = case.module.train(case.config, case.data, seed=0, out=out).arrays(), case.model.arrays()
    for key, value in wanted.items():
        _expect(np.array_equal(value, found[key]), f"expected the same {key!r} after a resumed training, found another")


def _total(case: _Case) -> tuple[float, float]:
    """Σ or ∫ of p, and the entropy −Σ p log p; both or neither mean something."""
    x: NDArray[Any]
    if case.data.name == "check-images":
        bits = (np.arange(512)[:, None] >> np.arange(9)) & 1  # every image over the data's two grey values
        x, weight = (bits * 255).astype(np.uint8).reshape(512, 1, 3, 3), 1.0
    elif case.data.name == "check-vectors":
        side = np.arange(-12, 12, 0.05) + 0.025
        x, weight = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), 0.05**2
    else:
        raise NotApplicable(f"{case.data.name} is too large to sum or integrate over")
    inside = np.full(len(x), -np.inf)
    if case.data.images:
        inside = case.density.log_prob(x)
    else:  # a law with bounded support may refuse points outside it: find the block of the grid that it answers for
        for a in range(0, len(x), 480):
            rows = x[a : a + 480]
            try:
                inside[a : a + 480] = case.density.log_prob(rows)
            except DataError:
                inside[a : a + 480] = [_one(case, row) for row in rows]
    p = np.exp(inside)
    positive = p > 0
    return float(p.sum() * weight), float(-(p[positive] * inside[positive]).sum() * weight)


def _one(case: _Case, row: NDArray[np.float64]) -> float:
    try:
        return float(case.density.log_prob(row[None])[0])
    except DataError:
        return -np.inf


MODULE_LAWS: tuple[Callable[[Any], None], ...] = (declares, round_trips_settings)
LAWS: tuple[Callable[[_Case], None], ...] = (
    right_samples,
    same_seed,
    same_model,
    no_global_generator,
    prefixes,
    right_labels,
    round_trips_checkpoint,
    honest_flags,
    one_by_one,
    sums_to_one,
    samples_follow,
    sees_only_the_past,
    resumes,
)
SAMPLER_LAWS: tuple[Callable[[_Case], None], ...] = (opens, same_seed, prefixes, honest_flags, one_by_one)


# -- running them --------------------------------------------------------------------------------------------------------------------


def _run(law: Callable[[Any], None], subject: Any, data: str) -> Outcome:
    from genbench.bench import CELL_FAULTS

    text = (law.__doc__ or law.__name__).strip()
    try:
        law(subject)
    except NotApplicable as e:
        return Outcome(text, data, "skipped", str(e))
    except Broken as e:
        return Outcome(text, data, "broken", str(e))
    except MissingError:
        raise
    except CELL_FAULTS as e:
        return Outcome(text, data, "broken", f"{type(e).__name__}: {e}")
    return Outcome(text, data, "ok", "")


def check(name: str) -> Report:
    """Run every law on a baseline.

    Args:
        name: an installed baseline's name, a path to a .py file, or "module:attribute"; see `find`.

    Raises:
        UsageError: there is no such baseline.
        MissingError: the data that its recipes name are not there.
    """
    found = find(name)
    installed = name.partition(":")[0] in registry.modules("baselines")
    short = Path(name).stem if name.endswith(".py") else name if installed else name.rpartition(":")[2]
    if not hasattr(found, "RECIPES") and hasattr(found, "sample"):
        return Report(name, tuple(_sampler(found)))
    outcomes = [_run(law, found, "") for law in MODULE_LAWS]
    if all(o.status != "broken" for o in outcomes):
        for case in _cases(short, found):
            variant = case.name.partition(":")[2]
            outcomes += [_run(law, case, case.data.name + (f" ({variant})" if variant else "")) for law in LAWS]
    return Report(name, tuple(outcomes))


def _sampler(found: Any) -> Iterator[Outcome]:
    """The laws that a bare sampler can be held to; its own first sample says what its shape is."""
    first = np.asarray(found.sample(2, seed=0))
    rows: Any = _Rows("its own samples", first, np.zeros(len(first), np.int64))
    case = _Case("sampler", types.SimpleNamespace(), None, TrainingData("its own samples", rows))
    case.__dict__["model"] = found
    for law in SAMPLER_LAWS:
        yield _run(law, case, "its own samples")


def main(name: str) -> int:
    """`genbench check`: print every law with its outcome.

    Raises:
        FailedError: a law is broken.
    """
    from genbench.report import show_listing

    report = check(name)
    show_listing(["", "law", "on", "found"], [[o.status, o.law, o.data, o.detail] for o in report.outcomes])
    if not report.ok:
        broken = sum(o.status == "broken" for o in report.outcomes)
        raise FailedError(f"{printable(name)}: {broken} of {len(report.outcomes)} laws broken")
    print(f"{printable(name)}: all laws hold")
    return 0
