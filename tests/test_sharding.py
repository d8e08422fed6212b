"""FourierFT on two processes, replicated (DDP) and sharded (FSDP2), gives what one gives."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "losses.json"
    script = Path(__file__).parent / "sharded_ranks.py"
    for _ in range(2):  # gloo's start-up was once seen to abort
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        done = subprocess.run(
            [*command, "--master_addr=127.0.0.1", f"--master_port={port}", str(script), str(path)],
            capture_output=True,
            text=True,
            timeout=200,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["data_parallel", "fully_sharded"])
@pytest.mark.parametrize(
    "engine", [f"{m} {g}" for m in ("cache", "recompute") for g in ("dense", "sampled")]
)
def test_two_ranks_train_like_one(losses, engine, way):
    found = losses[engine]
    assert found[way] == pytest.approx(found["alone"], abs=1e-5)
    assert found["alone"][-1] < found["alone"][0]


@pytest.mark.slow
def test_every_engine_trains_alike(losses):
    first, *others = (found["alone"] for found in losses.values())
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)
