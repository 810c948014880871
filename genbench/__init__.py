"""genbench: evaluate generative models; every number has an interval, a protocol and a record.

import genbench
run = genbench.evaluate("samples/", reference="mnist", extractor="mnist")
run["fid_debiased"].value, run["fid_debiased"].low, run["fid_debiased"].high

found = genbench.train("made", "mnist-dynbin", budget="5min")           # into a run folder; the same call again goes on or returns at once
genbench.sample(found.folder, 10_000, "samples.npz")                    # the samples of a run folder
genbench.verify("leaderboards/digits-2/runs/ID.json").ok                # a row of a leaderboard, made again and compared
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genbench.comparison import Comparison as Comparison
    from genbench.comparison import compare as compare
    from genbench.comparison import compare_protocols as compare_protocols
    from genbench.errors import DataError as DataError
    from genbench.errors import GenbenchError as GenbenchError
    from genbench.errors import MissingError as MissingError
    from genbench.errors import UsageError as UsageError
    from genbench.estimate import Estimate as Estimate
    from genbench.evaluation import evaluate as evaluate
    from genbench.monitor import Monitor as Monitor
    from genbench.protocol import Protocol as Protocol
    from genbench.run import Run as Run
    from genbench.samples import open_samples as open_samples
    from genbench.trained import Trained as Trained
    from genbench.trained import sample as sample
    from genbench.trained import train as train
    from genbench.verification import Verification as Verification
    from genbench.verification import verify as verify

_HOME = {
    "Comparison": "comparison",
    "DataError": "errors",
    "Estimate": "estimate",
    "GenbenchError": "errors",
    "MissingError": "errors",
    "Monitor": "monitor",
    "Protocol": "protocol",
    "Run": "run",
    "Trained": "trained",
    "UsageError": "errors",
    "Verification": "verification",
    "compare": "comparison",
    "compare_protocols": "comparison",
    "evaluate": "evaluation",
    "open_samples": "samples",
    "sample": "trained",
    "train": "trained",
    "verify": "verification",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import genbench` imports no torch (PEP 562)."""
    if name == "__version__":
        from genbench.run import version

        return version()
    if name in _HOME:
        import importlib

        value = getattr(importlib.import_module(f"genbench.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'genbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
