"""Who may import whom, read from the sources: what is lower knows nothing of what is higher."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    [*ROOT.glob("*.py"), *ROOT.glob("fourierft/*.py"), *ROOT.glob("experiments/**/*.py")]
)
NAMES = [path.relative_to(ROOT).as_posix() for path in SOURCES]
NAMES_OF_JUDGE = [name for name in NAMES if name.startswith("experiments/judge/")]

# A module may import those of earlier rows, and of its own package.
EXPERIMENTS = [
    {"errors", "naming"},
    {"files", "imagefolder", "writing"},
    {"console", "fingerprints", "stored"},
    {"metrics", "selection", "recipe", "lock", "hub", "tracking", "networks", "ranks", "journal"},
    {"streams", "inception", "denoising", "drawings"},
    {"generations", "fastchat", "nlg", "fid", "pictures", "bottlenecks", "nested", "budget"},
    {"environment"},
    {"results", "predictions", "checkpoints"},
    {"kept"},
    {"models"},
    {"methods", "tasks", "preflight", "memory"},
    {"prepared"},
    {"provenance", "scoring"},
    {"optimisation"},
    {"trainer"},
    {"bounds", "gaps"},
    {"config"},
    {"flags", "words"},
    {"overrides", "paths", "recorded", "space", "sweep"},
    {"verify"},
    {"comparison"},
    {"attempt", "description"},
    {"supplement"},
    {"run"},
]
PACKAGE = [
    {"spectrum", "counting", "sampling", "tensors", "weights", "bypass", "offloading"},
    {"fourier"},
    {"matrices"},
    {"transform"},
    {"effective", "gradient"},
    {"linear"},
    {"config"},
    {"mixed_batch"},
    {"layer"},
    {"row_adapters"},
    {"module"},
    {"tuner"},
    {"compact"},
    {"__init__"},
]
COMMANDS = {
    "report": {
        *("console", "results", "selection", "metrics", "tracking", "errors", "files", "stored"),
        "provenance",
    },
    "judge": {"console", "fastchat", "files", "generations", "hub", "errors", "stored"},
    "answers": {"console", "results", "generations", "fastchat", "files", "errors", "stored"},
    "search": {
        *(
            "config",
            "console",
            "errors",
            "files",
            "lock",
            "metrics",
            "naming",
            "overrides",
            "results",
        ),
        *("paths", "provenance", "run", "space", "sweep"),
    },
    "rehearsal": {"console", "config", "errors", "files", "inception", "sweep", "tasks"},
    "export": {
        *("config", "console", "errors", "files", "hub", "kept", "networks", "provenance"),
        *("recorded", "results", "run", "stored"),
    },
}

# Commands within packages, and the board of a sweep: what they may import besides.
DOORS = {
    "experiments/results/__main__.py": {"console", "results", "verify", "comparison", "errors"},
    "experiments/report/status.py": {"paths", "sweep"},
    "experiments/report/standing.py": {"lock"},
    "experiments/hub/__main__.py": {"console", "config", "errors", "overrides", "paths", "sweep"},
}

HYDRA = {"train.py"} | {
    f"experiments/{name}.py"
    for name in "config flags gaps overrides paths recorded space sweep words".split()
}
PEFT = {f"fourierft/{name}.py" for name in "config layer module row_adapters tuner compact".split()}
HEAVY = {"torch", "transformers", "peft", "datasets", "evaluate", "sklearn", "scipy", "wandb"}
SCHEMAS = {
    f"experiments/{name}.py"
    for name in (
        "config recipe tracking lock errors flags gaps overrides metrics recorded sweep words"
    ).split()
} | {f"experiments/{name}/__init__.py" for name in ("hub", "results")}


@functools.cache
def imported(name, *, top_level=False):
    """Modules that a source file imports, functions included, type hints' own imports left out."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            package = name.removesuffix(".py").split("/")[: -node.level] if node.level else []
            start = ".".join([*package, *([node.module] if node.module else [])])
            # `from package import module` and `from module import thing` look the same.
            found.update(f"{start}.{alias.name}" for alias in node.names)
            found.add(start)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    return found


def roots(modules):
    return {module.partition(".")[0] for module in modules}


def parts(modules, package):
    """Second components of what is imported from a package: its modules (and its functions)."""
    return {module.split(".")[1] for module in modules if module.startswith(f"{package}.")}


def row(rows, module):
    return next((place for place, names in enumerate(rows) if module in names), None)


def own(name):
    """experiments/tasks/glue.py -> tasks."""
    return name.split("/")[1].removesuffix(".py")


def test_reading_imports():
    """The reader itself: relative, nested and type-only imports."""
    assert "fourierft.transform" in imported("fourierft/layer.py")
    assert "torch" in roots(imported("experiments/models/transformer.py"))
    assert "torch" not in roots(imported("experiments/models/transformer.py", top_level=True))
    assert "experiments.tasks" not in imported("experiments/models/transformer.py")


def test_every_module_has_its_place():
    """A new module is put into the order by whoever adds it."""
    known = set.union(*EXPERIMENTS, set(COMMANDS), {"__init__"})
    assert {own(name) for name in NAMES if name.startswith("experiments/")} <= known
    assert {own(name) for name in NAMES if name.startswith("fourierft/")} <= set.union(*PACKAGE)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("fourierft/")])
def test_package_imports_downwards(name):
    modules = imported(name)
    assert not roots(modules) & {"experiments", "hydra", "omegaconf", "datasets", "evaluate"}
    assert "peft" not in roots(modules) or name in PEFT
    here = row(PACKAGE, own(name))
    for module in parts(modules, "fourierft"):
        there = row(PACKAGE, module)
        assert there is None or there < here, f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("experiments/")])
def test_experiments_import_downwards(name):
    modules, me = imported(name), own(name)
    assert "train" not in roots(modules)
    if me in COMMANDS or name in DOORS:
        known = set.union(*EXPERIMENTS, set(COMMANDS))
        allowed = COMMANDS.get(me, set()) | DOORS.get(name, set()) | {me}
        assert parts(modules, "experiments") & known <= allowed
        return
    here = row(EXPERIMENTS, me)
    for module in parts(modules, "experiments") - {me}:
        assert module not in COMMANDS, f"{name} imports the command {module}"
        there = row(EXPERIMENTS, module)
        assert there is None or there < here, f"{name} imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_hydra_stays_at_the_door(name):
    assert not roots(imported(name)) & {"hydra", "omegaconf"} or name in HYDRA


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in NAMES
        if name in SCHEMAS
        or name.startswith(("experiments/methods/", "experiments/models/", "experiments/tasks/"))
    ],
)
def test_schemas_import_nothing_heavy(name):
    assert not roots(imported(name, top_level=True)) & HEAVY


def test_schemas_really_import_nothing_heavy():
    """Also not by way of another module."""
    code = f"import sys, experiments.config; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr


def test_judge_imports_nothing_heavy():
    """It starts at once, also where there is no torch."""
    code = f"import sys, experiments.judge.__main__; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr
    assert not roots(set.union(*map(imported, NAMES_OF_JUDGE))) & HEAVY


@pytest.mark.parametrize("name", NAMES)
def test_names_say_something(name):
    words = {"utils", "util", "helpers", "helper", "common", "core", "misc", "base", "shared"}
    assert not words & set(name.removesuffix(".py").split("/"))


@pytest.mark.parametrize("name", NAMES)
def test_sources_stay_short(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 300
