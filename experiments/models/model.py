"""Model: where the weights come from, how a network is built, what the methods may adapt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from experiments.hub import Download
    from experiments.hub.fingerprints import Files
    from experiments.models.head import Head


class Quantization(Enum):
    """How bitsandbytes stores frozen weights."""

    nf4 = "nf4"
    int8 = "int8"


@dataclass(kw_only=True)
class Model:
    """A base model.

    `build` returns a network whose forward takes a collated batch and returns a loss and logits.
    """

    name: str
    """Name of the conf/model file; part of the run's path."""
    heads: list[str]
    """Kinds of task head that this model can carry."""
    attention: list[str]
    """Modules that the paper adapts (query and value); what a method's `targets` refers to."""
    linear: list[str] = field(default_factory=list)
    """Every linear module of a block, for methods that adapt all of them."""
    head: list[str] = field(default_factory=list)
    """Modules of the task head, trained fully and counted apart."""
    path: str | None = None
    """Local folder with weights and tokenizer (local)."""
    pretrained: bool = True
    """false: full size, random weights, nothing downloaded."""
    quantization: Quantization | None = None
    """nf4 (4 bits, scales quantised too, as in QLoRA) or int8 for the frozen weights of causal
    language models; null: none."""

    def problems(self) -> Iterator[str]:
        """Yield every setting that the model cannot be built with."""
        if self.quantization is not None:
            asked = f"model.quantization={self.quantization.value}"
            if not self.quantisable:
                yield (
                    f"{asked}: model={self.name} cannot be quantised "
                    "(allowed: LLaMA and other causal language models of plain linear layers)"
                )
            elif not self.pretrained:
                yield f"{asked}: needs pretrained weights (allowed with pretrained=false: null)"

    @property
    def factor(self) -> int:
        """Pixels that the sides of an image must be a multiple of."""
        return 1

    @property
    def quantisable(self) -> bool:
        """True if `quantization` can be set."""
        return False

    def locate(self, offline: bool = False) -> str | None:
        """Folder or repository of the weights, None if there are none to load.

        Raises HubUnavailable within seconds.
        """
        return None

    def downloads(self) -> list[Download]:
        """What `processor` and `build` read of the hub where no folder is given."""
        return []

    def inputs(self) -> dict[str, Files]:
        """Files that the base model is made of, by what they are.

        What is not on this machine is left out; the network is never asked.
        """
        return {}

    def processor(self, source: str | None) -> Any:
        """Tokenizer or image processor of the weights at `source`.

        None if the task's data need none.
        """
        return None

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """Build the network with a fresh head.

        Args:
            head: what the task asks of the model.
            source: where the pretrained weights are (`locate`), None for random weights.
            meta: allocate nothing: shapes only, for counting.
            device: `train.device`: quantised weights are made where they stay, on a GPU if there is
                one unless this is cpu; the trainer moves all others.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it is built"
        )  # a schema alone is no model

    def plain(self, net: nn.Module, source: str | None) -> Any:
        """What the library of the architecture saves (`save_pretrained`) and loads again.

        Args:
            net: the network with all that was trained in its own weights, without adapters.
            source: where the base weights are.

        Returns:
            None if no library knows this architecture.
        """
        return net if hasattr(net, "save_pretrained") else None
