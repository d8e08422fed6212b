"""AdaLoRA's budget within a training: ranks are taken away by importance, from step to step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

STATE = "budget.safetensors"
"""Averaged importances and ranks left, beside the adapter of a checkpoint."""


class BudgetSchedule(TrainerCallback):
    """Tells PEFT's allocator of every step, and of how many there will be.

    Args:
        net: a PeftModel with one AdaLoRA adapter.
        warmup: share of all steps before the first rank is taken.
        final: share of all steps after the last one is.
    """

    def __init__(self, net: nn.Module, warmup: float, final: float):
        self.net, self.warmup, self.final = net, warmup, final

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Lay the schedule over the run's steps; continue where a checkpoint left it."""
        configuration, total = self.net.active_peft_config, state.max_steps
        # Importances exist from the first step on, so the last allocation is the second at least.
        final = max(min(int(self.final * total), total - 2), 0)
        configuration.total_step, configuration.tfinal = total, final
        configuration.tinit = max(min(int(self.warmup * total), total - final - 1), 0)
        if state.global_step:
            load_state(self.net, Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prune ranks before the gradients, which give their importance, are reset."""
        if getattr(kwargs.get("optimizer"), "step_was_skipped", False):
            # They overflowed in half precision. Averages of importance would never be finite again.
            for value in self.net.parameters():
                if value.grad is not None:
                    value.grad.zero_()
        if state.max_steps > 1:  # a single step has no importance to go by
            self.net.base_model.update_and_allocate(state.global_step + 1)


def compute_orthogonality(net: nn.Module) -> torch.Tensor:
    """Return the mean of |P^T P - I| and |Q Q^T - I| (Frobenius) over all matrices.

    This is PEFT's formula; 2303.10512 squares the norms.
    """
    norms = []
    for name, value in net.base_model.model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            product = value @ value.T if ".lora_A." in name else value.T @ value  # (init_r, init_r)
            unit = torch.eye(len(product), dtype=product.dtype, device=product.device)
            norms.append(torch.linalg.norm(product - unit))
    return torch.stack(norms).mean()


def find_nonzero_ranks(net: nn.Module) -> dict[str, list[bool]]:
    """Return for each rank of each adapted matrix whether its singular value is nonzero."""
    return {
        name: (value != 0).flatten().tolist()
        for name, value in net.base_model.model.named_parameters()
        if ".lora_E." in name
    }


def save_state(net: nn.Module, folder: Path) -> None:
    """Write the schedule's averages and ranks beside the adapter of a checkpoint."""
    allocator = net.base_model.rankallocator
    averages = {"sensitivity": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
    tensors = {
        f"{kind}/{name}": value.cpu().contiguous()
        for kind, values in averages.items()
        for name, value in values.items()
    }
    ranks = json.dumps(net.active_peft_config.rank_pattern)
    save_file(tensors, folder / STATE, metadata={"rank_pattern": ranks})


def load_state(net: nn.Module, folder: Path) -> None:
    """Load into the allocator what `save_state` wrote."""
    allocator = net.base_model.rankallocator
    averages = {"sensitivity": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
    devices = {name: value.device for name, value in net.base_model.model.named_parameters()}
    with safe_open(folder / STATE, "pt") as file:
        net.active_peft_config.rank_pattern = json.loads(file.metadata()["rank_pattern"])
        for key in file.keys():  # noqa: SIM118  (not a mapping)
            kind, _, name = key.partition("/")
            averages[kind][name] = file.get_tensor(key).to(devices[name])
            allocator.ipt[name] = torch.zeros_like(averages[kind][name])  # of one step, made anew
