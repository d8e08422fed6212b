"""One adapter a row: equal to every row alone with its adapter, in outputs and gradients."""

import pytest
import torch
import transformers
from peft import get_peft_model

from fourierft import FourierFTConfig, delta_weight
from fourierft.bases.transform import make_transform
from fourierft.engine.mixed_batch import mixed_update, prefers_groups
from fourierft.engine.spectral import spectral_product
from fourierft.engine.weight_cache import AdapterTerm
from fourierft.spectrum import sample_entries

SHAPES = [(64, 96), (96, 64), (33, 20), (21, 35), (7, 7), (1, 7), (8, 1)]
SIZES = dict(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-7), (torch.float64, 1e-14)])
def test_spectral_product(shape, dtype, bound):
    n = min(50, shape[0] * shape[1])
    entries = sample_entries(shape, n, 3)
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(4, n, generator=generator, dtype=dtype)
    updates = torch.stack([delta_weight(one.double(), entries, shape, 1.0) for one in c])
    product = spectral_product(make_transform(shape, entries))
    for rows, tokens in ((150, 1), (30, 5)):  # more than one chunk, whose end may part a row
        which = torch.randint(4, (rows,), generator=generator)
        of_token = updates[which.repeat_interleave(tokens)]
        x = torch.randn(150, shape[1], generator=generator, dtype=dtype)
        expected = torch.einsum("toi,ti->to", of_token, x.double())
        assert relative(product(x, c[which].t()), expected) < bound
        back = torch.randn(150, shape[0], generator=generator, dtype=dtype)
        expected = torch.einsum("toi,to->ti", of_token, back.double())
        assert relative(product.transposed(back, c[which].t()), expected) < bound


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("basis", ["fourier", "orthogonal"])
def test_gradients(tokens, basis):
    """Of tokens and of all coefficients, rows without an adapter among them."""
    shape, n = (24, 20), 30
    transform = make_transform(shape, sample_entries(shape, n, 1), basis)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, tokens, 20, generator=generator, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, n, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = [0, -1, 2, 1, 0, 2]

    def mixed(x, c):
        terms = [
            AdapterTerm(transform, alpha, one)
            for alpha, one in zip((2.0, 3.0, 0.5), c, strict=True)
        ]
        return mixed_update(x, terms, rows)

    assert mixed(x, c)[1].abs().max() == 0
    assert torch.autograd.gradcheck(mixed, (x, c), fast_mode=True)


def adapters():
    """Adapters that share entries, and others; `head` trains one of its own."""
    common = dict(target_modules=["query", "value"], modules_to_save=["classifier"])
    return {
        "a": FourierFTConfig(n_frequency=40, scaling=60.0, **common),
        "b": FourierFTConfig(n_frequency=40, scaling=90.0, **common),
        "other_n": FourierFTConfig(n_frequency=7, scaling=60.0, **common),
        "other_seed": FourierFTConfig(n_frequency=40, scaling=60.0, random_loc_seed=5, **common),
        "biased": FourierFTConfig(
            n_frequency=40, scaling=60.0, frequency_bias_center=4.0, **common
        ),
        "random": FourierFTConfig(n_frequency=40, scaling=60.0, basis="random", **common),
        "query_only": FourierFTConfig(
            n_frequency=40, scaling=60.0, target_modules=["query"], modules_to_save=["classifier"]
        ),
    }


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    base = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    (first, config), *others = adapters().items()
    net = get_peft_model(base, config, adapter_name=first)
    for name, config in others:
        net.add_adapter(name, config)
    for parameter in net.parameters():
        if parameter.ndim == 2 and parameter.shape[0] == 2:
            parameter.data.normal_()  # heads that differ
    return net.eval()


def one_by_one(net, names, **inputs):
    outputs = []
    for row, name in enumerate(names):
        inputs_of_row = {key: value[row : row + 1] for key, value in inputs.items()}
        if name == "__base__":
            with net.disable_adapter():
                outputs.append(net(**inputs_of_row).logits)
        else:
            net.set_adapter(name)
            outputs.append(net(**inputs_of_row).logits)
    return torch.cat(outputs)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "a", "b", "b", "a", "a", "b"],
        ["a", "__base__", "b", "other_n", "other_seed", "biased", "random", "query_only"],
        ["a"] * 8,
        ["__base__"] * 8,
        ["query_only"] * 4 + ["__base__"] * 4,
    ],
    ids=["same entries", "all kinds", "one", "none", "some layers"],
)
def test_every_row_gets_its_adapter(encoder, names):
    ids = torch.randint(3, 99, (8, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    expected = one_by_one(encoder, names, input_ids=ids, attention_mask=mask)
    found = encoder(input_ids=ids, attention_mask=mask, adapter_names=names).logits
    assert relative(found, expected) < 2e-6
    if len(set(names)) > 1:
        assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("grouped", [True, False])
def test_both_forms(encoder, grouped, monkeypatch):
    """The product per adapter and the spectral one, whichever the rule would choose."""
    monkeypatch.setattr("fourierft.module.prefers_groups", lambda *args: grouped)
    monkeypatch.setattr("fourierft.engine.mixed_batch.prefers_groups", lambda *args: False)
    names = ["b", "a", "__base__", "b", "other_n"]
    ids = torch.randint(3, 99, (5, 6), generator=torch.Generator().manual_seed(1))
    expected = one_by_one(encoder, names, input_ids=ids)
    assert relative(encoder(input_ids=ids, adapter_names=names).logits, expected) < 2e-6


def test_rule():
    """Decoding takes the spectral layout, long prompts of few adapters the other."""
    assert not prefers_groups(128, 128, 1000, (768, 768), True)
    assert not prefers_groups(8, 2, 1000, (768, 768), True)
    assert prefers_groups(4096, 2, 1000, (768, 768), True)
    assert not prefers_groups(4096, 128, 1000, (2048, 2048), False)


def test_half_precision(encoder):
    names = ["a", "b", "__base__", "random"]
    ids = torch.randint(3, 99, (4, 6), generator=torch.Generator().manual_seed(1))
    expected = one_by_one(encoder, names, input_ids=ids)
    found = encoder.to(torch.bfloat16)(input_ids=ids, adapter_names=names).logits
    assert found.dtype == torch.bfloat16
    assert relative(found.float(), expected) < 0.03


def test_training_of_several_adapters(encoder):
    """Gradients in one batch are those of the rows alone."""
    encoder.double().train()  # they are small sums of large terms
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    names = ["a", "b", "a", "random"]
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("fourierft_spectrum" in name)
    trained = dict(encoder.named_parameters())
    trained = {name: p for name, p in trained.items() if p.requires_grad}
    ids = torch.randint(3, 99, (4, 6), generator=torch.Generator().manual_seed(1))
    encoder(input_ids=ids, adapter_names=names).logits.pow(2).sum().backward()
    mixed = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
    assert any(".a" in name for name in mixed) and any(".random" in name for name in mixed)
    for parameter in trained.values():
        parameter.grad = None
    for row, name in enumerate(names):
        encoder(input_ids=ids[row : row + 1], adapter_names=[name]).logits.pow(2).sum().backward()
    for name, gradient in mixed.items():
        assert relative(gradient, trained[name].grad) < 1e-10, name


def test_backward_under_autocast():
    """Spectra are never in half precision, whichever context the backward pass runs in."""
    net = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(256, 256)),
        FourierFTConfig(n_frequency=50, scaling=300.0, target_modules=["0"]),
        "a",
    )
    net.add_adapter("b", FourierFTConfig(n_frequency=50, scaling=300.0, target_modules=["0"]))
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0), requires_grad=True)
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = net(x, adapter_names=["a", "b", "a", "__base__"]).float()
            gradients.append(torch.autograd.grad(out.pow(2).sum(), x)[0])
    assert relative(*gradients) < 0.02


def test_rows_without_tokens():
    net = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(8, 6)),
        FourierFTConfig(n_frequency=5, target_modules=["0"]),
        "a",
    )
    net.add_adapter("b", FourierFTConfig(n_frequency=5, target_modules=["0"]))
    assert net(torch.randn(2, 0, 8), adapter_names=["a", "b"]).shape == (2, 0, 6)


def generator_of(kind, config, targets):
    torch.manual_seed(0)
    net = get_peft_model(
        kind(config), FourierFTConfig(n_frequency=60, scaling=100.0, target_modules=targets), "a"
    )
    net.add_adapter("b", FourierFTConfig(n_frequency=60, scaling=100.0, target_modules=targets))
    return net.eval()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_generation(kind, beams):
    """Beams repeat the rows of a decoder (GPT-2's weights are (in, out)), not those of an
    encoder."""
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4)
        net = generator_of(transformers.GPT2LMHeadModel, config, ["c_attn", "c_proj"])
    else:
        config = transformers.T5Config(
            **{"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2},
            **{"num_heads": 4, "decoder_start_token_id": 0},
        )
        net = generator_of(transformers.T5ForConditionalGeneration, config, ["q", "v"])
    ids = torch.randint(3, 99, (3, 5), generator=torch.Generator().manual_seed(1))
    options = dict(
        attention_mask=torch.ones_like(ids), num_beams=beams, do_sample=False, pad_token_id=0
    )
    options |= dict(min_new_tokens=6, max_new_tokens=6)
    names = ["a", "b", "__base__"]
    found = net.generate(input_ids=ids, adapter_names=names, **options)
    for row, name in enumerate(names):
        alone = {**options, "attention_mask": options["attention_mask"][:1]}
        expected = net.generate(input_ids=ids[row : row + 1], adapter_names=[name], **alone)
        assert found[row].tolist() == expected[0].tolist()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["a", "bb"], ValueError, "got bb, allowed a, b, "),
        ("ab", TypeError, "allowed a list of names"),
        (["a"], ValueError, "got 1 names for 2 rows"),
    ],
)
def test_refused_names(encoder, names, error, message):
    ids = torch.ones(2, 4, dtype=torch.int64)
    with pytest.raises(error, match=message):
        encoder(input_ids=ids, adapter_names=names)
    encoder(input_ids=torch.ones(3, 4, dtype=torch.int64))  # no name is left behind


def test_refused_states(encoder):
    ids = torch.ones(2, 4, dtype=torch.int64)
    encoder.merge_adapter(["a"])
    with pytest.raises(ValueError, match="unmerge_adapter"):
        encoder(input_ids=ids, adapter_names=["a", "b"])
    encoder.unmerge_adapter()
    encoder.train()
    encoder.base_model.model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient_checkpointing_disable"):
        encoder(input_ids=ids, adapter_names=["a", "b"])


def test_refused_where_a_weight_is_read():
    """`nn.MultiheadAttention` computes with the weight of `out_proj`, which is one for all rows."""
    base = torch.nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    net = get_peft_model(base, FourierFTConfig(n_frequency=9, target_modules=["out_proj"]), "a")
    net.add_adapter("b", FourierFTConfig(n_frequency=9, target_modules=["out_proj"]))
    with pytest.raises(ValueError, match="out_proj read a weight"):
        net(torch.randn(2, 3, 16), adapter_names=["a", "b"])


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_names_reach_the_layers(task_type):
    """Through the classes of PEFT for every task."""
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    config = FourierFTConfig(
        n_frequency=40, scaling=900.0, target_modules=["q_proj"], task_type=task_type
    )
    net = get_peft_model(transformers.LlamaForCausalLM(settings), config, "a").eval()
    net.add_adapter("b", config)
    ids = torch.arange(6).view(2, 3)
    found = net(input_ids=ids, adapter_names=["a", "b"]).logits
    assert relative(found, one_by_one(net, ["a", "b"], input_ids=ids)) < 2e-6
    net.set_adapter("a")
    assert relative(found, net(input_ids=ids).logits) > 1e-4
