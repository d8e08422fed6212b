"""Gradient of the coefficients: from dL/dW, or without ever computing it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bases.transform import Transform
from ..tensors import HALF, get_version

# So that the workspace does not grow with the batch: tokens whose spectra stay in a processor's
# cache. An accelerator takes more at once (bytes of both spectra; estimated, not measured).
_TOKENS_AT_ONCE = 256
_BYTES_AT_ONCE = 2**28
_MM_WIDENS = hasattr(torch.ops.aten.mm, "dtype")  # from torch 2.8 on
_KEPT_BYTES = 2**25  # largest analysis of an input that is kept for other layers with this input


class Spectra:
    """Analyses of one signal, kept until every layer that reads it has had its backward pass.

    Query and value read the same input: its spectrum is computed once. Kept from the first of
    these layers' backward passes to the last, and then no more.
    """

    def __init__(self, layers: int = 1) -> None:
        self.layers = layers
        """Number of backward passes still to come."""
        self.used = False
        """True once a backward pass has begun: later forward passes then start another one."""
        self.kept: dict[Any, Tensor] = {}

    def get_analysis(
        self, signal: Tensor, tokens: slice, kind: Any, analyse: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the analysis of some tokens of the signal (T, d)."""
        self.used = True
        # Autocast may round the input for some layers only.
        key = kind, signal.dtype, tokens.start, tokens.stop
        analysis = self.kept.get(key)
        if analysis is None:
            chunk = signal if len(signal) <= tokens.stop - tokens.start else signal[tokens]
            chunk = chunk.float() if chunk.dtype in HALF else chunk
            if signal.device.type != "cpu":
                # Zeros add nothing, and bound the lengths for which cuFFT makes plans.
                chunk = F.pad(chunk, (0, 0, 0, -len(chunk) % _TOKENS_AT_ONCE))
            analysis = analyse(chunk)
            if self.layers > 1 and 4 * signal.numel() <= _KEPT_BYTES:
                self.kept[key] = analysis
        return analysis

    def finish_layer(self) -> None:
        """Record the end of one layer's backward pass."""
        self.layers -= 1
        if self.layers <= 0:
            self.kept.clear()


# Input, its version and its spectra, which the graph owns.
_latest: tuple[weakref.ref, int, weakref.ref] | None = None


def share_spectra(x: Tensor) -> Spectra:
    """Return the analyses of an input for one more layer, shared with the layers before it.

    Inputs are told apart by the tensor object and its version. A new one is started once a
    backward pass has used the old, so that nothing computed from an input outlives a change of it
    through ``.data``.
    """
    global _latest
    latest = _latest  # another thread may replace it meanwhile
    version = get_version(x)
    spectra = latest[2]() if latest and latest[0]() is x and latest[1] == version else None
    if spectra is None or spectra.used:
        spectra = Spectra(0)
        _latest = weakref.ref(x), version, weakref.ref(spectra)
    spectra.layers += 1
    return spectra


class Signal(NamedTuple):
    """A factor of dL/dS and its analyses."""

    values: Tensor
    """Values, (T, d)."""
    spectra: Spectra


def coefficient_gradients(
    rows: Signal, columns: Signal, transforms: Sequence[Transform | None], sampled: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradient of S's coefficients, dL/dc without alpha, for dL/dS = ``rows^T columns``.

    Args:
        rows: (T, d1), the gradient of the output (for an (in, out) weight: the input).
        columns: (T, d2), the input (or the gradient of the output).
        transforms: Transforms of the adapters; None for no gradient.
        sampled: Per transform, True to avoid computing ``rows^T columns``.
    """
    product = None
    gradients: list[Tensor | None] = []
    for transform, samples in zip(transforms, sampled, strict=True):
        if transform is None:
            gradients.append(None)
        elif samples:
            gradients.append(_sampled(rows, columns, transform))
        else:
            if product is None:
                product = weight_gradient(rows.values, columns.values)
            gradients.append(transform.gradient(product))
    return gradients


def _sampled(rows: Signal, columns: Signal, transform: Transform) -> Tensor:
    total = None
    step = tokens_at_once(transform.shape, rows.values.device.type)
    for first in range(0, len(rows.values), step):
        tokens = slice(first, first + step)
        part = transform.sampled(
            rows.spectra.get_analysis(
                rows.values, tokens, transform.row_kind, transform.analyse_rows
            ),
            columns.spectra.get_analysis(
                columns.values, tokens, transform.column_kind, transform.analyse_columns
            ),
        )
        total = part if total is None else total + part
    return total


def tokens_at_once(shape: tuple[int, int], device: str) -> int:
    """Return how many tokens are analysed in one round, a multiple of `_TOKENS_AT_ONCE`."""
    if device == "cpu":
        return _TOKENS_AT_ONCE
    return max(_BYTES_AT_ONCE // (4 * sum(shape)) // _TOKENS_AT_ONCE, 1) * _TOKENS_AT_ONCE


def weight_gradient(rows: Tensor, columns: Tensor) -> Tensor:
    """Return dL/dS, ``rows^T columns``, (d1, d2), summed in float32 (float64 for float64).

    Rounded to half precision it would lose digits, and overflow under the loss scale of float16.
    """
    if rows.dtype not in HALF:
        return rows.t() @ columns
    if rows.is_cuda and _MM_WIDENS and not torch.is_grad_enabled():  # it has no second derivative
        return torch.mm(rows.t(), columns, out_dtype=torch.float32)
    total = rows.new_zeros(rows.shape[1], columns.shape[1], dtype=torch.float32)
    for r, c in zip(rows.split(4096), columns.split(4096), strict=True):
        total.addmm_(r.float().t(), c.float())
    return total
