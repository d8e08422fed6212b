"""Cache of tokenised data sets, for all runs of a user."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.files import get_cache_folder, write_atomically

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

VERSION = 2
"""Version of the tokens, raised when equal rows give other tokens."""


def tokenise_rows(
    rows: Dataset,
    tokenise: Callable[[dict[str, Any]], dict[str, Any]],
    processor: Any,
    about: list[Any],
    *,
    batched: bool = False,
) -> Dataset:
    """Tokenise rows, or read them from the cache.

    Args:
        rows: what the data files hold.
        tokenise: a row, or a batch of them, -> its columns.
        processor: the tokenizer that it uses, one of the fast kind.
        about: all else that the outcome depends on: fingerprint of the data, subset, format,
            length.
        batched: `tokenise` takes a batch.
    """
    if not sys.stderr.isatty():
        import datasets

        datasets.disable_progress_bars()
    tokenizer = json.loads(processor.backend_tokenizer.to_str())
    tokenizer |= {"truncation": None, "padding": None}  # left by the last call, and set by the next
    python = [type(processor).__name__, processor.model_input_names, processor.truncation_side]
    python += [processor.bos_token_id, processor.eos_token_id, processor.pad_token_id]
    parts = [VERSION, about, tokenizer, python]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    make = functools.partial(
        rows.map,
        tokenise,
        batched=batched,
        remove_columns=rows.column_names,
        new_fingerprint=name[:32],  # else `datasets` hashes the function, which takes a second
    )
    try:
        path = get_cache_folder("tokens") / f"{name}.arrow"
        there = _is_complete(path)
        made = make(cache_file_name=str(path), load_from_cache_file=there)
        if not there:
            write_atomically(_get_checksum_path(path), _hash_file(path))
        return made
    except (OSError, UserError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("the tokens are not kept for later runs: %s", reason)
        return make(keep_in_memory=True, load_from_cache_file=False)


def _is_complete(path: Path) -> bool:
    """Return True if the file is complete, as a power cut or a full disk may truncate it."""
    if not path.exists():
        return False
    try:
        if _get_checksum_path(path).read_text(encoding="utf-8") == _hash_file(path):
            return True
        log.warning("%s: damaged, its tokens are made again", path)
    except (OSError, UnicodeDecodeError):
        log.debug("%s: without a checksum, its tokens are made again", path)
    return False


def _get_checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
