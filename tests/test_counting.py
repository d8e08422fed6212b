"""How many numbers a method trains and stores."""

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig
from transformers import RobertaForSequenceClassification as Roberta

from fourierft import (
    Counts,
    FourierFTConfig,
    count,
    fourierft_parameters,
    lora_parameters,
    stored_bytes,
)

TINY = RobertaConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=20,
    num_labels=2,
)
HEAD = 32 * 32 + 32 + 32 * 2 + 2


def numbers(model):
    return sum(p.numel() for p in model.parameters())


def test_closed_forms_give_table_1():
    assert fourierft_parameters(1000, 24) == 24_000
    assert lora_parameters([(768, 768)] * 24, r=8) == 294_912
    assert lora_parameters([(10, 4)], r=2) == 28
    assert stored_bytes(24_000) == 96_000
    assert stored_bytes(24_000, bytes_per_number=2) == 48_000


@pytest.mark.parametrize("modules_to_save", [["classifier"], None])
def test_fourierft_on_a_classifier(modules_to_save):
    model = Roberta(TINY)
    base = numbers(model)
    settings = FourierFTConfig(
        n_frequency=50, target_modules=["query", "value"], modules_to_save=modules_to_save
    )
    wrapped = get_peft_model(model, settings)
    expected = Counts(300, HEAD if modules_to_save else 0, base, 1200)
    assert count(wrapped, ["classifier"]) == expected
    # Without the head's name, PEFT's own mark on it is enough.
    assert count(wrapped, []) == expected
    assert count(wrapped.base_model.model, []) == expected
    frozen, total = wrapped.get_nb_trainable_parameters()
    assert frozen == expected.adapter + expected.head


def test_roberta_base_without_memory():
    with torch.device("meta"):
        model = Roberta(RobertaConfig(vocab_size=50265, max_position_embeddings=514))
    base = numbers(model)
    settings = FourierFTConfig(
        n_frequency=1000, target_modules=["query", "value"], modules_to_save=["classifier"]
    )
    counts = count(get_peft_model(model, settings), ["classifier"])
    assert counts == Counts(24_000, 592_130, base, 96_000)
    assert 124e6 < base < 126e6


def test_lora_counts_agree_with_the_closed_form():
    model = Roberta(TINY)
    base = numbers(model)
    settings = LoraConfig(r=4, target_modules=["query", "dense"], modules_to_save=["classifier"])
    wrapped = get_peft_model(model, settings)
    shapes = [(32, 32)] * 6 + [(48, 32), (32, 48)] * 3
    adapter = lora_parameters(shapes, 4)
    assert count(wrapped, []) == Counts(adapter, HEAD, base, 4 * adapter)


@pytest.mark.parametrize(
    "settings",
    [
        peft.VeraConfig(r=4, target_modules=["query"]),
        peft.IA3Config(target_modules=["query"], feedforward_modules=[]),
        peft.AdaLoraConfig(total_step=10, target_modules=["query"]),
        peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
        peft.TrainableTokensConfig(target_modules=["word_embeddings"], token_indices=[1, 2]),
    ],
    ids=lambda settings: settings.peft_type.value,
)
def test_base_numbers_do_not_depend_on_the_method(settings):
    model = Roberta(TINY)
    base = numbers(model)
    counts = count(get_peft_model(model, settings), ["classifier"])
    assert counts.base == base and counts.adapter > 0


def test_several_adapters_leave_base_and_trainable_alone():
    model = Roberta(TINY)
    settings = {"n_frequency": 50, "target_modules": ["query"], "modules_to_save": ["classifier"]}
    wrapped = get_peft_model(model, FourierFTConfig(**settings))
    expected = count(wrapped, [])
    wrapped.add_adapter("other", FourierFTConfig(**{**settings, "n_frequency": 9}))
    assert count(wrapped, []) == expected


def test_plain_models():
    model = Roberta(TINY)
    base = numbers(model)
    assert count(model, ["classifier"]) == Counts(base - HEAD, HEAD, base, 4 * (base - HEAD))
    model.requires_grad_(False)
    assert count(model, ["classifier"]) == Counts(0, 0, base, 0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    biases = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count(model, ["classifier"]).adapter == biases - 32 - 2


def test_head_is_a_whole_component_of_the_path():
    model = nn.ModuleDict({"head": nn.Linear(2, 3), "headless": nn.Linear(2, 5)})
    assert count(model, ["head"]) == Counts(15, 9, 24, 60)


def test_tied_parameters_count_once():
    settings = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(settings)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert count(model, []).base == numbers(model)
    # Tied to the head by one of its names.
    assert count(model, ["lm_head"]).head == 50 * 16


def test_stored_bytes_follow_the_dtype():
    model = nn.Sequential(nn.Linear(4, 4, bias=False).to(torch.bfloat16), nn.Linear(4, 1))
    assert count(model, []) == Counts(21, 0, 21, 16 * 2 + 5 * 4)
