"""Methods on a tiny RoBERTa: what gets a gradient, what is kept, and what is refused."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from experiments.errors import ConfigError, DataError
from experiments.methods import BitFit, FourierFT, Full, LinearProbe, LoRA, Peft
from experiments.methods.fourierft import (
    Basis,
    FrequencyBias,
    Gradient,
    Init,
    MemoryMode,
    Orientation,
    Scaling,
    UpdatePrecision,
)
from experiments.models import Encoder
from experiments.models.head import Head
from fourierft import Engine, FourierFTLinear
from fourierft.bases.fourier import Fourier
from fourierft.bases.matrices import MatrixBasis
from fourierft.bases.transform import BASES
from fourierft.config import SCALING_MODES
from fourierft.counting import count
from fourierft.engine.settings import GRADIENT, MEMORY, PRECISION

HEAD = ["classifier"]
WIDTH, LAYERS = 32, 2
ENCODER = Encoder(
    name="tiny",
    heads=["classification"],
    attention=["query", "value"],
    head=HEAD,
    repo="owner/tiny",
    architecture="roberta",
    pretrained=False,
    sizes={
        "vocab_size": 300,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
)


def fourier(**changes):
    fields = {"n": 50, "alpha": 100.0, "entry_seed": 2024, "targets": ["query", "value"]}
    return FourierFT(name="fourierft", **fields | changes)


def lora(**changes):
    fields = {"r": 4, "alpha": 8.0, "targets": ["query", "value"]}
    return LoRA(name="lora", **fields | changes)


def of_peft(peft_type, **fields):
    return Peft(name="peft", targets=["query", "value"], peft_type=peft_type, fields=fields)


METHODS = {
    "fourierft": (fourier(), ("fourierft_spectrum",)),
    "biased": (fourier(frequency_bias=FrequencyBias(center=4.0)), ("fourierft_spectrum",)),
    "dct": (fourier(basis=Basis.dct), ("fourierft_spectrum",)),
    "algorithm1": (fourier(orientation=Orientation.algorithm1), ("fourierft_spectrum",)),
    "rows": (fourier(entry_rows=2), ("fourierft_spectrum",)),
    "lora": (lora(), ("lora_A", "lora_B")),
    "vera": (of_peft("VERA", r=8), ("vera_lambda",)),
    "dora": (
        of_peft("LORA", r=4, use_dora=True),
        ("lora_A", "lora_B", "lora_magnitude_vector"),
    ),
    "full": (Full(name="full"), None),
    "bitfit": (BitFit(name="bitfit"), None),
    "linear_probe": (LinearProbe(name="linear_probe"), None),
}
ADAPTERS = [name for name, (_, parts) in METHODS.items() if parts]
SELECTIVE = [name for name, (_, parts) in METHODS.items() if not parts]


def base(seed=0):
    torch.manual_seed(seed)
    return ENCODER.build(Head(kind="classification", labels=3), None)


def batch():
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (4, 12), generator=draw)
    labels = torch.tensor([0, 1, 2, 1])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def logits(net):
    with torch.no_grad():
        return net.eval()(**batch()).logits


def train(net, steps=2):
    """A few real steps; returns the parameters that got a gradient."""
    net.train()
    parameters = [value for value in net.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        net(**batch()).loss.backward()
        optimizer.step()
    return {name for name, value in net.named_parameters() if value.grad is not None}


def trainable(net):
    return {name for name, value in net.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_right_parameters_are_trained(name):
    method, parts = METHODS[name]
    original = base()
    net = method.apply(copy.deepcopy(original), HEAD)
    head = {path for path, _ in original.named_parameters() if "classifier" in path}
    if parts:
        expected = {
            path
            for path, _ in net.named_parameters()
            if any(part in path for part in parts) or "modules_to_save" in path
        }
        kept = [path for path in expected if "modules_to_save" in path]
        assert len(kept) == len(head)
        adapted = {path.partition(f".{parts[0]}")[0] for path in expected if parts[0] in path}
        assert len(adapted) == 2 * LAYERS
        assert all(path.endswith(("query", "value")) for path in adapted)
    else:
        expected = {
            path
            for path, _ in original.named_parameters()
            if name == "full"
            or path in head
            or (name == "bitfit" and path.rpartition(".")[2] == "bias")
        }
    assert trainable(net) == expected
    assert train(net) == expected, "what is trained gets no gradient, or the other way round"


@pytest.mark.parametrize("name", METHODS)
def test_training_moves_what_is_trained_and_nothing_else(name):
    net = METHODS[name][0].apply(base(), HEAD)
    before = {path: value.detach().clone() for path, value in net.named_parameters()}
    train(net)
    moved = {path for path, value in net.named_parameters() if not torch.equal(value, before[path])}
    assert moved <= trainable(net)
    assert any("classifier" in path for path in moved), "the head stays as it was"
    rows = {path for path in trainable(net) - moved if "embeddings" not in path}
    # The gradient of a key's bias is zero: softmax does not see it.
    assert all(path.endswith("key.bias") for path in rows)


@pytest.mark.parametrize("name", METHODS)
def test_counts(name):
    found = count(METHODS[name][0].apply(base(), HEAD), HEAD)
    whole = sum(value.numel() for value in base().parameters())
    head = WIDTH * WIDTH + WIDTH + 3 * WIDTH + 3
    per_layer = {
        "fourierft": 2 * 50,
        "biased": 2 * 50,
        "dct": 2 * 50,
        "algorithm1": 2 * 50,
        "rows": 2 * 50,
        "lora": 2 * 4 * 2 * WIDTH,
        "vera": 2 * (8 + WIDTH),
        "dora": 2 * (4 * 2 * WIDTH + WIDTH),
        "bitfit": 4 * WIDTH + WIDTH + 48 + WIDTH + WIDTH,
        "linear_probe": 0,
    }
    adapter = whole - head if name == "full" else per_layer[name] * LAYERS
    if name == "bitfit":
        adapter += WIDTH  # the norm of the embeddings
    assert (found.adapter, found.head, found.base) == (adapter, head, whole)


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_adapter_gives_the_same_logits(name, tmp_path):
    net = METHODS[name][0].apply(base(), HEAD)
    fresh = logits(net)
    train(net)
    METHODS[name][0].save(net, tmp_path)
    expected = logits(net)
    assert not torch.allclose(expected, fresh, atol=1e-3), "nothing was learnt, nothing is shown"
    loaded = PeftModel.from_pretrained(base(), tmp_path)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-6)
    assert not list(tmp_path.glob("*.bin")) and list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("name", SELECTIVE)
def test_saved_selection_gives_the_same_logits(name, tmp_path):
    net = METHODS[name][0].apply(base(), HEAD)
    fresh = logits(net)
    train(net)
    METHODS[name][0].save(net, tmp_path)
    expected = logits(net)
    assert not torch.allclose(expected, fresh, atol=1e-3)
    stored = load_file(tmp_path / "trained.safetensors")
    assert set(stored) == trainable(net)
    loaded = base()
    assert not loaded.load_state_dict(stored, strict=False).unexpected_keys
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-6)


def test_saving_asks_no_hub(tmp_path, monkeypatch):
    """PEFT would look up the base model's vocabulary at every save."""
    from peft.utils import save_and_load

    def ask(*args, **kwargs):
        pytest.fail("asked the hub")

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", ask)
    net = lora().apply(base(), HEAD)
    net.active_peft_config.base_model_name_or_path = "FacebookAI/roberta-base"
    lora().save(net, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("make", [fourier, lora])
def test_saved_files_do_not_depend_on_the_process(make, tmp_path):
    """PEFT keeps the targets as a set, whose order changes with every start of Python."""
    names = ["value", "query", "key", "out_proj", "attention.output.dense", "intermediate.dense"]
    method = make(targets=names)
    method.save(method.apply(base(), HEAD), tmp_path)
    found = json.loads((tmp_path / "adapter_config.json").read_text())
    assert found["target_modules"] == sorted(names)


def test_adapted_embeddings_are_kept(tmp_path):
    method = lora(targets=["word_embeddings", "query"])
    net = method.apply(base(), HEAD)
    train(net)
    method.save(net, tmp_path)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base(), tmp_path)), logits(net))


def test_fourierft_settings_reach_the_layers():
    net = fourier(frequency_bias=FrequencyBias(center=3.0, bandwidth=9.0)).apply(base(), HEAD)
    layers = [module for module in net.modules() if isinstance(module, FourierFTLinear)]
    assert len(layers) == 2 * LAYERS
    for layer in layers:
        assert layer.fourierft_n_frequency["default"] == 50
        assert layer.fourierft_scaling["default"] == 100.0
        assert layer.fourierft_draws["default"] == ((50, 2024, (3.0, 9.0, None)),)


def test_norm_scaling_reaches_the_layers():
    net = fourier(scaling=Scaling.norm, alpha=0.5).apply(base(), HEAD)
    alphas = [
        module.fourierft_scaling["default"]
        for module in net.modules()
        if isinstance(module, FourierFTLinear)
    ]
    assert alphas == pytest.approx([0.5 * 2**0.5 * WIDTH] * 2 * LAYERS)


@pytest.mark.parametrize("basis", Basis)
def test_every_basis_reaches_the_layers(basis):
    net = fourier(basis=basis).apply(base(), HEAD)
    layers = [m for m in net.modules() if isinstance(m, FourierFTLinear)]
    assert {layer.fourierft_basis["default"] for layer in layers} == {basis.value}
    expected = Fourier if basis is Basis.fourier else MatrixBasis
    assert type(layers[0].transform("default")) is expected


@pytest.mark.parametrize(
    ("choices", "allowed"),
    [
        (Basis, BASES),
        (MemoryMode, MEMORY),
        (Gradient, GRADIENT),
        (UpdatePrecision, PRECISION),
        (Scaling, SCALING_MODES),
    ],
)
def test_choices_are_those_of_the_package(choices, allowed):
    """Named twice, because a schema must not import torch."""
    assert [choice.value for choice in choices] == list(allowed)


def test_how_to_compute_reaches_the_layers():
    method = fourier(
        memory=MemoryMode.recompute, gradient=Gradient.dense, precision=UpdatePrecision.exact
    )
    layers = [m for m in method.apply(base(), HEAD).modules() if isinstance(m, FourierFTLinear)]
    assert {layer.engine for layer in layers} == {Engine("recompute", "dense", "exact")}
    layers = [m for m in fourier().apply(base(), HEAD).modules() if isinstance(m, FourierFTLinear)]
    assert {layer.engine for layer in layers} == {Engine()}


@pytest.mark.parametrize("init", Init)
def test_fourierft_starts_as_told(init):
    # The head's copy is the same, so that any difference is the update's.
    net = fourier(init=init).apply(base(), HEAD)
    same = torch.equal(logits(net), logits(base()))
    assert same is (init is Init.zeros)


def test_fourierft_by_name_is_the_tuner_of_this_package():
    net = of_peft("FOURIERFT", n_frequency=50).apply(base(), HEAD)
    assert sum(isinstance(module, FourierFTLinear) for module in net.modules()) == 2 * LAYERS


def refused(method, head=HEAD):
    with pytest.raises(ConfigError) as caught:
        method.apply(base(), head)
    return caught.value


def test_unknown_peft_type():
    said = str(refused(of_peft("LORRA")))
    assert "method.peft_type=LORRA" in said and "LORA" in said and "VERA" in said


def test_unknown_fields_at_once():
    error = refused(of_peft("LORA", r=4, rank=4, alpha=8))
    assert [problem.partition(":")[0] for problem in error.problems] == [
        "method.fields.alpha=8",
        "method.fields.rank=4",
    ]
    assert "lora_alpha" in error.problems[0]


@pytest.mark.parametrize(
    ("peft_type", "fields"), [("LORA", {"r": 0}), ("ADALORA", {}), ("C3A", {"block_size": 7})]
)
def test_what_peft_refuses_is_no_traceback(peft_type, fields):
    assert "method=peft cannot adapt this model" in str(refused(of_peft(peft_type, **fields)))


def test_prompt_methods_need_their_task():
    said = str(refused(of_peft("PROMPT_TUNING", num_virtual_tokens=4)))
    assert "method.fields.task_type" in said and "SEQ_CLS" in said


@pytest.mark.parametrize("peft_type", ["ADAPTION_PROMPT", "TRAINABLE_TOKENS"])
def test_head_that_could_not_be_trained(peft_type):
    said = str(refused(of_peft(peft_type)))
    assert f"method.peft_type={peft_type}" in said and "classifier" in said


@pytest.mark.parametrize("make", [fourier, lora])
def test_every_target_must_match(make):
    """One name of two mistyped would train half of the adapter, and say nothing."""
    error = refused(make(targets=["query", "vlaue", "kye"]))
    assert [problem.partition(":")[0] for problem in error.problems] == [
        "method.targets=kye",
        "method.targets=vlaue",
    ]
    assert "key, out_proj" in error.problems[0]


def test_more_coefficients_than_cells():
    (problem,) = refused(fourier(n=WIDTH * WIDTH + 1)).problems
    assert problem.startswith("method.n=1025:") and "1 to 32 * 32 = 1024" in problem
    fourier(n=WIDTH * WIDTH).apply(base(), HEAD)


def test_smallest_matrix_decides():
    (problem,) = refused(fourier(n=2000, targets=["query", "intermediate.dense"])).problems
    assert "query" in problem and "1024" in problem


def test_several_problems_at_once():
    error = refused(fourier(n=5000, targets=["query", "nowhere"]))
    assert len(error.problems) == 2
    assert "method.targets=nowhere" in error.problems[0] and "method.n=5000" in error.problems[1]


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        (fourier(n=0, alpha=-1.0, targets=[]), ["targets", "n", "alpha"]),
        (
            fourier(frequency_bias=FrequencyBias(center=-1.0, bandwidth=0.0)),
            ["frequency_bias.center", "frequency_bias.bandwidth"],
        ),
        (lora(r=0, alpha=0.0, dropout=1.0), ["r", "alpha", "dropout"]),
    ],
)
def test_settings_are_checked(method, keys):
    assert [problem.partition("=")[0] for problem in method.problems()] == [
        f"method.{key}" for key in keys
    ]


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_fit(name):
    assert list(METHODS[name][0].problems()) == []


def test_only_the_probe_trains_nothing_but_the_head():
    assert [name for name in METHODS if METHODS[name][0].trains_head_only] == ["linear_probe"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("peft_type", "LORA"), ("n_frequency", 5), ("scaling", 1.0), ("target_modules", ["other"])],
)
def test_an_adapter_of_another_method_or_setting_is_refused(compose, tmp_path, field, value):
    """PEFT would load it, find none of its modules, and leave the base model as it was."""
    method = compose([]).method
    path = tmp_path / "adapter_config.json"
    found = method.configuration([]).to_dict()
    found["target_modules"] = sorted(found["target_modules"])
    path.write_text(json.dumps(found, default=str))
    method._check(tmp_path)
    path.write_text(json.dumps(found | {field: value}, default=str))
    with pytest.raises(DataError, match=f"not the configuration of method=.*\n  - {field}: found"):
        method._check(tmp_path)
