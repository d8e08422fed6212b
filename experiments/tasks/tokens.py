"""Tokens of a data set: made once, kept in the user's cache for every later run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.files import cache_folder

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 2
"""Changed when the tokens of equal rows change, so that those of an earlier version rest unused."""


def tokenised(
    rows: Dataset,
    tokenise: Callable[[dict[str, Any]], dict[str, Any]],
    processor: Any,
    about: list[Any],
    *,
    batched: bool = False,
) -> Dataset:
    """Rows as a network takes them.

    Args:
        rows: what the data files hold.
        tokenise: a row, or a batch of them, -> its columns.
        processor: the tokenizer that it uses, one of the fast kind.
        about: all else that the outcome depends on: fingerprint of the data, subset, format,
            length.
        batched: `tokenise` takes a batch.
    """
    tokenizer = json.loads(processor.backend_tokenizer.to_str())
    tokenizer |= {"truncation": None, "padding": None}  # left by the last call, and set by the next
    python = [type(processor).__name__, processor.model_input_names, processor.truncation_side]
    python += [processor.bos_token_id, processor.eos_token_id, processor.pad_token_id]
    parts = [VERSION, about, tokenizer, python]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return rows.map(
        tokenise,
        batched=batched,
        remove_columns=rows.column_names,
        cache_file_name=str(cache_folder("tokens") / f"{name}.arrow"),
        new_fingerprint=name[:32],  # else `datasets` hashes the function, which takes a second
    )
