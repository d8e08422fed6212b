"""Weights and data for a machine without internet: fetched from a hub on this machine, listed with
hashes, checked, and then trained on with every door shut."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import scripted_hub

from experiments import hub
from experiments.commands.prefetch import (
    check_manifest,
    find_configs,
    list_downloads,
    main,
    prefetch,
)
from experiments.errors import ConfigError, HubUnavailable, RecordError
from experiments.hub import manifest

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "model=roberta_base",
    "+model.sizes.hidden_size=32",
    "+model.sizes.num_hidden_layers=2",
    "+model.sizes.num_attention_heads=2",
    "+model.sizes.intermediate_size=64",
    "source=none",
    "train.epochs=1",
    "train.batch_size=8",
    "train.learning_rate=1e-2",
    "method=fourierft",
    "method.n=50",
    "method.alpha=10",
]
ASKED = ["model=roberta_base", "task=cola,rte", "method=fourierft", "seed=0,1"]
WEIGHTS = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "vocab.json": b'{"a": 0}',
    "flax_model.msgpack": b"not ours",
    "onnx/model.safetensors": b"nor this",
}
DATA = {
    f"{task}/{split}-00000-of-00001.parquet": f"{task} {split}".encode()
    for task in ("cola", "rte", "sst2")
    for split in ("train", "validation", "test")
}
REPOSITORIES = {"models/FacebookAI/roberta-base": WEIGHTS, "datasets/nyu-mll/glue": DATA}


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Function: an address -> the hub there may be asked, the cache is empty."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()

    def connect(address):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(hub, "_silent_since", {})
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    return connect


@pytest.fixture
def known(monkeypatch):
    """What `ASKED` needs, without composing its cells."""
    files = tuple(f"{task}/{split}" for task in ("cola", "rte") for split in ("train", "val"))
    downloads = [
        hub.Download(repo="FacebookAI/roberta-base", patterns=("config.json", "model.safetensors")),
        hub.Download(repo="nyu-mll/glue", kind="dataset", patterns=tuple(f"{f}*" for f in files)),
    ]
    monkeypatch.setattr("experiments.commands.prefetch.list_downloads", lambda configs: downloads)
    monkeypatch.setattr("experiments.config.overrides.find_problems", lambda given: [])


def test_what_the_cells_of_a_sweep_need_is_fetched_once_and_listed(online, tmp_path, capsys):
    path = tmp_path / "manifest.json"
    with scripted_hub.serve(REPOSITORIES) as (address, asked):
        online(address)
        prefetch(ASKED, path)
        weights = {f"models/FacebookAI/roberta-base/{name}" for name in list(WEIGHTS)[:3]}
        rows = {
            f"datasets/nyu-mll/glue/{task}/{split}-00000-of-00001.parquet"
            for task in ("cola", "rte")
            for split in ("train", "validation")
        }
        assert len(asked) == 7 and set(asked) == weights | rows
        prefetch(ASKED, path)  # again: all of it is there
        assert len(asked) == 7
    assert "2 repositories, 7 files" in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert written["asked"] == ASKED
    commits = {one["repo"]: one["commit"] for one in written["repositories"]}
    assert commits == {
        name.partition("/")[2]: scripted_hub.commit_of(files)
        for name, files in REPOSITORIES.items()
    }
    file = written["repositories"][1]["files"]["model.safetensors"]
    assert file["bytes"] == 7 and len(file["sha256"]) == 64
    check_manifest(path)
    assert "all 7 files of 2 repositories are here" in capsys.readouterr().out


def test_what_is_missing_damaged_or_newer_is_listed_at_once(online, known, tmp_path):
    path = tmp_path / "manifest.json"
    with scripted_hub.serve(REPOSITORIES) as (address, _):
        online(address)
        prefetch(ASKED, path)
    cache = tmp_path / "cache"
    next(cache.rglob("snapshots/*/cola/train-*")).unlink()
    damaged = next(cache.rglob("snapshots/*/model.safetensors"))
    damaged.resolve().write_bytes(b"weighty")
    newer = cache / "datasets--nyu-mll--glue/refs/main"
    newer.write_text("0" * 40)
    with pytest.raises(RecordError) as caught:
        check_manifest(path)
    assert [
        line for line in caught.value.problems if "cola/train-" in line and "is missing" in line
    ]
    assert [line for line in caught.value.problems if "model.safetensors is damaged" in line]
    assert [line for line in caught.value.problems if f"main is {'0' * 40}" in line]
    assert len(caught.value.problems) == 3
    shutil.rmtree(cache / "datasets--nyu-mll--glue")
    with pytest.raises(RecordError, match="dataset nyu-mll/glue: not in the cache"):
        check_manifest(path)


def test_a_branch_is_fetched_and_checked_as_such(online, tmp_path):
    files = {f"default/{split}/0000.parquet": split.encode() for split in ("train", "validation")}
    download = hub.Download(
        repo="owner/data", kind="dataset", revision="refs/convert/parquet", patterns=("*.parquet",)
    )
    with scripted_hub.serve({"datasets/owner/data@refs/convert/parquet": files}) as (address, _):
        online(address)
        listed = manifest.describe(download, hub.fetch(download))
    assert set(listed["files"]) == set(files)
    assert list(manifest.find_problems(listed)) == []


def test_a_repository_that_is_refused_is_named_and_no_manifest_is_written(online, known, tmp_path):
    with scripted_hub.serve({"datasets/nyu-mll/glue": DATA}) as (address, _):
        online(address)
        with pytest.raises(HubUnavailable, match="model FacebookAI/roberta-base: the download"):
            prefetch(ASKED, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()


def test_a_silent_hub_is_given_up_at_once(online, known, tmp_path):
    online("http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(HubUnavailable, match="does not answer") as caught:
        prefetch(ASKED[:1] + ["task=cola"], tmp_path / "manifest.json")
    assert "HF_ENDPOINT" in str(caught.value) and time.monotonic() - began < 10


def test_folders_packages_and_counting_need_nothing(compose, tmp_path, capsys):
    main(["prefetch", "mode=count", "model=roberta_base", "task=cola"])
    assert "these runs need nothing from the hub" in capsys.readouterr().out
    config = compose(["model=roberta_base", "task=cola", f"model.path={tmp_path}", "task.path=x"])
    assert config.model.downloads() == config.task.downloads() == []
    assert compose(["model=minilm", "task=sst2"]).model.downloads() == []


def test_bad_requests_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="modle"):
        prefetch(["modle=x"], tmp_path / "manifest.json")
    with pytest.raises(ConfigError, match="invalid cells"):
        list_downloads(find_configs(["model=mlp", "task=cola"]))
    with pytest.raises(SystemExit):
        main(["prefetch"])
    assert "--check MANIFEST" in capsys.readouterr().err
    for text in ("{", "[]", '{"schema": 99}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(SystemExit, match="manifest"):
            main(["prefetch", "--check", str(tmp_path / "manifest.json")])


SHUT = """
import runpy, socket, sys
def refuse(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr, flush=True)
    raise RuntimeError("a door was tried")
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_what_was_fetched_trains_offline_with_every_door_shut(data_folder, tmp_path):
    """From fetching to the record; `offline=true` opens no connection and looks up no name."""
    from transformers import AutoConfig, AutoModel

    from experiments.models.byte_tokenizers import make_byte_tokenizer

    weights = tmp_path / "weights"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = AutoConfig.for_model("roberta", **sizes, intermediate_size=64, vocab_size=50265)
    AutoModel.from_config(settings).save_pretrained(weights)
    make_byte_tokenizer(512).save_pretrained(weights)
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    rows = {
        f"cola/{split}-00000-of-00001.parquet": (
            data_folder / f"glue/cola/{split}.parquet"
        ).read_bytes()
        for split in ("train", "validation")
    }
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = [*TINY, "task=cola", "task.train_rows=16", "task.eval_rows=16"]
    options = {"cwd": ROOT, "text": True, "capture_output": True, "timeout": 300}
    repositories = {"models/FacebookAI/roberta-base": files, "datasets/nyu-mll/glue": rows}
    command = [sys.executable, "-m", "experiments.hub", "prefetch"]
    with scripted_hub.serve(repositories) as (address, _):
        listing = ["--manifest", str(tmp_path / "manifest.json")]
        online = environment | {"HF_ENDPOINT": address}
        done = subprocess.run([*command, *run, *listing], env=online, **options)
        assert done.returncode == 0, done.stderr
    checking = ["--check", str(tmp_path / "manifest.json")]
    done = subprocess.run([*command, *checking], env=environment, **options)
    assert done.returncode == 0 and "are here" in done.stdout, done.stderr
    offline = [*run, f"output={tmp_path}/outputs", "offline=true"]
    done = subprocess.run([sys.executable, "-c", SHUT, *offline], env=environment, **options)
    assert done.returncode == 0 and "NETWORK" not in done.stderr, done.stderr
    record = json.loads(next((tmp_path / "outputs").rglob("metrics.json")).read_text())
    assert record["environment"]["weights"] and record["metrics"]["primary"]["name"] == "matthews"
