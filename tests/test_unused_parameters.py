"""Parameters that a loss does not depend on."""

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from experiments.training.unused_parameters import find_unused
from fourierft import FourierFTConfig


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.spare = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 4)

    def forward(self, x, saves=True):
        x = self.first(x) if saves else checkpoint(self.first, x, use_reentrant=False)
        return self.second(x).sum()


@pytest.mark.parametrize("saves", [True, False])
def test_what_the_loss_does_not_reach(saves):
    net = Net()
    net.second.bias.requires_grad_(False)
    assert find_unused(net, net(torch.ones(2, 4), saves)) == ["spare.weight", "spare.bias"]


def test_coefficients_are_reached():
    targets = ["first", "second", "spare"]
    net = get_peft_model(Net(), FourierFTConfig(n_frequency=3, target_modules=targets))
    (unused,) = find_unused(net, net(torch.ones(2, 4)))
    assert unused.endswith("spare.fourierft_spectrum.default")
