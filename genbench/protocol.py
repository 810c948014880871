"""A protocol fixes everything that can move a number; its hash is what makes two numbers comparable."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from genbench import registry
from genbench.errors import UsageError, near_miss
from genbench.metric import MetricSpec, check_settings, parse_spec

ANY = "*"  # the reference of a protocol that leaves it to the user
SHARD = 2048  # samples that one cache entry holds; a constant of the protocol, not a tuning knob


@dataclass(frozen=True)
class Protocol:
    """Named, versioned and hashed settings of an evaluation.

    Args:
        name: e.g. "mnist-1"; a change that moves a number gets a new name.
        reference: a dataset split ("mnist/train") or "sha256:..." of other samples.
        metrics: metric specs, e.g. ("fid", "kid:subsets=100", "prdc@pixels").
        extractor: what maps samples to rows where a spec names none.
        preprocess: resizing mode; None for the extractor's own default.
        n: generated samples; None for as many as there are.
        n_ref: reference samples; None for all.
        seed: of every draw.
        shard: samples per cache entry.
        batch: rows per forward pass; None for the extractor's own. Network outputs change in the last bits with it.
        order: of the rows that metrics see: by "content", so that no file's name moves a number, or by "file", as other tools take them.
    """

    name: str
    reference: str
    metrics: tuple[str, ...]
    extractor: str = "identity"
    preprocess: str | None = None
    n: int | None = None
    n_ref: int | None = None
    seed: int = 0
    shard: int = SHARD
    batch: int | None = None
    order: str = "content"

    @property
    def specs(self) -> tuple[MetricSpec, ...]:
        """The metric specs, parsed."""
        return tuple(parse_spec(m) for m in self.metrics)

    def extractor_of(self, spec: MetricSpec) -> str:
        """What a metric is computed on: what its spec says, else the metric's own extractor, else the protocol's."""
        return spec.extractor or registry.metric(spec.name).extractor or self.extractor

    def resolved(self) -> "Protocol":
        """The same protocol with every default written out and every name checked.

        Raises:
            UsageError: an unknown metric, setting, extractor or preprocessing mode; the message has the near miss.
        """
        seen: dict[str, None] = {}
        for spec in self.specs:
            found = registry.metric(spec.name)
            check_settings(spec, found)
            if spec.extractor is not None:
                registry.module("extractors", spec.extractor)
            seen[
                str(dataclasses.replace(spec, extractor=None if spec.extractor == (found.extractor or self.extractor) else spec.extractor))
            ] = None
        if self.order not in ("content", "file"):
            raise UsageError(f"order is 'content' or 'file', found {self.order!r}")
        module = registry.module("extractors", self.extractor)
        mode = self.preprocess or module.MODES[0]
        if mode not in module.MODES:
            raise near_miss(mode, module.MODES, f"preprocessing mode of extractor {self.extractor}")
        for count, what in ((self.n, "n"), (self.n_ref, "n_ref")):
            if count is not None and count < 1:
                raise UsageError(f"{what} must be at least 1, found {count}")
        return dataclasses.replace(self, metrics=tuple(seen), preprocess=mode, batch=self.batch or module.BATCH)

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of everything but the name, defaults written out."""
        fields = self._fields()
        del fields["name"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """For the record: every field, defaults written out, and the hash."""
        fields = self._fields()
        fields["metrics"] = list(fields["metrics"])
        return fields | {"hash": self.hash}

    def _fields(self) -> dict[str, Any]:
        """All fields but those that came later and have their default: earlier records keep their hash."""
        fields = dataclasses.asdict(self.resolved())
        if self.order == "content":
            del fields["order"]
        return fields


def protocols() -> dict[str, Protocol]:
    """Every named protocol: the presets of other tools, and those that each dataset file brings."""
    from genbench.presets import PRESETS

    found: dict[str, Protocol] = dict(PRESETS)
    for name in registry.modules("datasets"):
        found |= getattr(registry.module("datasets", name), "PROTOCOLS", {})
    return dict(sorted(found.items()))


def protocol(name: str) -> Protocol:
    """The named protocol.

    Raises:
        UsageError: there is none of that name.
    """
    known = protocols()
    if name not in known:
        raise near_miss(name, known, "protocol")
    return known[name]
