"""The bank: every row as with its adapter alone; adapters come, go and are replaced meanwhile."""

import copy
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from fourierft import AdapterBank, FourierFTConfig, export_compact

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)


def make_encoder():
    torch.manual_seed(0)
    config = transformers.BertConfig(**TINY, intermediate_size=48, num_labels=3)
    return transformers.BertForSequenceClassification(config).eval()


def make_decoder():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    config.pad_token_id = config.eos_token_id = 0
    return transformers.GPT2LMHeadModel(config).eval()


SETTINGS = {  # two share their entries, the others do not
    "a": dict(n_frequency=20, scaling=300.0, modules_to_save=["classifier"]),
    "b": dict(n_frequency=20, scaling=100.0, modules_to_save=["classifier"]),
    "c": dict(n_frequency=9, scaling=300.0, basis="orthogonal"),
    "d": dict(n_frequency=20, scaling=200.0, orientation="algorithm1"),
    "e": dict(n_frequency=20, scaling=2.0, scaling_mode="norm", frequency_bias_center=3.0),
    "f": dict(n_frequency=20, scaling=200.0, entry_rows=2),
}


def save(folder, name, make, targets, **changes):
    config = FourierFTConfig(target_modules=targets, **{**SETTINGS[name], **changes})
    net = get_peft_model(make(), config)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(ord(name[0]))
        for key, value in net.named_parameters():
            if "spectrum" in key or "modules_to_save" in key:
                value.copy_(torch.randn(value.shape, generator=generator))
    net.save_pretrained(folder / name)
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Adapters of the encoder, one of them as a compact file."""
    made = tmp_path_factory.mktemp("adapters")
    for name in SETTINGS:
        net = save(made, name, make_encoder, ["query", "value"])
    export_compact(net, made / "file.safetensors")
    return made


def alone(path, make, *args, **kwargs):
    with torch.no_grad():
        return PeftModel.from_pretrained(make(), path).eval()(*args, **kwargs).logits


def tokens(rows, length=5, seed=1):
    return torch.randint(1, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_every_row_is_as_with_its_adapter_alone(folder):
    net, x = make_encoder(), tokens(8)
    bank = AdapterBank(net)
    added = bank.add_folder(folder)
    assert [one.name for one in added] == ["a", "b", "c", "d", "e", "f", "file"]
    names = ["b", "__base__", "a", "d", "c", "e", "f", "file"]
    with bank.rows(names):
        found = net(x).logits
    before = make_encoder()(x).logits
    for row, name in enumerate(names):
        path = folder / ("f" if name == "file" else name)
        one = x[row : row + 1]
        expected = before[row] if name == "__base__" else alone(path, make_encoder, one)[0]
        assert (found[row] - expected).norm() < 1e-6 * expected.norm() + 1e-6, name
        if name != "__base__":
            assert (expected - before[row]).norm() > 1e-3
    assert torch.equal(net(x).logits, before)  # outside the block nothing is added


@torch.no_grad()
def test_generation_with_beams_and_a_conv1d(tmp_path):
    for name in ("a", "d"):
        save(tmp_path, name, make_decoder, ["c_attn"], modules_to_save=None)
    net, x = make_decoder(), tokens(3)
    bank = AdapterBank(net)
    bank.add_folder(tmp_path)
    options = dict(max_new_tokens=6, num_beams=3, do_sample=False)
    with bank.rows(["a", "__base__", "d"]):
        found = net.generate(x, **options)
    expected = [
        PeftModel.from_pretrained(make_decoder(), tmp_path / "a").generate(x[:1], **options),
        make_decoder().generate(x[1:2], **options),
        PeftModel.from_pretrained(make_decoder(), tmp_path / "d").generate(x[2:], **options),
    ]
    for row, one in enumerate(expected):
        assert (
            torch.equal(found[row, : one.shape[1]], one[0]) and not found[row, one.shape[1] :].any()
        )


@torch.no_grad()
def test_gradients_reach_the_inputs_alone(folder):
    net = make_encoder()
    bank = AdapterBank(net)
    bank.add("c", folder / "c")
    inputs = torch.randn(2, 4, 32, requires_grad=True)
    with torch.enable_grad(), bank.rows(["c", "c"]):
        net(inputs_embeds=inputs).logits.sum().backward()
    assert inputs.grad.abs().sum() > 0


def test_damaged_and_foreign_adapters_change_nothing(folder, tmp_path):
    net = make_encoder()
    bank = AdapterBank(net)
    bank.add("a", folder / "a")
    before = bank.describe("a")
    shutil.copytree(folder / "a", tmp_path / "cut")
    weights = tmp_path / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    flipped = bytearray((folder / "file.safetensors").read_bytes())
    flipped[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    for path, word in (
        ("cut", "not a complete"),
        ("flipped.safetensors", "damaged"),
        ("no", "no such"),
    ):
        for put in (lambda p: bank.add("x", p), lambda p: bank.replace("a", p)):
            with pytest.raises(ValueError, match=word) as error:
                put(tmp_path / path)
            assert str(tmp_path / path) in str(error.value)
    with pytest.raises(ValueError, match="cut"):
        bank.add_folder(tmp_path)
    other = AdapterBank(make_decoder())
    with pytest.raises(ValueError, match="match no linear layer"):
        other.add("a", folder / "a")
    assert bank.names == ["a"] and bank.describe("a") == before and len(other) == 0


def test_bad_adapters_of_a_folder_are_named_or_skipped(folder, tmp_path):
    """Whatever is wrong with them; the good ones are added."""
    for name in (
        "good",
        "lora",
        "list",
        "unknown",
        "text",
        "headless",
        "huge",
        "__base__",
        "twice",
    ):
        shutil.copytree(folder / "a", tmp_path / name)
    (tmp_path / "twice.safetensors").write_bytes(b"nothing")

    def change(name, **values):
        path = tmp_path / name / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    get_peft_model(make_encoder(), LoraConfig(target_modules=["query"])).save_pretrained(
        tmp_path / "lora"
    )
    (tmp_path / "list/adapter_config.json").write_text("[]")
    (tmp_path / "text/adapter_config.json").write_bytes(b"\xff")
    change("unknown", peft_type="NEW")
    change("headless", modules_to_save=["other"])
    change("huge", n_frequency=10**9)
    bank, said = AdapterBank(make_encoder()), []
    with pytest.raises(ValueError, match="and 5 more"):
        bank.add_folder(tmp_path)
    assert bank.names == []
    assert [one.name for one in bank.add_folder(tmp_path, said.append)] == ["good"]
    named = {Path(one.partition(": ")[0]).stem for one in said}
    assert named == {path.stem for path in tmp_path.iterdir()} - {"good"} and len(said) == 9
    assert [one.name for one in bank.describe_all()] == ["good"]


def test_names_are_checked(folder):
    bank = AdapterBank(make_encoder(), capacity=2)
    first = bank.add("a", folder / "a")
    assert (first.version, first.parameters) == (1, 4 * 20)
    with pytest.raises(ValueError, match="replace or remove"):
        bank.add("a", folder / "b")
    with pytest.raises(ValueError, match="allowed any other"):
        bank.add("__base__", folder / "b")
    with pytest.raises(KeyError):
        bank.replace("b", folder / "b")
    with pytest.raises(ValueError, match="no adapters x, y"), bank.rows(["a", "y", "x"]):
        pass
    second = bank.replace("a", folder / "b")
    assert second.version == 2 and second.checksum != first.checksum
    bank.add("b", folder / "b")
    with bank.rows(["a"]):
        pass
    bank.add("c", folder / "c")  # evicts b, used longest ago
    assert bank.names == ["a", "c"] and "b" not in bank
    bank.remove("c")
    assert bank.add("c", folder / "c").version == 2
    with bank.rows(["a", "c"]), pytest.raises(ValueError, match="2 names, for a batch of 3 rows"):
        bank.net(tokens(3))
    with pytest.raises(ValueError, match="carries adapters"):
        AdapterBank(get_peft_model(make_encoder(), FourierFTConfig(target_modules=["query"])))


@torch.no_grad()
def test_a_batch_keeps_the_values_it_began_with(folder):
    net, x = make_encoder(), tokens(2)
    bank = AdapterBank(net)
    bank.add("a", folder / "a")
    with bank.rows(["a", "a"]):
        before = net(x).logits
        bank.replace("a", folder / "c")
        bank.add("z", folder / "b")  # may take the place that became free
        assert torch.equal(net(x).logits, before)
    with bank.rows(["a", "a"]):
        assert not torch.allclose(net(x).logits, before)


@torch.no_grad()
def test_tokens_that_a_model_flattens_keep_their_row(tmp_path):
    """(rows * tokens, in) is as (rows, tokens, in), with and without rows of the base model.

    Of layers that differ in alpha.
    """
    settings = {"n_frequency": 9, "scaling_mode": "norm", "scaling": 2.0}
    config = FourierFTConfig(target_modules=["0", "1"], **settings)
    net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 4))
    model = get_peft_model(copy.deepcopy(net), config)
    model.save_pretrained(tmp_path)
    bank = AdapterBank(net)
    bank.add("a", tmp_path)
    x = torch.randn(3, 5, 8)
    base, adapted = net(x), model(x)
    for names in (["a", "a", "a"], ["a", "__base__", "a"]):
        with bank.rows(names):
            whole, flat = net(x), net(x.flatten(0, 1))
        assert (flat.view(3, 5, 4) - whole).abs().max() < 1e-5
        for row, name in enumerate(names):
            expected = base if name == "__base__" else adapted
            assert (expected[row] - whole[row]).abs().max() < 1e-5


@torch.no_grad()
def test_threads_have_rows_of_their_own(folder):
    net, x = make_encoder(), tokens(1)
    bank = AdapterBank(net)
    bank.add_folder(folder)
    expected = {name: alone(folder / name, make_encoder, x) for name in "abcde"}
    wrong = []

    def ask(name):
        for _ in range(10):
            with torch.no_grad(), bank.rows([name]):
                found = net(x).logits
            if (found - expected[name]).abs().max() > 1e-5:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_that_of_the_coefficients(folder):
    bank = AdapterBank(make_encoder())
    for number in range(256):
        bank.add(str(number), folder / "c")
    coefficients = 256 * bank.describe("0").parameters * 4
    assert coefficients <= bank.nbytes <= 1.1 * coefficients
    for number in range(0, 256, 2):
        bank.remove(str(number))
    for number in range(0, 256, 2):
        bank.add(str(number), folder / "c")
    assert bank.nbytes <= 1.1 * coefficients


@torch.no_grad()
def test_a_file_of_the_whole_bank(folder, tmp_path):
    x, names = tokens(7), ["a", "b", "c", "d", "e", "f", "file"]
    first = AdapterBank(make_encoder())
    first.add_folder(folder)
    first.replace("c", folder / "c")
    first.remove("b")
    first.add("b", folder / "b")
    first.save(tmp_path / "all.safetensors")
    second = AdapterBank(make_encoder())
    assert sorted(one.name for one in second.load(tmp_path / "all.safetensors")) == names
    assert [second.describe(name) for name in names] == [first.describe(name) for name in names]
    assert second.describe("c").version == 2
    with first.rows(names):
        expected = first.net(x).logits
    with second.rows(names):
        assert torch.equal(second.net(x).logits, expected)
    second.replace("a", folder / "c")  # the file stays as it is
    third = AdapterBank(make_encoder())
    third.load(tmp_path / "all.safetensors")
    third.save(tmp_path / "again.safetensors")
    with third.rows(names):
        assert torch.equal(third.net(x).logits, expected)
    with pytest.raises(ValueError, match="names that the bank has"):
        third.load(tmp_path / "all.safetensors")


def test_damaged_files_of_a_bank(folder, tmp_path):
    bank = AdapterBank(make_encoder())
    bank.add("c", folder / "c")
    bank.add("d", folder / "d")
    bank.save(tmp_path / "all.safetensors")
    content = (tmp_path / "all.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-5])
    flipped = bytearray(content)
    flipped[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    other = AdapterBank(make_encoder())
    for name, word in (("cut", "not a complete"), ("gone", "no such file")):
        with pytest.raises(ValueError, match=word):
            other.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="not of the format"):
        other.load(folder / "file.safetensors")
    with pytest.raises(ValueError, match=r"match no linear layer|other layers"):
        AdapterBank(make_decoder()).load(tmp_path / "all.safetensors")
    assert len(other) == 0
    other.load(tmp_path / "flipped.safetensors")
    with pytest.raises(ValueError, match="file is damaged"), other.rows(["c", "d"]):
        pass


@torch.no_grad()
def test_close_leaves_the_model_as_it_was(folder):
    net, x = make_encoder(), tokens(1)
    before = net(x).logits
    bank = AdapterBank(net)
    bank.add("a", folder / "a")
    bank.close()
    with bank.rows(["a"]):
        assert torch.equal(net(x).logits, before)
    for module in net.modules():
        assert not module._forward_hooks and "forward" not in module.__dict__


@torch.no_grad()
def test_the_example_of_the_document(folder, tmp_path, monkeypatch):
    """docs/serving.md, on the encoder, with its names."""
    page = (ROOT / "docs/serving.md").read_text()
    (block,) = re.findall(r"```python\n(import torch\n.*?)```", page, re.S)
    for name, source in (("alice", "a"), ("bob", "b")):
        shutil.copytree(folder / source, tmp_path / "adapters" / name)
    monkeypatch.chdir(tmp_path)
    names = {"net": make_encoder(), "three_texts": {"input_ids": tokens(3)}}
    exec(block, names)
    assert len(names["bank"]) == 2


@torch.no_grad()
def test_heads_are_found_as_peft_finds_them(tmp_path):
    """By the end of a path, also in a file of the whole bank; of another size they are refused."""
    save(tmp_path, "b", make_encoder, ["query"], modules_to_save=["pooler.dense"])
    net, x = make_encoder(), tokens(2)
    bank = AdapterBank(net)
    bank.add("b", tmp_path / "b")
    bank.save(tmp_path / "all.safetensors")
    again = AdapterBank(make_encoder())
    again.load(tmp_path / "all.safetensors")
    expected = alone(tmp_path / "b", make_encoder, x)
    assert (expected - make_encoder()(x).logits).norm() > 1e-3
    for one in (bank, again):
        with one.rows(["b", "b"]):
            assert (one.net(x).logits - expected).abs().max() < 1e-5
    wide = transformers.BertForSequenceClassification(
        transformers.BertConfig(**TINY, intermediate_size=48, num_labels=5)
    )
    save(tmp_path, "a", make_encoder, ["query"])
    bank.add("a", tmp_path / "a")
    bank.save(tmp_path / "all.safetensors")
    other = AdapterBank(wide)
    with pytest.raises(ValueError, match="found shape"):
        other.load(tmp_path / "all.safetensors")
    assert len(other) == 0 and other.nbytes == 0


def test_weights_that_are_read_are_refused(tmp_path):
    net = torch.nn.ModuleDict({"a": torch.nn.MultiheadAttention(8, 2)})
    config = FourierFTConfig(target_modules=["out_proj"], n_frequency=4, scaling=1.0)
    get_peft_model(net, config).save_pretrained(tmp_path / "a")
    bank = AdapterBank(torch.nn.ModuleDict({"a": torch.nn.MultiheadAttention(8, 2)}))
    with pytest.raises(ValueError, match="read a weight"):
        bank.add("a", tmp_path / "a")


def test_names_of_a_folder_and_shelves_that_are_empty(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "x")
    shutil.copy(folder / "file.safetensors", tmp_path / "x.safetensors")
    bank = AdapterBank(make_encoder())
    with pytest.raises(ValueError, match="x: another adapter is called x too"):
        bank.add_folder(tmp_path)
    (tmp_path / "x.safetensors").unlink()
    text = (tmp_path / "x" / "adapter_config.json").read_text()
    (tmp_path / "x" / "adapter_config.json").write_text(
        text.replace('"query"', '"(["').replace('"value"', '"(["')
    )
    with pytest.raises(ValueError, match="x"):
        bank.add_folder(tmp_path)
    bank.add("a", folder / "a")
    bank.replace("a", folder / "c")
    bank.remove("a")
    assert bank.nbytes == 0


def test_a_file_with_more_adapters_than_the_capacity(tmp_path):
    """Evictions empty shelves on which later adapters of the file lie."""
    bank = AdapterBank(make_encoder())
    for name, n in (("a", 5), ("b", 6)):
        save(tmp_path, name, make_encoder, ["query"], n_frequency=n)
    for number, name in enumerate("abab"):
        bank.add(str(number), tmp_path / name)
    bank.save(tmp_path / "all")
    small = AdapterBank(make_encoder(), capacity=1)
    assert [one.name for one in small.load(tmp_path / "all")] == ["0", "1", "2", "3"]
    assert small.names == ["3"] and small.pin("3").coefficients.equal(bank.pin("3").coefficients)
    small.remove("3")
    assert small.nbytes == 0


@torch.no_grad()
def test_a_head_whose_weight_is_tied(tmp_path):
    save(tmp_path, "a", make_decoder, ["c_attn"], modules_to_save=["lm_head"])
    net, x = make_decoder(), tokens(2)
    bank = AdapterBank(net)
    bank.add("a", tmp_path / "a")
    with bank.rows(["a", "__base__"]):
        found = net(x).logits
    assert (found[0] - alone(tmp_path / "a", make_decoder, x[:1])[0]).abs().max() < 1e-4
    assert (found[1] - make_decoder()(x[1:]).logits[0]).abs().max() < 1e-5
