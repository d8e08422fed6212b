"""Methods that PEFT implements: LoRA by name, any other by its `peft_type` and fields."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import ConfigError, DataError, UserError
from experiments.methods.method import Method

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


COMPARED = (
    *("peft_type", "target_modules", "r", "lora_alpha", "n_frequency", "scaling", "scaling_mode"),
    *("random_loc_seed", "frequency_bias_center", "frequency_bias_bandwidth", "basis"),
    *("orientation", "entry_rows"),
)
"""Fields that must agree between an adapter's configuration and its run's."""


@dataclass(kw_only=True)
class Adapter(Method):
    """A PEFT tuner on the modules that `targets` names."""

    targets: list[str]
    """Names (last components) of the modules to adapt."""

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        if not self.targets:
            yield "method.targets=[]: must name at least one module"

    def configuration(self, head: Sequence[str]) -> PeftConfig:
        """Return PEFT's configuration of this method."""
        raise TypeError(f"{type(self).__name__} has no PEFT configuration")

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """See `Method.apply`."""
        import peft
        import torch

        try:
            configuration = self.configuration(head)
            if isinstance(getattr(configuration, "init_lora_weights", None), str) and any(
                value.is_meta for value in net.parameters()
            ):  # shapes have no decomposition to start from
                configuration.init_lora_weights = True
            problems = list(self.unfit(net, configuration))
            if problems:
                raise ConfigError(f"method={self.name} cannot adapt this model", problems)
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message=".*is_gradient_checkpointing", category=FutureWarning
                )
                return peft.get_peft_model(net, configuration)
        except UserError:
            raise
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ConfigError(f"method={self.name} cannot adapt this model: {error}") from error

    def unfit(self, net: nn.Module, configuration: PeftConfig) -> Iterator[str]:
        """Yield every reason why the configuration does not fit this network."""
        wanted = getattr(configuration, "target_modules", None)
        if isinstance(wanted, str) or not wanted:
            return  # a pattern, or PEFT's own choice
        yield from find_unmatched(net, wanted)

    def save(self, net: nn.Module, folder: Path) -> None:
        """See `Method.save`; the folder loads with `PeftModel.from_pretrained`."""
        configuration = net.active_peft_config
        for name, value in vars(configuration).items():
            if isinstance(value, set):  # in the order of the hashes, another in every process
                setattr(configuration, name, sorted(value))
        # Told not to look: PEFT would ask the hub at every save whether the vocabulary has grown.
        embeddings = "embed" in str(getattr(configuration, "target_modules", None))
        # Neither a card, which takes longer than small weights: `experiments.commands.export`
        # writes one that knows the scores.
        net.create_or_update_model_card = lambda *_: None
        try:
            net.save_pretrained(folder, save_embedding_layers="auto" if embeddings else False)
        finally:
            del net.create_or_update_model_card

    def restore(self, net: nn.Module, folder: Path, *, merged: bool = True) -> nn.Module:
        """See `Method.restore`."""
        from peft import PeftModel

        import fourierft  # noqa: F401  (adapters that stock PEFT does not know)

        self._check(folder)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message=".*is_gradient_checkpointing", category=FutureWarning
                )
                # AdaLoRA's pattern names parameters; PEFT looks for modules, and finds them later.
                warnings.filterwarnings("ignore", message=".*rank_pattern keys")
                adapted = PeftModel.from_pretrained(net, folder)
                return _merge(adapted) if merged else adapted
        except AttributeError as error:
            raise UserError(f"method={self.name}: cannot be merged ({error})") from error
        except Exception as error:  # PEFT, safetensors and the system raise many kinds
            raise DataError(f"{folder}: the adapter cannot be read ({error})") from error

    def _check(self, folder: Path) -> None:
        """Raise DataError if an adapter's configuration differs from this method's."""
        path = folder / "adapter_config.json"
        expected = self.configuration([]).to_dict()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            stored = {name: _to_json(found.get(name)) for name in COMPARED}
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{folder}: the adapter cannot be read ({error})") from error
        wanted = {name: _to_json(expected.get(name)) for name in COMPARED}
        wrong = [
            f"{name}: found {stored[name]!r}, expected {wanted[name]!r}"
            for name in COMPARED
            if stored[name] != wanted[name]
        ]
        if wrong:
            raise DataError(f"{path}: not the configuration of method={self.name}", wrong)


def _to_json(value: Any) -> Any:
    """Return a field of PEFT's as JSON holds it, names in any order."""
    value = getattr(value, "value", value)
    return sorted(value, key=str) if isinstance(value, (list, set, tuple)) else value


def _merge(net: nn.Module) -> nn.Module:
    """Return the base model with adapter and head in its own weights.

    Trained heads are put in place of PEFT's wrappers first: most tuners can only unwrap a head that
    is a single layer.
    """
    from peft.utils import ModulesToSaveWrapper

    for path, module in list(net.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            net.set_submodule(path, module.modules_to_save[module.active_adapters[0]])
    return net.merge_and_unload()


def find_unmatched(net: nn.Module, targets: Iterable[str]) -> Iterator[str]:
    """Yield every target that names no module of the network."""
    names = {name: module for name, module in net.named_modules() if name}
    known = sorted(
        {
            name.rpartition(".")[2]
            for name, module in names.items()
            if get_matrix_shape(module) is not None
        }
    )
    for target in sorted(targets):
        if not any(name == target or name.endswith(f".{target}") for name in names):
            yield (
                f"method.targets={target}: no such module "
                f"(modules with a matrix: {', '.join(known)})"
            )


def get_matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return the shape of the module's weight matrix, None if it has none."""
    shape = getattr(getattr(module, "weight", None), "shape", ())
    return tuple(shape) if len(shape) == 2 else None


@dataclass(kw_only=True)
class LoRA(Adapter):
    """LoRA through PEFT: h = W0 x + (alpha / r) B A x with rank-r A and B."""

    r: int
    """Rank."""
    alpha: float
    """Numerator of the scale alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input."""

    @property
    def shardable(self) -> bool:
        """See `Method.shardable`."""
        return True

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        yield from super().problems()
        if self.r < 1:
            yield f"method.r={self.r}: must be at least 1"
        if not 0 < self.alpha < math.inf:
            yield f"method.alpha={self.alpha}: must be positive"
        if not 0 <= self.dropout < 1:
            yield f"method.dropout={self.dropout}: must be in [0, 1)"

    def configuration(self, head: Sequence[str]) -> PeftConfig:
        """See `Adapter.configuration`."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.targets),
            modules_to_save=list(head) or None,
        )


@dataclass(kw_only=True)
class Peft(Adapter):
    """Any PEFT method, as a baseline without code."""

    peft_type: str
    """PEFT's name of the method: LORA, VERA, ..."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of that method's PEFT configuration."""

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        yield from super().problems()
        if self.peft_type == "ADALORA":  # without its schedule it would be another method
            yield (
                "method.peft_type=ADALORA: its rank schedule needs steps of its own in training, "
                "which method=adalora has"
            )

    def configuration(self, head: Sequence[str]) -> PeftConfig:
        """See `Adapter.configuration`.

        ConfigError names unknown types and fields with what is allowed.
        """
        from peft import TaskType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        import fourierft  # noqa: F401  (peft_type=FOURIERFT means the tuner of this package)

        if self.peft_type not in PEFT_TYPE_TO_CONFIG_MAPPING:
            types = ", ".join(
                sorted(str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
            )
            raise ConfigError(
                f"method.peft_type={self.peft_type}: unknown to PEFT (allowed: {types})"
            )
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type]
        known = {entry.name for entry in fields(kind) if entry.init}
        unknown = sorted(set(self.fields) - known)
        if unknown:
            allowed = f"unknown (allowed: {', '.join(sorted(known))})"
            raise ConfigError(
                f"method.peft_type={self.peft_type}: wrong fields",
                [f"method.fields.{name}={self.fields[name]}: {allowed}" for name in unknown],
            )
        if head and "modules_to_save" not in known:
            raise ConfigError(
                f"method.peft_type={self.peft_type}: cannot train the task head "
                f"({', '.join(head)}) beside it"
            )
        if "target_modules" not in known and "task_type" not in self.fields:
            raise ConfigError(
                f"method.peft_type={self.peft_type}: adapts the model's inputs instead of modules; "
                f"PEFT then needs method.fields.task_type (allowed: {', '.join(TaskType)})"
            )
        given = {
            "target_modules": list(self.targets),
            "modules_to_save": list(head) or None,
        } | self.fields
        return kind(**{name: value for name, value in given.items() if name in known})
