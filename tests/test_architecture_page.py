"""docs/architecture.png and .md are of today's folders."""

import importlib.util
import json
import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def load_script():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn():
    with Image.open(ROOT / "docs" / "architecture.png") as picture:
        return json.loads(picture.text["Folders"])


def test_picture_has_the_folders_of_the_sources():
    now = load_script().read_folders()
    known = [(one["name"], one["floor"]) for one in drawn()]
    assert [(one["name"], one["floor"]) for one in now] == known, "python docs/architecture.py"
    assert all(one["modules"] for one in now)


def test_imports_lead_to_lower_floors():
    now = load_script().read_folders()
    floors = {one["name"]: one["floor"] for one in now}
    assert sum(len(one["imports"]) for one in now) > 40
    for one in now:
        assert all(floors[name] < one["floor"] for name in one["imports"]), one


def test_picture_is_drawn(tmp_path):
    script = load_script()
    script.draw(script.read_folders(), tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as picture:
        assert json.loads(picture.text["Folders"]) == script.read_folders()


def test_tree_names_every_folder():
    tree = re.search(r"```text\n(.*?)```", PAGE, re.S)[1]
    for package in ("experiments", "fourierft", "conf"):
        for folder in (ROOT / package).iterdir():
            if folder.is_dir() and folder.name != "__pycache__":
                assert f"{folder.name}/ " in tree, folder


def test_paths_of_the_page_exist():
    named = {*re.findall(r"`((?:experiments|fourierft|conf|tests|docs)/[\w./]+)`", PAGE)}
    named |= {f"experiments/{name}" for name in re.findall(r"`((?!tests/)[a-z]+/\w+\.py)`", PAGE)}
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_hops_are_functions_of_today():
    hops = re.findall(r"^\| \d+ \| `([\w/]+\.py)` \| `(\w+)` \|", PAGE, re.M)
    assert len(hops) > 20
    for name, function in hops:
        path = ROOT / name if name == "train.py" else ROOT / "experiments" / name
        assert re.search(rf"^ *def {function}\(", path.read_text(), re.M), (name, function)
