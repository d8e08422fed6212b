"""Check before training, from the sizes alone, that a setting can learn.

AdamW moves a coefficient by at most about one learning rate per step. One coefficient's cosine has
the Frobenius norm a = alpha / sqrt(2 d1 d2), so n coefficients move DeltaW by about lr * a *
sqrt(n) per step, and all steps of a schedule with mean factor s by at most lr * steps * s * a *
sqrt(n). Against |W| this tells settings that cannot work: the default learning rates of other
methods (1e-4) leave FourierFT where it started.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from experiments.training.train_config import Schedule, Train
from fourierft.layer import adapted_layers
from fourierft.spectrum import atom_norm
from fourierft.step_sizes import weight_norm

MIN_REACH = 0.02
"""Smallest useful share of |W| that the whole training can move DeltaW by."""
USEFUL_STEP = 2e-3
"""Share of |W| per step from which a short training is short, not hopeless: SmolLM2 learns E2E at
9e-3 within forty steps, MiniLM's recipe has 2e-2."""


def check_setting(net: nn.Module, train: Train, rows: int) -> dict[str, Any]:
    """Estimate how far training can move each FourierFT layer.

    Args:
        net: the network after `Method.apply`.
        train: the recipe.
        rows: number of training rows.

    Returns:
        `steps`; `layers` measured; medians over them of `step` (|one update of DeltaW| / |W|),
        `reach` (all updates, at most) and `start` (|DeltaW at the random start| / |W|); `travel`,
        the farthest a coefficient can move (median too); `warnings`. Networks without FourierFT
        layers give steps and no layers.
    """
    updates = math.ceil(rows / train.batch_size)  # per epoch
    steps = train.max_steps or math.ceil(updates * train.epochs)
    mean_factor = {Schedule.constant: 1 - train.warmup_ratio / 2}.get(train.schedule, 0.5)
    moves, starts, travels = [], [], []
    for layer in adapted_layers(net).values():
        size = max(weight_norm(layer), 1e-12)
        for adapter, coefficients in layer.fourierft_spectrum.items():
            atom = atom_norm(
                (layer.out_features, layer.in_features), layer.fourierft_scaling[adapter]
            )
            share = atom * math.sqrt(coefficients.numel()) / size
            rate = train.learning_rate / (share if train.relative_rate else 1.0)
            moves.append(rate * share)
            travels.append(rate * steps * mean_factor)
            starts.append(atom * float(coefficients.detach().float().norm()) / size)
    if not moves:
        return {"steps": steps, "layers": 0, "warnings": []}
    step, start, travel = _median(moves), _median(starts), _median(travels)
    reach = step * steps * mean_factor
    warnings = []
    if reach < MIN_REACH and step < USEFUL_STEP:
        warnings.append(
            f"the adapter cannot learn: {steps} steps at train.learning_rate="
            f"{train.learning_rate:g} move DeltaW by at most {reach:.2%} of |W| ({step:.1e} per "
            "step); the paper's settings reach several times |W|. Raise train.learning_rate (the "
            "paper uses 1e-2 to 3e-1), method.alpha or the number of steps; on networks that "
            "are not in the paper start with method.scaling=norm method.alpha=25 method.init=zeros "
            "train.learning_rate=1e-3"
        )
    elif start > 0 and travel < 1.0:
        warnings.append(
            f"the adapter can hardly leave its random start: {steps} steps at train.learning_rate="
            f"{train.learning_rate:g} move a coefficient by at most {travel:.2g}, it starts at a "
            "random value of size 1; train longer, raise train.learning_rate (the paper uses 1e-2 "
            "to 3e-1) or start at zero with method.init=zeros"
        )
    if max(starts) > 1.0:
        warnings.append(
            f"the random start drowns the base model: |DeltaW| is {max(starts):.1f} times |W| in "
            f"one layer before the first step ({start:.1f} in the median); lower method.alpha or "
            "start at zero with method.init=zeros"
        )
    return {
        "steps": steps,
        "layers": len(moves),
        "step": step,
        "reach": reach,
        "start": start,
        "travel": travel,
        "warnings": warnings,
    }


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
