"""Presets print what the tools print: the whole path from files to number, through the installed tool with the same random weights."""

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

import genbench
from genbench import cli, protocol
from genbench.errors import DataError, MissingError, UsageError
from genbench.presets import PRESETS

RNG = np.random.default_rng(3)
GEN = RNG.integers(0, 256, (24, 3, 20, 20), dtype=np.uint8)
REF = RNG.integers(40, 200, (30, 3, 20, 20), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from PIL import Image

    made = []
    for name, images in (("gen", GEN), ("ref", REF)):
        made.append(tmp_path_factory.mktemp(name))
        for i, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(made[-1] / f"{i:03d}.png")
    return made[0], made[1]


def test_the_presets_are_there_and_leave_the_reference_to_the_user() -> None:
    assert set(PRESETS) == {"pytorch-fid", "clean-fid", "torch-fidelity", "torchmetrics", "adm", "edm", "dgm-eval", "prdc", "ttur"}
    for preset in PRESETS.values():
        assert preset.reference == protocol.ANY
        assert preset.order == "file"
        assert protocol.protocol(preset.name).resolved().hash
    with pytest.raises(UsageError, match="a reference is needed"):
        genbench.evaluate(GEN, protocol="prdc")


def test_the_order_of_rows_is_a_part_of_the_hash_only_where_it_is_not_the_default() -> None:
    plain = protocol.Protocol("a", "ring8/train", ("fid",))
    assert "order" not in plain.to_dict()
    assert dataclasses.replace(plain, order="file").to_dict()["order"] == "file"
    assert dataclasses.replace(plain, order="file").hash != plain.hash
    with pytest.raises(UsageError, match="order"):
        dataclasses.replace(plain, order="name").resolved()


def test_a_preset_keeps_its_name_with_any_reference_but_not_with_other_settings() -> None:
    x, y = RNG.normal(size=(40, 3)), RNG.normal(size=(50, 3))
    assert genbench.evaluate(x, y, protocol="prdc", cache=None).record["protocol"]["name"] == "prdc"
    changed = genbench.evaluate(x, y, protocol="prdc", metrics=["prdc:k=3"], cache=None)
    assert changed.record["protocol"]["name"] == "prdc (changed)"


def test_rows_in_file_order_and_in_content_order() -> None:
    """Contiguous splits of a file sorted by class read 1, those of shuffled rows far more."""
    from genbench.datasets import digits

    data = digits.load("digits", "train")
    rows = data.read(0, len(data))[np.argsort(data.labels, kind="stable")]
    settings = {"metrics": ["inception_score:shuffle=false,splits=10"], "cache": None}
    for order, low, high in (("file", 1, 3), ("content", 7, 10)):
        found = protocol.Protocol("a", protocol.ANY, ("inception_score",), "digits", order=order)
        assert low <= genbench.evaluate(rows, "digits", protocol=found, **settings)["digits_score"].value <= high


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_prdc_prints_what_the_package_prints_ties_and_all() -> None:
    peer = pytest.importorskip("prdc")
    x, y = RNG.integers(0, 4, (80, 3)).astype(float), RNG.integers(0, 4, (70, 3)).astype(float)
    theirs = peer.compute_prdc(real_features=y, fake_features=x, nearest_k=5)
    mine = genbench.evaluate(x, y, protocol="prdc", cache=None)
    for name, value in theirs.items():
        assert mine[name].value == pytest.approx(value, rel=1e-12), name


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_pytorch_fid_from_folders(
    folders: tuple[Path, Path], plain_weights: dict, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, networks = pytest.importorskip("pytorch_fid.fid_score"), pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(networks, "load_state_dict_from_url", lambda *_, **__: plain_weights)
    theirs = scores.calculate_fid_given_paths([str(f) for f in folders], 8, "cpu", 2048, 0)
    mine = genbench.evaluate(*folders, protocol="pytorch-fid", weights=weights_file, cache=None)["fid"].value
    assert mine == pytest.approx(theirs, rel=1e-3), "its matrix square root of singular covariances is that far from exact"


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_torch_fidelity_from_folders(folders: tuple[Path, Path], weights_file: Path) -> None:
    peer = pytest.importorskip("torch_fidelity")
    theirs = peer.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        kid_subsets=10,
        kid_subset_size=20,
        batch_size=8,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights_file),
    )
    names = ["inception_score:splits=10", "fid", "kid:subset_size=20,subsets=10"]
    mine = genbench.evaluate(*folders, protocol="torch-fidelity", weights=weights_file, metrics=names, cache=None)
    assert mine["inception_score"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert mine["fid"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert mine["kid"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_clean_fid_from_folders(folders: tuple[Path, Path], weights_file: Path) -> None:
    """Through clean-fid's folder reading, resizing and distance, with the network handed to it."""
    import torch

    peer = pytest.importorskip("cleanfid.fid")
    from scipy import linalg

    from genbench.extractors.inception import read_network

    if "disp" not in inspect.signature(linalg.sqrtm).parameters:
        pytest.skip("clean-fid's distance fails with this SciPy: it calls sqrtm(disp=)")

    network = read_network(weights_file)

    def features(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network.outputs((x - 128) / 128)[0]

    stats = []
    for folder in folders:
        rows = peer.get_folder_features(
            str(folder), features, num_workers=0, batch_size=8, device=torch.device("cpu"), mode="clean", verbose=False
        )
        stats += [rows.mean(axis=0), np.cov(rows, rowvar=False)]
    mine = genbench.evaluate(*folders, protocol="clean-fid", metrics=["fid"], weights=weights_file, cache=None)["fid"].value
    assert mine == pytest.approx(peer.frechet_distance(*stats), rel=1e-3)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_torchmetrics_from_arrays(weights_file: Path) -> None:
    import torch

    peer = pytest.importorskip("torchmetrics.image.fid")
    pytest.importorskip("torch_fidelity")
    metric = peer.FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights_file))
    for images, real in ((REF, True), (GEN, False)):
        metric.update(torch.from_numpy(images), real=real)
    mine = genbench.evaluate(GEN, REF, protocol="torchmetrics", metrics=["fid"], weights=weights_file, cache=None)["fid"].value
    assert mine == pytest.approx(float(metric.compute()), rel=1e-3)


def test_protocols_are_compared_on_one_set(folders: tuple[Path, Path], weights_file: Path) -> None:
    found = genbench.compare_protocols(*folders, protocols=["pytorch-fid", "clean-fid", "ttur", "prdc"], weights=weights_file, cache=None)
    values = {name: run["fid"].value for name, run in found.runs.items()}
    assert len(set(values.values())) == 3, "three ways to resize, three numbers"
    assert list(found.left_out) == ["prdc"], "vectors are not images"
    columns, rows = found.table()
    assert columns == ["quantity", "pytorch-fid", "clean-fid", "ttur", "max/min"]
    assert float(rows[0][-1]) == pytest.approx(max(values.values()) / min(values.values()), rel=1e-2)
    assert "left out" in found.to_markdown()


def test_without_weights_the_comparison_says_where_to_put_them(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match="inception"):
        genbench.compare_protocols(*folders)
    with pytest.raises(DataError):
        genbench.compare_protocols(*folders, protocols=["prdc"])
    with pytest.raises(UsageError, match="clean-fid"):
        genbench.compare_protocols(*folders, protocols=["cleanfid"])
    assert cli.run(["compare-protocols", str(folders[0]), "--reference", str(folders[1]), "--quiet"]) == 3
    assert "inception-2015-12-05.pt" in capsys.readouterr().err
