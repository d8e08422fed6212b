"""Fingerprints of files: their contents alone, remembered by sizes and times.

Large weights are read once. A file that was written, replaced or restored since then has another
size, inode or time, and is read again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError
from experiments.files import get_cache_folder, list_visible

SETTLED_SECONDS = 2.0
"""Files younger than this are not remembered: a clock's tick may hide their next change."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files that belong together, such as the shards of a network's weights."""

    paths: Sequence[Path]
    """Paths, in the order of hashing."""
    below: Path | None = None
    """Folder to which hashed names are relative; None: only contents and order are hashed."""

    @property
    def names(self) -> list[str]:
        """Relative names that enter the fingerprint."""
        if self.below is None:
            return []
        return [path.relative_to(self.below).as_posix() for path in self.paths]


PIPELINE = "model_index.json"
"""The file that makes a folder a pipeline of diffusers."""
PIPELINE_WEIGHTS = (
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
VOCABULARIES = (
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"),
    "sentencepiece.bpe.model",
)
"""Files of a tokenizer without tokenizer.json."""


def find_files(folder: Path, patterns: Sequence[str]) -> Files:
    """Return the files of a folder that match any pattern; their names are hashed too."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return Files(paths=sorted(found), below=folder)


def find_weights(folder: Path) -> Files:
    """Return the weights in a folder of transformers or diffusers, with shards in subfolders."""
    if (folder / PIPELINE).exists():  # beside these lie copies of other precisions, not always
        return Files(paths=[path for name in PIPELINE_WEIGHTS if (path := folder / name).exists()])
    return Files(paths=[*list_visible(folder, "*.safetensors"), *_find_shards(folder)])


def _find_shards(folder: Path) -> list[Path]:
    """Return the shards in subfolders that the index of a folder names."""
    try:
        named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        shards = {folder / name for name in named if "/" in name}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return []
    return sorted(path for path in shards if path.is_file())


def find_tokenizer(folder: Path) -> Files:
    """Return the files that transformers reads for the tokenizer of a folder."""
    main = [TOKENIZER] if (folder / TOKENIZER).is_file() else VOCABULARIES
    return find_files(
        folder, [*main, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    )


def compute_fingerprint(files: Files) -> str:
    """Compute SHA-256 over the SHA-256 of every file, and over the hashed names.

    Raises:
        OSError: a file cannot be read.
    """
    stamps = _get_stamps(files)
    known = read_remembered(files, stamps)
    if known is not None:
        return known
    began = time.time()
    digest = hashlib.sha256()
    names = files.names
    for number, path in enumerate(files.paths):
        if names:
            digest.update(f"{names[number]}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    found = digest.hexdigest()
    if _get_stamps(files) == stamps and _are_settled(stamps, began):
        _remember(files, stamps, found)
    return found


def combine_digests(digests: Iterable[bytes]) -> str:
    """Return the fingerprint of files whose names are not hashed, from the SHA-256 of each."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def read_remembered(files: Files, stamps: list[tuple[int, ...]] | None = None) -> str | None:
    """Return the remembered fingerprint; None if a file is unknown or has changed since."""
    try:
        text = _get_memory_path(files, stamps or _get_stamps(files)).read_text(encoding="utf-8")
    except (OSError, ValueError):  # UserError is one
        return None
    return text if _FINGERPRINT.fullmatch(text) else None


def compute_size(files: Files) -> int:
    """Return the total size in bytes."""
    return sum(os.stat(path).st_size for path in files.paths)


def get_stamp(path: str | Path) -> tuple[int, ...]:
    """Return metadata that change with a file's content, without opening it.

    Size and the time of writing can be set back, the inode's time cannot.

    Raises:
        OSError: no such file, or not a regular one: a pipe would be waited for.
    """
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    times = state.st_mtime_ns, state.st_ctime_ns
    return (state.st_dev, state.st_ino, state.st_size, *times)


def _get_stamps(files: Files) -> list[tuple[int, ...]]:
    return [get_stamp(path) for path in files.paths]


def _are_settled(stamps: list[tuple[int, ...]], now: float) -> bool:
    newest = max((max(one[3:]) for one in stamps), default=0)
    return newest < (now - SETTLED_SECONDS) * 1e9


def _get_memory_path(files: Files, stamps: list[tuple[int, ...]]) -> Path:
    """Return the path where the fingerprint of exactly these files is remembered."""
    about = [[os.path.abspath(path) for path in files.paths], files.names, stamps]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return get_cache_folder("fingerprints") / key


def _remember(files: Files, stamps: list[tuple[int, ...]], found: str) -> None:
    """Remember a fingerprint, in one step; if that fails, the files are read again next time."""
    try:
        path = _get_memory_path(files, stamps)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(found, encoding="utf-8")
        os.replace(draft, path)
    except (OSError, UserError):
        pass
