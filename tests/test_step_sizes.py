"""Learning rates as shares of |W|, against what AdamW does with them."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from experiments.training.optimizer import build_optimizer
from experiments.training.train_config import Train
from fourierft import FourierFTConfig, rate_groups, step_sizes


def adapt(*stds, **changes):
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(96, 96, bias=False) for _ in stds))
    for layer, std in zip(net, stds, strict=True):
        nn.init.normal_(layer.weight, std=std)
    names = [str(index) for index in range(len(stds))]
    given = {"n_frequency": 300, "scaling": 50.0, "init_weights": True} | changes
    return get_peft_model(net, FourierFTConfig(target_modules=names, **given))


def move(net, optimizer):
    """Return |DeltaW| / |W| of every layer after one step from zero."""
    net(torch.randn(64, 96)).square().mean().backward()
    optimizer.step()
    layers = net.base_model.model
    return [
        float(one.get_delta_weight("default").norm() / one.get_base_layer().weight.norm())
        for one in layers
    ]


def test_every_matrix_moves_by_the_same_share_of_its_weight():
    net = adapt(0.02, 0.4)
    moved = move(net, torch.optim.AdamW(rate_groups(net, step=0.02), weight_decay=0.0))
    assert moved == pytest.approx([0.02, 0.02], rel=0.1)
    alone = adapt(0.02, 0.4)
    rate = 0.02 / max(step_sizes(alone).values())
    apart = move(alone, torch.optim.AdamW(alone.parameters(), lr=rate, weight_decay=0.0))
    assert apart[0] > 10 * apart[1]


@pytest.mark.parametrize("alpha", [1.0, 300.0])
def test_the_scaling_has_no_influence_on_shares(alpha):
    net = adapt(0.02, scaling=alpha)
    assert move(net, torch.optim.AdamW(rate_groups(net, step=0.01)))[0] == pytest.approx(0.01, 0.1)


def test_frozen_coefficients_get_no_group_and_a_zero_weight_is_refused():
    net = adapt(0.02, 0.4)
    frozen = next(value for name, value in net.named_parameters() if "fourierft_spectrum" in name)
    frozen.requires_grad_(False)
    assert len(rate_groups(net, step=0.02)) == 1
    with pytest.raises(ValueError, match=r"0\.fourierft_spectrum\.default: the weight is zero"):
        rate_groups(adapt(0.0), step=0.02)


def test_a_merged_update_is_not_part_of_the_weight():
    net = adapt(0.02, init_weights=False, scaling=500.0)
    before = step_sizes(net)
    net.merge_adapter()
    assert step_sizes(net) == before


def test_the_optimizer_of_runs_has_a_rate_for_each_matrix_and_the_heads_own():
    net = adapt(0.02, 0.4)
    head = nn.Parameter(torch.zeros(3))
    named = [*net.named_parameters(), ("classifier.weight", head)]
    train = Train(
        epochs=1, batch_size=1, learning_rate=0.02, head_learning_rate=1e-3, relative_rate=True
    )
    optimizer = build_optimizer(train, named, ["classifier"], set(), step_sizes(net))
    rates = {id(value): one["lr"] for one in optimizer.param_groups for value in one["params"]}
    assert rates.pop(id(head)) == 1e-3
    assert sorted(rates.values()) == sorted(one["lr"] for one in rate_groups(net, step=0.02))
