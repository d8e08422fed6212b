"""Build what a configuration describes: network, adapter, trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.device import select_device
from experiments.errors import UserError
from experiments.results import kept_adapter
from experiments.results.identity import to_plain
from experiments.run import data_cache
from experiments.training.train_config import Sharding

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config
    from experiments.tasks import Data
    from experiments.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The network, its processor and the data of a run."""

    processor: Any
    """The model's tokenizer, or whatever reads its inputs."""
    data: Data
    network: nn.Module
    """With the adapter in it."""


def build_base(config: Config, weights: str | None) -> nn.Module:
    """Build the base model with a fresh head, drawn from a stream of its own."""
    import torch

    from experiments.seeding import stream

    torch.manual_seed(stream(config.seed, "head"))
    return config.model.build(config.task.head, weights, device=config.training.device)


def build_network(config: Config, weights: str | None) -> nn.Module:
    """Build the network to train; the adapter is drawn from another stream than the head.

    Raises:
        UserError: the method trains nothing of this model.
    """
    import torch

    from experiments.seeding import stream

    network = build_base(config, weights)
    torch.manual_seed(stream(config.seed, "adapter"))
    network = config.method.apply(network, config.model.head)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"method={config.method.name}: selects no parameter of model={config.model.name}, "
            "so there is nothing to train"
        )
    return network


def restore_trained(config: Config, net: nn.Module, run_dir: Path) -> nn.Module:
    """Return a fresh base model with what a run kept beside its weights, where it computes."""
    net = config.method.restore(net, run_dir / kept_adapter.FOLDER, merged=False)
    if config.model.quantization is None:  # quantised weights are where they stay
        net = net.to(select_device(config.training.device))
    return net


def build_parts(config: Config, weights: str | None, dataset_path: str | None) -> Parts:
    """Processor, data and network, each of what lies where the first rank found it.

    Raises:
        UserError: the device, weights or data do not fit the run.
    """
    from experiments.training.backends import check_device, set_matmul
    from experiments.training.sharding import keep_no_weights

    check_device(config.training)  # of this rank, the first one's was checked before
    set_matmul(config.training)
    processor, data = data_cache.load(
        config.model, config.task, weights, dataset_path, device=config.training.device
    )
    network = build_network(config, weights)
    if config.training.sharding is Sharding.fsdp:
        keep_no_weights(network)
    return Parts(processor=processor, data=data, network=network)


def build_trainer(
    config: Config,
    network: nn.Module,
    data: Data,
    run_dir: Path,
    check: Callable[[], None] = lambda: None,
) -> Trainer:
    """Build the trainer that a configuration describes, writing into `run_dir`.

    `check` is called before whatever is written.
    """
    from experiments.results.history import History
    from experiments.training.trainer import Trainer

    kind = Trainer
    if config.training.sharding is Sharding.fsdp:
        from experiments.training.sharded_trainer import ShardedTrainer as kind

    return kind(
        network,
        data,
        train=config.training,
        task=config.task,
        method=config.method,
        head=config.model.head,
        run=run_dir,
        history=History(run_dir, config.tracking.log),
        seed=config.seed,
        check=check,
    )


def count_parameters(network: Any, head: list[str]) -> dict[str, int]:
    """Trainable and stored parameters of the network, as a record holds them."""
    from fourierft.counting import count

    return to_plain(count(network, head))
