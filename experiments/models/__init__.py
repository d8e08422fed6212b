"""Base models: where the weights come from, how they are built, what the methods may adapt.

Dataclasses only; torch is imported when something is built, so composing and checking a run costs
none of it.
"""

from experiments.models.diffusion import Diffusion
from experiments.models.encoder import Encoder
from experiments.models.language import CausalLM
from experiments.models.mlp import MLP
from experiments.models.model import Model, Quantization
from experiments.models.transformer import Transformer
from experiments.models.vision import VisionTransformer

MODELS = (MLP, Encoder, CausalLM, VisionTransformer, Diffusion)

__all__ = [
    "MODELS",
    "CausalLM",
    "Diffusion",
    "Encoder",
    "MLP",
    "Model",
    "Quantization",
    "Transformer",
    "VisionTransformer",
]
