"""Methods: FourierFT and everything it is compared with."""

from experiments.methods.adalora import AdaLoRA
from experiments.methods.bottleneck import Bottleneck
from experiments.methods.dylora import DyLoRA
from experiments.methods.fourierft import FourierFT
from experiments.methods.method import Method
from experiments.methods.peft import LoRA, Peft
from experiments.methods.selective import BitFit, Full, LinearProbe

METHODS = (FourierFT, LoRA, AdaLoRA, DyLoRA, Bottleneck, Peft, Full, BitFit, LinearProbe)

__all__ = [
    *("METHODS", "AdaLoRA", "BitFit", "Bottleneck", "DyLoRA", "FourierFT", "Full", "LinearProbe"),
    *("LoRA", "Peft"),
    "Method",
]
