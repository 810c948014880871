"""What a metric reports: a Quantity (what is measured) and its Estimate (a value with its uncertainty)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["lower", "higher", "closer"]
Bound = Literal["exact", "upper", "lower", "estimate"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured quantity, declared beside its metric.

    Args:
        name: as it stands in records and tables; "{extractor}" in it is replaced by the extractor's name.
        better: the direction; "closer" means closer to `ideal`.
        unit: e.g. "feature²", "nats", "1".
        ideal: the value for two equal laws, where there is one.
        range: the smallest and largest possible value.
        interval: whether the quantity has an interval wherever there are samples enough.
        placed: its value moves with the rows' places (blocks, folds, k-means starts); the engine orders rows by their content, so that
            no file's name or place moves it.
    """

    name: str
    better: Better
    unit: str = "1"
    ideal: float | None = None
    range: tuple[float, float] = (-math.inf, math.inf)
    interval: bool = True
    placed: bool = False

    def named(self, extractor: str) -> str:
        """The name under which the quantity of this extractor is reported."""
        return self.name.replace("{extractor}", extractor)


@dataclass(frozen=True, slots=True)
class Detail:
    """A table behind a value: pairs, a curve, one row per class or per sample. Written beside the record, not into it.

    Args:
        name: of the table, e.g. "pairs".
        columns: names; a column named after a role ("gen", "ref", "train", "test") holds row numbers of that role, which become the
            samples' names; where a table has two of them, its first rows are also shown as an image grid.
        rows: one tuple per row: numbers and short texts.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        if any(len(r) != len(self.columns) for r in self.rows):
            raise ValueError(f"table {self.name}: every row needs {len(self.columns)} cells, {', '.join(self.columns)}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Args:
        value: finite.
        low: lower end of the 95 % interval, None where there is no interval.
        high: upper end, None where there is no interval.
        n: number of generated samples behind the value.
        interval: the interval's method, e.g. "jackknife-20"; None where there is none.
        bound: what the value is to the target: "exact", or an "upper" / "lower" bound, or an "estimate".
        notes: what a reader must know: warnings, reasons for a missing interval.
        measure: of a likelihood: what it is a density of, e.g. "mass", "density"; None for all other values.
        estimator: of a likelihood that is not exact: which bound or estimate it is, e.g. "IWAE-1000"; None where that is not known.
        details: tables behind the value.
        influence: role -> (n,) first-order influence of each of its rows on the value, mean 0, so that Var(value) ≈ Σ_roles Var/n;
            for paired differences. None where the metric knows none.
        degenerate: variance of the second-order part, which is left where the influences vanish.

    Raises:
        ValueError: the value is not finite, or only a part of the interval is given.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    interval: str | None
    bound: Bound = "exact"
    notes: tuple[str, ...] = ()
    measure: str | None = None
    estimator: str | None = None
    details: tuple[Detail, ...] = ()
    influence: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    degenerate: float = field(default=0.0, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):  # not NumPy's numbers
            found = getattr(self, name)
            object.__setattr__(self, name, None if found is None else float(found))
        if not math.isfinite(self.value):
            raise ValueError(f"an Estimate is finite, found {self.value}; report Undefined(reason) instead")
        if len({self.low is None, self.high is None, self.interval is None}) != 1:
            raise ValueError("low, high and interval come together or not at all")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] is empty")


@dataclass(frozen=True, slots=True)
class Undefined:
    """There is no number: stands in an Estimate's place and says why."""

    reason: str
