"""Build what a configuration describes: network, adapter, trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.results.identity import to_plain

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config
    from experiments.tasks import Data
    from experiments.training.trainer import Trainer


def base(config: Config, weights: str | None) -> nn.Module:
    """The base model with a fresh head, drawn from a stream of its own."""
    import torch

    from experiments.seeding import stream

    torch.manual_seed(stream(config.seed, "head"))
    return config.model.build(config.task.head, weights, device=config.train.device)


def build(config: Config, weights: str | None) -> nn.Module:
    """The network to train; the adapter is drawn from another stream than the head."""
    import torch

    from experiments.seeding import stream

    net = base(config, weights)
    torch.manual_seed(stream(config.seed, "adapter"))
    return config.method.apply(net, config.model.head)


def trainer_of(
    config: Config,
    net: nn.Module,
    data: Data,
    place: Path,
    check: Callable[[], None] = lambda: None,
) -> Trainer:
    """The trainer that a configuration describes, writing into the run folder `place`.

    `check` is called before whatever is written.
    """
    from experiments.results.history import History
    from experiments.training.trainer import Trainer

    return Trainer(
        net,
        data,
        train=config.train,
        task=config.task,
        method=config.method,
        head=config.model.head,
        run=place,
        history=History(place, config.tracking.log),
        seed=config.seed,
        check=check,
    )


def counting(net: Any, head: list[str]) -> dict[str, int]:
    """Trainable and stored numbers of the network, as a record holds them."""
    from fourierft.counting import count

    return to_plain(count(net, head))
