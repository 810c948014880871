"""The training loop: batches by number, schedules, averages, resuming bit for bit, and what it refuses; the nets' likelihoods."""

import math
import os
import signal
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import Rows

from genbench import densities, models, registry, training
from genbench.errors import DataError, FailedError, UsageError
from genbench.models import TrainingData
from genbench.training import Batches, fit, seeded, session

ROWS = np.random.default_rng(0).normal(size=(70, 3))


@dataclass(frozen=True)
class Config(training.Config):
    width: int = 4


PLAIN = Config(steps=20, batch=16, lr=0.05, warmup=0.0)


def regression(config=PLAIN, *, seed=0, out=None, rows=ROWS, noise=True, rule=torch.optim.Adam, each=None, **options):
    """A net that maps the first two columns to the third; dropout and noise draw from torch's own generators."""
    with seeded(seed):
        net = torch.nn.Sequential(torch.nn.Linear(2, config.width), torch.nn.Dropout(0.1), torch.nn.Linear(config.width, 1))
    optimiser = rule(net.parameters(), lr=config.lr)
    seen = []

    def step(now):
        if each is not None:
            each(now)
        seen.append((now.x.clone(), now.rate, optimiser.param_groups[0]["lr"]))
        x = now.x[:, :2] + 0.01 * torch.randn_like(now.x[:, :2]) * noise + 0.01 * now.rng.random()
        loss = ((net(x)[:, 0] - now.x[:, 2]) ** 2).mean()
        now.update(loss)
        return {"square": loss}

    fitted = fit(step, config, rows, modules={"net": net}, optimisers={"net": optimiser}, seed=seed, out=out, **options)
    return net, fitted, seen


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# -- batches -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10, 33])
def test_every_epoch_holds_every_row_once(size):
    rows = np.arange(10)
    batches = Batches(rows, size, seed=3)
    order = np.concatenate([batches.index(i) for i in range(30)])
    for epoch in range(len(order) // 10):
        assert sorted(order[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    assert not np.array_equal(order[:10], order[10:20])


def test_a_batch_depends_on_seed_and_number_alone():
    rows = np.arange(100)
    forward, backward = Batches(rows, 30, seed=1), Batches(rows, 30, seed=1)
    found = {i: backward.index(i) for i in reversed(range(12))}
    assert all(np.array_equal(forward.index(i), found[i]) for i in range(12))
    assert not np.array_equal(Batches(rows, 30, seed=2).index(0), found[0])


def test_rows_are_drawn_anew_each_time_they_enter_a_batch():
    rows = np.full((4, 50), 128, np.uint8)

    def redraw(index, rng):
        return (rng.random((len(index), 50)) < 0.5).astype(np.uint8)

    batches = Batches(rows, 4, seed=0, redraw=redraw)
    first, again = batches(0), Batches(rows, 4, seed=0, redraw=redraw)(0)
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], batches(1)[0])


def test_training_on_nothing_is_refused():
    with pytest.raises(DataError, match="at least one row"):
        regression(rows=np.empty((0, 3)))


# -- randomness ----------------------------------------------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_net_and_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    first, second, other = (weights(regression(seed=s)[0]) for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_seeded_puts_the_generator_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(1):
        1 / float(torch.rand(1)) / 0
    assert torch.equal(before, torch.get_rng_state())


# -- schedule, average, clip ---------------------------------------------------------------------------------------------------------


def test_the_rate_warms_up_and_falls_to_zero_at_the_stated_steps():
    config = Config(steps=100, warmup=0.1)
    rates = [config.rate(i) for i in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0, abs=1e-15)
    assert rates[55] == pytest.approx(0.5)  # half of what is left after the warm-up
    assert {replace(config, warmup=0.0, decay="none").rate(i) for i in (0, 50, 99)} == {1.0}


def test_the_optimisers_get_the_rate():
    _, _, seen = regression(replace(PLAIN, warmup=0.25))
    for _, rate, lr in seen:
        assert lr == pytest.approx(0.05 * rate)


def test_the_average_is_that_of_the_weights_by_hand():
    net = torch.nn.Linear(1, 1, bias=False)
    path = [float(net.weight.detach())]

    def step(now):
        with torch.no_grad():
            net.weight.add_(now.rng.normal())
        path.append(float(net.weight.detach()))
        return {}

    fit(step, replace(PLAIN, ema=0.7), ROWS, modules={"net": net}, seed=0)
    mean = path[0]
    for i, w in enumerate(path[1:]):
        decay = min(0.7, (1 + i) / (10 + i))
        mean = decay * mean + (1 - decay) * w
    assert float(net.weight.detach()) == pytest.approx(mean, rel=1e-5)
    assert abs(mean - path[-1]) > 0.01


def test_an_average_leaves_modules_without_parameters_alone(tmp_path):
    net, counter = torch.nn.Linear(2, 1), torch.nn.Module()
    counter.register_buffer("steps", torch.zeros(()))

    def step(now):
        counter.steps += 1
        now.update(net(now.x[:, :2]).square().mean())
        return {}

    optimisers = {"net": torch.optim.Adam(net.parameters(), lr=0.01)}
    fit(step, replace(PLAIN, ema=0.9), ROWS, modules={"net": net, "counter": counter}, optimisers=optimisers, seed=0, out=tmp_path)
    assert float(counter.steps) == PLAIN.steps


def test_clip_bounds_the_step_of_plain_gradient_descent():
    config = replace(PLAIN, steps=1, lr=1.0, clip=0.01, decay="none")
    with seeded(0):
        before = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.1), torch.nn.Linear(4, 1))
    net, _, _ = regression(config, rule=torch.optim.SGD)
    assert float((weights(net) - weights(before)).norm()) == pytest.approx(0.01, rel=1e-3)


def test_bf16_runs_the_net_in_bfloat16_and_keeps_float32_weights():
    types = []
    with seeded(0):
        net = torch.nn.Linear(3, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)

    def step(now):
        out = net(now.x)
        types.append(out.dtype)
        now.update(out.float().square().mean())
        types.append(net(now.x).dtype)
        return {}

    fit(step, replace(PLAIN, steps=2, bf16=True), ROWS, modules={"net": net}, optimisers={"net": optimiser}, seed=0)
    assert set(types) == {torch.bfloat16}
    assert net.weight.dtype == torch.float32


def test_a_second_loss_of_one_step_sees_the_new_weights_under_bf16():
    net = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    found = []

    def step(now):
        one = torch.ones(1, 1)
        now.update(2 * net(one).float().sum())  # the weight moves from 1 to −1
        found.append(float(net(one).detach()))
        return {}

    fit(step, replace(PLAIN, steps=1, bf16=True, decay="none"), ROWS, modules={"net": net}, optimisers={"net": optimiser}, seed=0)
    assert found == [-1.0]


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": math.nan}, {"clip": -1.0}, {"warmup": 1.0}, {"ema": 1.0}, {"decay": "linear"}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError):
        Config(**settings)


# -- resuming ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("stop", [1, 7, 19])
def test_a_killed_training_that_goes_on_is_the_one_that_was_not_bit_for_bit(tmp_path, rule, stop):
    config = replace(PLAIN, ema=0.9)
    whole, fitted, _ = regression(config, rule=rule)
    with pytest.raises(training.Stopped), session(stop_after=stop):
        regression(config, rule=rule, out=tmp_path)
    net, again, seen = regression(config, rule=rule, out=tmp_path)
    assert len(seen) == config.steps - stop
    assert torch.equal(weights(whole), weights(net))
    assert [r["square"] for r in again.curve] == [r["square"] for r in fitted.curve]
    assert again.seconds > 0
    assert (tmp_path / "curve.csv").read_text().splitlines()[0] == "step,seconds,square"
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 1 + config.steps


def test_a_finished_training_is_not_done_again(tmp_path):
    net, _, _ = regression(out=tmp_path)
    again, fitted, seen = regression(out=tmp_path)
    assert seen == []
    assert fitted.steps == PLAIN.steps
    assert torch.equal(weights(net), weights(again))
    training.discard(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["curve.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_step_keeps_the_state_and_says_so(tmp_path, capsys, number):
    def interrupt(now):
        if now.i == 6:
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    whole, _, _ = regression()
    with pytest.raises(KeyboardInterrupt):
        regression(out=tmp_path, each=interrupt)
    assert f"stopped after step 7 of 20; the state is in {tmp_path}" in capsys.readouterr().err
    net, _, seen = regression(out=tmp_path)
    assert len(seen) == 13
    assert torch.equal(weights(whole), weights(net))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": replace(PLAIN, lr=0.1)}, "expected setting lr 0.1, found 0.05"),
        ({"seed": 1}, "expected seed 1, found 0"),
        ({"rows": ROWS + 1}, "expected rows .*, found"),
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path, change, said):
    with pytest.raises(training.Stopped), session(stop_after=5):
        regression(out=tmp_path)
    with pytest.raises(UsageError, match=f"the state of another training: {said}.*delete"):
        regression(out=tmp_path, **change)


def test_a_damaged_state_is_refused(tmp_path):
    with pytest.raises(training.Stopped), session(stop_after=5):
        regression(out=tmp_path)
    path = tmp_path / training.STATE
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="not a readable training state.*delete"):
        regression(out=tmp_path)


def test_a_state_that_does_not_fit_the_net_is_refused(tmp_path, monkeypatch):
    with pytest.raises(training.Stopped), session(stop_after=5):
        regression(out=tmp_path)
    real = torch.nn.Linear
    monkeypatch.setattr(torch.nn, "Linear", lambda a, b: real(a, b, bias=False))
    with pytest.raises(UsageError, match="does not fit this version of the model"):
        regression(out=tmp_path)


def test_states_are_saved_in_between(tmp_path):
    seen = []

    def look(now):
        seen.append((tmp_path / training.STATE).is_file())

    with session(save_every=0.0):
        regression(out=tmp_path, each=look)
    assert seen == [False] + [True] * 19


# -- several optimisers, none --------------------------------------------------------------------------------------------------------


def duel(out=None, steps=30, stop_after=None):
    """A GAN in one dimension: two nets, two optimisers, two losses per step."""
    config = Config(steps=steps, batch=32, lr=0.01, warmup=0.0, ema=0.5)
    with seeded(0):
        g, d = torch.nn.Linear(1, 1), torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimisers = {"g": torch.optim.Adam(g.parameters(), lr=config.lr), "d": torch.optim.Adam(d.parameters(), lr=2 * config.lr)}
    soft = torch.nn.functional.softplus

    def step(now):
        fake = g(torch.randn(len(now.x), 1))
        d_loss = (soft(-d(now.x[:, :1])) + soft(d(fake.detach()))).mean()
        now.update(d_loss, "d")
        g_loss = soft(-d(fake)).mean()
        now.update(g_loss, "g")
        return {"d": d_loss, "g": g_loss}

    with session(stop_after=stop_after):
        fitted = fit(step, config, ROWS + 2, modules={"g": g, "d": d}, optimisers=optimisers, seed=0, out=out, average=["g"])
    return g, d, fitted


def test_two_optimisers_with_a_loss_each_resume_too(tmp_path):
    g, d, fitted = duel()
    assert set(fitted.curve[0]) == {"step", "seconds", "d", "g"}
    with pytest.raises(training.Stopped):
        duel(out=tmp_path, stop_after=11)
    g2, d2, _ = duel(out=tmp_path)
    assert torch.equal(weights(g), weights(g2))
    assert torch.equal(weights(d), weights(d2))


def test_update_needs_a_name_among_several_optimisers():
    g = torch.nn.Linear(3, 1)
    optimisers = {"a": torch.optim.SGD(g.parameters(), lr=0.1), "b": torch.optim.SGD(g.parameters(), lr=0.1)}
    with pytest.raises(UsageError, match="one of several optimisers: a, b"):
        fit(lambda now: now.update(g(now.x).mean()), PLAIN, ROWS, modules={"g": g}, optimisers=optimisers, seed=0)


def test_updates_by_hand_need_no_optimiser(tmp_path):
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("chain", torch.zeros(16, 3))  # as an RBM's persistent chains

    def run(out=None):
        net = Mean()

        def step(now):
            net.chain.copy_(0.5 * net.chain + torch.randn_like(net.chain))
            net.mean.lerp_(now.x.mean(dim=0) + 0.1 * net.chain.mean(dim=0), 0.1 * now.rate)
            return {"distance": float((net.mean - torch.as_tensor(ROWS.mean(axis=0))).norm())}

        fit(step, PLAIN, ROWS, modules={"net": net}, seed=0, out=out)
        return net

    whole = run()
    with pytest.raises(training.Stopped), session(stop_after=9):
        run(tmp_path)
    net = run(tmp_path)
    assert torch.equal(whole.mean, net.mean)
    assert torch.equal(whole.chain, net.chain)


# -- losses and progress -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_step_and_the_settings(tmp_path, value):
    def step(now):
        return {"nats": torch.tensor(value if now.i == 3 else 1.0)}

    with pytest.raises(FailedError, match=r"loss 'nats' is (nan|inf) at step 3 of 20 \(steps 20, batch 16, lr 0\.05.*lower lr"):
        fit(step, PLAIN, ROWS, modules={}, seed=0, out=tmp_path)


def test_progress_tells_step_and_loss():
    told = []
    with session(progress=lambda *a: told.append(a)):
        regression()
    assert [t[1:3] for t in told] == [(i + 1, 20) for i in range(20)]
    assert told[-1][0].startswith("training ")
    assert told[-1][3].startswith("square ")


def test_the_curve_holds_means_of_equal_shares_of_the_steps():
    values = iter(range(1000))
    fitted = fit(lambda now: {"loss": next(values)}, Config(steps=1000, batch=1), ROWS, modules={}, seed=0)
    assert len(fitted.curve) == training.POINTS
    assert [r["loss"] for r in fitted.curve[:2]] == [2.0, 7.0]
    assert fitted.curve[-1]["step"] == 1000


def test_time_per_step_is_measured_and_none_without_steps():
    (part,) = training.time_of_parts(lambda: regression(replace(PLAIN, steps=10_000)))
    assert part.seconds > 0
    assert part.steps == 10_000
    assert training.time_of_parts(lambda: None) == []


def test_every_named_part_is_measured_for_a_few_steps(tmp_path):
    seen = []

    def parts():
        seen.append(len(regression(replace(PLAIN, steps=5_000), name="encoder", out=tmp_path)[2]))
        seen.append(len(regression(replace(PLAIN, steps=7), name="prior", out=tmp_path)[2]))

    found = training.time_of_parts(parts)
    assert [p.steps for p in found] == [5_000, 7]
    assert seen == [13, 7]  # no more than a part has
    assert not list(tmp_path.rglob(training.STATE))


def test_an_unknown_device_is_refused():
    with session(device="tpu"), pytest.raises(UsageError, match="found 'tpu'"):
        training.device()


# -- densities -----------------------------------------------------------------------------------------------------------------------


def test_log1mexp_is_accurate_at_both_ends():
    x = torch.tensor([1e-10, 1e-3, math.log(2), 5.0, 50.0], dtype=torch.float64)
    wanted = [math.log(-math.expm1(-float(v))) for v in x]
    assert densities.log1mexp(x).tolist() == pytest.approx(wanted, rel=1e-12)


def test_log1mexp_has_a_gradient_everywhere():
    x = torch.tensor([1e-6, 0.3, 2.0, 80.0], requires_grad=True)
    densities.log1mexp(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("classes", [2, 3, 17])
def test_categorical_masses_sum_to_one_and_draws_follow_them(classes):
    logits = torch.randn(4, classes - 1, generator=torch.Generator().manual_seed(0)) * 3
    ranks = torch.arange(classes).expand(4, classes)
    mass = densities.categorical(logits[:, None].expand(4, classes, classes - 1), ranks).exp()
    assert mass.sum(dim=1).tolist() == pytest.approx([1.0] * 4, abs=1e-6)
    u = (torch.arange(10_000) + 0.5) / 10_000  # every draw by inversion: shares are exact to 1e-4
    drawn = densities.draw_categorical(logits[:1].expand(10_000, -1), u)
    share = torch.bincount(drawn, minlength=classes) / 10_000
    assert share.tolist() == pytest.approx(mass[0].tolist(), abs=1.01e-4)


def test_extreme_logits_keep_their_digits():
    found = densities.categorical(torch.tensor([[200.0], [-200.0]]), torch.tensor([0, 1]))
    assert found.tolist() == [-200.0, -200.0]


@pytest.mark.parametrize("scale", [-9.0, -3.0, 0.0, 4.0])
@pytest.mark.parametrize("mean", [-1.3, 0.02, 1.0])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretised_logistics_sum_to_one(levels, mean, scale):
    shape = (levels, 2)
    weights, means, scales = torch.tensor([0.3, -1.0]).expand(shape), torch.tensor([mean, -mean]).expand(shape), torch.full(shape, scale)
    log_mass = densities.logistic_mixture(weights, means, scales, torch.arange(levels), levels)
    assert torch.isfinite(log_mass).all()
    assert float(log_mass.double().exp().sum()) == pytest.approx(1.0, abs=2e-5)


def test_discretised_logistic_agrees_with_the_difference_of_two_sigmoids():
    levels, mean, scale = 17, 0.2, -1.5
    edges = np.concatenate([[-np.inf], (2 * np.arange(16) + 1) / 16 - 1, [np.inf]])
    wanted = np.diff(1 / (1 + np.exp(-(edges - mean) / math.exp(scale))))
    one = torch.ones(levels, 1)
    found = densities.logistic_mixture(one, one * mean, one * scale, torch.arange(levels), levels).exp()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-5)


def test_draws_of_the_logistic_mixture_follow_its_masses():
    levels, n = 9, 40_000
    rng = torch.Generator().manual_seed(0)
    weights, means, scales = torch.tensor([0.5, 0.0]), torch.tensor([-0.9, 0.4]), torch.tensor([-2.0, -1.0])
    u, v = torch.rand(2, n, generator=rng)
    drawn = densities.draw_logistic_mixture(weights.expand(n, 2), means.expand(n, 2), scales.expand(n, 2), u, v, levels)
    share = torch.bincount(drawn, minlength=levels).double() / n
    every = (levels, 2)
    mass = densities.logistic_mixture(weights.expand(every), means.expand(every), scales.expand(every), torch.arange(levels), levels).exp()
    # 9 shares at 5 standard errors: one false alarm in 190,000 seeds
    assert ((share - mass).abs() < 5 * (mass * (1 - mass) / n).sqrt() + 1e-6).all()


def test_importance_bound_is_the_log_of_the_mean_weight():
    found = densities.importance_bound(torch.log(torch.tensor([[0.1, 0.3], [0.2, 0.2]])))
    assert found.tolist() == pytest.approx([math.log(0.2)] * 2)
    assert float(densities.importance_bound(torch.tensor([[-1e4, -1e4 - 1]]))[0]) == pytest.approx(-1e4 + math.log((1 + math.exp(-1)) / 2))


def test_dequantisation_with_unit_bins_recovers_a_mass_that_is_constant_in_each():
    mass = torch.tensor([0.2, 0.5, 0.3])
    ranks = torch.tensor([[0, 1], [2, 2], [1, 0]])
    noise = torch.from_numpy(densities.row_noise(ranks.numpy(), 5, (2,), law="uniform"))
    found = densities.dequantised(lambda x: torch.log(mass[x.long()]).sum(dim=1), ranks, noise)
    assert found.tolist() == pytest.approx(torch.log(mass[ranks]).sum(dim=1).tolist(), abs=1e-6)
    assert (noise > 0).all()
    assert (noise < 1).all()


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_noise_of_a_row_depends_on_its_content_alone(law):
    rows = np.arange(12, dtype=np.uint8).reshape(4, 3)
    whole = densities.row_noise(rows, 6, (2, 2), law=law)
    assert whole.shape == (4, 6, 2, 2)
    assert np.array_equal(densities.row_noise(rows[[2]], 6, (2, 2), law=law)[0], whole[2])
    assert np.array_equal(densities.row_noise(rows, 3, (2, 2), law=law), whole[:, :3])
    assert not np.array_equal(densities.row_noise(rows, 6, (2, 2), law=law, seed=1), whole)
    assert len(np.unique(whole)) == whole.size


# -- nets as models ------------------------------------------------------------------------------------------------------------------

MADE = registry.module("baselines", "made")


def binary(n=400, seed=0):
    """3 × 3 images in which every pixel is likely to be as the one before it."""
    rng = np.random.default_rng(seed)
    x = (rng.random((n, 9)) < 0.5).astype(np.uint8)
    for d in range(1, 9):
        same = rng.random(n) < 0.8
        x[same, d] = x[same, d - 1]
    return (x * 255).reshape(n, 1, 3, 3)


def made(**settings):
    return MADE.train(replace(MADE.SMOKE["images"], **settings), TrainingData("bits", Rows(binary())), seed=0)


@pytest.mark.parametrize("hidden", [(), (20,), (20, 30)])
def test_an_output_of_made_has_no_gradient_from_its_own_pixel_or_later_ones(hidden):
    model = made(hidden=hidden, steps=5)
    x = torch.rand(1, 9, requires_grad=True)
    out = model.net(x)[0, :, 0]
    for d in range(9):
        (slope,) = torch.autograd.grad(out[d], x, retain_graph=True)
        assert (slope[0, d:] == 0).all()
        assert d == 0 or (slope[0, :d] != 0).any()


@pytest.mark.parametrize("hidden", [(), (20,), (20, 30)])
def test_made_draws_from_the_conditionals_of_its_forward_pass(hidden):
    model = made(hidden=hidden)
    u = torch.rand(256, 9, generator=training.torch_generator(3, 0))
    x = model.shard(0, 3)
    white = torch.sigmoid(model.net(model.scaled(model.ranks(torch.from_numpy(x).flatten(1))))[:, :, 0])
    assert torch.equal(torch.from_numpy(x.reshape(256, 9) > 0), u >= 1 - white)


@pytest.mark.parametrize("hidden", [(), (20,), (20, 30)])
def test_several_orders_are_an_even_mixture_each_of_which_sees_only_what_comes_before(hidden):
    model = made(hidden=hidden, orders=3, steps=9)
    x = torch.from_numpy(binary(50, 1))
    each = torch.stack([model.pixels(x, o).double().sum(dim=1) for o in range(3)])
    wanted = torch.log(each.exp().mean(dim=0)).detach().numpy()
    assert model.log_prob(x.numpy()) == pytest.approx(wanted, rel=1e-6)
    assert len({tuple(place) for place in model.constants["place"]}) == 3
    for order, place in enumerate(model.constants["place"]):
        at = torch.rand(1, 9, requires_grad=True)
        out = model.net(at, order)[0, :, 0]
        for d in range(9):
            (slope,) = torch.autograd.grad(out[d], at, retain_graph=True)
            assert (slope[0, place >= place[d]] == 0).all()
            assert place[d] == 0 or (slope[0, place < place[d]] != 0).any()


def test_every_order_draws_from_the_conditionals_of_its_forward_pass():
    model = made(orders=3)
    u = torch.rand(256, 9, generator=training.torch_generator(3, 0))
    for order in range(3):
        ranks = model.drawn(u, order)
        white = torch.sigmoid(model.net(model.scaled(ranks), order)[:, :, 0])
        assert torch.equal(ranks > 0, u >= 1 - white)


def test_made_learns_a_markov_chain():
    # Entropy: ln 2 + 8 h(0.9), a pixel being as the one before it with probability 0.8 + 0.2 / 2; 400 images leave it .1 above.
    model = made(steps=400)
    entropy = math.log(2) - 8 * (0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert -model.log_prob(binary(2000, 1)).mean() == pytest.approx(entropy, abs=0.2)


def test_an_image_with_a_grey_value_that_made_does_not_know_is_refused():
    x = binary(3)
    x[1, 0, 0, 0] = 7
    with pytest.raises(DataError, match="knows 2 grey values"):
        made(steps=1).log_prob(x)


def test_log_prob_of_no_rows_is_empty():
    assert made(steps=1).log_prob(np.empty((0, 1, 3, 3), np.uint8)).shape == (0,)


def test_weights_of_another_net_are_refused():
    model = made(steps=1)
    with pytest.raises(DataError, match="do not fit the net"):
        MADE.Model.from_arrays(replace(model.config, hidden=(8,)), model.arrays(), model.shape)


def test_budgets_change_the_recipe_and_an_unknown_one_has_a_near_miss():
    class Module:
        RECIPES = {"images": PLAIN}  # noqa: RUF012
        BUDGETS = {"mnist": {"1min": {"steps": 3}}}  # noqa: RUF012
        SMOKE = {"images": Config(steps=1)}  # noqa: RUF012

    shape = (1, 28, 28)
    assert models.recipe(Module, "mnist", shape) == PLAIN
    assert models.recipe(Module, "mnist", shape, "1min") == replace(PLAIN, steps=3)
    assert models.recipe(Module, "mnist", shape, "smoke") == Config(steps=1)
    assert models.recipe(Module, "other", shape, "1min") == PLAIN
    with pytest.raises(UsageError, match="unknown budget on mnist '1mi'; did you mean '1min'"):
        models.recipe(Module, "mnist", shape, "1mi")


# -- binary MNIST --------------------------------------------------------------------------------------------------------------------


def test_dynamic_binarisation_has_the_grey_values_as_probabilities():
    module = registry.dataset("mnist-dynbin")
    grey = np.tile(np.array([0, 1, 100, 254, 255], np.uint8), (200_000, 1))
    share = (module.binarise(grey, np.random.default_rng(0)) == 255).mean(axis=0)
    assert share[0] == 0
    assert share[4] == 1
    wanted = grey[0, 1:4] / 255
    # 3 shares at 5 standard errors: one false alarm in 580,000 seeds
    assert (np.abs(share[1:4] - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / 200_000)).all()


def test_binary_mnist_has_the_stated_splits(mnist_root):
    from genbench.samples import open_samples

    grey = open_samples("mnist/train")
    for name in ("mnist-dynbin", "mnist-threshold"):
        sizes = {s: len(open_samples(f"{name}/{s}")) for s in ("train", "valid", "test")}
        assert sizes == {"train": 50_000, "valid": 10_000, "test": 10_000}
        valid = open_samples(f"{name}/valid")
        assert np.array_equal(valid.labels, grey.labels[50_000:])
        assert set(np.unique(valid.read(0, 100))) == {0, 255}
    cut = open_samples("mnist-threshold/valid").read(0, 50)
    assert np.array_equal(cut == 255, grey.read(50_000, 50_050) > 127)
    draws = [open_samples(f"mnist-dynbin/{s}").read(0, 50) for s in ("test", "test1", "test4")]
    assert not np.array_equal(draws[0], draws[1])
    black = open_samples("mnist/test").read(0, 50) == 0
    assert all((d[black] == 0).all() for d in draws)
    with pytest.raises(UsageError, match="test1"):
        open_samples("mnist-threshold/test1")
    redraw = registry.dataset("mnist-dynbin").redraw("mnist-dynbin")
    first = redraw(np.array([3, 70, 3]), models.generator(0))
    assert first.shape == (3, 1, 28, 28)
    assert not np.array_equal(first[0], first[2])
    assert registry.dataset("mnist-threshold").redraw("mnist-threshold") is None
