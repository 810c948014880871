"""Baselines: every one keeps the contract; the classical ones are checked against closed forms."""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Rows

from genbench import check, models, registry
from genbench.errors import DataError, FailedError, UsageError
from genbench.models import Config, TrainingData, generator

BASELINES = registry.modules("baselines")
GMM, KDE, BLURRED = (registry.module("baselines", n) for n in ("gmm", "kde", "blurred"))


def ring8(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    mode = rng.integers(8, size=n)
    angle = 2 * np.pi * mode / 8
    return Rows(np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.01 * rng.standard_normal((n, 2)), mode)


def images(n=300, seed=0, values=256):
    rng = np.random.default_rng(seed)
    return Rows((rng.integers(values, size=(n, 1, 4, 4)) * (255 // (values - 1))).astype(np.uint8), rng.integers(3, size=n))


def toy():
    return TrainingData("ring8", ring8(), ring8(500, 1))


def pictures(values=256):
    return TrainingData("pictures", images(values=values), images(100, 1, values))


def trained(name, data, seed=0, **settings):
    module = registry.module("baselines", name)
    config = module.Config(**settings) if settings else models.recipe(module, data.name, data.shape)
    return module.train(config, data, seed=seed)


# -- laws over all members -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_contract(name):
    report = check.check(name)
    assert report.ok, [o for o in report.outcomes if o.status == "broken"]


def test_every_baseline_says_how_to_launch_it():
    for name in BASELINES:
        text = registry.module("baselines", name).__doc__
        assert f"--only {name}" in text
        assert "Family:" in text
        assert "Time:" in text


def test_listing_baselines_imports_nothing_heavy():
    code = (
        "import sys; from genbench import registry; [registry.module('baselines', n) for n in registry.modules('baselines')]; "
        "print({'torch', 'torchvision', 'sklearn', 'pandas', 'PIL', 'scipy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert found.stdout.strip() == "set()"


def test_genbench_baselines_gmm_is_the_file_in_baselines():
    import genbench.baselines.gmm as found

    assert Path(found.__file__).parent.name in ("baselines", "_baselines")


# -- settings ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings(Config):
    width: int = 3
    rates: tuple[float, ...] = (0.1,)


def test_mistyped_setting_names_the_near_miss():
    with pytest.raises(UsageError, match=r"unknown setting 'widht'; did you mean 'width'\?"):
        Settings.from_dict({"widht": 4})


def test_setting_of_the_wrong_type_is_named():
    with pytest.raises(UsageError, match=r"setting width.*found 'wide'"):
        Settings.from_dict({"width": "wide"})


def test_config_survives_json_and_hashes_its_content():
    made = Settings(5, (0.1, 0.2))
    assert Settings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.hash == Settings(5, (0.1, 0.2)).hash != Settings().hash


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("kde", {"low": 2.0}),
        ("gmm", {"components": ()}),
        ("gmm", {"covariances": ("round",)}),
        ("gmm", {"shrink": (2.0,)}),
        ("independent", {"smoothing": (0.0,)}),
        ("train_noise", {"noise": -1.0}),
        ("blurred", {"sigma": 0.0}),
        ("class_imbalanced", {"ratio": 0.0}),
        ("uniform_noise", {"margin": -0.1}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(UsageError, match="found"):
        registry.module("baselines", name).Config(**settings)


def test_recipe_prefers_the_dataset_over_its_kind_over_any():
    module = SimpleNamespace(RECIPES={"digits": 1, "images": 2, "*": 3})
    assert [models.recipe(module, n, s) for n, s in (("digits", (1, 8, 8)), ("mnist", (1, 28, 28)), ("ring8", (2,)))] == [1, 2, 3]
    assert models.recipe(SimpleNamespace(RECIPES={"images": 2}), "ring8", (2,)) is None


# -- random streams ------------------------------------------------------------------------------------------------------------------


def test_generators_of_other_keys_are_other_streams():
    first = {tuple(generator(s, *k).integers(2**60, size=2)) for s in (0, 1) for k in ((), (0,), (1,), (0, 1), (1, 0))}
    assert len(first) == 10


def test_negative_seed_is_refused():
    with pytest.raises(UsageError, match="found -1"):
        generator(-1)


def test_replay_gives_every_item_once_per_turn():
    model = trained("train_replay", toy())
    out = model.sample(2000, seed=4)
    assert {tuple(r) for r in out} == {tuple(r) for r in model.items}
    assert not np.array_equal(out, model.items)
    one = trained("one_class", toy())
    k = len(one.items)
    twice = one.sample(2 * k, seed=0)
    for turn in (twice[:k], twice[k:]):
        assert {tuple(r) for r in turn} == {tuple(r) for r in one.items}


def test_asking_for_more_than_the_test_set_holds_is_an_error():
    with pytest.raises(DataError, match="600 samples were asked for.*has 500"):
        trained("test_set", toy()).sample(600, seed=0)


# -- controls ------------------------------------------------------------------------------------------------------------------------


def test_test_set_without_a_test_split_is_an_error():
    with pytest.raises(DataError, match="has none"):
        trained("test_set", TrainingData("ring8", ring8()))


def test_one_class_keeps_one_class():
    data = toy()
    out = trained("one_class", data, label=2).sample(300, seed=0)
    assert np.abs(out - [0.0, 1.0]).max() < 0.06
    with pytest.raises(DataError, match="found no 9"):
        trained("one_class", data, label=9)


@pytest.mark.parametrize("name", ["one_class", "class_imbalanced"])
def test_controls_by_class_need_labels_or_modes(name):
    bare = Rows(ring8().rows)
    assert len(trained(name, TrainingData("ring8", bare)).sample(50, seed=0)) == 50
    with pytest.raises(DataError, match="no labels and no separate modes"):
        trained(name, TrainingData("my vectors", bare), **{"one_class": {"label": 0}, "class_imbalanced": {"ratio": 0.5}}[name])


def test_nearest_mode_is_the_label_of_a_toy():
    data = ring8()
    assert np.array_equal(models.class_labels(TrainingData("ring8", Rows(data.rows))), data.labels)


def test_class_imbalanced_has_the_declared_proportions():
    data = toy()
    out = trained("class_imbalanced", data, ratio=0.5).sample(4000, seed=0)
    angle = np.rint(np.arctan2(out[:, 1], out[:, 0]) / (np.pi / 4)).astype(int) % 8
    found, wanted = np.bincount(angle, minlength=8) / 4000, 0.5 ** np.arange(8) / (0.5 ** np.arange(8)).sum()
    # 8 shares, 5 standard errors each: one false alarm in 200,000 seeds.
    assert (np.abs(found - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / 4000)).all()


def test_train_noise_moves_copies_by_the_declared_amount():
    data = toy()
    model = trained("train_noise", data, noise=0.2)
    moved = model.sample(2000, seed=0) - models.Replay.sample(_quiet(model), 2000, seed=0)
    wanted = 0.2 * np.sqrt(data.train.rows.var(axis=0).mean())
    assert moved.std() == pytest.approx(wanted, rel=0.05)  # 4,000 draws: the relative error of an SD is 1.1 %


def _quiet(model):
    still = type(model)(model.config, model.items, model.shape, 0.0)
    return still


def test_blur_keeps_flat_images_and_lowers_contrast():
    flat = np.full((2, 3, 8, 8), 77, np.uint8)
    assert np.array_equal(BLURRED.blur(flat, 2.0), flat)
    sharp = images().rows
    assert BLURRED.blur(sharp, 1.0).std() < 0.5 * sharp.std()
    with pytest.raises(DataError, match="needs images"):
        trained("blurred", toy(), sigma=1.0)


def test_uniform_noise_on_256_grey_values_is_exactly_8_bits_per_dimension():
    data = pictures()
    model = trained("uniform_noise", data)
    nats = model.log_prob(data.test.read(0, 100))
    np.testing.assert_allclose(-nats / (model.dims * np.log(2)), 8.0, rtol=1e-15)


def test_uniform_noise_refuses_points_outside_its_box():
    with pytest.raises(DataError, match="row 1 lies outside"):
        trained("uniform_noise", toy()).log_prob(np.array([[0.0, 0.0], [5.0, 0.0]]))


# -- densities -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.01, 0.3, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("n", [2, 17, 256])
def test_discretised_gaussian_sums_to_one(h, n):
    np.testing.assert_allclose(np.exp(KDE.log_mass(n, h)).sum(axis=0), 1.0, rtol=1e-12)
    table = GMM.log_mass(n, np.array([0.0, 0.4, n - 1.0, n + 3.0]), np.full(4, h))
    np.testing.assert_allclose(np.exp(table).sum(axis=1), 1.0, rtol=1e-12)


def test_discretised_gaussian_agrees_with_the_difference_of_two_phi():
    from scipy.stats import norm

    found = np.exp(GMM.log_mass(17, np.array([5.3]), np.array([2.0])))[0]
    edges = np.concatenate([[-np.inf], np.arange(16) + 0.5, [np.inf]])
    np.testing.assert_allclose(found, np.diff(norm.cdf(edges, 5.3, 2.0)), rtol=1e-12, atol=1e-15)  # SciPy's difference cancels on the right


def test_far_tail_of_a_discretised_gaussian_keeps_its_digits():
    from scipy.special import log_ndtr

    # 100 sd above the mean the difference of two Φ is 0; its logarithm is that of the lower edge to a relative 1e-40.
    assert GMM.log_mass(256, np.array([0.0]), np.array([1.0]))[0, 100] == pytest.approx(float(log_ndtr(-99.5)), rel=1e-12)


def test_kde_on_one_training_sample_is_that_gaussian():
    from scipy.stats import multivariate_normal

    model = KDE.Model(KDE.Config(), np.array([[1.0, -2.0]]), 0.5, np.empty(0, np.uint8), (2,))
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(model.log_prob(x), multivariate_normal([1.0, -2.0], 0.25 * np.eye(2)).logpdf(x), rtol=1e-12)


@pytest.mark.parametrize("values", [17, 256])
def test_kde_mass_of_images_agrees_with_the_sum_over_kernels(values):
    from scipy.special import logsumexp

    data = pictures(values)
    model = trained("kde", data)
    x = data.test.read(0, 5)
    rank = models.to_levels(x, model.values).reshape(5, -1)
    centres = models.to_levels(model.centres, model.values).reshape(len(model.centres), -1)
    table = KDE.log_mass(len(model.values), model.h)
    direct = [logsumexp([table[row, c].sum() for c in centres]) - np.log(len(centres)) for row in rank]
    np.testing.assert_allclose(model.log_prob(x), direct, rtol=1e-12)


def test_gmm_density_agrees_with_scipy():
    from scipy.stats import multivariate_normal

    model = trained("gmm", toy(), components=(3,), restarts=1)
    a = model.arrays()
    x = ring8(50, 3).rows
    direct = sum(w * multivariate_normal(m, f @ f.T).pdf(x) for w, m, f in zip(a["weights"], a["means"], a["factors"], strict=True))
    np.testing.assert_allclose(np.exp(model.log_prob(x)), direct, rtol=1e-9)


def test_gmm_reaches_the_entropy_of_ring8():
    # Entropy of the mixture: ln 8 + ln(2πe σ²); 2,000 training samples cost 47 parameters / 4,000 = .012 nats, and the test mean's
    # standard error is .03, so .15 is five of them.
    entropy = np.log(8) + np.log(2 * np.pi * np.e * 1e-4)
    assert trained("gmm", toy()).log_prob(ring8(1000, 5).rows).mean() == pytest.approx(-entropy, abs=0.15)


@pytest.mark.parametrize("name", registry.module("datasets", "toy2d").NAMES)
def test_exact_density_reaches_the_entropy_of_its_law(name):
    module = registry.module("baselines", "exact_density")
    model = module.train(module.Config(name), TrainingData(name, ring8()), seed=0)
    nats = model.log_prob(model.sample(4000, seed=0))
    entropy, error = registry.module("datasets", "toy2d").toy(name).entropy()
    # 5 standard errors: one false alarm in 2 million seeds. The checkerboard's log p is one constant.
    assert abs(nats.mean() + entropy) <= 5 * nats.std() / np.sqrt(4000) + error + 1e-9


def test_exact_density_refuses_points_without_density():
    module = registry.module("baselines", "exact_density")
    model = module.Model(module.Config("checkerboard"), (2,))
    with pytest.raises(DataError, match="row 0 lies where"):
        model.log_prob(np.array([[9.0, 9.0]]))


def test_gmm_says_that_em_had_not_converged():
    model = trained("gmm", toy(), components=(16,), steps=1, restarts=1)
    assert "EM had not converged after 1 steps" in model.notes


def test_gmm_on_images_refuses_full_covariances():
    with pytest.raises(UsageError, match="diag"):
        trained("gmm", pictures(), covariances=("full",))


def test_independent_image_model_is_the_smoothed_count():
    rows = np.zeros((4, 1, 1, 2), np.uint8)
    rows[0, 0, 0, 0] = 255
    held = rows[:1]
    model = trained("independent", TrainingData("x", Rows(rows), None, Rows(held)), smoothing=(0.5,))
    # Pixel 0 is bright in 1 of 4, pixel 1 never: (1 + ½)/(4 + 1) and (0 + ½)/(4 + 1).
    assert model.log_prob(held)[0] == pytest.approx(np.log(1.5 / 5) + np.log(4.5 / 5))


def test_independent_vector_model_has_a_finite_density_everywhere():
    model = trained("independent", toy())
    far = model.log_prob(np.array([[1e3, -1e3], [0.0, 0.0]]))
    assert np.isfinite(far).all()
    assert far[0] < -1e5


def test_unknown_grey_value_names_the_image():
    data = pictures(17)
    x = data.test.read(0, 3).copy()
    x[2, 0, 0, 0] = 7
    for name in ("independent", "kde", "gmm", "uniform_noise"):
        with pytest.raises(DataError, match="knows 17 grey values, image 2 has others"):
            trained(name, data).log_prob(x)


def test_wrong_shape_or_type_is_refused():
    model = trained("independent", pictures())
    with pytest.raises(DataError, match=r"expected rows of shape \(1, 4, 4\) and type uint8, found \(4, 4\)"):
        model.log_prob(np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match="float64"):
        model.log_prob(np.zeros((2, 1, 4, 4)))


@pytest.mark.parametrize("name", ["independent", "kde", "gmm", "uniform_noise"])
def test_data_without_spread_have_no_density(name):
    flat = TrainingData("flat", Rows(np.zeros((50, 2))))
    with pytest.raises(DataError, match="leave"):
        trained(name, flat)


# -- checkpoints ---------------------------------------------------------------------------------------------------------------------


def saved(folder, name="independent"):
    data = pictures()
    module = registry.module("baselines", name)
    model = trained(name, data)
    models.save_model(folder, model, models.describe(name, module, model, passed={}, seed=0, dataset=data.name), training_seconds=1.5)
    return model


def test_checkpoint_round_trip(tmp_path):
    model = saved(tmp_path)
    back = models.load_model(tmp_path)
    assert np.array_equal(back.sample(300, seed=9), model.sample(300, seed=9))
    assert back.notes == model.notes
    assert back.provenance["name"] == "independent"
    assert back.provenance["parameters"] == model.parameters


def test_folder_without_a_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"model\.json, found none"):
        models.load_model(tmp_path)


def test_changed_arrays_are_noticed(tmp_path):
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="sha256"):
        models.load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("format", 99, "newer genbench"),
        ("surprise", 1, "not a readable checkpoint"),
        ("baseline", {}, "changed after it was written"),
    ],
)
def test_changed_description_is_noticed(tmp_path, key, value, match):
    saved(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=match):
        models.load_model(tmp_path)


def test_checkpoint_of_a_baseline_that_is_not_installed_names_the_near_miss(tmp_path):
    saved(tmp_path)
    model = models.load_model(tmp_path)
    models.save_model(tmp_path, model, model.provenance | {"name": "independant"})
    with pytest.raises(UsageError, match="did you mean 'independent'"):
        models.load_model(tmp_path)


def test_description_without_the_baselines_settings_is_noticed(tmp_path):
    model = saved(tmp_path)
    models.save_model(tmp_path, model, {"name": "independent"})
    with pytest.raises(DataError, match="name and config"):
        models.load_model(tmp_path)


# -- genbench check ------------------------------------------------------------------------------------------------------------------

TEMPLATE = '''
"""A user's own baseline."""
from dataclasses import dataclass
import numpy as np
from genbench import models
from genbench.models import generator

FAMILY, SUMMARY, SOURCE = "mine", "a Gaussian", "me"

@dataclass(frozen=True)
class Config(models.Config):
    wide: float = {wide}

RECIPES = {{"vectors": Config()}}

class Model(models.Model):
    @property
    def bound(self):
        return {bound}
    def shard(self, index, seed):
        rng = {rng}
        return {draw}
    def log_prob(self, x):
        return -0.5 * (x ** 2).sum(axis=1) / self.config.wide ** 2 - np.log({norm} * np.pi * self.config.wide ** 2)
    def arrays(self):
        return {{"nothing": np.zeros(1)}}
    @classmethod
    def from_arrays(cls, config, arrays, shape):
        return cls(config, shape)

def train(config, data, *, seed, out=None):
    return Model(config, data.shape)

def sampler():
    return Model(Config(), (2,))
'''
HONEST = {
    "wide": "2.0",
    "bound": "'exact'",
    "rng": "generator(seed, index)",
    "draw": "self.config.wide * rng.standard_normal((self.SHARD, *self.shape))",
    "norm": "2",
}


def own(tmp_path, **changes):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(TEMPLATE.format(**(HONEST | changes))))
    return str(path)


def broken(report):
    return {o.law.split(" (")[0] for o in report.outcomes if o.status == "broken"}


def test_check_accepts_a_users_own_file(tmp_path):
    assert check.check(own(tmp_path)).ok


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"bound": "None"}, "bound says what log_prob is, and is None exactly where there is none"),
        ({"norm": "1"}, "exp(log_prob) sums or integrates to one"),
        ({"rng": "np.random"}, "neither training nor sampling touches a global random generator"),
        ({"rng": "generator(0, index)"}, "the same seed gives the same samples, another seed others"),
        (
            {"draw": "rng.standard_normal((self.SHARD, *self.shape)).astype(np.float32)"},
            "samples have the data's shape and type, and are finite",
        ),
        ({"draw": "np.full((self.SHARD, *self.shape), np.nan)"}, "samples have the data's shape and type, and are finite"),
        (
            {"draw": "rng.standard_normal((self.SHARD, *self.shape))"},
            "samples follow the declared law: their mean log_prob is its negative entropy",
        ),
    ],
)
def test_check_finds_a_broken_law(tmp_path, changes, law):
    changes = {"rng": "np.random.mtrand._rand"} if changes.get("rng") == "np.random" else changes
    assert any(law.split(" (")[0] == found or law.startswith(found) for found in broken(check.check(own(tmp_path, **changes))))


def test_a_variant_without_settings_for_a_quick_training_is_checked_with_what_sets_it_apart():
    """Not by hours of its recipe on the first data set that has one."""
    vae = registry.module("baselines", "vae")
    (case,) = check._cases("vae:beta", vae)
    assert case.config == replace(vae.SMOKE["images"], beta=4.0)
    assert vae.VARIANTS["beta"]["mnist-dynbin"].steps > 10 * case.config.steps
    assert models.recipe(vae, "mnist-dynbin", (1, 28, 28), "smoke", "beta") == case.config
    assert models.recipe(vae, "grid25", (2,), "smoke", "beta") is None
    gan = registry.module("baselines", "gan")
    found = {case.data.name: case.config for case in check._cases("gan:wgan", gan)}
    assert set(found) == {"check-vectors", "check-images"}
    assert all(c.loss == "wasserstein" and c.critic_steps == 5 and c.steps <= 60 for c in found.values())


def test_check_accepts_a_factory_of_a_sampler(tmp_path, monkeypatch):
    own(tmp_path)
    (tmp_path / "mine.py").rename(tmp_path / "my_models.py")
    monkeypatch.syspath_prepend(tmp_path)
    report = check.check("my_models:sampler")
    assert report.ok
    assert len(report.outcomes) == len(check.SAMPLER_LAWS)
    with pytest.raises(UsageError, match="did you mean 'sampler'"):
        check.check("my_models:sampeler")


def test_check_of_an_unknown_name_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'gmm'"):
        check.check("gm")
    with pytest.raises(UsageError, match="found none"):
        check.check(str(tmp_path / "no.py"))
    with pytest.raises(UsageError, match="cannot import"):
        check.check("no_such_module_at_all:f")


def test_check_prints_every_law_and_fails_where_one_is_broken(tmp_path, capsys):
    assert check.main("train_replay") == 0
    assert "all laws hold" in capsys.readouterr().out
    with pytest.raises(FailedError, match="laws broken"):
        check.main(own(tmp_path, norm="1"))
