"""Trained baselines: from a name to a run folder, and from a run folder to a file of samples.

    found = train("made", "mnist-dynbin", budget="5min", settings={"lr": 1e-3})
    print(found.folder, found.held_out)
    sample(found.folder, 10_000, "samples.npz")

A run folder holds `model.json` and `model.safetensors` (see `genbench.models`), `curve.csv` where the model was trained in steps, and
`train.json`: what was asked for, the settings that it came to, and what the model reached. While training goes on there is a state too;
the same command goes on from it.
"""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genbench import models, registry, training
from genbench.errors import DataError, UsageError, near_miss
from genbench.estimate import Estimate
from genbench.files import replacing, write_atomic
from genbench.likelihood import mean_nll
from genbench.models import TrainingData
from genbench.run import environment, printable
from genbench.statistics import LogLikelihood

if TYPE_CHECKING:
    from genbench.samples import Samples

NOTE = "train.json"
HELD_OUT = 2000  # samples of the held-out split behind the number that train prints; a leaderboard uses the whole test split
_UNITS = {"s": 1, "min": 60, "h": 3600}


# -- what to train -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A baseline with its settings.

    Args:
        name: such as made, or made:fvsbn for a variant.
        module: the baseline's.
        config: its settings; the steps are not final where `seconds` is given.
        passed: budget and settings as the user gave them.
        seconds: time that the steps are still to be measured for; None where they are known.
    """

    name: str
    module: types.ModuleType | Any
    config: Any
    passed: dict[str, Any]
    seconds: float | None = None


def named(name: str) -> tuple[types.ModuleType, str | None]:
    """The module of a baseline and the variant, of such a name as made or made:fvsbn.

    Raises:
        UsageError: there is none; the message has the near miss.
    """
    home, _, variant = name.partition(":")
    module = registry.module("baselines", home)
    if variant and variant not in models.variants(module):
        raise near_miss(variant, models.variants(module) or ["(it has none)"], f"variant of {home}")
    return module, variant or None


def seconds_of(budget: str) -> float | None:
    """Seconds of a budget such as 90s, 7min or 1h; None for one that is no time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", budget)
    return float(found[1]) * _UNITS[found[2]] if found else None


def choose(
    name: str, dataset: str, shape: tuple[int, ...], *, budget: str | None = None, settings: Mapping[str, Any] | None = None
) -> Choice | None:
    """The settings of a baseline for a dataset and a budget; None where it has no recipe.

    Args:
        name: of the baseline.
        dataset: its name.
        shape: of one sample.
        budget: one that the baseline has, such as 5min; any time, whose steps are then measured; "smoke"; None for the recipe as it is.
        settings: by name, in place of the recipe's.

    Raises:
        UsageError: an unknown name, setting or budget; the message has the near miss.
    """
    module, variant = named(name)
    known = models.budgets(module, dataset, shape, variant)
    wanted = None if budget is None else seconds_of(budget)
    if budget is not None and wanted is None and budget != "smoke":
        raise near_miss(budget, [*known, "smoke", "5min", "90s", "1h"], "budget")
    listed = budget if wanted is None else next((b for b in known if seconds_of(b) == wanted), None)
    config = models.recipe(module, dataset, shape, listed, variant)
    if config is None:
        return None
    given = dict(settings or {})
    if given:
        config = type(config).from_dict(config.to_dict() | given)
    steps = isinstance(config, training.Config)  # all others have one recipe, whatever the time
    measure = wanted if steps and listed is None and "steps" not in given else None
    passed = ({"budget": budget} if budget is not None and steps else {}) | given
    return Choice(name, module, config, passed, measure)


def completed(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record's settings with the defaults of those that the baseline has got since; as they are where they are none of its own."""
    try:
        found: dict[str, Any] = named(name)[0].Config.from_dict(settings).to_dict()
    except UsageError:
        return dict(settings)
    return found


def measured(choice: Choice, data: TrainingData) -> Choice:
    """The choice with as many steps as fit into its time, measured on a few of them, of every part that it is trained in.

    Raises:
        UsageError: parts whose steps are settings of their own leave no time for the others.
    """
    if choice.seconds is None:
        return choice

    def parts(config: Any, count: int) -> list[training.Part]:
        return training.time_of_parts(lambda: choice.module.train(config, data, seed=0, out=None), count)

    first, found = choice.config.steps, parts(choice.config, 13)
    # Some parts' steps may be settings of their own, which the time must hold beside the others: a second look says which.
    twice = [p._replace(steps=2 * p.steps) for p in found]
    if len(found) > 1:
        twice = parts(dataclasses.replace(choice.config, steps=2 * first), 1)
    took = sum(p.seconds * (more.steps - p.steps) for p, more in zip(found, twice, strict=True)) / first
    fixed = sum(p.seconds * (2 * p.steps - more.steps) for p, more in zip(found, twice, strict=True))
    if took <= 0:
        return dataclasses.replace(choice, seconds=None)
    budget = choice.passed["budget"]
    if fixed >= choice.seconds:
        raise UsageError(
            f"{choice.name}: the parts whose steps the budget does not set take {fixed:,.0f} s here, expected less than {budget}; give a "
            "longer one, or lower their own settings"
        )
    steps = max(1, round((choice.seconds - fixed) / took))
    print(f"genbench: {choice.name}: {took:.3g} s per step here, so {budget} are {steps:,} steps", file=sys.stderr)
    return dataclasses.replace(choice, config=dataclasses.replace(choice.config, steps=steps), seconds=None)


def open_data(source: str) -> TrainingData:
    """What a baseline learns from: the splits of a dataset, or all of a folder, archive or array file.

    Raises:
        MissingError: the dataset is not there.
        UsageError: it has no training split.
    """
    from genbench.samples import open_samples

    known = registry.datasets()
    if source.partition("/")[0] in known and "/" in source and not Path(source).exists():
        raise UsageError(f"expected a dataset, found its split {source}; pass {source.partition('/')[0]}: a model learns from train alone")
    if source not in known:
        return TrainingData(source, open_samples(source))
    module = registry.dataset(source)
    if "train" not in module.SPLITS:
        raise UsageError(f"dataset {source} has no training split, it has {', '.join(module.SPLITS)}; choose another")
    opened = {s: open_samples(f"{source}/{s}") for s in ("train", "test", "valid") if s in module.SPLITS}
    redraw = getattr(module, "redraw", lambda name: None)(source)
    return TrainingData(source, opened["train"], opened.get("test"), opened.get("valid"), redraw)


# -- training ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        folder: the run folder.
        model: the model.
        split: of the held-out data; None where there are none, or the model has no likelihood.
        held_out: mean −log p of some of them in nats, with its interval and bound.
        found: whether it had been trained before.
    """

    folder: Path
    model: models.Model
    split: str | None
    held_out: Estimate | None
    found: bool


def train(
    name: str,
    data: str,
    *,
    budget: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
    progress: training.Progress | None = None,
) -> Trained:
    """Train a baseline into a run folder. The same call goes on after an interruption, and returns at once when all is done.

    Args:
        name: of the baseline, such as made, or made:fvsbn.
        data: a dataset's name, or a folder, archive or array file.
        budget: such as 1min, 5min or 20min; other times are measured on this machine. None for the recipe as it is.
        settings: by name, in place of the recipe's.
        seed: of everything random.
        out: the run folder; None for one under ./genbench-runs/train.
        device: auto, cpu or cuda.
        progress: called with (what, done, total, note).

    Raises:
        UsageError: an unknown name, setting or budget; no recipe; a folder that holds another run.
        FailedError: the loss is no number.
    """
    source = open_data(data)
    choice = choose(name, source.name, source.shape, budget=budget, settings=settings)
    if choice is None:
        raise UsageError(f"{name} has no recipe for {data}; it has {', '.join(models.recipes_of(*named(name)))}")
    asked = {"name": name, "data": data, "passed": _plain(choice.passed), "seed": seed}
    folder = Path(out) if out is not None else Path("genbench-runs") / "train" / _label(asked, budget, settings)
    with training.session(device=device, progress=progress):
        choice = _begin(folder, asked, choice, source)
        before = finished(folder, choice, source, seed)
        model = before or build(choice, source, seed=seed, out=folder)
        said = note(folder)
        if "reached" not in said:
            said["reached"] = reached(model, source)
            _write(folder, said)
    held = said["reached"]["held_out"]
    estimate = None if held is None else Estimate(**{k: v for k, v in held.items() if k != "split"})
    return Trained(folder, model, held and held["split"], estimate, before is not None)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return found


def _label(asked: Mapping[str, Any], budget: str | None, settings: Mapping[str, Any] | None) -> str:
    """A folder's name that tells runs apart."""
    changed = hashlib.sha256(json.dumps(asked["passed"], sort_keys=True).encode()).hexdigest()[:8] if settings else None
    data = Path(asked["data"]).name
    return "-".join(p for p in (asked["name"].replace(":", "-"), data, budget, changed, f"seed{asked['seed']}") if p)


def _begin(folder: Path, asked: dict[str, Any], choice: Choice, data: TrainingData) -> Choice:
    """The choice with final settings: those of the folder's note where it was begun before, else measured and noted."""
    said = note(folder)
    if not said:
        if (folder / "model.json").is_file():
            raise UsageError(f"{folder} holds a model that genbench train has not made; choose another --out")
        choice = measured(choice, data)
        _write(folder, {"asked": asked, "config": choice.config.to_dict()})
        return choice
    if said["asked"] != asked:
        differs = [f"{k} {said['asked'].get(k)}" for k in asked if said["asked"].get(k) != asked[k]]
        raise UsageError(f"{folder} holds another run, with {', '.join(differs)}; choose another --out, or delete the folder")
    return dataclasses.replace(choice, config=type(choice.config).from_dict(said["config"]), seconds=None)


def note(folder: Path) -> dict[str, Any]:
    """What a run folder says of its training; empty where genbench train did not make it."""
    path = folder / NOTE
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise DataError(f"{path}: not readable ({e}); delete the folder and train again") from e
    if not isinstance(found, dict) or not all(isinstance(found.get(k), dict) for k in ("asked", "config")):
        raise DataError(f"{path}: expected what was asked for and the settings, found others; delete the folder and train again")
    return found


def _write(folder: Path, said: Mapping[str, Any]) -> None:
    write_atomic(folder / NOTE, (json.dumps(said, indent=1, sort_keys=True) + "\n").encode())


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings written as name=value: lr=1e-3 hidden=[512,512] direct=false; what is no JSON is a text.

    Example:
        >>> parse_settings(["lr=1e-3", "hidden=[512, 512]", "decay=none"])
        {'lr': 0.001, 'hidden': [512, 512], 'decay': 'none'}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals or name in found:
            raise UsageError(f"settings are written once each as name=value, found {word!r}; e.g. --set lr=1e-3 steps=2000")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def show(found: Trained) -> None:
    """Print the run folder, what the training took and what it reached: the folder alone on the first line of stdout."""
    from genbench.report import cell

    model, held = found.model, found.held_out
    print(printable(found.folder))
    took = f"{model.parameters:,} parameters, {model.seconds or 0.0:,.1f} s of training" + (", done before" if found.found else "")
    print(took + "".join(f"; {k} {v}" for k, v in model.chosen.items()))
    if held is not None:
        value, interval = cell(held.value, held.low, held.high)
        mark = {"upper": "≤ ", "lower": "≥ "}.get(held.bound, "")
        kind = held.bound + (f" ({held.estimator})" if held.estimator else "")
        print(f"nll {mark}{value} {interval} nats, {kind}, on {held.n:,} samples of the {found.split} split")
    for warning in model.notes:
        print(f"genbench: {model.provenance['name']}: {printable(warning)}", file=sys.stderr)


def build(choice: Choice, data: TrainingData, *, seed: int, out: Path) -> models.Model:
    """Train and save; an interrupted training in the folder is continued, its state goes when the model is saved.

    Args:
        choice: baseline and settings.
        data: to learn from.
        seed: of everything random.
        out: the run folder.
    """
    started = time.perf_counter()
    model: models.Model = choice.module.train(choice.config, data, seed=seed, out=out)
    if model.seconds is None:  # not trained by training.fit, which counts what came before an interruption too
        model.seconds = time.perf_counter() - started
    model.provenance = models.describe(choice.name, choice.module, model, passed=choice.passed, seed=seed, dataset=data.name)
    models.save_model(out, model, model.provenance, training_seconds=round(model.seconds, 3), made_from=_made_from(choice, data))
    training.discard(out)
    return model


def finished(folder: Path, choice: Choice, data: TrainingData, seed: int) -> models.Model | None:
    """The model of that folder, if it is this one: same settings, seed, data and source text of the baseline."""
    if not (folder / "model.json").is_file():
        return None
    try:
        model = models.load_model(folder, module=choice.module)
    except DataError as e:
        print(f"genbench: {e}", file=sys.stderr)
        return None
    about, wanted = model.provenance, (choice.name, choice.config.to_dict(), seed, data.name)
    if tuple(about.get(k) for k in ("name", "config", "seed", "dataset")) != wanted:
        return None
    if model.saved.get("made_from") != _made_from(choice, data):
        return None
    model.seconds = float(model.saved.get("training_seconds", 0.0))
    return model


def _made_from(choice: Choice, data: TrainingData) -> dict[str, str]:
    """What may change under a name: the baseline's file and the training rows."""
    path = getattr(choice.module, "__file__", None)
    text = Path(path).read_bytes() if path else b""
    return {"source": hashlib.sha256(text).hexdigest()[:16], "rows": data.train.fingerprint()[:16]}


def reached(model: models.Model, data: TrainingData) -> dict[str, Any]:
    """What a later run on the same machine must find again, in JSON: held-out nll, digest of the first samples, environment."""
    split, rows = next(((s, r) for s, r in (("valid", data.valid), ("test", data.test)) if r is not None), (None, None))
    held: dict[str, Any] | None = None
    if split is not None and rows is not None and model.bound is not None:
        found = held_out(model, rows)
        fields = ("value", "low", "high", "n", "interval", "bound", "measure", "estimator")
        held = None if found is None else {"split": split} | {k: getattr(found, k) for k in fields}
    first = np.ascontiguousarray(model.shard(0, 0))
    return {"held_out": held, "samples": hashlib.sha256(first.tobytes()).hexdigest(), "environment": environment(str(training.device()))}


def held_out(model: models.Model, rows: "Samples") -> Estimate | None:
    """Mean −log p of a seeded subset in nats; None where it is not defined."""
    from genbench.samples import subset

    some = subset(rows, min(len(rows), HELD_OUT), 0)
    parts = [model.log_prob(some.read(a, min(a + 512, len(some)))) for a in range(0, len(some), 512)]
    kind = (model.bound or "exact", model.measure)
    found = mean_nll(LogLikelihood(np.concatenate(parts), model.dims, *kind, some.names, model.estimator))
    return found if isinstance(found, Estimate) else None


# -- sampling ------------------------------------------------------------------------------------------------------------------------


def sample(
    run: str | Path,
    n: int,
    out: str | Path,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: training.Progress | None = None,
) -> str:
    """Draw samples of a trained baseline into a folder of PNG files or a file; whole or not at all.

    Those of a class-conditional model lie in a folder per class, or have `labels` beside them in an .npz or .safetensors file.

    Args:
        run: a run folder.
        n: how many.
        out: a folder, or a file that ends in .npz, .npy, .safetensors (images as (n, h, w, c) bytes) or .zip (PNG files).
        seed: of the draws; the same as for `genbench eval RUN --seed`.
        device: auto, cpu or cuda.
        progress: called with (what, done, total).

    Returns:
        The samples' fingerprint, as every record has it.

    Raises:
        UsageError: an ending that is not known, or a folder that is not empty.
        DataError: vectors for PNG files.
    """
    from genbench.samples import open_samples

    path = Path(out)
    kind = path.suffix.lower() if not (path.is_dir() or str(out).endswith(("/", "\\"))) else ""
    if kind not in _WRITERS:
        raise UsageError(f"{out}: samples go to a folder or to a file ending in {', '.join(k for k in _WRITERS if k)}; end a folder with /")
    with training.session(device=device):
        model = models.load_model(run)
        if kind in ("", ".zip") and (len(model.shape) != 3 or model.shape[0] not in (1, 3)):
            raise DataError(f"PNG files hold images of 1 or 3 channels, {run} makes samples of shape {model.shape}; pass a .npz file")
        if kind == "" and path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{out}: the folder is not empty; choose another, or empty it first")
        samples = open_samples(model, n=n, seed=seed)
        if samples.labels is not None and kind == ".npy":
            raise DataError(f"{run} draws samples for classes, which a .npy file cannot hold; pass a folder, .npz, .zip or .safetensors")

        def blocks() -> Iterator[NDArray[Any]]:
            for a in range(0, n, 2048):
                yield samples.read(a, min(a + 2048, n))
                if progress:
                    progress(f"sampling {Path(run).name}", min(a + 2048, n), n)

        _WRITERS[kind](path, n, model.shape, blocks(), samples.labels)
        return samples.fingerprint()


_Blocks = Iterator[NDArray[Any]]
_Labels = NDArray[np.int64] | None


def _pngs(blocks: _Blocks, labels: _Labels) -> Iterator[tuple[str, bytes]]:
    from PIL import Image

    i, width = 0, 0 if labels is None else len(str(labels.max()))  # so that the folders' order is that of the classes
    for block in blocks:
        for x in block:
            data = io.BytesIO()
            Image.fromarray(x[0] if len(x) == 1 else np.moveaxis(x, 0, -1)).save(data, "PNG", compress_level=1)
            yield f"{i:07d}.png" if labels is None else f"{labels[i]:0{width}d}/{i:07d}.png", data.getvalue()
            i += 1


def _to_folder(path: Path, n: int, shape: tuple[int, ...], blocks: _Blocks, labels: _Labels) -> None:
    part = path.with_name(f".{path.name}.part")  # a folder that is there is whole; what a killed run left of one is cleared away
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in _pngs(blocks, labels):
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).write_bytes(data)
    if path.is_dir():
        path.rmdir()
    part.rename(path)


@contextmanager
def _zip(path: Path) -> Iterator[Callable[[str], Any]]:
    """A new archive without the time of day in it: opens members by name."""
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        yield lambda name: archive.open(zipfile.ZipInfo(name), "w", force_zip64=True)


def _to_zip(path: Path, n: int, shape: tuple[int, ...], blocks: _Blocks, labels: _Labels) -> None:
    with _zip(path) as member:
        for name, data in _pngs(blocks, labels):
            with member(name) as f:
                f.write(data)


def _header(n: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    return ((n, *shape[1:], shape[0]), "|u1") if len(shape) == 3 else ((n, *shape), "<f8")


def _bytes(block: NDArray[Any]) -> bytes:
    return (np.moveaxis(block, 1, -1) if block.ndim == 4 else block.astype("<f8")).tobytes()


def _npy(f: Any, n: int, shape: tuple[int, ...], blocks: _Blocks) -> None:
    full, kind = _header(n, shape)
    np.lib.format.write_array_header_1_0(f, {"descr": kind, "fortran_order": False, "shape": full})
    for block in blocks:
        f.write(_bytes(block))


def _to_npy(path: Path, n: int, shape: tuple[int, ...], blocks: _Blocks, labels: _Labels) -> None:
    with replacing(path) as f:
        _npy(f, n, shape, blocks)


def _to_npz(path: Path, n: int, shape: tuple[int, ...], blocks: _Blocks, labels: _Labels) -> None:
    with _zip(path) as member:
        with member("arr_0.npy") as f:
            _npy(f, n, shape, blocks)
        if labels is not None:
            with member("labels.npy") as f:
                np.lib.format.write_array(f, labels)


def _to_safetensors(path: Path, n: int, shape: tuple[int, ...], blocks: _Blocks, labels: _Labels) -> None:
    from safetensors.numpy import save

    full, kind = _header(n, shape)
    rows = np.frombuffer(b"".join(_bytes(b) for b in blocks), kind).reshape(full)
    write_atomic(path, save({"samples": rows} if labels is None else {"samples": rows, "labels": labels}))


_WRITERS: Mapping[str, Callable[[Path, int, tuple[int, ...], _Blocks, _Labels], None]] = {
    "": _to_folder,
    ".npz": _to_npz,
    ".npy": _to_npy,
    ".safetensors": _to_safetensors,
    ".zip": _to_zip,
}
