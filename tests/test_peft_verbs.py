"""PEFT's verbs beside training and merging, on our tuner."""

import pytest
import torch
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.helpers import rescale_adapter_scale as pefts_rescale
from peft.utils.hotswap import hotswap_adapter as pefts_hotswap
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fourierft import FourierFTConfig, export_compact
from fourierft.layer import adapted_layers

TARGETS = ["first", "second"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def build():
    torch.manual_seed(0)
    return Net().double()


def config(**values):
    return FourierFTConfig(**{"n_frequency": 9, "target_modules": list(TARGETS), **values})


def adapted(*names, **values):
    model = get_peft_model(build(), config(**values), names[0])
    for name in names[1:]:
        model.add_adapter(name, config(random_loc_seed=len(name), **values))
    return model.double().eval()


def by_weights(model, x, *names, net=None):
    """Output from W0 plus the updates of these adapters, in float64."""
    net = model.get_base_model() if net is None else net
    for layer in (net.first, net.second):
        weight = layer.get_base_layer().weight
        for name in names:
            weight = weight + layer.get_delta_weight(name)
        x = torch.tanh(nn.functional.linear(x, weight, layer.get_base_layer().bias))
    return net.head(x)


@pytest.fixture
def x():
    return torch.randn(4, 8, dtype=torch.float64)


# Choosing and deleting


def test_lists_of_active_adapters(x):
    model = adapted("a", "bb", "ccc")
    model.base_model.set_adapter(["a", "ccc"])
    torch.testing.assert_close(model(x), by_weights(model, x, "a", "ccc"))
    trained = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"a", "ccc"}
    model.base_model.set_adapter(["bb"], inference_mode=True)
    torch.testing.assert_close(model(x), by_weights(model, x, "bb"))
    assert not any(p.requires_grad for p in model.parameters())


def test_deleting_the_active_a_merged_and_the_last_adapter(x):
    model = adapted("a", "bb")
    base = build()(x)
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged"):
        model.delete_adapter("a")
    torch.testing.assert_close(model(x), by_weights(adapted("a", "bb"), x, "a"))
    model.unmerge_adapter()
    with pytest.warns(UserWarning, match="active adapter to bb"):
        model.delete_adapter("a")
    assert model.active_adapters == ["bb"]
    torch.testing.assert_close(model(x), by_weights(model, x, "bb"))
    with pytest.raises(ValueError, match="does not exist"):
        model.delete_adapter("a")
    model.delete_adapter("bb")
    assert model.active_adapters == []
    torch.testing.assert_close(model.base_model(x), base)
    model.add_adapter("new", config())
    model.set_adapter("new")
    torch.testing.assert_close(model.double()(x), by_weights(model, x, "new"))


# State


def test_state_dicts_and_meta_devices(x, tmp_path):
    model = adapted("a", "bb", modules_to_save=["head"])
    with torch.no_grad():
        model.get_base_model().head.modules_to_save["bb"].weight.normal_()
    state = get_peft_model_state_dict(model, adapter_name="bb")
    assert state.keys() == {
        *(f"base_model.model.{name}.fourierft_spectrum" for name in TARGETS),
        *("base_model.model.head.weight", "base_model.model.head.bias"),
    }
    model.set_adapter("bb")
    expected = model(x)
    model.save_pretrained(tmp_path)

    for low in (False, True):
        other = get_peft_model(
            build(), config(random_loc_seed=2, modules_to_save=["head"]), low_cpu_mem_usage=low
        )
        result = set_peft_model_state_dict(other, state, low_cpu_mem_usage=low)
        assert not result.unexpected_keys
        torch.testing.assert_close(other.double()(x), expected)
        read = PeftModel.from_pretrained(build(), tmp_path / "bb", "bb", low_cpu_mem_usage=low)
        torch.testing.assert_close(read(x), expected)
        read.load_adapter(tmp_path / "a", "a", low_cpu_mem_usage=low)
        assert not any(parameter.is_meta for parameter in read.parameters())
        read.set_adapter("a")
        model.set_adapter("a")
        torch.testing.assert_close(read(x), model(x))


@pytest.mark.parametrize("low", [False, True])
def test_injection_without_a_peft_model(low, x):
    model = adapted("default")
    state = get_peft_model_state_dict(model)
    state = {name.removeprefix("base_model.model."): value for name, value in state.items()}
    for extra in ({}, {"state_dict": state}):
        net = inject_adapter_in_model(config(), build(), low_cpu_mem_usage=low, **extra)
        assert {
            layer.coefficients("default").is_meta for layer in adapted_layers(net).values()
        } == {low}
        set_peft_model_state_dict(net, state, low_cpu_mem_usage=low)
        torch.testing.assert_close(net(x), model(x))


def test_functions_of_peft_for_lora_alone_refuse(tmp_path):
    model = adapted("default")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="only supports LORA"):
        pefts_hotswap(model, tmp_path, "default")
    with pytest.raises(ValueError, match="only supported for models with `LoraLayer`s"):
        pefts_rescale(model, 0.5).__enter__()


# Tokens and tied weights


def language_model(tie=False):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 24}
    return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tie)).double().eval()


def test_trained_tokens_are_pefts(tmp_path):
    values = {"target_modules": ["q_proj"], "n_frequency": 9, "trainable_token_indices": [3, 5]}
    tokens = torch.arange(24)[None]
    for tie in (False, True):
        model = get_peft_model(language_model(tie), FourierFTConfig(**values)).double().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "trainable_tokens" in name:
                    parameter.normal_()
                    assert parameter.requires_grad
        expected = model(tokens).logits
        assert not torch.allclose(expected, language_model(tie)(tokens).logits, atol=1e-2)
        model.save_pretrained(tmp_path)
        assert model.peft_config["default"].to_dict()["peft_type"] == "FOURIERFT_EXTENDED"
        read = PeftModel.from_pretrained(language_model(tie), tmp_path)
        torch.testing.assert_close(read(tokens).logits, expected)
        with pytest.raises(ValueError, match="trainable_token_indices: tokens are not in this"):
            export_compact(model, tmp_path / "compact.safetensors")
        with pytest.raises(ValueError, match="trainable_token_indices: default trained tokens"):
            model.add_weighted_adapter(["default"], [1.0], "sum")
        torch.testing.assert_close(model.merge_and_unload()(tokens).logits, expected)


def test_tied_embeddings_stay_tied(tmp_path):
    values = {"target_modules": ["q_proj"], "n_frequency": 9, "ensure_weight_tying": True}
    config = FourierFTConfig(**values, modules_to_save=["embed_tokens"])
    model = get_peft_model(language_model(tie=True), config).double().eval()
    net = model.get_base_model()
    embedding, head = (m.modules_to_save["default"] for m in (net.model.embed_tokens, net.lm_head))
    assert embedding.weight is head.weight and embedding.weight.requires_grad
    with pytest.raises(ValueError, match="ensure_weight_tying: got an embedding in target_mod"):
        get_peft_model(
            language_model(tie=True),
            FourierFTConfig(**{**values, "target_modules": ["embed_tokens"]}),
        )


def test_stacked_experts_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="target_parameters: got .'experts.w'.*many matrices"):
        config(target_parameters=["experts.w"])
    assert "target_parameters" not in config(target_parameters=[], basis="dct").to_dict()
