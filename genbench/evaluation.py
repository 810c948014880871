"""The only orchestration: plan -> extract shards -> merge in shard order -> metrics -> Run."""

import dataclasses
import hashlib
import time
import warnings as _warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from genbench import cache as _cache
from genbench import likelihood as _likelihoods
from genbench import parallel, registry
from genbench import protocol as _protocol
from genbench import run as _run
from genbench.archives import zip_directory
from genbench.cache import Cache
from genbench.errors import DataError, MissingError, UsageError
from genbench.estimate import Detail, Estimate, Undefined
from genbench.extractor import RUNTIMES, runtime_version
from genbench.metric import Metric, MetricSpec, check_settings
from genbench.protocol import Protocol
from genbench.run import Run
from genbench.samples import Samples, open_samples, subset
from genbench.statistics import Features, LatentPath, Law, LogLikelihood, Moments, Probabilities, Reconstructions

if TYPE_CHECKING:
    from genbench.extractor import Extractor, InnerLayer, Outputs

GRID = 32  # pairs that are shown as images
COLUMNS = 1 << 20  # of long rows that are subtracted at once
PAIRED = 1 << 24  # numbers of one side's rows that are held at once where only distances of pairs are wanted: 64 MB
DEFAULT_METRICS = ("fid", "kid", "inception_score", "prdc")
Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as samples are extracted."""
_Pass = Callable[[NDArray[Any]], tuple["Outputs", ...]]


def evaluate(
    gen: Any,
    reference: Any = None,
    *,
    train: Any = None,
    test: Any = None,
    likelihood: str | Path | LogLikelihood | None = None,
    metrics: Sequence[str] | None = None,
    extractor: str | None = None,
    protocol: str | Protocol | None = None,
    preprocess: str | None = None,
    weights: str | Path | None = None,
    n: int | None = None,
    seed: int | None = None,
    on_bad: str = "error",
    device: str = "auto",
    cache: str | Path | None = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    value_range: tuple[float, float] | None = None,
    layout: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Score generated samples against a reference.

    Args:
        gen: the samples to judge: a folder, archive, array file, array, tensor, Dataset, callable f(n, seed), a trained
            baseline's run folder, or a dataset split.
        reference: a dataset ("mnist", "mnist/test"), any samples, or a statistics file (.npz with mu and sigma). None for the
            protocol's own.
        train: what the model was fitted on; the memorisation metrics need it.
        test: held-out data.
        likelihood: the model's log-likelihoods of held-out data, computed elsewhere: a file (see `genbench.likelihood.load`) or a
            LogLikelihood. A trained baseline's are computed here.
        metrics: specs such as "fid", "kid:subsets=100", "prdc@pixels"; ["all"] for every one; None for the protocol's, or the default
            ones.
        extractor: what maps samples to features; None for the protocol's, or the reference dataset's own.
        protocol: a named protocol, or one made by hand.
        preprocess: resizing mode of the extractor; None for its default.
        weights: file with the extractor's weights.
        n: number of generated samples: a seeded subset where there are more.
        seed: of every draw.
        on_bad: "error" lists all bad files and stops; "skip" leaves them out, counted and listed in the record.
        device: "auto", "cpu", "cuda" or "openvino".
        cache: folder for extracted features; "auto" for the user's cache folder, None for no cache.
        workers: reader threads, one per core where None; no effect on any number.
        batch_size: samples that are read at once; no effect on any number (the forward batch is the protocol's).
        value_range: (low, high) of float images; guessed and reported where None.
        layout: "nchw" or "nhwc", where an array of images could be either.
        download: fetch missing data sets and weights.
        progress: called with (what, done, total).

    Returns:
        A Run: `run["fid"].value`, `.low`, `.high`; `run.to_pandas()`; `run.to_json()`.

    Raises:
        UsageError: a mistyped name or setting.
        DataError: samples that cannot be scored.
        MissingError: data, weights or a package that is not there.

    Example:
        >>> import numpy as np, genbench
        >>> rng = np.random.default_rng(0)
        >>> run = genbench.evaluate(rng.normal(size=(500, 2)), reference=rng.normal(size=(500, 2)), metrics=["fid"], cache=None)
        >>> bool(run["fid_debiased"].low < 0 < run["fid_debiased"].high)
        True
    """
    started = time.perf_counter()
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, found {batch_size}")
    options = {"on_bad": on_bad, "value_range": value_range, "layout": layout, "workers": workers, "download": download}
    plan, moments, shared = plan_of(reference, protocol, metrics, extractor, preprocess, n, seed, options)
    samples = {"gen": take(gen, plan.n, plan, options), **shared, **opened_roles({"train": train, "test": test}, plan.seed, options)}
    engine = Engine(
        samples,
        moments,
        plan,
        device=device,
        weights=weights,
        cache=open_cache(cache),
        workers=workers or 1,
        chunk=batch_size or plan.shard,
        download=download,
        progress=progress,
        likelihood=_likelihoods.load(likelihood) if isinstance(likelihood, str | Path) else likelihood,
    )
    return engine.run(started)


def plan_of(
    reference: Any,
    protocol: str | Protocol | None,
    metrics: Sequence[str] | None,
    extractor: str | None,
    preprocess: str | None,
    n: int | None,
    seed: int | None,
    options: Mapping[str, Any],
) -> tuple[Protocol, Moments | None, dict[str, Samples]]:
    """The protocol of a run, the reference where it is a statistics file, and {"ref": samples} where it is not."""
    if options["on_bad"] not in ("error", "skip"):
        raise UsageError(f"on_bad is 'error' or 'skip', found {options['on_bad']!r}")
    named = isinstance(protocol, str)
    base = _protocol.protocol(protocol) if isinstance(protocol, str) else protocol
    if reference is None:
        if base is None or base.reference == _protocol.ANY:
            raise UsageError("a reference is needed: a dataset such as mnist, any samples, or a statistics file with mu and sigma")
        reference = base.reference
    seed = seed if seed is not None else base.seed if base else 0
    moments = statistics_file(reference)
    ref: Samples | Moments = moments if moments is not None else open_samples(reference, seed=seed, **options)
    if metrics is not None and list(metrics) == ["all"]:
        metrics = registry.modules("metrics")
    plan = make_plan(base, ref, metrics, extractor, preprocess, n, seed, named)
    return plan, moments, {} if isinstance(ref, Moments) else {"ref": _cut(ref, plan.n_ref, plan, "reference samples")}


def opened_roles(sources: Mapping[str, Any], seed: int, options: Mapping[str, Any]) -> dict[str, Samples]:
    """Samples of the roles that were given."""
    return {role: open_samples(source, seed=seed, **options) for role, source in sources.items() if source is not None}


def take(gen: Any, n: int | None, plan: Protocol, options: Mapping[str, Any]) -> Samples:
    """The samples to judge, as many as the protocol says."""
    return _cut(open_samples(gen, n=n, seed=plan.seed, **options), n, plan, "samples")


def open_cache(where: str | Path | None) -> Cache:
    return Cache(_cache.cache_root() if where == "auto" else Path(where) if where is not None else None)


def statistics_file(reference: Any) -> Moments | None:
    """The moments of a statistics file; None where the reference is not one."""
    if not isinstance(reference, str | Path) or Path(reference).suffix.lower() != ".npz" or not Path(reference).is_file():
        return None
    members = {member.filename for member in zip_directory(Path(reference))[0]}
    if members & {"mu.npy", "sigma.npy"}:
        return Moments.load(reference)
    return None


def make_plan(
    base: Protocol | None,
    ref: Samples | Moments,
    metrics: Sequence[str] | None,
    extractor: str | None,
    preprocess: str | None,
    n: int | None,
    seed: int,
    named: bool,
) -> Protocol:
    """The protocol of this run, every default written out; a named one that was changed loses its name."""
    identity = ref.name if isinstance(ref, Samples) and ref.kind == "dataset" else f"sha256:{_fingerprint(ref)[:32]}"
    if base is None:
        if extractor is None:
            extractor = _default_extractor(ref)
        made = Protocol("custom", identity, tuple(metrics or DEFAULT_METRICS), extractor, preprocess, n, None, seed)
        return made.resolved()
    if base.reference == _protocol.ANY:
        base = dataclasses.replace(base, reference=identity)
    changed = dataclasses.replace(
        base,
        reference=identity,
        seed=seed,
        metrics=tuple(metrics) if metrics is not None else base.metrics,
        extractor=extractor or base.extractor,
        preprocess=preprocess or base.preprocess,
        n=n if n is not None else base.n,
    )
    if named and changed.hash != base.hash:
        changed = dataclasses.replace(changed, name=f"{base.name} (changed)")
    return changed.resolved()


def _default_extractor(ref: Samples | Moments) -> str:
    """The reference dataset's own; else identity for vectors and inception for images."""
    if isinstance(ref, Moments):
        return "inception"
    if ref.kind == "dataset":
        name = ref.name.partition("/")[0]
        found = getattr(registry.dataset(name), "EXTRACTOR", None)
        found = found.get(name) if isinstance(found, Mapping) else found
        if found:
            return str(found)
    return "identity" if len(ref.shape) == 1 else "inception"


def _cut(found: Samples, wanted: int | None, plan: Protocol, what: str) -> Samples:
    if wanted is None or len(found) == wanted:
        return found
    if len(found) < wanted:
        raise DataError(
            f"protocol {plan.name} needs {wanted:,} {what}, {found.name} has {len(found):,}; add {wanted - len(found):,}, or pass "
            f"-n {len(found)} (the result will not be comparable with the leaderboard)"
        )
    return subset(found, wanted, plan.seed)


def _same_shape(samples: Mapping[str, Samples]) -> None:
    gen = samples["gen"]
    for role, other in samples.items():
        if len(other.shape) != len(gen.shape):
            raise DataError(
                f"the samples have shape {gen.shape} and the {role} data {other.shape}; compare images with images, vectors with vectors"
            )


def _with_role(role: str, found: Sequence[str]) -> list[str]:
    label = {"gen": "samples", "ref": "reference", "train": "train", "test": "test"}[role]
    return [f"{label}: {w}" for w in found]


def _fingerprint(source: Samples | Moments) -> str:
    if isinstance(source, Moments):
        return hashlib.sha256(source.mean.tobytes() + source.m2.tobytes()).hexdigest()
    return source.fingerprint()


def _describe(source: Samples | Moments) -> dict[str, Any]:
    if isinstance(source, Moments):
        return {"name": "statistics file", "kind": "statistics", "fingerprint": _fingerprint(source), "n": None, "shape": [source.d]}
    described: dict[str, Any] = {
        "name": source.name,
        "kind": source.kind,
        "fingerprint": source.fingerprint(),
        "n": len(source),
        "shape": list(source.shape),
        "converted": [list(c) for c in source.converted],
        "skipped": [list(s) for s in source.skipped],
    }
    return described | source.info


def _described(found: LogLikelihood) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(found.nats).tobytes()).hexdigest()
    return {"n": len(found), "dims": found.dims, "bound": found.bound, "measure": found.measure, "fingerprint": digest}


class _Reordered(Sequence[str]):
    """Names in another order, looked up when one is needed."""

    def __init__(self, names: Sequence[str], order: NDArray[np.int64]) -> None:
        self._names, self._order = names, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, i: Any) -> Any:
        return self._names[int(self._order[i])]


class Engine:
    """One pass over the samples for all metrics: statistics are made when first needed and shared.

    Args:
        samples: role -> samples.
        moments: the reference where it is a statistics file.
        plan: the resolved protocol.
        device: "auto", "cpu", "cuda" or "openvino".
        weights: file with the main extractor's weights.
        cache: of extracted shards.
        workers: reader threads.
        chunk: samples that are read at once.
        download: fetch missing weights.
        progress: called with (what, done, total).
        likelihood: of held-out data under the model, where it was computed elsewhere.

    Raises:
        DataError: images are compared with vectors.
    """

    def __init__(
        self,
        samples: Mapping[str, Samples],
        moments: Moments | None,
        plan: Protocol,
        *,
        device: str = "auto",
        weights: str | Path | None = None,
        cache: Cache,
        workers: int = 1,
        chunk: int = _protocol.SHARD,
        download: bool = False,
        progress: Progress | None = None,
        likelihood: LogLikelihood | None = None,
    ) -> None:
        _same_shape(samples)
        self.likelihood = likelihood
        self.samples, self.moments, self.plan, self.cache = dict(samples), moments, plan, cache
        self.weights, self.workers, self.chunk, self.download, self.progress = weights, workers, chunk, download, progress
        self.device = _device(device)
        self.extracted = self.cached = 0
        self._extractors: dict[str, Extractor] = {}
        self._rows: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
        self._views: dict[tuple[str, str, type], Any] = {}
        self.details: list[_run.Table] = []
        self.outcomes: dict[str, Mapping[str, Any]] = {}

    def run(self, started: float) -> Run:
        """Extract what is needed, compute every metric and make the record; `started` is the perf_counter at the beginning."""
        environment = _run.environment(self.device)  # of the code that runs, whatever is done to the checkout meanwhile
        results, skipped, notes = self._metrics()
        described = {role: _describe(found) for role, found in self.samples.items()}
        content = {
            "subject": described["gen"],
            "reference": described.get("ref") if self.moments is None else _describe(self.moments),
            "train": described.get("train"),
            "test": described.get("test"),
            "protocol": self.plan.to_dict(),
            "extractors": {
                n: {"weights": e.weights, "preprocess": e.preprocess, "batch": e.batch} for n, e in sorted(self._extractors.items())
            },
            **({} if self.likelihood is None else {"likelihood": _described(self.likelihood)}),
            "results": results,
            "skipped": skipped,
            "warnings": list(
                dict.fromkeys(
                    [w for role, found in self.samples.items() for w in _with_role(role, [*found.warnings, *found.copies()])]
                    + self._contaminated()
                    + notes
                )
            ),
            "environment": environment,
        }
        timing = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "extracted": self.extracted,
            "cached": self.cached,
            **({"cache_faults": faults} if (faults := self.cache.faults()) else {}),
        }
        return _run.make(content, timing, self.details, self._nats())

    def _nats(self) -> NDArray[np.float64] | None:
        """Log p of every held-out sample by the model, where a metric asked for it, in an order that any run of the same samples has."""
        found = [v for (role, _, kind), v in self._views.items() if role == "test" and kind is LogLikelihood]
        usable = found and isinstance(found[0], LogLikelihood) and self.plan.order == "content"
        return found[0].nats if usable else None

    def _contaminated(self) -> list[str]:
        """The warning that held-out samples are among the generated ones, so that they are no measure of what is new."""
        gen, test = self.samples["gen"], self.samples.get("test")
        if test is None or gen.shape != test.shape:
            return []
        held, made = (np.unique(s.digests(), axis=0) for s in (test, gen))
        copied = len(held) + len(made) - len(np.unique(np.concatenate([held, made]), axis=0))
        if copied <= len(held) / 100 or copied == len(held) == len(made):  # or the held-out set itself is scored
            return []
        return [
            f"{copied:,} of {len(held):,} held-out samples are among the generated ones, byte for byte: metrics that compare with held-out "
            "samples (fld_gap above all) then read too well; give held-out samples that no model has seen"
        ]

    # -- extraction ------------------------------------------------------------------------------------------------------------

    def extractor(self, name: str) -> "Extractor":
        if name not in self._extractors:
            # another layer of the main extractor's network takes its weights, resizing and batch too
            main = _network(self.plan.extractor) == _network(name)
            self._extractors[name] = registry.module("extractors", name).load(
                preprocess=self.plan.preprocess if main else None,
                weights=self.weights if main else None,
                device=self._runs_on(name),
                shape=self.samples["gen"].shape,
                download=self.download,
            )
            if main and self.plan.batch is not None:
                self._extractors[name].batch = self.plan.batch
        return self._extractors[name]

    def _runs_on(self, name: str) -> str:
        """The device, or for an extractor that the wanted runtime does not know, torch's CPU."""
        known = getattr(registry.module("extractors", name), "RUNTIMES", ())
        return "cpu" if self.device in RUNTIMES and self.device not in known else self.device

    def rows(self, role: str, name: str) -> dict[str, NDArray[Any]]:
        """Features and logits of a role's samples, from the cache where they are known."""
        if self._known(role, name):
            return self._rows[role, name]
        samples, extractors = self.samples[role], {n: self.extractor(n) for n in self._one_pass(role, name)}
        shards = [(a, min(a + self.plan.shard, len(samples))) for a in range(0, len(samples), self.plan.shard)]
        parts, done = [], 0
        for start, stop in shards:
            parts.append(self._shard(samples, extractors, start, stop))
            done += stop - start
            if self.progress:
                self.progress(f"{role} @{name}", done, len(samples))
        for n in extractors:
            self._rows[role, n] = {k: np.concatenate([p[n][k] for p in parts]) for k in parts[0][n]}
        return self._rows[role, name]

    def _known(self, role: str, name: str) -> bool:
        """Whether there are rows already: one set in two roles is extracted once."""
        twins = (o for o, n in self._rows if n == name and self.samples[o].fingerprint() == self.samples[role].fingerprint())
        if (role, name) not in self._rows and (twin := next(twins, None)) is not None:
            self._rows[role, name] = self._rows[twin, name]
        return (role, name) in self._rows

    def _one_pass(self, role: str, name: str) -> tuple[str, ...]:
        """The extractor alone; or, where other metrics need of this role what the same pass gives, a network and its inner layer."""
        network = _network(name)
        wanted = {self.plan.extractor_of(s) for s in self.plan.specs if role in registry.metric(s.name).needs}
        inner = name if name != network else next((n for n in sorted(wanted) if _network(n) == name != n), name)
        pair = (network, inner)
        if inner == network or not wanted.issuperset(pair) or any(self._known(role, n) for n in pair):
            return (name,)
        a, b = (self.extractor(n) for n in pair)
        same = (a.weights, a.preprocess, a.batch) == (b.weights, b.preprocess, b.batch)
        return pair if same and hasattr(b, "both") else (name,)

    def give(self, role: str, samples: Samples, rows: Mapping[str, dict[str, NDArray[Any]]]) -> None:
        """Put extracted rows in a role's place, extractor -> rows; what was derived from the earlier ones is forgotten."""
        self.samples[role] = samples
        self.details, self.outcomes = [], {}
        self._rows = {k: v for k, v in self._rows.items() if k[0] != role} | {(role, name): found for name, found in rows.items()}
        ours = (LogLikelihood, Reconstructions) if role == "gen" else ()  # of other roles' samples, by the model of this one
        self._views = {k: v for k, v in self._views.items() if k[0] != role and k[2] not in ours}

    def _shard(self, samples: Samples, extractors: Mapping[str, "Extractor"], start: int, stop: int) -> dict[str, dict[str, NDArray[Any]]]:
        """Rows by extractor; of two extractors, one pass of the network that they share gives what the cache does not have."""
        keys = {
            name: _cache.key(
                samples=hashlib.sha256(samples.digests()[start:stop].tobytes()).hexdigest(),
                shape=list(samples.shape),
                extractor=e.name,
                weights=e.weights,
                preprocess=e.preprocess,
                batch=e.batch,
                device=self._runs_on(name).partition(":")[0],
            )
            for name, e in extractors.items()
            if e.weights is not None
        }
        found = {name: rows for name, k in keys.items() if (rows := self.cache.get(k)) is not None}
        self.cached += len(found) * (stop - start)
        missing = [name for name in extractors if name not in found]
        if missing:
            last = extractors[missing[-1]]
            run: _Pass = cast("InnerLayer", last).both if len(missing) > 1 else lambda x: (last(x),)
            chunks = self._chunks(samples, start, stop, last.batch)
            made = [outputs for chunk in chunks for outputs in _passes(run, last, chunk)]
            self.extracted += len(missing) * (stop - start)
            for name, outputs in zip(missing, zip(*made, strict=True), strict=True):
                found[name] = stack(outputs)
                if name in keys:
                    self.cache.put(keys[name], found[name])
        return found

    def _chunks(self, samples: Samples, start: int, stop: int, batch: int) -> Iterator[NDArray[Any]]:
        """Samples of a shard in whole forward batches, read `chunk` at a time, ahead of the network."""
        step = max(batch, self.chunk // batch * batch)
        bounds = [(a, min(a + step, stop)) for a in range(start, stop, step)]
        yield from parallel.ordered(lambda b: samples.read(*b), bounds, self.workers)

    # -- statistics ------------------------------------------------------------------------------------------------------------

    def view(self, role: str, name: str, kind: type) -> Any:
        """A statistic of a role, or the reason why there is none."""
        if role == "ref" and self.moments is not None:
            if kind is not Moments:
                return Undefined("the reference is a statistics file with mu and sigma only; this metric needs the samples themselves")
            return self.moments
        if kind is LogLikelihood and role == "test" and self.likelihood is not None:
            return self.likelihood
        if role not in self.samples:
            return Undefined(f"needs {role} samples; pass --{'reference' if role == 'ref' else role}")
        if (role, name, kind) not in self._views:
            twin = next((o for o, n, k in self._views if (n, k) == (name, kind) and self._same(o, role)), None)
            self._views[role, name, kind] = self._views[twin, name, kind] if twin else self._make(role, name, kind)
        return self._views[role, name, kind]

    def _same(self, one: str, other: str) -> bool:
        """Whether two roles hold the same samples: then they share one view, and all that metrics keep in it."""
        a, b = self.samples[one], self.samples[other]
        return len(a) == len(b) and a.fingerprint() == b.fingerprint() and (a.labels is None) == (b.labels is None)

    def _make(self, role: str, name: str, kind: type) -> Any:
        """A statistic of rows in the order of their content digests: no file's name or place moves a number, not even through the
        blocks of a jackknife, and blocks of a class-sorted folder are alike."""
        samples = self.samples[role]
        if kind is Law:
            return self._law(samples, name)
        order = self._order(samples)
        if kind is LogLikelihood:
            return self._likelihood(samples, order)
        if kind is Reconstructions:
            return self._reconstructions(samples, order)
        if kind is LatentPath:
            return self._path(samples, name)
        names = _Reordered(samples.names, order)
        if kind is Probabilities:
            extractor = self.extractor(name)
            if not extractor.has_probabilities:
                return Undefined(f"extractor {name} has no classes; choose a classifier, e.g. @inception or @mnist")
            return Probabilities.of_logits(self.rows(role, name)["logits"][order], extractor.classes, name, names)
        if kind is Moments:
            return Moments.of(self.view(role, name, Features))
        if kind is not Features:
            return Undefined(f"{samples.name} has no {kind.__name__}")
        labels = None if samples.labels is None else samples.labels[order]
        return Features(self.rows(role, name)["features"][order], name, names, labels, samples.shape, samples.digests()[order])

    def _order(self, samples: Samples) -> NDArray[np.int64]:
        return np.lexsort(samples.digests().T) if self.plan.order == "content" else np.arange(len(samples))

    def _law(self, samples: Samples, name: str) -> Law | Undefined:
        dataset = samples.name.partition("/")[0]
        law = getattr(registry.dataset(dataset), "law", None) if samples.kind == "dataset" else None
        if law is None:
            return Undefined(f"{samples.name} has no known density; the toys have one (genbench ls datasets)")
        if name != "identity":
            return Undefined(f"a density is one of the samples themselves; use @identity instead of @{name}")
        found: Law = law(dataset)
        return found

    def _reconstructions(self, samples: Samples, order: NDArray[np.int64]) -> Reconstructions | Undefined:
        model = self.samples["gen"].model
        if not hasattr(model, "reconstruct"):
            return Undefined("needs a model that encodes and decodes: score the run folder of an autoencoder, a VAE or a flow")
        x = samples.take(order)
        y = np.concatenate([model.reconstruct(x[a : a + 256]) for a in range(0, len(x), 256)] or [x])
        return Reconstructions(x, y, self._lpips(x, y))

    def _lpips(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64] | Undefined:
        """The perceptual distance of each pair, or why there is none: beside other quantities, so that nothing here ends a run."""
        if x.ndim != 4:
            return Undefined(f"LPIPS is of images, found samples of shape {x.shape[1:]}")
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # looked for below
                images = (v if v.dtype == np.uint8 else v.astype(np.float32) for v in (x, y))
                found = distances(self.extractor("lpips"), *images) ** 2
            return found if np.isfinite(found).all() else Undefined("the grey levels are too large for LPIPS: its network overflows")
        except (MissingError, DataError, OSError) as e:
            if not isinstance(e, MissingError) or self.download:
                return Undefined(str(e))
        files = " and ".join(f"{f.file} ({f.size}) from {f.url}" for f in registry.module("extractors", "lpips").NEEDED)
        # without the folder's path: the reason stands in a record, which others read
        return Undefined(f"LPIPS needs weights that are absent: put {files} into the folder weights of the cache, or pass --download")

    def _path(self, samples: Samples, name: str) -> LatentPath | Undefined:
        if not hasattr(samples.model, "latent_pairs"):
            return Undefined("needs a model with a latent space: score the run folder of a GAN, a VAE, an autoencoder or a flow")
        step = 1e-4
        pairs = samples.model.latent_pairs(len(samples), step, seed=self.plan.seed)
        apart = distances(self.extractor(name), *pairs)[:, None]
        return LatentPath(np.zeros_like(apart), apart, step)

    def _likelihood(self, samples: Samples, order: NDArray[np.int64]) -> LogLikelihood | Undefined:
        model = self.samples["gen"].model
        if model is None:
            return Undefined("needs a model's likelihood: score a trained baseline's run folder, or pass --likelihood FILE")
        if getattr(model, "bound", None) is None:
            return Undefined(f"{self.samples['gen'].name} has no likelihood; it can only sample")
        parts: list[NDArray[np.float64]] = []
        for a in range(0, len(order), 256):  # of an ODE or of many draws a block takes seconds
            parts.append(model.log_prob(samples.take(order[a : a + 256])))
            if self.progress:
                self.progress(f"log p of {samples.name}", min(a + 256, len(order)), len(order))
        nats = np.concatenate(parts) if parts else np.empty(0)
        kind = (model.bound, getattr(model, "measure", "density"))
        return LogLikelihood(nats, model.dims, *kind, _Reordered(samples.names, order), getattr(model, "estimator", None))

    # -- metrics ---------------------------------------------------------------------------------------------------------------

    def _metrics(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
        results: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        notes: list[str] = []
        missing: MissingError | DataError | None = None
        for spec in self.plan.specs:
            found: Metric = registry.metric(spec.name)
            name = self.plan.extractor_of(spec)
            label = str(dataclasses.replace(spec, extractor=name))
            arguments: dict[str, Any] = {}
            reason: str | None
            try:
                if found.extractor is not None:
                    self.extractor(name)
            except (MissingError, DataError) as e:  # of the metric's own extractor: the others can do without it
                reason, missing = str(e), e
            else:
                arguments, reason = self._arguments(found, name)
            if reason:
                skipped.append({"metric": label, "reason": reason})
                continue
            settings = check_settings(spec, found)
            if "seed" in settings:
                settings["seed"] = self.plan.seed
            with _warnings.catch_warnings():
                _warnings.simplefilter("error", RuntimeWarning)  # an overflow is a fault, not a footnote
                outcome = found(**arguments, **settings)
            self._report(found, spec, name, label, outcome, results, skipped, notes)
            self._keep(label, outcome)
            self.outcomes[label] = outcome
        if missing is not None and not results:
            raise missing
        return results, skipped, notes

    def _keep(self, label: str, outcome: Mapping[str, Any]) -> None:
        """Tables with the names of samples instead of row numbers, and the images of the first pairs."""
        seen: dict[str, Detail] = {}
        for got in outcome.values():
            if isinstance(got, Estimate):
                seen |= {d.name: d for d in got.details}
        for detail in seen.values():
            roles = [c for c in detail.columns if c in self.samples]
            order = {r: self._order(self.samples[r]) for r in roles}
            rows = tuple(
                tuple(self.samples[c].names[int(order[c][v])] if c in order else v for c, v in zip(detail.columns, row, strict=True))
                for row in detail.rows
            )
            grid: list[NDArray[Any]] = []
            if len(roles) == 2 and len(self.samples[roles[0]].shape) == 3:
                at = {r: detail.columns.index(r) for r in roles}
                for r in roles:
                    index = np.array([order[r][int(row[at[r]])] for row in detail.rows[:GRID]], np.int64)
                    grid.append(self.samples[r].take(index))
            self.details.append(_run.Table(label, detail.name, detail.columns, rows, tuple(grid)))

    def _arguments(self, found: Metric, name: str) -> tuple[dict[str, Any], str | None]:
        arguments: dict[str, Any] = {}
        for role, kinds in found.needs.items():
            reasons = []
            for kind in kinds:
                view = self.view(role, name, kind)
                if not isinstance(view, Undefined):
                    arguments[role] = view
                    break
                reasons.append(view.reason)
            else:
                return {}, reasons[0]
        dims = {v.d for v in arguments.values() if isinstance(v, Features | Moments | Law)}
        if len(dims) > 1:
            mine = self.view("gen", name, Features).d
            raise DataError(
                f"extractor {name} gives rows of {mine:,} numbers, the reference has {', '.join(f'{d:,}' for d in sorted(dims - {mine}))}; "
                "compare samples of one shape, and a statistics file with the extractor that it was made with"
            )
        return arguments, None

    @staticmethod
    def _report(
        found: Metric,
        spec: MetricSpec,
        name: str,
        label: str,
        outcome: Mapping[str, Any],
        results: list[dict[str, Any]],
        skipped: list[dict[str, Any]],
        notes: list[str],
    ) -> None:
        for quantity in found.quantities:
            got, shown = outcome[quantity.name], quantity.named(name)
            if isinstance(got, Undefined):
                skipped.append({"metric": label, "quantity": shown, "reason": got.reason})
                continue
            results.append(
                {
                    "metric": str(dataclasses.replace(spec, extractor=None)),
                    "extractor": name,
                    "quantity": shown,
                    "value": float(got.value),
                    "low": None if got.low is None else float(got.low),
                    "high": None if got.high is None else float(got.high),
                    "n": int(got.n),
                    "interval": got.interval,
                    "bound": got.bound,
                    "better": quantity.better,
                    "unit": quantity.unit,
                    **({"measure": got.measure} if got.measure is not None else {}),
                    **({"estimator": got.estimator} if got.estimator is not None else {}),
                }
            )
            notes.extend(f"{label}: {note}" for note in got.notes)


def stack(outputs: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Outputs of consecutive batches as one array per view."""
    made = {"features": np.concatenate([o.features for o in outputs])}
    if outputs[0].logits is not None:
        made["logits"] = np.concatenate([o.logits for o in outputs])
    return made


def forward(extractor: "Extractor", rows: NDArray[Any]) -> Iterator["Outputs"]:
    """Outputs batch by batch."""
    for (made,) in _passes(lambda x: (extractor(x),), extractor, rows):
        yield made


def _passes(run: _Pass, extractor: "Extractor", rows: NDArray[Any], batch: int | None = None) -> Iterator[tuple["Outputs", ...]]:
    """What `run` makes of the rows batch by batch; the last batch is filled up by repeating its last row, so that every forward has the
    same size and a row's bits do not depend on how many follow it."""
    size = batch or extractor.batch
    for a in range(0, len(rows), size):
        part = rows[a : a + size]
        missing = size - len(part)
        if missing and extractor.weights is not None:
            filled = run(np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]))
            kept = slice(len(part))
            yield tuple(
                dataclasses.replace(o, features=o.features[kept], logits=None if o.logits is None else o.logits[kept]) for o in filled
            )
        else:
            yield run(part)


def distances(extractor: "Extractor", a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean distance of each row of a from the same row of b, as the extractor sees them. No more than a batch is held, and of long
    rows (lpips has millions of numbers for a large image) a smaller one."""
    batch = max(1, min(extractor.batch, PAIRED // max(1, extractor.dim)))
    found = []
    sides = (_passes(lambda x: (extractor(x),), extractor, side, batch) for side in (a, b))
    for (one,), (other,) in zip(*sides, strict=True):
        apart = np.zeros(len(one.features))
        for c in range(0, one.features.shape[1], COLUMNS):
            gap = np.subtract(one.features[:, c : c + COLUMNS], other.features[:, c : c + COLUMNS], dtype=np.float64)
            largest = np.abs(gap).max(axis=1, keepdims=True)
            gap /= np.where(largest > 0, largest, 1.0)  # no square overflows
            apart = np.hypot(apart, largest[:, 0] * np.sqrt((gap**2).sum(axis=1)))
        found.append(apart)
    return np.concatenate(found) if found else np.empty(0)


def _network(name: str) -> str:
    """The extractor whose network an extractor runs: its own, or the one that it says it is an inner layer of."""
    return str(getattr(registry.module("extractors", name), "NETWORK", name))


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    if wanted in RUNTIMES:
        runtime_version(wanted)
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch sees no CUDA device; pass --device cpu, or see genbench doctor")
    if not wanted.startswith("cuda"):
        raise UsageError(f"device is auto, cpu, cuda or {', '.join(RUNTIMES)}, found {wanted!r}")
    return wanted
