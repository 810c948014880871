"""What `genbench ls` prints: one row per member, without importing torch."""

import math
from types import ModuleType
from typing import Any

from genbench import models, protocol, registry
from genbench.metric import Metric


def _range(low: float, high: float) -> str:
    def end(x: float) -> str:
        return "∞" if x == math.inf else "−∞" if x == -math.inf else f"{x:g}"

    return f"{'(' if low == -math.inf else '['}{end(low)}, {end(high)}{')' if high == math.inf else ']'}"


def _metrics() -> list[list[str]]:
    rows = []
    for name in registry.modules("metrics"):
        m: Metric = registry.metric(name)
        needs = ", ".join(f"{role} {'|'.join(v.__name__ for v in views)}" for role, views in m.needs.items())
        for i, q in enumerate(m.quantities):
            rows.append(
                [
                    name if i == 0 else "",
                    q.name,
                    q.better,
                    _range(*q.range),
                    q.unit,
                    needs if i == 0 else "",
                    m.cost if i == 0 else "",
                    m.source if i == 0 else "",
                ]
            )
    return rows


def metrics_markdown() -> str:
    """The README's table: one row per metric, found, not listed."""
    lines = ["| metric | quantities: direction, range | needs | cost | source |", "|---|---|---|---|---|"]
    arrows = {"lower": "↓", "higher": "↑", "closer": "→"}
    for name in registry.modules("metrics"):
        m: Metric = registry.metric(name)
        quantities = "<br>".join(
            f"{q.name} {arrows[q.better]}{f' {q.ideal:.4g}' if q.better == 'closer' and q.ideal is not None else ''} {_range(*q.range)}"
            f"{'' if q.interval else ', no interval'}"
            for q in m.quantities
        )
        needs = ", ".join(f"{role} ({' or '.join(v.__name__.lower() for v in views)})" for role, views in m.needs.items())
        lines.append(f"| `{name}` | {quantities} | {needs} | {m.cost} | {m.source} |".replace("‖", "\u2016"))
    return "\n".join(lines) + "\n"


def _budgets(module: ModuleType | Any, variant: str | None) -> str:
    """Budgets by dataset, as BUDGETS has them: a baseline's own, or those of its variant."""
    found = {}
    for key, budgets in getattr(module, "BUDGETS", {}).items():
        dataset, _, of = key.partition(":")
        if of == (variant or ""):
            found[dataset] = " ".join(budgets)
    return "; ".join(f"{dataset} {budgets}" for dataset, budgets in found.items()) or "–"


def _differences(module: ModuleType | Any, variant: str) -> str:
    """What a variant's recipes have other than the baseline's own on the same data."""
    own = models.recipes_of(module, None)
    changed: dict[str, None] = {}
    for dataset, config in models.recipes_of(module, variant).items():
        changed |= dict.fromkeys(models.differences(config, own.get(dataset, next(iter(own.values())))))
    return "other " + ", ".join(changed)


def _baselines() -> list[list[str]]:
    rows = []
    for name in registry.modules("baselines"):
        m = registry.module("baselines", name)
        rows.append([name, m.FAMILY, " ".join(m.RECIPES), _budgets(m, None), m.SUMMARY])
        for v in models.variants(m):
            rows.append([f"{name}:{v}", m.FAMILY, " ".join(models.recipes_of(m, v)), _budgets(m, v), _differences(m, v)])
    return rows


def listing(kind: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a listing.

    Args:
        kind: metrics, baselines, datasets, extractors or protocols.
    """
    if kind == "metrics":
        return ["metric", "quantity", "better", "range", "unit", "needs", "cost", "source"], _metrics()
    if kind == "protocols":
        return ["protocol", "reference", "n", "extractor", "metrics", "hash"], [
            [
                p.name,
                "any" if p.reference == protocol.ANY else p.reference,
                "all" if p.n is None else f"{p.n:,}",
                p.extractor,
                " ".join(p.metrics),
                p.hash,
            ]
            for p in protocol.protocols().values()
        ]
    if kind == "datasets":
        found = registry.datasets()
        return ["dataset", "splits", "what it is"], [
            [name, " ".join(registry.dataset(name).SPLITS), registry.dataset(name).SUMMARY] for name in sorted(found)
        ]
    if kind == "extractors":
        modules = {n: registry.module("extractors", n) for n in registry.modules("extractors")}
        return ["extractor", "features", "classes", "preprocess", "what it is"], [
            [n, "any" if m.DIM is None else str(m.DIM), "–" if m.CLASSES is None else str(m.CLASSES), " ".join(m.MODES), m.SUMMARY]
            for n, m in modules.items()
        ]
    return ["baseline", "family", "recipes for", "budgets", "what it is"], _baselines()
