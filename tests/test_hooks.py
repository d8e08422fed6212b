"""Modules that are a layer of one adapter and a head, or in a head, of another."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from fourierft import AdapterBank, FourierFTConfig


class Net(nn.Module):
    def __init__(self, nested):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.classifier = nn.Linear(16, 16), nn.Linear(16, 3)
        if nested:
            self.classifier = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 3))

    def forward(self, x):
        return self.classifier(self.query(x))


def save(path, nested, **settings):
    net = get_peft_model(Net(nested), FourierFTConfig(n_frequency=5, scaling=100.0, **settings))
    with torch.no_grad():
        for value in net.parameters():
            if value.requires_grad:
                value.normal_()
    net.save_pretrained(path)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_head_of_one_adapter_holds_a_layer_of_another(tmp_path, nested, order):
    layer = "classifier.0" if nested else "classifier"
    alone = {
        "a": save(tmp_path / "a", nested, target_modules=["query"], modules_to_save=["classifier"]),
        "b": save(tmp_path / "b", nested, target_modules=["query", layer]),
    }
    net, x = Net(nested), torch.randn(4, 16)
    bank = AdapterBank(net)
    for name in order:
        bank.add(name, tmp_path / name)
    expected = torch.cat([alone["a"](x[:2]), alone["b"](x[2:])])
    with bank.rows(["a", "b"]):  # two rows of each, as with beams
        assert (net(x) - expected).abs().max() < 1e-5
    bank.close()
    assert torch.equal(net(x), Net(nested)(x))
