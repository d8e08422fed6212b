"""Base class of methods: the trained part of a network, and how it is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback


@dataclass(kw_only=True)
class Method:
    """Base class of fine-tuning methods.

    `apply` decides which parameters get a gradient; the task head always does.
    """

    name: str
    """Name of the conf/method file; part of the run's path."""

    @property
    def trains_head_only(self) -> bool:
        """True if only the head is trained."""
        return False

    @property
    def trains_base(self) -> bool:
        """True if the weights of the base model are trained themselves."""
        return False

    @property
    def has_step_sizes(self) -> bool:
        """True if `train.relative_rate=true` works: the size of a step in each matrix is known."""
        return False

    @property
    def shardable(self) -> bool:
        """True if `train.sharding=fsdp` works: each parameter is used in its module alone."""
        return False

    def problems(self) -> Iterator[str]:
        """Yield every setting that the method cannot work with."""
        return iter(())

    def train_head_alone(self, net: nn.Module, head: Sequence[str]) -> None:
        """Train the parameters of the head and freeze all others of a network."""
        from fourierft.counting import in_head

        for name, parameter in net.named_parameters():
            parameter.requires_grad_(in_head(name, head))

    def penalty(self, net: nn.Module) -> Tensor | None:
        """Return the method's addition to the loss of a training batch, a scalar or None."""
        return None

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """Prepare a freshly built network for training.

        Args:
            net: the base model with its task head.
            head: names of the head's modules, trained fully.

        Returns:
            The network to train: `net` itself or a wrapper around it.
        """
        raise TypeError(
            f"{type(self).__name__} does not say what it trains"
        )  # a schema alone is not a method

    def callbacks(self, net: nn.Module, seed: int) -> list[TrainerCallback]:
        """Return the callbacks that the method needs between steps.

        Args:
            net: the network that `apply` returned.
            seed: seed of the run.
        """
        return []

    def checkpoint(self, net: nn.Module, folder: Path) -> None:
        """Write what a resumed run of a PEFT model needs: by default, what was trained."""
        self.save(net, folder)

    def save(self, net: nn.Module, folder: Path) -> None:
        """Write what was trained, head included, into an empty folder (safetensors, JSON)."""
        from safetensors.torch import save_file

        # Tied parameters appear once in named_parameters, as safetensors wants it.
        trained = {
            name: value.detach().cpu().contiguous()
            for name, value in net.named_parameters()
            if value.requires_grad
        }
        save_file(trained, folder / "trained.safetensors")

    def restore(self, net: nn.Module, folder: Path, *, merged: bool = True) -> nn.Module:
        """Load what `save` wrote into a freshly built base model.

        Args:
            net: the base model.
            folder: the folder that `save` filled.
            merged: True for a network without wrappers or adapters; False: as it was trained.

        Raises:
            DataError: nothing readable is there.
            UserError: the method adds modules, so a plain model cannot hold what was trained.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / "trained.safetensors"
        try:
            trained = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        parameters = dict(net.named_parameters())
        unfit = sorted(
            name
            for name, value in trained.items()
            if name not in parameters or parameters[name].shape != value.shape
        )
        if unfit:
            raise UserError(
                f"method={self.name}: trained what the base model does not have",
                unfit[:5] + ([f"and {len(unfit) - 5} more"] if len(unfit) > 5 else []),
            )
        with torch.no_grad():
            for name, value in trained.items():
                parameters[name].copy_(value)
        return net
