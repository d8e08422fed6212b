"""The gradient of the coefficients: from dL/dW, or without ever making it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .transform import Transform

HALF = (torch.float16, torch.bfloat16)
_TOKENS_AT_ONCE = 256  # analysed; the workspace then does not grow with the batch
_KEPT_BYTES = 2**25  # largest analysis of an input that is kept for the other layers that see it


class Spectra:
    """Analyses of one signal, kept while other layers that see it still wait for them.

    Query and value read the same input: its spectrum is computed once. Kept from the first of
    these layers' backward passes to the last, and then no more.
    """

    def __init__(self, layers: int = 1) -> None:
        self.layers = layers
        """Backward passes that are still to come."""
        self.used = False
        """A backward pass has begun: later forward passes start another one."""
        self._kept: dict[Any, list[Tensor]] = {}

    @property
    def shared(self) -> bool:
        return self.layers > 1

    def get(self, kind: Any) -> list[Tensor] | None:
        """What is kept of a kind of analysis."""
        self.used = True
        return self._kept.get(kind)

    def keep(self, kind: Any, analyses: list[Tensor]) -> None:
        """Keep analyses for the layers to come."""
        self._kept[kind] = analyses

    def done(self) -> None:
        """One layer has had its backward pass."""
        self.layers -= 1
        if self.layers <= 0:
            self._kept.clear()


class Signal(NamedTuple):
    """A factor of dL/dS and what is known of it."""

    values: Tensor
    """(T, d)."""
    spectra: Spectra

    def analysed(self, kind: Any, analyse: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """Analyses of the values, some tokens at a time."""
        kept = self.spectra.get(kind)
        if kept is not None:
            yield from kept
            return
        keeps = self.spectra.shared and 4 * self.values.numel() <= _KEPT_BYTES
        fresh = []
        for chunk in self.values.split(_TOKENS_AT_ONCE):
            analysis = analyse(chunk.float() if chunk.dtype in HALF else chunk)
            if keeps:
                fresh.append(analysis)
            yield analysis
        if keeps:
            self.spectra.keep(kind, fresh)


_of_inputs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def spectra_of(x: Tensor) -> Spectra:
    """For one more layer that sees this input: shared by all that see it in one forward pass.

    Known by the tensor object and its version. A new one is begun once a backward pass has used
    the old, so that nothing computed from an input outlives a change of it through ``.data``.
    """
    version = -1 if x.is_inference() else x._version
    known_version, spectra = _of_inputs.get(x, (None, None))
    if spectra is None or spectra.used or known_version != version:
        spectra = Spectra(0)
        _of_inputs[x] = version, spectra
    spectra.layers += 1
    return spectra


def coefficient_gradients(
    rows: Signal, columns: Signal, transforms: Sequence[Transform | None], sampled: Sequence[bool]
) -> list[Tensor | None]:
    """Gradient of S's coefficients, dL/dc without alpha, where dL/dS is ``rows^T columns``.

    Args:
        rows: (T, d1), the gradient of the output (for an (in, out) weight: the input).
        columns: (T, d2), the input (or the gradient of the output).
        transforms: None where no gradient is wanted.
        sampled: Per transform, whether to do without the product ``rows^T columns``.
    """
    product, gradients = None, []
    for transform, samples in zip(transforms, sampled, strict=True):
        if transform is None:
            gradients.append(None)
        elif samples:
            pairs = zip(
                rows.analysed(transform.row_kind, transform.analyse_rows),
                columns.analysed(transform.column_kind, transform.analyse_columns),
                strict=True,
            )
            gradients.append(sum(transform.sampled(r, c) for r, c in pairs))
        else:
            if product is None:
                product = _product(rows.values, columns.values)
            gradients.append(transform.gradient(product))
    return gradients


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    """``rows^T columns``, (d1, d2), float32 (float64 for float64)."""
    if rows.dtype not in HALF:
        return rows.t() @ columns
    if rows.device.type != "cpu":
        return (rows.t() @ columns).float()
    total = rows.new_zeros(rows.shape[1], columns.shape[1], dtype=torch.float32)
    for r, c in zip(rows.split(4096), columns.split(4096), strict=True):
        total.addmm_(r.float().t(), c.float())
    return total
