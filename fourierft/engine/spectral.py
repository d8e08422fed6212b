"""Products with an update by way of spectra: W0 + DeltaW is never made."""

from __future__ import annotations

import warnings
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bases.fourier import Fourier
from ..bases.sampled_product import compress_rows
from ..bases.transform import scaled
from ..tensors import check_versions, get_version, without_autocast
from .gradient import weight_gradient
from .weight_cache import AdapterTerm, summed_update

_TOKENS_AT_ONCE = 128  # so that their spectra stay in the processor's cache


class _Pattern(NamedTuple):
    """A sparse matrix whose values are coefficients times factors."""

    starts: Tensor
    columns: Tensor
    source: Tensor
    factors: Tensor

    def multiply(self, coefficients: Tensor, dense: Tensor) -> Tensor:
        """Return the product of the matrix for these coefficients and a dense one."""
        values = coefficients.index_select(0, self.source).mul_(self.factors)
        # A sum of embeddings, which starts faster than a sparse product.
        return torch.embedding_bag(
            dense, self.columns, self.starts, per_sample_weights=values, include_last_offset=True
        )[0]


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
        self._weights = weights
        self._rows = u
        self._signs = torch.where(mirrored, 1.0, -1.0)  # of the imaginary part
        self._adders: dict[torch.dtype, Tensor] = {}

        self._patterns: dict[torch.dtype, _Pattern] = {}

    @cached_property
    def transposed(self) -> SpectralProduct:
        """Product with the transpose of S."""
        return SpectralProduct(self.transform.transposed)

    def __call__(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Multiply every token with the update of its row's adapter; no gradient.

        Args:
            x: (T, d2), float32 or float64: as many tokens of every row, row by row.
            coefficients: (n, rows), those of every row's adapter, of the same dtype.

        Returns:
            (T, d1).
        """
        count, repeat = len(x), len(x) // coefficients.shape[1]
        parts = []
        for start in range(0, count, _TOKENS_AT_ONCE):
            stop = min(start + _TOKENS_AT_ONCE, count)
            if repeat == 1:
                own = coefficients[:, start:stop]
            else:
                rows = torch.arange(start, stop, device=x.device) // repeat
                own = coefficients.index_select(1, rows)
            parts.append(self._product(x[start:stop], own))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def multiply(self, spectrum: Tensor, coefficients: Tensor) -> Tensor:
        """Multiply tokens with the update of one adapter, by way of their spectrum.

        Args:
            spectrum: Of T tokens as `Fourier.analyse_columns` lays it out.
            coefficients: (n,), of the same dtype.

        Returns:
            (T, d1).
        """
        tokens, dtype = spectrum.shape[1], spectrum.dtype
        if dtype not in self._patterns:
            self._patterns[dtype] = self._make_pattern(dtype)
        summed = self._patterns[dtype].multiply(coefficients, spectrum)
        summed = summed.t().contiguous().view(tokens, -1, 2)
        return torch.fft.irfft(
            torch.view_as_complex(summed), n=self.transform.shape[0], norm="forward"
        )

    def _make_pattern(self, dtype: torch.dtype) -> _Pattern:
        """Return S of one adapter between real spectra: two numbers per coefficient."""
        rows = torch.cat([2 * self._rows, 2 * self._rows + 1])
        columns = torch.cat([2 * self._columns, 2 * self._columns + 1])
        signs = torch.cat([torch.ones_like(self._signs), self._signs])
        order = torch.argsort(rows, stable=True)
        number = 2 * (self.transform.shape[0] // 2 + 1)
        factors = (signs * self._weights.repeat(2))[order].to(dtype)
        compressed = compress_rows(rows, columns[order], number)
        return _Pattern(*compressed, order % self.transform.n, factors)

    def _product(self, x: Tensor, coefficients: Tensor) -> Tensor:
        tokens = len(x)
        spectrum = torch.view_as_real(torch.fft.rfft(x)).flatten(1).t().contiguous()  # (2 f, T)
        terms = spectrum.view(-1, 2, tokens).index_select(0, self._columns)  # (n, 2, T)
        terms.mul_(coefficients[:, None])
        summed = torch.sparse.mm(self._adder(x.dtype), terms.view(-1, tokens))  # (2 f, T)
        half = torch.view_as_complex(summed.t().contiguous().view(tokens, -1, 2))
        return torch.fft.irfft(half, n=self.transform.shape[0], norm="forward")

    def _adder(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix (2 f, 2 n) that sums the weighted terms of each row, or conjugates."""
        if dtype not in self._adders:
            terms = torch.arange(2 * self.transform.n, device=self._rows.device)
            rows = torch.stack([2 * self._rows, 2 * self._rows + 1], 1).flatten()
            signs = torch.stack([torch.ones_like(self._signs), self._signs], 1)
            values = (signs * self._weights[:, None]).flatten()
            order = torch.argsort(rows, stable=True)
            size = 2 * (self.transform.shape[0] // 2 + 1)
            compressed = compress_rows(rows, terms[order], size)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse", UserWarning)  # beta; unchecked
                self._adders[dtype] = torch.sparse_csr_tensor(
                    *compressed,
                    values[order].to(dtype),
                    size=(size, len(terms)),
                    check_invariants=False,
                )
        return self._adders[dtype]


@lru_cache(maxsize=128)
def spectral_product(transform: Fourier) -> SpectralProduct:
    """Return the product that all layers with this transform share."""
    if type(transform) is not Fourier:  # few rows, whose gradient needs no spectra
        transform = Fourier(transform.shape, transform.entries)
    with torch.inference_mode(False):  # it outlives the caller
        return SpectralProduct(transform)


def spectral_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, term: AdapterTerm, transposed: bool
) -> Tensor:
    """Return ``x (W0 + alpha S(c))^T + b`` as the base layer's product and a spectral one.

    Args:
        x: (..., in), float32 or float64.
        weight: W0, of the same dtype, (out, in), or (in, out) if ``transposed``.
        bias: (out,) or None.
        term: The adapter, of the Fourier basis, its transform in the layout of ``weight``.
        transposed: True if ``weight`` is (in, out).
    """
    return _SpectralLinear.apply(term, transposed, x, weight, bias, term.coefficients)


class _SpectralLinear(torch.autograd.Function):
    """`spectral_linear` as a function of autograd; all its gradients come from two spectra."""

    @staticmethod
    def forward(ctx, term, transposed, x, weight, bias, coefficients):
        product = spectral_product(term.transform)
        product = product.transposed if transposed else product
        # The values of the forward pass, whatever an optimizer does before the backward pass.
        values = scaled(coefficients.detach(), term.alpha).to(x.dtype)
        spectrum = product.transform.analyse_columns(x.reshape(-1, x.shape[-1]))
        y = F.linear(x, weight.t() if transposed else weight, bias)
        y.view(-1, y.shape[-1]).add_(product.multiply(spectrum, values))
        ctx.term, ctx.transposed, ctx.product = term, transposed, product
        ctx.version = get_version(coefficients)
        ctx.save_for_backward(x, weight, spectrum, values)
        return y.data

    @staticmethod
    def backward(ctx, dy):
        x, weight, spectrum, values = ctx.saved_tensors
        _, _, needs_x, _, needs_bias, needs_coefficients = ctx.needs_input_grad
        dx = dbias = gradient = None
        flat = dy.reshape(-1, dy.shape[-1])
        with without_autocast(dy.device.type):
            if needs_bias:
                dbias = flat.sum(0)
            transform, alpha, c = ctx.term
            if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(dy):
                # Operations that autograd and vmap know.
                check_versions([c], [ctx.version])
                total = weight + summed_update([ctx.term])
                inputs = x.reshape(-1, x.shape[-1])
                pair = (inputs, flat) if ctx.transposed else (flat, inputs)
                gradient = (alpha * transform.gradient(weight_gradient(*pair))).to(c.dtype)
                dx = dy @ (total.t() if ctx.transposed else total).to(dy.dtype)
                return None, None, dx, None, dbias, gradient
            rows = ctx.product.transform.analyse_rows(flat)
            if needs_x:
                dx = dy @ (weight.t() if ctx.transposed else weight)
                dx.view(-1, dx.shape[-1]).add_(ctx.product.transposed.multiply(rows, values))
            if needs_coefficients:
                gradient = ctx.product.transform.sampled(rows, spectrum)
                gradient = (alpha * gradient).to(c.dtype)
        return None, None, dx, None, dbias, gradient
