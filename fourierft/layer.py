"""The adapters of a linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import FourierFTConfig as StockConfig
from peft.tuners.tuners_utils import onload_layer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .bases.few_rows import FewRows
from .bases.transform import Transform, apply_transform, get_transform
from .config import alpha, applied_from_right, basis
from .engine.linear import adapted_weight
from .engine.settings import GROUPED, Engine, choose_memory
from .engine.weight_cache import AdapterTerm, WeightCache
from .engine.weight_group import Ingredients
from .frozen_weight import ADAPTABLE, FrozenWeight, is_ordinary, is_plain, weight_shape
from .offloading import execution_device, restore_offloaded
from .scaling import AdapterScales
from .spectrum import Draw, draw_entries, most_rows


class FourierFTLayer(AdapterScales):
    """The adapters of one linear layer.

    ``h = W0 x + DeltaW x`` with ``DeltaW = alpha * Re(ifft2(ToDense(c, E)))`` (Eq. 2-4). Per
    adapter, the coefficients ``c`` are trained; the entries ``E`` follow from shape, n, seed and
    bias, are drawn when first needed (never on the meta device), are shared by all layers of the
    same shape, and are not saved. ``c`` starts standard normal, so **DeltaW is not zero at step
    0**, unless ``init_weights`` is set.

    DeltaW and W0 are added once, not multiplied apart: see `adapted_linear`, and `Engine` for what
    is kept in memory. ``engine`` may be replaced at any time (`configure`).

    Merging keeps W0, so that `unmerge` restores it bit for bit: while merged, a layer holds its
    weight twice. After ``merge_and_unload`` only the merged weight is left.
    """

    # Names that PEFT reads. The first is also the key in adapter files.
    adapter_layer_names = ("fourierft_spectrum",)
    other_param_names = (
        "fourierft_n_frequency",
        "fourierft_alpha",
        "fourierft_scaling",
        "fourierft_draws",
        "fourierft_basis",
        "fourierft_from_right",
        "_transforms",
    )

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        AdapterScales.__init__(self)
        self.base_layer = base_layer
        self.fourierft_spectrum = nn.ParameterDict({})
        self.fourierft_n_frequency: dict[str, int] = {}
        self.fourierft_draws: dict[str, tuple[Draw, ...]] = {}
        self.fourierft_basis: dict[str, str] = {}
        self.fourierft_from_right: dict[str, bool] = {}
        """True for ``x DeltaW``, with a spectrum of shape (in, out): Algorithm 1."""
        self._transforms: dict[str, Transform] = {}
        self._cache = WeightCache()
        self.engine = Engine()
        self.weight_is_read = False
        """True if the parent module computes with `weight` instead of calling this layer."""
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._frozen: FrozenWeight | None = None
        self.merge_error: float | None = None
        """Rounding error of the last merge into a half-precision or quantised weight:
        |stored - (W0 + DeltaW)| / |DeltaW|."""
        self.kwargs = kwargs

        layer = self.get_base_layer()
        if not isinstance(layer, ADAPTABLE):
            raise TypeError(f"FourierFT: {type(layer).__name__} cannot be adapted")
        self.out_features, self.in_features = weight_shape(layer)
        # Conv1D stores its weight as (in, out).
        self.fan_in_fan_out = isinstance(layer, Conv1D)

    def update_layer(self, adapter_name: str, draws: tuple[Draw, ...], config: StockConfig) -> None:
        """Add an adapter with fresh coefficients.

        Raises:
            ValueError: The number of entries is below 1 or above the number of weights, or of those
                that few rows hold.
        """
        shape = self.out_features, self.in_features
        problem = size_problem(config, shape, draws)
        if problem:
            raise ValueError(problem)
        n_frequency = sum(draw.n for draw in draws)
        self.fourierft_n_frequency[adapter_name] = n_frequency
        self.fourierft_alpha[adapter_name] = alpha(config, shape)
        self.fourierft_scaling[adapter_name] = self.fourierft_alpha[adapter_name]
        self.fourierft_draws[adapter_name] = draws
        self.fourierft_basis[adapter_name] = basis(config)
        self.fourierft_from_right[adapter_name] = applied_from_right(config)
        self._transforms.pop(adapter_name, None)

        # Drawn even where zeros replace them: the random stream then moves as it does with PEFT,
        # and what is initialised next (a head) does not depend on this flag.
        coefficients = torch.randn(n_frequency)
        if config.init_weights:
            coefficients = torch.zeros_like(coefficients)
        self.fourierft_spectrum[adapter_name] = nn.Parameter(coefficients)

        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        self._prepare()

    def coefficients(self, adapter_name: str) -> nn.Parameter:
        """Return ``c`` of an adapter, (n,), brought back if accelerate has offloaded it."""
        coefficients = self.fourierft_spectrum[adapter_name]
        if coefficients.is_meta:
            restore_offloaded(self.fourierft_spectrum)
        return coefficients

    @property
    def weight(self) -> Tensor:
        """``W0 + sum of DeltaW``, for parent modules that read the weight.

        W0, as in PEFT's layers, if the parent module calls this layer (see `weight_is_read`), while
        merged or disabled, and if W0 is not an ordinary matrix.
        """
        weight = super().weight
        if not (self.weight_is_read and self._is_adapting() and is_ordinary(weight)):
            return weight
        matrix = weight.flatten(1)  # of a kernel
        total = adapted_weight(matrix, self._active_terms(), self.engine, self._cache)
        return total.view(weight.shape)

    def transform(self, adapter_name: str) -> Transform:
        """Return the transform from coefficients to update, in the layout of the base weight.

        Shared with the other layers of this shape, where the coefficients live.
        """
        transform = self._transforms.get(adapter_name)
        device = self.coefficients(adapter_name).device
        if transform is None or transform.device != device:
            transform = self._transforms[adapter_name] = self._shared_transform(
                adapter_name, self.fan_in_fan_out
            )
        return transform

    def _shared_transform(self, adapter_name: str, transposed: bool) -> Transform:
        return get_transform(
            self._spectrum_shape(adapter_name),
            self.fourierft_draws[adapter_name],
            self.fourierft_basis[adapter_name],
            self.coefficients(adapter_name).device,
            transposed != self.fourierft_from_right[adapter_name],
        )

    def _spectrum_shape(self, adapter_name: str) -> tuple[int, int]:
        shape = self.out_features, self.in_features
        return shape[::-1] if self.fourierft_from_right[adapter_name] else shape

    def entries(self, adapter_name: str) -> Tensor:
        """Return rows and columns of the entries, int64 (2, n), on the coefficients' device.

        Of the spectrum of `get_delta_weight`, which is (out, in) for either orientation. Shared
        with the other layers of this shape; not to be written to.
        """
        entries = draw_entries(
            self._spectrum_shape(adapter_name),
            self.fourierft_draws[adapter_name],
            self.coefficients(adapter_name).device,
        )
        return entries.flip(0) if self.fourierft_from_right[adapter_name] else entries

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """Return DeltaW of an adapter, (out, in), also where the base layer stores (in, out).

        float32 whatever the dtype of model and coefficients (float64 for float64 coefficients);
        differentiable.
        """
        term = self._term(adapter_name)
        update = apply_transform(term.transform, term.coefficients, term.alpha)
        return update.t().contiguous() if self.fan_in_fan_out else update

    def factors(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """Return (out, r) and (r, in) whose product is DeltaW, float64; for entries in few rows.

        Raises:
            ValueError: The entries of this adapter may lie in all rows.
        """
        transform = self._shared_transform(adapter_name, False)
        if not isinstance(transform, FewRows):
            raise ValueError(f"adapter {adapter_name!r}: its entries are not confined to few rows")
        c = self.coefficients(adapter_name).double() * self.fourierft_scaling[adapter_name]
        return transform.factors(c)

    def _term(self, adapter_name: str) -> AdapterTerm:
        return AdapterTerm(
            self.transform(adapter_name),
            self.fourierft_scaling[adapter_name],
            self.coefficients(adapter_name),
        )

    def _active_terms(self) -> list[AdapterTerm]:
        return [self._term(name) for name in self.active_adapters if name in self.fourierft_scaling]

    def prepares_weight(self) -> bool:
        """Return True if the engine's settings build the weights of many layers together."""
        if self.engine.memory not in ("auto", *GROUPED):
            return False
        weight = self.get_base_layer().weight
        ordinary = weight if is_ordinary(weight) else None
        return choose_memory(self.engine, weight.device.type, ordinary) in GROUPED

    def ingredients(self) -> Ingredients | None:
        """Return what the weight of the next call is made of; None unless that is plain and known.

        Nothing is changed: another layer may be the one that is called.
        """
        if self._disable_adapters or self.merged_adapters or self.weight_is_read:
            return None
        layer = self.base_layer
        if not (is_plain(layer) and self.prepares_weight()) or layer.weight.requires_grad:
            return None
        terms = self._active_terms()
        weight = layer.weight
        for transform, _, c in terms:
            # Shards and placeholders of libraries that gather parameters layer by layer.
            whole = type(c) is nn.Parameter and c.shape == (transform.n,)
            if not whole or c.device != weight.device or tuple(weight.shape) != transform.shape:
                return None
        return Ingredients(weight, terms) if terms else None

    def _is_adapting(self) -> bool:
        """Return True if DeltaW is to be added; a disabled layer is unmerged first."""
        if self._disable_adapters and self.merged_adapters:
            with onload_layer(self):
                self.unmerge()
        return not (self._disable_adapters or self.merged_adapters)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Move an adapter to its base layer, also if that was offloaded: to where it runs."""
        device = device or execution_device(self.get_base_layer())
        super()._move_adapter_to_device_of_base_layer(adapter_name, device)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter (see PEFT's `BaseTunerLayer`)."""
        super().delete_adapter(adapter_name)
        self._cache.clear()

    def _prepare(self) -> None:
        """Build the transforms before the forward pass, so that compiling breaks no graph."""
        for adapter_name, coefficients in self.fourierft_spectrum.items():
            if not coefficients.is_meta:
                self.transform(adapter_name)


def adapted_layers(model: nn.Module) -> dict[str, FourierFTLayer]:
    """Return the FourierFT layers of a model by their paths, in its order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, FourierFTLayer)
    }


def size_problem(
    config: StockConfig, shape: Sequence[int], draws: Sequence[Draw], name: str | None = None
) -> str | None:
    """Return a message if entries do not fit into a weight, or into the rows that hold them.

    Args:
        config: The adapter's.
        shape: (out, in) of the weight.
        draws: Draws of the entries.
        name: Path of the layer, for the message.
    """
    d1, d2 = shape
    where = f" for {name}" if name else ""
    sizes = {(sum(draw.n for draw in draws), d1, d2)}
    for n, _, region in draws:
        if region.rows is None:
            continue
        rows, columns = (d2, d1) if applied_from_right(config) else (d1, d2)
        if region.rows > most_rows((rows, columns)):
            return (
                f"entry_rows: got {region.rows}{where}, allowed 1 to {most_rows((rows, columns))}"
            )
        sizes.add((n, region.rows, columns))
    for n, d1, d2 in sorted(sizes):
        if not 1 <= n <= d1 * d2:
            return f"n_frequency: got {n}{where}, allowed 1 to {d1} * {d2} = {d1 * d2}"
    return None
