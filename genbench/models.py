"""What a baseline is made of: Sampler and Density protocols, Config, Model, TrainingData, and checkpoints that run no code.

A checkpoint ("run folder") is two files, never a pickle:

    model.json          name, family, resolved and passed settings, seed, shape, sha256 of the arrays
    model.safetensors   the arrays
"""

import dataclasses
import hashlib
import json
import time
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError, GenbenchError, UsageError, near_miss
from genbench.files import write_atomic
from genbench.images import shown
from genbench.likelihood import estimator_of

if TYPE_CHECKING:
    import torch

    from genbench.samples import Samples

FORMAT = 2  # 2: model.json has a digest of its own
ROLES = ("model", "ceiling", "floor", "planted", "diagnostic")
"""How a leaderboard shows a baseline: a contestant; the best that is possible; a level that every model must beat; a planted cheat;
a control with one known defect."""


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws samples."""

    def sample(self, n: int, *, seed: int) -> NDArray[Any]:
        """n samples: uint8 (n, c, h, w) or float64 (n, d)."""
        ...


@runtime_checkable
class Density(Protocol):
    """Anything that knows log p(x), or a bound on it."""

    @property
    def dims(self) -> int:
        """Number of dimensions that a log-likelihood is spread over."""
        ...

    @property
    def bound(self) -> str | None:
        """What log_prob is to log p: exact, lower, upper, estimate."""
        ...

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log p(x) in nats, (n,)."""
        ...


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator of (seed, key...): independent streams, whoever asks first.

    Args:
        seed: not negative.
        key: what the stream is for, e.g. the shard's index.
    """
    if seed < 0:
        raise UsageError(f"a seed is a whole number from 0 on, found {seed}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _number(seed: int, *key: int) -> int:
    return int(generator(seed, *key).integers(2**63))


def torch_generator(seed: int, *key: int) -> "torch.Generator":
    """torch's generator of (seed, key...), on the CPU, so that the draws are the same on every device."""
    import torch

    return torch.Generator().manual_seed(_number(seed, *key))


def _generators() -> "list[torch.Generator]":
    """torch's own generators: the CPU's and every GPU's that is in use."""
    import torch

    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]


@contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """torch's own generators seeded by (seed, key...), put back as they were on leaving."""
    kept = [(g, g.get_state()) for g in _generators()]
    try:
        reseed(seed, *key)
        yield
    finally:
        for g, state in kept:
            g.set_state(state)


def reseed(seed: int, *key: int) -> None:
    """Seed torch's own generators by (seed, key...)."""
    number = _number(seed, *key)
    for g in _generators():
        g.manual_seed(number)


def settings_hash(settings: Mapping[str, Any]) -> str:
    """First 16 hex digits of the sha256 of settings as a record has them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Config:
    """Base of a baseline's settings: a frozen dataclass whose every field has a default."""

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Settings by name; values are checked against the fields' types.

        Raises:
            UsageError: an unknown setting (with the near miss), or a value of the wrong type.
        """
        from pydantic import TypeAdapter, ValidationError

        known = [f.name for f in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                raise near_miss(key, known or ["(it has no settings)"], "setting")
        try:
            return TypeAdapter(cls).validate_python(dict(settings))
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise UsageError(f"setting {where}: {first['msg']}, found {first['input']!r}") from e

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON holds them: tuples are lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of all settings."""
        return settings_hash(self.to_dict())


@dataclass(frozen=True)
class TrainingData:
    """What a baseline may learn from.

    Args:
        name: the dataset's name.
        train: the training split.
        test: the test split: for oracles only, no model may fit on it or choose by it.
        valid: the split to choose settings on; None where the dataset has none.
        redraw: (numbers of training rows, generator) -> those rows, drawn anew: for data that are a law rather than a set, such as grey
            values that are probabilities. A minibatch is drawn with it; `train` is one fixed draw. None for a fixed set.
    """

    name: str
    train: "Samples"
    test: "Samples | None" = None
    valid: "Samples | None" = None
    redraw: Callable[[NDArray[np.int64], np.random.Generator], NDArray[Any]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w) of images or (d,) of vectors."""
        return tuple(self.train.shape)

    @property
    def images(self) -> bool:
        """Whether the samples are images."""
        return len(self.train.shape) == 3

    def fit_and_valid(self, *, seed: int, share: float = 0.1) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows to fit on and rows to choose settings by: the validation split, else a seeded share of the training split."""
        rows = read_all(self.train)
        if self.valid is not None:
            return rows, read_all(self.valid)
        order = generator(seed, 1).permutation(len(rows))
        held = max(1, round(share * len(rows)))
        if held >= len(rows):
            raise DataError(f"{self.name}: at least 2 training samples are needed to choose settings, found {len(rows)}")
        return rows[np.sort(order[held:])], rows[np.sort(order[:held])]


def class_labels(data: TrainingData) -> NDArray[np.int64]:
    """Class of every training sample; for a toy without labels the nearest mode of its law.

    Raises:
        DataError: the data have neither.
    """
    if data.train.labels is not None:
        return np.asarray(data.train.labels, np.int64)
    from genbench import registry

    law = getattr(registry.dataset(data.name), "toy", None) if data.name in registry.datasets() else None
    modes = law(data.name).modes if law is not None else None
    if modes is None:
        raise DataError(f"{data.name} has no labels and no separate modes; leave out the controls that need classes")
    return np.asarray(((read_all(data.train)[:, None] - modes[0]) ** 2).sum(axis=2).argmin(axis=1), np.int64)


def read_all(samples: "Samples") -> NDArray[Any]:
    """All samples of a set in memory."""
    return np.asarray(samples.read(0, len(samples)))


def levels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """The grey values that a quantised image set uses: 17 for digits, all 256 where more than half of them are seen."""
    seen = np.unique(images)
    if seen.dtype != np.uint8:
        raise DataError(f"images are uint8, found {seen.dtype}")
    return seen if len(seen) <= 128 else np.arange(256, dtype=np.uint8)


def to_levels(images: NDArray[Any], known: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index of every pixel's grey value among the known ones.

    Raises:
        DataError: a grey value that the model does not know; names the image.
    """
    table = np.full(256, -1, np.int64)
    table[known] = np.arange(len(known))
    found = table[images]
    if (found < 0).any():
        first = int(np.flatnonzero((found < 0).reshape(len(found), -1).any(axis=1))[0])
        raise DataError(f"the model knows {len(known)} grey values, image {first} has others; quantise the images as the training data are")
    return found


def latent_neighbours(n: int, dims: int, step: float, *, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of neighbours on n random paths between two standard normal latents, for `ppl`.

        z_t = cos(πt/2) z_0 + sin(πt/2) z_1,     t uniform over (0, 1 − step)

    On a sphere where z_0 and z_1 are orthogonal, as they nearly are in many dimensions; standard normal at every t in any number of them.

    Args:
        n: paths.
        dims: of a latent.
        step: distance of the neighbours, as a share of the path.
        seed: path i depends on (seed, i) alone.

    Returns:
        The latents at t and at t + step, (n, dims) each.
    """
    if n < 1 or not 0 < step < 1:
        raise UsageError(f"latent pairs need n >= 1 and a step in (0, 1), found {n} and {step}")
    first, second = np.empty((n, dims)), np.empty((n, dims))
    for i in range(n):
        rng = generator(seed, i)
        (a, b), t = rng.standard_normal((2, dims)), rng.random() * (1 - step)
        for place, at in ((first, t), (second, t + step)):
            place[i] = np.cos(np.pi / 2 * at) * a + np.sin(np.pi / 2 * at) * b
    return first, second


class Stream(ABC):
    """Endless samples in shards: base of trained baselines, and of what is adapted to them.

    The i-th sample depends on (seed, i // SHARD) alone and on its place in that shard: the same samples come whatever the batch size,
    the number of workers, or how many are asked for.

    Args:
        shape: (c, h, w) for images, (d,) for vectors.
        notes: warnings for readers of the results, e.g. "EM had not converged".

    Attributes:
        draw_count: samples drawn so far.
        draw_seconds: that they took.
    """

    SHARD: ClassVar[int] = 256
    PREFIX: ClassVar[bool] = True  # sample(n)[:m] is sample(m); False where the draws depend on n
    ROUNDING: ClassVar[float] = 1e-9  # what rounding may do to log_prob, as a share of 1 + |log p|

    def __init__(self, shape: tuple[int, ...], *, notes: tuple[str, ...] = ()) -> None:
        self.shape = tuple(int(s) for s in shape)
        self.notes = tuple(notes)
        self.provenance: dict[str, Any] = {}
        self.draw_count, self.draw_seconds = 0, 0.0

    @abstractmethod
    def shard(self, index: int, seed: int) -> NDArray[Any]:
        """The samples index·SHARD ... (index+1)·SHARD − 1; fewer only where the model can give no more."""

    def sample(self, n: int, *, seed: int, start: int = 0) -> NDArray[Any]:
        """Samples start ... start + n − 1 of the stream that `seed` names.

        Args:
            n: how many, at least 1.
            seed: not negative.
            start: the first one's index, so that workers can share the stream.

        Returns:
            uint8 (n, c, h, w) or float64 (n, d).

        Raises:
            DataError: the model cannot give so many.
        """
        if n < 1 or start < 0:
            raise UsageError(f"sample n >= 1 from start >= 0 on, found n = {n}, start = {start}")
        parts, began = [], time.perf_counter()
        for index in range(start // self.SHARD, (start + n - 1) // self.SHARD + 1):
            offset = index * self.SHARD
            made = self.shard(index, seed)
            self.draw_count += len(made)
            parts.append(made[max(0, start - offset) : start + n - offset])
        self.draw_seconds += time.perf_counter() - began
        return self._whole(np.concatenate(parts), n, start)

    @staticmethod
    def _whole(found: NDArray[Any], n: int, start: int) -> NDArray[Any]:
        if len(found) != n:
            raise DataError(f"{n:,} samples were asked for from {start:,} on, the model has {len(found):,}; ask for fewer")
        return found

    # -- classes: a model that is not conditional leaves these alone ---------------------------------------------------------------

    def shard_labels(self, index: int, seed: int) -> NDArray[np.int64] | None:
        """The classes that the shard's samples are drawn for; None where the model is not conditional."""
        return None

    def sample_labels(self, n: int, *, seed: int, start: int = 0) -> NDArray[np.int64] | None:
        """The classes that samples start ... start + n − 1 are drawn for, (n,); None where the model is not conditional.

        Args:
            n: how many, at least 1.
            seed: the samples' own.
            start: the first one's index.
        """
        if n < 1 or start < 0:
            raise UsageError(f"labels of n >= 1 samples from start >= 0 on, found n = {n}, start = {start}")
        shards = range(start // self.SHARD, (start + n - 1) // self.SHARD + 1)
        parts = [found for index in shards if (found := self.shard_labels(index, seed)) is not None]
        return self._whole(np.concatenate(parts)[start % self.SHARD :][:n], n, start) if parts else None

    # -- likelihood: a model without one leaves these alone ------------------------------------------------------------------------

    @property
    def bound(self) -> str | None:
        """What log_prob is to log p(x): "exact", "lower", "upper" or "estimate"; None where the model has no density."""
        return None

    @property
    def estimator(self) -> str | None:
        """Which bound or estimate log_prob is, where it is not exact, in a table's words: "IWAE-1000". By default what the notes say."""
        return None if self.bound in (None, "exact") else estimator_of(self.notes)

    @property
    def measure(self) -> str:
        """ "mass" of grey values for images, "density" for vectors."""
        return "mass" if len(self.shape) == 3 else "density"

    @property
    def dims(self) -> int:
        """Pixels × channels, or the vector's length."""
        return int(np.prod(self.shape))

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log p(x) in nats, (n,)."""
        raise UsageError(f"{type(self).__module__.rpartition('.')[2]} has no likelihood; it can only sample")

    @property
    def nfe(self) -> int | None:
        """Passes through the network that one sample takes; None where there is no network."""
        return None

    def check_rows(self, x: NDArray[Any]) -> NDArray[Any]:
        """The rows as they were given, if they have the model's shape and type."""
        x = np.asarray(x)
        wanted = np.uint8 if len(self.shape) == 3 else np.float64
        if x.shape[1:] != self.shape or x.dtype != wanted:
            raise DataError(f"expected rows of shape {self.shape} and type {np.dtype(wanted).name}, found {x.shape[1:]} and {x.dtype}")
        return x


class Model(Stream):
    """Base of a trained baseline.

    Args:
        config: the resolved settings.
        shape: (c, h, w) for images, (d,) for vectors.
        notes: warnings for readers of the results, e.g. "EM had not converged".
        chosen: settings that training chose among the config's candidates.
    """

    def __init__(
        self, config: Any, shape: tuple[int, ...], *, notes: tuple[str, ...] = (), chosen: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(shape, notes=notes)
        self.config = config
        self.chosen = dict(chosen or {})
        self.seconds: float | None = None  # of training, where training counts them
        self.saved: dict[str, Any] = {}  # what save_model was given beside the model

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that was learnt, by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        """The model of `arrays()`."""

    @property
    def parameters(self) -> int:
        """Number of learnt values: the elements of all arrays."""
        return int(sum(a.size for a in self.arrays().values()))


class ArrayModel(Model):
    """A model that is its arrays: the base of those that are fitted in closed form or by EM.

    Args:
        config: the settings.
        arrays: everything that was learnt, by name.
        shape: of one sample.
        about: notes and chosen, as for Model.
    """

    def __init__(self, config: Any, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], **about: Any) -> None:
        super().__init__(config, shape, **about)
        self._arrays = dict(arrays)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return dict(self._arrays)

    @classmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays, shape)


class Replay(Model):
    """Stored items in a seeded order: the base of controls that change or repeat real data.

    Args:
        config: the settings.
        items: (k, ...) what is replayed.
        shape: of one item.
        labels: (k,) their classes; None where there are none.
        cycle: start again in a new order after k items; False: asking for more than k is an error.
    """

    cycle: ClassVar[bool] = False

    def __init__(self, config: Any, items: NDArray[Any], shape: tuple[int, ...], labels: NDArray[np.int64] | None = None) -> None:
        super().__init__(config, shape)
        if len(items) == 0:
            raise DataError("there is nothing to replay; give at least one sample")
        self.items, self.labels = items, labels
        self._order: dict[tuple[int, int], NDArray[np.int64]] = {}

    def order(self, seed: int, turn: int) -> NDArray[np.int64]:
        """The items' order in the turn-th pass."""
        if (seed, turn) not in self._order:
            self._order = {(seed, turn): generator(seed, 0, turn).permutation(len(self.items))}  # only the last: shards are asked in order
        return self._order[seed, turn]

    def picked(self, index: int, seed: int) -> NDArray[np.int64]:
        """Which items make up a shard."""
        k, first = len(self.items), index * self.SHARD
        last = first + self.SHARD if self.cycle else min(first + self.SHARD, k)
        if last <= first:
            return np.empty(0, np.int64)
        return np.concatenate([self.order(seed, t)[max(0, first - t * k) : last - t * k] for t in range(first // k, -(-last // k))])

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        return self.items[self.picked(index, seed)]

    def shard_labels(self, index: int, seed: int) -> NDArray[np.int64] | None:
        return None if self.labels is None else self.labels[self.picked(index, seed)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"items": self.items} if self.labels is None else {"items": self.items, "labels": self.labels}

    @classmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        return cls(config, arrays["items"], shape, arrays.get("labels"))

    @property
    def parameters(self) -> int:
        """Values of the items."""
        return int(self.items.size)


# -- recipes -----------------------------------------------------------------------------------------------------------------------


def recipe(
    module: types.ModuleType | Any, dataset: str, shape: tuple[int, ...], budget: str | None = None, variant: str | None = None
) -> Any | None:
    """The Config of a baseline for a dataset: by name, else by kind ("images", "vectors"), else "*"; None where it does not apply.

    A baseline whose training can be short or long has BUDGETS beside RECIPES: by dataset (or kind, or "*") and budget, the settings that
    differ from the recipe's: `BUDGETS = {"mnist-dynbin": {"1min": {"steps": 2000}, "5min": {}, "20min": {"hidden": (4096,)}}}`.
    A system of the same engine is a variant with recipes of its own, `VARIANTS = {"fvsbn": {"mnist-dynbin": Config(hidden=())}}`; it is
    written made:fvsbn wherever a baseline is named, its budgets stand under "mnist-dynbin:fvsbn".
    And it has SMOKE, by kind: `SMOKE = {"images": Config(steps=50, hidden=(16,))}`, which trains in under 2 seconds on the small data of
    `genbench check`; it is the budget "smoke" of every dataset of that kind, that of a variant under "images:fvsbn". A variant without one
    gets the baseline's, with what sets the variant's recipe apart.

    Args:
        module: the baseline.
        dataset: its name.
        shape: of one sample.
        budget: such as "5min"; None for the recipe as it stands. A baseline without BUDGETS has one recipe for all.
        variant: one of VARIANTS; None for the baseline itself.

    Raises:
        UsageError: the baseline has budgets for this dataset, and this one is not among them; or no such variant.
    """
    kind = "images" if len(shape) == 3 else "vectors"
    if budget == "smoke":
        if (quick := _smoke(module, kind, dataset, variant)) is not None:
            return quick
        budget = None
    recipes = recipes_of(module, variant)
    key = next((k for k in (dataset, kind, "*") if k in recipes), None)
    if key is None:
        return None
    found = budgets(module, dataset, shape, variant)
    if budget is None or not found:
        return recipes[key]
    if budget not in found:
        quick = _smoke(module, kind, dataset, variant)
        raise near_miss(budget, found if quick is None else [*found, "smoke"], f"budget on {dataset}")
    return dataclasses.replace(recipes[key], **found[budget])


def _smoke(module: types.ModuleType | Any, kind: str, dataset: str, variant: str | None) -> Any | None:
    """The Config for a quick training; see `recipe`."""
    listed = getattr(module, "SMOKE", {})
    if variant is None or f"{kind}:{variant}" in listed:
        return listed.get(kind if variant is None else f"{kind}:{variant}")
    from genbench.datasets.toy2d import NAMES

    recipes = {k: v for k, v in recipes_of(module, variant).items() if k in module.RECIPES}
    for key in dict.fromkeys((dataset, kind, *recipes)):
        fits = key in (dataset, "*") or (key in ("vectors", *NAMES)) == (kind == "vectors")
        if fits and key in recipes and kind in listed:
            apart = differences(recipes[key], module.RECIPES[key])
            return dataclasses.replace(listed[kind], **{name: value for name, value in apart.items() if name != "steps"})
    return None


def differences(config: Any, other: Any) -> dict[str, Any]:
    """The settings of a Config that differ from another's of its class."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(other, f.name)}


def budgets(module: types.ModuleType | Any, dataset: str, shape: tuple[int, ...], variant: str | None = None) -> Mapping[str, Any]:
    """The budgets that a baseline has settings for, and which they are; empty where it has none."""
    known: Mapping[str, Any] = getattr(module, "BUDGETS", {})
    kinds = (dataset, "images" if len(shape) == 3 else "vectors", "*")
    return next((known[k] for k in (kinds if variant is None else [f"{k}:{variant}" for k in kinds]) if k in known), {})


def variants(module: types.ModuleType | Any) -> tuple[str, ...]:
    """Names of the baseline's variants."""
    return tuple(getattr(module, "VARIANTS", {}))


def recipes_of(module: types.ModuleType | Any, variant: str | None) -> Mapping[str, Any]:
    """RECIPES of the baseline, or of its variant."""
    if variant is None:
        return dict(module.RECIPES)
    if variant not in variants(module):
        raise near_miss(variant, variants(module) or ["(it has none)"], "variant")
    return dict(module.VARIANTS[variant])


def role(module: types.ModuleType | Any) -> str:
    """How a leaderboard shows the baseline; see ROLES."""
    found = str(getattr(module, "ROLE", "model"))
    if found not in ROLES:
        raise near_miss(found, ROLES, "role of a baseline")
    return found


def describe(
    name: str, module: types.ModuleType | Any, model: Model, *, passed: Mapping[str, Any], seed: int, dataset: str
) -> dict[str, Any]:
    """The provenance that goes into a record's `subject.baseline`."""
    return {
        "name": name,
        "family": module.FAMILY,
        "role": role(module),
        "dataset": dataset,
        "config": model.config.to_dict(),
        "passed": json.loads(json.dumps(dict(passed))),
        "seed": seed,
        "parameters": model.parameters,
        **({} if model.nfe is None else {"nfe": model.nfe}),
        "bound": model.bound,
        "chosen": json.loads(json.dumps(model.chosen)),
        "notes": list(model.notes),
    }


# -- checkpoints -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Saved:
    """What model.json holds; unknown keys are an error, so that a damaged file is noticed."""

    format: int
    shape: tuple[int, ...]
    baseline: dict[str, Any]
    sha256: str
    extra: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # sha256 of all other fields

    def sealed(self) -> dict[str, Any]:
        """The fields with their digest."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "digest"}
        return fields | {"digest": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}


def save_model(folder: str | Path, model: Model, provenance: Mapping[str, Any] | None = None, **extra: Any) -> Path:
    """Write a checkpoint; model.json last, so that a folder with it is whole.

    Args:
        folder: is made where it does not exist.
        model: what to save.
        provenance: from `describe`; None for the model's own.
        extra: more JSON to keep, e.g. training_seconds.

    Returns:
        The folder.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = save({k: np.ascontiguousarray(v) for k, v in model.arrays().items()})
    found = dict(provenance if provenance is not None else model.provenance)
    if "name" not in found:
        raise UsageError("save_model needs the provenance with the baseline's name; pass describe(...)")
    saved = _Saved(FORMAT, model.shape, found, hashlib.sha256(data).hexdigest(), dict(extra))
    (folder / "model.json").unlink(missing_ok=True)
    write_atomic(folder / "model.safetensors", data)
    write_atomic(folder / "model.json", (json.dumps(saved.sealed(), indent=1, sort_keys=True) + "\n").encode())
    return folder


def load_model(folder: str | Path, module: types.ModuleType | Any | None = None) -> Model:
    """Read a checkpoint. No code comes from the folder: the baseline's module is the installed one, or the one passed.

    Args:
        folder: with model.json and model.safetensors.
        module: the baseline's module, for one that is not installed.

    Returns:
        The model; its `provenance` is what was saved with it.

    Raises:
        DataError: a file is missing or damaged.
        UsageError: the baseline is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from genbench import registry

    folder = Path(folder)
    path = folder / "model.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
        saved = _Saved(**raw)
    except FileNotFoundError as e:
        raise DataError(f"{folder}: a trained baseline's folder has model.json, found none; train it again") from e
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise DataError(f"{path}: not a readable checkpoint ({shown(str(e))}); train the baseline again") from e
    if type(saved.format) is not int or saved.format > FORMAT:
        raise DataError(f"{path}: written by a newer genbench (format {saved.format!r}, this one reads up to {FORMAT}); upgrade genbench")
    if saved.format > 1 and saved.digest != saved.sealed()["digest"]:
        raise DataError(f"{path}: changed after it was written (its digest is another one); train the baseline again")
    shape = saved.shape
    if not isinstance(shape, list) or len(shape) not in (1, 3) or not all(type(s) is int and 0 < s < 2**24 for s in shape):
        raise DataError(f"{path}: a shape is [d] or [c, h, w], found {shape!r}; train the baseline again")
    try:
        data = (folder / "model.safetensors").read_bytes()
        arrays = load(data) if hashlib.sha256(data).hexdigest() == saved.sha256 else None
    except (OSError, SafetensorError) as e:
        raise DataError(f"{folder}/model.safetensors: not readable ({e}); train the baseline again") from e
    if arrays is None:
        raise DataError(f"{folder}/model.safetensors: its sha256 is not the one in model.json; train the baseline again")
    if not isinstance(saved.baseline, dict) or not {"name", "config"} <= set(saved.baseline):
        raise DataError(f"{path}: expected the baseline's name and config, found {saved.baseline!r}; train the baseline again")
    try:
        home = module if module is not None else registry.module("baselines", str(saved.baseline["name"]).partition(":")[0])
        model: Model = home.Model.from_arrays(home.Config.from_dict(saved.baseline["config"]), arrays, tuple(saved.shape))
        model.notes = tuple(saved.baseline.get("notes", ()))
        model.chosen = dict(saved.baseline.get("chosen", {}))
    except GenbenchError as e:
        raise type(e)(f"{path}: {e}") from e
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise DataError(f"{path}: its settings do not fit its arrays ({type(e).__name__}: {e}); train the baseline again") from e
    model.provenance = dict(saved.baseline)
    model.saved = dict(saved.extra)
    return model
