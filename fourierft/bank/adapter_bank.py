"""Thousands of adapters of one base model in memory, chosen row by row."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..config import first_few
from ..engine.mixed_batch import BASE
from .bank_file import FileEntry, read_bank, write_bank
from .base_model import BaseModel
from .hooks import ModelHooks
from .places import AdapterPlace, BankedAdapter, PinnedAdapter
from .rows import BankedRows, gather_rows
from .shelf import Shelf, Slot, get_key
from .stored_adapter import StoredAdapter, list_adapters, read_adapter


class AdapterBank:
    """Adapters of one base model, of which every row of a batch can have another.

    The coefficients of adapters with the same layers and entries lie in common tensors. No module
    of the model is replaced: until `close`, its adapted layers add ``DeltaW_a x`` (`banked_update`)
    at a cost that does not grow with the number of adapters, or multiply with ``W0 + DeltaW_a``
    where there are few (`MergedWeights`). Adapters come, go and are replaced while batches run: a
    batch works with the values it began with.

    Example::

        bank = AdapterBank(net)
        bank.add_folder("adapters")
        with bank.rows(["alice", "bob", "__base__"]):
            net.generate(**three_prompts)

    Each thread has rows of its own. Gradients reach the inputs, not the adapters: those are
    trained with PEFT's ``adapter_names=``.

    Args:
        net: The base model, without adapters of PEFT.
        capacity: Adapters at most: a further one evicts that which was used longest ago.
    """

    def __init__(self, net: nn.Module, capacity: int | None = None) -> None:
        if any(isinstance(module, BaseTunerLayer) for module in net.modules()):
            raise ValueError("AdapterBank: the model carries adapters of PEFT; give its base model")
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity: got {capacity}, allowed 1 or more, or None")
        self.net = net
        self.capacity = capacity
        self._base = BaseModel(net)
        self._hooks = ModelHooks(net)
        self._places: OrderedDict[str, AdapterPlace] = OrderedDict()
        self._shelves: dict[Any, Shelf] = {}
        self._versions: dict[str, int] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def names(self) -> list[str]:
        """Names of the adapters, the one used longest ago first."""
        return list(self._places)

    @property
    def nbytes(self) -> int:
        """Memory of all coefficients, free places included, and heads."""
        with self._lock:
            heads = sum(t.nbytes for place in self._places.values() for t in place.head.values())
            return heads + sum(shelf.nbytes for shelf in self._shelves.values())

    def describe_all(self) -> list[BankedAdapter]:
        """Return version, checksum and source of every adapter, by name."""
        with self._lock:
            return sorted((place.about for place in self._places.values()), key=lambda a: a.name)

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
        self._check_new(name)
        return self._store(name, str(source), *self._read(source))

    def replace(self, name: str, source: str | Path) -> BankedAdapter:
        """Put another adapter in the place of one, as the next version; see `add`.

        Raises:
            KeyError: No adapter has this name.
        """
        if name not in self._places:
            raise KeyError(name)
        return self._store(name, str(source), *self._read(source))

    def add_folder(
        self, folder: str | Path, on_error: Callable[[str], Any] | None = None
    ) -> list[BankedAdapter]:
        """Add every adapter in a folder under the name of its folder or file.

        Args:
            folder: Holds folders with an ``adapter_config.json``, and compact ``.safetensors``
                files.
            on_error: Function of a message for each adapter that does not fit or whose name is
                taken: it is skipped. None: see below.

        Raises:
            ValueError: Without ``on_error``: some adapters do not fit, or their names are taken, or
                there are none. All of them are named, and none is added.
        """
        paths = list_adapters(Path(folder))
        names = [path.stem if path.is_file() else path.name for path in paths]
        problems, read = [] if paths else [f"{folder}: holds no adapters"], []
        for name, path in zip(names, paths, strict=True):
            if names.count(name) > 1:
                problems.append(f"{path}: another adapter is called {name} too")
                continue
            try:
                self._check_new(name)
                read.append((name, path, self._read(path)))
            except ValueError as error:
                text = str(error)
                problems.append(text if text.startswith(str(path)) else f"{path}: {text}")
        if on_error is not None:
            for problem in problems:
                on_error(problem)
        elif problems:
            raise ValueError(first_few(problems))
        return [self._store(name, str(path), *found) for name, path, found in read]

    def remove(self, name: str) -> None:
        """Remove an adapter; batches that run with it are not changed.

        Raises:
            KeyError: No adapter has this name.
        """
        with self._lock:
            self._free(self._places.pop(name))

    def pin(self, name: str) -> PinnedAdapter:
        """Copy an adapter, for rows that are to keep it over several batches, as when text is made.

        Raises:
            KeyError: No adapter has this name.
        """
        with self._lock:
            place = self._places[name]
            self._places.move_to_end(name)
            (coefficients,) = place.shelf.gather([place.slot])
            return PinnedAdapter(place.about, place.shelf, coefficients, place.heads)

    def gather(self, names: Sequence[str | PinnedAdapter]) -> BankedRows:
        """Arrange the adapters of a batch, for several blocks of `rows`.

        Args:
            names: Names, or results of `pin`, one a row; ``__base__`` for no adapter.

        Raises:
            ValueError: Unknown names; all of them are named.
        """
        if isinstance(names, str) or not names:
            raise ValueError(f"rows: got {names!r}, allowed a list of names, one a row")
        with self._lock:
            asked = {name for name in names if isinstance(name, str)} - {BASE}
            unknown = sorted(asked - self._places.keys())
            if unknown:
                raise ValueError(f"rows: no adapters {', '.join(unknown[:20])} in the bank")
            pinned = {name: self.pin(name) for name in asked}
        return gather_rows([pinned.get(one) if isinstance(one, str) else one for one in names])

    @contextlib.contextmanager
    def rows(self, names: Sequence[str | PinnedAdapter] | BankedRows) -> Iterator[None]:
        """Give every row of the batches inside the block its own adapter.

        What a model makes of a row (beams, tokens) keeps its adapter if the order of rows stays.

        Args:
            names: See `gather`; or its result.
        """
        with self._hooks.run(names if isinstance(names, BankedRows) else self.gather(names)):
            yield

    def save(self, path: str | Path) -> None:
        """Write all adapters to one safetensors file, of which `load` reads what is used."""
        with self._lock:
            shelves = list(self._shelves.values())
            entries = [
                FileEntry(
                    asdict(one.about), shelves.index(one.shelf), one.modules_to_save, one.head
                )
                for one in self._places.values()
            ]
            slots = [one.slot for one in self._places.values()]
            write_bank(Path(path), shelves, entries, slots)

    def load(self, path: str | Path) -> list[BankedAdapter]:
        """Add the adapters of a file of `save`; it is mapped into memory, and must stay.

        Raises:
            ValueError: The file is damaged or for another model, or names are taken. Nothing is
                added then. Coefficients are compared with their checksums when first used.
        """
        found = read_bank(self._base, Path(path))
        with self._lock:
            names = [entry.about["name"] for entry in found.entries]
            taken = sorted(name for name in names if name in self)
            if taken:
                raise ValueError(f"{path}: names that the bank has: {first_few(taken)}")
            heads = [self._base.make_heads(one.head, one.modules_to_save) for one in found.entries]
            slots = []
            for number, (shelf, block) in enumerate(zip(found.shelves, found.blocks, strict=True)):
                key = get_key(shelf.layers, shelf.config)
                found.shelves[number] = shelf = self._shelves.setdefault(key, shelf)
                slots.append(iter(shelf.attach(block, found.checksums[number])))
            added = []
            for (about, number, *_), own in zip(found.entries, heads, strict=True):
                shelf = found.shelves[number]
                # An eviction removes a shelf that is empty before its next adapter is entered.
                self._shelves.setdefault(get_key(shelf.layers, shelf.config), shelf)
                added.append(self._place(BankedAdapter(**about), shelf, next(slots[number]), own))
            return added

    def close(self) -> None:
        """Undo all changes; the model is as it was."""
        self._hooks.remove()

    def _check_new(self, name: str) -> None:
        if name in self._places:
            raise ValueError(f"name: got {name!r}, which the bank has: replace or remove it")
        if not name or name == BASE:
            raise ValueError(f"name: got {name!r}, allowed any other than {BASE}")

    def _read(self, source: str | Path) -> tuple[StoredAdapter, dict[str, nn.Module]]:
        """Return an adapter that fits the model, and modules with its head."""
        adapter = read_adapter(self._base, source)
        return adapter, self._base.make_heads(adapter.head, adapter.config.modules_to_save or ())

    def _store(
        self, name: str, source: str, adapter: StoredAdapter, heads: dict[str, nn.Module]
    ) -> BankedAdapter:
        number = adapter.coefficients.numel()
        with self._lock:
            version = self._versions.get(name, 0) + 1
            about = BankedAdapter(name, version, adapter.checksum, source, number, adapter.nbytes)
            key = get_key(adapter.layers, adapter.config)
            if key not in self._shelves:
                self._shelves[key] = Shelf(adapter.layers, adapter.config)
            shelf = self._shelves[key]
            return self._place(about, shelf, shelf.put(adapter), heads)

    def _place(
        self, about: BankedAdapter, shelf: Shelf, slot: Slot, heads: dict[str, nn.Module]
    ) -> BankedAdapter:
        """Enter an adapter whose coefficients are stored, in place of one of its name."""
        self._hooks.watch(shelf.columns, heads)
        old = self._places.pop(about.name, None)
        self._places[about.name] = AdapterPlace(about, shelf, slot, heads)
        self._versions[about.name] = about.version
        if old is not None:
            self._free(old)
        while self.capacity is not None and len(self._places) > self.capacity:
            self.remove(next(iter(self._places)))
        return about

    def _free(self, place: AdapterPlace) -> None:
        """Give a place back, and a shelf that nothing lies on any more."""
        place.shelf.free(place.slot)
        if not any(other.shelf is place.shelf for other in self._places.values()):
            del self._shelves[get_key(place.shelf.layers, place.shelf.config)]
