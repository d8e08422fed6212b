"""The wheel: installed beside nothing but what it declares, it trains."""

import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

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
    for name in ("pyproject.toml", "README.md", *(p for p in _sources())):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(command, check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


def _sources():
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("fourierft/**/*.py"))]


@pytest.mark.slow
def test_wheel_holds_every_module_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(modules) == _sources()


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
