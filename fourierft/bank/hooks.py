"""Changes of a base model's modules by which rows get their adapters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from .rows import BankedRows


class ModelHooks:
    """Asks, whenever an adapted layer or a head runs, for the rows of this thread.

    Layers get another `forward`, not a hook: a product with W0 + DeltaW replaces their own.

    Args:
        net: The base model.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._undo: dict[tuple[str, str], Callable[[], None]] = {}
        self._running = threading.local()

    def __deepcopy__(self, memo: dict) -> ModelHooks:
        # Reached through a module that is copied: the copy asks for the same rows.
        return self

    @contextlib.contextmanager
    def run(self, rows: BankedRows | None) -> Iterator[None]:
        """Give the batches of this thread inside the block these rows; None for no adapters."""
        before = self._rows
        self._running.rows = rows
        try:
            yield
        finally:
            self._running.rows = before

    def watch(self, layers: Iterable[str], heads: Iterable[str]) -> None:
        """Change the layers and heads at these paths, but those that are changed already."""
        asked = {("layer", name) for name in layers} | {("head", name) for name in heads}
        new = asked - self._undo.keys()  # a module can be a layer of one adapter, a head of another
        if not new:
            return
        modules = dict(self.net.named_modules())
        for kind, name in new:
            if kind == "layer":
                undo = self._replace_forward(name, modules[name])
            else:
                hook = partial(self._apply_heads, name)
                undo = modules[name].register_forward_hook(hook, with_kwargs=True).remove
            self._undo[kind, name] = undo

    def remove(self) -> None:
        """Undo all changes."""
        for undo in self._undo.values():
            undo()
        self._undo.clear()

    @property
    def _rows(self) -> BankedRows | None:
        return getattr(self._running, "rows", None)

    def _replace_forward(self, name: str, layer: nn.Module) -> Callable[[], None]:
        before = layer.__dict__.get("forward")  # accelerate's, for example
        layer.forward = partial(self._multiply, name, layer, layer.forward, before is None)  # type: ignore[method-assign]

        def undo() -> None:
            if before is None:
                del layer.forward
            else:
                layer.forward = before

        return undo

    def _multiply(
        self,
        name: str,
        layer: nn.Module,
        product: Callable[..., Tensor],
        plain: bool,
        x: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        rows = self._rows
        if rows is None:
            return product(x, *args, **kwargs)
        if plain and not (args or kwargs):
            merged = rows.multiply(name, layer, x)
            if merged is not None:
                return merged
        return rows.add_update(name, x, product(x, *args, **kwargs))

    def _apply_heads(
        self, name: str, _: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        rows = self._rows
        if rows is None:
            return None
        with self.run(None):  # a copied head may hold changed layers and heads
            return rows.apply_heads(name, args, kwargs, output)
