"""Time and memory of genbench beside its peers: the same inputs, weights and threads, in turn in one run.

    python benchmarks/speed.py                     # all cases but the long ones: speed.csv and speed.md
    python benchmarks/speed.py --only kid decode   # cases whose name begins so; the other rows of the table are kept
    python benchmarks/speed.py --long              # the long ones too: 1,000 + 1,000 images through each tool, hours on one core
    python benchmarks/speed.py --render            # the report again from the CSV file

Needs the extra [parity]. A ratio is CPU-seconds of the peer over CPU-seconds of genbench within one round; the table has its median
and range over the rounds, after one that is not counted (none for the long cases, which are processes of their own). CPU-seconds are those
of all threads and child processes. Peak memory is that of the operating system, of a process in which one contender runs once: beyond
its inputs for a function, in all for a command. What the contenders return is compared in every case, and a difference beyond the
stated tolerance ends the run. The bounds that the report gives for missed goals were found by profiling.
"""

import argparse
import contextlib
import csv
import ctypes
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FIELDS = (
    *("case", "peer", "version", "threads", "rounds", "ratio", "low", "high", "goal", "cpu", "cpu_peer", "memory", "memory_peer"),
    *("memory_goal", "difference", "tolerance", "said", "machine"),
)
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pillow")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CHECKPOINT = "torch/hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"  # where pytorch-fid looks with TORCH_HOME=torch


@dataclass(frozen=True)
class Command:
    """A contender that is a process of its own.

    Args:
        arguments: after the Python interpreter.
        number: what its output says; None where there is nothing to compare.
    """

    arguments: Sequence[str]
    number: Callable[[str], float] | None = None


Contenders = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        name: for --only.
        about: what is done, to what.
        make: a scratch folder -> contenders by name, genbench first; for commands it only writes the files that they read.
        goals: peer -> the ratio of CPU-seconds to reach; None for a peer that does other work, shown for information.
        tolerance: peer -> how far its result may be from that of genbench, relative to the largest number of it.
        memory: peer -> the ratio of peak memory to reach.
        absolute: whether differences are absolute instead.
        bound: what bounds the ratio, where a goal is missed.
        rounds: that count.
        commands: a scratch folder -> contenders that are processes of their own, genbench first.
        long: only with --long.
        say: a contender's result -> what the table says of it.
    """

    name: str
    about: str
    make: Callable[[Path], Contenders | None]
    goals: Mapping[str, float | None]
    tolerance: Mapping[str, float]
    memory: Mapping[str, float] = field(default_factory=dict)
    absolute: bool = False
    bound: str = ""
    rounds: int = 3
    commands: Callable[[Path], dict[str, Command]] | None = None
    long: bool = False
    say: Callable[[Any], str] | None = None


# -- inputs ------------------------------------------------------------------------------------------------------------------------


def rows(n: int, d: int, seed: int, shift: float = 0.0, latent: int = 0) -> Any:
    """(n, d) float32 of correlated features; near a subspace of `latent` dimensions where that is given, as features of images are."""
    import numpy as np

    rng, mix = np.random.default_rng(seed), np.random.default_rng(99)
    if latent:
        x = rng.normal(size=(n, latent)) @ mix.normal(size=(latent, d)) / np.sqrt(latent) + 0.1 * rng.normal(size=(n, d))
    else:
        x = rng.normal(size=(n, d)).astype(np.float32) @ (mix.normal(size=(d, d)) / np.sqrt(d)).astype(np.float32)
    return (x * (1 + shift) + shift).astype(np.float32)


def pictures(n: int, size: int, seed: int) -> Any:
    """(n, size, size, 3) smooth images with a little noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse])
    return np.clip(smooth + rng.normal(scale=6, size=smooth.shape), 0, 255).astype(np.uint8)


def folder(where: Path, n: int, seed: int) -> Path:
    """A folder of n PNG files of 32 × 32 pixels."""
    from PIL import Image

    if not where.is_dir():
        where.mkdir(parents=True)
        for i, image in enumerate(pictures(n, 32, seed)):
            Image.fromarray(image).save(where / f"{i:05d}.png")
    return where


def random_weights(path: Path, offsets: float) -> None:
    """Random Inception weights in the file that pytorch-fid and clean-fid look for: He's variance, so that no layer dies out.

    Args:
        path: of the file.
        offsets: standard deviation of biases and running means.
    """
    from unittest import mock

    import torch
    from pytorch_fid import inception

    with mock.patch.object(inception, "load_state_dict_from_url", return_value={}), mock.patch.object(torch.nn.Module, "load_state_dict"):
        state = inception.fid_inception_v3().state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim == 4:
            state[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.is_floating_point():
            state[name] = torch.randn(value.shape, generator=generator) * offsets
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def weights(scratch: Path) -> Path:
    """The file of random weights; made once."""
    path = scratch / CHECKPOINT
    if not path.is_file():
        random_weights(path, 0.02)
    return path


def script(scratch: Path) -> Path:
    """The same weights as a TorchScript file, the form that clean-fid reads: a folder that holds inception-2015-12-05.pt."""
    import warnings

    import torch
    from pytorch_fid.inception import InceptionV3

    class Whole(torch.nn.Module):
        def __init__(self, layers: torch.nn.Module) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = InceptionV3([3], resize_input=False, normalize_input=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)[0]

    path = scratch / "script" / "inception-2015-12-05.pt"
    if not path.is_file():
        weights(scratch)
        path.parent.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(Whole(Layers()).eval(), torch.zeros(2, 3, 299, 299)).save(str(path))
    return path.parent


# -- cases -------------------------------------------------------------------------------------------------------------------------


def frechet_full(scratch: Path) -> Contenders:
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    from genbench.numerics import frechet
    from genbench.statistics import Moments

    g, r = (Moments.of(rows(10_000, 2048, seed, shift)) for seed, shift in ((0, 0.1), (1, 0.0)))
    (mg, sg), (mr, sr) = (g.mean, g.cov), (r.mean, r.cov)
    tensors = [torch.from_numpy(a) for a in (mg, sg, mr, sr)]
    return {
        "genbench": lambda: frechet(g, r),
        "pytorch-fid": lambda: calculate_frechet_distance(mg, sg, mr, sr),
        "torch-fidelity": lambda: fid_statistics_to_metric({"mu": mg, "sigma": sg}, {"mu": mr, "sigma": sr}, False).popitem()[1],
        "torchmetrics": lambda: float(_compute_fid(*tensors)),
    }


def frechet_thin(scratch: Path) -> Contenders:
    import numpy as np
    import torch
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torchmetrics.image.fid import _compute_fid

    from genbench.numerics import frechet
    from genbench.statistics import Features

    g, r = rows(300, 1024, 0, 0.1), rows(300, 1024, 1)

    def moments() -> list[Any]:
        return [f(x) for x in (g, r) for f in (lambda x: x.mean(axis=0, dtype=np.float64), lambda x: np.cov(x, rowvar=False))]

    return {
        "genbench": lambda: frechet(Features(g), Features(r)),
        "pytorch-fid": lambda: calculate_frechet_distance(*moments()),
        "torchmetrics": lambda: float(_compute_fid(*(torch.from_numpy(m) for m in moments()))),
    }


def fid_metric(scratch: Path) -> Contenders:
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance

    from genbench import registry
    from genbench.statistics import Features

    g, r, metric = rows(10_000, 2048, 0, 0.1), rows(10_000, 2048, 1), registry.metric("fid")

    def peer() -> float:
        return float(calculate_frechet_distance(*(f(x) for x in (g, r) for f in (lambda x: x.mean(0), lambda x: np.cov(x, rowvar=False)))))

    return {"genbench": lambda: metric(gen=Features(g), ref=Features(r))["fid"].value, "pytorch-fid": peer}


def kid(n: int, d: int, subsets: int) -> Callable[[Path], Contenders]:
    def make(scratch: Path) -> Contenders:
        import torch
        from cleanfid.fid import kernel_distance
        from torch_fidelity.metric_kid import kid_features_to_metric
        from torchmetrics.image.kid import poly_mmd

        from genbench import registry
        from genbench.statistics import Features

        g, r, metric = rows(n, d, 0, 0.2), rows(n, d, 1), registry.metric("kid")
        tensors = torch.from_numpy(g), torch.from_numpy(r)
        wide = tensors[0].double(), tensors[1].double()
        settings = {"subsets": subsets, "subset_size": 1000, "seed": 2020} if subsets else {}

        def peer() -> float:
            found = kid_features_to_metric(*tensors, kid_subsets=100, kid_subset_size=1000, rng_seed=2020, verbose=False)
            return float(found["kernel_inception_distance_mean"])

        made: Contenders = {
            "genbench": lambda: metric(gen=Features(g), ref=Features(r), **settings)["kid"].value,
            "torch-fidelity": peer,
        }
        if not subsets:
            made["clean-fid"] = lambda: kernel_distance(r, g)
        if not subsets and n <= 5000:  # it holds three matrices of n × n
            made["torchmetrics"] = lambda: float(poly_mmd(wide[1], wide[0]))
        return made

    return make


def pairwise(n: int, whole: bool = False) -> Callable[[Path], Contenders]:
    def make(scratch: Path) -> Contenders:
        import numpy as np
        import torch
        from prdc import compute_prdc
        from torch_fidelity.metric_prc import prc_features_to_metric

        from genbench import registry
        from genbench.numerics import manifold
        from genbench.statistics import Features

        g, r = rows(n, 2048, 0, 0.02, latent=16), rows(n, 2048, 1, latent=16)

        def own() -> Any:
            x, y = Features(g), Features(r)
            if whole:
                return np.array([e.value for e in registry.metric("prdc")(gen=x, ref=y).values()])
            return manifold(x, y, 5).value

        def theirs() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                found = compute_prdc(real_features=r, fake_features=g, nearest_k=5)
            return np.array([found[k] for k in ("precision", "recall", "density", "coverage")])

        def other() -> Any:
            found = prc_features_to_metric(
                torch.from_numpy(g), torch.from_numpy(r), prc_neighborhood=5, prc_batch_size=10_000, save_cpu_ram=False, verbose=False
            )
            return np.array([found["precision"], found["recall"]])

        return {"genbench": own, "prdc": theirs} | ({} if whole else {"torch-fidelity": other})

    return make


def copies(scratch: Path) -> Contenders:
    import numpy as np
    import torch
    from prdc.prdc import compute_pairwise_distance
    from torch_fidelity.metric_prc import calc_cdist_full

    from genbench.numerics import nearest

    train = rows(3000, 2048, 1, latent=16)
    gen = np.concatenate([train[::2], rows(1500, 2048, 0, latent=16)])
    return {
        "genbench": lambda: np.sqrt(nearest(gen, train, 1)[0][:, 0]),
        "torch-fidelity": lambda: calc_cdist_full(torch.from_numpy(gen), torch.from_numpy(train)).min(dim=1).values.numpy(),
        "prdc": lambda: compute_pairwise_distance(gen, train).min(axis=1),
    }


def inception(device: str) -> Callable[[Path], Contenders]:
    def make(scratch: Path) -> Contenders:
        import numpy as np
        import torch
        from cleanfid.inception_torchscript import InceptionV3W
        from pytorch_fid.inception import InceptionV3
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        from genbench.extractors import inception as own

        path = weights(scratch)
        images = np.ascontiguousarray(pictures(16, 299, 0).transpose(0, 3, 1, 2))
        levels = torch.from_numpy(images)
        mine = own.load(preprocess="tf1", weights=path, device=device)
        first = InceptionV3([3], resize_input=False, normalize_input=False).eval()
        second = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        third = InceptionV3W(str(script(scratch))).eval()

        def run(f: Callable[[Any], Any], x: Any) -> Any:
            with torch.no_grad():
                return f(x).reshape(16, 2048).numpy()

        return {
            "genbench": lambda: mine(images).features,
            "pytorch-fid": lambda: run(lambda x: first(x)[0], (levels.float() - 128) / 128),
            "torch-fidelity": lambda: run(lambda x: second(x)[0], levels),
            "clean-fid": lambda: run(third, levels.float()),
        }

    return make


def resizing(size: int) -> Callable[[Path], Contenders]:
    def make(scratch: Path) -> Contenders:
        import numpy as np
        import torch
        from cleanfid.resize import build_resizer

        from genbench.preprocess import resize

        images = pictures(16, size, 0)
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        peer = build_resizer("clean")
        return {
            "genbench": lambda: resize(planes, (299, 299), "clean").numpy(),
            "clean-fid": lambda: np.stack([peer(x) for x in images]).transpose(0, 3, 1, 2),
        }

    return make


def resizing_tf1(size: int) -> Callable[[Path], Contenders]:
    def make(scratch: Path) -> Contenders:
        import numpy as np
        import torch
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as peer

        from genbench.preprocess import resize

        planes = torch.from_numpy(np.ascontiguousarray(pictures(16, size, 0).transpose(0, 3, 1, 2)))
        return {
            "genbench": lambda: resize(planes, (299, 299), "tf1").numpy(),
            "torch-fidelity": lambda: peer(planes.float(), size=(299, 299), align_corners=False).numpy(),
        }

    return make


def decode(scratch: Path) -> Contenders:
    import numpy as np
    import torch
    from cleanfid.utils import ResizeDataset
    from pytorch_fid.fid_score import ImagePathDataset
    from torch_fidelity.datasets import ImagesPathDataset
    from torchvision.transforms import ToTensor

    from genbench.samples import open_samples

    where = folder(scratch / "decode", 2000, 0)
    files = sorted(map(str, where.glob("*.png")))

    def own() -> Any:
        found = open_samples(where, workers=1)
        return np.array([found.read(a, min(a + 50, len(found))).mean(dtype=np.float64) for a in range(0, len(found), 50)])

    def loaded(data: Any, scale: float) -> Any:
        batches = torch.utils.data.DataLoader(data, batch_size=50, shuffle=False, num_workers=0)
        return np.array([float(b.double().mean()) * scale for b in batches])

    unsized = ResizeDataset(files, "clean")
    unsized.fn_resize = lambda x: x  # decoding alone
    return {
        "genbench": own,
        "pytorch-fid": lambda: loaded(ImagePathDataset(files, transforms=ToTensor()), 255.0),
        "torch-fidelity": lambda: loaded(ImagesPathDataset(files), 1.0),
        "clean-fid": lambda: loaded(unsized, 1.0),
    }


CLEAN = (
    "import sys, torch\nfrom cleanfid import fid\nfrom cleanfid.inception_torchscript import InceptionV3W\n"
    "a, b, weights = sys.argv[1:]\nnetwork = InceptionV3W(weights).eval()\n"
    "settings = {'mode': 'clean', 'device': torch.device('cpu'), 'num_workers': 0, 'verbose': False}\n"
    "print('FID:', fid.compute_fid(a, b, custom_feat_extractor=network, **settings))"
)


def after_fid(said: str) -> float:
    """The number after the last "FID:"."""
    return float(re.findall(r"FID:\s*([-\d.e+]+)", said)[-1])


def inputs(n: int) -> Callable[[Path], None]:
    def make(scratch: Path) -> None:
        for name, seed in (("gen", 1), ("ref", 2)):
            folder(scratch / f"{name}{n}", n, seed)
        script(scratch)

    return make


def whole(peer: str, n: int) -> Callable[[Path], dict[str, Command]]:
    def commands(scratch: Path) -> dict[str, Command]:
        a, b, path = str(scratch / f"gen{n}"), str(scratch / f"ref{n}"), str(scratch / CHECKPOINT)
        own = ["-m", "genbench", "eval", a, "--reference", b, "--protocol", peer, "--metrics", "fid", "--weights", path]
        own += ["--no-cache", "--quiet", "--json", "--workers", "1"]
        fidelity = ["-m", "torch_fidelity.fidelity", "--cpu", "--fid", "--json", "--silent", "--no-cache", "--input1", a, "--input2", b]
        theirs = {
            "pytorch-fid": Command(["-m", "pytorch_fid", a, b, "--device", "cpu", "--num-workers", "0"], after_fid),
            "clean-fid": Command(["-c", CLEAN, a, b, str(scratch / "script")], after_fid),
            "torch-fidelity": Command(
                [*fidelity, "--feature-extractor-weights-path", path], lambda said: float(json.loads(said)["frechet_inception_distance"])
            ),
        }
        return {"genbench": Command(own, lambda said: float(json.loads(said)["results"][0]["value"])), peer: theirs[peer]}

    return commands


def start(*arguments: str) -> Callable[[Path], dict[str, Command]]:
    def commands(scratch: Path) -> dict[str, Command]:
        return {
            "genbench": Command(["-m", "genbench", *arguments]),
            "import torch": Command(["-c", "import torch"]),
            "pytorch-fid": Command(["-m", "pytorch_fid", "--help"]),
            "torch-fidelity": Command(["-m", "torch_fidelity.fidelity", "--help"]),
        }

    return commands


def largest_of_copies(distances: Any) -> str:
    return f"{float(distances[:1500].max()):.2g}"


PRODUCTS = (
    "two thirds of genbench's time are float32 products at the limit of the core, 1.9 of the 3 full ones that torch-fidelity computes "
    "for two of the metrics; the rest makes the counts exact: float64 differences of candidates (6 %), their selection, comparisons."
)
DECODER = (
    "of about 95 µs an image Pillow's inflating and unfiltering take 34, which the peers pay too, its objects around them 17, opening and "
    "reading the file 10, checksums and the digest 10; torchvision's decoder would save 15 and has to be imported first."
)
MEMORY = (
    "of the memory importing torch 2.15 holds 527 MiB in either process, beyond which genbench needs about a third of what the peer does."
)
CASES = (
    Case(
        "start-help",
        "start-up: `genbench --help`, beside `import torch` alone and the peers' `--help`",
        lambda scratch: None,
        {"import torch": 1, "pytorch-fid": None, "torch-fidelity": None},
        {},
        commands=start("--help"),
    ),
    Case(
        "start-ls",
        "start-up: `genbench ls metrics`, beside the same",
        lambda scratch: None,
        {"import torch": 1, "pytorch-fid": None, "torch-fidelity": None},
        {},
        commands=start("ls", "metrics"),
    ),
    Case(
        "frechet-full",
        "Fréchet distance of moments, 2,048 features of 10,000 rows",
        frechet_full,
        {"pytorch-fid": 8, "torch-fidelity": 2.5, "torchmetrics": 2.5},
        {"pytorch-fid": 1e-6, "torch-fidelity": 1e-6, "torchmetrics": 1e-6},
    ),
    Case(
        "frechet-thin",
        "Fréchet distance of 300 rows of 1,024 features (singular covariances)",
        frechet_thin,
        {"pytorch-fid": 8, "torchmetrics": 2.5},
        {"pytorch-fid": 1e-2, "torchmetrics": 1e-2},
    ),
    Case(
        "fid-interval",
        "the whole metric `fid` (debiased, with its interval), 10,000 rows of 2,048 features, beside the bare value",
        fid_metric,
        {"pytorch-fid": None},
        {"pytorch-fid": 1e-6},
    ),
    Case(
        "kid-full",
        "`kid` with its interval: 5,000 rows of 2,048 features, all pairs; beside 100 subsets of 1,000, and torchmetrics on all pairs",
        kid(5000, 2048, 0),
        {"torch-fidelity": 3, "clean-fid": 3, "torchmetrics": None},
        {"torch-fidelity": 0.02, "clean-fid": 0.02, "torchmetrics": 1e-6},
    ),
    Case(
        "kid-subsets",
        "`kid:subsets=100`: the same 100 subsets of 1,000 from 5,000 rows of 2,048 features",
        kid(5000, 2048, 100),
        {"torch-fidelity": None},
        {"torch-fidelity": 1e-4},
    ),
    Case(
        "kid-small",
        "`kid` with its interval: 5,000 rows of 64 features",
        kid(5000, 64, 0),
        {"torch-fidelity": 3, "clean-fid": 3, "torchmetrics": 1},
        {"torch-fidelity": 0.05, "clean-fid": 0.05, "torchmetrics": 1e-6},
    ),
    Case(
        "kid-linear",
        "`kid` with its interval in linear time: 20,000 rows of 32 features, all pairs; beside 100 subsets of 1,000",
        kid(20_000, 32, 0),
        {"torch-fidelity": 3, "clean-fid": 3},
        {"torch-fidelity": 0.05, "clean-fid": 0.05},
    ),
    Case(
        "pairwise",
        "precision, recall, density, coverage of 3,000 + 3,000 rows of 2,048 features; torch-fidelity: two of the four",
        pairwise(3000),
        {"prdc": 3, "torch-fidelity": 1.5},
        {"prdc": 1e-3, "torch-fidelity": 1e-3},
        bound=PRODUCTS,
    ),
    Case(
        "pairwise-10k",
        "the same of 10,000 + 10,000 rows",
        pairwise(10_000),
        {"prdc": 3, "torch-fidelity": 1.5},
        {"prdc": 1e-3, "torch-fidelity": 1e-3},
        memory={"prdc": 6},
        bound=PRODUCTS,
    ),
    Case(
        "prdc-interval",
        "the whole metric `prdc` (with intervals and what real samples read), 3,000 + 3,000 rows of 2,048 features, beside the bare values",
        pairwise(3000, whole=True),
        {"prdc": None},
        {"prdc": 1e-3},
    ),
    Case(
        "nearest",
        "distance to the nearest of 3,000 rows of 2,048 features for 3,000 rows, half of them exact copies",
        copies,
        {"torch-fidelity": None, "prdc": None},
        {"torch-fidelity": 0.05, "prdc": 0.05},
        say=largest_of_copies,
    ),
    *(
        Case(
            name,
            about,
            inception(device),
            dict.fromkeys(("pytorch-fid", "torch-fidelity", "clean-fid"), goal),
            dict.fromkeys(("pytorch-fid", "torch-fidelity", "clean-fid"), 2e-4),
            absolute=True,
            rounds=5,
        )
        for name, about, device, goal in (
            ("inception", "Inception-v3 features of 16 images of 299 × 299 pixels, the same random weights", "cpu", 1.5),
            ("fast-inception", "the same by `--device openvino` (extra `[fast]`), compiled before", "openvino", 1.65),
        )
    ),
    Case("resize-32", "resizing 16 images 32 → 299, `clean`", resizing(32), {"clean-fid": 3}, {"clean-fid": 1e-4}, rounds=9),
    Case("resize-256", "resizing 16 images 256 → 299, `clean`", resizing(256), {"clean-fid": 1}, {"clean-fid": 1e-4}, rounds=9),
    Case(
        "resize-32-tf1", "resizing 16 images 32 → 299, `tf1`", resizing_tf1(32), {"torch-fidelity": 3}, {"torch-fidelity": 1e-4}, rounds=9
    ),
    Case(
        "resize-256-tf1",
        "resizing 16 images 256 → 299, `tf1`",
        resizing_tf1(256),
        {"torch-fidelity": 1},
        {"torch-fidelity": 1e-4},
        rounds=9,
    ),
    Case(
        "decode",
        "a folder of 2,000 PNG files of 32 × 32 pixels, opened (checked, fingerprinted) and read, beside the peers' loaders",
        decode,
        {"pytorch-fid": 2, "torch-fidelity": 2, "clean-fid": 2},
        {"pytorch-fid": 1e-5, "torch-fidelity": 1e-5, "clean-fid": 1e-5},
        bound=DECODER,
        rounds=5,
    ),
    *(
        Case(
            f"whole-{n}-{peer}",
            f"whole process, {n:,} + {n:,} images of 32 × 32 pixels, FID in the mode of {peer}",
            inputs(n),
            {peer: goal},
            {peer: tolerance},
            memory={peer: 2} if n < 100 else {},
            bound=MEMORY,
            commands=whole(peer, n),
            long=n > 100,
        )
        for n, goals, tolerance in ((48, (3, 3, 1.6), 1e-2), (1000, (1.6, 1.6, 1.6), 1e-2))
        for peer, goal in zip(("pytorch-fid", "clean-fid", "torch-fidelity"), goals, strict=True)
    ),
)


# -- measuring ---------------------------------------------------------------------------------------------------------------------


def environment(scratch: Path, threads: int) -> dict[str, str]:
    """Of every process that is measured."""
    own = {
        "TORCH_HOME": str(scratch / "torch"),
        "GENBENCH_CACHE": str(scratch / "cache"),
        "PYTHONWARNINGS": "ignore",
        "CUDA_VISIBLE_DEVICES": "",
    }
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    return os.environ | own | {"PYTHONPATH": path} | dict.fromkeys(THREAD_VARIABLES, str(threads))


def process(command: Command, scratch: Path, threads: int) -> tuple[float, float, float | None]:
    """CPU-seconds, peak MiB and number of a process."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, *command.arguments], stdout=out, stderr=log, env=environment(scratch, threads), cwd=scratch
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        if child.returncode != 0:
            raise RuntimeError(f"{' '.join(command.arguments)[:200]} ended with {child.returncode}: {log.read()[-2000:]}")
        said = out.read()
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return used.ru_utime + used.ru_stime, peak, None if command.number is None else command.number(said)


def resident(key: str) -> float:
    """MiB of this process now (VmRSS) or at its peak (VmHWM)."""
    found = re.search(rf"{key}:\s*(\d+)", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("memory is measured on Linux only")
    return int(found[1]) / 1024


def peak_of(f: Callable[[], Any]) -> float:
    """MiB that a call needs beyond what the process held before."""
    with contextlib.suppress(AttributeError):  # of a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but is still held would hide what the call needs
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    before = resident("VmRSS")
    f()
    return resident("VmHWM") - before


def differences(case: Case, found: Mapping[str, Any]) -> dict[str, float]:
    """How far each peer's result is from that of genbench; where a peer has fewer numbers, of those.

    Raises:
        RuntimeError: further than the case's tolerance.
    """
    import numpy as np

    out = {}
    for peer in [p for p in found if p != "genbench"]:
        if found[peer] is None or found["genbench"] is None or peer not in case.tolerance:
            continue
        theirs = np.asarray(found[peer], np.float64)
        mine = np.asarray(found["genbench"], np.float64)
        mine = mine[: len(theirs)] if theirs.ndim else mine
        out[peer] = float(np.abs(mine - theirs).max()) / (1.0 if case.absolute else float(np.abs(theirs).max()))
        if not out[peer] <= case.tolerance[peer]:
            raise RuntimeError(f"{case.name}: {peer} differs from genbench by {out[peer]:.3g}, the tolerance is {case.tolerance[peer]:g}")
    return out


def in_turn(
    names: Sequence[str], rounds: int, warm: bool, once: Callable[[str], tuple[float, Any]]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU-seconds per contender and round, and results; every round begins with another contender. With `warm`, one more round comes
    first and is not counted."""
    cpu: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Any] = {}
    for r in range(1 - warm, rounds + 1):
        for name in [*names[r % len(names) :], *names[: r % len(names)]]:
            seconds, found = once(name)
            results.setdefault(name, found)
            if r:
                cpu[name].append(seconds)
    return cpu, results


def child(case: Case, scratch: Path, contender: str | None) -> dict[str, Any]:
    """In a process of its own: write the files of commands, call functions in turn, or take the memory of one."""
    made = case.make(scratch)
    if made is None:
        return {}
    if contender is not None:
        return {"memory": peak_of(made[contender])}

    def once(name: str) -> tuple[float, Any]:
        started, passes = time.process_time(), 0
        while not passes or time.process_time() - started < 0.2:  # the clock's steps are small beside this
            found = made[name]()
            passes += 1
        return (time.process_time() - started) / passes, found

    cpu, results = in_turn(list(made), case.rounds, True, once)
    said = {name: case.say(found) for name, found in results.items()} if case.say else {}
    return {"cpu": cpu, "difference": differences(case, results), "said": said}


def ask(case: Case, scratch: Path, threads: int, contender: str | None = None) -> dict[str, Any]:
    """`child` in a process."""
    answer = scratch / "answer.json"
    command = [str(Path(__file__).resolve()), "--child", case.name, "--scratch", str(scratch), "--answer", str(answer)]
    process(Command(command + (["--contender", contender] if contender else [])), scratch, threads)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def measure(case: Case, scratch: Path, threads: int) -> dict[str, Any]:
    """CPU-seconds per round, memory, differences of all contenders."""
    found = ask(case, scratch, threads)
    if case.commands is None:
        return found | {"memory": {name: ask(case, scratch, threads, name)["memory"] for name in found["cpu"]}}
    commands, memory = case.commands(scratch), {}

    def once(name: str) -> tuple[float, float | None]:
        seconds, memory[name], number = process(commands[name], scratch, threads)
        return seconds, number

    cpu, results = in_turn(list(commands), case.rounds, not case.long, once)
    return {"cpu": cpu, "difference": differences(case, results), "said": {}, "memory": memory}


def machine() -> str:
    """What was measured on."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = set((re.search(r"flags\s*:\s*(.+)", info) or [""])[0].split())
    vector = next((v for v in ("avx512_bf16", "avx512f", "avx2") if v in flags), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{model[1] if model else platform.processor()} ({vector}), {os.cpu_count()} cores, {memory:.0f} GiB", platform.system()]
    return ", ".join([*parts, f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def entries(case: Case, found: Mapping[str, Any], threads: int) -> list[dict[str, Any]]:
    """Rows of the CSV file: one per peer."""
    from importlib.metadata import version

    cpu, out = found["cpu"], []
    for peer in [name for name in cpu if name != "genbench"]:
        ratios = [theirs / mine for mine, theirs in zip(cpu["genbench"], cpu[peer], strict=True)]
        numbers = {
            "ratio": statistics.median(ratios),
            "low": min(ratios),
            "high": max(ratios),
            "goal": case.goals.get(peer),
            "cpu": statistics.median(cpu["genbench"]),
            "cpu_peer": statistics.median(cpu[peer]),
            "memory": found["memory"]["genbench"],
            "memory_peer": found["memory"][peer],
            "memory_goal": case.memory.get(peer),
            "difference": found["difference"].get(peer),
            "tolerance": case.tolerance.get(peer),
        }
        row = {k: "" if v is None else f"{v:.4g}" for k, v in numbers.items()}
        row |= {"case": case.name, "peer": peer, "version": version("torch" if peer == "import torch" else peer), "threads": str(threads)}
        row |= {"rounds": str(len(ratios)), "machine": machine()}
        row["said"] = f"{found['said'][peer]}, genbench {found['said']['genbench']}" if found["said"] else ""
        out.append(row)
    return out


# -- the report --------------------------------------------------------------------------------------------------------------------


def verdict(row: Mapping[str, str]) -> str:
    """Whether the goals are reached: "yes", "no", or "–" where there are none."""
    asked = [(float(row["ratio"]), row["goal"]), (memory_ratio(row), row["memory_goal"])]
    reached = [ratio >= float(goal) for ratio, goal in asked if goal]
    return ("yes" if all(reached) else "no") if reached else "–"


def memory_ratio(row: Mapping[str, str]) -> float:
    """Memory of the peer over that of genbench, which counts as at least 1 MiB: less is within one page table's noise."""
    return float(row["memory_peer"]) / max(float(row["memory"]), 1.0)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The report."""
    from genbench.report import escaped

    machines = list(dict.fromkeys(r["machine"] for r in rows))
    measured = [case for case in CASES if any(r["case"] == case.name for r in rows)]
    lines = [
        "<!-- generated by benchmarks/speed.py -->",
        "# Time and memory beside the peers",
        "",
        "`ratio`: CPU-seconds of the peer over those of genbench, in turn in one run on the same inputs, weights and threads: median and",
        "range over the rounds. `MiB`: peak memory beyond the inputs, for whole processes in all; the goal for the peer's over genbench's",
        "stands in brackets. `difference`: between the two results, relative to the largest number (absolute for Inception features), and",
        "what is allowed.",
        "",
        "| case | peer | ratio | range | goal | reached | CPU-s, peer's | MiB, peer's | difference |",
        "|---|---|---:|---|---:|---|---:|---:|---:|",
    ]
    for r in sorted(rows, key=lambda r: [c.name for c in measured].index(r["case"])):
        goal = f" [{float(r['memory_goal']):g}]" if r["memory_goal"] else ""
        cells = [
            r["case"],
            f"{r['peer']} {r['version']}",
            f"{float(r['ratio']):.2f}",
            f"{float(r['low']):.2f} to {float(r['high']):.2f}",
            r["goal"] or "–",
            verdict(r),
            f"{r['cpu']}, {r['cpu_peer']}",
            f"{float(r['memory']):.0f}, {float(r['memory_peer']):.0f}{goal}",
            f"{r['difference']} (≤ {r['tolerance']})" if r["difference"] else "–",
        ]
        lines.append(f"| {' | '.join(map(escaped, cells))} |")
    lines += ["", "## Cases", ""]
    for case in measured:
        own = [r for r in rows if r["case"] == case.name]
        where = f"machine {1 + machines.index(own[0]['machine'])}" if len(machines) > 1 else ""
        threads = f"{own[0]['threads']} thread{'s' * (own[0]['threads'] != '1')}"
        said = "; ".join(f"{r['peer']} {r['said']}" for r in own if r["said"])
        how = ", ".join(filter(None, [f"{own[0]['rounds']} rounds", threads, where]))
        lines.append(f"- `{case.name}`: {case.about} ({how}).{said and f' Largest distance of an exact copy: {said}.'}")
        if any(verdict(r) == "no" for r in own):
            lines[-1] += f" **What bounds it:** {case.bound}"
    lines += ["", "## Machines", "", *(f"{i}. {escaped(m)}" for i, m in enumerate(machines, 1))]
    return "\n".join(lines) + "\n"


def table(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows; none where there is no file."""
    return list(csv.DictReader(io.StringIO(path.read_text(), newline=""))) if path.is_file() else []


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """The CSV file in the order of the cases, and the report beside it."""
    order = {case.name: i for i, case in enumerate(CASES)}
    kept = sorted((r for r in rows if r["case"] in order), key=lambda r: order[r["case"]])
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    path.with_suffix(".md").write_text(markdown(table(path)))


def main() -> None:
    """Measure and write, or only write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases whose name begins so")
    parser.add_argument("--long", action="store_true", help="the cases that take hours too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    for hidden in ("--child", "--contender", "--scratch", "--answer"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        found = child(next(c for c in CASES if c.name == args.child), Path(args.scratch), args.contender)
        Path(args.answer).write_text(json.dumps(found))
        return
    path = args.out / "speed.csv"
    chosen = [c for c in CASES if c.name.startswith(tuple(args.only) or "") and (args.long or not c.long)]
    if not chosen:
        parser.error(f"no case begins with {args.only}; there are {', '.join(c.name for c in CASES)}")
    with tempfile.TemporaryDirectory(prefix="speed") as temporary:
        for case in [] if args.render else chosen:
            made = entries(case, measure(case, Path(temporary), args.threads), args.threads)
            for r in made:
                ratio = f"ratio {r['ratio']} ({r['low']} to {r['high']}), goal {r['goal'] or '–'}: {verdict(r)}"
                used = f"CPU-s {r['cpu']} and {r['cpu_peer']}, MiB {r['memory']} and {r['memory_peer']}"
                print(f"{r['case']:22s} {r['peer']:15s} {ratio}; {used}; difference {r['difference'] or '–'} {r['said']}", flush=True)
            write(path, [*(r for r in table(path) if r["case"] != case.name), *made])  # at once: an interrupted run keeps what it has
    write(path, table(path))


if __name__ == "__main__":
    main()
