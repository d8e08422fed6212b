"""FourierFT as the experiments use it.

The schema of conf/method/fourierft.yaml over the package's PEFT tuner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from experiments.methods.peft import Adapter, get_matrix_shape
from experiments.results.identity import BEFORE, LOCAL

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


class Init(Enum):
    """Initial values of the coefficients."""

    normal = "normal"
    zeros = "zeros"


class Basis(Enum):
    """Basis of the coefficients; all but the first for the ablation of Table 6."""

    fourier = "fourier"
    random = "random"
    orthogonal = "orthogonal"
    dct = "dct"
    hartley = "hartley"


class MemoryMode(Enum):
    """Use of memory for W0 + DeltaW between steps."""

    auto = "auto"
    batched = "batched"
    cache = "cache"
    kept = "kept"
    save = "save"
    recompute = "recompute"
    spectral = "spectral"


class Gradient(Enum):
    """Computation of the coefficients' gradient."""

    auto = "auto"
    dense = "dense"
    sampled = "sampled"


class UpdatePrecision(Enum):
    """Rounding of DeltaW where the weights are in half precision."""

    rounded = "rounded"
    exact = "exact"


LARGEST_NORM = {Init.normal: 10.0, Init.zeros: 40.0}
"""Largest norm of one coefficient's update by start.

With normal, n of them stand beside the weights before the first step. With zeros they grow by the
learning rate, and only an alpha meant as a plain one is caught.
"""


class Scaling(Enum):
    """Meaning of alpha."""

    plain = "plain"
    norm = "norm"


class Orientation(Enum):
    """Side from which DeltaW is applied."""

    eq4 = "eq4"
    algorithm1 = "algorithm1"


@dataclass(kw_only=True)
class FrequencyBias:
    """Gaussian band-pass that the entries are drawn from (Eq. 5)."""

    center: float | None = None
    """Favoured frequency f_c, in spectrum cells from the lowest; null: uniform entries, no bias."""
    bandwidth: float = 200.0
    """Width W of the band, in spectrum cells."""


@dataclass(kw_only=True)
class FourierFT(Adapter):
    """FourierFT: DeltaW = alpha * Re(ifft2(ToDense(c))), only c is trained (Eqs. 2-4).

    See the package `fourierft`.
    """

    n: int
    """Coefficients per adapted matrix."""
    alpha: float
    """Multiplier of the update; with scaling=norm the norm of one coefficient's update."""
    entry_seed: int
    """Seed of the entries, shared by all layers of one shape; not the run's seed."""
    frequency_bias: FrequencyBias = field(default_factory=FrequencyBias)
    """Frequencies that the entries are drawn from."""
    init: Init = Init.normal
    """Start of the coefficients; with normal the update is not zero at first, as in the paper."""
    basis: Basis = Basis.fourier
    """Basis; all are scaled to the size of Fourier's, so that the same alpha means the same."""
    scaling: Scaling | None = None
    """Meaning of alpha; with norm, alpha * sqrt(2 d1 d2) takes its place, so that the learning rate
    need not grow with the width; null: plain, the paper's."""
    orientation: Orientation | None = field(default=None, metadata={BEFORE: None})
    """Side of DeltaW: eq4 adds DeltaW x, algorithm1 x DeltaW as the paper's Algorithm 1 and the
    authors' code, another function for the same entry seed; null: eq4."""
    entry_rows: int | None = field(default=None, metadata={BEFORE: None})
    """Number of rows of the spectrum that hold all entries: DeltaW of rank twice that, exported as
    LoRA exactly; with orientation=algorithm1 columns; null: any rows."""
    memory: MemoryMode = field(default=MemoryMode.auto, metadata=LOCAL)
    """Use of memory; cache: fastest on a CPU; save: kept until the backward pass alone; batched:
    save, built for many matrices at once; kept: batched, built once for all micro-batches of a
    step; recompute: one full-size weight less per matrix; spectral: products by way of spectra,
    for few tokens."""
    gradient: Gradient = field(default=Gradient.auto, metadata=LOCAL)
    """Way to the gradient: dense by dL/dW, sampled without it; auto takes the cheaper."""
    precision: UpdatePrecision | None = None
    """Rounding; exact keeps small updates of half-precision weights, at a cost; null: rounded."""

    @property
    def has_step_sizes(self) -> bool:
        """See `Method.has_step_sizes`."""
        return True

    @property
    def shardable(self) -> bool:
        """See `Method.shardable`."""
        return True

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        yield from super().problems()
        bias = self.frequency_bias
        if self.n < 1:
            yield f"method.n={self.n}: must be at least 1"
        if self.entry_seed < 0:
            yield f"method.entry_seed={self.entry_seed}: must not be negative"
        if not 0 < self.alpha < math.inf:
            yield f"method.alpha={self.alpha}: must be positive"
        largest = LARGEST_NORM[self.init]
        if self.scaling is Scaling.norm and self.alpha > largest:
            yield (
                f"method.alpha={self.alpha:g}: with method.scaling=norm it is the norm of one "
                f"coefficient's update (allowed: up to {largest:g} with "
                f"method.init={self.init.value}; the paper's alphas make "
                "0.03 to 0.3), and recipes hold plain ones: name yours"
            )
        if bias.center is not None and not bias.center >= 0:
            yield (
                f"method.frequency_bias.center={bias.center}: must not be negative, "
                "or null for uniform entries"
            )
        if bias.center is None and bias.bandwidth != FrequencyBias.bandwidth:
            yield (
                f"method.frequency_bias.bandwidth={bias.bandwidth}: has no effect without "
                "method.frequency_bias.center"
            )
        if not bias.bandwidth > 0:
            yield f"method.frequency_bias.bandwidth={bias.bandwidth}: must be positive"
        if self.entry_rows is None:
            return
        if self.entry_rows < 1:
            yield f"method.entry_rows={self.entry_rows}: must be at least 1, or null for any rows"
        if bias.center is not None or self.basis is not Basis.fourier:
            yield (
                f"method.entry_rows={self.entry_rows}: needs method.basis=fourier and uniform "
                "entries (method.frequency_bias.center=null)"
            )

    def configuration(self, head: Sequence[str]) -> PeftConfig:
        """See `Adapter.configuration`."""
        import fourierft

        return fourierft.FourierFTConfig(
            n_frequency=self.n,
            scaling=self.alpha,
            random_loc_seed=self.entry_seed,
            init_weights=self.init is Init.zeros,
            frequency_bias_center=self.frequency_bias.center,
            frequency_bias_bandwidth=self.frequency_bias.bandwidth,
            basis=self.basis.value,
            scaling_mode=(self.scaling or Scaling.plain).value,
            orientation=(self.orientation or Orientation.eq4).value,
            entry_rows=self.entry_rows,
            memory=self.memory.value,
            gradient=self.gradient.value,
            precision=(self.precision or UpdatePrecision.rounded).value,
            target_modules=list(self.targets),
            modules_to_save=list(head) or None,
        )

    def unfit(self, net: nn.Module, configuration: PeftConfig) -> Iterator[str]:
        """See `Adapter.unfit`; n must not exceed the cells of the smallest adapted matrix."""
        yield from super().unfit(net, configuration)
        shapes = {
            name: shape
            for name, module in net.named_modules()
            if name.rpartition(".")[2] in self.targets
            and (shape := get_matrix_shape(module)) is not None
        }
        if not shapes:
            return
        smallest = min(shapes, key=lambda name: shapes[name][0] * shapes[name][1])
        rows, columns = shapes[smallest]
        if self.n > rows * columns:
            yield (
                f"method.n={self.n}: more than {smallest} has cells "
                f"(allowed: 1 to {rows} * {columns} = {rows * columns})"
            )
