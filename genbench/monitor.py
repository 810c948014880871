"""The training-loop form of an evaluation: the same numbers as the folder form, for any split into batches."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.errors import DataError
from genbench.evaluation import Engine, Progress, forward, make_plan, open_cache, stack, statistics_file
from genbench.protocol import Protocol
from genbench.protocol import protocol as named
from genbench.run import Run
from genbench.samples import Samples, as_rows, digests_of, open_samples
from genbench.statistics import Moments


class _Seen(Samples):
    """What a Monitor remembers of the samples it was given: digests, not pixels."""

    def __init__(self, shape: tuple[int, ...], digests: NDArray[np.uint8]) -> None:
        super().__init__("monitor", shape)
        self._found = digests

    def __len__(self) -> int:
        return len(self._found)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        raise DataError("a Monitor keeps features, not samples; name the extractors of its metrics when it is made")

    def digests(self) -> NDArray[np.uint8]:
        return self._found


class Monitor:
    """Scores batches as they come.

    Args:
        reference: a dataset, any samples, or a statistics file.
        metrics: specs, e.g. ["fid", "kid@pixels"].
        extractor: None for the protocol's, or the reference dataset's own.
        train: what the model was fitted on.
        test: held-out data.
        protocol: a named protocol, or one made by hand.
        preprocess: resizing mode.
        weights: file with the extractor's weights.
        seed: of every draw.
        device: "auto", "cpu", "cuda" or "openvino".
        cache: for the reference's features.
        value_range: (low, high) of float images; needed for them, since one batch cannot tell.
        download: fetch missing data and weights.
        progress: called with (what, done, total) while the reference is extracted.

    Example:
        >>> import numpy as np, genbench
        >>> rng = np.random.default_rng(0)
        >>> monitor = genbench.Monitor(reference=rng.normal(size=(200, 2)), metrics=["fid"], cache=None)
        >>> for batch in np.split(rng.normal(size=(200, 2)), 4):
        ...     monitor.update(batch)
        >>> monitor.compute()["fid"].n
        200
    """

    def __init__(
        self,
        reference: Any = None,
        *,
        metrics: Sequence[str] | None = None,
        extractor: str | None = None,
        train: Any = None,
        test: Any = None,
        protocol: str | Protocol | None = None,
        preprocess: str | None = None,
        weights: str | Path | None = None,
        seed: int | None = None,
        device: str = "auto",
        cache: str | Path | None = "auto",
        value_range: tuple[float, float] | None = None,
        download: bool = False,
        progress: Progress | None = None,
    ) -> None:
        base = named(protocol) if isinstance(protocol, str) else protocol
        source = reference if reference is not None else base.reference if base else None
        if source is None:
            raise DataError("a reference is needed: a dataset such as mnist, any samples, or a statistics file with mu and sigma")
        seed = seed if seed is not None else base.seed if base else 0
        self._value_range = value_range
        moments = statistics_file(source)
        self._ref: Samples | Moments = moments if moments is not None else open_samples(source, seed=seed, download=download)
        self._plan = make_plan(base, self._ref, metrics, extractor, preprocess, None, seed, isinstance(protocol, str))
        self._others = {
            role: open_samples(x, seed=seed, download=download) for role, x in (("train", train), ("test", test)) if x is not None
        }
        self._settings: dict[str, Any] = {
            "device": device,
            "weights": weights,
            "cache": open_cache(cache),
            "download": download,
            "progress": progress,
        }
        self._engine: Engine | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the samples seen so far; the reference's features are kept."""
        self._digests: list[NDArray[np.uint8]] = []
        self._waiting: dict[str, NDArray[Any]] = {}  # extractor -> rows that do not fill a forward batch yet
        self._outputs: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return sum(len(d) for d in self._digests)

    def _ready(self, shape: tuple[int, ...]) -> Engine:
        if self._engine is None:
            samples: dict[str, Samples] = {"gen": _Seen(shape, np.empty((0, 16), np.uint8)), **self._others}
            if isinstance(self._ref, Samples):
                samples["ref"] = self._ref
            self._engine = Engine(samples, self._ref if isinstance(self._ref, Moments) else None, self._plan, **self._settings)
        found = self._engine.samples["gen"].shape
        if found != shape:
            raise DataError(f"expected samples of shape {found} as before, found {shape}")
        return self._engine

    def _names(self) -> list[str]:
        return list(dict.fromkeys(self._plan.extractor_of(s) for s in self._plan.specs))

    def update(self, batch: Any) -> None:
        """Add a batch: uint8 images (n, c, h, w), float images with `value_range`, or float vectors (n, d); array or tensor.

        Raises:
            DataError: another shape than before, float images without `value_range`, or a value that is not finite.
        """
        rows = as_rows(batch, value_range=self._value_range)
        if len(rows) == 0:
            return
        engine = self._ready(rows.shape[1:])
        for name in self._names():
            extractor = engine.extractor(name)
            waiting = np.concatenate([self._waiting[name], rows]) if name in self._waiting else rows
            whole = len(waiting) // extractor.batch * extractor.batch
            self._outputs.setdefault(name, []).extend(forward(extractor, waiting[:whole]))
            self._waiting[name] = waiting[whole:].copy()
        self._digests.append(digests_of(rows))

    def merge(self, other: "Monitor") -> None:
        """Add what another Monitor has seen, after what this one has seen.

        Raises:
            DataError: the other one measures something else.
        """
        if other._plan.hash != self._plan.hash:
            raise DataError(f"Monitors merge when their protocols are equal, found {self._plan.hash} and {other._plan.hash}")
        if not len(other):
            return
        assert other._engine is not None
        engine = self._ready(other._engine.samples["gen"].shape)
        for name in self._names():
            mine = self._outputs.setdefault(name, [])
            mine.extend(forward(engine.extractor(name), self._waiting.pop(name, np.empty(0))))
            mine.extend(other._outputs.get(name, []))
            self._waiting[name] = other._waiting[name]
        self._digests += other._digests

    def compute(self) -> Run:
        """The evaluation of everything seen so far.

        Raises:
            DataError: nothing was seen.
        """
        started = time.perf_counter()
        if self._engine is None or not len(self):
            raise DataError("a Monitor has nothing to score yet; call update(batch) first")
        seen = _Seen(self._engine.samples["gen"].shape, np.concatenate(self._digests))
        outputs = {n: [*self._outputs[n], *forward(self._engine.extractor(n), self._waiting[n])] for n in self._names()}
        self._engine.give("gen", seen, {n: stack(found) for n, found in outputs.items()})
        return self._engine.run(started)
