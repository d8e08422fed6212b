"""Many adapters in one batch: every row gets the update of its own adapter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..bases.fourier import Fourier
from ..bases.transform import Transform
from ..tensors import without_autocast
from .linear import adapted_linear
from .weight_cache import AdapterTerm

_TOKENS_AT_ONCE = 64  # so that their spectra stay in the processor's cache

BASE = "__base__"
"""PEFT's name for a row without an adapter."""

# Nanoseconds on one AVX2 core, as in `fourier`. Only their ratios decide.
_ROUND_TRIP = 3.0  # one number of a token to its spectrum, laid out and back
_TERM = 6.0  # one coefficient of one token
_BUILD = 4.0  # one number of W0 + DeltaW
_PRODUCT = 2 / 95  # one multiplication and addition of a matrix product


class SpectralProduct:
    """``y_t = S(c_a(t)) x_t`` for many vectors of coefficients on the same entries.

    With ``X_t = rfft(x_t)`` the update of Eq. 2-4 acts on a token as

    ``Y_t[u] = sum over entries l with u_l = u of c_a(t),l conj(X_t[v_l])``,
    ``y_t = 1 / (d1 d2) irfft(Y_t)``.

    Nothing of size d1 x d2 is made, nothing is merged, tokens may come in any order, and the cost
    does not depend on the number of adapters.

    Args:
        transform: Shape and entries, (out, in).
    """

    def __init__(self, transform: Fourier) -> None:
        self.transform = transform
        d1, d2 = transform.shape
        u, v = transform.entries
        # (u, v) and (-u, -v) are the same cosine: u goes to the half spectrum that irfft reads.
        folded = 2 * u > d1
        u, v = torch.where(folded, -u % d1, u), torch.where(folded, -v % d2, v)
        # irfft counts every row twice, but not the first and, of an even size, the last.
        weights = torch.where((u == 0) | (2 * u == d1), 1.0, 0.5).double() * transform.scale
        mirrored = 2 * v > d2  # X[v] is the conjugate of X[d2 - v]
        self._columns = torch.where(mirrored, d2 - v, v)
        self._weights = {dtype: weights.to(dtype) for dtype in (torch.float32, torch.float64)}
        self._rows = u
        self._signs = torch.where(mirrored, 1.0, -1.0)  # of the imaginary part
        self._adders: dict[torch.dtype, Tensor] = {}

    @cached_property
    def transposed(self) -> SpectralProduct:
        """Product with the transpose of S."""
        return SpectralProduct(self.transform.transposed)

    def __call__(self, x: Tensor, coefficients: Tensor, which: Tensor) -> Tensor:
        """Multiply every token with the update of its adapter; no gradient.

        Args:
            x: (T, d2), float32 or float64.
            coefficients: (A, n), of the same dtype.
            which: Index of each token's adapter, int64 (T,).

        Returns:
            (T, d1).
        """
        weighted = coefficients * self._weights[x.dtype]
        if len(x) <= _TOKENS_AT_ONCE:
            return self._product(x, weighted, which)
        chunks = zip(x.split(_TOKENS_AT_ONCE), which.split(_TOKENS_AT_ONCE), strict=True)
        return torch.cat([self._product(tokens, weighted, own) for tokens, own in chunks])

    def _product(self, x: Tensor, weighted: Tensor, which: Tensor) -> Tensor:
        tokens = len(x)
        spectrum = torch.view_as_real(torch.fft.rfft(x)).flatten(1).t().contiguous()  # (2 f, T)
        terms = spectrum.view(-1, 2, tokens).index_select(0, self._columns)  # (n, 2, T)
        terms.mul_(weighted.index_select(0, which).t()[:, None])
        summed = torch.sparse.mm(self._adder(x.dtype), terms.view(-1, tokens))  # (2 f, T)
        half = torch.view_as_complex(summed.t().contiguous().view(tokens, -1, 2))
        return torch.fft.irfft(half, n=self.transform.shape[0], norm="forward")

    def _adder(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix (2 f, 2 n) that sums the terms of each row and takes conjugates."""
        if dtype not in self._adders:
            terms = torch.arange(2 * self.transform.n, device=self._rows.device)
            rows = torch.stack([2 * self._rows, 2 * self._rows + 1], 1).flatten()
            values = torch.stack([torch.ones_like(self._signs), self._signs], 1).flatten()
            order = torch.argsort(rows, stable=True)
            size = 2 * (self.transform.shape[0] // 2 + 1)
            counts = torch.bincount(rows, minlength=size)
            starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse", UserWarning)  # beta; unchecked
                self._adders[dtype] = torch.sparse_csr_tensor(
                    starts,
                    terms[order],
                    values[order].to(dtype),
                    size=(size, len(terms)),
                    check_invariants=False,
                )
        return self._adders[dtype]


@lru_cache(maxsize=128)
def spectral_product(transform: Fourier) -> SpectralProduct:
    """Return the product that all layers with this transform share."""
    with torch.inference_mode(False):  # it outlives the caller
        return SpectralProduct(transform)


class _SpectralProduct(torch.autograd.Function):
    """`SpectralProduct`, differentiable once with respect to tokens and coefficients."""

    @staticmethod
    def forward(ctx, product, x, coefficients, which):
        ctx.product = product
        ctx.save_for_backward(x, coefficients, which)
        return product(x, coefficients, which)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, coefficients, which = ctx.saved_tensors
        product, transform = ctx.product, ctx.product.transform
        dx = gradient = None
        with without_autocast(dy.device.type):
            if ctx.needs_input_grad[1]:
                dx = product.transposed(dy, coefficients, which)
            if ctx.needs_input_grad[2]:
                gradient = torch.zeros_like(coefficients)
                for adapter in which.unique().tolist():
                    tokens = (which == adapter).nonzero()[:, 0]
                    gradient[adapter] = transform.sampled(
                        transform.analyse_rows(dy.index_select(0, tokens)),
                        transform.analyse_columns(x.index_select(0, tokens)),
                    )
        return None, dx, gradient, None


def mixed_update(x: Tensor, terms: Sequence[AdapterTerm], rows: Sequence[int]) -> Tensor:
    """Return ``DeltaW_a(b) x_b`` for every row, differentiable.

    Args:
        x: (B, T, in): rows of T tokens.
        terms: The adapters, their transforms as (out, in).
        rows: Per row the index of its adapter among ``terms``; -1 for none.

    Returns:
        (B, T, out), float32, or float64 where ``x`` is.
    """
    with without_autocast(x.device.type):
        x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], terms[0].transform.shape[0])
        out = None
        for transform in {id(term.transform): term.transform for term in terms}.values():
            group = [index for index, term in enumerate(terms) if term.transform is transform]
            place = {index: place for place, index in enumerate(group)}
            chosen = [row for row, index in enumerate(rows) if index in place]
            own = torch.tensor([place[rows[row]] for row in chosen], device=x.device)
            members = [terms[index] for index in group]
            if len(chosen) == len(rows):
                return _group_update(x, members, own)
            at = torch.tensor(chosen, device=x.device)
            update = _group_update(x.index_select(0, at), members, own)
            if out is None:
                out = update.new_zeros(*x.shape[:-1], update.shape[-1])
            out = out.index_add(0, at, update)
        return out


def prefers_groups(
    tokens: int, adapters: int, n: int, shape: tuple[int, int], replaces_base: bool
) -> bool:
    """Return True if one product per adapter is expected to be faster than the spectral one.

    Args:
        tokens: Tokens of the whole batch.
        adapters: Number of different adapters among them.
        n: Coefficients of an adapter.
        shape: Shape of the weight.
        replaces_base: The product per adapter is with W0 + DeltaW, so that W0's own is saved.
    """
    d1, d2 = shape
    spectral = tokens * (_ROUND_TRIP * (d1 + d2) + _TERM * n)
    grouped = adapters * _BUILD * d1 * d2
    if not replaces_base:
        grouped += tokens * d1 * d2 * _PRODUCT
    return grouped < spectral


def _group_update(x: Tensor, terms: Sequence[AdapterTerm], which: Tensor) -> Tensor:
    """Compute `mixed_update` for adapters that share their transform, and rows that all have one.

    Args:
        x: (B, T, in): rows of T tokens.
        terms: The adapters, their transforms as (out, in).
        which: Index of each row's adapter, int64 (B,).
    """
    transform = terms[0].transform
    if _is_spectral(x, transform, len(terms)):
        coefficients = torch.stack([term.coefficients for term in terms]).to(x.dtype)
        alphas = [term.alpha for term in terms]
        coefficients = coefficients * coefficients.new_tensor(alphas)[:, None]
        return _spectral_update(x, transform, coefficients, which)
    return _update_by_adapter(x, terms, which)


def banked_update(x: Tensor, transform: Transform, coefficients: Tensor, which: Tensor) -> Tensor:
    """Return ``DeltaW_a(b) x_b`` for coefficients that lie in one tensor.

    Args:
        x: (B, T, in): rows of T tokens.
        transform: Transform of all adapters, as (out, in).
        coefficients: (A, n), multiplied by alpha.
        which: Index of each row's adapter, int64 (B,).

    Returns:
        (B, T, out), float32, or float64 where ``x`` is.
    """
    with without_autocast(x.device.type):
        x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], transform.shape[0])
        if _is_spectral(x, transform, len(coefficients)):
            return _spectral_update(x, transform, coefficients.to(x.dtype), which)
        terms = [AdapterTerm(transform, 1.0, one) for one in coefficients]
        return _update_by_adapter(x, terms, which)


def _spectral_update(
    x: Tensor, transform: Transform, coefficients: Tensor, which: Tensor
) -> Tensor:
    product, tokens = spectral_product(transform), x.flatten(0, 1)
    which = which.repeat_interleave(x.shape[1]) if x.shape[1] != 1 else which
    return _SpectralProduct.apply(product, tokens, coefficients, which).view(*x.shape[:-1], -1)


def _update_by_adapter(x: Tensor, terms: Sequence[AdapterTerm], which: Tensor) -> Tensor:
    out = x.new_zeros(*x.shape[:-1], terms[0].transform.shape[0])
    for index, term in enumerate(terms):
        at = (which == index).nonzero()[:, 0]
        update = adapted_linear(x.index_select(0, at), None, None, [term])
        out = out.index_add(0, at, update.to(x.dtype))
    return out


def _is_spectral(x: Tensor, transform: Transform, adapters: int) -> bool:
    if not isinstance(transform, Fourier) or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or x.is_meta:
        return False
    tokens = x.shape[0] * x.shape[1]
    return not prefers_groups(tokens, adapters, transform.n, transform.shape, False)


def group_rows(adapter_names: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of every adapter."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(adapter_names):
        found.setdefault(name, []).append(row)
    return found
