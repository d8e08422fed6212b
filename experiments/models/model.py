"""Base class of models: source of the weights, the network, and the modules to adapt."""

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
from experiments.results.identity import LOCAL


class Quantization(Enum):
    """Storage of frozen weights by bitsandbytes."""

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
    """Kinds of task head that this model supports."""
    attention: list[str]
    """Modules that the paper adapts (query and value), the usual `targets` of methods."""
    linear: list[str] = field(default_factory=list)
    """Every linear module of a block, for methods that adapt all of them."""
    head: list[str] = field(default_factory=list)
    """Modules of the task head, trained fully and counted apart."""
    path: str | None = field(default=None, metadata=LOCAL)
    """Local folder with weights and tokenizer."""
    origin: str | None = field(default=None, metadata=LOCAL)
    """Origin and licence of weights that are not the published ones, for logs and reports."""
    pretrained: bool = True
    """Use pretrained weights; false: full size, random weights, nothing downloaded."""
    quantization: Quantization | None = None
    """Format of the frozen weights of causal language models: nf4 (4 bits, scales quantised too, as
    in QLoRA) or int8; null: not quantised."""

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

    @property
    def shardable(self) -> bool:
        """True if `train.sharding=fsdp` can divide the network, block by block."""
        return False

    def locate(self, offline: bool = False) -> str | None:
        """Return folder or repository of the weights, None if there are none to load.

        Raises HubUnavailable within seconds if they are not available.
        """
        return None

    def downloads(self) -> list[Download]:
        """Return the files that `processor` and `build` read of the hub if no folder is given."""
        return []

    def inputs(self) -> dict[str, Files]:
        """Return the files of the base model by kind.

        Files that are not on this machine are left out; the network is never used.
        """
        return {}

    def processor(self, source: str | None, *, device: str = "auto") -> Any:
        """Return the tokenizer or image processor of the weights at `source`.

        None if the data need none.

        Args:
            source: see `build`.
            device: `train.device`, for processors that compute.
        """
        return None

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """Build the network with a fresh head.

        Args:
            head: what the task asks of the model.
            source: folder or repository of the weights (see `locate`), None for random weights.
            meta: build on the meta device, for counting.
            device: `train.device`: quantised weights are created on a GPU if there is one, unless
                this is cpu; the trainer moves all others.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it is built"
        )  # a schema alone is not a model

    def plain(self, net: nn.Module, source: str | None) -> Any:
        """Return the model as its library saves (`save_pretrained`) and loads it.

        Args:
            net: the network with all that was trained in its own weights, without adapters.
            source: folder or repository of the base weights.

        Returns:
            The model, or None if no library knows this architecture.
        """
        return net if hasattr(net, "save_pretrained") else None
