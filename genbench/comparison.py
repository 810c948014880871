"""Models against each other on one reference: paired differences with intervals, p-values after Holm, ranks with ties.

And protocols against each other on one set of samples: how far apart the numbers of other tools are.
"""

import csv
import io
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genbench import registry
from genbench.errors import GenbenchError, MissingError, UsageError
from genbench.estimate import Estimate, Quantity
from genbench.evaluation import Engine, Progress, evaluate, open_cache, opened_roles, plan_of, take
from genbench.numerics import Z95
from genbench.presets import PRESETS
from genbench.protocol import Protocol
from genbench.protocol import protocol as named
from genbench.run import Run

LEVEL = 0.05  # family-wise, over the pairs of one quantity


@dataclass(frozen=True)
class Difference:
    """One quantity of two models.

    Args:
        quantity: with its settings and extractor.
        a: the one model.
        b: the other.
        value: a's value less b's.
        low: lower end of its 95 % interval; None where one of the two has none.
        high: upper end.
        p: of the hypothesis that both are equally good, two-sided; None without an interval.
        p_holm: the same after Holm (1979), over all pairs of this quantity.
        better: the better one at 5 % after Holm; None where they are tied.
        interval: "paired" where the influence of shared rows cancels, else "independent", which is too wide where rows are shared.
    """

    quantity: str
    a: str
    b: str
    value: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    better: str | None
    interval: str | None


@dataclass(frozen=True)
class Rank:
    """The place of a model by one quantity: every place that the significant differences leave open.

    Args:
        quantity: with its settings and extractor.
        model: its name.
        value: its value.
        best: 1 + the number of models that are significantly better.
        worst: the number of models less those that are significantly worse.
    """

    quantity: str
    model: str
    value: float
    best: int
    worst: int


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns.

    Args:
        runs: model -> its Run, the same as `evaluate` gives.
        differences: one per quantity and pair.
        ranks: one per quantity and model.
    """

    runs: Mapping[str, Run]
    differences: tuple[Difference, ...]
    ranks: tuple[Rank, ...]

    def to_pandas(self) -> Any:
        """The differences as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame([asdict(d) for d in self.differences])

    def to_json(self) -> str:
        """Records, differences and ranks as indented JSON."""
        content = {
            "runs": {name: run.record for name, run in self.runs.items()},
            "differences": [asdict(d) for d in self.differences],
            "ranks": [asdict(r) for r in self.ranks],
        }
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """The differences, full precision."""
        from genbench.report import neutral

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Difference.__dataclass_fields__)
        for d in self.differences:
            writer.writerow("" if v is None else repr(v) if isinstance(v, float) else neutral(v) for v in asdict(d).values())
        return out.getvalue()

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the differences, for a terminal or markdown."""
        from genbench.report import cell

        rows = []
        for d in self.differences:
            value, interval = cell(d.value, d.low, d.high)
            p = "–" if d.p_holm is None else "< 0.0001" if d.p_holm < 1e-4 else f"{d.p_holm:.4f}"
            rows.append(
                [d.quantity, f"{d.a} − {d.b}", value, interval, p, d.better or "tied" if d.p is not None else "–", d.interval or "–"]
            )
        return ["quantity", "pair", "difference", "95 % interval", "p (Holm)", "better", "interval by"], rows

    def rank_table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the ranks: a line per quantity, a column per model."""
        names = list(self.runs)
        quantities = list(dict.fromkeys(r.quantity for r in self.ranks))
        place = {(r.quantity, r.model): f"{r.best}" if r.best == r.worst else f"{r.best}–{r.worst}" for r in self.ranks}
        return ["rank by", *names], [[q, *(place.get((q, n), "–") for n in names)] for q in quantities]

    def to_markdown(self) -> str:
        """Both tables as markdown."""
        from genbench.report import escaped

        lines = []
        for columns, rows in (self.table(), self.rank_table()):
            lines += ["| " + " | ".join(escaped(c) for c in columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(escaped(c) for c in row) + " |" for row in rows] + [""]
        return "\n".join(lines)


def compare(
    gens: Mapping[str, Any] | Sequence[Any],
    reference: Any = None,
    *,
    train: Any = None,
    test: Any = None,
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
    value_range: tuple[float, float] | None = None,
    layout: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compare models by their samples, against one reference.

    The difference of two models has a narrower interval than either value: with first-order influence functions IF of the rows,

        Var(A − B) = Var(IF_A)/n_A + Var(IF_B)/n_B + Var(IF_A' − IF_B')/m

    where IF' is that of the shared reference (or training or test) rows, whose errors cancel; never below the degenerate part of both.
    Where a metric has no influence functions, the two intervals are joined as if independent.

    Args:
        gens: two or more sets of samples, name -> samples, or a sequence (named after what they are).
        reference: as in `evaluate`; so are all the others.
        train: what the models were fitted on.
        test: held-out data.
        metrics: specs.
        extractor: what maps samples to features.
        protocol: a named protocol, or one made by hand.
        preprocess: resizing mode.
        weights: file with the extractor's weights.
        n: generated samples of each; None for all, or as the protocol says.
        seed: of every draw.
        on_bad: "error" or "skip".
        device: "auto", "cpu", "cuda" or "openvino".
        cache: for extracted features.
        workers: reader threads.
        value_range: (low, high) of float images.
        layout: "nchw" or "nhwc".
        download: fetch missing data and weights.
        progress: called with (what, done, total).

    Returns:
        Runs, differences (p-values after Holm over the pairs of a quantity) and ranks.

    Raises:
        UsageError: fewer than two sets, or two of one name.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> found = compare({"near": rng.normal(size=(300, 2)), "far": rng.normal(size=(300, 2)) + 1}, rng.normal(size=(300, 2)),
        ...                 metrics=["fid"], cache=None)
        >>> [d.better for d in found.differences]
        ['near', 'near']
    """
    sources = dict(gens) if isinstance(gens, Mapping) else _named(gens)
    if len(sources) < 2:
        raise UsageError(f"a comparison needs two or more sets of samples, found {len(sources)}; one is scored by genbench eval")
    options = {"on_bad": on_bad, "value_range": value_range, "layout": layout, "workers": workers, "download": download}
    plan, moments, shared = plan_of(reference, protocol, metrics, extractor, preprocess, n, seed, options)
    shared |= opened_roles({"train": train, "test": test}, plan.seed, options)
    engine: Engine | None = None
    runs: dict[str, Run] = {}
    found: dict[str, dict[str, tuple[Quantity, Estimate]]] = {}
    opened = {name: take(source, plan.n, plan, options) for name, source in sources.items()}  # a missing one is told before any work
    for name, samples in opened.items():
        started = time.perf_counter()
        if engine is None:
            settings: dict[str, Any] = {"device": device, "weights": weights, "cache": open_cache(cache), "workers": workers or 1}
            engine = Engine({"gen": samples, **shared}, moments, plan, download=download, progress=progress, **settings)
        else:
            engine.give("gen", samples, {})
        runs[name] = engine.run(started)
        found[name] = {
            f"{quantity.named(label.rpartition('@')[2])}{_settings(label)}@{label.rpartition('@')[2]}": (quantity, outcome[quantity.name])
            for label, outcome in engine.outcomes.items()
            for quantity in registry.metric(label.partition("@")[0].partition(":")[0]).quantities
            if isinstance(outcome[quantity.name], Estimate)
        }
    same = {(a, b) for a, b in itertools.combinations(runs, 2) if _fingerprint(runs[a]) == _fingerprint(runs[b])}
    differences: list[Difference] = []
    ranks: list[Rank] = []
    for quantity in dict.fromkeys(q for values in found.values() for q in values):
        values = {name: found[name][quantity] for name in runs if quantity in found[name]}
        made = _differences(quantity, values, same)
        differences += made
        ranks += _ranks(quantity, values, made)
    return Comparison(runs, tuple(differences), tuple(ranks))


def _named(gens: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, source in enumerate(gens):
        name = str(source) if isinstance(source, str | Path) else getattr(source, "name", None) or f"model {i + 1}"
        if name in found:
            raise UsageError(
                f"two sets are called {name!r}; give them names of their own: a mapping in Python, NAME=SAMPLES on the command line"
            )
        found[name] = source
    return found


def _settings(label: str) -> str:
    settings = label.partition("@")[0].partition(":")[2]
    return f":{settings}" if settings else ""


def _fingerprint(run: Run) -> str:
    return str(run.record["subject"]["fingerprint"])


def _badness(quantity: Quantity, e: Estimate) -> tuple[float, float]:
    """How bad the value is, and the sign of the value in it."""
    if quantity.better == "closer":
        away = e.value - (quantity.ideal or 0.0)
        return abs(away), 1.0 if away >= 0 else -1.0
    sign = 1.0 if quantity.better == "lower" else -1.0
    return sign * e.value, sign


def standard_error(a: Estimate, b: Estimate, sign_a: float = 1.0, sign_b: float = 1.0, same: bool = False) -> tuple[float, str] | None:
    """Standard error of sign_a·A − sign_b·B and how it was made; None where one of the two has no interval.

    Args:
        a: one estimate.
        b: the other, on the same shared rows.
        sign_a: of A in the difference.
        sign_b: of B.
        same: both were computed from the same generated samples.
    """
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    if a.influence is None or b.influence is None:
        return math.hypot((a.high - a.low) / (2 * Z95), (b.high - b.low) / (2 * Z95)), "independent"
    variance = 0.0
    for role in {*a.influence, *b.influence}:
        x, y = a.influence.get(role), b.influence.get(role)
        if x is not None and y is not None and (role != "gen" or same) and len(x) == len(y):
            variance += float(np.var(sign_a * x - sign_b * y)) / len(x)
        else:
            variance += sum(float(np.var(v)) / len(v) for v in (x, y) if v is not None)
    floor = 0.0 if same else a.degenerate + b.degenerate
    return math.sqrt(max(variance, floor)), "paired"


def _differences(quantity: str, values: Mapping[str, tuple[Quantity, Estimate]], same: set[tuple[str, str]]) -> list[Difference]:
    """All pairs, with Holm's correction over them."""
    from scipy.stats import norm

    rows: list[tuple[str, str, float, float | None, float | None, float, str | None]] = []
    for a, b in itertools.combinations(values, 2):
        (declared, x), (_, y) = values[a], values[b]
        (bad_x, sign_x), (bad_y, sign_y) = _badness(declared, x), _badness(declared, y)
        error, quality = standard_error(x, y, same=(a, b) in same), standard_error(x, y, sign_x, sign_y, (a, b) in same)
        if error is None or quality is None:
            rows.append((a, b, x.value - y.value, None, None, bad_x - bad_y, None))
            continue
        z = abs(bad_x - bad_y) / quality[0] if quality[0] > 0 else 0.0 if bad_x == bad_y else math.inf
        rows.append((a, b, x.value - y.value, error[0], float(2 * norm.sf(z)), bad_x - bad_y, error[1]))
    order = sorted((i for i, r in enumerate(rows) if r[4] is not None), key=lambda i: rows[i][4] or 0.0)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * (rows[i][4] or 0.0)))
        corrected[i] = largest
    made = []
    for i, (a, b, value, error_, p, worse, method) in enumerate(rows):
        half = None if error_ is None else Z95 * error_
        winner = None if i not in corrected or corrected[i] >= LEVEL else (b if worse > 0 else a)
        low, high = (None, None) if half is None else (value - half, value + half)
        made.append(Difference(quantity, a, b, value, low, high, p, corrected.get(i), winner, method))
    return made


def _ranks(quantity: str, values: Mapping[str, tuple[Quantity, Estimate]], differences: Sequence[Difference]) -> list[Rank]:
    if any(d.p is None for d in differences):  # without intervals nothing tells a tie from a difference
        return []
    made = []
    for name, (_, e) in values.items():
        mine = [d for d in differences if name in (d.a, d.b) and d.better is not None]
        lost = sum(d.better != name for d in mine)
        made.append(Rank(quantity, name, e.value, 1 + lost, len(values) - (len(mine) - lost)))
    return made


@dataclass(frozen=True)
class ProtocolComparison:
    """What `compare_protocols` returns.

    Args:
        runs: protocol -> its Run.
        left_out: protocol -> why it could not be run.
    """

    runs: Mapping[str, Run]
    left_out: Mapping[str, str]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows: one line per quantity, one column per protocol, the last the largest over the smallest value."""
        from genbench.report import number

        names = list(self.runs)
        found: dict[str, dict[str, float]] = {}
        for name, run in self.runs.items():
            for row in run.record["results"]:
                found.setdefault(f"{row['quantity']}@{row['extractor']}", {})[name] = row["value"]
        rows = []
        for quantity, values in found.items():
            low, high = min(values.values()), max(values.values())
            apart = f"{high / low:.3g}" if len(values) > 1 and low > 0 else "–"
            rows.append([quantity, *(number(values[n]) if n in values else "–" for n in names), apart])
        return ["quantity", *names, "max/min"], rows

    def to_json(self) -> str:
        """The records and what was left out, as indented JSON."""
        content = {"runs": {n: r.record for n, r in self.runs.items()}, "left_out": dict(self.left_out)}
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The table as markdown."""
        from genbench.report import escaped

        columns, rows = self.table()
        lines = ["| " + " | ".join(escaped(c) for c in columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
        lines += ["| " + " | ".join(escaped(c) for c in row) + " |" for row in rows]
        lines += ["", *(f"- {escaped(name)} was left out: {escaped(why)}" for name, why in self.left_out.items())]
        return "\n".join(lines).rstrip() + "\n"


def compare_protocols(
    gen: Any, reference: Any, *, protocols: Sequence[str] | None = None, weights: str | Path | None = None, **options: Any
) -> ProtocolComparison:
    """Score one set of samples under several protocols: by default the presets that reproduce other tools.

    Args:
        gen: the samples to judge.
        reference: as in `evaluate`.
        protocols: names; None for every preset.
        weights: file with the Inception network's weights; other networks' are looked for in the cache.
        **options: further arguments of `evaluate`.

    Returns:
        The runs, and why a protocol was left out (weights that are not there, samples of another kind).

    Raises:
        MissingError: none could be run because weights are missing.
        UsageError: an unknown protocol.
    """
    runs: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    last: GenbenchError | None = None
    for name in protocols or sorted(PRESETS):
        try:
            own = weights if named(name).extractor == "inception" else None
            runs[name] = evaluate(gen, reference, protocol=name, weights=own, **options)
        except GenbenchError as e:
            if isinstance(e, UsageError):
                raise
            left_out[name] = str(e)
            last = e if last is None or isinstance(e, MissingError) else last
    if not runs and last is not None:
        raise last
    return ProtocolComparison(runs, left_out)
