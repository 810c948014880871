"""Extractors: what each gives, how weights are found, and parity with the tools whose networks they are."""

import hashlib
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import lpips_files, sane
from safetensors.torch import save_file
from torch import nn

import genbench
from genbench import extractor as shared
from genbench import registry
from genbench.errors import DataError, MissingError, UsageError
from genbench.extractors import clip, digits, dinov2, identity, inception, inception_spatial, lpips, mnist, pixels
from genbench.extractors import random as random_network


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


# ---------------------------------------------------------------- identity and pixels


def test_identity_gives_the_vectors_back() -> None:
    x = np.random.default_rng(0).normal(size=(7, 3))
    out = identity.load(shape=(3,))(x)
    assert np.array_equal(out.features, x)
    assert out.features.dtype == np.float64
    assert out.logits is None


def test_identity_refuses_images_and_names_the_cure() -> None:
    with pytest.raises(DataError, match="pixels"):
        identity.load(shape=(3, 8, 8))
    with pytest.raises(DataError, match="pixels"):
        identity.load(shape=(3,))(noise(2, 3, 8, 8))


def test_pixels_are_levels_in_reading_order() -> None:
    x = noise(4, 3, 5, 6)
    e = pixels.load(shape=(3, 5, 6))
    assert e.dim == 90
    assert np.array_equal(np.round(e(x).features * 255).astype(np.uint8).reshape(x.shape), x)


def test_pixels_refuse_vectors_and_name_the_cure() -> None:
    with pytest.raises(DataError, match="identity"):
        pixels.load(shape=(4,))


@pytest.mark.parametrize("module", [identity, pixels, random_network], ids=lambda m: m.__name__.rpartition(".")[2])
def test_an_extractor_without_weights_refuses_a_file(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no weights"):
        module.load(shape=(3,) if module is identity else (1, 8, 8), weights=tmp_path / "w.pt")


# ---------------------------------------------------------------- random


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 32, 32), (4, 9, 13)], ids=str)
def test_random_takes_any_image(shape: tuple[int, int, int]) -> None:
    e = random_network.load(shape=shape)
    out = e(noise(5, *shape))
    assert out.features.shape == (5, 256)
    assert np.isfinite(out.features).all()
    assert len(e.weights) == 64


def test_random_weights_are_the_same_everywhere() -> None:
    """A golden digest: raw words of PCG64 scaled in float64 are the same with every NumPy and torch."""
    assert shared.sha256_arrays(random_network.draw_weights(3)).startswith("33b338ba")
    assert shared.sha256_arrays(random_network.draw_weights(1)) != shared.sha256_arrays(random_network.draw_weights(3))


def test_an_array_that_cannot_be_written_is_read() -> None:
    x = noise(2, 1, 28, 28)
    x.setflags(write=False)
    for module in (pixels, random_network, mnist):
        module.load(shape=(1, 28, 28))(x)


def test_random_features_tell_textures_apart() -> None:
    e = random_network.load(shape=(1, 28, 28))
    flat = np.full((20, 1, 28, 28), 128, np.uint8)
    a, b = e(noise(20, 1, 28, 28)).features, e(flat).features
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 3 * np.linalg.norm(a.std(0))


# ---------------------------------------------------------------- digits and mnist

CLASSIFIERS = [digits, mnist]


def classifier_name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


@pytest.mark.parametrize("module", CLASSIFIERS, ids=classifier_name)
def test_shipped_weights_are_those_of_their_sheet(module: ModuleType) -> None:
    path = shared.shipped_weights(classifier_name(module))
    sheet = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size < 2e6
    assert sheet["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sheet["sha256"] == module.load().weights
    assert sheet["parameters"] == sum(v.numel() for v in shared.read_tensors(path, "x").values())
    assert sheet["test_accuracy"] >= {"digits": 0.98, "mnist": 0.995}[classifier_name(module)]


@pytest.mark.parametrize("module", CLASSIFIERS, ids=classifier_name)
def test_classifier_outputs(module: ModuleType) -> None:
    e = module.load()
    out = e(noise(6, 1, module.SIZE, module.SIZE))
    assert out.features.shape == (6, module.DIM)
    assert out.logits.shape == (6, 10)
    assert out.logits.dtype == np.float32
    assert e.classes == tuple("0123456789")


@pytest.mark.parametrize("module", CLASSIFIERS, ids=classifier_name)
def test_grey_images_in_three_channels_are_the_same_images(module: ModuleType) -> None:
    x, e = noise(6, 1, module.SIZE, module.SIZE), module.load(shape=(3, module.SIZE, module.SIZE))
    assert np.array_equal(e(np.repeat(x, 3, axis=1)).features, e(x).features)


@pytest.mark.parametrize("module", CLASSIFIERS, ids=classifier_name)
def test_a_coloured_image_is_refused_with_its_index(module: ModuleType) -> None:
    x = np.repeat(noise(6, 1, module.SIZE, module.SIZE), 3, axis=1)
    x[4, 2, 1, 1] ^= 1
    with pytest.raises(DataError, match="image 4"):
        module.load()(x)


@pytest.mark.parametrize("module", CLASSIFIERS, ids=classifier_name)
def test_another_size_is_refused_before_images_are_read(module: ModuleType) -> None:
    with pytest.raises(DataError, match=rf"{module.SIZE}, {module.SIZE}\)"):
        module.load(shape=(1, 32, 32))


def test_digits_classifier_reaches_its_accuracy() -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = np.round(found.images * 255 / 16).astype(np.uint8)[1350:, None]
    sheet = json.loads(shared.shipped_weights("digits").with_suffix(".json").read_text())
    accuracy = (digits.load()(x).logits.argmax(1) == found.target[1350:]).mean()
    assert accuracy == pytest.approx(sheet["test_accuracy"], abs=1 / 447), "one image may flip with the machine's rounding"


@pytest.mark.data
def test_mnist_classifier_reaches_its_accuracy(mnist_root: Path) -> None:
    raw = mnist_root / "MNIST" / "raw"
    x = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    y = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    e = mnist.load()
    right = np.concatenate([e(x[i : i + 500]).logits.argmax(1) for i in range(0, len(x), 500)]) == y
    sheet = json.loads(shared.shipped_weights("mnist").with_suffix(".json").read_text())
    assert right.mean() == pytest.approx(sheet["test_accuracy"], abs=2e-4)
    assert right.mean() >= 0.993


def test_folding_a_batch_norm_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    layers, _ = mnist.network(batch_norm=True)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(generator=generator)
    layers.eval()
    x = torch.randn(4, 1, 28, 28, generator=generator)
    with torch.no_grad():
        before, after = layers(x), shared.fold_batch_norms(layers)(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in shared.fold_batch_norms(layers))
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(10, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not fit"):
        mnist.load(weights=tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not fit"):
        mnist.load(weights=shared.shipped_weights("digits"))


def test_damaged_shipped_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "extractors" / "_weights"
    folder.mkdir(parents=True)
    good = shared.shipped_weights("digits")
    (folder / "digits.json").write_text(good.with_suffix(".json").read_text())
    (folder / "digits.safetensors").write_bytes(good.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(shared, "__file__", str(tmp_path / "extractor.py"))
    with pytest.raises(MissingError, match="damaged"):
        digits.load()
    with pytest.raises(MissingError, match="absent"):
        mnist.load()


# ---------------------------------------------------------------- finding weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache" / "weights"


CONTENT = b"the weights"
FILE = shared.WeightFile("net.pth", "https://example.org/net.pth", hashlib.sha256(CONTENT).hexdigest(), "MIT", "11 bytes")


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> list[str]:
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


@pytest.mark.parametrize("name", ["inception", "dinov2", "clip", "lpips"])
def test_absent_weights_say_what_to_put_where(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, CONTENT)
    module = registry.module("extractors", name)
    with pytest.raises(MissingError) as e:
        module.load(shape=(3, 32, 32))
    for part in (str(cache), module.FILES[0].file, module.FILES[0].url, "--weights", "--download"):
        assert part in str(e.value)
    assert e.value.exit_code == 3
    assert not asked, "nothing is fetched unasked"


@pytest.mark.parametrize("name", ["inception", "dinov2", "clip", "lpips"])
def test_published_files_have_whole_digests(name: str) -> None:
    module = registry.module("extractors", name)
    for file in (*module.FILES, *(f for n in getattr(module, "NETWORKS", ()) for f in (n.backbone, n.linear))):
        assert file.sha256 is not None
        assert len(file.sha256) == 64
        assert file.url.startswith("https://")


def test_a_given_path_that_does_not_exist_is_missing(cache: Path) -> None:
    with pytest.raises(MissingError, match="no file at"):
        shared.resolve_weights("net", [FILE], cache / "absent.pth")


def test_weights_in_the_cache_are_used_once_verified(cache: Path) -> None:
    (cache / "net.pth").write_bytes(CONTENT)
    assert shared.resolve_weights("net", [FILE], None) == cache / "net.pth"
    (cache / "net.pth").write_bytes(CONTENT + b"!")
    with pytest.raises(DataError, match="sha256 expected"):
        shared.resolve_weights("net", [FILE], None)


def test_a_download_is_announced_verified_and_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = serve(monkeypatch, CONTENT)
    path = shared.resolve_weights("net", [FILE], None, download=True)
    assert path.read_bytes() == CONTENT
    assert FILE.url in capsys.readouterr().err
    shared.resolve_weights("net", [FILE], None, download=True)
    assert asked == [FILE.url], "fetched once"


@pytest.mark.parametrize(("content", "error"), [(b"<html>404</html>", DataError), (OSError("reset"), OSError)], ids=["other", "cut off"])
def test_a_failed_download_leaves_nothing(
    content: bytes | Exception, error: type[Exception], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, content)
    with pytest.raises(error):
        shared.resolve_weights("net", [FILE], None, download=True)
    assert list(cache.iterdir()) == []


def test_no_network_is_missing_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    serve(monkeypatch, URLError("no route to host"))
    with pytest.raises(MissingError, match="no route to host"):
        shared.resolve_weights("net", [FILE], None, download=True)
    assert list(cache.iterdir()) == []


def test_weights_are_fetched_by_https_only(cache: Path) -> None:
    plain = shared.WeightFile("net.pth", "http://example.org/net.pth", None, "MIT", "1 MB")
    with pytest.raises(UsageError, match="https"):
        shared.resolve_weights("net", [plain], None, download=True)


class Harmful:
    """A pickle of this would touch a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_code_in_a_file_of_weights_is_never_run(suffix: str, tmp_path: Path) -> None:
    torch.save({"fc.weight": Harmful(str(tmp_path / "touched"))}, tmp_path / f"w{suffix}")
    with pytest.raises(DataError, match="holds no weights"):
        inception.load(weights=tmp_path / f"w{suffix}", shape=(3, 32, 32))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 and no more"], ids=["empty", "html", "truncated"])
def test_a_file_that_is_no_weights_is_a_data_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(DataError, match="holds no weights"):
        inception.load(weights=tmp_path / "w.pt", shape=(3, 32, 32))


# ---------------------------------------------------------------- inception


class Unit(nn.Module):
    """A convolution of the published TorchScript: batch norm without a scale, its statistics named beta, mean, var."""

    def __init__(self, inside: int, out: int, kernel: Any, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.weight = nn.Parameter(torch.zeros(out, inside, kh, kw))
        self.beta = nn.Parameter(torch.zeros(out))
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("var", torch.ones(out))
        self.stride = [stride, stride]
        self.padding = [padding, padding] if isinstance(padding, int) else list(padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.conv2d(x, self.weight, None, self.stride, self.padding)
        x = torch.batch_norm(x, None, self.beta, self.mean, self.var, False, 0.1, 1e-3, False)
        return torch.relu(x)


def tower(*units: Unit, pool: nn.Module | None = None) -> nn.Sequential:
    found = nn.Sequential()
    if pool is not None:
        found.add_module("pool", pool)
    for i, unit in enumerate(units):
        found.add_module(f"conv_{i}" if i else "conv", unit)
    return found


class BlockAC(nn.Module):
    def __init__(self, conv: Unit, a: nn.Sequential, b: nn.Sequential, pooled: Unit) -> None:
        super().__init__()
        self.conv, self.tower, self.tower_1 = conv, a, b
        self.tower_2 = tower(pooled, pool=nn.AvgPool2d(3, 1, 1, count_include_pad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(x)], 1)


class BlockB(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Unit(288, 384, 3, 2)
        self.tower = tower(Unit(288, 64, 1), Unit(64, 96, 3, 1, 1), Unit(96, 96, 3, 2))
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.pool(x)], 1)


class BlockD(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = tower(Unit(768, 192, 1), Unit(192, 320, 3, 2))
        self.tower_1 = tower(Unit(768, 192, 1), Unit(192, 192, (1, 7), 1, (0, 3)), Unit(192, 192, (7, 1), 1, (3, 0)), Unit(192, 192, 3, 2))
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.tower(x), self.tower_1(x), self.pool(x)], 1)


class BlockE(nn.Module):
    def __init__(self, inside: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = Unit(inside, 320, 1)
        self.tower_conv, self.tower_1_conv, self.tower_1_conv_1 = Unit(inside, 384, 1), Unit(inside, 448, 1), Unit(448, 384, 3, 1, 1)
        self.tower_mixed_conv, self.tower_mixed_conv_1 = Unit(384, 384, (1, 3), 1, (0, 1)), Unit(384, 384, (3, 1), 1, (1, 0))
        self.tower_1_mixed_conv, self.tower_1_mixed_conv_1 = Unit(384, 384, (1, 3), 1, (0, 1)), Unit(384, 384, (3, 1), 1, (1, 0))
        self.tower_2_pool, self.tower_2_conv = pool, Unit(inside, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        return torch.cat(
            [
                self.conv(x),
                self.tower_mixed_conv(a),
                self.tower_mixed_conv_1(a),
                self.tower_1_mixed_conv(b),
                self.tower_1_mixed_conv_1(b),
                self.tower_2_conv(self.tower_2_pool(x)),
            ],
            1,
        )


def block_a(n: int, pooled: int) -> BlockAC:
    return BlockAC(
        Unit(n, 64, 1),
        tower(Unit(n, 48, 1), Unit(48, 64, 5, 1, 2)),
        tower(Unit(n, 64, 1), Unit(64, 96, 3, 1, 1), Unit(96, 96, 3, 1, 1)),
        Unit(n, pooled, 1),
    )


def block_c(w: int) -> BlockAC:
    across, down = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return BlockAC(
        Unit(768, 192, 1),
        tower(Unit(768, w, 1), Unit(w, w, *across), Unit(w, 192, *down)),
        tower(Unit(768, w, 1), Unit(w, w, *down), Unit(w, w, *across), Unit(w, w, *down), Unit(w, 192, *across)),
        Unit(768, 192, 1),
    )


class Script(nn.Module):
    """The layout of inception-2015-12-05.pt, written apart from the extractor's own table."""

    def __init__(self) -> None:
        super().__init__()
        mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        parts = {
            "conv": Unit(3, 32, 3, 2),
            "conv_1": Unit(32, 32, 3),
            "conv_2": Unit(32, 64, 3, 1, 1),
            "pool0": nn.MaxPool2d(3, 2),
            "conv_3": Unit(64, 80, 1),
            "conv_4": Unit(80, 192, 3),
            "pool1": nn.MaxPool2d(3, 2),
            "mixed": block_a(192, 32),
            "mixed_1": block_a(256, 64),
            "mixed_2": block_a(288, 64),
            "mixed_3": BlockB(),
            "mixed_4": block_c(128),
            "mixed_5": block_c(160),
            "mixed_6": block_c(160),
            "mixed_7": block_c(192),
            "mixed_8": BlockD(),
            "mixed_9": BlockE(1280, mean),
            "mixed_10": BlockE(2048, nn.MaxPool2d(3, 1, 1)),
            "pool2": nn.AvgPool2d(8),
        }
        self.layers = nn.Sequential()
        for name, part in parts.items():
            self.layers.add_module(name, part)
        self.output = nn.Linear(2048, 1008)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 128) / 128).flatten(1)


@pytest.fixture(scope="module")
def script_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = Script()
    script.load_state_dict(sane(script.state_dict()))
    path = tmp_path_factory.mktemp("script") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(script.eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def tiny() -> np.ndarray:
    return noise(2, 3, 32, 32)


def test_inception_gives_features_and_logits_without_bias(
    plain_weights: dict[str, torch.Tensor], weights_file: Path, tiny: np.ndarray
) -> None:
    e = inception.load(weights=weights_file, shape=(3, 32, 32))
    out = e(tiny)
    assert out.features.shape == (2, 2048)
    assert out.logits.shape == (2, 1008)
    assert np.abs(out.features @ plain_weights["fc.weight"].numpy().T - out.logits).max() < 1e-4
    assert e.weights == shared.sha256_file(weights_file)
    assert e.preprocess == "clean"
    assert np.array_equal(e(tiny).features, out.features)


def test_inception_reads_safetensors(plain_weights: dict[str, torch.Tensor], weights_file: Path, tiny: np.ndarray, tmp_path: Path) -> None:
    save_file(plain_weights, tmp_path / "w.safetensors")
    a, b = (inception.load(weights=p, shape=(3, 32, 32))(tiny).features for p in (weights_file, tmp_path / "w.safetensors"))
    assert np.array_equal(a, b)


def test_inception_reads_the_torchscript(script_file: Path, tiny: np.ndarray) -> None:
    e = inception.load(weights=script_file, shape=(3, 32, 32))
    from genbench.preprocess import resize

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(str(script_file))(resize(torch.from_numpy(tiny), (299, 299), "clean")).numpy()
    assert np.abs(e(tiny).features - theirs).max() < 2e-4


def test_a_torchscript_with_the_same_names_and_another_network_is_refused(tmp_path: Path) -> None:
    class Other(Script):
        def __init__(self) -> None:
            super().__init__()
            self.layers.mixed_10.tower_2_pool = nn.AvgPool2d(3, 1, 1)

    script = Other()
    script.load_state_dict(sane(script.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(script.eval()).save(str(tmp_path / "other.pt"))
    with pytest.raises(DataError, match="not the Inception network"):
        inception.load(weights=tmp_path / "other.pt", shape=(3, 32, 32))


@pytest.mark.parity
def test_the_compiled_network_is_the_same_network(weights_file: Path) -> None:
    pytest.importorskip("openvino")
    from genbench.extractors import inception_spatial

    x = noise(5, 3, 32, 32)
    for module in (inception, inception_spatial):
        mine, fast = (module.load(weights=weights_file, shape=(3, 32, 32), device=device) for device in ("cpu", "openvino"))
        for n in (5, 2):  # one network per size of batch
            a, b = mine(x[:n]), fast(x[:n])
            assert np.abs(a.features).max() > 0
            assert np.abs(a.features - b.features).max() < 2e-4
            assert np.array_equal(b.features, fast(x[:n]).features)
    (a, c), (b, d) = mine.both(x), fast.both(x)
    assert np.abs(a.features - b.features).max() < 2e-4
    assert a.logits is not None
    assert b.logits is not None
    assert np.abs(a.logits - b.logits).max() < 2e-3
    assert np.abs(c.features - d.features).max() < 2e-4
    assert np.array_equal(d.features, fast(x).features)


@pytest.mark.parity
def test_a_signal_after_compiled_networks_are_gone_is_handled(weights_file: Path) -> None:
    pytest.importorskip("openvino")
    code = (
        "import faulthandler, signal, sys; faulthandler.enable(); import numpy as np; from genbench.extractors import inception\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('handled'))\n"
        "one, two = (inception.load(weights=sys.argv[1], shape=(3, 32, 32), device='openvino') for _ in range(2))\n"
        "for network in (one, two): network(np.zeros((1, 3, 32, 32), np.uint8))\n"
        "del one, network; import gc; gc.collect(); del two; gc.collect(); signal.raise_signal(signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code, weights_file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_grey_images_are_repeated_to_three_channels(weights_file: Path) -> None:
    e = inception.load(weights=weights_file, shape=(1, 28, 28))
    x = noise(2, 1, 28, 28)
    assert np.abs(e(x).features - e(np.repeat(x, 3, axis=1)).features).max() < 1e-4


def test_inception_rows_do_not_depend_on_their_neighbours(weights_file: Path) -> None:
    e = inception.load(weights=weights_file, shape=(3, 32, 32), preprocess="tf1")
    x = noise(3, 3, 32, 32)
    whole = e(x).features
    for i in range(3):
        assert np.abs(e(x[i : i + 1]).features[0] - whole[i]).max() < 1e-5 * whole.max()


def test_other_weights_name_the_first_tensor_that_differs(plain_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in plain_weights.items() if not k.startswith("Mixed_6c")}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"Mixed_6c\.branch1x1\.conv\.weight"):
        inception.load(weights=tmp_path / "w.pth", shape=(3, 32, 32))


def test_torch_keeps_its_settings(weights_file: Path, tiny: np.ndarray) -> None:
    before = torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.backends.cudnn.allow_tf32
    inception.load(weights=weights_file, shape=(3, 32, 32))(tiny)
    after = torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.backends.cudnn.allow_tf32
    assert before == after


def close(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Within 2e-4, the difference that folding and another memory layout may make."""
    assert np.abs(mine - theirs).max() <= 2e-4
    assert theirs.std(axis=0).max() > 0.01, "the images differ in their features, or the comparison is empty"


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_inception_is_pytorch_fid(
    plain_weights: dict[str, torch.Tensor], weights_file: Path, tiny: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: plain_weights)
    with torch.no_grad():
        theirs = peer.InceptionV3([3]).eval()(torch.from_numpy(tiny).float() / 255)[0][:, :, 0, 0].numpy()
    close(inception.load(weights=weights_file, shape=(3, 32, 32), preprocess="torch")(tiny).features, theirs)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_inception_is_torch_fidelity(weights_file: Path, tiny: np.ndarray) -> None:
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    net = peer.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights_file))
    with torch.no_grad():
        features, logits = (v.numpy() for v in net(torch.from_numpy(tiny)))
    mine = inception.load(weights=weights_file, shape=(3, 32, 32), preprocess="tf1")(tiny)
    close(mine.features, features)
    close(mine.logits, logits)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_inception_is_clean_fid(script_file: Path, tiny: np.ndarray) -> None:
    pytest.importorskip("cleanfid")
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    x = torch.from_numpy(np.stack([resize(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in tiny]))
    with torch.no_grad():
        theirs = InceptionV3W(str(script_file.parent), download=False)(x).numpy()
    close(inception.load(weights=script_file, shape=(3, 32, 32), preprocess="clean")(tiny).features, theirs)


# ---------------------------------------------------------------- two layers of one network


@pytest.mark.parametrize("preprocess", ["clean", "tf1"])
def test_one_pass_gives_the_bits_of_two(weights_file: Path, preprocess: str) -> None:
    x = noise(3, 1, 28, 28)
    options: dict[str, Any] = {"weights": weights_file, "shape": (1, 28, 28), "preprocess": preprocess}
    e = inception_spatial.load(**options)
    network, own = e.both(x)
    alone = inception.load(**options)(x)
    assert np.array_equal(network.features, alone.features)
    assert np.array_equal(network.logits, alone.logits)
    assert np.array_equal(own.features, e(x).features)
    assert own.logits is None
    with pytest.raises(DataError, match="inception_spatial"):
        e.both(np.zeros((2, 7)))


class Passes:
    """Counts what goes through the network; the layers behind sFID's are told apart."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole, self.partial = 0, 0
        whole, partial = inception.Network.outputs, inception.Network.inner

        def counted(network: Any, x: torch.Tensor, *inner: str) -> Any:
            self.whole += len(x)
            return whole(network, x, *inner)

        def counted_partly(network: Any, x: torch.Tensor, stop: str) -> Any:
            self.partial += len(x)
            return partial(network, x, stop)

        monkeypatch.setattr(inception.Network, "outputs", counted)
        monkeypatch.setattr(inception.Network, "inner", counted_partly)

    def take(self) -> tuple[int, int]:
        found, self.whole, self.partial = (self.whole, self.partial), 0, 0
        return found


METRICS = ["kid:subset_size=4", "kid:subset_size=4@inception_spatial"]


def values(run: genbench.Run) -> dict[str, float]:
    return {name: run[name].value for name in run}


@pytest.mark.parametrize("metrics", [METRICS, METRICS[::-1]], ids=["the network first", "the inner layer first"])
def test_each_batch_goes_through_the_network_once(
    metrics: list[str], weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the cache has of either extractor serves a run of the other, of both, and the other way round."""
    monkeypatch.setattr(inception, "BATCH", 2)
    x, y = noise(4, 1, 16, 16), noise(4, 1, 16, 16, seed=1)
    passes = Passes(monkeypatch)

    def run(metrics: list[str], cache: str | None) -> dict[str, float]:
        found = genbench.evaluate(
            x, y, metrics=metrics, extractor="inception", weights=weights_file, cache=cache and tmp_path / cache, device="cpu"
        )
        assert {e["preprocess"] for e in found.record["extractors"].values()} == {"clean"}
        return values(found)

    both = run(metrics, "a")
    assert passes.take() == (8, 0)
    assert run(metrics, "a") == both, "from the cache"
    assert passes.take() == (0, 0)
    apart = run(metrics[:1], "b")
    apart |= run(metrics[1:], "b")
    assert passes.take() == (8, 8)
    assert apart == both, "the same bits"
    assert run(metrics, "b") == both, "cache entries of separate runs"
    assert passes.take() == (0, 0)
    for one in metrics:
        assert run([one], "a").items() <= both.items(), "cache entries of a joint run"
    assert passes.take() == (0, 0)
    run(METRICS[1:], "c")
    assert passes.take() == (0, 8)
    assert run(metrics, "c") == both
    assert passes.take() == (8, 0), "the inner layer is known: the network's own rows alone"


def test_an_inner_layer_that_cannot_give_both_runs_by_itself(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "BATCH", 2)
    monkeypatch.delattr(inception_spatial.InceptionSpatial, "both")
    passes, x = Passes(monkeypatch), noise(4, 1, 16, 16)
    run = genbench.evaluate(x, x, metrics=METRICS, extractor="inception", weights=weights_file, cache=None)
    assert passes.take() == (4, 4)
    assert len(run.record["results"]) > 1


def test_an_inner_layer_takes_the_settings_of_its_network(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two is the protocol's; else sFID would be of other images than FID."""
    for module in (inception, inception_spatial):
        monkeypatch.setattr(module, "BATCH", 2)
    x = noise(2, 1, 16, 16)
    for main in ("inception", "inception_spatial"):
        run = genbench.evaluate(
            x,
            x,
            metrics=["kid:subset_size=2@inception", "sfid"],
            extractor=main,
            preprocess="tf1",
            weights=weights_file,
            cache=None,
        )
        assert run.record["extractors"] == {
            name: {"weights": shared.sha256_file(weights_file), "preprocess": "tf1", "batch": 2}
            for name in ("inception", "inception_spatial")
        }


# ---------------------------------------------------------------- lpips


def pairs(*shape: int, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    x = noise(n, *shape)
    return x, np.clip(x + np.random.default_rng(1).normal(0, 15, x.shape), 0, 255).astype(np.uint8)


def between(e: lpips.Lpips, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((e(x).features.astype(float) - e(y).features) ** 2).sum(axis=1)


def alex(cache: Path, *shape: int) -> lpips.Lpips:
    return lpips.load(weights=cache / "weights" / lpips.ALEX.backbone.file, shape=shape)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(3, 40, 33), (1, 32, 32)], ids=str)
@pytest.mark.parametrize("network", lpips.NETWORKS, ids=lambda n: n.name)
def test_lpips_is_the_package_of_its_authors(network: lpips.Network, shape: tuple[int, ...], tmp_path: Path) -> None:
    """With the published weights of the channels, which the package carries, and random ones of the network."""
    peer = pytest.importorskip("lpips")
    published = Path(peer.__file__).parent / "weights" / "v0.1" / network.linear.file
    assert shared.sha256_file(published) == network.linear.sha256
    path = lpips_files(tmp_path, network)
    (tmp_path / network.linear.file).write_bytes(published.read_bytes())
    theirs = peer.LPIPS(net={"VGG16": "vgg", "AlexNet": "alex"}[network.name], pnet_rand=True, verbose=False)
    state = shared.read_tensors(path, "lpips")
    for name, value in theirs.net.named_parameters():
        value.data.copy_(state[f"features.{name.partition('.')[2]}"])  # slice1.0.weight
    x, y = pairs(*shape)
    with torch.no_grad():
        exact = theirs(*(torch.from_numpy(v).float().expand(-1, 3, -1, -1) / 127.5 - 1 for v in (x, y))).flatten().numpy()
    mine = between(lpips.load(weights=path, shape=shape), x, y)
    assert np.abs(mine / exact - 1).max() < 1e-5
    assert exact.min() > 1e-4


def test_lpips_is_a_squared_metric(lpips_cache: Path) -> None:
    e = alex(lpips_cache, 3, 40, 33)
    x, y, z = noise(4, 3, 40, 33), noise(4, 3, 40, 33, seed=1), noise(4, 3, 40, 33, seed=2)
    assert np.array_equal(between(e, x, x), np.zeros(4))
    assert np.array_equal(between(e, x, y), between(e, y, x))
    assert (between(e, x, y) > 0).all()
    assert (np.sqrt(between(e, x, z)) <= np.sqrt(between(e, x, y)) + np.sqrt(between(e, y, z))).all()


def test_lpips_grows_with_the_noise_and_sees_less_than_a_level(lpips_cache: Path) -> None:
    e = alex(lpips_cache, 3, 40, 33)
    x = noise(4, 3, 40, 33).astype(np.float32)
    drawn = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    found = np.array([between(e, x, x + size * drawn) for size in (0.01, 0.1, 1, 10)])
    assert (np.diff(found, axis=0) > 0).all()
    assert found[1] / found[0] == pytest.approx(np.full(4, 100.0), rel=0.1), "a squared distance"


def test_lpips_on_vgg16_from_the_cache(lpips_cache: Path) -> None:
    e = lpips.load(shape=(3, 16, 20))
    out = e(noise(2, 3, 16, 20))
    assert out.features.dtype == np.float32
    assert e.dim == 64 * 320 + 128 * 80 + 256 * 20 + 512 * 4 + 512
    assert e.weights != lpips.load(weights=lpips_cache / "weights" / lpips.ALEX.backbone.file, shape=(3, 64, 64)).weights
    squares = np.square(out.features[:, : 64 * 320].astype(float)).reshape(2, 64, 16, 20)
    linear = torch.load(lpips_cache / "weights" / "vgg.pth", weights_only=True)["lin0.model.1.weight"].numpy()[0]
    # x̂ has norm 1 at each place, so that the squares over w/(H W) sum to 1
    assert (squares / (linear / 320)).sum(axis=1) == pytest.approx(np.ones((2, 16, 20)), rel=1e-5)


def test_rows_of_lpips_do_not_depend_on_their_neighbours_or_on_equal_channels(lpips_cache: Path) -> None:
    e, x = alex(lpips_cache, 1, 32, 32), noise(5, 1, 32, 32)
    whole = e(x).features
    for i in range(5):
        assert np.abs(e(x[i : i + 1]).features[0] - whole[i]).max() < 1e-5 * np.abs(whole).max()
    assert np.array_equal(e(np.repeat(x, 3, axis=1)).features, whole)


@pytest.mark.parametrize(("network", "side"), [(lpips.VGG, 16), (lpips.ALEX, 31)], ids=["VGG16", "AlexNet"])
def test_images_too_small_for_lpips_are_refused(network: lpips.Network, side: int, lpips_cache: Path) -> None:
    path = lpips_cache / "weights" / network.backbone.file
    e = lpips.load(weights=path, shape=(1, side, side))
    assert np.isfinite(e(noise(1, 1, side, side)).features).all()
    with pytest.raises(DataError, match=rf"at least {side} × {side} pixels, found \(1, {side - 1}, 50\)"):
        lpips.load(weights=path, shape=(1, side - 1, 50))
    with pytest.raises(DataError, match="lpips takes"):
        e(noise(1, 1, side + 1, side))
    with pytest.raises(DataError, match="identity"):
        lpips.load(weights=path, shape=(7,))
    with pytest.raises(DataError, match="1 or 3"):
        lpips.load(weights=path, shape=(4, 40, 40))


@pytest.mark.parametrize("network", lpips.NETWORKS, ids=lambda n: n.name)
def test_lpips_without_the_weights_of_its_channels_says_what_to_put_where(
    network: lpips.Network, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(monkeypatch, CONTENT)
    path = lpips_files(tmp_path, network)
    (tmp_path / network.linear.file).unlink()
    with pytest.raises(MissingError) as e:
        lpips.load(weights=path, shape=(3, 40, 40))
    for part in (str(cache), f"beside {path}", network.linear.file, network.linear.url, "--download"):
        assert part in str(e.value)
    assert "--weights" not in str(e.value), "which is for the network's"
    assert not asked


def test_other_weights_of_the_channels_are_refused(lpips_cache: Path, tmp_path: Path) -> None:
    """Those of version 0.0 have the same shapes; the digest tells them apart."""
    path = lpips_files(tmp_path, lpips.ALEX)
    good = torch.load(tmp_path / "alex.pth", weights_only=True)
    for key, value, match in (
        ("lin3.model.1.weight", None, "expected a tensor lin3.model.1.weight of shape"),
        ("lin3.model.1.weight", torch.ones(1, 5, 1, 1), r"found shape \(1, 5, 1, 1\)"),
        ("lin3.model.1.weight", -good["lin3.model.1.weight"], "numbers >= 0"),
    ):
        torch.save({k: v for k, v in (good | {key: value}).items() if v is not None}, tmp_path / "alex.pth")
        with pytest.raises(DataError, match=match):
            lpips.load(weights=path, shape=(3, 40, 40))


def test_the_digest_of_the_channels_weights_is_checked(tmp_path: Path, cache: Path) -> None:
    path = lpips_files(tmp_path, lpips.ALEX)
    with pytest.raises(DataError, match="is not the published alex.pth: sha256 expected"):
        lpips.load(weights=path, shape=(3, 40, 40))
    (tmp_path / "alex.pth").rename(cache / "alex.pth")
    with pytest.raises(DataError, match="is not the published alex.pth: sha256 expected"):
        lpips.load(weights=path, shape=(3, 40, 40))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features.0.weight": None}, r"expected features.0.weight of shape \(64, 3, 3, 3\) or \(64, 3, 11, 11\), found none"),
        ({"features.0.weight": torch.zeros(64, 3, 7, 7)}, r"found \(64, 3, 7, 7\)"),
        ({"features.8.bias": None}, "expected a tensor features.8.bias of shape"),
        ({"features.12.weight": torch.zeros(1)}, "expected no tensor features.12.weight"),
    ],
    ids=["none", "another network", "a part", "a longer network"],
)
def test_other_backbones_are_refused(change: dict[str, Any], match: str, lpips_cache: Path, tmp_path: Path) -> None:
    state = torch.load(lpips_cache / "weights" / lpips.ALEX.backbone.file, weights_only=True) | change
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=match):
        lpips.load(weights=tmp_path / "w.pth", shape=(3, 40, 40))


# ---------------------------------------------------------------- dinov2 and clip


@pytest.mark.parametrize(("module", "package"), [(dinov2, "timm"), (clip, "open_clip")], ids=["dinov2", "clip"])
def test_an_encoder_without_its_package_gives_the_install_line(
    module: ModuleType, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    save_file({"visual.conv1.weight": torch.zeros(768, 3, 32, 32)}, tmp_path / "w.safetensors")
    with pytest.raises(MissingError, match=r"pip install \"genbench\[encoders\]\""):
        module.load(weights=tmp_path / "w.safetensors", shape=(3, 32, 32))


def test_position_embeddings_of_the_right_grid_are_kept() -> None:
    embedding = torch.randn(1, 1 + 16 * 16, 8, generator=torch.Generator().manual_seed(0))
    assert dinov2.resample_positions(embedding, 16) is embedding
    smooth = torch.linspace(0, 1, 37).repeat(37, 1).reshape(1, 37 * 37, 1)
    out = dinov2.resample_positions(torch.cat([torch.full((1, 1, 1), 9.0), smooth], dim=1), 16)
    assert out.shape == (1, 257, 1)
    assert out[0, 0, 0] == 9
    assert (out[0, 1:].reshape(16, 16).diff(dim=1) > 0).all(), "a ramp stays a ramp"


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_dinov2_is_timm_with_random_weights() -> None:
    timm = pytest.importorskip("timm")
    from genbench.preprocess import resize, standardise

    small = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224).eval()
    state = small.state_dict() | {"mask_token": torch.zeros(1, 384)}
    e = dinov2.Dinov2(dinov2.build(state, "a test", "vit_small_patch14_dinov2"), "0", "clean", "cpu")
    x = noise(2, 3, 40, 30)
    with torch.no_grad():
        theirs = small(standardise(resize(torch.from_numpy(x), (224, 224), "clean"), dinov2.MEAN, dinov2.STD)).numpy()
    assert e.dim == 384
    assert np.abs(e(x).features - theirs).max() < 1e-4
    with pytest.raises(DataError, match="vit_large"):
        dinov2.build(small.state_dict(), "a test")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_clip_is_open_clip_with_random_weights(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    from genbench.preprocess import resize, standardise

    full = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    save_file({f"visual.{k}": v.contiguous() for k, v in full.visual.state_dict().items()}, tmp_path / "w.safetensors")
    e = clip.load(weights=tmp_path / "w.safetensors", shape=(3, 40, 30))
    x = noise(2, 3, 40, 30)
    with torch.no_grad():
        theirs = full.encode_image(standardise(resize(torch.from_numpy(x[:, :, 5:35]), (224, 224), "clean"), clip.MEAN, clip.STD)).numpy()
    assert e.dim == 512
    assert np.abs(e(x).features - theirs).max() < 1e-4
    assert e(noise(2, 1, 40, 30)).features.shape == (2, 512)


@pytest.mark.parametrize("module", [dinov2, clip], ids=["dinov2", "clip"])
@pytest.mark.filterwarnings("ignore")
def test_an_encoder_refuses_other_weights(module: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("timm" if module is dinov2 else "open_clip")
    save_file({"a": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="holds no weights"):
        module.load(weights=tmp_path / "w.safetensors", shape=(3, 32, 32))
