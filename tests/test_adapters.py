"""Adapters: models of other libraries are sampled, checked and scored as genbench's own."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genbench import check, evaluate, open_samples
from genbench.adapters import adapt, referred
from genbench.cli import run
from genbench.errors import DataError, UsageError

GAUSSIAN = torch.distributions.Independent(torch.distributions.Normal(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])), 1)


class Pipeline:
    """As diffusers': images of a generator, as arrays or Pillow's."""

    def __init__(self, channels=3):
        self.channels = channels
        self.components = {"unet": torch.nn.Linear(3, 2), "scheduler": object()}

    def __call__(self, batch_size=1, generator=None, num_inference_steps=50, output_type="pil"):
        x = torch.rand(batch_size, 8, 8, self.channels, generator=generator).numpy()
        if output_type == "np":
            return SimpleNamespace(images=x)
        from PIL import Image

        grey = self.channels == 1
        return SimpleNamespace(images=[Image.fromarray(np.rint(255 * (i[..., 0] if grey else i)).astype(np.uint8)) for i in x])


class Seedless:
    """Draws from torch's own generator."""

    def sample(self, n):
        return torch.randn(n, 3)


def decoder():
    torch_free = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Unflatten(1, (1, 8, 8)))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_free))
    return net


def function(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 2))


def constant(n, seed):
    return np.zeros((n, 2))


def factory():
    return adapt(decoder(), prior=4)


pipeline, seedless, gaussian = Pipeline(), Seedless(), GAUSSIAN
EVERY = {
    "distribution": GAUSSIAN,
    "scalar": torch.distributions.Exponential(torch.tensor(2.0)),
    "pipeline": pipeline,
    "grey pipeline": Pipeline(1),
    "seedless": seedless,
    "decoder": factory(),
    "function": function,
}


@pytest.mark.parametrize("name", EVERY)
def test_samples_depend_on_seed_and_place_alone_and_torchs_generator_is_left_alone(name):
    model = adapt(EVERY[name])
    before = torch.get_rng_state()
    x = model.sample(300, seed=3)
    assert np.array_equal(x[:7], model.sample(7, seed=3))
    assert np.array_equal(x[250:], model.sample(50, seed=3, start=250))
    assert not np.array_equal(x, model.sample(300, seed=4))
    assert torch.equal(before, torch.get_rng_state())
    found = open_samples(EVERY[name], n=300, seed=3)
    assert (len(found), found.shape) == (300, model.shape)


def test_a_distribution_brings_its_log_prob():
    model = adapt(GAUSSIAN)
    x = model.sample(20, seed=0)
    assert x.dtype == np.float64
    assert model.log_prob(x) == pytest.approx(GAUSSIAN.log_prob(torch.from_numpy(x)).numpy(), rel=1e-6)
    assert (model.bound, model.measure, model.dims) == ("exact", "density", 2)
    assert adapt(torch.distributions.Poisson(torch.tensor(3.0))).measure == "mass"
    reference = model.sample(1000, seed=1)
    scored = evaluate(GAUSSIAN, reference, test=reference, metrics=["nll", "fid"], n=1000, cache=None)
    entropy = float(GAUSSIAN.entropy())
    assert scored["nll"].low - 0.1 < entropy < scored["nll"].high + 0.1
    assert scored["fid_debiased"].low < 0 < scored["fid_debiased"].high
    assert scored.record["subject"]["name"] == "Independent"


def test_a_distribution_over_images_has_no_likelihood_of_grey_values():
    law = torch.distributions.Independent(torch.distributions.Beta(torch.ones(1, 4, 4), torch.ones(1, 4, 4)), 3)
    model = adapt(law)
    assert (model.shape, model.bound) == ((1, 4, 4), None)
    with pytest.raises(UsageError, match="no likelihood"):
        model.log_prob(np.zeros((1, 1, 4, 4), np.uint8))


def test_pipelines_give_bytes_whatever_their_output_and_say_what_they_cost():
    arrays, pictures = adapt(pipeline), adapt(pipeline, call={"output_type": "pil", "num_inference_steps": 7})
    assert np.array_equal(arrays.sample(20, seed=0), pictures.sample(20, seed=0))
    assert arrays.sample(2, seed=0).dtype == np.uint8
    assert (arrays.shape, arrays.nfe, pictures.nfe, arrays.parameters) == ((3, 8, 8), 50, 7, 8)
    assert adapt(Pipeline(1), call={"output_type": "pil"}).shape == (1, 8, 8)


@pytest.mark.parametrize(
    "prior",
    [
        4,
        (4,),
        torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4), torch.ones(4)), 1),
        lambda n, rng: torch.rand(n, 4, generator=rng),
    ],
)
def test_a_decoder_decodes_its_prior_in_evaluation_mode(prior):
    model = adapt(decoder(), prior=prior)
    x = model.sample(300, seed=0)
    assert x.shape == (300, 1, 8, 8)
    assert not model.source.training
    assert len(np.unique(x.reshape(300, -1), axis=0)) == 300
    assert (model.nfe, model.parameters) == (1, 4 * 64 + 64)


@pytest.mark.parametrize(
    ("source", "options", "error", "said"),
    [
        (decoder(), {}, UsageError, r"adapt\(decoder, prior=64\)"),
        (decoder(), {"prior": (0,)}, UsageError, "prior is a length"),
        (torch.distributions.Normal(torch.zeros(2), torch.ones(2)), {}, UsageError, "Independent"),
        (3, {}, UsageError, "found int"),
        (lambda n, seed: np.zeros((n - 1, 2)), {}, DataError, "expected 256 samples"),
    ],
)
def test_what_cannot_be_adapted_says_what_to_do(source, options, error, said):
    with pytest.raises(error, match=said):
        adapt(source, **options)


def test_a_text_of_another_form_names_nothing():
    assert [referred(t) for t in ("mnist/test", "C:\\x", "a b:c", "x.npz", "shard-{0..3}:x")] == [None] * 5


@pytest.mark.parametrize("name", ["function", "factory", "gaussian", "pipeline", "seedless"])
def test_check_takes_what_a_module_names(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    report = check.check(f"test_adapters:{name}")
    assert report.ok, report.outcomes
    assert not check.check("test_adapters:constant").ok


def test_eval_takes_what_a_module_names(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert run(["eval", "test_adapters:gaussian", "-n", "500", "--reference", "ring8", "--metrics", "fid", "--quiet", "--no-cache"]) == 0
    assert "Independent against ring8/train" in capsys.readouterr().out
    assert run(["eval", "test_adapters:gausian", "-n", "500", "--reference", "ring8"]) == 2
    assert "did you mean 'gaussian'" in capsys.readouterr().err
