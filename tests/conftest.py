"""Shared fixtures: a cache of its own for every test session, real data where there is some, an Inception network of random weights."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples in every run, and no example fails for a busy machine.
settings.register_profile("genbench", deadline=None, derandomize=True)
settings.load_profile("genbench")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it


class Rows:
    """The part of Samples that training needs."""

    def __init__(self, rows: Any, labels: Any = None, name: str = "rows") -> None:
        self.rows, self.labels, self.shape, self.name, self.kind = rows, labels, rows.shape[1:], name, "samples"

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> Any:
        return self.rows[start:stop]


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


def sane(state: dict[str, Any]) -> dict[str, Any]:
    """Random weights under which activations neither explode nor vanish: He's variance, batch-norm statistics about 0 and 1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, value in state.items():
        if not value.is_floating_point():
            made[name] = value
        elif value.ndim == 4:
            made[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight", ".var")):
            made[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif name == "fc.weight":
            made[name] = torch.randn(value.shape, generator=generator) * 0.02
        else:
            made[name] = torch.randn(value.shape, generator=generator) * 0.1
    return made


@pytest.fixture(scope="session")
def plain_weights() -> dict[str, Any]:
    """Random weights under the names of pytorch-fid's and torch-fidelity's files, from torchvision's classes patched by shape alone."""
    import warnings

    import torch
    from torchvision.models.inception import BasicConv2d, Inception3

    made: dict[str, Any] = {}

    def unit(name: str, inside: int, out: int, kernel: tuple[int, int]) -> None:
        made[f"{name}.conv.weight"] = torch.empty(out, inside, *kernel)
        for end in ("weight", "bias", "running_mean", "running_var"):
            made[f"{name}.bn.{end}"] = torch.empty(out)
        made[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        net = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    for name, module in net.named_modules():
        if isinstance(module, BasicConv2d):
            unit(name, module.conv.in_channels, module.conv.out_channels, module.conv.kernel_size)
    made["fc.weight"], made["fc.bias"] = torch.empty(1008, 2048), torch.empty(1008)
    return sane(made)


def lpips_files(folder: Path, network: Any) -> Path:
    """Random weights of a network of the extractor lpips, those of its channels beside them; returns the path to load."""
    import torch

    generator = torch.Generator().manual_seed(0)
    made, inside = {}, 3
    for number, out, kernel, _, _ in (conv for _, convs in network.stages for conv in convs):
        made[f"features.{number}.weight"] = torch.empty(out, inside, kernel, kernel)
        made[f"features.{number}.bias"] = torch.empty(out)
        inside = out
    torch.save(sane(made), folder / network.backbone.file)
    channels = [convs[-1][1] for _, convs in network.stages]
    torch.save(
        {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(channels)},
        folder / network.linear.file,
    )
    return folder / network.backbone.file


@pytest.fixture(scope="session")
def _lpips_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from genbench.extractors import lpips

    folder = tmp_path_factory.mktemp("lpips")
    (folder / "weights").mkdir()
    for network in lpips.NETWORKS:
        lpips_files(folder / "weights", network)
    return folder


@pytest.fixture
def lpips_cache(_lpips_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache whose folder `weights` has random weights for the extractor lpips, which takes them for the published ones."""
    from dataclasses import replace

    from genbench.extractors import lpips

    networks = [replace(n, backbone=replace(n.backbone, sha256=None), linear=replace(n.linear, sha256=None)) for n in lpips.NETWORKS]
    monkeypatch.setattr(lpips, "NETWORKS", networks)
    monkeypatch.setattr(lpips, "FILES", (networks[0].backbone,))
    monkeypatch.setenv("GENBENCH_CACHE", str(_lpips_cache))
    return _lpips_cache


@pytest.fixture(scope="session")
def weights_file(plain_weights: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(plain_weights, path)
    return path
