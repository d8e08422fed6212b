"""Adapters with entries in few rows, as LoRA that PEFT computes alone."""

import os
import subprocess
import sys
from collections import OrderedDict

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


class Net(nn.Module):
    """Layers of both kinds, not square, before a head."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Linear(16, 24), Conv1D(10, 24)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(torch.tanh(self.first(x)))))


def build():
    torch.manual_seed(0)
    return Net().eval()


def batch():
    return torch.randn(50, 16, generator=torch.Generator().manual_seed(1))


if __name__ == "__main__":  # in a process of its own, without the package
    net = peft.PeftModel.from_pretrained(build(), sys.argv[1]).eval()
    assert "fourierft" not in sys.modules
    torch.save((net(batch()).detach(), net.merge_and_unload()(batch()).detach()), sys.argv[2])
    sys.exit()

from fourierft import FourierFTConfig, export_lora, lora_errors  # noqa: E402
from fourierft.lora_export import table_of_errors  # noqa: E402


def adapted(**values):
    values = {"n_frequency": 25, "scaling": 300.0, "target_modules": ["first", "conv"], **values}
    net = peft.get_peft_model(build(), FourierFTConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_()
    return net


@pytest.mark.parametrize(
    "values",
    [
        {"entry_rows": 3, "modules_to_save": ["head"]},
        {"entry_rows": 3, "orientation": "algorithm1", "scaling_mode": "norm", "scaling": 2.0},
        {"entry_rows": 5, "n_frequency_pattern": {"conv": 2}},  # fewer entries than rows
    ],
    ids=["rows", "columns", "pattern"],
)
def test_outputs_are_the_same(values, tmp_path):
    net = adapted(**values)
    folder = export_lora(net, tmp_path / "lora")
    loaded = peft.PeftModel.from_pretrained(build(), folder).eval()
    expected = net.double()(batch().double())
    error = (loaded.double()(batch().double()) - expected).norm() / expected.norm()
    assert error < 1e-6
    assert not torch.allclose(build()(batch()), expected.float(), atol=0.05)
    assert loaded.peft_config["default"].r == 2 * values["entry_rows"]


def test_trained_tokens_are_exported(tmp_path):
    def build_words():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(words=nn.Embedding(6, 16), first=nn.Linear(16, 24)))

    config = FourierFTConfig(
        n_frequency=9,
        entry_rows=2,
        target_modules=["first"],
        trainable_token_indices={"words": [1]},
    )
    net = peft.get_peft_model(build_words(), config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    loaded = peft.PeftModel.from_pretrained(build_words(), export_lora(net, tmp_path)).eval()
    words = torch.arange(6)
    torch.testing.assert_close(loaded(words), net(words))


def test_plain_peft_loads_it(tmp_path):
    net = adapted(entry_rows=3, modules_to_save=["head"])
    net.save_pretrained(tmp_path / "adapter")
    export_lora(net, tmp_path / "lora")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for folder, works in (("lora", True), ("adapter", False)):
        command = [sys.executable, "-P", os.path.abspath(__file__), str(tmp_path / folder)]
        done = subprocess.run(
            [*command, str(tmp_path / "found")], env=environment, capture_output=True, text=True
        )
        assert (done.returncode == 0) == works, done.stderr
    assert "FOURIERFT_EXTENDED" in done.stderr, "an adapter with entry_rows"
    for found in torch.load(tmp_path / "found"):
        torch.testing.assert_close(found, net(batch()).detach(), rtol=1e-5, atol=1e-5)


def test_a_rank_truncates_and_the_loss_is_told(tmp_path):
    net = adapted(modules_to_save=["head"]).double()
    errors = lora_errors(net, ranks=(2, 4, 16))
    with pytest.warns(UserWarning, match=r"rank 4 loses \d+% of .DeltaW. .median of 2 layers"):
        folder = export_lora(net, tmp_path / "lora", rank=4)
    loaded = peft.PeftModel.from_pretrained(build().double(), folder).eval()
    for name in ("first", "conv"):
        exact = getattr(net.get_base_model(), name).get_delta_weight("default").detach()
        layer = getattr(loaded.get_base_model(), name)
        left, right = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        found = ((exact - left @ right).norm() / exact.norm()).item()
        assert found == pytest.approx(errors[name][4], rel=1e-5) and 0.05 < found < 1
        assert 0 == errors[name][16] < errors[name][4] < errors[name][2]
    text = table_of_errors(errors).splitlines()
    assert text[0].split() == ["r=2", "r=4", "r=16"] and text[-1].startswith("median")
    assert f"{errors['conv'][4]:.1%}" in next(line for line in text if line.startswith("conv"))


def test_pefts_own_conversion_says_that_it_truncates():
    net = adapted(target_modules=["first"])
    with pytest.warns(UserWarning, match="full rank.*lora_errors"):
        config, state = peft.convert_to_lora(net, rank=16)
    layer = net.get_base_model().first
    update = (
        state["base_model.model.first.lora_B.weight"]
        @ state["base_model.model.first.lora_A.weight"]
    )
    torch.testing.assert_close(update, layer.get_delta_weight("default").detach())


def test_what_cannot_be_exported_is_named(tmp_path):
    for values in ({}, {"bias": "all"}):
        with pytest.raises(ValueError, match="entry_rows: got None.*rank=16 would"):
            export_lora(adapted(**values), tmp_path)
    with pytest.raises(ValueError, match="adapter 'other', allowed default"):
        export_lora(adapted(entry_rows=2), tmp_path, "other")
    with pytest.raises(ValueError, match="rank: got 100, allowed 1 to"):
        export_lora(adapted(), tmp_path, rank=100)
    rows = adapted(entry_rows=2)
    rows.add_adapter("b", FourierFTConfig(n_frequency=9, entry_rows=3, target_modules=["first"]))
    rows.add_weighted_adapter(["default", "b"], [1.0, 1.0], "sum")
    with pytest.raises(
        ValueError, match="export_lora: further_draws: got 1, allowed none.*rank=16"
    ):
        export_lora(rows, tmp_path, "sum")
    lora = peft.get_peft_model(build(), peft.LoraConfig(target_modules=["first"]))
    with pytest.raises(ValueError, match="export_lora: the model has no FourierFT layers"):
        export_lora(lora, tmp_path, rank=4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"entry_rows": 13}, "entry_rows: got 13 for conv, allowed 1 to 6"),
        ({"entry_rows": 1}, "n_frequency: got 25 for first, allowed 1 to 1 \\* 16 = 16"),
        ({"entry_rows": 1, "orientation": "algorithm1"}, "got 25 for first.* 1 \\* 24 = 24"),
    ],
)
def test_sizes_that_do_not_fit(values, named):
    with pytest.raises(ValueError, match=named):
        adapted(**values)
