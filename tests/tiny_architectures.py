"""Architectures of transformers at tiny sizes, made by rule from their default configurations."""

import inspect

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WIDTH, HEADS, LAYERS, TOKENS = 32, 4, 2, 8

# By the end of a field's name, the longest that fits: its value in a tiny model.
SIZES = {
    "vocab_size": 99,
    "hidden_size": WIDTH,
    "hidden_dim": WIDTH,
    "d_model": WIDTH,
    "n_embd": WIDTH,
    "embed_dim": WIDTH,
    "embedding_size": WIDTH,
    "embedding_dim": WIDTH,
    "emb_dim": WIDTH,
    "projection_dim": WIDTH,
    "output_hidden_size": WIDTH,
    "dim": WIDTH,
    "width": WIDTH,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "d_inner": 48,
    "n_inner": 48,
    "dim_ff": 48,
    "feed_forward_size": 48,
    "mlp_dim": 48,
    "num_attention_heads": HEADS,
    "attention_heads": HEADS,
    "num_heads": HEADS,
    "n_head": HEADS,
    "n_heads": HEADS,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": WIDTH // HEADS,
    "d_kv": WIDTH // HEADS,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "num_encoder_layers": LAYERS,
    "depth": LAYERS,
    "max_position_embeddings": 64,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_mel_bins": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "state_size": 8,
    "attention_window": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "pooler_hidden_size": WIDTH,
    "pooler_num_attention_heads": HEADS,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LISTS = {
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (4, 2),
    "image_size": [32, 32],
    "patch_size": [8, 8],
}
RATES = ("dropout", "drop", "layerdrop", "drop_rate", "drop_path_rate", "dropout_rate")

# What the rule cannot know.
SPECIAL: dict[str, dict] = {
    "convnext": {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]},
    "gptj": {"rotary_dim": 8},
    "mamba2": {"expand": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A configuration of a few thousand parameters."""
    config = CONFIG_MAPPING[model_type]()
    _shrink(config)
    for name, value in SPECIAL.get(model_type, {}).items():
        setattr(config, name, value)
    if hasattr(config, "_attn_implementation"):
        config._attn_implementation = "eager"
    return config


def _shrink(config: PreTrainedConfig) -> None:
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _shrink(value)
        elif isinstance(value, bool) or name.startswith("_"):
            continue
        elif isinstance(value, float) and any(name.endswith(end) for end in RATES):
            setattr(config, name, 0.0)
        elif isinstance(value, int):
            if name.endswith("token_id") and value > 9:
                setattr(config, name, 3)
            size = _size(name)
            if size is not None and value > 0:
                setattr(config, name, min(size, value))
        elif name in LISTS and isinstance(value, (list, tuple)):
            setattr(config, name, LISTS[name])
        elif name == "layer_types" and isinstance(value, list):
            setattr(config, name, value[:LAYERS])
    if getattr(config, "num_feat_extract_layers", None):
        config.num_feat_extract_layers = 2


def _size(name: str) -> int | None:
    ends = [end for end in SIZES if name == end or name.endswith("_" + end)]
    return SIZES[max(ends, key=len)] if ends else None


def build(model_type: str) -> nn.Module:
    """The base model with random weights, always the same."""
    torch.manual_seed(0)
    return AutoModel.from_config(tiny_config(model_type)).float()


def inputs(net: nn.Module) -> dict[str, torch.Tensor]:
    """A batch of two for a model, by the names that its forward pass takes."""
    torch.manual_seed(1)
    taken = inspect.signature(net.forward).parameters
    config, batch = net.config, {}
    if "input_ids" in taken:
        batch["input_ids"] = torch.randint(5, 90, (2, TOKENS))
    if "decoder_input_ids" in taken and (
        config.is_encoder_decoder or "pixel" in net.main_input_name
    ):
        batch["decoder_input_ids"] = batch.get("input_ids", torch.randint(5, 90, (2, TOKENS)))
    if "pixel_values" in taken:
        vision = getattr(config, "vision_config", config)
        size, channels = getattr(vision, "image_size", 32), getattr(vision, "num_channels", 3)
        size = size if isinstance(size, int) else size[0]
        channels = channels if isinstance(channels, int) else 3
        batch["pixel_values"] = torch.randn(2, channels, size, size)
    if "input_values" in taken:
        batch["input_values"] = torch.randn(2, 800)
    if "input_features" in taken:
        batch["input_features"] = torch.randn(2, 32, getattr(config, "num_mel_bins", 16))
    main = net.main_input_name
    if main in batch and main != "input_ids" and not {"input_ids", "decoder_input_ids"} & {*batch}:
        batch = {main: batch[main]}
    return batch
