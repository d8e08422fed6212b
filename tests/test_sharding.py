"""FourierFT on two processes, replicated (DDP) and sharded (FSDP2), gives what one gives."""

import json

import pytest
from processes import ranks


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "losses.json"
    statuses, printed = ranks(2, "tests/sharded_ranks.py", str(path))
    assert statuses == [0, 0], printed[-3000:]
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["data_parallel", "fully_sharded"])
@pytest.mark.parametrize(
    "engine",
    ["cache dense", "cache sampled", "recompute dense", "recompute sampled", "batched dense"],
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
