"""Published revisions and hashes: complete, well formed, and compared with downloads."""

import hashlib
import json
import re

from experiments.config.compose import CONF
from experiments.hub import fingerprints, pins
from experiments.report.comparison import reference

ROBERTA = "FacebookAI/roberta-base"


def describe(files, commit=None, repo=ROBERTA, kind="model"):
    listed = {name: {"bytes": 1, "sha256": sha} for name, sha in files.items()}
    pin = pins.load()["models"].get(repo, {})
    commit = commit or pin.get("revision")
    return {"repo": repo, "kind": kind, "commit": commit, "files": listed}


def test_a_download_is_compared_file_by_file():
    known = pins.load()["models"][ROBERTA]["files"]["model.safetensors"]
    told = pins.compare(describe({"model.safetensors": known, "vocab.json": "0" * 64}))
    assert (told.equal, told.unknown, told.different) == (["model.safetensors"], ["vocab.json"], [])
    assert told.describe().startswith("the published revision; SHA-256 of model.safetensors as")
    assert "SHA-256 unknown: 1 files" in told.describe()
    told = pins.compare(describe({"model.safetensors": "0" * 64}, commit="1" * 40))
    assert told.different == ["model.safetensors"]
    assert "revision 1111" in told.describe() and "DIFFERS" in told.describe()


def test_what_is_not_known_is_said():
    told = pins.compare(describe({"a": "0" * 64}, commit="1" * 40, repo="nobody/nothing"))
    assert told.describe() == "published revision unknown; SHA-256 unknown: 1 files"


def test_every_repository_of_conf_has_an_entry():
    """Null where nothing is known; the paper's models and data sets, not our small ones."""
    ours = re.compile("gpt2$|MiniLM|WinKawaks|SmolLM|alpaca-cleaned|none")
    texts = [
        path.read_text() for part in ("model", "task") for path in (CONF / part).glob("*.yaml")
    ]
    named = {
        name for text in texts for name in re.findall(r"^(?:test_)?repo: ([\w./-]+)$", text, re.M)
    }
    known = pins.load()["models"].keys() | pins.load()["datasets"].keys()
    assert {name for name in named if "/" in name and not ours.search(name)} == known


def test_hashes_are_whole():
    for kind in ("models", "datasets"):
        for pin in pins.load()[kind].values():
            assert pin["revision"] is None or re.fullmatch("[0-9a-f]{40}", pin["revision"])
            assert all(
                one is None or re.fullmatch("[0-9a-f]{64}", one) for one in pin["files"].values()
            )
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in pins.load()["others"].values())


def test_the_judges_prompts_are_those_pinned(data_folder):
    content = (data_folder / "judge_prompts.jsonl").read_bytes()
    assert hashlib.sha256(content).hexdigest() == pins.load()["others"]["judge_prompts"]
    assert len([json.loads(line) for line in content.splitlines()]) == 8


def test_fingerprints_of_the_papers_weights_are_those_published():
    """As experiments.hub.fingerprints makes them of the files themselves."""
    for name, entry in reference.weights().items():
        names = fingerprints.PIPELINE_WEIGHTS if name == "sd15" else ("model.safetensors",)
        assert pins.fingerprint_weights(entry["repo"], names) == entry["fingerprint"], name
    assert sum(entry["fingerprint"] is not None for entry in reference.weights().values()) == 4


def test_a_fingerprint_follows_from_the_files_own(tmp_path):
    for number, name in enumerate(("a.safetensors", "b.safetensors")):
        (tmp_path / name).write_bytes(bytes([number]))
    parts = [hashlib.sha256(path.read_bytes()).digest() for path in sorted(tmp_path.iterdir())]
    found = fingerprints.compute_fingerprint(fingerprints.find_weights(tmp_path))
    assert found == fingerprints.combine_digests(parts)
