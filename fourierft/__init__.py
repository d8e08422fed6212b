"""FourierFT (arXiv 2405.03003) as a PEFT tuner.

Importing this package puts its tuner in the place of PEFT's own FourierFT: ``get_peft_model``,
``PeftModel.from_pretrained``, ``merge_and_unload`` and the rest of PEFT are the interface.
"""

from .bank.adapter_bank import AdapterBank
from .bank.places import BankedAdapter
from .bases.transform import delta_weight
from .compact import export_compact, import_compact
from .counting import Counts, count, fourierft_parameters, lora_parameters, stored_bytes
from .engine.settings import Engine
from .holding import hold_weights
from .hotswap import PreparedSwap, hotswap_adapter, prepare_swap
from .layer_settings import configure
from .lora_export import export_lora, lora_errors
from .model import (
    FourierFTConfig,
    FourierFTLayer,
    FourierFTLinear,
    FourierFTModel,
    register,
)
from .scaling import rescale_adapter_scale
from .spectrum import alpha_of_norm, atom_norm, band_pass, sample_entries
from .step_sizes import rate_groups, step_sizes

__all__ = [
    "AdapterBank",
    "BankedAdapter",
    "Counts",
    "Engine",
    "FourierFTConfig",
    "FourierFTLayer",
    "FourierFTLinear",
    "FourierFTModel",
    "PreparedSwap",
    "alpha_of_norm",
    "atom_norm",
    "band_pass",
    "configure",
    "count",
    "delta_weight",
    "export_compact",
    "export_lora",
    "fourierft_parameters",
    "hold_weights",
    "hotswap_adapter",
    "import_compact",
    "lora_errors",
    "lora_parameters",
    "prepare_swap",
    "rate_groups",
    "rescale_adapter_scale",
    "sample_entries",
    "step_sizes",
    "stored_bytes",
]

__version__ = "0.1.0"

register()
