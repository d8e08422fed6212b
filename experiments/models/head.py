"""The head that a task needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head that a task needs."""

    kind: str
    """Kind: points, classification, regression, images, language, denoising or none."""
    labels: int = 0
    """Width of the output."""
    names: tuple[str, ...] = ()
    """Names of the classes in the order of the output; empty: they are numbers."""
    inputs: int = 0
    """Width of the input if the task decides it."""
