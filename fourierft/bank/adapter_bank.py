"""Thousands of adapters of one base model in memory, chosen row by row."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..config import first_few
from ..engine.mixed_batch import BASE
from .rows import BankedRows, HeadRows, ShelfRows
from .shelf import Shelf, get_key
from .stored_adapter import StoredAdapter, find_heads, read_adapter


@dataclass(frozen=True)
class BankedAdapter:
    """An adapter in a bank."""

    name: str
    """Name in the bank."""
    version: int
    """1 for the first adapter of this name, one more after each replacement."""
    checksum: str
    """Of coefficients and head, see `StoredAdapter.checksum`."""
    source: str
    """Folder or file that it was read from."""
    parameters: int
    """Number of coefficients."""
    nbytes: int
    """Memory of coefficients and head."""


@dataclass(frozen=True)
class _Place:
    about: BankedAdapter
    shelf: Shelf
    slot: int
    head: dict[str, Tensor]


class AdapterBank:
    """Adapters of one base model, of which every row of a batch can have another.

    The coefficients of adapters with the same layers and entries lie in common tensors, and nothing
    of the model's modules is replaced: hooks add ``DeltaW_a x`` to the outputs of the adapted
    layers (`banked_update`), at a cost that does not grow with the number of adapters. Adapters
    come, go and are replaced while batches run: a batch works with the values it began with.

    Example::

        bank = AdapterBank(net)
        bank.add("alice", "adapters/alice")
        bank.add("bob", "adapters/bob.safetensors")
        with bank.rows(["alice", "bob", "__base__"]):
            net.generate(**three_prompts)

    The model may run in several threads, each with its own rows. Gradients reach the inputs, not
    the adapters: those are trained with PEFT's ``adapter_names=``.

    Args:
        net: The base model, without adapters of PEFT.
        capacity: Largest number of adapters; a further one evicts that which was used longest ago.
            None for no limit.
    """

    def __init__(self, net: nn.Module, capacity: int | None = None) -> None:
        if any(isinstance(module, BaseTunerLayer) for module in net.modules()):
            raise ValueError("AdapterBank: the model carries adapters of PEFT; give its base model")
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity: got {capacity}, allowed 1 or more, or None")
        self.net = net
        self.capacity = capacity
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._shelves: dict[Any, Shelf] = {}
        self._versions: dict[str, int] = {}
        self._handles: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._running = threading.local()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def names(self) -> list[str]:
        """Names of the adapters, the one used longest ago first."""
        with self._lock:
            return list(self._places)

    @property
    def nbytes(self) -> int:
        """Memory of all coefficients, free places included, and heads."""
        with self._lock:
            heads = sum(t.nbytes for place in self._places.values() for t in place.head.values())
            return heads + sum(shelf.nbytes for shelf in self._shelves.values())

    def describe(self, name: str) -> BankedAdapter:
        """Return an adapter's version, checksum and source.

        Raises:
            KeyError: No adapter has this name.
        """
        return self._places[name].about

    def add(self, name: str, source: str | Path) -> BankedAdapter:
        """Add an adapter.

        Args:
            name: Its name, ``__base__`` excepted.
            source: A folder that PEFT has saved, or a file of `export_compact`.

        Raises:
            ValueError: The name is taken, or the adapter is damaged or does not fit the model. The
                bank is then as it was.
        """
        if name in self._places:
            raise ValueError(f"name: got {name!r}, which the bank has: replace or remove it")
        return self._put(name, source)

    def replace(self, name: str, source: str | Path) -> BankedAdapter:
        """Put another adapter in the place of one, as the next version; see `add`.

        Raises:
            KeyError: No adapter has this name.
        """
        if name not in self._places:
            raise KeyError(name)
        return self._put(name, source)

    def add_folder(self, folder: str | Path) -> list[BankedAdapter]:
        """Add every adapter in a folder under the name of its folder or file.

        Args:
            folder: Holds folders with an ``adapter_config.json``, and compact ``.safetensors``
                files.

        Raises:
            ValueError: Some adapters do not fit, or their names are taken: all of them are named,
                and none is added.
        """
        sources = {
            path.stem if path.suffix == ".safetensors" else path.name: path
            for path in sorted(Path(folder).iterdir())
            if path.suffix == ".safetensors" or (path / "adapter_config.json").is_file()
        }
        problems = [
            f"{name}: the bank has an adapter of this name" for name in sources if name in self
        ]
        read = {}
        for name, path in sources.items():
            try:
                read[name] = read_adapter(self.net, path)
            except ValueError as error:
                problems.append(str(error))
        if problems or not sources:
            raise ValueError(first_few(problems) or f"{folder}: holds no adapters")
        return [self._store(name, str(sources[name]), one) for name, one in read.items()]

    def remove(self, name: str) -> None:
        """Remove an adapter; batches that run with it are not changed.

        Raises:
            KeyError: No adapter has this name.
        """
        with self._lock:
            place = self._places.pop(name)
            place.shelf.free(place.slot)

    @contextlib.contextmanager
    def rows(self, names: Sequence[str]) -> Iterator[None]:
        """Give every row of the batches inside the block its own adapter.

        What a model makes of a row (beams, tokens) keeps its adapter, if it stays in the order of
        rows.

        Args:
            names: Names, one a row; ``__base__`` for a row without an adapter.

        Raises:
            ValueError: Unknown names; all of them are named.
        """
        before = getattr(self._running, "rows", None)
        self._running.rows = self._gather(names)
        try:
            yield
        finally:
            self._running.rows = before

    def close(self) -> None:
        """Remove the hooks; the model is as it was."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def _put(self, name: str, source: str | Path) -> BankedAdapter:
        if not name or name == BASE:
            raise ValueError(f"name: got {name!r}, allowed any other than {BASE}")
        return self._store(name, str(source), read_adapter(self.net, source))

    def _store(self, name: str, source: str, adapter: StoredAdapter) -> BankedAdapter:
        head = {key: tensor.clone() for key, tensor in adapter.head.items()}
        with self._lock:
            shelf = self._shelves.setdefault(
                get_key(adapter), Shelf(adapter.layers, adapter.config)
            )
            self._watch(adapter)
            version = self._versions.get(name, 0) + 1
            about = BankedAdapter(
                name,
                version,
                adapter.checksum,
                source,
                adapter.coefficients.numel(),
                adapter.coefficients.nbytes + sum(tensor.nbytes for tensor in head.values()),
            )
            place = _Place(about, shelf, shelf.put(adapter), head)
            old = self._places.pop(name, None)
            if old is not None:
                old.shelf.free(old.slot)
            self._places[name], self._versions[name] = place, version
            while self.capacity is not None and len(self._places) > self.capacity:
                self.remove(next(iter(self._places)))
            return about

    def _watch(self, adapter: StoredAdapter) -> None:
        """Put hooks on the layers and heads of an adapter that have none yet."""
        modules = dict(self.net.named_modules())
        for layer in adapter.layers:
            if layer.name not in self._handles:
                hook = partial(self._add_update, layer.name)
                self._handles[layer.name] = modules[layer.name].register_forward_hook(hook)
        for name in find_heads(adapter, modules):
            if name not in self._handles:
                self._handles[name] = modules[name].register_forward_hook(
                    partial(self._apply_heads, name), with_kwargs=True
                )

    def _gather(self, names: Sequence[str]) -> BankedRows:
        if isinstance(names, str) or not names:
            raise ValueError(f"rows: got {names!r}, allowed a list of names, one a row")
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows_of.setdefault(name, []).append(row)
        rows_of.pop(BASE, None)
        with self._lock:
            unknown = sorted(rows_of.keys() - self._places.keys())
            if unknown:
                raise ValueError(f"rows: no adapters {', '.join(unknown[:20])} in the bank")
            by_shelf: dict[int, list[str]] = {}
            for name in rows_of:
                self._places.move_to_end(name)
                by_shelf.setdefault(id(self._places[name].shelf), []).append(name)
            parts = [self._rows_of_shelf(own, rows_of, len(names)) for own in by_shelf.values()]
            heads = [
                HeadRows(self._places[name].head, rows)
                for name, rows in rows_of.items()
                if self._places[name].head
            ]
        return BankedRows(len(names), parts, heads)

    def _rows_of_shelf(
        self, names: list[str], rows_of: dict[str, list[int]], count: int
    ) -> ShelfRows:
        pairs = sorted((row, index) for index, name in enumerate(names) for row in rows_of[name])
        rows, which = zip(*pairs, strict=True)
        slots = [self._places[name].slot for name in names]
        return ShelfRows(self._places[names[0]].shelf, slots, rows, which, len(rows) == count)

    def _add_update(
        self, name: str, module: nn.Module, args: tuple, output: Tensor
    ) -> Tensor | None:
        running = getattr(self._running, "rows", None)
        return None if running is None else running.add_update(name, args[0], output)

    def _apply_heads(
        self, name: str, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        running = getattr(self._running, "rows", None)
        if running is None or not running.heads:
            return None
        # The module is called again, and so would be this hook.
        self._running.rows = None
        try:
            return running.apply_heads(name, module, args, kwargs, output)
        finally:
            self._running.rows = running
