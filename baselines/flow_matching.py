"""Flow matching: a net learns the velocity of straight lines from noise to data; an ODE along it makes the samples.

Family: diffusion. Source: Lipman, Chen, Ben-Hamu, Nickel & Le 2022, "Flow matching for generative modeling", arXiv 2210.02747; straight
lines of Liu, Gong & Liu 2022, arXiv 2209.03003; minibatch transport of Tong et al. 2023, arXiv 2302.00482.
x_t = (1 − t) e + t x, e standard normal, loss E ‖v(x_t, t) − (x − e)‖² (eq. 23 with σ_min = 0); sampling solves dx/dt = v(x, t) from t = 0
to 1. NFE, the network evaluations per sample, is the setting `nfe`: on grid25 it decides the quality more than training does.
Can: sample; log p along the ODE: of vectors exact up to the solver's tolerance, of images a lower bound in expectation (a conditional
model's none). flow_matching:conditional is told the class, flow_matching:guided moves away from what it would do untold (Ho & Salimans
2022, "Classifier-free diffusion guidance", arXiv 2207.12598).

    genbench bench toy2d --only flow_matching

Time: on grid25 114 CPU-seconds (one thread); reached 25 of 25 modes, 97.7 % of samples within 3 SD (98.9 % of the law's own are) at NFE 20
and 97.7 % at NFE 10, NLL − entropy 0.04 nats. In the budget of twenty minutes 98.7 % and 0.03. Without transport 1,000 steps reached 0.38,
with it 0.19.
On mnist, FD in the features of the mnist extractor at NFE 20 (5,000 samples) after 65 CPU-seconds: 35.4 with batches of 64, 29.6 of 32,
26.8 of 16; 15.7 in the budget of five minutes, 9.2 in that of twenty.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench import denoising, training
from genbench.errors import UsageError, near_miss
from genbench.models import TrainingData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FAMILY = "diffusion"
SUMMARY = "flow matching along straight lines, with minibatch optimal transport"
SOURCE = "arXiv:2210.02747"
EVALUATIONS = {"euler": 1, "midpoint": 2}


@dataclass(frozen=True)
class Config(denoising.Config):
    """Settings, beside those of every denoising model.

    Args:
        transport: pair noise and data of a batch so that the lines are shortest (OT-CFM); False: as they come.
        solver: "euler", or "midpoint" with two evaluations per step.
        spacing: power p of the sampler's times 1 − (1 − s)^p, s even over [0, 1]: above 1 the steps get shorter towards the data.
    """

    transport: bool = False
    solver: str = "midpoint"
    spacing: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver not in EVALUATIONS:
            raise near_miss(self.solver, EVALUATIONS, "solver")
        if self.nfe % EVALUATIONS[self.solver] or not self.spacing > 0:
            raise UsageError(
                f"nfe is a multiple of {EVALUATIONS[self.solver]} with the {self.solver} solver and spacing above 0, found {self.nfe} and "
                f"{self.spacing}"
            )


RECIPES = {
    "vectors": Config(steps=8000, batch=256, lr=2e-3, width=128, blocks=3, fourier=1.0, ema=0.999, transport=True),
    "digits": Config(steps=3000, batch=100, lr=1e-3, width=32, blocks=1, ema=0.999, nfe=20),
    "mnist": Config(steps=10_000, batch=16, lr=2e-3, width=32, blocks=1, patch=2, ema=0.999, bf16=True, nfe=20, tolerance=1e-3),
    # Sized by its arithmetic for 20 minutes of one GPU; not run yet.
    "cifar10": Config(steps=20_000, batch=128, lr=4e-4, width=128, blocks=3, ema=0.9995, clip=1.0, bf16=True, nfe=50, tolerance=1e-3),
}
VARIANTS = {
    "independent": {"vectors": replace(RECIPES["vectors"], transport=False)},
    "conditional": {key: replace(RECIPES[key], conditional=True) for key in ("digits", "mnist", "cifar10")},
    "guided": {key: replace(RECIPES[key], conditional=True, guidance=2.0) for key in ("digits", "mnist", "cifar10")},
}
BUDGETS = {
    "vectors": {"1min": {"steps": 4000}, "5min": {}, "20min": {"batch": 512, "steps": 17_000}},
    "mnist": {"1min": {"steps": 2400}, "5min": {}, "20min": {"steps": 40_000}},
    "cifar10": {"20min": {}},
}
SMOKE = {
    "vectors": Config(steps=150, batch=128, lr=1e-2, width=16, blocks=1, tolerance=1e-2),
    "images": Config(steps=40, batch=64, lr=1e-2, width=8, blocks=1, nfe=4, tolerance=1e-2),
    "images:guided": Config(steps=40, batch=64, lr=1e-2, width=8, blocks=1, nfe=4, tolerance=1e-2, conditional=True, guidance=1.5),
}


class Model(denoising.Model):
    """Flow matching. Time 0 is noise, time 1 data."""

    @property
    def bound(self) -> str | None:
        # Of images only log p of a class is bounded: a sum over classes of what Hutchinson's probe makes noisy lies too high.
        return "exact" if not self.grey else None if self.config.conditional else "lower"

    def velocity(self, z: "Tensor", t: "Tensor") -> "Tensor":
        return self.output(z, t)

    def log_prob_rows(self, x: "Tensor") -> "Tensor":
        return self.ode_log_prob(x, 1.0, 0.0)

    def denoise(self, e: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        import torch

        z, steps = e, self.config.nfe // EVALUATIONS[self.config.solver]
        times = 1 - (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** self.config.spacing
        for t, after in zip(times.tolist(), times[1:].tolist(), strict=False):
            h = after - t
            slope = self.velocity(z, z.new_full((len(z),), t))
            if self.config.solver == "midpoint":
                slope = self.velocity(z + h / 2 * slope, z.new_full((len(z),), t + h / 2))
            z = z + h * slope
        return z


def shortest(e: "Tensor", z: "Tensor") -> "Tensor":
    """The noise in the order in which Σ ‖e_i − z_i‖² over the batch is least."""
    import torch
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment(torch.cdist(z.flatten(1), e.flatten(1)).square().cpu().numpy())
    return e[torch.from_numpy(order).to(e.device)]


def train(config: Config, data: TrainingData, *, seed: int, out: Path | None = None) -> Model:
    """Least squares on the velocity at uniform times, with Adam."""
    import torch

    model = Model.new(config, data.shape, denoising.constants_of(config, data), seed=seed)
    model.say(config.solver, f"log p of the ODE itself, tolerance {config.tolerance:g}")
    optimiser = torch.optim.Adam(model.net.parameters(), lr=config.lr, fused=True)

    def step(now: training.Step) -> dict[str, Any]:
        z = model.noisy(now.x)
        e = torch.randn_like(z)
        e = shortest(e, z) if config.transport else e
        t = torch.rand(len(z), device=z.device)
        at = t.reshape(-1, *[1] * (z.ndim - 1))
        loss = (model.learning(now.labels).velocity((1 - at) * e + at * z, t) - (z - e)).square().mean()
        now.update(loss)
        return {"square": loss}

    fitted = training.fit(step, config, data, modules={"net": model.net}, optimisers={"net": optimiser}, seed=seed, out=out)
    return model.trained(fitted)
