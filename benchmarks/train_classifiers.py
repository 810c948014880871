"""Train the two classifiers that genbench ships: `mnist` (28 x 28) and `digits` (8 x 8).

    GENBENCH_DATA=... python benchmarks/train_classifiers.py mnist --state mnist.ckpt     # about 15 minutes of one core
    python benchmarks/train_classifiers.py digits                                        # under half a minute

Settings were chosen on a validation split of the training set (the last 5,000 images of MNIST's train, images 1000 to 1349
of scikit-learn's digits); the test set is read once, at the end, for the accuracy that is reported. The shipped weights are
the exponential moving average of the last epochs, its batch norms folded into the convolutions. Every draw of an epoch comes
from (seed, epoch) alone, so a run that was interrupted continues from its state file to the same weights. Bits are those of
one machine, one thread count and one torch version; elsewhere the accuracy agrees, the digest does not.
"""

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from genbench.extractor import fold_batch_norms, sha256_file
from genbench.extractors import digits, mnist

WEIGHTS = Path(mnist.__file__).parent / "_weights"
SETTINGS: dict[str, dict[str, Any]] = {
    "mnist": {
        "seed": 0,
        "epochs": 14,
        "batch": 128,
        "lr": 4e-3,
        "weight_decay": 0.02,
        "warmup": 0.2,
        "ema": 0.999,
        "rotate": 10.0,
        "scale": 0.1,
        "shift": 2.0,
        "shear": 6.0,
    },
    "digits": {
        "seed": 0,
        "epochs": 60,
        "batch": 50,
        "lr": 4e-3,
        "weight_decay": 0.05,
        "warmup": 0.2,
        "ema": 0.995,
        "rotate": 10.0,
        "scale": 0.1,
        "shift": 0.7,
        "shear": 6.0,
    },
}
Split = tuple[torch.Tensor, torch.Tensor]  # (n, 1, h, w) uint8, (n,) int64


def read_idx(path: Path) -> np.ndarray:
    """One of MNIST's idx files: two zero bytes, the type (8 = uint8), the number of axes, their sizes big-endian, the bytes."""
    raw = path.read_bytes()
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def data(name: str) -> dict[str, Split]:
    """The splits train, valid and test."""
    if name == "mnist":
        root = Path(os.environ["GENBENCH_DATA"]) / "MNIST" / "raw"
        x, y = read_idx(root / "train-images-idx3-ubyte"), read_idx(root / "train-labels-idx1-ubyte")
        parts = {
            "train": (x[:-5000], y[:-5000]),
            "valid": (x[-5000:], y[-5000:]),
            "test": (read_idx(root / "t10k-images-idx3-ubyte"), read_idx(root / "t10k-labels-idx1-ubyte")),
        }
    else:
        from sklearn.datasets import load_digits

        found = load_digits()
        x, y = np.round(found.images * 255 / 16).astype(np.uint8), found.target
        parts = {"train": (x[:1000], y[:1000]), "valid": (x[1000:1350], y[1000:1350]), "test": (x[1350:], y[1350:])}
    return {k: (torch.from_numpy(a.copy())[:, None], torch.from_numpy(b.astype(np.int64))) for k, (a, b) in parts.items()}


def augment(x: torch.Tensor, s: dict[str, Any], rng: np.random.Generator) -> torch.Tensor:
    """Each image under its own small rotation, scale, shear and shift, resampled bilinearly.

    Args:
        x: (n, 1, h, w) float in [0, 1].
        s: settings: rotate and shear in degrees, scale as a fraction, shift in pixels; each draw is uniform in ± that.
        rng: where the draws come from.
    """
    n, side = len(x), x.shape[-1]
    angle, shear = (math.radians(s[k]) * rng.uniform(-1, 1, n) for k in ("rotate", "shear"))
    zoom = 1 + s["scale"] * rng.uniform(-1, 1, (2, n))
    shift = 2 * s["shift"] / side * rng.uniform(-1, 1, (2, n))
    theta = np.empty((n, 2, 3), np.float32)
    theta[:, 0] = np.stack([np.cos(angle) * zoom[0], -np.sin(angle + shear) * zoom[1], shift[0]], axis=1)
    theta[:, 1] = np.stack([np.sin(angle) * zoom[0], np.cos(angle + shear) * zoom[1], shift[1]], axis=1)
    grid = functional.affine_grid(torch.from_numpy(theta), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class Classifier(nn.Module):
    """The extractor's network with its batch norms, on images in [0, 1]."""

    def __init__(self, module: Any, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers, self.head = module.network(batch_norm=True)
        self.mean, self.std = module.MEAN, module.STD

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers((x - self.mean) / self.std))


def accuracy(model: Classifier, split: Split) -> float:
    """Share of a split's images whose largest logit is the label's, in [0, 1]."""
    model.eval()
    with torch.inference_mode():
        right = [(model(x.float() / 255).argmax(1) == y).sum() for x, y in zip(split[0].split(500), split[1].split(500), strict=True)]
    return int(torch.stack(right).sum()) / len(split[1])


def train(name: str, state: Path | None, settings: dict[str, Any], budget: float | None) -> tuple[Classifier, dict[str, Any]] | None:
    """Fit the classifier; None where the time budget ended first (run it again to go on)."""
    module = {"mnist": mnist, "digits": digits}[name]
    splits, s = data(name), settings
    x, y = splits["train"]
    model = Classifier(module, s["seed"])
    average = copy.deepcopy(model).eval()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": s["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=s["lr"])
    steps = len(x) // s["batch"]
    first, seconds, history = 0, 0.0, []
    if state is not None and state.exists():
        found = torch.load(state, weights_only=True)
        if found["settings"] != s:
            raise SystemExit(f"{state} was made with other settings: {found['settings']}; delete it or name another")
        model.load_state_dict(found["model"])
        average.load_state_dict(found["average"])
        optimizer.load_state_dict(found["optimizer"])
        first, seconds, history = found["epoch"], found["seconds"], found["history"]
    began = time.process_time()
    for epoch in range(first, s["epochs"]):
        rng = np.random.default_rng([s["seed"], epoch])
        order = torch.from_numpy(rng.permutation(len(x)))
        model.train()
        total = 0.0
        for i in range(steps):
            done = epoch * steps + i
            at = done / (s["epochs"] * steps)
            factor = at / s["warmup"] if at < s["warmup"] else 0.5 * (1 + math.cos(math.pi * (at - s["warmup"]) / (1 - s["warmup"])))
            for group in optimizer.param_groups:
                group["lr"] = s["lr"] * factor
            rows = order[i * s["batch"] : (i + 1) * s["batch"]]
            images = augment(x[rows].float() / 255, s, rng)
            loss = functional.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            # The average of parameters and of the batch norms' running statistics alike.
            with torch.no_grad():
                for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    if a.is_floating_point():
                        a.lerp_(b, 1 - min(s["ema"], (1 + done) / (10 + done)))  # short at first, so that it forgets the start
        history.append({"epoch": epoch + 1, "loss": total / steps, "valid": accuracy(average, splits["valid"])})
        spent = seconds + time.process_time() - began
        print(f"epoch {epoch + 1:3d}  loss {total / steps:.4f}  valid {100 * history[-1]['valid']:.2f} %  {spent:.0f} CPU-s", flush=True)
        if state is not None:
            temporary = state.with_suffix(".part")
            torch.save(
                {
                    "settings": s,
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch + 1,
                    "seconds": spent,
                    "history": history,
                },
                temporary,
            )
            os.replace(temporary, state)
        if budget is not None and spent > budget and epoch + 1 < s["epochs"]:
            print("time budget reached; run the same command again to go on")
            return None
    report = {
        "valid_accuracy": accuracy(average, splits["valid"]),
        "test_accuracy": accuracy(average, splits["test"]),
        "n": {k: len(v[1]) for k, v in splits.items()},
        "cpu_seconds": round(seconds + time.process_time() - began),
    }
    return average, report


def ship(name: str, model: Classifier, report: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """Fold the batch norms, write NAME.safetensors and NAME.json, and check that folding moved no logit by more than 1e-3."""
    from safetensors.torch import save_file

    layers = fold_batch_norms(model.layers)
    plain = nn.ModuleDict({"layers": layers, "head": model.head})
    x = data(name)["valid"][0][:200].float() / 255
    with torch.inference_mode():
        moved = (model.head(layers((x - model.mean) / model.std)) - model(x)).abs().max()
    assert moved < 1e-3, moved
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in plain.state_dict().items()}, path)
    path.chmod(0o644)
    sheet = {
        "extractor": name,
        "sha256": sha256_file(path),
        "parameters": sum(p.numel() for p in plain.parameters()),
        "seed": settings["seed"],
        **report,
        "script": "benchmarks/train_classifiers.py",
        "settings": settings,
        "torch": torch.__version__.partition("+")[0],
        "threads": torch.get_num_threads(),
        "licence": "Apache-2.0",
    }
    path.with_suffix(".json").write_text(json.dumps(sheet, indent=2) + "\n")
    print(json.dumps(sheet, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifiers that genbench ships.")
    parser.add_argument("name", choices=sorted(SETTINGS))
    parser.add_argument("--state", type=Path, help="file that holds an interrupted run; written after each epoch")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for NAME.safetensors and NAME.json")
    parser.add_argument("--seconds", type=float, help="stop after about this much CPU time; needs --state to go on")
    parser.add_argument("--threads", type=int, default=1)
    for key, value in SETTINGS["mnist"].items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(value))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = SETTINGS[args.name] | {k: v for k, v in vars(args).items() if k in SETTINGS["mnist"] and v is not None}
    done = train(args.name, args.state, settings, args.seconds)
    if done is not None:
        ship(args.name, *done, settings, args.out)


if __name__ == "__main__":
    main()
