"""fit(): the one small loop that trains every net here, and TorchModel, the base of what comes out of it.

What is random in step i depends on (seed, i) alone: its minibatch, `Step.rng`, and torch's own generators, which are seeded for each
step and put back as they were when training ends. So a run that was killed and went on is the run that was never killed, bit for bit, and
a state holds no generator. A trained net in ten lines:

    def train(config, data, *, seed, out=None):
        import torch

        model = Model.new(config, data.shape, seed=seed)
        optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr)

        def step(now):  # called config.steps times
            loss = -model.net(now.x).mean()
            now.update(loss)
            return {"nats": loss}

        return model.trained(fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out))
"""

import copy
import csv
import hashlib
import io
import json
import math
import re
import signal
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from genbench import models
from genbench.errors import DataError, FailedError, UsageError, near_miss
from genbench.files import write_atomic
from genbench.models import TrainingData, generator, read_all, reseed
from genbench.models import seeded as seeded
from genbench.models import torch_generator as torch_generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

FORMAT = 1
STATE = "state.safetensors"
CURVE = "curve.csv"
POINTS = 200  # rows of the curve
FLUSH = 50  # steps between looks at the losses on a GPU, where each look waits for it
# What a stream of random numbers is for: the first key after the seed. Keys of one number belong to the shards of samples.
_STEP, _NOISE, _ORDER, _WEIGHTS, _CLASSES = 101, 102, 103, 104, 105


# -- settings ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(models.Config):
    """Settings that every trained net has; a baseline derives its own from this.

    Args:
        steps: the budget: how often `step` is called.
        batch: training rows per step.
        lr: learning rate after warm-up.
        warmup: share of the steps in which the rate rises from 0.
        decay: "cosine" falls to 0 at the last step; "none" stays.
        ema: decay of the weights' moving average, which then is the model; 0 for none. In the first steps it is (1 + i)/(10 + i).
        clip: largest norm of an optimiser's gradient; 0 for no limit.
        bf16: run the nets in bfloat16 (weights, optimiser and likelihoods stay float32).
    """

    steps: int = 1000
    batch: int = 100
    lr: float = 1e-3
    warmup: float = 0.02
    decay: str = "cosine"
    ema: float = 0.0
    clip: float = 0.0
    bf16: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1:
            raise UsageError(f"steps and batch are at least 1, found {self.steps} and {self.batch}")
        if not 0 < self.lr < math.inf or not 0 <= self.clip < math.inf:
            raise UsageError(f"lr is above 0 and clip at least 0, found {self.lr} and {self.clip}")
        if not 0 <= self.warmup < 1 or not 0 <= self.ema < 1:
            raise UsageError(f"warmup and ema are in [0, 1), found {self.warmup} and {self.ema}")
        if self.decay not in ("cosine", "none"):
            raise near_miss(self.decay, ("cosine", "none"), "decay")

    def rate(self, i: int) -> float:
        """The share of `lr` that step i uses."""
        warm = round(self.warmup * self.steps)
        if i < warm:
            return (i + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (i - warm) / (self.steps - warm))) if self.decay == "cosine" else 1.0


Progress = Callable[..., None]


@dataclass(frozen=True)
class Session:
    """How to train, as far as it is no setting of a model.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        progress: called with (what, done, total, note).
        save_every: seconds between two saved states.
        stop_after: stop each training after so many steps, its state saved, by raising Stopped.
        parts: where the time of a step goes, instead: see `time_of_parts`.
    """

    device: str = "auto"
    progress: Progress | None = None
    save_every: float = 60.0
    stop_after: int | None = None
    parts: "list[Part] | None" = None


class Part(NamedTuple):
    """What was measured of one training.

    Args:
        seconds: mean time of a step.
        steps: that it would have taken.
    """

    seconds: float
    steps: int


_DEFAULT = Session()
_session: ContextVar[Session] = ContextVar("training session", default=_DEFAULT)


@contextmanager
def session(**settings: Any) -> Iterator[Session]:
    """Train within: `with session(device="cpu", progress=Progress()): module.train(...)`; the arguments are those of Session.

    What is not given is as in the session around it.
    """
    token = _session.set(replace(_session.get(), **settings))
    try:
        yield _session.get()
    finally:
        _session.reset(token)


def current() -> Session:
    """The session that is open; its defaults where there is none."""
    return _session.get()


def device() -> "torch.device":
    """Where nets are trained and run: what the session says.

    Raises:
        UsageError: torch cannot use it.
    """
    import torch

    wanted = _session.get().device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted != "cpu" and not (re.fullmatch(r"cuda(:\d+)?", wanted) and torch.cuda.is_available()):
        raise UsageError(f"device is auto, cpu, cuda or cuda:N, and torch must see it, found {wanted!r}; see genbench doctor")
    return torch.device(wanted)


# -- random streams ------------------------------------------------------------------------------------------------------------------


Redraw = Callable[[NDArray[np.int64], np.random.Generator], NDArray[Any]]


class Batches:
    """Minibatches by the step's number: a seeded permutation per epoch, one after the other, cut into equal parts.

    Args:
        rows: (n, ...) training rows.
        size: of a batch; may be larger than n.
        seed: of the order and of fresh draws.
        redraw: (index, rng) -> rows: draws rows anew each time they enter a batch; see TrainingData.
    """

    def __init__(self, rows: NDArray[Any], size: int, seed: int, redraw: Redraw | None = None) -> None:
        if len(rows) == 0:
            raise DataError("there is nothing to train on; give at least one row")
        self.rows, self.size, self.seed, self.redraw = rows, size, seed, redraw
        self._orders: dict[int, NDArray[np.int64]] = {}

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = generator(self.seed, _ORDER, epoch).permutation(len(self.rows))
        return self._orders[epoch]

    def index(self, i: int) -> NDArray[np.int64]:
        """Numbers of the rows of batch i, (size,)."""
        n, first, last = len(self.rows), i * self.size, (i + 1) * self.size
        return np.concatenate([self._order(e)[max(0, first - e * n) : last - e * n] for e in range(first // n, (last - 1) // n + 1)])

    def __call__(self, i: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Batch i and the numbers of its rows."""
        index = self.index(i)
        if self.redraw is None:
            return self.rows[index], index
        return self.redraw(index, generator(self.seed, _NOISE, i)), index


def as_tensor(rows: NDArray[Any], where: "torch.device | None" = None) -> "Tensor":
    """Rows on the device: uint8 and whole numbers as they are, floats as float32."""
    import torch

    rows = np.ascontiguousarray(rows, np.float32 if rows.dtype.kind == "f" else None)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(where or device())


# -- the loop ------------------------------------------------------------------------------------------------------------------------


@dataclass
class Step:
    """What one step of training is given.

    Args:
        i: its number, from 0.
        x: (batch, ...) training rows on the device: uint8 images, float32 vectors.
        index: (batch,) their numbers in the training split.
        labels: (batch,) int64 classes on the device; None where there are none.
        rng: NumPy's generator of (seed, i); torch's own generators are seeded by (seed, i) too.
        rate: share of `lr` at this step; the optimisers have it already.
    """

    i: int
    x: "Tensor"
    index: NDArray[np.int64]
    labels: "Tensor | None"
    rng: np.random.Generator
    rate: float
    _optimisers: "Mapping[str, Optimizer]" = field(repr=False)
    _clip: float = field(repr=False)

    def update(self, loss: "Tensor", name: str | None = None) -> None:
        """Move one optimiser's weights: clear their gradients, go backward from the loss, clip, step.

        Args:
            loss: a scalar.
            name: of the optimiser; None where there is only one.
        """
        import torch

        optimiser = self._optimisers[name] if name is not None else _only(self._optimisers)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
        if self._clip:
            torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], self._clip)
        optimiser.step()
        torch.clear_autocast_cache()  # a second loss of the same step must see the new weights


def _only(optimisers: "Mapping[str, Optimizer]") -> "Optimizer":
    if len(optimisers) != 1:
        raise UsageError(f"update(loss, name) needs the name of one of several optimisers: {', '.join(optimisers) or 'there are none'}")
    return next(iter(optimisers.values()))


@dataclass(frozen=True)
class Fitted:
    """What training took.

    Args:
        steps: done.
        seconds: of training, those before an interruption included.
        curve: mean losses over time: one dict per row, with step, seconds and the losses' names.
    """

    steps: int
    seconds: float
    curve: tuple[dict[str, float], ...]


class Stopped(BaseException):
    """Training was told to stop before its end (`Session.stop_after`); no error, so that it passes every handler."""


def fit(
    step: "Callable[[Step], Mapping[str, Any]]",
    config: Config,
    data: TrainingData | NDArray[Any],
    *,
    modules: "Mapping[str, nn.Module]",
    optimisers: "Mapping[str, Optimizer] | None" = None,
    seed: int,
    out: Path | None = None,
    average: Sequence[str] | None = None,
    name: str | None = None,
) -> Fitted:
    """Call `step` config.steps times; afterwards the modules hold the trained (averaged) weights and are in evaluation mode.

    Args:
        step: one step: compute losses on `now.x`, call `now.update(loss)` (a GAN once per optimiser, a manual update not at all), return
            the losses by name, as numbers or scalar tensors.
        config: the settings.
        data: the training split is used, drawn anew where the data say so; or any (n, ...) array, e.g. codes of another model.
        modules: everything that is learnt or kept between steps (as parameters or buffers), by name.
        optimisers: by name; their learning rates are multiplied by the schedule. None for updates by hand.
        seed: of everything random.
        out: folder for the state and the curve; None for neither. A state that is found there is continued.
        average: modules that have a moving average of weights; None for all. Only with config.ema above 0.
        name: of this training within `out`, where a model has several (an encoder, then a prior): then each has a name.

    Raises:
        FailedError: a loss is NaN or infinite; names the step and the settings.
        UsageError: the folder holds the state of other settings, another seed or other data.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
    """
    import torch

    how, where = _session.get(), device()
    optimisers = dict(optimisers or {})
    what = type(config).__module__.rpartition(".")[2] + (f" {name}" if name else "")
    source = data if isinstance(data, TrainingData) else None
    rows = np.asarray(data) if source is None else read_all(source.train)
    batches = Batches(rows, config.batch, seed, None if source is None else source.redraw)
    labels = None if source is None or source.train.labels is None else as_tensor(np.asarray(source.train.labels, np.int64), where)
    base = {key: [g["lr"] for g in o.param_groups] for key, o in optimisers.items()}
    averaged = () if not config.ema else modules if average is None else average
    means = {key: kept for key in averaged if (kept := [p.detach().clone() for p in modules[key].parameters()])}
    log = _Log(config, what, how.progress)
    state = None
    if out is not None and how.parts is None:
        about = {"config": config.to_dict(), "seed": seed, "data": "array" if source is None else source.name, "rows": _digest(rows)}
        state = _State(Path(out) / name if name else Path(out), about, modules, optimisers, means, log)
        state.load()
    for module in modules.values():
        module.train()
    limit = how.stop_after if how.stop_after is None or how.parts is None else min(how.stop_after, config.steps)
    saved, marks = time.monotonic(), [time.perf_counter()]
    with seeded(seed, _STEP), _interrupts() as stop:
        for i in range(log.done, config.steps):
            reseed(seed, _STEP, i)
            rate = config.rate(i)
            for key, optimiser in optimisers.items():
                for group, lr in zip(optimiser.param_groups, base[key], strict=True):
                    group["lr"] = lr * rate
            x, index = batches(i)
            classes = None if labels is None else labels[torch.from_numpy(index).to(where)]
            now = Step(i, as_tensor(x, where), index, classes, generator(seed, _STEP, i), rate, optimisers, config.clip)
            with torch.autocast(where.type, torch.bfloat16, enabled=config.bf16):
                losses = step(now)
            for key, kept in means.items():
                torch._foreach_lerp_(kept, [p.detach() for p in modules[key].parameters()], 1 - min(config.ema, (1 + i) / (10 + i)))
            log.add(i, losses, look=where.type == "cpu")
            if stop:
                if state is not None:
                    state.save()
                kept_at = f"the state is in {state.folder}, the same command goes on from it" if state is not None else "nothing was kept"
                print(f"\ngenbench: {what}: stopped after step {i + 1:,} of {config.steps:,}; {kept_at}", file=sys.stderr)
                raise KeyboardInterrupt
            if limit is not None:
                marks.append(time.perf_counter())
                if len(marks) > limit:
                    log.flush()
                    if how.parts is not None:
                        timed = marks[1:] if limit > 1 else marks  # the very first step is left out
                        how.parts.append(Part((time.perf_counter() - timed[0]) / (len(timed) - 1), config.steps))
                        if name:  # the next part is measured too
                            break
                    if state is not None:
                        state.save()
                    raise Stopped
            if state is not None and time.monotonic() - saved > how.save_every:
                state.save()
                saved = time.monotonic()
        log.flush()
        if state is not None:
            state.save()
    with torch.no_grad():
        for key, kept in means.items():
            for p, mean in zip(modules[key].parameters(), kept, strict=True):
                p.copy_(mean)
    for module in modules.values():
        module.eval()
    return Fitted(log.done, log.seconds, tuple(log.curve))


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that gets an entry at SIGINT or SIGTERM, so that a step is never torn in two; the second signal acts at once."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(number, before[number])

    before = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """Losses: means for the curve, the last ones for the progress line, and the guard against NaN."""

    def __init__(self, config: Config, what: str, progress: Progress | None) -> None:
        self.config, self.what, self.progress = config, what, progress
        self.curve: list[dict[str, float]] = []
        self.done = 0
        self._before, self._started = 0.0, time.perf_counter()
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._sums: dict[str, list[float]] = {}

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def resume(self, done: int, seconds: float, curve: list[dict[str, float]], sums: dict[str, list[float]]) -> None:
        self.done, self._before, self._started = done, seconds, time.perf_counter()
        self.curve, self._sums = curve, sums

    @property
    def sums(self) -> dict[str, list[float]]:
        return self._sums

    def add(self, i: int, losses: Mapping[str, Any], look: bool) -> None:
        self._waiting.append((i, {k: v.detach() if hasattr(v, "detach") else v for k, v in losses.items()}))
        self.done = i + 1
        if look or len(self._waiting) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Look at the losses that wait: refuse NaN and infinity, add a row to the curve at its steps."""
        stride = max(1, self.config.steps // POINTS)
        for i, losses in self._waiting:
            for key, value in losses.items():
                value = float(value)
                if not math.isfinite(value):
                    settings = ", ".join(f"{k} {v}" for k, v in self.config.to_dict().items())
                    raise FailedError(
                        f"{self.what}: the loss {key!r} is {value} at step {i:,} of {self.config.steps:,} ({settings}); lower lr, "
                        "set clip, or leave bf16 off"
                    )
                total = self._sums.setdefault(key, [0.0, 0.0])
                total[0], total[1] = total[0] + value, total[1] + 1
            if (i + 1) % stride == 0 or i + 1 == self.config.steps:
                row = {"step": float(i + 1), "seconds": round(self.seconds, 3)}
                self.curve.append(row | {key: total / count for key, (total, count) in self._sums.items()})
                self._sums = {}
        if self._waiting and self.progress is not None:
            last = self._waiting[-1][1]
            note = ", ".join(f"{key} {float(value):.4g}" for key, value in last.items())
            self.progress(f"training {self.what}", self.done, self.config.steps, note)
        self._waiting = []

    def csv(self) -> str:
        names = list(dict.fromkeys(key for row in self.curve for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: int(v) if k == "step" else v for k, v in row.items()} for row in self.curve)
        return text.getvalue()


# -- resuming ------------------------------------------------------------------------------------------------------------------------


def _digest(rows: NDArray[Any]) -> str:
    return hashlib.blake2b(f"{rows.dtype}{rows.shape}".encode() + np.ascontiguousarray(rows).tobytes(), digest_size=16).hexdigest()


class _State:
    """A training in one file: safetensors, with everything that is no tensor as JSON in its header; whole or not there."""

    def __init__(
        self,
        folder: Path,
        about: dict[str, Any],
        modules: "Mapping[str, nn.Module]",
        optimisers: "Mapping[str, Optimizer]",
        means: "Mapping[str, list[Tensor]]",
        log: _Log,
    ) -> None:
        self.folder, self.about = folder, about
        self._modules, self._optimisers, self._means, self._log = modules, optimisers, means, log

    @property
    def path(self) -> Path:
        return self.folder / STATE

    def save(self) -> None:
        """Write the state and the curve, once all losses so far are known to be finite."""
        from safetensors.numpy import save

        self._log.flush()
        tensors: dict[str, Any] = {f"module/{m}/{k}": v for m, module in self._modules.items() for k, v in module.state_dict().items()}
        tensors |= {f"mean/{m}/{k}": v for m, kept in self._means.items() for k, v in enumerate(kept)}
        numbers: dict[str, Any] = {}
        for o, optimiser in self._optimisers.items():
            for p, entries in optimiser.state_dict()["state"].items():
                for k, v in entries.items():
                    (tensors if hasattr(v, "detach") else numbers)[f"optimiser/{o}/{p}/{k}"] = v
        log = self._log
        header = {
            "format": FORMAT,
            "about": self.about,
            "step": log.done,
            "seconds": log.seconds,
            "curve": log.curve,
            "sums": log.sums,
            "numbers": numbers,
        }
        arrays = {k: v.detach().cpu().contiguous().numpy() for k, v in tensors.items()}
        write_atomic(self.path, save(arrays, {"genbench": json.dumps(header)}))
        write_atomic(self.folder / CURVE, log.csv().encode())

    def load(self) -> None:
        """Go on from the state in the folder, if there is one.

        Raises:
            UsageError: it is that of another training.
            DataError: it is damaged.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return
        again = f"delete {self.path} to start again, or choose another folder"
        try:
            with safe_open(str(self.path), "np") as file:
                header = json.loads((file.metadata() or {}).get("genbench", "{}"))
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError, OSError) as e:
            raise DataError(f"{self.path}: not a readable training state ({e}); {again}") from e
        if header.get("format") != FORMAT:
            raise DataError(f"{self.path}: expected a training state of format {FORMAT}, found {header.get('format')}; {again}")
        if header["about"] != self.about:
            raise UsageError(f"{self.path} is the state of another training: {_difference(header['about'], self.about)}; {again}")
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        try:
            for m, module in self._modules.items():
                module.load_state_dict(_under(tensors, f"module/{m}/"))
            with torch.no_grad():
                for m, kept in self._means.items():
                    for k, mean in enumerate(kept):
                        mean.copy_(tensors[f"mean/{m}/{k}"])
            for o, optimiser in self._optimisers.items():
                entries: dict[int, dict[str, Any]] = {}
                for key, value in (_under(tensors, f"optimiser/{o}/") | _under(header["numbers"], f"optimiser/{o}/")).items():
                    place, _, entry = key.partition("/")
                    entries.setdefault(int(place), {})[entry] = value
                optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
        except (RuntimeError, KeyError, ValueError) as e:
            raise UsageError(f"{self.path} does not fit this version of the model ({str(e).splitlines()[0]}); {again}") from e
        self._log.resume(header["step"], header["seconds"], header["curve"], header["sums"])
        if header["step"] < self._log.config.steps:
            print(f"genbench: {self._log.what}: going on after step {header['step']:,} of {self._log.config.steps:,}", file=sys.stderr)


def _under(entries: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    flat = [{**side, **{f"setting {k}": v for k, v in side["config"].items()}} for side in (found, wanted)]
    keys = [k for k in dict.fromkeys([*flat[1], *flat[0]]) if k != "config" and flat[0].get(k) != flat[1].get(k)]
    return "; ".join(f"expected {k} {flat[1].get(k)}, found {flat[0].get(k)}" for k in keys)


def discard(out: Path) -> None:
    """Delete the states of finished trainings under a folder; the curves stay."""
    for path in Path(out).rglob(STATE):
        path.unlink()


# -- budgets -------------------------------------------------------------------------------------------------------------------------


def time_of_parts(train: Callable[[], Any], count: int = 13) -> list[Part]:
    """Mean time of a step over the first few, the very first left out, of every part of a training; none where `train` never called fit.

    Args:
        train: trains; is stopped by the probe. Of several parts the later ones are measured on what the first steps of the earlier made.
        count: steps of a part.
    """
    parts: list[Part] = []
    try:
        with session(stop_after=count, parts=parts, progress=None):
            train()
    except Stopped:
        pass
    return parts


# -- models --------------------------------------------------------------------------------------------------------------------------


class TorchModel(models.Model):
    """Base of a trained net.

    A subclass says how the net is built (`build`), how a shard is drawn (`draw`) and, where it has a likelihood, its `bound` and
    `log_prob_rows`. Weights are float32 and the checkpoint is the same from any device.

    A class-conditional model has the constants of `class_constants`. It learns p(x | y), draws y by the classes' shares π of the training
    split, and is the mixture p(x) = Σ_y π_y p(x | y): `draw` and `log_prob_rows` are then called on `given(...)` and find the classes of
    their rows in `condition`.

    Args:
        config: the settings.
        shape: of one sample.
        net: from `build`.
        constants: arrays that belong to the model but are not learnt by its optimiser, e.g. the grey values.
        about: notes and chosen, as for Model.
    """

    ROUNDING: ClassVar[float] = 1e-6  # float32
    BATCH: ClassVar[int] = 256  # rows per forward in log_prob; a last batch is filled up, so that no result depends on its batch mates

    def __init__(
        self, config: Any, shape: tuple[int, ...], net: "nn.Module", constants: Mapping[str, NDArray[Any]] | None = None, **about: Any
    ) -> None:
        super().__init__(config, shape, **about)
        self.device = device()
        self.net = net.to(self.device).eval()
        self.constants = dict(constants or {})
        self.condition: Tensor | None = None

    # -- classes -------------------------------------------------------------------------------------------------------------------

    def given(self, labels: "Tensor | NDArray[np.int64] | None") -> Self:
        """This model told the classes of the rows that come: `condition` is their one-hot form, (n, C). Itself if it is not conditional.

        Raises:
            DataError: a conditional model without labels, or a class that it does not know.
        """
        import torch
        from torch.nn.functional import one_hot

        if "classes" not in self.constants:
            return self
        if labels is None:
            raise DataError("a class-conditional model needs the class of every sample, found no labels; give some, or conditional=false")
        known = torch.from_numpy(self.constants["classes"]).to(self.device)
        wanted = torch.as_tensor(labels).to(self.device)
        place = torch.searchsorted(known, wanted.contiguous()).clamp(max=len(known) - 1)
        if (known[place] != wanted).any():
            raise DataError(f"the model knows the classes {known.tolist()[:20]}, found {wanted[known[place] != wanted][0]}")
        return self.conditioned(one_hot(place, len(known)).float())

    def conditioned(self, condition: "Tensor") -> Self:
        """This model with a condition of its own, (n, C)."""
        made = copy.copy(self)
        made.condition = condition
        return made

    def shard_labels(self, index: int, seed: int) -> NDArray[np.int64] | None:
        if "classes" not in self.constants:
            return None
        return generator(seed, index, _CLASSES).choice(self.constants["classes"], self.SHARD, p=self.constants["shares"])

    def pieces(self, n: int, *, seed: int) -> Iterator[tuple[slice, Self]]:
        """n samples in shards: which they are, and this model given their classes."""
        labels = self.sample_labels(n, seed=seed)
        for a in range(0, n, self.SHARD):
            rows = slice(a, min(a + self.SHARD, n))
            yield rows, self.given(None if labels is None else labels[rows])

    # -- from net to model and back ------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def build(cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]]) -> "nn.Module":
        """The net with fresh weights, drawn from torch's own generator, which is seeded."""

    @classmethod
    def new(
        cls, config: Any, shape: tuple[int, ...], constants: Mapping[str, NDArray[Any]] | None = None, *, seed: int, **about: Any
    ) -> Self:
        """An untrained model whose weights depend on the seed alone."""
        with seeded(seed, _WEIGHTS):
            net = cls.build(config, shape, constants or {})
        return cls(config, shape, net, constants, **about)

    def trained(self, *fitted: Fitted) -> Self:
        """This model, which now knows what its training took."""
        self.seconds = sum(f.seconds for f in fitted)
        return self

    def draw(self, n: int, rng: "torch.Generator") -> "Tensor | NDArray[Any]":
        """n samples: grey values or coordinates, (n, *shape). All noise comes from `rng`, on the CPU: torch.rand(..., generator=rng)."""
        raise NotImplementedError

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        """log p, or its bound, of BATCH rows on the device, (BATCH,); rows are as in `Step.x`. The sum of conditionals where there are."""
        return self.conditionals_rows(x).double().sum(dim=1)

    def shard(self, index: int, seed: int) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            found = self.given(self.shard_labels(index, seed)).draw(self.SHARD, torch_generator(seed, index))
        x = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else found
        return np.asarray(x.reshape(self.SHARD, *self.shape), np.uint8 if len(self.shape) == 3 else np.float64)

    def log_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log p(x) in nats, (n,): every row as if it were alone."""
        return super().log_prob(x) if self.bound is None else self.mixed(lambda model, rows: model.log_prob_rows(rows), x)

    def mixed(self, log_p: "Callable[[Self, Tensor], Tensor]", x: NDArray[Any]) -> NDArray[np.float64]:
        """log Σ_y π_y p(x | y) of a conditional model, log p(x) of any other, (n,).

        Lower bounds by draws whose weights are unbiased for p(x | y), as IWAE's are, give one of log p(x). Those whose logarithm is
        unbiased do not: the logarithm of a sum of what is noisy lies too high.

        Args:
            log_p: (the model given the rows' class, BATCH rows on the device) -> log p(x | y), (BATCH,).
            x: rows.
        """
        from scipy.special import logsumexp

        if "classes" not in self.constants:
            return self.by_batch(lambda rows: log_p(self, rows), x)
        told = [self.given(np.full(self.BATCH, y)) for y in self.constants["classes"]]
        each = [self.by_batch(partial(log_p, model), x) for model in told]
        return np.asarray(logsumexp(np.stack(each, axis=1) + np.log(self.constants["shares"]), axis=1))

    def conditionals_rows(self, x: "Tensor") -> "Tensor":
        """Autoregressive models: log p of every part given those before it, (BATCH, parts), in the order in which parts are drawn."""
        raise NotImplementedError

    @property
    def parts(self) -> NDArray[np.int64]:
        """Autoregressive models: number of the part that every coordinate belongs to, (dims,): which parts are drawn before it."""
        return np.arange(self.dims)

    @property
    def autoregressive(self) -> bool:
        """Whether log p falls into conditionals; that of a mixture over classes does not."""
        return type(self).conditionals_rows is not TorchModel.conditionals_rows and "classes" not in self.constants

    def conditionals(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log p of every part given those before it, (n, parts), in the order in which parts are drawn."""
        if not self.autoregressive:
            raise UsageError(f"{type(self).__module__.rpartition('.')[2]} is not autoregressive; it has no conditionals")
        return self.by_batch(self.conditionals_rows, x)

    def by_batch(self, function: "Callable[[Tensor], Tensor]", x: NDArray[Any]) -> NDArray[np.float64]:
        """A function of BATCH rows on the device, for any number of rows."""
        import torch

        x = self.check_rows(x)
        parts = []
        with torch.no_grad():
            for a in range(0, max(len(x), 1), self.BATCH):
                rows = x[a : a + self.BATCH]
                fill = np.zeros((self.BATCH - len(rows), *self.shape), x.dtype) + (x[:1] if len(x) else 0)
                found = function(as_tensor(np.concatenate([rows, fill.astype(x.dtype)]), self.device))
                parts.append(found.double().cpu().numpy()[: len(rows)])
        return np.concatenate(parts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        weights = {f"net.{key}": value.detach().cpu().numpy() for key, value in self.net.state_dict().items()}
        return weights | self.constants

    @classmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> Self:
        import torch

        constants = {key: value for key, value in arrays.items() if not key.startswith("net.")}
        model = cls.new(config, shape, constants, seed=0)
        state = {key: torch.from_numpy(np.array(value)) for key, value in _under(arrays, "net.").items()}
        try:
            model.net.load_state_dict(state)
        except RuntimeError as e:
            raise DataError(f"the weights do not fit the net of these settings ({str(e).splitlines()[0]}); train the baseline again") from e
        return model

    @property
    def nfe(self) -> int:
        """One pass, or what costs no more: an autoregressive net that computes every feature once."""
        return 1

    @property
    def parameters(self) -> int:
        """Number of learnt weights."""
        return sum(p.numel() for p in self.net.parameters())


def grey_constants(data: TrainingData) -> dict[str, NDArray[Any]]:
    """The constants of a GreyModel: the grey values of the training split.

    Raises:
        DataError: the data are vectors, or all pixels are equal.
    """
    if not data.images:
        raise DataError(f"this is a model of grey values, {data.name} has vectors; leave it out")
    values = models.levels(read_all(data.train))
    if len(values) < 2:
        raise DataError(f"{data.name}: all pixels have one grey value, there is nothing to learn; leave this baseline out")
    return {"values": values}


def class_constants(data: TrainingData) -> dict[str, NDArray[Any]]:
    """The constants of a class-conditional model: classes (C,) int64 of the training split and their shares (C,) float64.

    Raises:
        DataError: there are no labels.
    """
    if data.train.labels is None:
        raise DataError(f"{data.name} has no labels, which a class-conditional model needs; give some, or leave it out")
    classes, counts = np.unique(np.asarray(data.train.labels, np.int64), return_counts=True)
    return {"classes": classes, "shares": counts / counts.sum()}


def class_count(constants: Mapping[str, NDArray[Any]]) -> int:
    """How many classes a model's constants know; 0 of a model that is not conditional."""
    return len(constants.get("classes", ()))


def patched(shape: tuple[int, ...], patch: int) -> tuple[int, int, int]:
    """The shape of images (c, h, w) whose patches are places of their own: (c · patch², h / patch, w / patch), as pixel_unshuffle makes it.

    Raises:
        UsageError: patches do not fill the image.
    """
    c, h, w = shape
    if h % patch or w % patch:
        raise UsageError(f"patch divides height and width of the images, found a patch of {patch} and images of {h} × {w}")
    return c * patch**2, h // patch, w // patch


def standard_constants(data: TrainingData) -> dict[str, NDArray[Any]]:
    """Mean and standard deviation of every coordinate of the training split: shift (d,) and scale (d,) float32.

    Raises:
        DataError: a coordinate is constant.
    """
    rows = read_all(data.train)
    scale = rows.std(axis=0)
    if not (scale > 0).all():
        raise DataError(f"{data.name}: coordinate {int(np.argmin(scale))} is constant, it has no density; leave it out")
    return {"shift": rows.mean(axis=0).astype(np.float32), "scale": scale.astype(np.float32)}


class GreyModel(TorchModel):
    """Base of a trained net that gives masses to grey values. constants: values (L,) uint8 from `grey_constants`."""

    @property
    def levels(self) -> int:
        """L, the number of grey values."""
        return len(self.constants["values"])

    def ranks(self, x: "Tensor") -> "Tensor":
        """Grey values as their ranks 0 ... L − 1, of the same shape."""
        import torch

        values = torch.from_numpy(self.constants["values"]).to(x.device)
        found = torch.searchsorted(values, x.contiguous()).clamp(max=len(values) - 1)
        if (values[found] != x).any():
            raise DataError(f"the model knows {len(values)} grey values, the images have others; quantise them as the training data are")
        return found

    def scaled(self, ranks: "Tensor") -> "Tensor":
        """Ranks as a net's inputs, in [0, 1]: black pixels, often most of them, say nothing."""
        return ranks.float() / (self.levels - 1)

    def greys(self, ranks: "Tensor") -> NDArray[np.uint8]:
        """Grey values of ranks."""
        return np.asarray(self.constants["values"][ranks.cpu().numpy()])

    def between(self, ranks: "Tensor") -> NDArray[np.float32]:
        """Grey levels of ranks that are not whole, on straight lines between the known values: for `latent_pairs`, whose neighbours
        rounding would make equal."""
        return np.interp(ranks.double().cpu().numpy(), np.arange(self.levels), self.constants["values"]).astype(np.float32)

    # -- square patches as the parts of an image -----------------------------------------------------------------------------------

    def patch_of_pixels(self, side: int) -> NDArray[np.int64]:
        """Number of the patch in raster order that every pixel belongs to, (dims,)."""
        c, h, w = self.shape
        rows, columns = np.divmod(np.arange(h * w), w)
        return np.tile(rows // side * (w // side) + columns // side, c)

    def joined(self, patches: "Tensor") -> "Tensor":
        """Ranks (n, k, ...) of the k values of a patch as one number below Lᵏ, the first value counting least, (n, ...)."""
        import torch

        powers = self.levels ** torch.arange(patches.shape[1], device=patches.device)
        return (patches * powers.reshape(-1, *[1] * (patches.ndim - 2))).sum(dim=1)

    def apart(self, numbers: "Tensor", k: int) -> "Tensor":
        """The inverse of `joined`: (n, ...) to (n, k, ...)."""
        import torch

        powers = self.levels ** torch.arange(k, device=numbers.device)
        return numbers[:, None] // powers.reshape(-1, *[1] * (numbers.ndim - 1)) % self.levels
