"""Method: what of a network is trained, and how the trained part is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class Method:
    """A way to fine-tune.

    `apply` decides which parameters get a gradient; the task head always does.
    """

    name: str
    """Name of the conf/method file; part of the run's path."""

    @property
    def trains_head_only(self) -> bool:
        """True if nothing but the head gets a gradient."""
        return False

    @property
    def trains_base(self) -> bool:
        """True if the weights of the base model get a gradient themselves."""
        return False

    def problems(self) -> Iterator[str]:
        """Yields every setting that the method cannot work with."""
        return iter(())

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """Prepares a freshly built network for training.

        Args:
            net: the base model with its task head.
            head: names of the head's modules, trained fully.

        Returns:
            The network to train: `net` itself or a wrapper around it.
        """
        raise TypeError(
            f"{type(self).__name__} does not say what it trains"
        )  # a schema alone is no method

    def save(self, net: nn.Module, folder: Path) -> None:
        """Writes what was trained, head included, into an empty folder (safetensors, JSON)."""
        from safetensors.torch import save_file

        # Tied parameters appear once in named_parameters, as safetensors wants it.
        trained = {
            name: value.detach().cpu().contiguous()
            for name, value in net.named_parameters()
            if value.requires_grad
        }
        save_file(trained, folder / "trained.safetensors")
