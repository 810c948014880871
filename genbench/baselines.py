"""Baselines by name: `genbench.baselines.gmm` IS `baselines/gmm.py`.

A module with a `__path__` acts as a package whose files live elsewhere: in a wheel in `genbench/_baselines`, in a checkout in the
folder `baselines` beside `genbench`. New files appear at once; nothing is listed here.
"""

from pathlib import Path

_here = Path(__file__).resolve().parent
_bundled = _here / "_baselines"
__path__ = [str(_bundled if _bundled.is_dir() else _here.parent / "baselines")]
