"""Training with FSDP2: every rank keeps a part of all weights, gradients and averages.

accelerate shards the network, one transformer block at a time. What is written is that of one
process: checkpoints and adapters are gathered on the first rank, and a checkpoint resumes on any
number of ranks, sharded or not.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from experiments.training.sharding import find_block_classes
from experiments.training.trainer import Trainer

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"


class ShardedTrainer(Trainer):
    """A `Trainer` whose ranks share the network among them."""

    def __init__(self, net: nn.Module, *args: Any, **kwargs: Any) -> None:
        self._whole = _copy_without_values(net)
        super().__init__(net, *args, **kwargs)

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator; on a CPU it would silently replicate the network instead."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        plugin = getattr(state, "fsdp_plugin", None)
        if plugin is None:
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            state.fsdp_plugin, state.distributed_type = plugin, DistributedType.FSDP
            # As accelerate does on a GPU: its state gives this type back to whoever asks.
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True
        plugin.transformer_cls_names_to_wrap = find_block_classes(self.model)
        # bf16 means autocast over fp32 weights, as everywhere else.
        plugin.mixed_precision_policy = None

    def collect(self, frozen: bool = False) -> nn.Module:
        """Gather what is trained; every rank must call this.

        Args:
            frozen: gather the frozen parameters too.

        Returns:
            On the first rank a network on the CPU, whose other parameters are on the meta device.
        """
        options = StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=not frozen
        )
        state = get_model_state_dict(self.model, options=options)
        if self.is_world_process_zero():
            self._whole.load_state_dict(state, strict=False, assign=True)
            if hasattr(self._whole, "tie_weights"):
                self._whole.tie_weights()
        return self._whole

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint as one process does."""
        adapted = isinstance(self.network, PeftModel)
        net = self.collect(frozen=not adapted)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            if adapted:
                self.method.checkpoint(net, folder)
            else:
                net.save_pretrained(folder)

    def _prepare_for_training(self, max_steps: int, loader: Any, checkpoint: str | None) -> Any:
        if checkpoint is not None:  # read while each rank still has the whole network
            self.is_fsdp_enabled = False
            self._load_from_checkpoint(checkpoint)
            self.is_fsdp_enabled = True
        if self.accelerator.native_amp:  # accelerate does this for replicated networks only
            self.accelerator.prepare_model(self.model, device_placement=False, evaluation_mode=True)
        prepared = super()._prepare_for_training(max_steps, loader, checkpoint)
        if not isinstance(self.model, FSDPModule):  # each rank would train alone, on its own rows
            raise RuntimeError("accelerate did not shard the network")
        return prepared

    def _load_from_checkpoint(self, folder: str, model: nn.Module | None = None) -> None:
        if not isinstance(self.model, FSDPModule):
            super()._load_from_checkpoint(folder, model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        state["state"] = {
            key: {name: _gather(value) for name, value in averages.items()}
            for key, averages in state["state"].items()
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        for key, averages in state["state"].items():
            for name, value in averages.items():
                averages[name] = _scatter(value, parameters[key])
        self.optimizer.load_state_dict(state)
        scheduler = torch.load(folder / SCHEDULER, map_location="cpu", weights_only=True)
        self.lr_scheduler.load_state_dict(scheduler)


def _copy_without_values(net: nn.Module) -> nn.Module:
    """Copy the structure of a network; the parameters are on the meta device."""
    empty = {
        id(value): nn.Parameter(torch.empty_like(value, device="meta"), value.requires_grad)
        for value in net.parameters()
    }
    return copy.deepcopy(net, empty)


def _gather(value: Any) -> Any:
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _scatter(value: Any, parameter: Tensor) -> Any:
    """Return this rank's part of an average, where the parameter has parts."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    mesh = parameter.device_mesh
    value = value.to(mesh.device_type)
    return distribute_tensor(value, mesh, parameter.placements, src_data_rank=None)
