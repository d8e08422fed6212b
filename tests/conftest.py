"""Every test runs offline and on one thread; fixtures for real data and for composed runs."""

import copy
import functools
import gc
import ipaddress
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRIVATE = tempfile.TemporaryDirectory(prefix="fourierft-tests-")

# Before anything imports torch or a hub library: they read these once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HOME": str(Path(PRIVATE.name) / "hub"),
    "WANDB_DIR": PRIVATE.name,
    "FOURIERFT_CACHE": str(Path(PRIVATE.name) / "cache"),
}
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # `experiments` is run from the checkout, not installed


def pytest_collection_finish():
    """Has garbage collected more rarely, and without a look at all that was imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


class NetworkUse(RuntimeError):
    """A test left this machine; no OSError, so that nothing takes it for a hub that is down."""


def _refuse_remote(address):
    host = address[0] if isinstance(address, tuple) else "localhost"  # else a Unix socket's path
    try:
        local = host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkUse(f"a test opened a connection to {address}: tests run offline")


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections to other machines raise `NetworkUse`."""

    def guarded(original, place):
        def connect(*args, **kwargs):
            _refuse_remote(args[place] if len(args) > place else kwargs["address"])
            return original(*args, **kwargs)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", guarded(socket.create_connection, 0))
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), 1))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Where a test module has imported torch; others do without it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_prepared():
    """A test takes no data over from the one before, as the cells of a sweep do."""
    yield
    if "experiments.run.data_cache" in sys.modules:
        sys.modules["experiments.run.data_cache"]._last = None


@pytest.fixture(scope="session", autouse=True)
def conf_read_once():
    """Files of conf/ are parsed anew only if they changed: a quarter of every composition."""
    if "hydra" not in sys.modules:
        yield
        return
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    read, known = FileConfigSource.load_config, {}

    def load_config(self, config_path):
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            return read(self, config_path)
        key = (self.provider, file, file.stat().st_mtime_ns, file.stat().st_size)
        if key not in known:
            known[key] = read(self, config_path)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", load_config)
        yield


@pytest.fixture(scope="session")
def data_folder():
    """Folder of real data: FOURIERFT_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("FOURIERFT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        reason = f"no real data in {folder} (FOURIERFT_DATA names another folder)"
        if os.environ.get("FOURIERFT_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def compose():
    """Function: list of command-line overrides -> checked Config, a new copy each time."""
    from experiments.config.compose import compose_config, register
    from experiments.config.load import load_config

    register()
    loaded = functools.cache(lambda overrides: load_config(compose_config(list(overrides))))
    return lambda overrides: copy.deepcopy(loaded(tuple(overrides)))


@pytest.fixture(scope="session")
def text_run(compose, tmp_path_factory):
    """Folder with moods.csv and `run`, a finished run of a small encoder on its three classes."""
    from experiments.run.main import run

    place = tmp_path_factory.mktemp("moods")
    moods = ["glad", "sad", "so-so"]
    lines = [
        f"{'very ' * (row % 7)}{moods[row % 3]} row {row},{moods[row % 3]}" for row in range(90)
    ]
    (place / "moods.csv").write_text("\n".join(["words,mood", *lines]) + "\n")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "vocab_size": 264}
    run(
        compose(
            [
                *("model=minilm", "model.pretrained=false", "train.device=cpu", "method.n=50"),
                *("train.max_steps=4", "train.batch_size=8", "task=text", "task.label=mood"),
                *(f"model.sizes.{key}={value}" for key, value in sizes.items()),
                *(f"task.path={place}/moods.csv", f"output={place}/runs"),
            ]
        )
    )
    next(place.rglob("metrics.json")).parent.rename(place / "run")
    return place


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A current folder with the user's own files that the documentation speaks of."""
    import json

    monkeypatch.chdir(tmp_path)
    words = "".join(f"text {row},{('negative', 'positive')[row % 2]}\n" for row in range(10))
    (tmp_path / "reviews.csv").write_text(f"text,sentiment\n{words}")
    pairs = [{"question": f"q {row}", "answer": f"a {row}", "score": row / 2} for row in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in pairs))
    asked = [{"prompt": f"p {row}", "answer": f"a {row}"} for row in range(9)]
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in asked))
    for name in ("circle", "square"):
        (tmp_path / "shapes" / name).mkdir(parents=True)
    return tmp_path
