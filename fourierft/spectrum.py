"""Trained entries of the spectrum: uniformly drawn, favouring a band (Eq. 5), or in few rows."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

# Cells of the spectrum handled at once by the biased draw: 32 MiB per float64 buffer, whatever
# the size of the weight. The entries drawn do not depend on it.
_CELLS_AT_ONCE = 2**22


class EntryRegion(NamedTuple):
    """Part of the spectrum that entries are drawn from."""

    center: float | None = None
    """Favoured central frequency; None for no bias."""
    bandwidth: float = 200.0
    """Width of the favoured band."""
    rows: int | None = None
    """Number of rows that hold all entries; None for any."""


class Draw(NamedTuple):
    """All that entries depend on besides the shape (see `sample_entries`)."""

    n: int
    seed: int
    region: EntryRegion = EntryRegion()


# Dynamo would look through the cache and trace a new draw into every compiled call.
@torch.compiler.disable
def sample_entries(
    shape: Sequence[int],
    n: int,
    seed: int = 2024,
    center: float | None = None,
    bandwidth: float = 200.0,
    device: torch.device | str | None = None,
    rows: int | None = None,
) -> Tensor:
    """Draw the ``n`` trained entries of a ``d1 x d2`` spectrum, without replacement.

    Without ``center`` every entry is equally likely, and the draw is PEFT's: the first ``n`` of a
    random permutation of ``d1 * d2`` from a CPU generator. With ``center`` the entries follow the
    Gaussian band-pass of Eq. 5 (see `band_pass`). With ``rows`` they are uniform in so many rows,
    themselves drawn from rows 0 to ``d1 // 2``: the others are conjugates and would add nothing to
    the rank. Whichever it is, the entries for ``n`` are the first ``n`` of those for any larger
    ``n``.

    One draw serves every layer of the same shape. It is cached, per device: **do not write into
    the returned tensor**.

    Args:
        shape: ``(d1, d2)``, the (out, in) features of the adapted weight.
        n: Number of entries, 1 to ``d1 * d2`` (``rows * d2``).
        seed: Entry seed; the global random state is neither read nor moved.
        center: Favoured central frequency ``f_c`` in index units, at least 0; None for no bias.
        bandwidth: Width ``W`` of the band in index units, above 0; ignored without ``center``.
        device: Device of the entries (default CPU). They are drawn on the CPU in any case,
            so they are the same everywhere. On ``meta`` nothing is drawn.
        rows: Number of rows, 1 to ``d1 // 2 + 1``, without ``center``; None for all of them.

    Returns:
        Rows ``u`` and columns ``v``, int64 of shape (2, n); ``(0, 0)`` is the zero frequency.

    Raises:
        ValueError: A value is outside its range; the message names it.
    """
    d1, d2 = _checked_shape(shape)
    if rows is not None and not 1 <= rows <= most_rows((d1, d2)):
        raise ValueError(f"rows: got {rows}, allowed 1 to {most_rows((d1, d2))} (or None for any)")
    held = rows or d1
    if not 1 <= n <= held * d2:
        raise ValueError(f"n: got {n}, allowed 1 to {held} * {d2} = {held * d2}")
    if center is None:
        bias = None
    elif rows is not None:
        raise ValueError(f"rows: got {rows} and center {center}, allowed one of them")
    else:
        _check_band(center, bandwidth)
        bias = (float(center), float(bandwidth))
    target = torch.device("cpu" if device is None else device)
    if target.type == "meta":
        return torch.empty(2, n, dtype=torch.int64, device="meta")
    return _entries((d1, d2), int(n), int(seed), bias, rows, target)


def draw_entries(
    shape: Sequence[int], draws: Sequence[Draw], device: torch.device | str | None = None
) -> Tensor:
    """Return the entries of several draws, one after the other, int64 (2, sum of n).

    An entry of more than one draw stands there more than once: its coefficients add up.
    """
    drawn = [
        sample_entries(shape, n, seed, **region._asdict(), device=device)
        for n, seed, region in draws
    ]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn, 1)


def most_rows(shape: Sequence[int]) -> int:
    """Return the number of rows of a spectrum that are not conjugates of others."""
    return shape[0] // 2 + 1


def band_pass(shape: Sequence[int], center: float, bandwidth: float = 200.0) -> Tensor:
    """Return the probability map of the frequency bias, unnormalised (Eq. 5).

    ``p(u, v) = exp(-((D^2 - f_c^2) / (D W))^2)``, where ``D`` is the distance of ``(u, v)`` to the
    centre of the centred spectrum, in index units. The map peaks with 1 on the ring ``D = f_c``.

    At ``D = 0`` Eq. 5 is singular, and its limit is used: 1 for ``f_c = 0`` (there
    ``p = exp(-(D / W)^2)``), 0 otherwise. The centre is the zero frequency, ``(d1 // 2, d2 // 2)``
    of the centred spectrum; for even sizes that is the paper's ``(d1 / 2, d2 / 2)``.

    Args:
        shape: ``(d1, d2)``.
        center: ``f_c``, at least 0.
        bandwidth: ``W``, above 0.

    Returns:
        float64 of shape (d1, d2) in the layout of the entries: the zero frequency at ``(0, 0)``
        (``torch.fft.fftshift`` centres it, as the paper's Figure 3 shows it).

    Raises:
        ValueError: A value is outside its range; the message names it.
    """
    d1, d2 = _checked_shape(shape)
    _check_band(center, bandwidth)
    return _log_band_pass((d1, d2), 0, d1, float(center), float(bandwidth)).exp()


def atom_norm(shape: Sequence[int], alpha: float) -> float:
    """Return the Frobenius norm of the update that one coefficient of value 1 makes.

    A coefficient at ``(u, v)`` adds the cosine
    ``alpha / (d1 d2) * cos(2 pi (p u / d1 + q v / d2))``, of norm ``alpha / sqrt(2 d1 d2)``. The
    (at most four) entries that are their own conjugate, ``u in {0, d1/2}`` and
    ``v in {0, d2/2}``, make a pattern of plus and minus one instead, of norm
    ``alpha / sqrt(d1 d2)``; they are not told apart here.

    Args:
        shape: ``(d1, d2)``.
        alpha: Scaling of the update.
    """
    d1, d2 = _checked_shape(shape)
    return alpha / (2 * d1 * d2) ** 0.5


def alpha_of_norm(shape: Sequence[int], norm: float) -> float:
    """Return the alpha with which one coefficient of value 1 makes an update of a given norm.

    The inverse of `atom_norm`: ``alpha = norm * sqrt(2 d1 d2)``. A fixed alpha makes every atom
    smaller as the weight grows, by ``1 / d``, so the learning rate has to grow with it; a fixed
    norm does not.

    Args:
        shape: ``(d1, d2)``.
        norm: Frobenius norm of the atom.
    """
    return norm / atom_norm(shape, 1.0)


@lru_cache(maxsize=128)
def _entries(
    shape: tuple[int, int],
    n: int,
    seed: int,
    bias: tuple[float, float] | None,
    rows: int | None,
    device: torch.device,
) -> Tensor:
    # A tensor made under inference_mode could never take part in training afterwards, one made
    # under a fake mode holds no numbers, and this one outlives the caller.
    with torch.inference_mode(False), unset_fake_temporarily():
        if device.type != "cpu":
            return _entries(shape, n, seed, bias, rows, torch.device("cpu")).to(device)
        generator = torch.Generator("cpu").manual_seed(seed)
        if rows is not None:
            chosen = torch.randperm(most_rows(shape), generator=generator, device="cpu")[:rows]
            flat = torch.randperm(rows * shape[1], generator=generator, device="cpu")[:n]
            return torch.stack([chosen[flat // shape[1]], flat % shape[1]])
        if bias is None:
            flat = torch.randperm(shape[0] * shape[1], generator=generator, device="cpu")[:n]
        else:
            flat = _biased_permutation(shape, n, bias, generator)
        return torch.stack([flat // shape[1], flat % shape[1]])


def _biased_permutation(
    shape: tuple[int, int], n: int, bias: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return the first ``n`` flat indices of a draw without replacement, likely ones first.

    The largest ``log p + Gumbel noise`` are such a draw. ``torch.multinomial`` would stop at 2^24
    cells, and float32 noise would tie among the 2.6e7 cells of a 5120 x 5120 weight.
    """
    rows = max(1, _CELLS_AT_ONCE // shape[1])
    best_keys = torch.empty(0, dtype=torch.float64, device="cpu")
    best_cells = torch.empty(0, dtype=torch.int64, device="cpu")
    for first in range(0, shape[0], rows):
        last = min(first + rows, shape[0])
        uniform = torch.rand(
            (last - first) * shape[1], dtype=torch.float64, generator=generator, device="cpu"
        )
        gumbel = -torch.log(-torch.log1p(-uniform))
        keys = gumbel + _log_band_pass(shape, first, last, *bias).flatten()
        keys, cells = torch.topk(keys, min(n, len(keys)))
        keys = torch.cat([best_keys, keys])
        cells = torch.cat([best_cells, cells + first * shape[1]])
        best_keys, order = torch.topk(keys, min(n, len(keys)))
        best_cells = cells[order]
    return best_cells


def _log_band_pass(
    shape: tuple[int, int], first: int, last: int, center: float, bandwidth: float
) -> Tensor:
    """Return log p of Eq. 5 for rows ``first`` to ``last - 1``, zero frequency at (0, 0)."""
    u, v = (_centred(size) for size in shape)
    squared = u[first:last, None] ** 2 + v[None, :] ** 2
    if center == 0:
        return -squared / bandwidth**2
    return -((squared - center**2) ** 2) / (squared * bandwidth**2)  # -inf at D = 0


def _centred(size: int) -> Tensor:
    """Return the signed frequency of every index, float64 (size,): 0, 1, ..., -2, -1."""
    index = torch.arange(size, dtype=torch.float64, device="cpu")
    return (index + size // 2) % size - size // 2


def _checked_shape(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape: got {tuple(shape)}, allowed (d1, d2) with both at least 1")
    return int(shape[0]), int(shape[1])


def _check_band(center: float, bandwidth: float) -> None:
    # Written so that NaN fails as well.
    if not 0 <= center < float("inf"):
        raise ValueError(f"center: got {center}, allowed 0 or above (or None for no bias)")
    if not 0 < bandwidth < float("inf"):
        raise ValueError(f"bandwidth: got {bandwidth}, allowed above 0")
