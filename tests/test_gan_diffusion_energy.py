"""GANs, diffusion and energy models against closed forms: laws by enumeration, ODEs with known flows, penalties of linear critics."""

from dataclasses import replace
from itertools import permutations, product
from math import erf, exp, log, pi

import numpy as np
import pytest
import torch
from conftest import Rows
from torch import nn

from genbench import adversarial, denoising, registry, training
from genbench.errors import DataError, FailedError, UsageError
from genbench.models import TrainingData

RBM, FLOW, DDPM, GAN, EBM = (registry.module("baselines", n) for n in ("rbm", "flow_matching", "ddpm", "gan", "ebm"))


def pictures(values=2, side=3, n=300, seed=0):
    rng = np.random.default_rng(seed)
    bright = rng.integers(values, size=(n, 1, side, side)) * (rng.random((n, 1, 1, 1)) < 0.6)
    return TrainingData("pictures", Rows((bright * (255 // (values - 1))).astype(np.uint8)))


def points(n=400, dims=2):
    return TrainingData("points", Rows(np.random.default_rng(0).normal(size=(n, dims))))


def every_image(values, side):
    grey = np.arange(values) * (255 // (values - 1))
    return np.array(list(product(grey, repeat=side * side)), np.uint8).reshape(-1, 1, side, side)


class Known(nn.Module):
    """A net that is a formula; counts how often it is asked."""

    def __init__(self, formula):
        super().__init__()
        self.formula, self.calls = formula, 0

    def forward(self, *inputs):
        self.calls += 1
        return self.formula(*inputs)


# -- RBM -----------------------------------------------------------------------------------------------------------------------------


def rbm(data, **settings):
    return RBM.train(RBM.Config(**{"steps": 60, "batch": 50, "lr": 0.3, "ais_steps": 300, "ais_chains": 200} | settings), data, seed=0)


def test_free_energy_is_the_sum_over_hidden_states_of_the_centred_energy():
    model = rbm(pictures(), hidden=4)
    net = model.net
    states = torch.tensor(list(product([0.0, 1.0], repeat=4)))
    for v in torch.tensor([[0.0, 1, 1, 0, 0, 1, 0, 1, 1], [0.0] * 9]):
        centred = v - net.mean
        energies = -((centred @ net.weight) * (states - 0.5)).sum(dim=1) - net.visible @ centred - (states - 0.5) @ net.hidden
        other = -((-net.mean @ net.weight) * (states - 0.5)).sum(dim=1) - net.visible @ -net.mean - (states - 0.5) @ net.hidden
        # Up to a constant that does not depend on v: compare with the empty image.
        wanted = torch.logsumexp(-energies, 0) - torch.logsumexp(-other, 0)
        plain = net.plain()
        found = RBM.free_energy(torch.zeros(1, 9), *plain) - RBM.free_energy(v[None], *plain)
        assert float(found.detach()) == pytest.approx(float(wanted.detach()), abs=1e-4)


@pytest.mark.parametrize(("values", "side", "hidden"), [(2, 3, 6), (3, 2, 5), (2, 3, 24)])
def test_rbm_sums_to_one_over_all_images(values, side, hidden):
    model = rbm(pictures(values, side), hidden=hidden)
    assert model.bound == "exact"
    assert np.exp(model.log_prob(every_image(values, side))).sum() == pytest.approx(1, abs=1e-9)


def test_ais_agrees_with_enumeration():
    model = rbm(pictures(), hidden=12, steps=300)
    exact = float(model.constants["log_z"][0])
    with torch.no_grad():
        _, log_w = model.annealed(2000, 100, training.torch_generator(1, 1))
    ratio = torch.exp(log_w - exact)
    # 1/n Σ w is unbiased for Z: 5 standard errors, one false alarm in 2 million seeds.
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 2000**0.5
    assert float(log_w.mean()) <= exact  # Jensen: a log weight is too low on average, log p too high


def test_annealed_samples_have_the_exact_marginals():
    model = rbm(pictures(), hidden=12, steps=300)
    images = every_image(2, 3)
    wanted = (np.exp(model.log_prob(images))[:, None] * (images.reshape(-1, 9) > 0)).sum(axis=0)
    with torch.no_grad():
        v, _ = model.annealed(4000, 200, training.torch_generator(2, 1))
    # 9 pixels, 5 standard errors of a share (at most .5/√4000 each).
    assert np.abs(v.mean(dim=0).numpy() - wanted).max() < 5 * 0.5 / 4000**0.5
    exactly = (model.sample(4000, seed=0).reshape(-1, 9) > 0).mean(axis=0)
    assert np.abs(exactly - wanted).max() < 5 * 0.5 / 4000**0.5


def test_a_large_rbm_is_an_estimate_and_says_how_it_was_made():
    model = rbm(pictures(side=5), hidden=22, ais_chains=50, ais_steps=40)
    assert model.bound == "estimate"
    assert "50 chains, 40 temperatures, SE" in model.notes[0]
    assert "over-stated" in model.notes[0]
    assert model.estimator == "AIS, 50 chains × 40"
    assert model.constants["log_z"][1] > 0
    x = pictures(side=5, n=8, seed=1).train.rows
    unnormalised = -RBM.free_energy(model.hot(training.as_tensor(x)), *model.net.plain()).detach().numpy()
    np.testing.assert_allclose(model.log_prob(x), unnormalised - model.constants["log_z"][0], rtol=1e-4)


def test_contrastive_divergence_raises_the_likelihood_too():
    data = pictures()
    images = data.train.rows
    before, after = (rbm(data, hidden=8, persistent=False, steps=s).log_prob(images).mean() for s in (1, 400))
    assert after > before + 0.1


def test_rbm_refuses_grey_values_that_it_does_not_know():
    x = pictures().train.rows[:3].copy()
    x[1, 0, 0, 0] = 7
    with pytest.raises(DataError, match="knows 2 grey values"):
        rbm(pictures(), hidden=4).log_prob(x)


# -- ODEs ----------------------------------------------------------------------------------------------------------------------------


def test_integrate_follows_a_known_flow_in_both_directions():
    y = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    there = denoising.integrate(lambda y, t, _: -y * t[:, None], y, 0.0, 2.0, 1e-8)
    np.testing.assert_allclose(there, y * exp(-2), rtol=1e-6)
    np.testing.assert_allclose(denoising.integrate(lambda y, t, _: -y * t[:, None], there, 2.0, 0.0, 1e-8), y, rtol=1e-5)


def test_a_rows_steps_do_not_depend_on_its_batch_mates():
    """Steps that a whole batch shares make a sample's likelihood depend on what it is scored with."""
    mine, calm, stiff = 0.7, torch.full((3, 1), 0.1), torch.full((3, 1), 5.0)

    def last(mates):
        y = torch.cat([torch.full((1, 1), mine), mates]).double()
        return denoising.integrate(lambda y, t, _: torch.sin(10 * y * y), y, 0.0, 1.0, 1e-3)[0, 0]

    assert torch.equal(last(calm), last(stiff))


def test_a_sharp_feature_at_the_start_of_an_ode_is_not_stepped_over():
    y = torch.zeros(1, 2)

    def bump(y, t, _):
        return (torch.exp(-0.5 * ((t - 0.01) / 0.003) ** 2) / (0.003 * (2 * pi) ** 0.5))[:, None].expand(-1, 2)

    np.testing.assert_allclose(denoising.integrate(bump, y, 0.0, 1.0, 1e-4), 0.5 + 0.5 * erf(0.01 / 0.003 / 2**0.5), rtol=1e-3)


def test_the_log_density_keeps_its_tolerance_among_many_coordinates():
    """One entry of 785 is nothing to a root mean square."""

    def field(y, t, _):
        return torch.cat([torch.zeros(len(y), 784), 40 * torch.cos(40 * t)[:, None]], dim=1)

    found = denoising.integrate(field, torch.zeros(1, 785), 0.0, 1.0, 1e-3)[0, -1]
    assert abs(float(found) - np.sin(40)) < 5e-3


def test_rows_that_are_there_leave_the_others_as_they_are():
    """A row that needs one more step is told which of the rows it is."""

    def field(y, t, rows):
        return torch.stack([torch.sin(9 * t * rows), rows.double()], dim=1)

    found = denoising.integrate(field, torch.zeros(4, 2), 0.0, 1.0, 1e-6)
    k = np.arange(1, 4)
    np.testing.assert_allclose(found[1:, 0], (1 - np.cos(9 * k)) / (9 * k), atol=1e-5)
    np.testing.assert_allclose(found[:, 1], np.arange(4), atol=1e-5)


def test_an_ode_that_needs_too_many_steps_is_given_up():
    with pytest.raises(FailedError, match="raise tolerance"):
        denoising.integrate(lambda y, t, _: y * y, torch.ones(1, 1), 0.0, 2.0, 1e-6)  # infinite at 1


def test_log_density_along_a_linear_ode_is_that_of_the_normal_it_maps_to():
    matrix = torch.tensor([[0.3, -0.2], [0.5, -0.7]])
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    probes = torch.eye(2)[:, None].expand(-1, 50, -1)
    found = denoising.ode_log_density(lambda z, t, _: z @ matrix.T, x, probes, 0.0, 1.0, 1e-6)
    end = x.double() @ torch.matrix_exp(matrix.double()).T
    wanted = -0.5 * (end**2 + log(2 * pi)).sum(dim=1) + torch.trace(matrix)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    signs = torch.where(torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)
    noisy = denoising.ode_log_density(lambda z, t, _: z @ matrix.T, x, signs[None], 0.0, 1.0, 1e-6)
    # One probe e adds e_1 e_2 (a_12 + a_21) to the trace: the estimate is off by exactly that, and by nothing on average.
    np.testing.assert_allclose(noisy - wanted, 0.3 * signs.prod(dim=1), atol=1e-5)


# -- flow matching -------------------------------------------------------------------------------------------------------------------

MEAN, SD = torch.tensor([0.8, -0.4]), 0.3
PLAIN = {"shift": np.zeros(2, np.float32), "scale": np.ones(2, np.float32)}


def normal_nats(x):
    return (-0.5 * ((x - MEAN.numpy()) / SD) ** 2 - log(SD) - 0.5 * log(2 * pi)).sum(axis=1)


def known_flow(**settings):
    """Flow matching on N(MEAN, SD²), whose velocity is a formula."""
    model = FLOW.Model.new(FLOW.Config(width=4, blocks=1, tolerance=1e-6, **settings), (2,), PLAIN, seed=0)

    def velocity(z, t):
        t = t[:, None]
        return MEAN + (t * SD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * SD**2) * (z - t * MEAN)

    model.net = Known(velocity)
    return model


def test_flow_matching_has_the_density_of_the_normal_whose_velocity_it_has():
    x = MEAN.numpy() + SD * np.random.default_rng(0).normal(size=(40, 2))
    np.testing.assert_allclose(known_flow().log_prob(x), normal_nats(x), atol=1e-3)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_flow_matching_samples_converge_at_the_solvers_order(solver, order):
    e = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    wanted = MEAN + SD * e  # straight lines of a normal: the flow maps e to its own quantile
    errors = []
    for nfe in (20, 40):
        model = known_flow(solver=solver, nfe=nfe)
        errors.append(float((model.denoise(e, None) - wanted).abs().mean()))
        assert model.net.calls == nfe
    assert errors[0] / errors[1] > 0.9 * 2**order


def test_minibatch_transport_is_the_shortest_of_all_pairings():
    e, z = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(3))
    best = min(float((e[list(p)] - z).square().sum()) for p in permutations(range(5)))
    assert float((FLOW.shortest(e, z) - z).square().sum()) == pytest.approx(best, rel=1e-5)


# -- diffusion -----------------------------------------------------------------------------------------------------------------------


def known_diffusion(sd=SD, **settings):
    """Diffusion of N(MEAN, sd²): the noise in x is σ (x − α m)/(α² sd² + σ²) on average."""
    config = DDPM.Config(width=4, blocks=1, **{"least": 1e-3, "most": 200.0, "tolerance": 1e-6} | settings)
    model = DDPM.Model.new(config, (2,), PLAIN, seed=0)

    def noise(x, time):
        low, high = log(config.least), log(config.most)
        alpha, sigma = DDPM.signal(torch.exp(low + time.double() * (high - low))[:, None])
        return (sigma * (x - alpha * MEAN) / (alpha**2 * sd**2 + sigma**2)).float()

    model.net = Known(noise)
    return model


def test_signal_and_noise_keep_the_variance():
    alpha, sigma = DDPM.signal(torch.logspace(-4, 3, 30, dtype=torch.float64))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)
    np.testing.assert_allclose(sigma / alpha, torch.logspace(-4, 3, 30, dtype=torch.float64), rtol=1e-12)


def test_the_linear_schedule_is_the_limit_of_the_papers_thousand_steps():
    model = known_diffusion(schedule="linear", least=1e-6, most=1e6)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # section 4
    t = torch.tensor([100, 300, 500], dtype=torch.float64)
    alpha, _ = DDPM.signal(model.times(t / 1000).exp())
    np.testing.assert_allclose(alpha**2, kept[t.long() - 1], rtol=0.02)


def test_probability_flow_has_the_density_of_the_normal_whose_noise_it_knows():
    x = MEAN.numpy() + SD * np.random.default_rng(0).normal(size=(40, 2))
    # The ODE ends where a mean of .8 is still .8/200 from 0.
    np.testing.assert_allclose(known_diffusion().log_prob(x), normal_nats(x), atol=0.02)


def test_sampled_vectors_stay_within_the_training_range():
    model = known_diffusion(sd=50.0, sampler="dpm", nfe=20, least=0.05, most=20.0)
    e = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    assert float(model.denoise(e, None).abs().max()) > 5
    model.constants |= {"low": np.full(2, -3.0, np.float32), "high": np.full(2, 2.0, np.float32)}
    held = model.denoise(e, None)  # each as α e_0 + σ e at the sampler's end
    assert -3.4 < float(held.min()) < -2.6
    assert 1.6 < float(held.max()) < 2.4


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm", 2)])
def test_deterministic_samplers_converge_at_their_order(sampler, order):
    e = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    errors = []
    for nfe in (100, 200):
        model = known_diffusion(sampler=sampler, nfe=nfe, least=0.05, most=20.0)
        u = [log(20.0), log(0.05)]
        (a, s), (b, r) = (DDPM.signal(exp(v)) for v in u)
        # Along the ODE (x − α m)/√(α² sd² + σ²) stays what it is.
        wanted = b * MEAN + (e - a * MEAN) * ((b**2 * SD**2 + r**2) / (a**2 * SD**2 + s**2)) ** 0.5
        errors.append(float((model.denoise(e, None) - wanted).abs().mean()))
        assert model.net.calls == nfe
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.3)


def test_the_ancestral_sampler_draws_from_its_chain():
    model = known_diffusion(sampler="ddpm", nfe=200)
    x = model.sample(4000, seed=0)
    assert model.net.calls == 200 * 16  # one evaluation per step and shard of 256
    # 5 standard errors of a mean and of an SD; the chain's own error is of the order 1/200.
    assert np.abs(x.mean(axis=0) - MEAN.numpy()).max() < 5 * SD / 4000**0.5 + 0.005
    assert np.abs(x.std(axis=0) / SD - 1).max() < 5 / 8000**0.5 + 0.02


def test_the_variational_bound_is_below_and_tightens_with_the_chain():
    x = MEAN.numpy() + SD * np.random.default_rng(0).normal(size=(512, 2))
    exact, gaps = normal_nats(x).mean(), []
    for chain in (10, 40, 400):
        model = known_diffusion(likelihood="vlb", chain=chain, sampler="ddpm", nfe=chain, least=0.1)
        assert model.bound == "lower"
        gaps.append(exact - model.log_prob(x).mean())
        assert model.net.calls == chain  # every term of the sum, no sample of them
    assert gaps[0] > gaps[1] > gaps[2] > -0.02
    assert gaps[2] < 0.15


@pytest.mark.parametrize("count", [2, 17, 256])
@pytest.mark.parametrize("sd", [1e-3, 0.05, 2.0])
def test_the_last_step_of_the_chain_is_a_mass_over_grey_values(count, sd):
    constants = {"values": np.arange(count).astype(np.uint8)}
    model = DDPM.Model.new(DDPM.Config(width=4, blocks=1, likelihood="vlb"), (1, 2, 2), constants, seed=0)
    z = (2 * torch.arange(count) + 1) / count - 1
    for mean in (-1.3, 0.02, 0.99):
        assert float(torch.exp(model.log_end(z, torch.full_like(z, mean), sd)).sum()) == pytest.approx(1, abs=1e-9)


def test_dequantised_bound_of_an_ode_counts_whole_bins():
    """A flow that is the identity has the standard normal density of the pixels scaled to (−1, 1): no nats are free."""
    from scipy.stats import norm

    constants = {"values": np.array([0, 255], np.uint8)}
    model = FLOW.Model.new(FLOW.Config(width=8, blocks=1), (1, 3, 3), constants, seed=0)  # its last layer starts at zero: v = 0
    found = np.exp(model.log_prob(np.repeat(every_image(2, 3)[:1], 4, axis=0)))
    assert found.max() < norm.pdf(0) ** 9  # a bin has the width 1 of two: p(z)·1 in every pixel
    assert found.min() > norm.pdf(1) ** 9


@pytest.mark.parametrize("module", [FLOW, DDPM])
def test_latent_neighbours_are_near(module):
    settings = {"steps": 2, "width": 8, "blocks": 1, "nfe": 4}
    a, b = module.train(module.Config(**settings), points(), seed=0).latent_pairs(6, 1e-4, seed=0)
    assert a.shape == b.shape == (6, 2)
    assert 0 < np.abs(a - b).max() < 1e-3 * np.abs(a).max()


# -- GAN -----------------------------------------------------------------------------------------------------------------------------


def gan(data, **settings):
    smallest = {"steps": 4, "batch": 32, "width": 8, "latent": 4, "depth": 1}
    return GAN.train(GAN.Config(**smallest | settings), data, seed=0)


def test_losses_are_those_of_the_papers():
    r, f = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([-0.5, 0.4, 1.5])
    real, fake = torch.sigmoid(r), torch.sigmoid(f)
    told, made = ({name: adversarial.losses(name)[side](r, f) for name in adversarial.LOSSES} for side in (0, 1))
    two_player = -(torch.log(real) + torch.log(1 - fake)).mean()
    wanted_told = {
        "minimax": two_player,
        "nonsaturating": two_player,
        "wasserstein": f.mean() - r.mean(),
        "hinge": ((1 - r).clamp_min(0) + (1 + f).clamp_min(0)).mean(),
        "relativistic": -torch.log(torch.sigmoid(r - f)).mean(),
    }
    wanted_made = {
        "minimax": torch.log(1 - fake).mean(),
        "nonsaturating": -torch.log(fake).mean(),
        "wasserstein": -f.mean(),
        "hinge": -f.mean(),
        "relativistic": -torch.log(torch.sigmoid(f - r)).mean(),
    }
    for name in adversarial.LOSSES:
        torch.testing.assert_close(told[name], wanted_told[name])
        torch.testing.assert_close(made[name], wanted_made[name])


def test_label_smoothing_is_one_sided():
    told, _ = adversarial.losses("nonsaturating", smoothing=0.1)
    r, f = torch.tensor([log(9.0)], requires_grad=True), torch.tensor([0.7], requires_grad=True)
    slope_r, slope_f = torch.autograd.grad(told(r, f), (r, f))
    assert float(slope_r) == pytest.approx(0, abs=1e-6)  # the best D(x) is .9
    assert float(slope_f) == pytest.approx(float(torch.sigmoid(f).detach()), rel=1e-5)  # fakes keep the target 0
    with pytest.raises(UsageError, match="smoothing"):
        GAN.Config(loss="hinge", smoothing=0.1)


def test_slopes_of_a_linear_critic_are_its_weights():
    weights = torch.tensor([0.6, -0.8, 2.0])
    found = adversarial.slopes(Known(lambda x: (x.flatten(1) @ weights, x)), torch.randn(5, 1, 3))
    torch.testing.assert_close(found, torch.full((5,), 5.0))


def trained_critic(monkeypatch, data, **settings):
    kept, build = [], GAN.critic_net
    monkeypatch.setattr(GAN, "critic_net", lambda *a: kept.append(build(*a)) or kept[-1])
    gan(data, **settings)
    return kept[0]


def test_spectral_norm_keeps_every_layer_at_one(monkeypatch):
    critic = trained_critic(monkeypatch, points(), spectral=True, loss="hinge", steps=60, lr=1e-2, decay="none")
    critic(torch.zeros(1, 1, 2))
    for layer in [*critic.layers, critic.last]:
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=0.1)


def test_clipped_weights_stay_within(monkeypatch):
    critic = trained_critic(monkeypatch, points(), loss="wasserstein", clip_weights=0.02, steps=20, lr=1e-2)
    assert max(float(p.detach().abs().max()) for p in critic.parameters()) <= 0.02


def test_gradient_penalty_brings_slopes_to_one(monkeypatch):
    settings = {"loss": "wasserstein", "gradient_penalty": 10.0, "steps": 300, "lr": 1e-2, "width": 32, "critic_steps": 5}
    critic = trained_critic(monkeypatch, points(), **settings)
    found = adversarial.slopes(critic, torch.randn(200, 1, 2, generator=torch.Generator().manual_seed(0))).sqrt().detach()
    assert float(found.mean()) == pytest.approx(1, abs=0.35)


def test_minibatch_discrimination_counts_the_like():
    critic = GAN.critic_net(GAN.Config(width=8, depth=1, minibatch=3), (2,))
    seen = []
    critic.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    critic(torch.ones(4, 1, 2))
    critic(torch.tensor([[[0.0, 0.0]], [[1e3, -1e3]]]))
    assert torch.equal(seen[0][:, 8:], torch.full((4, 3), 3.0))  # three others, all the same
    assert seen[1][:, 8:].max() < 1e-6


def test_a_packed_critic_sees_samples_together():
    critic = GAN.critic_net(GAN.Config(width=8, depth=1, packing=4, batch=32), (2,))
    assert critic.layers[0].in_features == 8
    assert critic(torch.zeros(8, 4, 2))[0].shape == (8,)
    with pytest.raises(UsageError, match="packing divides batch"):
        GAN.Config(batch=30, packing=4)


def test_nets_of_patches_make_and_judge_whole_images():
    config = GAN.Config(width=4, latent=3, batch=32, patch=2)
    with torch.no_grad():
        made = GAN.generator_net(config, (2, 10, 6), 0)(torch.randn(5, 3))
        assert made.shape == (5, 2, 10, 6)
        critic = GAN.critic_net(config, (2, 10, 6))
        logits, _ = critic(made[:, None])
        for place in product(range(2), (0, 9), (0, 5)):  # every pixel counts
            changed = made.clone()
            changed[(slice(None), *place)] += 1
            assert (critic(changed[:, None])[0] != logits).all()
    with pytest.raises(UsageError, match="patch divides height and width of the images, found a patch of 4 and images of 10 × 6"):
        GAN.generator_net(replace(config, patch=4), (2, 10, 6), 0)


@pytest.mark.parametrize("norm", ["none", "batch", "virtual"])
@pytest.mark.parametrize("data", [points(), pictures()], ids=["vectors", "images"])
def test_a_sample_does_not_depend_on_its_batch_mates(norm, data):
    model = gan(data, norm=norm)
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    others = torch.cat([z[:1], 100 * z[1:]])
    if norm == "virtual":
        model.net.train()  # even then
    with torch.no_grad():
        torch.testing.assert_close(model.net(z)[0], model.net(others)[0], rtol=1e-4, atol=1e-5)


def test_batch_norm_samples_with_the_statistics_of_many_latents():
    model = gan(points(), norm="batch", steps=30, lr=1e-2)
    layer = model.net.norms[0]
    assert layer.eps == 1e-5  # nobody's momentum
    rows = model.net.layers[0](torch.randn(20_000, 4, generator=torch.Generator().manual_seed(5))).detach()
    # 4,096 draws: an error of 1/64 SD of a mean, of 2.2 % of a variance; 5 of each.
    assert float(((layer.running_mean - rows.mean(dim=0)) / rows.std(dim=0)).abs().max()) < 5 / 64 + 0.03
    assert float((layer.running_var / rows.var(dim=0) - 1).abs().max()) < 0.15
    assert "4,096 latents" in model.notes[0]


def test_every_named_gan_trains_and_samples():
    for name, recipes in GAN.VARIANTS.items():
        if name == "conditional":  # has tests of its own
            continue
        for key, data in (("vectors", points(100)), ("mnist", pictures(side=4, n=64))):
            config = replace(recipes[key], steps=3, batch=16, width=8, latent=4, depth=1, minibatch=min(recipes[key].minibatch, 2))
            x = GAN.train(config, data, seed=0).sample(5, seed=0)
            assert np.isfinite(x.astype(float)).all(), name


def test_historical_averaging_holds_the_weights_back():
    def moved(history):
        start, end = (gan(points(), history=history, steps=s, lr=0.05, decay="none", warmup=0.0).arrays() for s in (1, 40))
        return sum(float(np.square(start[k] - end[k]).sum()) for k in start if k.startswith("net."))

    assert moved(1.0) < 0.5 * moved(0.0)


def test_gan_latent_neighbours_are_near():
    a, b = gan(points()).latent_pairs(300, 1e-4, seed=0)
    assert a.shape == (300, 2)
    assert 0 < np.abs(a - b).max() < 0.01


# -- EBM -----------------------------------------------------------------------------------------------------------------------------


def known_energy(formula, **settings):
    model = EBM.Model.new(EBM.Config(width=4, depth=1, **{"base": 1.0, "grid": 201} | settings), (2,), dict(PLAIN), seed=0)
    model.net = Known(lambda x, condition=None: formula(x))
    return model


def test_quadrature_finds_the_normalisation_of_a_gaussian():
    # exp(a·x − ½ k |x|²) N(x; 0, I) integrates to exp(½ |a|²/(1 + k))/(1 + k).
    a, k = torch.tensor([0.4, -0.9]), 3.0
    model = known_energy(lambda x: x @ a - k / 2 * x.square().sum(dim=1))
    model.normalise()
    assert float(model.constants["log_z"][0]) == pytest.approx(0.5 * float(a @ a) / (1 + k) - log(1 + k), abs=1e-5)
    x = np.random.default_rng(0).normal(size=(20, 2))
    mean, sd = a.numpy() / (1 + k), (1 + k) ** -0.5
    wanted = (-0.5 * ((x - mean) / sd) ** 2 - log(sd) - 0.5 * log(2 * pi)).sum(axis=1)
    np.testing.assert_allclose(model.log_prob(x), wanted, atol=1e-5)


@pytest.mark.parametrize("length", [0.1, 0.6])
def test_chains_follow_the_law_whatever_the_step(length):
    # Two narrow modes at ±2, one with three times the mass of the other: local moves alone would never cross.
    def f(x):
        first, second = (-10 * (x - c).square().sum(dim=1) for c in (2.0, -2.0))
        return torch.logsumexp(torch.stack([first + log(3.0), second]), dim=0) + 0.5 * (x / 2).square().sum(dim=1)

    model = known_energy(f, base=2.0, length=length, anneal=600)
    x = model.sample(512, seed=0)
    high = x[:, 0] > 0
    # 5 standard errors: one false alarm in 2 million seeds.
    assert abs(high.mean() - 0.75) < 5 * (0.75 * 0.25 / 512) ** 0.5
    spread = (x - np.where(high[:, None], 2.0, -2.0)).std()
    assert spread == pytest.approx(20**-0.5, rel=5 / 2048**0.5)


def test_energies_have_no_likelihood_beyond_two_dimensions():
    settings = {"steps": 2, "width": 4, "depth": 1, "moves": 1, "anneal": 2}
    for data in (pictures(), points(dims=3)):
        model = EBM.train(EBM.Config(exact=not data.images, **settings), data, seed=0)
        assert model.bound is None
        with pytest.raises(UsageError, match="no likelihood"):
            model.log_prob(data.train.rows)


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (RBM, {"hidden": 0}),
        (RBM, {"ais_chains": 1}),
        (FLOW, {"nfe": 5}),
        (FLOW, {"solver": "heun"}),
        (FLOW, {"patch": 0}),
        (DDPM, {"schedule": "sine"}),
        (DDPM, {"sampler": "dpm", "nfe": 7}),
        (DDPM, {"least": 2.0, "most": 1.0}),
        (GAN, {"loss": "wgan"}),
        (GAN, {"r1": -1.0}),
        (GAN, {"minibatch": -1}),
        (GAN, {"norm": "layer"}),
        (EBM, {"grid": 100}),
        (EBM, {"length": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(module, settings):
    with pytest.raises(UsageError, match=r"found|did you mean|expected|unknown"):
        module.Config(**settings)
