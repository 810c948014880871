"""What adversarial nets share: the two sides' losses, penalties on the critic, the tricks of training, and the two nets' turns.

A generator G maps latents to samples, a critic D maps packs of samples (n, m, ...) to logits (n,) and features (n, k). With r = D(x) of
real and f = D(G(z)) of fake packs, what the two minimise stands in `losses`. A GAN is `Turns` with nets of its own:

    turns = adversarial.Turns(config, generator, critic)

    def step(now):
        x, fake = turns.packed(real(now.x)), turns.packed(generator(z)).detach()
        ...
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genbench import training
from genbench.errors import UsageError, near_miss

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

LOSSES = ("minimax", "nonsaturating", "wasserstein", "hinge", "relativistic")


@dataclass(frozen=True)
class Config(training.Config):
    """Settings of every adversarial training, beside those of every trained net.

    Args:
        loss: one of LOSSES.
        clip_weights: D's weights are cut to ± this after each step; 0 for not at all.
        gradient_penalty: weight of (‖∇D‖ − 1)² between real and fake samples.
        r1: weight of ½ ‖∇D‖² at real samples.
        r2: weight of ½ ‖∇D‖² at fake samples.
        critic_steps: k: D moves in every step, G in every k-th.
        critic_rate: D's learning rate as a multiple of `lr`.
        betas: of Adam.
        smoothing: the target of real samples is 1 less this; for minimax and nonsaturating.
        feature_matching: weight of the distance of D's mean features, which then is G's loss; 0 for the loss itself.
        history: weight of the squared distance of both nets' weights from their mean over the steps so far.
        packing: samples that D sees at once; divides `batch`.
    """

    loss: str = "nonsaturating"
    clip_weights: float = 0.0
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    critic_steps: int = 1
    critic_rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.99)
    smoothing: float = 0.0
    feature_matching: float = 0.0
    history: float = 0.0
    packing: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise near_miss(self.loss, LOSSES, "loss")
        if min(self.critic_steps, self.packing) < 1 or self.batch % self.packing:
            raise UsageError(
                f"critic_steps and packing are at least 1 and packing divides batch, found {self.critic_steps}, {self.packing} and "
                f"batch {self.batch}"
            )
        weights = (self.clip_weights, self.gradient_penalty, self.r1, self.r2, self.feature_matching, self.history)
        if min(weights) < 0 or not self.critic_rate > 0 or not 0 <= self.smoothing < 1:
            raise UsageError(f"weights are at least 0, critic_rate above 0 and smoothing in [0, 1), found {self}")
        if self.smoothing and self.loss not in ("minimax", "nonsaturating"):
            raise UsageError(f"smoothing is of the losses minimax and nonsaturating, found {self.loss}")


# -- losses and penalties ------------------------------------------------------------------------------------------------------------


def losses(loss: str, smoothing: float = 0.0) -> "tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]":
    """What D and G minimise, of logits r of real and f of fake samples.

    Args:
        loss: one of LOSSES.
        smoothing: the target of real samples is 1 less this.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014): minimax, non-saturating; Wasserstein GAN (Arjovsky et al., 2017); Spectral
        Normalization for GANs (Miyato et al., 2018): hinge; The relativistic discriminator (Jolicoeur-Martineau, 2018); Improved Techniques
        for Training GANs (Salimans et al., 2016), section 3.4: one-sided label smoothing.
    """
    from torch.nn.functional import relu, softplus

    s = smoothing

    def told(r: "Tensor", f: "Tensor") -> "Tensor":
        return ((1 - s) * softplus(-r) + s * softplus(r) + softplus(f)).mean()

    return {
        "minimax": (told, lambda r, f: -softplus(f).mean()),  # E log(1 − D)
        "nonsaturating": (told, lambda r, f: softplus(-f).mean()),
        "wasserstein": (lambda r, f: (f - r).mean(), lambda r, f: -f.mean()),
        "hinge": (lambda r, f: (relu(1 - r) + relu(1 + f)).mean(), lambda r, f: -f.mean()),
        "relativistic": (lambda r, f: softplus(f - r).mean(), lambda r, f: softplus(r - f).mean()),
    }[loss]


def slopes(critic: "nn.Module", x: "Tensor") -> "Tensor":
    """‖∇D‖² at every pack, differentiable, (n,)."""
    import torch

    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(critic(x)[0].sum(), x, create_graph=True)
    return found.flatten(1).square().sum(dim=1)


def gradient_penalty(critic: "nn.Module", x: "Tensor", fake: "Tensor") -> "Tensor":
    """Mean of (‖∇D‖ − 1)² at one random point between every real and fake pack.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), eq. 3.
    """
    import torch

    between = fake + torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) * (x - fake)
    return ((slopes(critic, between) + 1e-12).sqrt() - 1).square().mean()


# -- parts of nets -------------------------------------------------------------------------------------------------------------------


def likeness(features: "Tensor", kernels: "Tensor") -> "Tensor":
    """Minibatch discrimination: how near the others of the minibatch are in every kernel, (n, K).

    Args:
        features: (n, F).
        kernels: (F, K, C): a kernel compares C projections.

    References:
        Improved Techniques for Training GANs (Salimans et al., 2016), section 3.2.
    """
    import torch

    m = torch.einsum("nf,fkc->nkc", features, kernels)
    return torch.exp(-(m[:, None] - m).abs().sum(dim=3)).sum(dim=1) - 1


def virtual_norm(size: int, reference: int) -> "nn.Module":
    """Virtual batch norm of (n, size) or (n, size, h, w): by the statistics of the first `reference` rows, each other row's own counting as
    one more row's.

    References:
        Improved Techniques for Training GANs (Salimans et al., 2016), section 3.4.
    """
    import torch
    from torch import nn

    class Virtual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

        def forward(self, x: "Tensor") -> "Tensor":
            rows = x.flatten(2) if x.ndim > 2 else x[:, :, None]  # (n, c, places)
            first, second = rows.mean(dim=2), rows.square().mean(dim=2)
            share = 1 / (reference + 1)
            mean, square = (share * own + (1 - share) * own[:reference].mean(dim=0) for own in (first, second))
            scale = self.weight * torch.rsqrt(square - mean**2 + 1e-5)
            return (rows * scale[..., None] + (self.bias - mean * scale)[..., None]).reshape(x.shape)

    return Virtual()


def settle(net: "nn.Module", batches: "Iterable[Tensor]") -> None:
    """Batch norm's statistics of the final (averaged) weights: plain means over the batches, in which they count equally. Samples are drawn
    with these, never with those of their own batch."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    layers = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    net.train()
    with torch.no_grad():
        for batch in batches if layers else ():
            net(batch)
    net.eval()


# -- the two nets' turns -------------------------------------------------------------------------------------------------------------


class Turns:
    """A generator and a critic that learn in turns, each with Adam: their losses with all penalties, and their updates.

    Args:
        config: the settings.
        generator: G.
        critic: D: packs (n, m, ...) to logits (n,) and features (n, k).
    """

    def __init__(self, config: Config, generator: "nn.Module", critic: "nn.Module") -> None:
        import torch
        from torch import nn
        from torch.nn.utils import parameters_to_vector

        self.config, self.critic = config, critic
        self.nets: dict[str, nn.Module] = {"generator": generator, "critic": critic}
        self.past = nn.Module()  # the weights' means over the steps so far
        for key, net in self.nets.items():
            self.past.register_buffer(key, parameters_to_vector(net.parameters()).detach().clone())
        rates = {"generator": config.lr, "critic": config.lr * config.critic_rate}
        self.optimisers: dict[str, Optimizer] = {
            k: torch.optim.Adam(net.parameters(), lr=rates[k], betas=config.betas, fused=True) for k, net in self.nets.items()
        }
        self._told, self._made = losses(config.loss, config.smoothing)

    @property
    def parts(self) -> "Mapping[str, nn.Module]":
        """What `training.fit` keeps between steps."""
        return {**self.nets, "past": self.past}

    def packed(self, x: "Tensor") -> "Tensor":
        """Samples (n, ...) as packs (n/m, m, ...)."""
        return x.reshape(len(x) // self.config.packing, self.config.packing, *x.shape[1:])

    def critic_loss(self, x: "Tensor", fake: "Tensor") -> "Tensor":
        """What D minimises on packs of real and fake samples."""
        config = self.config
        loss = self._told(self.critic(x)[0], self.critic(fake)[0])
        if config.gradient_penalty:
            loss = loss + config.gradient_penalty * gradient_penalty(self.critic, x, fake)
        for weight, at in ((config.r1, x), (config.r2, fake)):
            if weight:
                loss = loss + 0.5 * weight * slopes(self.critic, at).mean()
        return loss

    def generator_loss(self, x: "Tensor", fake: "Tensor") -> "Tensor":
        """What G minimises; `fake` comes of G with its graph."""
        import torch

        with torch.no_grad():
            r, wanted = self.critic(x)
        f, features = self.critic(fake)
        if self.config.feature_matching:
            return self.config.feature_matching * (features.mean(dim=0) - wanted.mean(dim=0)).square().sum()
        return self._made(r, f)

    def update(self, now: training.Step, key: str, loss: "Tensor") -> None:
        """Move one net, "generator" or "critic", down its loss."""
        import torch
        from torch.nn.utils import parameters_to_vector

        past: Any = getattr(self.past, key)
        weights = parameters_to_vector(self.nets[key].parameters())
        now.update(loss + self.config.history * (weights - past).square().sum() if self.config.history else loss, key)
        past.lerp_(weights.detach(), 1 / (now.i + 2))
        if key == "critic" and self.config.clip_weights:
            with torch.no_grad():
                for p in self.critic.parameters():
                    p.clamp_(-self.config.clip_weights, self.config.clip_weights)
