"""Fifty steps of a real encoder on real rows: the losses of PEFT's own tuner, step by step."""

import pytest
import torch
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.fourierft import FourierFTModel as StockModel

from experiments.run.build import build_network
from fourierft import FourierFTLayer, FourierFTModel, configure

STEPS, ROWS = 50, 8
ENGINES = [("cache", "sampled"), ("recompute", "dense")]


@pytest.fixture(scope="module")
def trained(compose, data_folder):
    """Function: tuner, engine -> loss of every step, dropout off, everything else as in a run."""
    config = compose(
        [
            "model=minilm",
            "task=sst2",
            "method=fourierft",
            f"task.path={data_folder}/glue/sst2",
            f"task.train_rows={STEPS * ROWS}",
            "task.eval_rows=8",
        ]
    )
    weights = config.model.locate()
    data = config.task.load(config.model.processor(weights), config.task.locate())
    rows = [data.train[i] for i in range(STEPS * ROWS)]
    batches = [data.collate(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)]

    def trained(tuner, memory="auto", gradient="auto"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.FOURIERFT, tuner)
            net = build_network(config, weights)
        assert type(net.base_model) is tuner
        if tuner is FourierFTModel:
            configure(net, memory=memory, gradient=gradient)
        net.eval()  # no dropout; gradients flow all the same
        groups = {True: [], False: []}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                groups["fourierft_spectrum" in name].append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": groups[True], "lr": 3e-2}, {"params": groups[False], "lr": 1e-3}],
            fused=True,
        )
        losses = []
        for batch in batches:
            loss = net(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        adapted = any(isinstance(module, FourierFTLayer) for module in net.modules())
        assert adapted is (tuner is FourierFTModel)
        return losses

    return trained


@pytest.mark.slow
def test_losses_are_pefts_step_by_step(trained):
    expected = trained(StockModel)
    assert sum(expected[-10:]) < sum(expected[:10])
    for engine in ENGINES:
        found = trained(FourierFTModel, *engine)
        worst = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        print(f"{engine}: worst difference {worst:.1e}")
        assert worst <= 1e-5, engine
