"""Methods: FourierFT and everything it is compared with."""

from experiments.methods.fourierft import FourierFT
from experiments.methods.method import Method
from experiments.methods.peft import LoRA, Peft
from experiments.methods.selective import BitFit, Full, LinearProbe

METHODS = (FourierFT, LoRA, Peft, Full, BitFit, LinearProbe)

__all__ = ["METHODS", "BitFit", "FourierFT", "Full", "LinearProbe", "LoRA", "Method", "Peft"]
