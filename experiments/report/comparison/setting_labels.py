"""Labels of settings: what tells them from each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments.report.comparison import names
from experiments.report.comparison.seed_groups import Setting

SIZES = ("method.n", "method.r", "method.target_r", "method.width")
"""Fields that say how large an adapter is; a method has one of them."""
CONDITIONS = ("train.epochs", "train.max_steps")
"""Fields of `train` that are named wherever settings of a group differ in them."""
LONGEST = 5
"""Fields that a label names."""


def label_settings(settings: Sequence[Setting]) -> list[str]:
    """Return a label of every setting: its method, size, and what tells it from the others."""
    differing = _find_differing(settings)
    shared = {key for key in differing if key.startswith(("task.", "model.")) or key in CONDITIONS}
    by_method: dict[str, list[Setting]] = {}
    for one in settings:
        by_method.setdefault(one.run["method"], []).append(one)
    told = {method: shared | _find_differing(alike) for method, alike in by_method.items()}
    labels: list[str] = []
    counts: Counter[str] = Counter()
    for one in settings:
        method, identity = one.run["method"], one.first.identity
        size = next((key for key in SIZES if identity.get(key) is not None), None)
        keys = [key for key in identity if key in told[method] and key != size]
        named = [size, *sorted(keys)] if size else sorted(keys)
        parts = [f"{key.rpartition('.')[2]}={_format(identity[key])}" for key in named]
        name = str(identity.get("method.peft_type") or names.name_method(method))
        parts = [*parts[:LONGEST], *(["…"] if len(parts) > LONGEST else [])]
        label = ", ".join([name, *parts])
        counts[label] += 1  # the same settings from other weights, for one
        labels.append(label if counts[label] == 1 else f"{label} ({counts[label]})")
    return labels


def _find_differing(settings: Sequence[Setting]) -> set[str]:
    """Return the fields that not all of these settings have with one value."""
    from experiments.config.run_config import LATER

    identities = [one.first.identity for one in settings]
    keys = {key for identity in identities for key in identity} - {"seed", "recipe"}
    return {
        key
        for key in keys
        if len({str(identity.get(key)) for identity in identities}) > 1
        and all(key in identity or key in LATER for identity in identities)
    }


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else f"{value!s:.24}"
