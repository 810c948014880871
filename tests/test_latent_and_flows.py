"""Autoencoders and flows: Jacobians by autograd, closed forms, bounds against quadrature, samplers against the law they declare."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Rows
from torch.distributions import MultivariateNormal

from genbench import densities, flows, models, registry
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData

FLOWS = ("nice", "realnvp", "maf", "spline_flow", "glow")
VAE, AUTOENCODER, SPLINE, GLOW = (registry.module("baselines", n) for n in ("vae", "autoencoder", "spline_flow", "glow"))
TABLE = np.array([0, 85, 170, 255], np.uint8)


def pictures(n=200, shape=(1, 4, 4), seed=0, values=4):
    """Grey images of two kinds, dark and bright."""
    rng = np.random.default_rng(seed)
    bright = rng.random((n, 1, 1, 1)) < 0.5
    rank = rng.binomial(values - 1, np.where(bright, 0.8, 0.15), (n, *shape))
    return (rank * (255 // (values - 1))).astype(np.uint8)


def vectors(n=300, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * [1.0, 2.0, 0.5][:d] + 1


def data(rows):
    return TrainingData("made here", Rows(rows), Rows(rows[:50]))


def smoke(name, images=True, **changes):
    module = registry.module("baselines", name)
    return module, replace(module.SMOKE["images" if images else "vectors"], **changes)


def untrained(name, rows=None, *, noise=0.0, **changes):
    """A flow with fresh weights, moved by `noise`."""
    rows = pictures() if rows is None else rows
    module, config = smoke(name, rows.dtype == np.uint8, **changes)
    model = module.Model.new(config, rows.shape[1:], flows.constants_of(config, data(rows)), seed=0)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.net.parameters():
            p.add_(noise * torch.randn(p.shape, generator=rng))
        for layer in model.net.modules():
            if hasattr(layer, "seen"):
                layer.weight.mul_(layer.seen)
    return model


# -- maps of one coordinate ----------------------------------------------------------------------------------------------------------

MAPS = {
    "additive": flows.additive(),
    "affine": flows.affine(),
    "spline with tails": flows.spline(5, -2.0, 2.0, tails=True),
    "spline on [0, 1]": flows.spline(4, 0.0, 1.0, tails=False),
}


def places(name):
    return torch.linspace(0.001, 0.999, 300).double() if "[0, 1]" in name else torch.linspace(-3, 3, 300).double()  # no knot among them


@pytest.mark.parametrize("name", MAPS)
def test_a_map_has_the_slope_of_autograd_and_its_inverse(name):
    law, rng = MAPS[name], torch.Generator().manual_seed(0)
    x = places(name).requires_grad_()
    p = 2 * torch.randn(len(x), law.size, generator=rng, dtype=torch.float64)
    z, slope = law.apply(x, p, False)
    (by_hand,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(slope, torch.log(by_hand), rtol=1e-9, atol=1e-9)
    back, slope_back = law.apply(z.detach(), p, True)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(slope_back, -slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_with_zero_parameters_is_the_identity(name):
    x = places(name)
    z, slope = MAPS[name].apply(x, torch.zeros(len(x), MAPS[name].size, dtype=torch.float64), False)
    torch.testing.assert_close(z, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, torch.zeros_like(x), rtol=0, atol=1e-12)


@pytest.fixture(autouse=True)
def fresh_weights():
    """Nets that a test makes itself have the same weights in whatever order the tests run."""
    with models.seeded(0):
        yield


def test_a_spline_is_monotone_keeps_its_ends_and_is_the_identity_beyond():
    p = 3 * torch.randn(1, 14, generator=torch.Generator().manual_seed(1)).double().expand(400, -1)
    x = torch.linspace(-4, 4, 400).double()
    z = MAPS["spline with tails"].apply(x, p, False)[0]
    assert (torch.diff(z) > 0).all()
    outside = x.abs() > 2
    assert torch.equal(z[outside], x[outside])
    assert z[~outside].abs().max() <= 2


def test_a_spline_agrees_with_the_formula_of_the_paper_in_one_bin():
    """Eq. 4 on two bins of equal width whose knots are set by hand."""
    law = flows.spline(2, 0.0, 1.0, tails=False, least=1e-9)
    heights = torch.tensor([math.log(0.3), math.log(0.7)]).double()  # softmax gives .3 and .7
    d = [0.5, 1.5, 2.0]
    raw = torch.tensor([math.log(math.expm1(v)) - math.log(math.expm1(1)) for v in d]).double()
    p = torch.cat([torch.zeros(2).double(), heights, raw])[None]
    xi, s = 0.25 / 0.5, 0.3 / 0.5
    wanted = 0.3 * (s * xi**2 + d[0] * xi * (1 - xi)) / (s + (d[1] + d[0] - 2 * s) * xi * (1 - xi))
    assert float(law.apply(torch.tensor([0.25]).double(), p, False)[0]) == pytest.approx(wanted, rel=1e-6)


def test_laws_of_latents_agree_with_scipy():
    from scipy import stats

    e = torch.linspace(-4, 4, 9)[:, None]
    for law, peer in (("normal", stats.norm), ("logistic", stats.logistic), ("uniform", stats.uniform)):
        z = flows.from_normal(law, e)
        np.testing.assert_allclose(peer.cdf(z[:, 0].numpy()), stats.norm.cdf(e[:, 0].numpy()), atol=1e-6)
        np.testing.assert_allclose(flows.log_base(law, z).numpy(), peer.logpdf(z[:, 0].numpy()), atol=1e-5)
    with pytest.raises(UsageError, match="did you mean 'normal'"):
        flows.log_base("norml", e)


# -- layers --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_the_log_determinant_of_autograd_and_its_inverse(name):
    rows = pictures() if name == "glow" else vectors()
    changes = {"scales": 2, "width": 6} if name == "glow" else {"hidden": (12,)}
    net = untrained(name, rows, noise=0.1, **changes).net.double()
    size = int(np.prod(rows.shape[1:]))
    v = torch.rand(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5

    def flow(x):  # nets' outputs are rounded to float32 on the way: the tolerances
        return net(x[None])[0][0]

    jacobian = torch.autograd.functional.jacobian(flow, v[0])
    with torch.no_grad():
        z, log_det = net(v)
    assert float(log_det) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(net.inverse(z), v, rtol=0, atol=1e-5)
    assert jacobian.abs().sum() > size  # something depends on something


@pytest.mark.parametrize("backwards", [False, True])
def test_an_autoregressive_layer_sees_only_the_past(backwards):
    net = flows.masked_perceptron(5, (60, 40), 2)
    torch.nn.init.normal_(net.out.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.out.weight.mul_(net.out.seen)
    layer = flows.autoregressive(5, flows.affine(), net, backwards=backwards)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0][0], torch.linspace(-1, 1, 5))
    outside = torch.tril(jacobian, -1) if backwards else torch.triu(jacobian, 1)
    inside = jacobian - outside
    assert not outside.any()
    assert (inside != 0).sum() == 15  # everything else is seen


def test_hidden_weights_of_a_masked_net_stay_zero_in_training():
    net = flows.masked_perceptron(4, (8,), 3)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (net(torch.ones(2, 4)) + 1).square().sum().backward()
        optimiser.step()
    for layer in (*net.layers, net.out):
        assert not layer.weight[layer.seen == 0].any()
        assert layer.weight[layer.seen == 1].any()


def test_one_part_of_a_masked_net_is_that_of_the_whole():
    net = flows.masked_perceptron(4, (8,), 3)
    torch.nn.init.normal_(net.out.weight, generator=torch.Generator().manual_seed(0))
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    for d in range(4):
        torch.testing.assert_close(net.at(x, d), net(x)[:, d])


def test_two_coupling_layers_in_a_row_move_every_coordinate_once():
    for shape in ((2,), (5,), (1, 4, 4), (3, 3, 5)):
        for turn in range(0, 6, 2):
            assert np.array_equal(flows.halves(shape, turn), ~flows.halves(shape, turn + 1))
    checkerboard = flows.halves((1, 2, 2), 0).reshape(2, 2)
    assert checkerboard.tolist() == [[True, False], [False, True]]


def test_a_coupling_layer_keeps_what_stays():
    kept = np.array([True, False, True, False])
    layer = flows.coupling(kept, flows.affine(), lambda i, o: torch.nn.Linear(i, o))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    z = layer(x)[0]
    assert torch.equal(z[:, kept], x[:, kept])
    assert (z[:, ~kept] != x[:, ~kept]).all()


def test_glow_squeezes_without_loss():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert torch.equal(GLOW.unsqueeze(GLOW.squeeze(x)), x)
    assert GLOW.squeeze(x)[0, :4, 0, 0].tolist() == [0.0, 1.0, 6.0, 7.0]  # the 2 × 2 block of the first channel


def test_actnorm_starts_with_channels_of_mean_0_and_variance_1():
    net = GLOW.network((1, 8, 8), 1, 1, 4)
    rows = 3 + 2 * torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.initialise(rows)
        z = net(rows)[0].reshape(400, 4, 16)  # after the rotation, which keeps unit variances of independent channels
    assert z.mean(dim=(0, 2)).abs().max() < 0.1
    assert (z.std(dim=(0, 2)) - 1).abs().max() < 0.1


# -- flows on grey values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_an_untrained_flow_on_marginal_pixels_is_the_model_of_independent_pixels(name):
    """Exactly, whatever the noise: bins of half the width, or a lost log-determinant, would be 11 nats off."""
    rows = pictures(shape=(1, 4, 4))
    model = untrained(name, rows, pixels="marginal")
    place = np.searchsorted(TABLE, rows.reshape(len(rows), -1))
    counts = np.stack([np.bincount(column, minlength=4) for column in place.T]) + 0.5 / 4
    masses = counts / counts.sum(axis=1, keepdims=True)
    wanted = np.log(masses[np.arange(16), place]).sum(axis=1)
    np.testing.assert_allclose(model.log_prob(rows), wanted, rtol=1e-5)


def test_padding_costs_an_untrained_glow_nothing():
    rows = pictures(shape=(1, 3, 3))
    model = untrained("glow", rows, pixels="marginal", scales=2)
    assert model.inner == (1, 4, 4)
    place = np.searchsorted(TABLE, rows.reshape(len(rows), -1))
    counts = np.stack([np.bincount(column, minlength=4) for column in place.T]) + 0.5 / 4
    wanted = np.log((counts / counts.sum(axis=1, keepdims=True))[np.arange(9), place]).sum(axis=1)
    np.testing.assert_allclose(model.log_prob(rows), wanted, rtol=1e-5)
    assert model.sample(10, seed=0).shape == (10, 1, 3, 3)


def test_an_untrained_spline_flow_on_the_unit_cube_is_uniform():
    model = untrained("spline_flow", pixels="unit")
    np.testing.assert_allclose(model.log_prob(pictures()), -16 * np.log(4), rtol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_a_bound_takes_as_many_draws_as_it_says_and_grows_with_them(name):
    rows, found = pictures(200), []
    for draws in (1, 3, 50):
        model = untrained(name, rows, noise=0.1, draws=draws)
        calls, inner = [], model.log_density
        model.log_density = lambda y, calls=calls, inner=inner: calls.append(len(y)) or inner(y)
        found.append(model.log_prob(rows))
        assert calls == [model.BATCH] * draws
    assert found[0].mean() < found[1].mean() < found[2].mean()  # of 200 images and one seed


@pytest.mark.parametrize("name", FLOWS)
def test_masses_of_grey_values_sum_to_one_and_samples_follow_them(name):
    """Two pixels: the mass of an image is the integral of the density over its bin, by quantiles of a normal law, since the density may
    be large in a bin's corners; glow's padding at random."""
    from scipy.stats import norm

    rows = pictures(shape=(1, 1, 2), values=2)
    model = untrained(name, rows, noise=0.05)
    s = np.arange(-5.2, 5.3, 0.05)
    noise = np.random.default_rng(0).random((len(s) ** 2, 1, *model.inner[1:]))
    noise[:, 0, 0, :2] = norm.cdf(np.stack(np.meshgrid(s, s), axis=-1).reshape(-1, 2))
    weight = np.outer(norm.pdf(s), norm.pdf(s)).ravel() * 0.05**2
    every = np.array([[0, 0], [0, 255], [255, 0], [255, 255]], np.uint8).reshape(4, 1, 1, 2)
    with torch.no_grad():
        ranks = model.ranks(torch.from_numpy(every)).double()
        p = np.array(
            [weight @ model.log_density(r + torch.from_numpy(noise.reshape(len(noise), -1))).double().exp().numpy() for r in ranks]
        )
    assert p.sum() == pytest.approx(1, abs=0.02)
    found = np.bincount((model.sample(4096, seed=0).reshape(-1, 2) // 255) @ [2, 1], minlength=4) / 4096
    # 4 shares at 5 standard errors, and what the quadrature misses
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / 4096) + 0.01).all()


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_gives_back_what_it_encodes(name):
    rows = pictures(20)
    assert np.array_equal(untrained(name, rows, noise=0.05).reconstruct(rows), rows)
    if name != "glow":
        x = vectors(20)
        np.testing.assert_allclose(untrained(name, x, noise=0.05).reconstruct(x), x, atol=1e-4)


def test_an_image_has_the_same_noise_wherever_it_stands():
    model, rows = untrained("realnvp", noise=0.05), pictures(30)
    assert np.array_equal(model.log_prob(rows)[7:9], model.log_prob(rows[7:9]))


def test_notes_state_how_many_draws_a_bound_has():
    module, config = smoke("realnvp", steps=2, draws=7)
    assert "IW-7" in module.train(config, data(pictures()), seed=0).notes[0]
    module, config = smoke("vae", steps=2, draws=9)
    assert "IWAE-9" in module.train(config, data(pictures()), seed=0).notes[0]


# -- flows on vectors ----------------------------------------------------------------------------------------------------------------


def test_a_trained_affine_flow_finds_a_gaussian():
    """MAF on a correlated Gaussian reaches its entropy; 2,000 samples, 9 parameters: 5 standard errors of the mean are .16."""
    rng = np.random.default_rng(0)
    factor = np.array([[1.0, 0.0], [1.5, 0.4]])
    draw = [rng.standard_normal((2000, 2)) @ factor.T for _ in range(2)]
    module, config = smoke("maf", images=False, layers=1, steps=200, batch=200, lr=2e-2)
    model = module.train(config, TrainingData("gaussian", Rows(draw[0]), Rows(draw[1])), seed=0)
    entropy = 1 + np.log(2 * np.pi) + np.log(np.linalg.det(factor))
    assert -model.log_prob(draw[1]).mean() == pytest.approx(entropy, abs=0.16)


@pytest.mark.slow
def test_a_spline_flow_finds_the_modes_of_grid25():
    from genbench.bench import Task, open_data

    law = registry.dataset("grid25").toy("grid25")
    task = open_data(Task("grid25", "vectors"))
    model = SPLINE.train(SPLINE.RECIPES["vectors"], task, seed=0)
    x = task.test.read(0, 10_000)
    assert (law.log_density(x) - model.log_prob(x)).mean() < 0.15
    s = model.sample(5000, seed=0)
    apart = np.sqrt(((s[:, None] - law.centres) ** 2).sum(axis=2))
    assert len(np.unique(apart.argmin(axis=1)[apart.min(axis=1) < 3 * law.sigma])) == 25


def test_a_coupling_layer_needs_two_coordinates_and_glow_needs_images():
    module, config = smoke("realnvp", images=False)
    with pytest.raises(DataError, match="coordinates that stay and others"):
        module.train(config, data(vectors(d=1)), seed=0)
    module, config = smoke("glow")
    with pytest.raises(DataError, match="take realnvp"):
        module.train(config, data(vectors()), seed=0)


@pytest.mark.parametrize("name", [*(n for n in FLOWS if n != "glow"), "vae", "autoencoder"])
def test_a_constant_coordinate_is_refused(name):
    module, config = smoke(name, images=False)
    rows = vectors()
    rows[:, 1] = 4.0
    with pytest.raises(DataError, match="coordinate 1 is constant"):
        module.train(config, data(rows), seed=0)


# -- VAE -----------------------------------------------------------------------------------------------------------------------------


def exact(model, x):
    """log p(x) of a VAE with one latent by quadrature: the trapezoid rule converges faster than any power."""
    z = torch.linspace(-9, 9, 1801)[:, None]
    prior = -0.5 * (z[:, 0] ** 2 + np.log(2 * np.pi)).double() + np.log(0.01)
    with torch.no_grad():
        rows = [model.log_likelihood(z, torch.from_numpy(np.repeat(row[None], len(z), axis=0))).double() for row in x]
    return torch.stack([torch.logsumexp(r + prior, dim=0) for r in rows]).numpy()


@pytest.fixture(scope="module")
def tiny():
    module, config = smoke("vae", latent=1, hidden=(16,), steps=60)
    model = module.train(config, data(pictures(shape=(1, 2, 2), values=2)), seed=0)
    with torch.no_grad():
        model.net.encoder[-1].bias.add_(torch.tensor([0.5, -0.3]))  # a poor q: bounds that differ
    return model


EVERY = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.uint8).reshape(16, 1, 2, 2) * 255


def test_elbo_is_below_iwae_is_below_log_p(tiny):
    wanted = exact(tiny, EVERY)
    assert np.exp(wanted).sum() == pytest.approx(1, abs=1e-6)
    weight = np.exp(wanted)
    with torch.no_grad():
        draws = tiny.log_weights(torch.from_numpy(EVERY), torch.from_numpy(noise(16, 4096)))
    means = [weight @ densities.importance_bound(draws.reshape(-1, k)).reshape(16, -1).mean(dim=1).numpy() for k in (1, 4, 64, 4096)]
    assert means == sorted(means)
    assert means[0] < means[1] - 0.02
    assert means[-1] < weight @ wanted + 0.015  # 5 standard errors: 16 images, 4,096 draws of a poor q
    np.testing.assert_allclose(tiny.importance(EVERY, 4000), wanted, atol=0.08)  # 5 standard errors of an image


def test_elbo_is_log_p_less_the_divergence_to_the_posterior(tiny):
    """In expectation over draws, by quadrature: KL(q ‖ p(z | x)) of every image."""
    z = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    x = torch.from_numpy(EVERY)
    with torch.no_grad():
        mean, log_sigma = (v.double() for v in tiny.encode(x)[:2])
        log_q = -0.5 * ((z - mean) * torch.exp(-log_sigma)) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
        given = torch.stack([tiny.log_likelihood(z.float()[:, None], row.expand(1801, 1, 2, 2)) for row in x]).double()
        joint = given - 0.5 * (z**2 + math.log(2 * math.pi))
        draws = tiny.log_weights(x, torch.from_numpy(noise(16, 3000))).numpy()
    elbo = (torch.exp(log_q) * (joint - log_q)).sum(dim=1).numpy() * 0.01
    se = draws.std(axis=1) / np.sqrt(3000)
    assert (np.abs(draws.mean(axis=1) - elbo) < 5 * se + 1e-4).all()  # 16 comparisons at 5 standard errors
    assert (elbo <= exact(tiny, EVERY) + 1e-6).all()


def noise(n, k):
    return np.random.default_rng(0).standard_normal((n, k, 1)).astype(np.float32)


def test_a_full_covariance_is_that_of_its_normal():
    """log w and the training's log q − log p against torch's own normal law with the factor L = diag σ (I + M)."""
    module, config = smoke("vae", latent=3, covariance="full", steps=5)
    model = module.train(config, data(pictures()), seed=0)
    x, noise = torch.from_numpy(pictures()[:6]), torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, log_sigma, tilt = model.encode(x)
        assert tilt.abs().max() > 1e-3
        factor = torch.diag_embed(log_sigma.exp()) @ (torch.eye(3) + tilt)
        z = mean[:, None] + noise @ factor.transpose(1, 2)
        q = MultivariateNormal(mean[:, None], scale_tril=factor[:, None])
        prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
        likelihood = torch.stack([model.log_likelihood(z[:, i], x) for i in range(4)], dim=1)
        np.testing.assert_allclose(model.log_weights(x, noise), likelihood + prior.log_prob(z) - q.log_prob(z), rtol=1e-5)
        np.testing.assert_allclose(
            VAE.log_ratio(z[:, 0], mean, log_sigma, tilt), q.log_prob(z)[:, 0] - prior.log_prob(z)[:, 0], rtol=1e-4, atol=1e-5
        )


def test_a_linear_vae_with_the_true_posterior_is_ppca():
    """x = W z + σ ε: every importance weight is p(x), so that ELBO, IWAE and log p agree to rounding."""
    w, sigma = np.array([1.5, -0.7, 0.4]), 0.6
    constants = {"shift": np.zeros(3, np.float32), "scale": np.ones(3, np.float32)}
    model = VAE.Model.new(VAE.Config(latent=1, hidden=()), (3,), constants, seed=0)
    precision = 1 + w @ w / sigma**2
    with torch.no_grad():
        decoder, encoder = model.net.decoder[0], model.net.encoder[0]
        decoder.weight.copy_(torch.tensor(w)[:, None])
        decoder.bias.zero_()
        model.net.log_sigma.fill_(math.log(sigma - VAE.FLOOR))
        encoder.weight.copy_(torch.tensor(np.stack([w / sigma**2 / precision, np.zeros(3)])))
        encoder.bias.copy_(torch.tensor([0.0, -0.5 * math.log(precision)]))
    from scipy.stats import multivariate_normal

    x = np.random.default_rng(0).normal(size=(20, 3))
    wanted = multivariate_normal(np.zeros(3), np.outer(w, w) + sigma**2 * np.eye(3)).logpdf(x)
    for k in (1, 2, 17):
        np.testing.assert_allclose(model.importance(x, k), wanted, atol=2e-5)


def test_the_density_of_vectors_counts_their_units():
    x = vectors(200)
    module, config = smoke("vae", images=False, steps=30)
    small, large = (module.train(config, data(x * s), seed=0) for s in (1.0, 1000.0))
    np.testing.assert_allclose(small.log_prob(x) - 3 * np.log(1000), large.log_prob(x * 1000), atol=0.5)  # of 20.7, float32 training


def test_a_bound_of_a_vae_takes_as_many_draws_as_it_says(tiny):
    for k in (1, 5, 20):
        seen, inner = [], tiny.log_weights
        tiny.log_weights = lambda x, e, seen=seen, inner=inner: seen.append(e.shape[1]) or inner(x, e)
        tiny.importance(EVERY, k)
        del tiny.log_weights
        assert sum(seen) == k


def test_beta_moves_training_and_not_the_bound(tiny):
    other = VAE.Model(replace(tiny.config, beta=7.0), tiny.shape, tiny.net, tiny.constants)
    assert np.array_equal(other.log_prob(EVERY), tiny.log_prob(EVERY))
    rates = []
    for beta in (0.1, 10.0):
        module, config = smoke("vae", latent=2, steps=150, beta=beta)
        model = module.train(config, data(pictures()), seed=0)
        with torch.no_grad():
            mean, log_sigma, _ = model.encode(torch.from_numpy(pictures()))
        rates.append(float((0.5 * (mean**2 + torch.exp(2 * log_sigma) - 1) - log_sigma).sum(dim=1).mean()))
    assert rates[1] < 0.2 * rates[0]


def test_training_with_several_particles_tightens_the_bound_it_reports():
    config = replace(VAE.SMOKE["images"], steps=150, particles=5, anneal=0.0, draws=50)
    rows = pictures()
    model = VAE.train(config, data(rows), seed=0)
    start = VAE.Model.new(config, model.shape, {"values": model.constants["values"]}, seed=0)
    assert model.log_prob(rows).mean() > start.log_prob(rows).mean() + 1


@pytest.mark.parametrize("values", [2, 4])
def test_samples_of_a_vae_follow_its_law(values):
    module, config = smoke("vae", latent=1, hidden=(16,), steps=60)
    model = module.train(config, data(pictures(shape=(1, 1, 3), values=values)), seed=0)
    place = np.stack(np.meshgrid(*[np.arange(values)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 1, 3)
    p = np.exp(exact(model, (place * (255 // (values - 1))).astype(np.uint8)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    rank = model.sample(8192, seed=0).reshape(8192, 3) // (255 // (values - 1))
    found = np.bincount(rank @ values ** np.arange(3)[::-1], minlength=values**3) / 8192
    # up to 64 shares at 5 standard errors: one false alarm in 27,000 seeds
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / 8192) + 1e-4).all()


def test_a_vae_on_256_grey_values_sums_to_one_and_samples_its_law():
    rows = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    module, config = smoke("vae", latent=1, hidden=(16,), steps=40)
    model = module.train(config, data(rows), seed=0)
    p = np.exp(exact(model, rows))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    x = model.sample(4096, seed=0).ravel().astype(float)
    mean = p @ np.arange(256)
    sd = math.sqrt(p @ np.arange(256) ** 2 - mean**2)
    assert abs(x.mean() - mean) < 5 * sd / 64


def test_a_beta_with_particles_is_refused():
    with pytest.raises(UsageError, match="several particles have no KL term"):
        VAE.Config(beta=2.0, particles=5, anneal=0.0)


# -- autoencoder ---------------------------------------------------------------------------------------------------------------------


def test_an_autoencoder_claims_no_likelihood_and_learns_to_copy():
    rows = pictures(values=2)
    module, config = smoke("autoencoder", code=16, hidden=(64,), steps=400)
    model = module.train(config, data(rows), seed=0)
    assert model.bound is None
    with pytest.raises(UsageError, match="no likelihood"):
        model.log_prob(rows)
    wrong = (model.reconstruct(rows) != rows).mean()
    constant = np.minimum((rows == 0).mean(axis=0), (rows == 255).mean(axis=0)).mean()
    assert wrong < 0.25 * constant


def test_the_mixture_on_codes_is_chosen_on_held_out_codes():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((600, 2)) * 0.1 + rng.integers(3, size=(600, 1)) * 4
    found, size = AUTOENCODER.mixture(codes, AUTOENCODER.Config(code=2, components=(1, 3)), 0)
    assert size == 3
    np.testing.assert_allclose(np.sort(found["means"][:, 0]), [0, 4, 8], atol=0.1)
    with pytest.raises(DataError, match="fewer than the fewest components"):
        AUTOENCODER.mixture(codes[:5], AUTOENCODER.Config(components=(50,)), 0)


def test_random_rounding_keeps_the_mean():
    module, config = smoke("autoencoder", steps=2)
    model = module.train(config, data(pictures(values=2)), seed=0)
    u = torch.rand(4000, 16, generator=torch.Generator().manual_seed(0))
    y = torch.full((4000, 16), math.log(0.3 / 0.7))
    assert (model.outputs(y) == 0).all()
    assert model.outputs(y, u).mean() / 255 == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 64_000))


# -- latent spaces -------------------------------------------------------------------------------------------------------------------


def test_latent_neighbours_are_standard_normal_and_a_step_apart():
    a, b = models.latent_neighbours(4000, 3, 1e-3, seed=0)
    for side in (a, b):
        assert np.abs(side.mean(axis=0)).max() < 5 / np.sqrt(4000)
        assert np.abs((side**2).mean(axis=0) - 1).max() < 5 * np.sqrt(2 / 4000)
    # the speed of the path is π/2 of a standard normal vector's length
    speed = ((b - a) ** 2).sum(axis=1).mean() / 1e-6
    assert speed == pytest.approx(3 * (np.pi / 2) ** 2, rel=0.1)
    again = models.latent_neighbours(10, 3, 1e-3, seed=0)
    assert np.array_equal(again[0], a[:10])
    with pytest.raises(UsageError, match="step in"):
        models.latent_neighbours(1, 2, 0.0, seed=0)


@pytest.mark.parametrize("name", [*FLOWS, "vae", "autoencoder"])
@pytest.mark.parametrize("images", [True, False], ids=["images", "vectors"])
def test_latent_pairs_and_reconstructions_have_the_form_of_samples(name, images):
    if name == "glow" and not images:
        pytest.skip("a flow of images")
    module, config = smoke(name, images, steps=3)
    rows = pictures(60) if images else vectors(60)
    model = module.train(config, data(rows), seed=0)
    found = model.reconstruct(rows[:5])
    assert found.shape == (5, *rows.shape[1:])
    assert found.dtype == rows.dtype
    assert not images or set(np.unique(found)) <= set(TABLE)
    a, b = model.latent_pairs(5, 1e-4, seed=0)
    assert a.shape == b.shape == (5, *rows.shape[1:])
    assert a.dtype == b.dtype == (np.float32 if images else np.float64)  # not rounded: neighbours would be equal
    assert 0 < np.abs(a - b).max() < (5 if images else 0.01)
    far = model.latent_pairs(5, 0.5, seed=0)
    assert np.abs(far[0].astype(float) - far[1]).max() > np.abs(a.astype(float) - b).max()
    assert len(model.reconstruct(rows[:0])) == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vae", {"latent": 0}),
        ("vae", {"beta": -1.0}),
        ("autoencoder", {"components": ()}),
        ("autoencoder", {"rounding": "up"}),
        ("spline_flow", {"form": "masked"}),
        ("spline_flow", {"layers": 0}),
        ("glow", {"width": 0}),
        ("maf", {"hidden": ()}),
        ("nice", {"draws": 0}),
        ("nice", {"prior": "cauchy"}),
        ("realnvp", {"pixels": "logit"}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(UsageError):
        registry.module("baselines", name).Config(**settings)


def test_noise_of_an_image_does_not_change_with_the_number_of_draws():
    rows = pictures(3)
    few, many = (densities.row_noise(rows, k, (16,), law="uniform") for k in (2, 9))
    assert np.array_equal(few, many[:, :2])
