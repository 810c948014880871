"""Shared fixtures: a cache of its own for every test session, and real data where there is some."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache."""
    os.environ["GENBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds MNIST/raw; tests that need it are skipped where there is none."""
    root = os.environ.get("GENBENCH_DATA")
    if not root or not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip("needs MNIST under GENBENCH_DATA")
    return Path(root)
