"""Adapter files of one tensor."""

import json

import peft
import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import RobertaConfig, RobertaForSequenceClassification
from transformers.pytorch_utils import Conv1D

from fourierft import FourierFTConfig, delta_weight, export_compact, import_compact
from fourierft.compact import FORMAT, read_compact


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 24)
        self.conv = Conv1D(16, 24)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(torch.tanh(self.first(x)))))


def build():
    torch.manual_seed(0)
    return Net()


def adapted(**values):
    values = {"n_frequency": 20, "target_modules": ["first", "conv"], **values}
    model = get_peft_model(build(), FourierFTConfig(**values))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "head" in name:
                parameter.normal_()
    return model.eval()


@pytest.fixture
def x():
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(1))


VALUES = {
    "plain": {},
    "seed": {"random_loc_seed": 3, "scaling": 7.0},
    "pattern": {"n_frequency_pattern": {"conv": 33}},
    "biased": {"frequency_bias_center": 4.0, "frequency_bias_bandwidth": 3.0},
    "basis": {"basis": "dct"},
    "random": {"basis": "random", "random_loc_seed": 11},
    "norm": {"scaling_mode": "norm", "scaling": 0.5},
    "algorithm1": {"orientation": "algorithm1"},
    "rows": {"entry_rows": 4},
    "head": {"modules_to_save": ["head"]},
    "one": {"target_modules": "conv"},
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_round_trip(values, x, tmp_path):
    model = adapted(**values)
    expected = model(x)
    path = export_compact(model, tmp_path / "adapter.safetensors")
    loaded = import_compact(build(), path, is_trainable=True).eval()
    assert torch.equal(loaded(x), expected)
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    loaded.save_pretrained(tmp_path / "peft")  # and from there into PEFT's format
    assert torch.equal(PeftModel.from_pretrained(build(), tmp_path / "peft").eval()(x), expected)
    frozen = import_compact(build(), path)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_half_the_bytes(x, tmp_path):
    model = adapted(n_frequency=200)
    path = export_compact(model, tmp_path / "half", dtype=torch.float16)
    loaded = import_compact(build(), path).eval()
    error = (loaded(x) - model(x)).norm() / model(x).norm()
    assert 0 < error < 5e-3


def test_beside_another_adapter(x, tmp_path):
    model = adapted(random_loc_seed=5)
    path = export_compact(model, tmp_path / "c")
    other = adapted()
    before = other(x)
    assert import_compact(other, path, "second") is other
    assert torch.equal(other(x), before)
    other.set_adapter("second")
    assert torch.equal(other(x), model(x))
    export_compact(other, tmp_path / "again", "second")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_adapters_whose_names_begin_alike(x, tmp_path):
    model = adapted(modules_to_save=["head"])
    values = {"n_frequency": 20, "target_modules": ["first", "conv"], "modules_to_save": ["head"]}
    model.add_adapter("default2", FourierFTConfig(**values))
    path = export_compact(model, tmp_path / "c")
    assert torch.equal(import_compact(build(), path)(x), model(x))


def test_roberta_base_in_96_kilobytes(tmp_path):
    settings = RobertaConfig(hidden_size=48, num_hidden_layers=12, intermediate_size=32)
    config = FourierFTConfig(n_frequency=1000, target_modules=["query", "value"])
    net = RobertaForSequenceClassification(settings)
    net.config._name_or_path = net.name_or_path = "FacebookAI/roberta-base"
    model = get_peft_model(net, config)
    assert export_compact(model, tmp_path / "c").stat().st_size <= 96_500
    assert export_compact(model, tmp_path / "c", dtype=torch.float16).stat().st_size <= 48_500
    task = FourierFTConfig(target_modules=["query", "value"], task_type=TaskType.SEQ_CLS)
    with_head = get_peft_model(RobertaForSequenceClassification(settings), task)
    path = export_compact(with_head, tmp_path / "c")
    loaded = import_compact(RobertaForSequenceClassification(settings), path)
    assert type(loaded) is type(with_head)
    for (name, one), (_, other) in zip(
        with_head.named_parameters(), loaded.named_parameters(), strict=True
    ):
        if "classifier" in name and "modules_to_save" in name:
            assert torch.equal(one, other)


def test_what_pefts_own_tuner_saved(x, tmp_path):
    values = {"n_frequency": 20, "target_modules": ["first", "conv"]}
    model = get_peft_model(build(), peft.FourierFTConfig(**values))
    path = export_compact(model, tmp_path / "c")
    assert torch.equal(import_compact(build(), path)(x), model(x))


def test_the_file_says_what_it_is(tmp_path):
    """Read by hand: the update follows from the file and the shape alone."""
    from safetensors import safe_open

    model = adapted(random_loc_seed=9, scaling=5.0)
    path = export_compact(model, tmp_path / "c")
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()[FORMAT])["config"]
    assert said["random_loc_seed"] == 9
    coefficients = load_file(path)["c"][: said["n_frequency"]]
    shuffled = torch.randperm(24 * 16, generator=torch.Generator().manual_seed(9))[:20]
    entries = torch.stack([shuffled // 16, shuffled % 16])
    update = delta_weight(coefficients, entries, (24, 16), said["scaling"])
    layer = model.get_base_model().first
    torch.testing.assert_close(update, layer.get_delta_weight("default"))


def edited(path, about=None, **tensors):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        entry = json.loads(file.metadata()[FORMAT]) | (about or {})
        entry.pop("checksum", None)  # as written before there was one
        metadata = {FORMAT: json.dumps(entry)}
    kept = {name: t for name, t in (load_file(path) | tensors).items() if t is not None}
    save_file(kept, path, metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: p.write_bytes(p.read_bytes()[:50]), "not a complete safetensors file .50 bytes"),
        (lambda p: p.write_bytes(b""), "not a complete safetensors file"),
        (lambda p: p.write_text("x" * 900), "not a complete safetensors file"),
        (
            lambda p: save_file({"a": torch.ones(2)}, p),
            f"not of the format {FORMAT} .found: no meta",
        ),
        (lambda p: save_file({"c": torch.ones(2)}, p, {"format": "pt"}), "found: format"),
        (lambda p: edited(p, {"config": 3}), "its configuration cannot be read"),
        (lambda p: edited(p, {"config": {"n": 4}}), "its configuration cannot be read"),
        (lambda p: edited(p, {"config": {"n_frequency": 0}}), "n_frequency: got 0"),
        (lambda p: edited(p, c=torch.ones(39)), "39 coefficients found, 40 expected for 2 layers"),
        (lambda p: edited(p, {"layers": "0"}), "other names, sizes or another order"),
        (lambda p: edited(p, c=torch.full((40,), torch.nan)), "coefficients are not finite"),
        (
            lambda p: edited(p, **{"head.head.bias": torch.full((3,), torch.inf)}),
            "bias: not finite",
        ),
        (lambda p: edited(p, {"more": 1}), "damaged, unknown entries .'more'."),
        (lambda p: edited(p, **{"head.head.bias": None}), "head.head.bias: missing"),
        (lambda p: edited(p, **{"head.x": torch.ones(1)}), "head.x: not in the model"),
        (lambda p: edited(p, **{"head.head.bias": torch.ones(4)}), "found shape .4,., expected .3"),
    ],
)
def test_files_that_cannot_be_used(damage, message, x, tmp_path):
    path = export_compact(adapted(modules_to_save=["head"]), tmp_path / "c")
    damage(path)
    net, wrapped = build(), adapted()
    expected = net(x), wrapped(x)
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        import_compact(net, path)
    assert torch.equal(net(x), expected[0]) and all(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        import_compact(wrapped, path, "other")
    assert torch.equal(wrapped(x), expected[1]) and list(wrapped.peft_config) == ["default"]


def test_files_without_a_checksum_are_read(x, tmp_path):
    model = adapted(modules_to_save=["head"])
    path = export_compact(model, tmp_path / "c")
    size = path.stat().st_size
    edited(path)
    assert path.stat().st_size < size
    assert torch.equal(import_compact(build(), path)(x), model(x))


@pytest.mark.slow
def test_every_flipped_bit_is_noticed_or_harmless(x, tmp_path):
    """Of a digit of the seed, say: it would load another adapter."""
    model = adapted(n_frequency=5, modules_to_save=["head"])
    expected = model(x)
    path = export_compact(model, tmp_path / "c")
    content, passed = path.read_bytes(), []
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read_compact(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            passed.append(bytes(damaged))
    assert len(passed) < 0.01 * 8 * len(content)
    for damaged in passed:
        path.write_bytes(damaged)
        try:
            loaded = import_compact(build(), path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert torch.equal(loaded(x), expected)


def test_model_that_does_not_fit(tmp_path):
    path = export_compact(adapted(), tmp_path / "c")
    with pytest.raises(ValueError, match=f"{path}: .*first"):
        import_compact(nn.ModuleDict({"other": nn.Linear(4, 4)}), path)


def test_target_that_is_not_linear(tmp_path):
    path = export_compact(adapted(), tmp_path / "c")
    net = nn.ModuleDict({"first": nn.LayerNorm(4), "conv": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match=f"{path}: .*LayerNorm"):
        import_compact(net, path)


class Wide(Net):
    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Linear(32, 48), Conv1D(16, 48)


def test_same_names_but_other_sizes(tmp_path):
    """Its entries lie elsewhere: the same coefficients would make another update."""
    path = export_compact(adapted(), tmp_path / "c")
    with pytest.raises(ValueError, match=f"{path}: .*sizes"):
        import_compact(Wide(), path)


def test_where_it_cannot_be_put(tmp_path):
    model = adapted()
    path = export_compact(model, tmp_path / "c")
    with pytest.raises(ValueError, match="adapter_name: got 'default', which the model has"):
        import_compact(model, path)
    with pytest.raises(ValueError, match="carries adapters already"):
        import_compact(model.get_base_model(), path, "second")
    with pytest.raises(ValueError, match="a folder: a folder saved by PEFT is read by"):
        import_compact(build(), tmp_path)


def test_models_without_our_layers(tmp_path):
    with pytest.raises(ValueError, match="got a Net, allowed a PeftModel"):
        export_compact(build(), tmp_path / "c")
    lora = get_peft_model(build(), peft.LoraConfig(target_modules=["first"]))
    with pytest.raises(ValueError, match="no FourierFT layers .*; path: got .*nowhere"):
        export_compact(lora, tmp_path / "nowhere" / "c")


def test_what_cannot_be_exported(tmp_path):
    model = adapted(bias="all")
    with pytest.raises(ValueError, match="dtype: got torch.bfloat16, allowed .*; bias: got 'all'"):
        export_compact(model, tmp_path / "c", dtype=torch.bfloat16)
    model = adapted()
    with pytest.raises(ValueError, match="adapter: got 'none', allowed default"):
        export_compact(model, tmp_path / "c", "none")
    with torch.no_grad():
        model.get_base_model().first.fourierft_spectrum["default"][3] = 1e5
    with pytest.raises(ValueError, match="coefficients up to 100000 exceed torch.float16"):
        export_compact(model, tmp_path / "c", dtype=torch.float16)
    with torch.no_grad():
        model.get_base_model().first.fourierft_spectrum["default"][3] = float("nan")
    with pytest.raises(ValueError, match="not written, some coefficients are not finite"):
        export_compact(model, tmp_path / "c")
    with pytest.raises(ValueError, match="path: got .*, allowed a file"):
        export_compact(adapted(), tmp_path)
    model = adapted(modules_to_save=["head"])
    model.get_base_model().head.modules_to_save["default"].bias.data[1] = float("inf")
    with pytest.raises(ValueError, match="not written, head.bias are not finite"):
        export_compact(model, tmp_path / "c")
    assert not (tmp_path / "c").exists()
