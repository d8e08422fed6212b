"""Texts continued by a real small LLaMA: batches change nothing, modes are put back."""

import pytest
import torch
from peft import get_peft_config, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from experiments.models.language import leave_unpacked
from experiments.tasks.generation import generate_continuations
from fourierft import FourierFTConfig
from fourierft.layer import adapted_layers

PROMPTS = ["Once upon a time", "Tom had a", "The little dog was very sad because", "She"]


@pytest.fixture(scope="module")
def folder(data_folder):
    return data_folder / "models/stories260K"


@pytest.fixture(scope="module")
def tokenizer(folder):
    found = AutoTokenizer.from_pretrained(folder)
    found.pad_token = found.eos_token
    return found


@pytest.fixture(params=["plain", "adapted"])
def net(folder, request):
    found = AutoModelForCausalLM.from_pretrained(folder)
    found.config.use_cache = False  # as models are built for training
    if request.param == "adapted":
        torch.manual_seed(0)
        settings = FourierFTConfig(
            n_frequency=50, scaling=5.0, random_loc_seed=2024, target_modules=["q_proj", "v_proj"]
        )
        found = get_peft_model(found, settings)
    return found


def texts(net, tokenizer, batch_size, **options):
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    given = {"max_new_tokens": 20} | options
    batches = list(generate_continuations(net, tokenizer, prompts, batch_size=batch_size, **given))
    assert max(map(len, batches)) <= batch_size
    return {place: text for batch in batches for place, text in batch}


def test_batch_size_does_not_change_the_texts(net, tokenizer):
    alone = texts(net, tokenizer, 1)
    assert set(alone) == set(range(len(PROMPTS))) and all(alone.values())
    assert texts(net, tokenizer, 3) == alone
    assert texts(net, tokenizer, 16) == alone


def test_beams_read_their_prompt_once(net, tokenizer):
    """The texts are those of transformers alone, which reads it once per beam."""
    options = {"num_beams": 4, "length_penalty": 0.9}
    read = []
    embed = net.get_input_embeddings()
    with embed.register_forward_hook(lambda _, args, __: read.append(args[0].shape)):
        found = texts(net, tokenizer, 3, **options)
    assert found == texts(net, tokenizer, 1, **options)
    assert read[0][0] == 3 and read[0][1] > 1, "three prompts"
    assert all(shape[1] == 1 for shape in read[1:20])
    alone = by_transformers(net, tokenizer, **options, early_stopping="never")
    assert found == alone


def test_a_search_ends_with_its_best_text(net, tokenizer):
    """Sooner than in transformers, and with the same text."""
    stop = tokenizer(" went.")["input_ids"][-1]
    options = {"num_beams": 4, "length_penalty": 0.2}
    passes = []
    with net.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1)):
        found = [texts(net, tokenizer, 1, ends=[stop], max_new_tokens=40, **options)]
        ours = len(passes)
        found.append(
            by_transformers(
                net,
                tokenizer,
                **options,
                early_stopping="never",
                eos_token_id=[tokenizer.eos_token_id, stop],
                max_new_tokens=40,
            )
        )
    assert found[0] == found[1]
    assert ours - len(PROMPTS) < 0.8 * (len(passes) - ours), "one pass for each prompt apart"


def by_transformers(net, tokenizer, **options):
    """Texts of prompts one by one."""
    found = {}
    for place, prompt in enumerate(PROMPTS):
        given = tokenizer(prompt, return_tensors="pt")
        given = {key: given[key] for key in ("input_ids", "attention_mask")}
        limits = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        written = net.eval().generate(**given, **limits | options, use_cache=True)
        new = written[0, given["input_ids"].shape[1] :]
        found[place] = tokenizer.decode(new, skip_special_tokens=True)
    return found


@pytest.mark.parametrize("beams", [1, 3])
def test_settings_of_the_model_itself_are_heeded(net, tokenizer, beams):
    """Its penalty of repetition, and a kind of cache that is not ours to make."""
    model = net.get_base_model() if hasattr(net, "get_base_model") else net
    plain = texts(net, tokenizer, 2, num_beams=beams)
    model.generation_config.repetition_penalty = 1.5
    options = {"num_beams": beams, "early_stopping": "never"} if beams > 1 else {}
    expected = by_transformers(net, tokenizer, **options)
    assert texts(net, tokenizer, 2, num_beams=beams) == expected != plain
    model.generation_config.cache_implementation = "dynamic"
    assert texts(net, tokenizer, 2, num_beams=beams) == expected


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_learned_prompts_are_read_by_transformers(folder, tokenizer, kind, beams):
    torch.manual_seed(0)
    config = get_peft_config({"peft_type": kind, "task_type": "CAUSAL_LM", "num_virtual_tokens": 4})
    net = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    options = {"num_beams": beams, "early_stopping": "never"} if beams > 1 else {}
    expected = by_transformers(net, tokenizer, **options)
    assert texts(net, tokenizer, 1, num_beams=beams) == expected


def test_a_wrapper_for_half_precision_is_not_asked(folder, tokenizer):
    """Accelerate leaves one on PEFT's forward in training: a live text is that of later answers."""
    settings = FourierFTConfig(n_frequency=50, scaling=5.0, target_modules=["q_proj", "v_proj"])
    net = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings)
    expected = texts(net, tokenizer, 2)
    net.forward = lambda *_, **__: pytest.fail("the wrapper was called")
    assert texts(net, tokenizer, 2) == expected == texts(net, tokenizer, 1)


def test_a_text_that_ends_makes_room(net, tokenizer):
    """Two rows for four texts of different lengths: fewer steps, and the texts of transformers."""
    expected = by_transformers(net, tokenizer)
    assert texts(net, tokenizer, 2) == expected
    lengths = [3, 14, 5, 8]

    def steer(chosen):
        def end(logits):
            for row, place in enumerate(chosen):
                made[place] += 1
                if made[place] == lengths[place]:
                    logits[row, tokenizer.eos_token_id] = 1e9
            return logits

        return end

    steps = []
    with net.get_input_embeddings().register_forward_hook(
        lambda _, args, __: steps.append(tuple(args[0].shape))
    ):
        made = [0] * 4
        found = texts(net, tokenizer, 2, steer=steer)
    assert made == lengths
    assert all(expected[place].startswith(found[place]) and found[place] for place in found)
    fixed = sum(max(pair) for pair in ((lengths[2], lengths[0]), (lengths[1], lengths[3])))
    assert sum(shape[1] == 1 for shape in steps) < fixed - 2 and max(s[0] for s in steps) == 2


def test_the_longest_prompts_come_first(net, tokenizer):
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    batches = generate_continuations(net, tokenizer, prompts, batch_size=1, max_new_tokens=1)
    order = [place for batch in batches for place, _ in batch]
    assert [len(prompts[place]) for place in order] == sorted(map(len, prompts), reverse=True)


@pytest.mark.slow
def test_texts_hold_neither_prompt_nor_special_tokens(net, tokenizer):
    for place, text in texts(net, tokenizer, 2).items():
        assert PROMPTS[place] not in text and "</s>" not in text and "<s>" not in text


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back(net, tokenizer, training):
    net.train(training)
    engines = [layer.engine for layer in adapted_layers(net).values()]
    texts(net, tokenizer, 4)
    assert net.training is training
    assert [layer.engine for layer in adapted_layers(net).values()] == engines
    with pytest.raises(ZeroDivisionError):  # also where something fails midway
        texts(net, tokenizer, 4, steer=lambda chosen: 1 / 0)
    assert net.training is training
    assert [layer.engine for layer in adapted_layers(net).values()] == engines


def test_steering_sees_the_rows_of_its_batch(net, tokenizer):
    """Each prompt is made to go on with a token of its own."""
    wanted = {place: 300 + place for place in range(len(PROMPTS))}

    def steer(chosen):
        def force(logits):
            forced = torch.full_like(logits, -1e9)
            for row, place in enumerate(chosen):
                forced[row, wanted[place]] = 0
            return forced

        return force

    found = texts(net, tokenizer, 3, steer=steer, max_new_tokens=2)
    for place, text in found.items():
        assert text == tokenizer.decode([wanted[place]] * 2), place


def test_updates_are_kept_while_texts_are_written(folder, tokenizer, monkeypatch):
    """Also beside quantised weights, where training makes them in every pass: DeltaW once a
    layer, not once a token."""
    from fourierft.engine import weight_cache

    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    net = get_peft_model(
        leave_unpacked(AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised)),
        FourierFTConfig(n_frequency=50, target_modules=["q_proj", "v_proj"]),
    )
    made, original = [], weight_cache.effective_weight
    monkeypatch.setattr(
        weight_cache, "effective_weight", lambda *args: made.append(1) or original(*args)
    )
    texts(net, tokenizer, 4)
    assert len(made) == len(adapted_layers(net)) == 10
