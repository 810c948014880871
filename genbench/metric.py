"""The @metric decorator, what a metric needs (read from its signature), and the spec grammar.

A metric is a pure function of statistics, one per file, named after its file:

    @metric(Quantity("fid", "lower", unit="feature²", ideal=0.0, range=(0, inf)), cost="d³", source="Heusel et al. 2017, eq. 6")
    def fid(ref: Features | Moments, gen: Features | Moments, *, ...settings with defaults) -> tuple[Estimate | Undefined, ...]

Positional parameters are roles (`gen`, `ref`, `train`, `test`); their annotation is the view, the first member of a union being
the preferred one. Keyword-only parameters are settings; one called `seed` is filled with the protocol's seed.

A spec is  name[:key=value[,key=value...]][@extractor]   e.g.  kid:subsets=100,subset_size=500@dinov2
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genbench.errors import UsageError, near_miss
from genbench.estimate import Estimate, Quantity, Undefined
from genbench.statistics import Features, LatentPath, Law, LogLikelihood, Moments, Probabilities, Reconstructions

ROLES = ("gen", "ref", "train", "test")
VIEWS: tuple[type, ...] = (Features, Moments, Probabilities, LogLikelihood, Law, Reconstructions, LatentPath)
Outcome = Estimate | Undefined


@dataclass(frozen=True)
class Metric:
    """A metric function with what it declares.

    Args:
        name: the function's and the file's name.
        quantities: what the function returns, in order.
        needs: role -> accepted views, preferred first.
        defaults: settings and their defaults.
        cost: how time grows, e.g. "n² d".
        source: paper and equation.
        function: the pure function.
        extractor: what it is computed on where a spec names none; None for the protocol's.
    """

    name: str
    quantities: tuple[Quantity, ...]
    needs: Mapping[str, tuple[type, ...]]
    defaults: Mapping[str, Any]
    cost: str
    source: str
    function: Callable[..., Any] = field(repr=False)
    extractor: str | None = None

    def __call__(self, **arguments: Any) -> dict[str, Outcome]:
        """Call with roles and settings by keyword; returns quantity name -> Estimate or Undefined."""
        out = self.function(**arguments)
        out = out if isinstance(out, tuple) else (out,)
        if len(out) != len(self.quantities):
            raise TypeError(f"metric {self.name} declares {len(self.quantities)} quantities, returned {len(out)}")
        return {q.name: o for q, o in zip(self.quantities, out, strict=True)}


def metric(*quantities: Quantity, cost: str, source: str, extractor: str | None = None) -> Callable[[Callable[..., Any]], Metric]:
    """Declare a function as the metric of its file.

    Args:
        quantities: what it returns, in order.
        cost: how time grows, e.g. "n d² + d³".
        source: paper and equation.
        extractor: what it is computed on where a spec names none; None for the protocol's. Where its weights are absent the metric is
            skipped with the reason, if there are others.
    """

    def wrap(function: Callable[..., Any]) -> Metric:
        hints = typing.get_type_hints(function)
        needs: dict[str, tuple[type, ...]] = {}
        defaults: dict[str, Any] = {}
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.KEYWORD_ONLY:
                if p.default is p.empty:
                    raise TypeError(f"setting {p.name!r} of metric {function.__name__} needs a default")
                defaults[p.name] = p.default
                continue
            hint = hints[p.name]
            views = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            if p.name not in ROLES or not views or not set(views) <= set(VIEWS):
                raise TypeError(f"parameter {p.name!r} of metric {function.__name__} must be a role {ROLES} annotated with a view")
            needs[p.name] = views
        made = Metric(function.__name__, quantities, needs, defaults, cost, source, function, extractor)
        made.__dict__["__doc__"] = function.__doc__
        return made

    return wrap


@dataclass(frozen=True)
class MetricSpec:
    """A metric with its settings and extractor, as a protocol names it.

    Args:
        name: the metric.
        settings: only those that the user wrote, sorted by name.
        extractor: None for the protocol's own.
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()
    extractor: str | None = None

    def __str__(self) -> str:
        text = self.name
        if self.settings:
            text += ":" + ",".join(f"{k}={v}" for k, v in self.settings)
        return text + (f"@{self.extractor}" if self.extractor else "")


def _value(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_spec(text: str) -> MetricSpec:
    """Parse  name[:key=value[,...]][@extractor].

    Raises:
        UsageError: the text does not follow the grammar.
    """
    body, at, extractor = text.strip().partition("@")
    name, colon, rest = body.partition(":")
    if not name.isidentifier() or (at and not extractor) or (colon and not rest):
        raise UsageError(f"a metric is written name:key=value,key=value@extractor, found {text!r}")
    settings: dict[str, Any] = {}
    for pair in rest.split(",") if rest else ():
        key, eq, value = pair.partition("=")
        if not key.strip().isidentifier() or not eq or not value:
            raise UsageError(f"in metric {text!r} expected key=value, found {pair!r}")
        if key.strip() in settings:
            raise UsageError(f"in metric {text!r} the setting {key.strip()!r} is given twice")
        settings[key.strip()] = _value(value.strip())
    return MetricSpec(name, tuple(sorted(settings.items())), extractor or None)


def check_settings(spec: MetricSpec, found: Metric) -> dict[str, Any]:
    """The metric's settings: defaults overlaid with the spec's.

    Raises:
        UsageError: a setting that the metric does not have, or a value of another type than the default's.
    """
    settings = dict(found.defaults)
    for key, value in spec.settings:
        if key not in settings or key == "seed":
            raise near_miss(key, [k for k in settings if k != "seed"] or ["(it has no settings)"], f"setting of metric {spec.name}")
        default = settings[key]
        if default is not None and type(value) is not type(default):
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            else:
                raise UsageError(f"setting {key} of metric {spec.name} is of type {type(default).__name__}, found {value!r}")
        settings[key] = value
    return settings
