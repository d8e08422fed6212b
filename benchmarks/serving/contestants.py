"""Layers and models whose rows have adapters of their own, in every form that is compared."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from benchmarks.cases import ALPHA
from benchmarks.timing import MOST
from fourierft import AdapterBank, FourierFTConfig

RANK = 8
LARGEST_MERGED = 2**29
"""Bytes of all merged weights of a layer; where they would take more, nothing is merged."""
SETTLED = 12
"""Calls after which a bank keeps merged weights of rows that stay, if it ever does."""
Step = Callable[[], Any]


class ReadyLinear(nn.Linear):
    """A linear layer whose product is made beforehand: what is left to time are its adapters.

    Args:
        product: (rows, tokens, side).
    """

    def __init__(self, product: Tensor) -> None:
        super().__init__(product.shape[-1], product.shape[-1], bias=False)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """Return a copy of the product; adapters add to it in place."""
        return self.product.clone()


class Block(nn.Module):
    """A single linear layer, as a model that PEFT adapts."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self.layer(x)


def fourierft_config(n: int, targets: Sequence[str]) -> FourierFTConfig:
    """Return the settings of all FourierFT adapters, which share their entries."""
    return FourierFTConfig(
        n_frequency=n, scaling=ALPHA, target_modules=list(targets), random_loc_seed=2024
    )


def lora_config(targets: Sequence[str]) -> LoraConfig:
    """Return the settings of all LoRA adapters, with updates that are not zero."""
    return LoraConfig(r=RANK, target_modules=list(targets), init_lora_weights=False)


def add_adapters(net: nn.Module, config: FourierFTConfig | LoraConfig, count: int) -> PeftModel:
    """Return a model of PEFT with adapters a0, a1, ..."""
    model = get_peft_model(net, config, adapter_name="a0")
    for number in range(1, count):
        model.add_adapter(f"a{number}", config)
    return model.eval()


def fill_bank(bank: AdapterBank, model: PeftModel) -> None:
    """Add all adapters of a model of PEFT to a bank, by way of files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        bank.add_folder(folder)


class TimedLayer:
    """One layer of a batch in which every row has an adapter.

    Args:
        side: Size of the square weight.
        rows: Rows of the batch.
        tokens: Tokens of a row.
        most: Adapters that there are.
        n: Coefficients of a FourierFT adapter.
    """

    def __init__(self, side: int, rows: int, tokens: int, most: int, n: int) -> None:
        torch.manual_seed(0)
        self.rows, self.x = rows, torch.randn(rows, tokens, side)
        whole = nn.Linear(side, side, bias=False)
        self.weight = whole.weight.detach()
        product = F.linear(self.x, self.weight)
        ours = add_adapters(Block(copy.deepcopy(whole)), fourierft_config(n, ["layer"]), most)
        lora = add_adapters(Block(ReadyLinear(product)), lora_config(["layer"]), most)
        self.ours, self.lora = (model.base_model.model.layer for model in (ours, lora))
        self.whole, self.readied = whole.requires_grad_(False), ReadyLinear(product)
        self.bank = AdapterBank(Block(self.whole))
        fill_bank(self.bank, ours)
        self._check()

    def names(self, adapters: int) -> list[str]:
        """Return the adapter of every row, in turns."""
        return [f"a{row % adapters}" for row in range(self.rows)]

    def base(self) -> Tensor:
        """Multiply with the base weight."""
        return self.whole(self.x)

    def ready(self) -> Tensor:
        """Return the product that LoRA begins with here."""
        return self.readied(self.x)

    def bank_rows(self, adapters: int) -> Step:
        """Return the forward pass with `AdapterBank` while its rows stay, as when text is made."""
        rows = self.bank.gather(self.names(adapters))

        def step() -> None:
            with self.bank.rows(rows):
                self.whole(self.x)

        for _ in range(SETTLED):
            step()
        return step

    def bank_once(self, adapters: int) -> Step:
        """Return the forward pass with `AdapterBank` for rows that are new every time."""
        names = self.names(adapters)
        fresh = iter([self.bank.gather(names) for _ in range(2 * MOST + 3)])

        def step() -> None:
            with self.bank.rows(next(fresh)):
                self.whole(self.x)

        return step

    def by_names(self, layer: nn.Module, adapters: int) -> Step:
        """Return the forward pass of a layer of PEFT, FourierFT's or LoRA's, by names."""
        names = self.names(adapters)
        return lambda: layer(self.x, adapter_names=names)

    def gathered(self, adapters: int) -> Step:
        """Return LoRA by two batched products with matrices gathered for every row, as BGMV."""
        which = torch.arange(self.rows) % adapters
        names = [f"a{number}" for number in range(adapters)]
        down = torch.stack([self.lora.lora_A[name].weight.t() for name in names])
        up = torch.stack([self.lora.lora_B[name].weight.t() for name in names])

        def step() -> Tensor:
            inner = torch.bmm(self.x, down.index_select(0, which))
            return self.ready().add_(torch.bmm(inner, up.index_select(0, which)))

        return step

    def merged(self, adapters: int) -> Step | None:
        """Return one product per adapter with W0 + DeltaW, which replaces the base layer's."""
        if adapters * self.weight.nbytes > LARGEST_MERGED:
            return None
        weights = self.weight.repeat(adapters, 1, 1)
        at = [torch.arange(number, self.rows, adapters) for number in range(adapters)]

        def step() -> None:
            out = torch.empty_like(self.x)
            for weight, rows in zip(weights, at, strict=True):
                out[rows] = F.linear(self.x[rows], weight)

        return step

    @torch.no_grad()
    def _check(self) -> None:
        """Raise ArithmeticError if bank and names do not agree: no time of them would count."""
        names = self.names(min(3, len(self.bank)))
        with self.bank.rows(names):
            found = self.whole(self.x)
        found -= self.base()
        expected = self.ours(self.x, adapter_names=names)
        expected -= self.base()
        if not (found - expected).norm() <= 1e-3 * expected.norm():
            raise ArithmeticError("the bank's updates are not those of adapter_names")
