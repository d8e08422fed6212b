"""Base models: source of the weights, the network, and the modules to adapt.

Dataclasses only; torch is imported when a network is built, so that composing and checking a run
stays fast.
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
    "MLP",
    "MODELS",
    "CausalLM",
    "Diffusion",
    "Encoder",
    "Model",
    "Quantization",
    "Transformer",
    "VisionTransformer",
]
