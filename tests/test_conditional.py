"""Class-conditional models: whose class is drawn, what p(x) is, guidance, and labels that reach the metrics."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp

from genbench import evaluate, flows, models, registry, trained, training
from genbench.check import _images
from genbench.errors import DataError, UsageError
from genbench.models import TrainingData
from genbench.samples import ArraySamples, open_samples

NAMES = ("gmm", "pixelcnn", "vae", "gan", "realnvp", "ebm", "ddpm", "flow_matching")


def made(name, variant="conditional", **settings):
    """A conditional baseline after a quick training on small images."""
    module = registry.module("baselines", name)
    smoke = module.SMOKE
    config = smoke.get(f"images:{variant}") or replace(smoke["images"], conditional=True)
    with training.session(device="cpu"):
        return module.train(replace(config, **settings), _images(), seed=0)


@pytest.fixture(scope="module")
def trained_models():
    return {name: made(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_classes_come_by_their_shares(trained_models, name):
    labels, known = trained_models[name].sample_labels(4096, seed=3), _images().train.labels
    for y in np.unique(known):
        share = (known == y).mean()
        assert abs((labels == y).mean() - share) < 4 * np.sqrt(share * (1 - share) / 4096)


@pytest.mark.parametrize("name", ["pixelcnn", "realnvp"])
def test_log_p_is_that_of_the_mixture_over_classes(trained_models, name):
    model, x = trained_models[name], _images().test.read(0, 5)
    classes, shares = model.constants["classes"], model.constants["shares"]
    each = np.stack([model.by_batch(model.given(np.full(model.BATCH, y)).log_prob_rows, x) for y in classes], axis=1)
    assert np.ptp(each, axis=1).min() > 0
    np.testing.assert_allclose(model.log_prob(x), logsumexp(each + np.log(shares), axis=1), rtol=1e-12)


def test_the_weights_of_a_conditional_vae_are_those_of_its_class(trained_models):
    model, x = trained_models["vae"], _images().test.read(0, 5)
    rows, noise = (training.as_tensor(a, model.device) for a in (x, np.zeros((5, 3, model.config.latent))))
    weights = [model.given(np.full(5, y)).log_weights(rows, noise).detach().numpy() for y in model.constants["classes"]]
    assert all(np.allclose(w, w[:, :1]) for w in weights)  # equal draws of one row
    assert np.ptp(np.stack(weights), axis=0).min() > 0
    assert model.importance(x, 1).shape == (5,)
    assert model.reconstruct(x).shape == x.shape


@pytest.mark.parametrize("name", ["nice", "realnvp", "maf", "spline_flow", "glow"])
def test_every_flow_moves_its_latents_by_class(name):
    import torch

    module = registry.module("baselines", name)
    with training.session(device="cpu"):
        model = module.train(replace(module.SMOKE["images"], conditional=True, steps=20), _images(), seed=0)
        told, e = model.given(np.repeat(model.constants["classes"][:2], 3)), torch.randn(6, model.size)
        with torch.no_grad():
            mean, log_scale = told.prior(told.condition)
            z = mean + log_scale.exp() * flows.from_normal(model.base, e)
            v = model.net.inverse(z)
            back, slope = model.net(v)
            torch.testing.assert_close(back, z, atol=1e-3, rtol=1e-3)
        assert float((mean[0] - mean[3]).abs().max()) > 0
        assert model.sample(3, seed=0).shape == (3, *model.shape)
        assert np.isfinite(model.log_prob(_images().test.read(0, 2))).all()
        assert np.isfinite(model.latent_pairs(4, 1e-3, seed=0)[0]).all()
        assert slope.shape == (6,)


@pytest.mark.parametrize("name", ["vae", "gan", "flow_matching", "ddpm"])
def test_neighbours_in_the_latent_space_are_of_one_class(trained_models, name):
    a, b = trained_models[name].latent_pairs(300, 1e-4, seed=0)
    assert a.shape == (300, *_images().shape)
    assert np.abs(a.astype(float) - b).max() < 60  # grey levels, of 255


def test_a_mixture_for_every_class_is_one_mixture(trained_models):
    model, x = trained_models["gmm"], _images().test.read(0, 5)
    arrays = model.arrays()
    each = []
    for y in np.unique(arrays["labels"]):
        own = arrays["labels"] == y
        share = arrays["weights"][own].sum()
        part = {k: v if k == "values" else v[own] for k, v in arrays.items()}
        each.append(np.log(share) + type(model)(model.config, part | {"weights": part["weights"] / share}, model.shape).log_prob(x))
    np.testing.assert_allclose(model.log_prob(x), logsumexp(each, axis=0), rtol=1e-12)
    np.testing.assert_allclose(arrays["weights"].sum(), 1)


@pytest.mark.parametrize("name", ["gan", "ebm", "ddpm", "flow_matching"])
def test_a_model_without_a_sound_bound_claims_none(trained_models, name):
    assert trained_models[name].bound is None
    with pytest.raises(UsageError):
        trained_models[name].log_prob(_images().test.read(0, 5))


def test_samples_heed_their_class():
    """Two classes, one dark and one bright: every family's samples have the brightness of their class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    rows = (rng.random((600, 1, 4, 4)) < np.where(labels, 0.9, 0.1)[:, None, None, None]).astype(np.uint8) * 255
    data = TrainingData("two", ArraySamples(rows, labels=labels, layout="nchw"))
    for name in ("gmm", "pixelcnn", "vae", "gan", "realnvp", "ddpm", "flow_matching"):
        module = registry.module("baselines", name)
        config = module.SMOKE.get("images:conditional") or replace(module.SMOKE["images"], conditional=True)
        steps = {} if name == "gmm" else {"steps": 300}
        with training.session(device="cpu"):
            model = module.train(replace(config, **steps), data, seed=0)
            x, y = model.sample(512, seed=0), model.sample_labels(512, seed=0)
        bright = (x > 127).mean(axis=(1, 2, 3))
        assert bright[y == 1].mean() - bright[y == 0].mean() > 0.4, name


def test_guidance_moves_away_from_what_is_untold():
    import torch

    model = made("flow_matching", "guided", guidance=3.0)
    x, t = torch.randn(6, *model.shape), torch.rand(6)
    told = model.given(model.sample_labels(6, seed=0))
    with torch.no_grad():
        c, u = model.net(x, t, told.condition), model.net(x, t, torch.zeros_like(told.condition))
        torch.testing.assert_close(told.output(x, t), (u + 3 * (c - u)).float())
    assert model.nfe == 2 * model.config.nfe
    assert model.notes == (f"samples by {2 * model.config.nfe} network evaluations (midpoint)",)
    plain = made("flow_matching", "guided", guidance=1.0)
    assert plain.nfe == plain.config.nfe


def test_a_share_of_the_classes_is_withheld_in_training():
    model = made("flow_matching", "guided", steps=1, withheld=0.25)
    with training.seeded(0):
        told = model.learning(training.as_tensor(np.zeros(4000, np.int64) + _images().train.labels.min())).condition.sum(dim=1)
    assert 0.2 < float((told == 0).float().mean()) < 0.3


def test_classes_that_are_not_known_and_data_without_labels_are_errors(trained_models):
    with pytest.raises(DataError, match="found 99"):
        trained_models["vae"].given(np.array([99]))
    with pytest.raises(DataError, match="found no labels"):
        trained_models["vae"].given(None)
    data = _images()
    bare = TrainingData("bare", ArraySamples(data.train.read(0, 60), layout="nchw"))
    for name in NAMES:
        module = registry.module("baselines", name)
        config = module.SMOKE.get("images:conditional") or replace(module.SMOKE["images"], conditional=True)
        with pytest.raises(DataError, match="no labels"):
            module.train(config, bare, seed=0)


# -- labels on their way to the metrics ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "run"
    trained.train("gmm:conditional", "digits", out=folder)
    return folder


@pytest.mark.parametrize("name", ["folder/", "a.zip", "a.npz", "a.safetensors"])
def test_written_samples_keep_their_classes(run, tmp_path, name):
    model, out = open_samples(run, n=300, seed=0), tmp_path / name
    trained.sample(run, 300, str(tmp_path) + "/" + name)
    back = open_samples(out)
    a, b = (sorted(zip(s.labels.tolist(), map(bytes, s.read(0, 300)), strict=True)) for s in (model, back))
    assert a == b


def test_a_file_that_cannot_hold_classes_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="pass a folder"):
        trained.sample(run, 300, tmp_path / "a.npy")


def test_a_conditional_model_is_scored_by_its_classes(run):
    value = {
        r["quantity"]: r["value"] for r in evaluate(str(run), "digits/train", metrics=["cas"], n=400, test="digits/test").record["results"]
    }
    assert value["cas"] > 0.8
    module = registry.module("baselines", "train_replay")
    data = trained.open_data("digits")
    shuffled = evaluate(module.train(module.Config(shuffled=True), data, seed=0), data.train, metrics=["cas"], n=400, test=data.test)
    assert {r["quantity"]: r["value"] for r in shuffled.record["results"]}["cas"] < 0.25


def test_a_users_own_conditional_model():
    x = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)

    def sample(n, *, seed, start=0):
        return x[start : start + n]

    own = SimpleNamespace(shape=(1, 8, 8), sample=sample, sample_labels=lambda n, *, seed: np.arange(n) % 10)
    assert open_samples(own, n=64).labels.tolist() == (np.arange(64) % 10).tolist()
    own.sample_labels = lambda n, *, seed: None
    assert open_samples(own, n=64).labels is None
    own.sample_labels = lambda n, *, seed: np.arange(n - 1)
    with pytest.raises(DataError, match="expected 64 whole numbers"):
        open_samples(own, n=64)


def test_a_share_of_one_class_has_labels_in_the_right_order():
    module, data = registry.module("baselines", "train_replay"), trained.open_data("digits")
    model = module.train(module.Config(), data, seed=0)
    rows, labels = models.read_all(data.train), np.asarray(data.train.labels)
    known = {bytes(r): y for r, y in zip(rows, labels, strict=True)}
    x, y = model.sample(500, seed=4, start=300), model.sample_labels(500, seed=4, start=300)
    assert [known[bytes(r)] for r in x] == y.tolist()
