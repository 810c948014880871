"""Protocols that reproduce what other tools print, so that a published number can be met.

A preset fixes extractor, resizing, splits, subsets and inequalities as its tool has them; the reference is the user's own ("*"). The
values are the raw ones of the tool; genbench's intervals stand beside them where the form has one. What still differs:

- torchmetrics, clean-fid: their KID subsets are drawn from a generator that is not seeded; the mean moves with every run.
- torchmetrics: its Inception Score shuffles from the global generator.
- adm: its Inception Score takes parts of 5,000, which are 10 at the usual n = 50,000; its precision and recall round features to half
  precision, so that a borderline neighbour can change sides.
- prdc: a tool for features; it has no extractor of its own. Pass --extractor, or vectors.
- dgm-eval: its KID is a mean over unseeded subsets; here the whole sample.
"""

from genbench.protocol import ANY, Protocol

_SUBSETS = "kid:subsets=100,subset_size=1000"


def _preset(name: str, extractor: str, preprocess: str | None, *metrics: str, seed: int = 0) -> Protocol:
    # These tools cut subsets and splits from the files' own order.
    return Protocol(name, ANY, metrics, extractor, preprocess, seed=seed, order="file")


PRESETS = {
    p.name: p
    for p in (
        _preset("ttur", "inception", "tf1", "fid"),
        _preset("pytorch-fid", "inception", "torch", "fid"),
        _preset("clean-fid", "inception", "clean", "fid", _SUBSETS),
        _preset("torch-fidelity", "inception", "tf1", "inception_score:splits=10", "fid", _SUBSETS, seed=2020),
        _preset("torchmetrics", "inception", "torch-aa", "fid", _SUBSETS, "inception_score:splits=10"),
        _preset("adm", "inception", "tf1", "inception_score:shuffle=false,splits=10", "fid", "sfid", "prdc:equal=false,k=3"),
        _preset("edm", "inception", "tf1", "fid"),
        _preset("dgm-eval", "dinov2", None, "fid", "kid", "prdc:closed=false,equal=false", "vendi", "authenticity", "ct_score", "fld"),
        _preset("prdc", "identity", None, "prdc:closed=false,equal=false"),
    )
}
