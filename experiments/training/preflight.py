"""Check before training, from the weights alone, that a setting can learn.

AdamW moves a coefficient by at most about one learning rate per step. One coefficient's cosine has
the Frobenius norm a = alpha / sqrt(2 d1 d2), so n coefficients move DeltaW by about lr * a *
sqrt(n) per step, and all steps of a schedule with mean factor s by at most lr * steps * s * a *
sqrt(n). Against |W| this tells settings that cannot work: the default learning rates of other
methods (1e-4) leave FourierFT where it started, and others move W by a tenth of itself per step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from experiments.errors import ConfigError
from experiments.training.train_config import Schedule, Train
from fourierft.layer import adapted_layers
from fourierft.step_sizes import update_norm, weight_norm

MIN_REACH = 0.02
"""Smallest useful share of |W| that the whole training can move DeltaW by."""
USEFUL_STEP = 2e-3
"""Share of |W| per step from which a short training is short, not hopeless: SmolLM2 learns E2E at
9e-3 within forty steps, MiniLM's recipe has 2e-2."""
LARGE_STEP = 0.05
"""Share of |W| per step that is too large: SmolLM2's best losses on E2E were at 0.009 and 0.028,
and 0.089 lost 0.24 (docs/contests/smollm2_e2e.json)."""
FEW_STEPS, ENOUGH_STEPS = 50, 100
"""Optimizer steps that are too few with values that are not the paper's, and a number to begin
with (docs/own_data.md)."""
ADVICE = "method.init=zeros train.relative_rate=true train.learning_rate=1e-2"
"""Setting to begin with on networks that the paper has no recipe for: steps of 1 % of each |W|."""


def check_setting(net: nn.Module, train: Train, rows: int, *, own: bool = False) -> dict[str, Any]:
    """Measure the start of each FourierFT layer, and estimate how far training can move it.

    Args:
        net: the network after `Method.apply`.
        train: the recipe.
        rows: number of training rows.
        own: the values are not the paper's for this network, so that large steps and few steps are
            warned of.

    Returns:
        `steps`; `layers` measured; `by_layer`, by name, with `start` (|DeltaW before training| /
        |W|) and `step` (|one update of DeltaW| / |W|); medians over the layers of `start`, `step`,
        `coefficient_step` (a single coefficient's part of it), `reach` (all updates, at most) and
        `travel` (the farthest a coefficient can move); `warnings`. Networks without FourierFT
        layers give steps and no layers.

    Raises:
        ConfigError: `train.relative_rate=true`, and weights are zero.
    """
    updates = math.ceil(rows / train.batch_size)  # per epoch
    steps = train.max_steps or math.ceil(updates * train.epochs)
    mean_factor = {Schedule.constant: 1 - train.warmup_ratio / 2}.get(train.schedule, 0.5)
    by_layer: dict[str, dict[str, float]] = {}
    parts, travels, values = [], [], []
    layers = adapted_layers(net)
    norms = {name: weight_norm(layer) for name, layer in layers.items()}
    zero = [name for name, norm in norms.items() if norm == 0]
    if train.relative_rate and zero:
        raise ConfigError(
            "train.relative_rate=true: no step is a share of a weight that is zero (leave these "
            "layers out, or set train.relative_rate=false and a train.learning_rate for it)",
            zero,
        )
    for name, layer in layers.items():
        for adapter, coefficients in layer.fourierft_spectrum.items():
            share = update_norm(layer, adapter) / max(norms[name], 1e-12)
            rate = train.learning_rate / (share if train.relative_rate else 1.0)
            root = math.sqrt(coefficients.numel())
            value = float(coefficients.detach().float().norm()) / root
            by_layer[name] = {"start": share * value, "step": rate * share}
            parts.append(rate * share / root)
            travels.append(rate * steps * mean_factor)
            values.append(value)
    few = [] if not own or train.max_steps else list(_find_few_steps(steps, updates))
    if not by_layer:
        return {"steps": steps, "layers": 0, "warnings": few}
    step, start = (_median([one[key] for one in by_layer.values()]) for key in ("step", "start"))
    found: dict[str, Any] = {
        "steps": steps,
        "layers": len(by_layer),
        "by_layer": by_layer,
        "step": step,
        "coefficient_step": _median(parts),
        "reach": step * steps * mean_factor,
        "start": start,
        "travel": _median(travels),
    }
    return found | {"warnings": [*few, *_find_faults(found, train, _median(values), own)]}


def describe_setting(checks: dict[str, Any]) -> str | None:
    """Return a line on start and step of a network with FourierFT layers, None for others."""
    if not checks["layers"]:
        return None
    largest = max(one["step"] for one in checks["by_layer"].values())
    return (
        f"DeltaW starts at {_percent(checks['start'])} of |W|, a step moves it by "
        f"{_percent(checks['step'])} (median of {checks['layers']} layers; {_percent(largest)} at "
        "most)"
    )


def _find_few_steps(steps: int, updates: int) -> Iterator[str]:
    """Yield a warning if a training is too short for its few rows, whatever the method.

    Args:
        steps: of the whole training.
        updates: steps of an epoch.
    """
    if steps < FEW_STEPS:
        yield (
            f"few steps: {steps}, {updates} an epoch; with 300 rows {ENOUGH_STEPS} were better "
            f"than 30 (docs/own_data.md): train.epochs={math.ceil(ENOUGH_STEPS / updates)}"
        )


def _find_faults(found: dict[str, Any], train: Train, value: float, own: bool) -> Iterator[str]:
    """Yield a warning for each reason why the setting cannot learn, or loses what was known.

    Args:
        found: see `check_setting`.
        train: the recipe.
        value: size of a coefficient at the start, 0 for a start at zero.
        own: see `check_setting`.
    """
    rate = f"train.learning_rate={train.learning_rate:g}"
    step, start, travel = found["step"], found["start"], found["travel"]
    if found["reach"] < MIN_REACH and step < USEFUL_STEP:
        yield (
            f"the adapter cannot learn: {found['steps']} steps at {rate} move DeltaW by at most "
            f"{_percent(found['reach'])} of |W| ({step:.1e} per step); the paper's settings reach "
            "several times |W|. Raise train.learning_rate (the paper uses 1e-2 to 3e-1), "
            "method.alpha or the number of steps; on networks that are not in the paper start with "
            f"{ADVICE} (steps of 1 % of |W|)"
        )
    elif travel < value:
        yield (
            f"the adapter can hardly leave its random start: {found['steps']} steps at {rate} move "
            f"a coefficient by at most {travel:.2g}, it starts at {value:.2g}; train longer, raise "
            "train.learning_rate (the paper uses 1e-2 to 3e-1) or start at zero with "
            "method.init=zeros"
        )
    if (worst := max(one["start"] for one in found["by_layer"].values())) > 1.0:
        yield (
            f"the random start drowns the base model: |DeltaW| is {worst:.1f} times |W| in "
            f"one layer before the first step ({start:.1f} in the median); lower method.alpha or "
            "start at zero with method.init=zeros"
        )
    if own and step > LARGE_STEP:
        yield (
            f"large steps: each moves DeltaW by {_percent(step)} of |W| at {rate}; on SmolLM2 1 % "
            f"and 3 % were best, and 9 % clearly worse (docs/validation.md). Try {ADVICE} (1 %)"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
