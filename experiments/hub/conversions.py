"""Conversions of pretrained weights from GGUF and ONNX files to folders of transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor

_ATTENTION = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names of DINOv2's projections in older and in today's transformers."""


def convert_gguf(file: Path, folder: Path) -> None:
    """Convert a language model from GGUF to float32, with its tokenizer and chat template.

    Quantised weights are dequantised: the values stay those of the file.

    Args:
        file: the GGUF file.
        folder: destination.
    """
    _require("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, name = str(file.parent), file.name
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    config = read.config
    config._name_or_path = ""
    for entry in ("quantization_config", "_pre_quantization_dtype"):  # with them it is not saved
        if hasattr(config, entry):
            delattr(config, entry)
    net = type(read)(config)
    net.load_state_dict(read.state_dict())
    net.tie_weights()
    net.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)


def convert_dinov2(file: Path, folder: Path) -> None:
    """Convert the backbone of a DINOv2 network from ONNX.

    Args:
        file: ONNX file whose initializers begin with `backbone.`, exported by torch.
        folder: destination.

    Raises:
        DataError: its weights are not those of such a network.
    """
    _require("onnx")
    from transformers import Dinov2Config, Dinov2Model

    state = {_rename(name): value for name, value in _read_backbone(file).items()}
    patches = state["embeddings.patch_embeddings.projection.weight"]
    positions = state["embeddings.position_embeddings"].shape[1] - 1
    width, patch = patches.shape[0], patches.shape[-1]
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=1 + max(int(key.split(".")[2]) for key in state if ".layer." in key),
        num_attention_heads=width // 64,  # as in every size of DINOv2
        image_size=round(positions**0.5) * patch,
        patch_size=patch,
    )
    net = Dinov2Model(config)
    missing, unknown = net.load_state_dict(state, strict=False)
    wrong = [name for name in missing if name != "embeddings.mask_token"] + unknown
    if wrong:  # the mask token serves pretraining alone
        raise DataError(f"{file.name}: not a DINOv2 network", [f"weight {name}" for name in wrong])
    net.embeddings.mask_token.data.zero_()  # not left random: the folder is compared by its hash
    net.save_pretrained(folder)


def _read_backbone(file: Path) -> dict[str, Tensor]:
    """Return the weights of a backbone in an ONNX file by their names in torch.

    An exporter keeps the names of biases only: a linear layer is MatMul(x, W^T) and Add(bias, .),
    and the position embeddings are two nameless arrays, of the class token and of the patches.
    """
    import onnx
    import torch

    graph = onnx.load(file).graph
    values = {one.name: torch.tensor(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    start = "backbone."
    state = {
        name.removeprefix(start): one for name, one in values.items() if name.startswith(start)
    }
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in values and node.output[0] in added:
            for bias in added[node.output[0]].input:
                if bias.startswith(start) and bias.endswith(".bias"):
                    name = bias.removeprefix(start).removesuffix("bias") + "weight"
                    state[name] = values[node.input[1]].T.contiguous()
    width = state["embeddings.cls_token"].shape[-1]
    nameless = [
        one
        for name, one in values.items()
        if not name.startswith(start) and one.shape[-1:] == (width,)
    ]
    tokens = [one for one in nameless if one.dim() == 3 and one.shape[0] == 1]
    if sorted(one.shape[1] == 1 for one in tokens) != [False, True]:
        raise DataError(f"{file.name}: position embeddings not found")
    state["embeddings.position_embeddings"] = torch.cat(
        sorted(tokens, key=lambda one: one.shape[1]), 1
    )
    return state


def _rename(name: str) -> str:
    for old, new in _ATTENTION.items():
        name = name.replace(old, new)
    return name


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"needs the package {package}: pip install -e '.[wheels]'")
