"""The rules of the house, held by reading the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "genbench").rglob("*.py")) + sorted((ROOT / "baselines").glob("*.py"))

# A module may import at its top level, or inside functions, only modules of its own layer's index or a lower one.
LAYERS = [
    {"errors", "estimate", "files"},
    {"statistics", "numerics", "likelihood", "histograms", "transport"},
    {"metric", "registry", "protocol", "presets"},
    {"metrics", "preprocess", "images", "archives", "arrays", "samples", "models", "adapters", "extractor"},
    {"extractors", "datasets", "training", "densities", "flows", "denoising", "adversarial"},
    {"baselines"},
    {"cache", "parallel", "run"},
    {
        "evaluation",
        "audit",
        "comparison",
        "monitor",
        "bench",
        "leaderboard",
        "families",
        "report",
        "check",
        "doctor",
        "listing",
        "trained",
        "verification",
    },
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}
HEAVY = {"torch", "torchvision", "sklearn", "pandas", "PIL", "cleanfid", "scipy", "matplotlib"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "baselines" if parts[0] == "baselines" else parts[1].removesuffix(".py")


def imports(path: Path, top_level: bool) -> list[str]:
    """Full dotted names that a file imports, skipping those under TYPE_CHECKING."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend(a.name for a in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.extend(f"{child.module}.{a.name}" for a in child.names)
            elif not (top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                visit(child)

    visit(ast.parse(path.read_text()))
    return found


def own(imported: str) -> str | None:
    parts = imported.split(".")
    if parts[0] != "genbench" or len(parts) < 2:
        return None
    return parts[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    mine = LEVEL[name_of(path)]
    for imported in imports(path, top_level=True):
        target = own(imported)
        if target in LEVEL:
            assert LEVEL[target] <= mine, f"{path.name} (layer {mine}) imports {imported} (layer {LEVEL[target]})"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    for imported in imports(path, top_level=True):
        assert imported.split(".")[0] not in HEAVY, f"{path.name} imports {imported} at its top"


@pytest.mark.parametrize("path", sorted((ROOT / "genbench" / "metrics").glob("*.py")), ids=lambda p: p.name)
def test_a_metric_sees_only_statistics(path: Path) -> None:
    for imported in imports(path, top_level=False):
        assert imported.split(".")[0] not in {"torch", "torchvision", "PIL"}, f"{path.name} imports {imported}"
        if own(imported) is not None:
            allowed = {"errors", "estimate", "statistics", "numerics", "likelihood", "histograms", "transport", "metric"}
            assert own(imported) in allowed, f"{path.name} imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").glob("*.py")), ids=lambda p: p.name)
def test_a_baseline_sees_models_training_and_datasets(path: Path) -> None:
    allowed = {"models", "training", "densities", "flows", "denoising", "adversarial", "datasets", "registry", "samples", "errors"}
    for imported in imports(path, top_level=False):
        if own(imported) is not None:
            assert own(imported) in allowed, f"{path.name} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pickle_and_no_global_random_state(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for imported in imports(path, top_level=False):
        assert imported.split(".")[0] not in {"pickle", "random", "marshal", "shelve"}, f"{path.name} imports {imported}"
    allowed = {"default_rng", "Generator", "PCG64", "SeedSequence", "BitGenerator", "RandomState"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
            assert node.attr in allowed, f"{path.name}:{node.lineno} draws from NumPy's global state: {ast.unparse(node)}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.manual_seed", "np.random.seed", "eval", "exec"}, f"{path.name}:{node.lineno} calls {called}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), f"{path.name}:{node.lineno}"
            if called == "np.load":
                assert all(k.arg != "allow_pickle" or ast.unparse(k.value) == "False" for k in node.keywords), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_silent_fallback(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno} has a bare except"
            reraises = any(isinstance(n, ast.Raise) for n in ast.walk(node))
            broad = ast.unparse(node.type) in {"Exception", "BaseException"}
            assert not broad or reraises, f"{path.name}:{node.lineno} swallows {ast.unparse(node.type)}"


@pytest.mark.parametrize("folder", ["metrics", "extractors", "datasets"])
def test_packages_of_members_re_export_nothing(folder: str) -> None:
    assert (ROOT / "genbench" / folder / "__init__.py").read_text().strip() == ""


def test_only_these_top_level_entries() -> None:
    allowed = {
        "genbench",
        "baselines",
        "leaderboards",
        "tests",
        "benchmarks",
        "pyproject.toml",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "CITATION.cff",
        "constraints.txt",
    }
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in {line.split("/")[0] for line in listed.stdout.splitlines()}:
        assert name in allowed or name.startswith("."), f"{name} has no place at the top"


COMMANDS = [
    ["--help"],
    ["eval", "--help"],
    ["ls", "metrics"],
    ["ls", "baselines"],
    ["ls", "datasets"],
    ["ls", "extractors"],
    ["ls", "protocols"],
    ["leaderboard", "--help"],
    ["bench", "--help"],
    ["train", "--help"],
    ["sample", "--help"],
    ["verify", "--help"],
    ["cache", "ls"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_listings_start_without_torch(command: list[str]) -> None:
    code = (
        "import sys\nfrom genbench.cli import run\n"
        f"try:\n    code = run({command!r})\nexcept SystemExit as e:\n    code = e.code or 0\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_public_names_are_there_and_import_no_torch() -> None:
    code = (
        "import sys, genbench\n"
        "early = {'torch', 'numpy', 'scipy'} & set(sys.modules)\nassert not early, early\n"
        "found = {name: getattr(genbench, name) for name in genbench.__all__}\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)\nassert not heavy, heavy\n"
        "assert {'train', 'sample', 'verify', 'evaluate'} <= set(dir(genbench))\n"
        "assert all(callable(f) and f.__doc__ for f in found.values()), found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_no_public_name_is_a_modules_too() -> None:
    """Importing a submodule sets the package's attribute of its name: a function of that name would be hidden by it."""
    import genbench

    assert not set(genbench.__all__) & {p.stem for p in (ROOT / "genbench").iterdir()}
