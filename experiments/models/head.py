"""The head that a task asks of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a task asks of a model."""

    kind: str
    """points, classification, regression, images, language, denoising or none."""
    labels: int = 0
    """Width of the output."""
    inputs: int = 0
    """Width of the input where the task decides it."""
