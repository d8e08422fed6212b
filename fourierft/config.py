"""Configuration of the tuner: PEFT's fields, the frequency bias and the basis."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from peft import FourierFTConfig as StockConfig
from peft import PeftConfig, PeftType
from peft.utils import SAFETENSORS_WEIGHTS_NAME

from .bases.transform import check_basis
from .engine.settings import DEFAULT, GRADIENT, MEMORY, PRECISION, Engine, engine_problems
from .spectrum import EntryRegion, alpha_of_norm
from .weight_file import open_safetensors

# What PEFT's own tuner cannot compute is saved under this name. PEFT only warns about a field that
# it does not know and would go on to compute something else; an unknown type makes it stop.
EXTENDED_PEFT_TYPE = "FOURIERFT_EXTENDED"

# Fields that define an adapter and that PEFT's configuration does not have.
EXTENSIONS = (
    *("frequency_bias_center", "frequency_bias_bandwidth"),
    *("basis", "scaling_mode", "orientation", "entry_rows", "further_draws"),
    *("trainable_token_indices", "ensure_weight_tying", "target_parameters"),
)
_LATER_EXTENSIONS = (  # not in the files of adapters without them
    *("entry_rows", "further_draws"),
    *("trainable_token_indices", "ensure_weight_tying", "target_parameters"),
)
_DRAW_FIELDS = {
    *("n_frequency", "n_frequency_pattern", "random_loc_seed", "entry_rows"),
    *("frequency_bias_center", "frequency_bias_bandwidth"),
}

SCALING_MODES = ("plain", "norm")
ORIENTATIONS = ("eq4", "algorithm1")


@dataclass
class FourierFTConfig(StockConfig):
    """Configuration of FourierFT: PEFT's own, plus where entries lie, a basis and a way to scale.

    The fields of `peft.FourierFTConfig` keep their names, meanings and defaults, among them
    ``n_frequency`` (n), ``scaling`` (alpha) and ``random_loc_seed`` (entry seed; PEFT's default is
    777, the paper used 2024).

    A configuration that PEFT can express is saved exactly as PEFT saves it. One with a frequency
    bias, another basis, ``norm``, ``algorithm1`` or ``entry_rows`` is saved under the type
    ``FOURIERFT_EXTENDED``, which PEFT without this package refuses to load.

    Args:
        frequency_bias_center: Favoured central frequency ``f_c`` of Eq. 5 in index units, at least
            0; None draws the entries uniformly.
        frequency_bias_bandwidth: Width ``W`` of Eq. 5, above 0; no effect without a centre.
        basis: Basis of the update: ``fourier``, or for the ablation of
            Table 6 ``random``, ``orthogonal``, ``dct``, ``hartley`` (see `MatrixBasis`).
        scaling_mode: Meaning of ``scaling``. ``plain``: alpha, the paper's multiplier of every
            update. ``norm``: the Frobenius norm of the update that one coefficient of value 1
            makes, whatever the size of the weight; alpha is then ``scaling * sqrt(2 d1 d2)``,
            another one for each shape (see `alpha_of_norm`). Entries that are their own
            conjugate make sqrt(2) times it, those of the ``random`` basis make it on average.
        orientation: ``eq4``: ``h = W0 x + DeltaW x``, the paper's Eq. 4 and PEFT. ``algorithm1``:
            ``h = x W0^T + x DeltaW``, the paper's Algorithm 1 and its authors' code; DeltaW and its
            spectrum are then of shape (in, out), and the weight gets the transpose. Unbiased
            entries make equally distributed updates either way, but one entry seed makes two
            different functions.
        entry_rows: Number of rows of the spectrum that hold all entries, so that DeltaW has at most
            twice that rank and `export_lora` is exact; None for any rows. With ``algorithm1``
            they are rows of the transposed spectrum: columns. Not with a bias or another basis.
        further_draws: Fields (``n_frequency``, ``random_loc_seed``; pattern, bias and rows) of
            further draws whose entries are trained too, as ``add_weighted_adapter`` sets them.
        trainable_token_indices: Tokens whose embeddings are trained too; as in `peft.LoraConfig`.
        ensure_weight_tying: Keep tied what ``modules_to_save`` and ``trainable_token_indices``
            train of tied embeddings; as in `peft.LoraConfig`.
        target_parameters: Refused: an adapter has one weight a module, unlike stacked experts.
        memory: Handling of W0 + DeltaW: ``auto``, ``batched``, ``cache``, ``kept``, ``save``,
            ``recompute`` or ``spectral`` (`Engine`). This and the next two control the computation:
            they are not saved, and are taken from a model's first adapter (`configure` sets them
            later).
        gradient: ``auto``, ``dense`` or ``sampled``.
        precision: ``rounded`` or ``exact``.

    Raises:
        ValueError: A value is outside its range; every such value is named.
    """

    frequency_bias_center: float | None = field(
        default=None,
        metadata={"help": "Favoured central frequency of the entries (Eq. 5); None for no bias."},
    )
    frequency_bias_bandwidth: float = field(
        default=200.0, metadata={"help": "Width of the favoured band (Eq. 5)."}
    )
    basis: str = field(default="fourier", metadata={"help": "Basis of the coefficients."})
    scaling_mode: str = field(
        default=SCALING_MODES[0], metadata={"help": f"What scaling is, one of {SCALING_MODES}."}
    )
    orientation: str = field(
        default=ORIENTATIONS[0], metadata={"help": f"Side of DeltaW, one of {ORIENTATIONS}."}
    )
    entry_rows: int | None = field(
        default=None, metadata={"help": "Rows that hold all entries; None for any (full rank)."}
    )
    further_draws: list[dict[str, Any]] | None = field(
        default=None, metadata={"help": "Further draws of entries, each with fields of a draw."}
    )
    trainable_token_indices: list[int] | dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Tokens whose embeddings are trained too."}
    )
    ensure_weight_tying: bool = field(
        default=False, metadata={"help": "Keep tied what is trained of tied embeddings."}
    )
    target_parameters: list[str] | None = field(
        default=None, metadata={"help": "Refused; see `peft.LoraConfig` for adapters of experts."}
    )
    memory: str = field(
        default=DEFAULT.memory, metadata={"help": f"Keep W0 + DeltaW? One of {MEMORY}."}
    )
    gradient: str = field(
        default=DEFAULT.gradient, metadata={"help": f"Way to the gradient, one of {GRADIENT}."}
    )
    precision: str = field(
        default=DEFAULT.precision, metadata={"help": f"In half precision, one of {PRECISION}."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.FOURIERFT
        check_config(self)

    def to_dict(self) -> dict:
        """Return the configuration as it is written to ``adapter_config.json``."""
        values = super().to_dict()
        for name in Engine._fields:
            del values[name]
        if is_extended(self):
            values["peft_type"] = EXTENDED_PEFT_TYPE
        else:
            for name in EXTENSIONS:
                del values[name]
        if not applied_from_right(self):  # so that files are those of versions without the field
            values.pop("orientation", None)
        for name in _LATER_EXTENSIONS:
            if not getattr(self, name):
                values.pop(name, None)
        return values

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs
    ) -> PeftConfig:
        """Read a configuration, and check that the weights beside it can be read.

        Raises:
            ValueError: The safetensors file in the folder is damaged; the message names it.
        """
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder, **kwargs)
        folder = os.path.join(pretrained_model_name_or_path, subfolder or "")
        weights = os.path.join(folder, SAFETENSORS_WEIGHTS_NAME)
        if os.path.isfile(weights):
            with open_safetensors(weights):
                pass
            config.weights_file = weights  # for later messages; not a field, so never saved
        return config


def first_few(problems: Sequence[str]) -> str:
    """Return at most four problems, and the number of those left out."""
    more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(problems[:4]) + more


def entry_region(config: StockConfig) -> EntryRegion:
    """Return where entries may lie; in PEFT's own configuration anywhere, with equal chances."""
    return EntryRegion(
        getattr(config, "frequency_bias_center", None),
        getattr(config, "frequency_bias_bandwidth", 200.0),
        getattr(config, "entry_rows", None),
    )


def basis(config: StockConfig) -> str:
    """Return the basis of the coefficients; PEFT's own configuration means "fourier"."""
    return getattr(config, "basis", "fourier")


def scaling_mode(config: StockConfig) -> str:
    """Return the meaning of ``scaling``; PEFT's own configuration means "plain"."""
    return getattr(config, "scaling_mode", SCALING_MODES[0])


def applied_from_right(config: StockConfig) -> bool:
    """Return True for ``x DeltaW`` (Algorithm 1); PEFT's own configuration means ``DeltaW x``."""
    return getattr(config, "orientation", ORIENTATIONS[0]) == "algorithm1"


def alpha(config: StockConfig, shape: Sequence[int]) -> float:
    """Return the paper's alpha for a weight of shape (d1, d2)."""
    if scaling_mode(config) == "norm":
        return alpha_of_norm(shape, config.scaling)
    return config.scaling


def engine(config: StockConfig) -> Engine:
    """Return the settings of the computation; PEFT's own configuration has none."""
    return Engine(*(getattr(config, name, getattr(DEFAULT, name)) for name in Engine._fields))


def is_extended(config: StockConfig) -> bool:
    """Return True if PEFT's own tuner cannot compute what this configuration describes."""
    return (
        entry_region(config).center is not None
        or basis(config) != "fourier"
        or scaling_mode(config) != "plain"
        or applied_from_right(config)
        or any(getattr(config, name, None) for name in _LATER_EXTENSIONS)
    )


def check_config(config: StockConfig) -> None:
    """Raise one ValueError that names every value outside its range.

    Runs again when an adapter is created: PEFT's own configuration objects check nothing, and
    fields may be set after construction.
    """
    problems = []
    sizes = {"n_frequency": config.n_frequency, **(config.n_frequency_pattern or {})}
    for name, n in sizes.items():
        if not (_is_whole(n) and n >= 1):
            where = name if name == "n_frequency" else f"n_frequency_pattern[{name!r}]"
            problems.append(f"{where}: got {n!r}, allowed whole numbers from 1")
    if not (_is_finite(config.scaling) and config.scaling > 0):
        problems.append(f"scaling (alpha): got {config.scaling!r}, allowed above 0")
    if not _is_whole(config.random_loc_seed):
        problems.append(f"random_loc_seed: got {config.random_loc_seed!r}, allowed an integer")
    center, bandwidth, rows = entry_region(config)
    if center is not None and not (_is_finite(center) and center >= 0):
        problems.append(
            f"frequency_bias_center: got {center!r}, allowed 0 or above (or None for no bias)"
        )
    if not (_is_finite(bandwidth) and bandwidth > 0):
        problems.append(f"frequency_bias_bandwidth: got {bandwidth!r}, allowed above 0")
    if rows is not None and not (_is_whole(rows) and rows >= 1):
        problems.append(f"entry_rows: got {rows!r}, allowed whole numbers from 1 (or None for any)")
    if rows is not None and (center is not None or basis(config) != "fourier"):
        problems.append(
            f"entry_rows: got {rows!r}, allowed without frequency_bias_center and with "
            "basis 'fourier' alone"
        )
    try:
        check_basis(basis(config))
    except ValueError as error:
        problems.append(str(error))
    if scaling_mode(config) not in SCALING_MODES:
        problems.append(
            f"scaling_mode: got {scaling_mode(config)!r}, allowed {', '.join(SCALING_MODES)}"
        )
    orientation = getattr(config, "orientation", ORIENTATIONS[0])
    if orientation not in ORIENTATIONS:
        problems.append(f"orientation: got {orientation!r}, allowed {', '.join(ORIENTATIONS)}")
    if parameters := getattr(config, "target_parameters", None):
        problems.append(
            f"target_parameters: got {parameters!r}, allowed None: FourierFT adapts the weights of "
            "modules, and stacked experts are one parameter of many matrices (LoRA adapts them)"
        )
    problems += _draw_problems(config)
    problems += engine_problems(engine(config))
    if problems:
        raise ValueError("FourierFT configuration: " + "; ".join(problems))


def _draw_problems(config: StockConfig) -> Iterator[str]:
    for place, fields in enumerate(getattr(config, "further_draws", None) or ()):
        where = f"further_draws[{place}]"
        if not {"n_frequency", "random_loc_seed"} <= set(fields) <= _DRAW_FIELDS:
            yield f"{where}: got {sorted(fields)}, allowed {', '.join(sorted(_DRAW_FIELDS))}"
            continue
        try:
            FourierFTConfig(**fields)
        except ValueError as error:
            yield f"{where}: {error}"
        if basis(config) in ("random", "orthogonal"):
            yield f"{where}: a basis of random matrices, {basis(config)!r}, has one seed"


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
