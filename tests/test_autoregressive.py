"""Autoregressive nets and PPCA: causality by gradients, masses that sum to one, samplers against their own laws, closed forms."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import Rows  # noqa: E402

from genbench import registry, training  # noqa: E402
from genbench.errors import DataError, UsageError  # noqa: E402
from genbench.models import TrainingData  # noqa: E402

PIXELCNN, TRANSFORMER, NADE, MIXTURE, PPCA = (
    registry.module("baselines", n) for n in ("pixelcnn", "pixel_transformer", "nade", "ar_mixture", "ppca")
)
BINARY = np.array([0, 255], np.uint8)
GREY = np.array([0, 60, 255], np.uint8)


def fresh(module, shape, values=BINARY, scale=1.0, **settings):
    """An untrained model; `scale` times its weights, so that its law is far from uniform."""
    model = module.Model.new(module.Config(**settings), shape, {"values": values}, seed=3)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.net.parameters():
            p.add_(0.3 * scale * torch.randn(p.shape, generator=rng))
    return model


def every_image(values, shape):
    d = int(np.prod(shape))
    return values[np.array(list(itertools.product(range(len(values)), repeat=d)))].reshape(-1, *shape)


PATCHED = [
    (PIXELCNN, {"patch": 2, "channels": 6, "layers": 2}),
    (PIXELCNN, {"patch": 1, "channels": 6, "layers": 3, "reach": 2, "first": 1}),
    (TRANSFORMER, {"patch": 2, "width": 8, "layers": 2}),
    (TRANSFORMER, {"patch": 1, "width": 8, "layers": 1, "near": 1}),
    (NADE, {"hidden": 7, "block": 3}),
]


# -- exactness -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "settings"), PATCHED)
@pytest.mark.parametrize(("values", "shape"), [(BINARY, (1, 2, 6)), (GREY, (1, 2, 4)), (BINARY, (2, 2, 2))])
def test_masses_of_all_images_sum_to_one(module, settings, values, shape):
    model = fresh(module, shape, values, **settings)
    nats = model.log_prob(every_image(values, shape))
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.1, "a law far from uniform"


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 2)])
def test_logistic_pixelcnn_sums_to_one_over_grey_levels_and_channels(shape):
    model = fresh(PIXELCNN, shape, GREY, head="logistic", channels=6, layers=2, components=2)
    assert np.exp(model.log_prob(every_image(GREY, shape))).sum() == pytest.approx(1, abs=1e-5)


# -- causality -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "settings"), [p for p in PATCHED if p[0] is not NADE])
def test_an_output_has_no_gradient_from_its_own_patch_or_later_ones_and_has_from_all_in_reach(module, settings):
    side = settings["patch"]
    model = fresh(module, (1, 6 * side, 6 * side), scale=0.2, **settings)
    x = torch.rand(1, side * side, 6, 6, requires_grad=True)
    out = model.net(x)
    if module is PIXELCNN:
        out = out.flatten(2).transpose(1, 2)
    for t in (0, 1, 8, 20, 35):
        (slope,) = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)
        seen = slope[0].abs().sum(dim=0).flatten() > 0
        assert not seen[t:].any()
        assert seen[:t].all() if module is TRANSFORMER or settings.get("reach") == 2 else seen[max(0, t - 2) : t].all()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_pixelcnn_has_no_blind_spot(layers):
    """Everything above within a cone of 45° or more, and everything to the left in reach: the fault of masked square filters."""
    model = fresh(PIXELCNN, (1, 9, 9), channels=6, layers=layers, first=1)
    x = torch.rand(1, 1, 9, 9, requires_grad=True)
    (slope,) = torch.autograd.grad(model.net(x)[0, :, 5, 4].sum(), x)
    seen = slope[0, 0].abs() > 0
    wanted = torch.zeros(9, 9, dtype=torch.bool)
    for up in range(1, layers + 2):
        wanted[5 - up, max(0, 4 - layers - 1) : 4 + layers + 2] = True
    wanted[5, max(0, 4 - layers - 1) : 4] = True
    assert torch.equal(seen, wanted)


def test_a_conditional_of_nade_sees_the_pixels_before_it_and_no_other():
    model = fresh(NADE, (1, 3, 4), hidden=9, block=5)
    x = torch.rand(1, 12, requires_grad=True)
    out = model.net(x)
    for d in range(12):
        (slope,) = torch.autograd.grad(out[0, d].sum(), x, retain_graph=True)
        assert torch.equal(slope[0] != 0, torch.arange(12) < d)


def test_blocks_of_nade_change_nothing():
    """Equations 2 and 3 pixel by pixel."""
    net, x = fresh(NADE, (1, 3, 4), GREY, hidden=9, block=5).net, torch.rand(6, 12)
    with torch.no_grad():
        for d in range(12):
            h = torch.relu(net.c + x[:, :d] @ net.w[:d])
            torch.testing.assert_close(net(x)[:, d], h @ net.v[d] + net.b[d])


# -- sampling ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "settings"), PATCHED)
@pytest.mark.parametrize("values", [BINARY, GREY])
def test_draws_are_inversions_of_the_conditionals_of_the_forward_pass(module, settings, values):
    """Sampling by caches is compared with the plain way: a whole forward pass for every part."""
    from torch.nn.functional import pixel_shuffle, pixel_unshuffle

    model, side = fresh(module, (1, 4, 6), values, **settings), settings.get("patch", 1)
    found = model.sample(256, seed=5)
    patches = (4 // side) * (6 // side)
    rng = training.torch_generator(5, 0)
    if module is NADE:
        u = torch.rand(256, patches, generator=rng).T
    else:  # PixelCNN draws twice as many, for the logistics
        u = torch.rand(*((2,) if module is PIXELCNN else ()), patches, 256, generator=rng).reshape(-1, patches, 256)[0]
    x = torch.zeros(256, 1, 4, 6, dtype=torch.long)
    with torch.no_grad():
        for t in range(patches):
            if module is NADE:
                logits = model.net(model.scaled(x.flatten(1)))[:, t]
            else:
                logits = model.net(model.scaled(pixel_unshuffle(x, side)))
                logits = logits.flatten(2).transpose(1, 2)[:, t] if module is PIXELCNN else logits[:, t]
            tokens = pixel_unshuffle(x, side).flatten(2)
            tokens[:, :, t] = model.apart(training_draw(logits, u[t]), side * side)
            x = pixel_shuffle(tokens.reshape(256, side * side, 4 // side, 6 // side), side)
    # A draw within rounding of a step of the inverse falls to the other side, and what comes after it differs.
    assert (found == model.greys(x)).all(axis=(1, 2, 3)).mean() > 0.99


def training_draw(logits, u):
    from genbench.densities import draw_categorical

    return draw_categorical(logits, u)


def test_logistic_draws_follow_the_law():
    model = fresh(PIXELCNN, (2, 1, 2), GREY, head="logistic", channels=6, layers=1, components=2)
    x = every_image(GREY, (2, 1, 2))
    p = np.exp(model.log_prob(x))
    keys = {row.tobytes(): i for i, row in enumerate(x)}
    counts = np.bincount([keys[row.tobytes()] for row in model.sample(20_000, seed=0)], minlength=len(x))
    # Pearson's statistic over 81 images has mean about 80 and sd about 12.6: six of them, one false alarm in 10 million.
    likely = p * 20_000 > 5
    assert (((counts - 20_000 * p) ** 2) / (20_000 * p))[likely].sum() < likely.sum() + 6 * np.sqrt(2 * likely.sum())


@pytest.mark.parametrize(("module", "settings"), PATCHED)
def test_low_temperature_takes_the_likeliest_part(module, settings):
    model = fresh(module, (1, 2, 4), temperature=1e-4, **settings)
    out = model.sample(20, seed=0)
    assert (out == out[0]).all()
    warm = fresh(module, (1, 2, 4), **settings)
    found, law = warm.log_prob(out[:1])[0], warm.log_prob(warm.sample(500, seed=1))
    assert found > law.mean()


# -- settings and data ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (PIXELCNN, {"layers": 0}),
        (PIXELCNN, {"head": "gaussian"}),
        (PIXELCNN, {"head": "logistic", "patch": 2}),
        (PIXELCNN, {"temperature": 0.0}),
        (TRANSFORMER, {"heads": 3}),
        (TRANSFORMER, {"near": 0}),
        (TRANSFORMER, {"weight_decay": -1.0}),
        (NADE, {"hidden": 0}),
        (NADE, {"temperature": -1.0}),
        (MIXTURE, {"form": "laplace"}),
        (MIXTURE, {"components": 0}),
        (MIXTURE, {"floor": 0.0}),
        (PPCA, {"components": ()}),
        (PPCA, {"nodes": 0}),
    ],
)
def test_settings_out_of_range_are_refused(module, settings):
    with pytest.raises(UsageError, match="found|at least|unknown"):
        module.Config(**settings)


@pytest.mark.parametrize("module", [PIXELCNN, TRANSFORMER])
def test_patches_that_do_not_fit_are_refused(module):
    with pytest.raises(UsageError, match="patch divides height and width of the images, found a patch of 2 and images of 5 × 4"):
        fresh(module, (1, 5, 4), patch=2)
    with pytest.raises(UsageError, match="too much for one categorical"):
        fresh(module, (1, 4, 4), np.arange(256, dtype=np.uint8), patch=2)


@pytest.mark.parametrize("module", [PIXELCNN, TRANSFORMER, NADE])
def test_vectors_constant_images_and_unknown_grey_values_are_refused(module):
    config = module.SMOKE["images"]
    with pytest.raises(DataError, match="has vectors; leave it out"):
        module.train(config, TrainingData("toy", Rows(np.zeros((5, 2)))), seed=0)
    with pytest.raises(DataError, match="one grey value"):
        module.train(config, TrainingData("flat", Rows(np.zeros((5, 1, 2, 2), np.uint8))), seed=0)
    with pytest.raises(DataError, match="knows 2 grey values"):
        fresh(module, (1, 2, 2)).log_prob(np.full((1, 1, 2, 2), 7, np.uint8))


def test_ar_mixture_refuses_images_and_constant_coordinates():
    with pytest.raises(DataError, match="has images"):
        MIXTURE.train(MIXTURE.Config(), TrainingData("pictures", Rows(np.zeros((5, 1, 2, 2), np.uint8))), seed=0)
    with pytest.raises(DataError, match="coordinate 1 is constant"):
        MIXTURE.train(MIXTURE.Config(), TrainingData("line", Rows(np.stack([np.arange(9.0), np.ones(9)], axis=1))), seed=0)


# -- learning ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (PIXELCNN, {"patch": 2, "channels": 16, "layers": 1, "steps": 150, "batch": 64, "lr": 2e-2}),
        (TRANSFORMER, {"patch": 2, "width": 16, "layers": 1, "steps": 150, "batch": 64, "lr": 2e-2}),
        (NADE, {"hidden": 32, "steps": 200, "lr": 2e-2}),
    ],
)
def test_nets_learn_a_law_of_known_entropy(module, settings):
    """Rows of coins, each row but the first the one above with every pixel flipped in one case of ten."""
    rng = np.random.default_rng(0)

    def rows(n):
        x = np.empty((n, 1, 4, 4), np.uint8)
        x[:, :, 0] = rng.integers(2, size=(n, 1, 4))
        for r in range(1, 4):
            x[:, :, r] = x[:, :, r - 1] ^ (rng.random((n, 1, 4)) < 0.1)
        return 255 * x

    entropy = 4 * np.log(2) - 12 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    model = module.train(module.Config(**settings), TrainingData("rows", Rows(rows(4000))), seed=0)
    # The independent model is at 16 log 2 = 11.1 nats, the law's entropy is 6.67.
    assert entropy - 0.2 < -model.log_prob(rows(2000)).mean() < entropy + 0.35


# -- mixtures for vectors ------------------------------------------------------------------------------------------------------------


def mixture(shape=(2,), **settings):
    rng = np.random.default_rng(1)
    constants = {"mean": np.array([3.0, -1.0]), "sd": np.array([2.0, 0.5]), "quantiles": np.sort(rng.normal(size=(3, 2)), axis=0)}
    model = MIXTURE.Model.new(MIXTURE.Config(components=3, hidden=8, **settings), shape, constants, seed=0)
    with torch.no_grad():
        for net in model.net:
            net[4].weight.mul_(10)  # so that the second coordinate depends on the first
    return model


@pytest.mark.parametrize("form", ["normal", "logistic"])
def test_density_of_the_mixture_integrates_to_one_and_its_draws_follow_it(form):
    model = mixture(form=form)
    side = [m + s * (np.arange(-9, 9, 0.06) + 0.03) for m, s in zip((3.0, -1.0), (2.0, 0.5), strict=True)]
    grid = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 2)
    nats, cell = model.log_prob(grid), 0.06**2 * 2.0 * 0.5
    assert np.exp(nats).sum() * cell == pytest.approx(1, abs=1e-3)
    entropy = -(np.exp(nats) * nats).sum() * cell
    drawn = model.log_prob(model.sample(5000, seed=0))
    assert abs(drawn.mean() + entropy) < 5 * drawn.std() / np.sqrt(5000) + 2e-3
    # Each coordinate's share below every edge, 5 standard errors of a share: the marginals of the same law.
    p, x = np.exp(nats).reshape(300, 300) * cell, model.sample(5000, seed=1)
    for d in (0, 1):
        inside = np.cumsum(p.sum(axis=1 - d))
        found = (x[:, d, None] < side[d] + 0.03 * (2.0, 0.5)[d]).mean(axis=0)
        assert np.abs(found - inside).max() < 5 * 0.5 / np.sqrt(5000)


def test_the_second_coordinate_sees_the_first_and_not_the_reverse():
    model, x = mixture(), np.array([[1.0, 2.0], [4.0, 2.0], [1.0, 5.0]])
    found = model.conditionals(x)
    assert found[0, 0] == found[2, 0]
    assert found[0, 1] != found[1, 1]


def test_one_normal_per_coordinate_is_the_gaussian():
    from scipy.stats import norm

    model = mixture()
    with torch.no_grad():
        for net in model.net:
            net[4].weight.zero_()
            net[4].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, 0.5, -1.0, -1.0, -1.0]))
    x = np.random.default_rng(0).normal(size=(10, 2))
    wanted = norm(3 + 0.5 * 2, np.exp(-1) * 2).logpdf(x[:, 0]) + norm(-1 + 0.5 * 0.5, np.exp(-1) * 0.5).logpdf(x[:, 1])
    np.testing.assert_allclose(model.log_prob(x), wanted, rtol=1e-5)


def test_the_mixture_comes_close_to_the_entropy_of_a_grid_of_modes():
    toy = registry.module("datasets", "toy2d").toy("grid25")
    rng = np.random.default_rng(0)
    config = MIXTURE.Config(components=8, hidden=16, steps=400, batch=200, lr=1e-2, ema=0.98)
    model = MIXTURE.train(config, TrainingData("grid25", Rows(toy.sample(4000, rng))), seed=0)
    x = model.sample(2000, seed=0)
    apart = np.sqrt(((x[:, None] - toy.centres) ** 2).sum(axis=2))
    good = apart.min(axis=1) < 3 * toy.sigma
    assert good.mean() > 0.9
    assert len(np.unique(apart.argmin(axis=1)[good])) == 25
    assert -model.log_prob(toy.sample(2000, rng)).mean() - toy.entropy()[0] < 0.3


# -- PPCA ----------------------------------------------------------------------------------------------------------------------------


def ppca(w, sd, mean, values=None, shape=None, **settings):
    values = np.empty(0, np.uint8) if values is None else values
    arrays = {"mean": np.asarray(mean, float), "weights": np.asarray(w, float), "noise": np.array([sd]), "values": values}
    return PPCA.Model(PPCA.Config(**settings), arrays, shape or (len(mean),))


def test_ppca_density_agrees_with_scipy():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(0)
    w, mean, x = rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=(20, 5))
    wanted = multivariate_normal(mean, w @ w.T + 0.3**2 * np.eye(5)).logpdf(x)
    np.testing.assert_allclose(ppca(w, 0.3, mean).log_prob(x), wanted, rtol=1e-10)


def test_full_ppca_has_the_covariance_of_the_data_and_the_best_likelihood():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)) @ np.diag([3, 2, 1, 0.5]) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    data = TrainingData("x", Rows(x), None, Rows(x))
    model = PPCA.train(PPCA.Config(components=(0, 3, 4, 9)), data, seed=0)
    a = model.arrays()
    assert model.chosen == {"components": 3}, "4 leave no direction for the noise"
    np.testing.assert_allclose(a["weights"] @ a["weights"].T + a["noise"][0] ** 2 * np.eye(4), np.cov(x.T, bias=True), atol=1e-12)
    two = PPCA.train(PPCA.Config(components=(2,)), data, seed=0)
    best, rng = two.log_prob(x).mean(), np.random.default_rng(1)
    for _ in range(20):  # eqs. 7 and 8 are the maximum: nothing near is better
        near = {k: v * (1 + 0.02 * rng.normal(size=v.shape)) if len(v) else v for k, v in two.arrays().items()}
        assert PPCA.Model(two.config, near, (4,)).log_prob(x).mean() < best


def exact(model, ranks, top, steps=4001):
    """log P of rounded and clipped draws of a model with one latent, by the trapezoid rule over z."""
    z = np.linspace(-9, 9, steps)
    a = model.arrays()
    t = z[:, None] * a["weights"][:, 0] + a["mean"]
    total = [PPCA.log_mass(row, t, a["noise"][0], top)[0].sum(axis=1) - z**2 / 2 - 0.5 * np.log(2 * np.pi) for row in ranks]
    return np.log(np.exp(np.array(total)).sum(axis=1) * (z[1] - z[0]))


@pytest.mark.parametrize(("values", "shape"), [(BINARY, (1, 2, 3)), (GREY, (1, 1, 4))])
def test_ppca_bound_is_below_and_close_to_the_exact_mass(values, shape):
    rng, top, d = np.random.default_rng(0), len(values) - 1, int(np.prod(shape))
    model = ppca(0.6 * rng.normal(size=(d, 1)), 0.4, rng.random(d) * top, values, shape)
    x = every_image(values, shape)
    ranks = np.searchsorted(values, x.reshape(len(x), -1)).astype(float)
    law, bound = exact(model, ranks, top), model.log_prob(x)
    assert np.exp(law).sum() == pytest.approx(1, abs=1e-9)
    assert (bound <= law + 1e-6).all()
    assert (np.exp(law) * (law - bound)).sum() < 0.05
    # The sampler draws from that law: 64 or 81 shares, 5 standard errors each.
    keys = {row.tobytes(): i for i, row in enumerate(x)}
    share = np.bincount([keys[row.tobytes()] for row in model.sample(20_000, seed=0)], minlength=len(x)) / 20_000
    assert (np.abs(share - np.exp(law)) < 5 * np.sqrt(np.exp(law) / 20_000) + 1e-4).all()


def test_more_nodes_and_steps_do_not_move_the_bound():
    rng = np.random.default_rng(0)
    w, mean = rng.normal(size=(16, 3)), rng.random(16)
    x = BINARY[rng.integers(2, size=(30, 1, 4, 4))]
    found, more = (ppca(w, 0.3, mean, BINARY, (1, 4, 4), **s).log_prob(x) for s in ({}, {"newton": 30, "nodes": 60}))
    np.testing.assert_allclose(found, more, atol=1e-3)


@pytest.mark.parametrize("rank", [0.0, 1.0, 4.0])
def test_derivatives_of_the_mass_are_those_of_differences(rank):
    t, h = np.linspace(-8, 12, 41), 1e-4
    nats, first, second = PPCA.log_mass(np.full(41, rank), t, 0.7, 4)
    above, below = (PPCA.log_mass(np.full(41, rank), t + s, 0.7, 4)[0] for s in (h, -h))
    np.testing.assert_allclose(first, (above - below) / (2 * h), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second, (above - 2 * nats + below) / h**2, rtol=1e-3, atol=1e-4)


def test_a_far_pixel_costs_its_tail_and_overflows_nowhere():
    nats, first, second = PPCA.log_mass(np.array([0.0, 1.0]), np.array([60.0, -60.0]), 0.5, 1)
    assert nats == pytest.approx(
        [-0.5 * 119**2 - np.log(119 * np.sqrt(2 * np.pi)), -0.5 * 121**2 - np.log(121 * np.sqrt(2 * np.pi))], rel=1e-6
    )
    assert first == pytest.approx([-238, 242], rel=1e-3)  # the tail's slope is its edge over the sd, in units of the sd
    assert second == pytest.approx([-4, -4], rel=1e-3)


def test_masses_of_a_clipped_normal_sum_to_one():
    t = np.linspace(-9, 12, 50)
    assert np.exp([PPCA.log_mass(np.full(50, r), t, 0.7, 4)[0] for r in range(5)]).sum(axis=0) == pytest.approx(np.ones(50), abs=1e-12)


def test_ppca_reconstruction_is_the_projection():
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    model = ppca(u * [3.0, 2.0], 0.5, np.ones(5))
    on = 1 + rng.normal(size=(7, 2)) @ u.T
    np.testing.assert_allclose(model.reconstruct(on), on, atol=1e-12)
    off = rng.normal(size=(7, 5))
    moved = model.reconstruct(off)
    assert np.abs((off - moved) @ u).max() < 1e-12
    np.testing.assert_allclose(model.reconstruct(moved), moved, atol=1e-12)


def test_ppca_of_data_that_do_not_vary_is_refused():
    with pytest.raises(DataError, match="leave ppca out"):
        PPCA.train(PPCA.Config(), TrainingData("flat", Rows(np.ones((9, 3)))), seed=0)


# -- parts of images that are patches ------------------------------------------------------------------------------------------------


def test_joined_and_apart_are_inverse_and_count_all():
    model = fresh(NADE, (2, 2, 2), GREY)
    numbers = torch.arange(3**4).reshape(3, 27)
    patches = model.apart(numbers, 4)
    assert patches.shape == (3, 4, 27)
    assert torch.equal(model.joined(patches), numbers)
    assert patches.max() == 2


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 2, 4)])
def test_patch_of_pixels_agrees_with_pixel_unshuffle(shape):
    from torch.nn.functional import pixel_unshuffle

    model = fresh(NADE, shape)
    found = pixel_unshuffle(torch.from_numpy(model.patch_of_pixels(2)).reshape(1, *shape), 2).flatten(2)[0]
    assert (found == torch.arange(found.shape[1])).all()
