"""The wheel: installed beside nothing but what it declares, it trains."""

import re
import subprocess
import sys
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

import fourierft

ROOT = Path(__file__).resolve().parent.parent

TRAINING = """
import sys

import torch
from peft import PeftModel, get_peft_model
from torch import nn

import fourierft


class Net(nn.Sequential):
    config = {"model_type": "custom"}


def build():
    torch.manual_seed(0)
    return Net(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))


folder = sys.argv[1]
x, y = torch.randn(64, 12), torch.randint(3, (64,))
config = fourierft.FourierFTConfig(n_frequency=40, scaling=20.0, target_modules=["0", "2"])
model = get_peft_model(build(), config)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
losses = []
for _ in range(60):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.8 * losses[0], losses[:: len(losses) - 1]
model.save_pretrained(folder)
restored = PeftModel.from_pretrained(build(), folder)
torch.testing.assert_close(restored(x), model(x))
fourierft.export_compact(model, f"{folder}/compact.safetensors")
torch.testing.assert_close(
    fourierft.import_compact(build(), f"{folder}/compact.safetensors")(x), model(x)
)
torch.testing.assert_close(restored.merge_and_unload()(x), model(x), rtol=1e-4, atol=1e-5)
print(fourierft.__file__)
"""


def needed(names):
    """Distributions that these requirements bring, extras left out: name -> distribution."""
    found, waiting = {}, list(names)
    while waiting:
        requirement = waiting.pop()
        name = re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0].lower().replace("_", "-")
        if "extra ==" in requirement or name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += found[name].requires or ()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", *_sources()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(command, check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


def _sources():
    paths = [*ROOT.glob("fourierft/**/*.py"), ROOT / "fourierft" / "py.typed"]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.fixture(scope="module")
def declared():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what setuptools will refuse one day
        return apply_configuration(Distribution(), ROOT / "pyproject.toml")


def test_every_package_is_declared(declared):
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("fourierft/**/__init__.py")}
    assert set(declared.packages) == {".".join(folder.parts) for folder in folders}
    for package, names in declared.package_data.items():
        assert all((ROOT / package / name).is_file() for name in names) and names


def test_version_and_licence_stand_once(declared):
    described = declared.metadata
    assert described.get_version() == fourierft.__version__
    assert described.license_expression == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().split()[:2] == ["Apache", "License"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (fourierft.__version__, "Apache-2.0")
    assert re.search(rf"^## {re.escape(fourierft.__version__)}\b", _read("CHANGELOG.md"), re.M)


def test_workflow_and_templates_are_read():
    for path in [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(path.read_text()), path
    workflow = yaml.safe_load(_read(".github/workflows/ci.yml"))
    assert workflow["jobs"]["tests"]["steps"][-1]["run"] == "bash .ci/run"


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_wheel_holds_every_module_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if ".dist-info/" not in name]
        (described,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        described = Metadata.from_email(archive.read(described), validate=True)
    assert sorted(modules) == _sources()
    assert str(described.version) == fourierft.__version__
    assert described.license_files == ["LICENSE"] and not described.license
    assert described.description_content_type == "text/markdown"


@pytest.mark.slow
def test_wheel_trains_beside_its_declared_dependencies_alone(wheel, tmp_path):
    """An empty environment with links to what the wheel requires, directly or by way of others."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    declared = metadata.distributions(path=[str(packages)])
    requirements = next(iter(declared)).requires
    found = needed(one for one in requirements if "extra ==" not in one)
    assert "torch" in found and not {"hydra-core", "datasets", "pytest"} & found.keys()
    for distribution in found.values():
        for entry in {file.parts[0] for file in distribution.files or ()} - {".."}:
            target = Path(distribution.locate_file(entry))
            if target.exists() and not (packages / entry).exists():
                (packages / entry).symlink_to(target)
    done = subprocess.run(
        [str(environment / "bin/python"), "-P", "-c", TRAINING, str(tmp_path / "adapter")],
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.split()[-1]).parent == packages / "fourierft"
