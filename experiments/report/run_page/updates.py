"""Updates that a run's stored adapter makes: DeltaW of every layer, its entries and its start.

Layers and shapes come from the network on the meta device, which takes no memory. Of the base
model's weights only those of adapted layers are read, where they still lie on this machine.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.errors import RecordError, UserError
from experiments.report.comparison.run_index import Run
from experiments.results import inputs, kept_adapter, stored

if TYPE_CHECKING:
    from torch import Tensor, nn

FOURIERFT = ("FOURIERFT", "FOURIERFT_EXTENDED")
KINDS = (*FOURIERFT, "LORA", "LOHA", "LOKR")
"""PEFT's types whose update is a matrix that is added to the weight."""
LARGEST = 2**28
"""Bytes of an adapter that is read for pictures."""
SMALL = 10**7
"""Parameters of a random network that is drawn again."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Trained entries of a spectrum."""

    rows: np.ndarray
    columns: np.ndarray
    sizes: np.ndarray
    """Frobenius norm of what each entry adds to DeltaW."""
    periodic: bool
    """True for the Fourier basis: entries are frequencies, and have mirror images."""


@dataclass(kw_only=True)
class LayerUpdate:
    """Update of one layer."""

    name: str
    """Path of the module."""
    shape: tuple[int, int]
    """(out, in)."""
    layer: Any
    """PEFT's layer."""
    start_coefficients: Tensor | None = None
    """Coefficients of FourierFT before training; None if DeltaW was zero."""

    @property
    def kind(self) -> str:
        """Name of the module in its block, such as `query`."""
        return self.name.rpartition(".")[2]

    @property
    def block(self) -> int | None:
        """Number of the layer's block, from 0; None outside of blocks."""
        found = re.search(r"\.(\d+)\.", f".{self.name}.")
        return int(found[1]) if found else None

    @property
    def _is_fourierft(self) -> bool:
        return hasattr(self.layer, "fourierft_spectrum")

    def delta(self) -> np.ndarray:
        """Return DeltaW, (out, in)."""
        found = self.layer.get_delta_weight("default").detach().flatten(1)
        if found.is_meta:
            raise RecordError(f"{self.name}: not all of its update is stored")
        if getattr(self.layer, "fan_in_fan_out", False) and not self._is_fourierft:
            found = found.t()  # PEFT's own layers give GPT-2's the shape of their weight, (in, out)
        return found.float().numpy()

    def start(self) -> np.ndarray | None:
        """Return DeltaW before training; None if it was zero."""
        if self.start_coefficients is None:
            return None
        coefficients = self.layer.fourierft_spectrum["default"]
        trained, coefficients.data = coefficients.data, self.start_coefficients
        try:
            return self.delta()
        finally:
            coefficients.data = trained

    def entries(self, *, change: bool = False) -> Entries | None:
        """Return the trained entries of FourierFT; None for other methods.

        Args:
            change: with the sizes of what training changed, instead of the trained ones.
        """
        if not self._is_fourierft:
            return None
        from fourierft import atom_norm

        values = self.layer.fourierft_spectrum["default"].detach()
        if change and self.start_coefficients is not None:
            values = values - self.start_coefficients
        rows, columns = self.layer.entries("default").numpy()
        return Entries(
            rows=rows,
            columns=columns,
            sizes=values.abs().numpy()
            * atom_norm(self.shape, self.layer.fourierft_scaling["default"]),
            periodic=self.layer.fourierft_basis["default"] == "fourier",
        )


def read_kind(run: Run) -> str | None:
    """Return PEFT's type of a run's adapter if it is one whose update can be shown."""
    try:
        settings = stored.read_json(run.run_dir / kept_adapter.FOLDER / CONFIG)
    except RecordError:
        return None
    if not isinstance(settings, dict) or settings.get("peft_type") not in KINDS:
        return None
    kind = settings["peft_type"]
    # DoRA scales W0 too; other starts are parts of W0, or random and not stored.
    plain = not settings.get("use_dora")
    plain &= settings.get("init_lora_weights", True) in (True, "gaussian")
    plain &= kind in FOURIERFT or settings.get("init_weights", True) is True
    return kind if plain else None


def read_updates(run: Run) -> list[LayerUpdate]:
    """Read the updates of all layers, in the network's order; of runs that have a `read_kind`.

    Raises:
        UserError: the adapter is not the recorded one, or its network cannot be built.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = run.run_dir / kept_adapter.FOLDER
    for path in folder.rglob("*.safetensors"):
        stored.check_file(path, LARGEST)
    kept_adapter.check(folder, run.record)
    try:
        net = _build_network(run, folder)
        _fill(net, load_file(folder / WEIGHTS))
        layers = [
            LayerUpdate(name=name, shape=_get_shape(module), layer=module)
            for name, module in net.get_base_model().named_modules()
            if hasattr(module, "get_delta_weight")
        ]
        _add_starts(run, net, layers)
    except UserError:
        raise
    except (OSError, SafetensorError, ArithmeticError) as error:
        raise RecordError(f"{folder}: cannot be read ({error})") from error
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RecordError(f"{folder}: does not fit its network ({reason})") from error
    if not layers:
        raise RecordError(f"{folder}: adapts no layer")
    return layers


def _build_network(run: Run, folder: Path) -> Any:
    """Return PEFT's model with the run's layers, all on the meta device."""
    import peft

    import fourierft  # noqa: F401  (its tuner)
    from experiments.config.restore import restore_config

    config = restore_config(run.record.config, [])
    net = config.model.build(config.task.head, None, meta=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.PeftConfig.from_pretrained(str(folder))
        settings.inference_mode = True
        return peft.get_peft_model(net, settings)


def _fill(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put stored tensors in the place of the adapter's parameters."""
    from torch import nn

    for name, _ in list(net.named_parameters()):
        stored_name = name.replace(".default", "", 1)
        if name != stored_name and stored_name in tensors:
            around, _, own = name.rpartition(".")
            filled = nn.Parameter(tensors[stored_name].float(), requires_grad=False)
            setattr(net.get_submodule(around), own, filled)


def _get_shape(module: Any) -> tuple[int, int]:
    return module.out_features, module.in_features


def _add_starts(run: Run, net: Any, layers: list[LayerUpdate]) -> None:
    """Draw the random start of FourierFT again, as `experiments.run.build` did: layer by layer."""
    import torch

    from experiments.seeding import stream

    if net.active_peft_config.peft_type != "FOURIERFT" or net.active_peft_config.init_weights:
        return
    generator = torch.Generator().manual_seed(stream(run.seed, "adapter"))
    for layer in layers:
        n = layer.layer.fourierft_n_frequency["default"]
        layer.start_coefficients = torch.randn(n, generator=generator)


def read_base_norms(run: Run, layers: list[LayerUpdate]) -> dict[str, float]:
    """Return |W0| of the layers whose base weight is found where the run read it.

    Small random networks are drawn again, from the run's seed.
    """
    from safetensors import SafetensorError, safe_open

    base = run.record.parameters.get("base") or 0
    if run.record.environment.get("weights") is None and 0 < base <= SMALL:
        return _draw_base_norms(run, layers)
    found: dict[str, float] = {}
    try:
        for path in inputs.find_weight_files(run.record):
            with safe_open(path, "pt") as file:
                names = set(file.keys())
                for layer in layers:
                    key = _match(layer.name, names)
                    if key is None:
                        continue
                    weight = file.get_tensor(key)
                    if weight.is_floating_point() and weight.numel() == math.prod(layer.shape):
                        found[layer.name] = float(weight.float().norm())
    except (OSError, SafetensorError, RuntimeError):
        return {}
    return found


def _draw_base_norms(run: Run, layers: list[LayerUpdate]) -> dict[str, float]:
    """Return |W0| of a network of random weights, drawn as `experiments.run.build` does."""
    import torch

    from experiments.config.restore import restore_config
    from experiments.seeding import stream

    config = restore_config(run.record.config, [])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(run.seed, "head"))
        net = config.model.build(config.task.head, None)
    return {
        layer.name: float(net.get_submodule(layer.name).weight.detach().norm()) for layer in layers
    }


def _match(layer: str, names: set[str]) -> str | None:
    """Return the stored name of a layer's weight; files leave out outer modules, or add one."""
    wanted = f"{layer}.weight"
    while wanted.count(".") > 1:
        ends = [name for name in names if name == wanted or name.endswith(f".{wanted}")]
        if len(ends) == 1:
            return ends[0]
        if ends:
            return None
        wanted = wanted.partition(".")[2]
    return None
