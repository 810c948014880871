"""Content-addressed shards of features on disk.

The key is everything that can change the bits: the samples' digests, the extractor with its weights and preprocessing, the
shard's bounds, the forward batch and the format's version. A folder's name is never part of it.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.files import write_atomic

FORMAT = 1


def cache_root() -> Path:
    """The cache folder: GENBENCH_CACHE, else the user's cache folder."""
    if os.environ.get("GENBENCH_CACHE"):
        return Path(os.environ["GENBENCH_CACHE"])
    from platformdirs import user_cache_path

    return user_cache_path("genbench")


def key(**parts: Any) -> str:
    """The sha256 of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps({"format": FORMAT} | parts, sort_keys=True).encode()).hexdigest()


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    h = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name}{a.dtype.str}{a.shape}".encode())
        h.update(a.tobytes())
    return h.hexdigest()


class Cache:
    """Shards of arrays by key, each verified by its digest when it is read.

    Args:
        root: the cache folder; None for no cache.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._broken = False

    def _path(self, k: str) -> Path:
        assert self.root is not None
        return self.root / "features" / k[:2] / f"{k}.safetensors"

    def get(self, k: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a key, None where there are none or where the file is damaged (said on stderr, then recomputed)."""
        if self.root is None:
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._path(k)
        try:
            arrays = dict(load(path.read_bytes()))
            wanted = bytes(arrays.pop("sha256")).hex()
            if _digest(arrays) == wanted:
                return arrays
            why = "its digest does not match"
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError) as e:
            why = str(e)
        print(f"genbench: cache file {path.name} is damaged ({why}); computed again", file=sys.stderr)
        return None

    def put(self, k: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the arrays; a cache that cannot be written is said once on stderr and the run goes on without it."""
        if self.root is None or self._broken:
            return
        from safetensors.numpy import save

        contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        digest = np.frombuffer(bytes.fromhex(_digest(contiguous)), np.uint8)
        try:
            write_atomic(self._path(k), save(contiguous | {"sha256": digest}))
        except OSError as e:
            self._broken = True
            print(
                f"genbench: cannot write the cache {self.root} ({e.strerror or e}); going on without it. Set GENBENCH_CACHE to a "
                "writable folder with free space",
                file=sys.stderr,
            )

    def entries(self) -> Iterator[Path]:
        """The files of all stored shards."""
        if self.root is not None:
            yield from sorted((self.root / "features").glob("??/*.safetensors"))

    def verify(self) -> list[Path]:
        """The files whose digest does not match."""
        return [p for p in self.entries() if self.get(p.stem) is None]

    def clear(self) -> int:
        """Delete all stored shards; returns their number."""
        found = len(list(self.entries()))
        if self.root is not None and (self.root / "features").is_dir():
            shutil.rmtree(self.root / "features")
        return found
