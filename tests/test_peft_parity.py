"""The same numbers as PEFT's own tuner, and files that either can read.

This file is also the program of a second process that never imports `fourierft`, where PEFT's own
tuner is in place: it reads what this package saved, and saves for this package to read.
"""

import json
import os
import subprocess
import sys
import warnings

import peft
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.fourierft import FourierFTModel as StockModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

KINDS = ("square", "wide", "tall", "conv")
STOCK_VALUES = {
    "plain": {},
    "seed": {"random_loc_seed": 2024, "scaling": 33.0},
    "pattern": {"n_frequency_pattern": {"wide": 17, "conv": 44}},
    "zeros": {"init_weights": True},
    "saved_head": {"modules_to_save": ["head"], "bias": "fourier_only"},
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.square = nn.Linear(24, 24)
        self.wide = nn.Linear(24, 36)
        self.tall = nn.Linear(36, 20, bias=False)
        self.conv = Conv1D(28, 20)
        self.head = nn.Linear(28, 3)

    def forward(self, x):
        for layer in (self.square, self.wide, self.tall, self.conv):
            x = torch.tanh(layer(x))
        return self.head(x)


def build():
    torch.manual_seed(0)
    return nn.ModuleDict({"net": Net()})


def values(**more):
    return {"n_frequency": 60, "target_modules": list(KINDS), **more}


def batch():
    return torch.randn(7, 24, generator=torch.Generator().manual_seed(1))


def outputs(model):
    """Output, coefficients and gradients of a model, by layer."""
    inner = model.get_base_model()["net"]
    x = batch().requires_grad_()
    result = inner(x)
    found = {"output": result.detach()}
    if result.requires_grad:
        model.zero_grad()
        result.pow(2).sum().backward()
        found["input"] = x.grad
    for kind in KINDS:
        if not hasattr(getattr(inner, kind), "fourierft_spectrum"):
            continue
        coefficients = getattr(inner, kind).fourierft_spectrum["default"]
        found[f"coefficients.{kind}"] = coefficients.detach()
        if coefficients.grad is not None:
            found[f"gradient.{kind}"] = coefficients.grad
    return {key: tensor.contiguous() for key, tensor in found.items()}


def stock_side(folder):
    """Runs without this package: read ours, write PEFT's."""
    assert "fourierft" not in sys.modules
    report = {"read": {}}
    for name in sorted(os.listdir(os.path.join(folder, "ours"))):
        path = os.path.join(folder, "ours", name)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = PeftModel.from_pretrained(build(), path, is_trainable=True)
            save_file(outputs(model), os.path.join(folder, f"read_{name}.safetensors"))
            messages = [str(w.message) for w in caught if w.category is UserWarning]
            report["read"][name] = {"warnings": messages}
        except Exception as error:
            report["read"][name] = {"error": f"{type(error).__name__}: {error}"}
    for name, more in STOCK_VALUES.items():
        model = get_peft_model(build(), peft.FourierFTConfig(**values(**more)))
        assert type(model.base_model) is StockModel
        save_file(outputs(model), os.path.join(folder, f"stock_{name}.safetensors"))
        model.save_pretrained(os.path.join(folder, "stock", name))
    with open(os.path.join(folder, "report.json"), "w") as file:
        json.dump(report, file)


if __name__ == "__main__":
    stock_side(sys.argv[1])
    sys.exit()

import pytest  # noqa: E402

from fourierft import FourierFTConfig, FourierFTModel, configure, delta_weight  # noqa: E402

OUR_VALUES = {
    "plain": {},
    "seed": {"random_loc_seed": 2024, "scaling": 33.0},
    "pattern": {"n_frequency_pattern": {"wide": 17, "conv": 44}},
    "bandwidth_only": {"frequency_bias_bandwidth": 5.0},
    "saved_head": {"modules_to_save": ["head"]},
    "linear_only": {"target_modules": ["square", "wide", "tall"]},
    "conv_only": {"target_modules": ["conv"]},
    "bias": {"frequency_bias_center": 5.0, "frequency_bias_bandwidth": 3.0},
    "norm": {"scaling": 0.5, "scaling_mode": "norm"},
    "algorithm1": {"orientation": "algorithm1"},
    "rows": {"entry_rows": 4},
}
EXTENDED = {
    "bias": ("frequency_bias_center", 5.0),
    "norm": ("scaling_mode", "norm"),
    "algorithm1": ("orientation", "algorithm1"),
    "rows": ("entry_rows", 4),
}


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """Folder with what both processes wrote, and what each of our models gave."""
    folder = tmp_path_factory.mktemp("exchange")
    ours = {}
    for name, more in OUR_VALUES.items():
        model = get_peft_model(build(), FourierFTConfig(**values(**more)))
        ours[name] = outputs(model)
        model.save_pretrained(folder / "ours" / name)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", os.path.abspath(__file__), str(folder)],
        capture_output=True,
        text=True,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder, ours, json.loads((folder / "report.json").read_text())["read"]


def assert_close(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        error = (found[key] - tensor).norm() / tensor.norm().clamp(min=1e-30)
        assert error <= tolerance, f"{key}: {error:.2e}"


def stock_and_ours(**more):
    """Both tuners in this process, each from the same random state."""
    pair = []
    for tuner in (StockModel, FourierFTModel):
        torch.manual_seed(0)
        net = Net()
        torch.manual_seed(5)
        pair.append(tuner(net, peft.FourierFTConfig(**values(**more)), "default"))
    return pair


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"random_loc_seed": 2024}, {"n_frequency": 400}])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_layer_is_the_same(kind, more):
    stock, ours = (getattr(tuner.model, kind) for tuner in stock_and_ours(**more))
    assert torch.equal(stock.indices["default"], ours.entries("default"))
    c_stock, c_ours = (layer.fourierft_spectrum["default"] for layer in (stock, ours))
    assert torch.equal(c_stock, c_ours)  # drawn alike from the global random state
    found = []
    for layer, c in ((stock, c_stock), (ours, c_ours)):
        x = torch.randn(2, 5, ours.in_features, generator=torch.Generator().manual_seed(3))
        x.requires_grad_()
        y = layer(x)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(4)))
        update = layer.get_delta_weight("default").detach()
        found.append({"y": y.detach(), "dx": x.grad, "dc": c.grad, "update": update})
    assert_close(*found[::-1])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_error_against_float64_is_no_larger_than_pefts():
    for kind in KINDS:
        stock, ours = (getattr(tuner.model, kind) for tuner in stock_and_ours())
        shape = (ours.out_features, ours.in_features)
        c = ours.fourierft_spectrum["default"].detach()
        exact = delta_weight(c.double(), ours.entries("default"), shape, 150.0)
        errors = [
            ((layer.get_delta_weight("default") - exact).norm() / exact.norm()).item()
            for layer in (stock, ours)
        ]
        assert errors[1] < 5e-7 and errors[1] < 2 * errors[0]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_merging_is_the_same():
    stock, ours = stock_and_ours()
    merged = [tuner.merge_and_unload().state_dict() for tuner in (stock, ours)]
    assert_close(merged[1], merged[0])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", ["rounded", "exact"])
@pytest.mark.parametrize("alpha", [5.0, 20.0])
def test_half_precision_is_as_close_to_float64_as_pefts(dtype, precision, alpha):
    def result(tuner, working):
        torch.manual_seed(0)
        net = Net().to(dtype).to(working)
        torch.manual_seed(5)
        model = tuner(net, peft.FourierFTConfig(**values(scaling=alpha)), "default")
        if tuner is FourierFTModel:
            configure(model, precision=precision)
        if working == torch.float64:
            net.double()
        else:
            model._cast_adapter_dtype("default")  # as PeftModel does
        y = model(batch().to(dtype).to(working))
        y.double().pow(2).sum().backward()
        gradient = net.wide.fourierft_spectrum.default.grad
        return {"y": y.detach().double(), "dc": gradient.double()}

    exact, stock, ours = (
        result(*side)
        for side in ((FourierFTModel, torch.float64), (StockModel, dtype), (FourierFTModel, dtype))
    )
    for key, expected in exact.items():
        errors = [
            ((side[key] - expected).norm() / expected.norm()).item() for side in (stock, ours)
        ]
        assert errors[1] < 1.5 * errors[0] + 1e-4, (key, errors)


def test_import_puts_our_tuner_in_place_and_takes_pefts_config():
    model = get_peft_model(build(), peft.FourierFTConfig(**values()))
    assert type(model.base_model) is FourierFTModel
    assert peft.get_peft_config({"peft_type": "FOURIERFT"}).basis == "fourier"


@pytest.mark.parametrize("name", [name for name in OUR_VALUES if name not in EXTENDED])
@pytest.mark.slow
def test_peft_reads_ours(exchange, name):
    folder, ours, read = exchange
    messages = read[name]["warnings"]
    if "conv_only" != name != "linear_only":
        # One flag for the whole file: PEFT always warns when both layouts are adapted.
        messages = [m for m in messages if not m.startswith("fan_in_fan_out")]
    assert messages == []
    found = load_file(folder / f"read_{name}.safetensors")
    assert_close(found, ours[name], tolerance=2e-5)  # rounding, through four layers and tanh


@pytest.mark.parametrize("name", EXTENDED)
@pytest.mark.slow
def test_peft_refuses_what_it_cannot_compute(exchange, name):
    folder, _, read = exchange
    assert "FOURIERFT_EXTENDED" in read[name]["error"]
    saved = json.loads((folder / "ours" / name / "adapter_config.json").read_text())
    key, value = EXTENDED[name]
    assert saved["peft_type"] == "FOURIERFT_EXTENDED" and saved[key] == value


@pytest.mark.parametrize("name", OUR_VALUES)
@pytest.mark.slow
def test_we_read_ours(exchange, name):
    folder, ours, _ = exchange
    model = PeftModel.from_pretrained(build(), folder / "ours" / name, is_trainable=True)
    assert_close(outputs(model), ours[name], tolerance=0)


@pytest.mark.parametrize("name", STOCK_VALUES)
@pytest.mark.slow
def test_we_read_pefts(exchange, name):
    folder, _, _ = exchange
    model = PeftModel.from_pretrained(build(), folder / "stock" / name, is_trainable=True)
    assert type(model.base_model) is FourierFTModel
    expected = load_file(folder / f"stock_{name}.safetensors")
    assert_close(outputs(model), expected, tolerance=2e-5)


@pytest.mark.slow
def test_saved_fields_are_exactly_pefts(exchange):
    folder, _, _ = exchange
    for name in ("plain", "seed", "pattern"):
        written = [
            json.loads((folder / side / name / "adapter_config.json").read_text())
            for side in ("ours", "stock")
        ]
        for config in written:
            config["target_modules"].sort()
            config["inference_mode"] = None
        assert written[0] == written[1]
        weights = [
            load_file(folder / side / name / "adapter_model.safetensors")
            for side in ("ours", "stock")
        ]
        assert weights[0].keys() == weights[1].keys()
