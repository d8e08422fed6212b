"""Where weights and data come from, and one fast, clear error when they are nowhere."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub.constants
import pytest

from experiments import hub
from experiments.errors import HubUnavailable

ROOT = Path(__file__).resolve().parent.parent
REPO = "owner/weights"
ASKED = {"probe": "model.safetensors", "option": "model.path"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """An empty cache, a network that may be used, and no proxy; all of it put back at the end."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(hub, "_switched_off_here", False)
    monkeypatch.setattr(hub, "_silent_since", {})
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def listening(monkeypatch):
    """A hub that answers, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        yield port


@pytest.fixture
def silent(monkeypatch):
    """A hub that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def cached(tmp_path, repo=REPO, kind="model", file="model.safetensors"):
    """The layout that a download leaves."""
    place = tmp_path / "cache" / f"{kind}s--{repo.replace('/', '--')}"
    snapshot = place / "snapshots" / ("a" * 40) / file
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.write_bytes(b"x")
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text("a" * 40)
    return snapshot


def test_local_folder_wins(tmp_path, silent):
    cached(tmp_path)
    assert hub.locate(REPO, str(tmp_path), **ASKED) == str(tmp_path)


def test_local_folder_in_the_home(tmp_path, monkeypatch, silent):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    assert hub.locate(REPO, "~/weights", **ASKED) == str(tmp_path / "weights")


def test_local_folder_leaves_the_network_on(tmp_path, listening):
    """Weights from a folder, data from the hub: the second must not find the network cut."""
    hub.locate(REPO, str(tmp_path), **ASKED)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    data = {"probe": "train.parquet", "option": "task.path", "kind": "dataset"}
    assert hub.locate("owner/data", None, **data) == "owner/data"


@pytest.mark.parametrize("make", [None, "file"])
def test_missing_folder(tmp_path, make, listening):
    path = tmp_path / "nowhere"
    if make:
        path.write_text("")
    with pytest.raises(HubUnavailable) as caught:
        hub.locate(REPO, str(path), **ASKED)
    assert str(caught.value) == f"model.path={path}: no such folder"


def test_cache_serves_without_a_network(tmp_path, silent):
    cached(tmp_path)
    assert hub.locate(REPO, None, **ASKED) == REPO
    assert huggingface_hub.constants.HF_HUB_OFFLINE  # or the libraries would try, and wait
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_cache_of_a_dataset(tmp_path, silent):
    asked = {"probe": "cola/train.parquet", "option": "task.path", "kind": "dataset"}
    cached(tmp_path, "owner/data", "dataset", "cola/train.parquet")
    assert hub.locate("owner/data", None, **asked) == "owner/data"
    with pytest.raises(HubUnavailable):
        hub.locate("owner/data", None, **asked | {"probe": "rte/train.parquet"})


def test_part_of_a_download_is_no_download(tmp_path, silent):
    cached(tmp_path, file="config.json")
    with pytest.raises(HubUnavailable):
        hub.locate(REPO, None, **ASKED)


def test_hub_that_answers_is_enough(listening):
    assert hub.locate(REPO, None, **ASKED) == REPO
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_network_that_comes_back_is_used(tmp_path, listening, monkeypatch):
    """Cell 1 of a sweep found the hub silent and its weights cached; cell 2 may download."""
    cached(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "_accepts_connections", lambda address: False)
        hub.locate(REPO, None, **ASKED)
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    monkeypatch.setattr(hub, "_silent_since", {})
    assert hub.locate("owner/other", None, **ASKED) == "owner/other"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert os.environ.get("HF_HUB_OFFLINE") != "1"


def test_wish_to_stay_offline_is_kept(listening, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.go_offline()
    with pytest.raises(HubUnavailable, match="network use is disabled"):
        hub.locate(REPO, None, **ASKED)
    assert huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_error_says_everything(tmp_path, silent, kind):
    option = "model.path" if kind == "model" else "task.path"
    with pytest.raises(HubUnavailable) as caught:
        hub.locate(REPO, None, probe="x", option=option, kind=kind)
    said = str(caught.value)
    flag = " --repo-type dataset" if kind == "dataset" else ""
    for word in (
        f"{kind} {REPO}",
        "the hub does not answer",
        str(tmp_path / "cache"),
        f"hf download {REPO}{flag}\n",
        f"{option}=FOLDER",
    ):
        assert word in said
    assert ("model.pretrained=false" in said) is (kind == "model")


@pytest.mark.parametrize("way", ["flag", "constant"])
def test_offline_answers_at_once(listening, monkeypatch, way):
    def connect(address):
        pytest.fail("asked the network")

    monkeypatch.setattr(hub, "_accepts_connections", connect)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", way == "constant")
    began = time.monotonic()
    with pytest.raises(HubUnavailable, match="network use is disabled"):
        hub.locate(REPO, None, **ASKED, offline=way == "flag")
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("where", ["lookup", "connection"])
def test_hanging_network_is_given_up_in_seconds(monkeypatch, where):
    """A name server that swallows the question, an address that swallows packets."""
    assert hub.PROBE_SECONDS <= 3
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    release = threading.Event()
    began = time.monotonic()
    if where == "lookup":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://localhost")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(30) and [])
    else:
        monkeypatch.setattr(socket, "create_connection", lambda *a, **k: release.wait(30))
    try:
        with pytest.raises(HubUnavailable, match="does not answer"):
            hub.locate(REPO, None, **ASKED)
        assert time.monotonic() - began < 2.5
        monkeypatch.setattr(
            hub, "_accepts_connections", lambda address: pytest.fail("asked and waited again")
        )
        with pytest.raises(HubUnavailable, match="does not answer"):  # the data, after the weights
            hub.locate("owner/data", None, probe="x", option="task.path", kind="dataset")
    finally:
        release.set()


def test_unresolvable_name(monkeypatch):
    def lookup(*args, **kwargs):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "create_connection", lookup)
    assert hub.is_reachable("https://hub.invalid") is False


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_proxy_is_what_must_answer(monkeypatch, listening, scheme):
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{listening}")
    assert hub.is_reachable("https://hub.invalid")


@pytest.mark.parametrize("variable", ["all_proxy", "https_proxy", "http_proxy"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_a_proxy_that_needs_a_package_is_named(monkeypatch, listening, scheme, variable):
    endpoint = f"{'https' if variable == 'https_proxy' else 'http'}://hub.invalid"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setenv(variable, f"{scheme}://user:secret@127.0.0.1:{listening}")
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(HubUnavailable) as caught:
        hub.locate(REPO, None, **ASKED)
    assert f"the proxy {scheme}://127.0.0.1 needs a package" in str(caught.value)
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(hub, "find_spec", lambda name: True)
    assert hub.locate(REPO, None, **ASKED) == REPO


def test_the_home_of_nobody_is_no_folder():
    with pytest.raises(HubUnavailable, match="model.path=~nobody-here/x: no such folder"):
        hub.locate(REPO, "~nobody-here/x", **ASKED)


def test_a_folder_needs_no_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    assert hub.locate(REPO, str(tmp_path), **ASKED) == str(tmp_path)


def test_no_proxy_is_honoured(monkeypatch, listening, silent):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not hub.is_reachable(huggingface_hub.constants.ENDPOINT)


def test_no_torch_is_imported():
    code = """
import sys
from experiments import hub
from experiments.errors import HubUnavailable
try:
    hub.locate("owner/weights", None, probe="x", option="model.path", offline=True)
except HubUnavailable:
    print("torch" in sys.modules, "transformers" in sys.modules, "datasets" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False False False\n", done.stderr
