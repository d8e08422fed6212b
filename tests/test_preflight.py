"""What is said before training, against what training does."""

import math
import re

import pytest
import torch
from peft import get_peft_model
from torch import nn

from experiments.errors import ConfigError
from experiments.training.preflight import ADVICE, check_setting, describe_setting
from experiments.training.train_config import Schedule, Train
from fourierft import FourierFTConfig, FourierFTLinear
from fourierft.spectrum import atom_norm


class Net(nn.Module):
    """One weight of the given size, or several."""

    def __init__(self, *shapes, std=0.02):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(d2, d1, bias=False) for d1, d2 in shapes)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x):
        return self.layers[0](x)


def adapted(*shapes, n=200, alpha=100.0, std=0.02, zeros=False):
    torch.manual_seed(0)
    net = Net(*shapes, std=std)
    names = [f"layers.{index}" for index in range(len(shapes))]
    config = FourierFTConfig(
        n_frequency=n,
        scaling=alpha,
        random_loc_seed=2024,
        init_weights=zeros,
        target_modules=names,
    )
    return get_peft_model(net, config)


def layer(net):
    return next(module for module in net.modules() if isinstance(module, FourierFTLinear))


def recipe(**changes):
    return Train(**{"epochs": 3, "batch_size": 32, "learning_rate": 0.05} | changes)


@pytest.mark.parametrize("shape", [(96, 96), (64, 160)])
@pytest.mark.parametrize("rate", [0.05, 1e-3])
def test_step_is_what_adamw_does(shape, rate):
    net = adapted(shape)
    found = check_setting(net, recipe(learning_rate=rate), rows=320)
    part, size = layer(net), layer(net).get_base_layer().weight.norm()
    before = part.get_delta_weight("default").detach().clone()
    optimizer = torch.optim.AdamW(
        [value for value in net.parameters() if value.requires_grad], lr=rate, weight_decay=0.0
    )
    net(torch.randn(32, shape[1])).square().mean().backward()
    optimizer.step()
    moved = (part.get_delta_weight("default").detach() - before).norm() / size
    assert found["step"] / 1.5 < moved < found["step"] * 1.5


def test_a_relative_rate_is_the_step():
    given = recipe(learning_rate=0.02, relative_rate=True)
    found = check_setting(adapted((96, 96), (64, 160), std=0.1), given, rows=320)
    assert found["step"] == pytest.approx(0.02)
    assert found["reach"] == pytest.approx(0.02 * found["steps"] / 2)


@pytest.mark.parametrize("shape", [(96, 96), (64, 160)])
def test_start_is_the_size_of_the_random_update(shape):
    net = adapted(shape)
    part = layer(net)
    measured = part.get_delta_weight("default").norm() / part.get_base_layer().weight.norm()
    found = check_setting(net, recipe(), rows=320)["start"]
    assert found == pytest.approx(float(measured.detach()), rel=0.1)
    assert check_setting(adapted(shape, zeros=True), recipe(), rows=320)["start"] == 0.0


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_reach_is_the_sum_of_the_schedule(schedule, warmup):
    from transformers import get_scheduler

    given = recipe(schedule=schedule, warmup_ratio=warmup, epochs=40)
    found = check_setting(adapted((64, 64)), given, rows=320)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    plan = get_scheduler(name, optimizer, int(400 * warmup), 400)
    total = 0.0
    for _ in range(400):
        total += plan.get_last_lr()[0]
        optimizer.step()
        plan.step()
    assert found["steps"] == 400
    assert found["reach"] == pytest.approx(found["step"] * total, rel=0.02)
    assert found["travel"] == pytest.approx(given.learning_rate * total, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 30), ({"epochs": 0.5}, 5), ({"max_steps": 7}, 7), ({"batch_size": 33}, 30)],
)
def test_steps(changes, steps):
    assert check_setting(adapted((64, 64)), recipe(**changes), rows=319)["steps"] == steps


def test_several_layers_give_their_median():
    shapes = [(64, 64), (64, 64), (128, 128)]
    alone = check_setting(adapted((64, 64)), recipe(), rows=320)
    found = check_setting(adapted(*shapes), recipe(), rows=320)
    assert found["layers"] == 3
    assert found["step"] == pytest.approx(alone["step"], rel=0.05)


@pytest.mark.parametrize("schedule", Schedule)
def test_setting_of_the_public_benchmark_cannot_learn(schedule):
    """PEFT's method comparison: n 1000, alpha 300, learning rate 1e-4, 5000 steps, 3072 wide."""
    net = adapted((3072, 3072), n=1000, alpha=300.0)
    given = recipe(learning_rate=1e-4, max_steps=5000, schedule=schedule)
    found = check_setting(net, given, rows=20_000)
    (warning,) = found["warnings"]
    assert "cannot learn" in warning
    for word in ("train.learning_rate=0.0001", "5000 steps", "method.alpha"):
        assert word in warning


# Table 9 of the paper: epochs, learning rate, alpha; training rows; n = 1000, batches of 32.
PAPER = {
    "base": {
        "stsb": (60, 9e-2, 84, 5749),
        "rte": (90, 9e-2, 110, 2490),
        "mrpc": (30, 5e-2, 141, 3668),
        "cola": (100, 0.12, 49, 8551),
        "sst2": (40, 5e-2, 140, 67349),
        "qnli": (40, 1e-2, 29, 104743),
    },
    "large": {
        "stsb": (30, 7e-2, 121, 5749),
        "rte": (60, 8e-2, 90, 2490),
        "mrpc": (30, 6e-2, 120, 3668),
    },
}


@pytest.mark.parametrize(
    ("size", "task"), [(size, task) for size, rows in PAPER.items() for task in rows]
)
def test_recipes_of_the_paper_can_learn(size, task):
    """RoBERTa's query and value matrices have a standard deviation between 0.04 and 0.12."""
    epochs, rate, alpha, rows = PAPER[size][task]
    width = 768 if size == "base" else 1024
    for std in (0.04, 0.12):
        net = adapted((width, width), n=1000, alpha=alpha, std=std)
        given = recipe(epochs=epochs, learning_rate=rate, warmup_ratio=0.06)
        assert check_setting(net, given, rows)["warnings"] == []


def test_drowning_start():
    found = check_setting(adapted((64, 64), n=400, alpha=100.0), recipe(epochs=50), rows=320)
    (warning,) = found["warnings"]
    assert found["start"] > 1 and "drowns" in warning
    assert f"{found['start']:.1f} times |W|" in warning and "method.init=zeros" in warning
    zero = check_setting(
        adapted((64, 64), n=400, alpha=100.0, zeros=True), recipe(epochs=50), rows=320
    )
    assert zero["warnings"] == []


def test_start_that_is_never_left():
    """A large alpha moves DeltaW far, but each coefficient stays close to where chance put it."""
    given = recipe(learning_rate=1e-4, max_steps=5000)
    found = check_setting(adapted((768, 768), n=1000, alpha=2000.0), given, rows=10_000)
    assert found["travel"] == pytest.approx(0.25)
    assert any("random start" in warning for warning in found["warnings"])
    zero = check_setting(adapted((768, 768), n=1000, alpha=2000.0, zeros=True), given, rows=10_000)
    assert zero["warnings"] == []


def test_the_start_is_the_adapters_own():
    """Its size is measured, as is the way that training can go from there."""
    net = adapted((768, 768), n=1000, alpha=2000.0)
    layer(net).fourierft_spectrum["default"].data.fill_(3)
    given = recipe(learning_rate=4e-4, max_steps=10_000)  # 2 at most: more than 1, less than 3
    before = check_setting(adapted((768, 768), n=1000, alpha=2000.0), given, rows=10_000)
    found = check_setting(net, given, rows=10_000)
    assert found["start"] == pytest.approx(3 * before["start"], rel=0.1)
    assert not [line for line in before["warnings"] if "hardly" in line]
    (line,) = [line for line in found["warnings"] if "hardly" in line]
    assert "by at most 2, it starts at 3" in line


def test_every_layer_is_measured():
    net = adapted((64, 64), (128, 128), n=50)
    found = check_setting(net, recipe(), rows=320)
    sizes = [part.weight.norm() for part in net.get_base_model().layers]
    for one, size, side in zip(found["by_layer"].values(), sizes, (64, 128), strict=True):
        atom = atom_norm((side, side), 100.0) / float(size)
        assert one["step"] == pytest.approx(0.05 * atom * math.sqrt(50), rel=1e-4)
    assert found["coefficient_step"] == pytest.approx(found["step"] / math.sqrt(50), rel=1e-4)
    assert "2 layers" in describe_setting(found)
    assert describe_setting(check_setting(Net((8, 8)), recipe(), rows=320)) is None


def test_large_steps_are_told_where_the_values_are_not_the_papers():
    """The advice makes the steps that it says."""
    given = recipe(learning_rate=1.0, max_steps=200)
    net = adapted((96, 96), zeros=True)
    assert check_setting(net, given, rows=320)["warnings"] == []
    (warning,) = check_setting(net, given, rows=320, own=True)["warnings"]
    assert warning.startswith("large steps: ") and f"Try {ADVICE} (1 %)" in warning
    advised = re.findall(r"train\.(\w+)=(\S+)", ADVICE)
    fields = {key: True if value == "true" else float(value) for key, value in advised}
    after = check_setting(net, recipe(max_steps=200, **fields), rows=320, own=True)
    assert after["step"] == pytest.approx(0.01) and after["warnings"] == []


@pytest.mark.parametrize("net", [Net((8, 8)), adapted((96, 96), alpha=10.0, zeros=True)])
def test_few_steps_of_few_rows_are_told(net):
    (warning,) = check_setting(net, recipe(), rows=300, own=True)["warnings"]
    assert warning.startswith("few steps: 30, 10 an epoch; ") and "train.epochs=10" in warning
    for enough in (recipe(epochs=10), recipe(max_steps=2)):
        assert check_setting(net, enough, rows=300, own=True)["warnings"] == []
    assert check_setting(net, recipe(), rows=300)["warnings"] == []


def test_other_methods_are_not_judged():
    found = check_setting(Net((8, 8)), recipe(), rows=320)
    assert found == {"steps": 30, "layers": 0, "warnings": []}


def test_formula_of_the_header():
    net = adapted((96, 96))
    size = float(layer(net).get_base_layer().weight.norm())
    step = 0.05 * atom_norm((96, 96), 100.0) * math.sqrt(200) / size
    assert check_setting(net, recipe(), rows=320)["step"] == pytest.approx(step, rel=1e-4)


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantised_weights_are_measured_as_what_they_stand_for(bits, data_folder):
    """Their bytes say nothing of |W|."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    found = []
    for quantised in (None, BitsAndBytesConfig(**{bits: True})):
        torch.manual_seed(0)
        net = AutoModelForCausalLM.from_pretrained(
            data_folder / "models/stories260K", quantization_config=quantised
        )
        config = FourierFTConfig(n_frequency=100, scaling=8.0, target_modules=["q_proj", "v_proj"])
        found.append(check_setting(get_peft_model(net, config), recipe(), rows=320))
    plain, rounded = found
    assert plain["layers"] == rounded["layers"] == 10
    for key in ("step", "start", "reach"):
        assert rounded[key] == pytest.approx(plain[key], rel=0.02)


def test_shares_of_a_zero_weight_are_refused():
    net = adapted((96, 96), (96, 96), zeros=True)
    nn.init.zeros_(layer(net).get_base_layer().weight)
    check_setting(net, recipe(), rows=320)
    with pytest.raises(ConfigError, match=r"relative_rate=true.* zero .*\n.*layers\.0$"):
        check_setting(net, recipe(relative_rate=True), rows=320)
