"""The scale of adapters at run time, as PEFT's LoRA layers have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


class AdapterScales(BaseTunerLayer):
    """Alphas of a layer's adapters: that of the configuration, and the one in use.

    PEFT, transformers and diffusers call these methods. The scale is neither saved nor merged
    anew: files hold what was trained.
    """

    def __init__(self) -> None:
        self.fourierft_alpha: dict[str, float] = {}
        """Alpha of the configuration."""
        self.fourierft_scaling: dict[str, float] = {}
        """Alpha in use."""

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set an adapter's alpha to ``scale`` times that of its configuration.

        An adapter that this layer has not is ignored.

        Raises:
            ValueError: The adapter is merged.
        """
        if adapter in self.fourierft_alpha:
            self._set_alpha(adapter, scale * self.fourierft_alpha[adapter])

    def scale_layer(self, scale: float) -> None:
        """Multiply the alphas in use of all active adapters by ``scale``; see `set_scale`."""
        for adapter in self.active_adapters:
            if adapter in self.fourierft_scaling:
                self._set_alpha(adapter, scale * self.fourierft_scaling[adapter])

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the alphas of all active adapters by ``scale``; None restores the configured."""
        for adapter in self.active_adapters:
            if adapter in self.fourierft_scaling:
                now, configured = self.fourierft_scaling[adapter], self.fourierft_alpha[adapter]
                self._set_alpha(adapter, configured if scale is None else now / scale)

    def _set_alpha(self, adapter: str, alpha: float) -> None:
        if alpha != self.fourierft_scaling[adapter] and adapter in self.merged_adapters:
            raise ValueError(
                f"scale: adapter {adapter!r} is merged with its present scale; call "
                "unmerge_adapter() first"
            )
        self.fourierft_scaling[adapter] = alpha


@contextmanager
def rescale_adapter_scale(model: nn.Module, multiplier: float) -> Iterator[None]:
    """Multiply the scales of all adapters of a model inside the block, as PEFT's does for LoRA.

    Args:
        model: Any module with FourierFT layers.
        multiplier: Factor.

    Raises:
        TypeError: ``multiplier`` is not a number.
        ValueError: There are no such layers, or an adapter is merged.
    """
    if not isinstance(multiplier, Real):
        raise TypeError(f"multiplier: got {multiplier!r}, allowed a number")
    layers = [module for module in model.modules() if isinstance(module, AdapterScales)]
    if not layers:
        raise ValueError("rescale_adapter_scale: the model has no FourierFT layers")
    if merged := sorted({name for layer in layers for name in layer.merged_adapters}):
        raise ValueError(
            f"rescale_adapter_scale: {', '.join(merged)} merged; call unmerge_adapter() first"
        )
    before = [dict(layer.fourierft_scaling) for layer in layers]
    try:
        for layer in layers:
            for adapter, alpha in layer.fourierft_scaling.items():
                layer.fourierft_scaling[adapter] = alpha * multiplier
        yield
    finally:
        for layer, alphas in zip(layers, before, strict=True):
            layer.fourierft_scaling.update(alphas)
