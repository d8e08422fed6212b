"""Imports between folders, read from the sources: a lower folder knows nothing of a higher one."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "fourierft/**/*.py", "experiments/**/*.py")
    for path in ROOT.glob(pattern)
)

# A folder (or module) may import those of earlier rows, and its own.
EXPERIMENTS = [
    {"device", "errors", "seeding"},
    {"console", "files"},
    {"hub", "metrics"},
    {"results"},
    {"models"},
    {"methods", "tasks"},
    {"training"},
    {"config"},
    {"run"},
    {"report"},
    {"commands", "contest", "judge", "search", "small", "smoke"},
]
FOURIERFT = [
    {"bypass", "counting", "offloading", "spectrum", "tensors", "weight_file"},
    {"frozen_weight"},
    {"bases"},
    {"engine"},
    {"config"},
    {"layer_draws", "loading", "scaling"},
    {"layer"},
    {"combination", "forward_pass", "holding", "layer_settings", "row_adapters", "step_sizes"},
    {"module"},
    {"convolution", "embedding"},
    {"model"},
    {"compact", "hotswap", "lora_export"},
    {"bank"},
    {"serve"},
    {"__init__"},
]
# Folders of commands that need little: they start at once, also where there is no torch.
NARROW = {
    "judge": {"console", "errors", "files", "hub", "results"},
    "report": {"config", "console", "errors", "files", "metrics", "results", "seeding"},
}
# Short spellings of commands; each file forwards and does nothing else.
FORWARDS = {
    "experiments/answers.py",
    "experiments/export.py",
    "experiments/fid.py",
    "experiments/hub/__main__.py",
    "experiments/predict.py",
    "experiments/rehearsal.py",
    "experiments/results/__main__.py",
}

# Names that two classes still share; new ones are not added.
HYDRA = {"train.py", "experiments/search/space.py"}
PEFT = {
    f"fourierft/{name}.py"
    for name in (
        *("combination", "compact", "config", "hotswap", "layer", "lora_export", "model"),
        *("module", "row_adapters", "scaling"),
        *("bank/adapter_bank", "bank/base_model", "bank/stored_adapter"),
    )
}
HEAVY = {"torch", "transformers", "peft", "datasets", "evaluate", "sklearn", "scipy", "wandb"}


@functools.cache
def imported(name, *, top_level=False, hints=False):
    """Modules that a source file imports, functions included; those of type hints on demand."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not hints:
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
    return frozenset(found)


def roots(modules):
    return {module.partition(".")[0] for module in modules}


def parts(modules, package, rows):
    """Second components of what is imported from a package, if they stand in its rows."""
    known = set.union(*rows)
    found = {module.split(".")[1] for module in modules if module.startswith(f"{package}.")}
    return found & known


def row(rows, part):
    return next((place for place, names in enumerate(rows) if part in names), -1)


def own(name):
    """experiments/tasks/glue.py -> tasks."""
    return name.split("/")[1].removesuffix(".py")


def of(package):
    return [name for name in NAMES if name.startswith(f"{package}/") and name not in FORWARDS]


def upward(package, rows):
    """`file imports folder` for every import of the same or a later row."""
    for name in of(package):
        me = own(name)
        if me == "__init__" and package == "experiments":
            continue
        for part in parts(imported(name, hints=True), package, rows) - {me}:
            if row(rows, part) >= row(rows, me):
                yield f"{name} imports {package}.{part}"


def test_reading_imports():
    """The reader itself: relative, nested and type-only imports."""
    assert "fourierft.bases.transform" in imported("fourierft/layer.py")
    assert "fourierft.tensors" in imported("fourierft/engine/linear.py")
    transformer = "experiments/models/transformer.py"
    assert "torch" in roots(imported(transformer))
    assert "torch" not in roots(imported(transformer, top_level=True))
    assert "experiments.models.head" not in imported("experiments/models/model.py")
    assert "experiments.models.head" in imported("experiments/models/model.py", hints=True)


def test_every_folder_has_its_place():
    """A new folder is put into the order by whoever adds it."""
    known = set.union(*EXPERIMENTS, {"__init__"})
    assert {own(name) for name in of("experiments")} <= known
    assert {own(name) for name in of("fourierft")} <= set.union(*FOURIERFT)


def test_experiments_import_downwards():
    assert not list(upward("experiments", EXPERIMENTS))
    assert not [name for name in of("experiments") if "train" in roots(imported(name))]
    for folder, allowed in NARROW.items():
        for name in of(f"experiments/{folder}"):
            others = parts(imported(name), "experiments", EXPERIMENTS) - {folder}
            assert others <= allowed, f"{name} imports {sorted(others - allowed)}"


def test_package_imports_downwards():
    assert not list(upward("fourierft", FOURIERFT))
    for name in of("fourierft"):
        modules = imported(name)
        assert not roots(modules) & {"experiments", "hydra", "omegaconf", "datasets", "evaluate"}
        assert "peft" not in roots(modules) or name in PEFT, name


def test_modules_import_in_no_circle():
    """Not within a folder either, type hints included."""
    modules = {name.removesuffix(".py").replace("/", "."): name for name in NAMES}
    modules = {module.removesuffix(".__init__"): name for module, name in modules.items()}
    below = {
        module: {found for found in imported(name, hints=True) if found in modules}
        - {module.rpartition(".")[0]}  # its own package
        for module, name in modules.items()
        if not name.endswith("__init__.py")
    }
    ends = True
    while ends:  # what imports none of the rest, or is imported by none, is in no circle
        needed = set().union(*below.values())
        ends = [name for name in below if name not in needed or not below[name] & below.keys()]
        for name in ends:
            del below[name]
    assert not {name: found & below.keys() for name, found in below.items()}


def test_hydra_stays_in_the_configuration():
    for name in NAMES:
        allowed = name in HYDRA or name.startswith("experiments/config/")
        assert allowed or not roots(imported(name)) & {"hydra", "omegaconf"}, name


def test_forwards_do_nothing_else():
    for name in FORWARDS:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 10


def test_schemas_import_nothing_heavy():
    """Not by way of another module either: a typing error in an override is told at once."""
    code = (
        "import sys, experiments.config.load, experiments.config.overrides, "
        "experiments.config.sweep, experiments.config.restore, experiments.results.lock, "
        f"experiments.results.run_folder; print(*({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr


def test_judge_imports_nothing_heavy():
    """It starts at once, also where there is no torch."""
    code = f"import sys, experiments.judge.__main__; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr
    for name in of("experiments/judge"):
        assert not roots(imported(name)) & HEAVY, name


def test_names_say_something():
    words = {"utils", "util", "helpers", "helper", "common", "core", "misc", "base", "shared"}
    assert not [name for name in NAMES if words & set(name.removesuffix(".py").split("/"))]


def test_class_names_have_one_meaning():
    classes = [
        node.name
        for name in NAMES
        for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not {name for name in classes if classes.count(name) > 1}


def test_sources_stay_short():
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in NAMES}
    assert not {name: length for name, length in lengths.items() if length > 300}
