"""Manifest of downloads for a machine without internet: repositories, revisions, files, hashes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments import hub
from experiments.errors import RecordError
from experiments.files import write_atomically

SCHEMA = 1


def merge(downloads: Iterable[hub.Download]) -> list[hub.Download]:
    """Merge downloads into one per repository and revision."""
    wanted: dict[tuple[str, str, str], set[str]] = {}
    for one in downloads:
        wanted.setdefault((one.kind, one.repo, one.revision or ""), set()).update(one.patterns)
    return [
        hub.Download(
            repo=repo, kind=kind, revision=revision or None, patterns=tuple(sorted(patterns))
        )
        for (kind, repo, revision), patterns in sorted(wanted.items())
    ]


def describe(download: hub.Download, folder: Path) -> dict[str, Any]:
    """Describe a repository as the manifest lists it.

    Args:
        download: the request.
        folder: its snapshot in the cache, named after the commit.
    """
    from huggingface_hub.utils import filter_repo_objects

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    wanted = filter_repo_objects(names, allow_patterns=list(download.patterns))
    return {
        "repo": download.repo,
        "kind": download.kind,
        "revision": download.revision,
        "commit": folder.name,
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": _hash(folder / name)}
            for name in wanted
        },
    }


def write(path: Path, asked: list[str], repositories: list[dict[str, Any]]) -> None:
    """Write a manifest.

    Args:
        path: the file.
        asked: overrides that determine the repositories.
        repositories: of `describe`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "asked": asked,
        "repositories": repositories,
    }
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the repositories of a manifest.

    Raises:
        RecordError: no such file, or not a manifest of this version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read as a manifest ({error})") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise RecordError(f"{path}: not a manifest of schema {SCHEMA}")
    return found["repositories"]


def find_problems(repository: dict[str, Any]) -> Iterator[str]:
    """Yield every difference between this machine's cache and the manifest."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    repo, kind, commit = repository["repo"], repository["kind"], repository["commit"]
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)
    if not folder.is_dir():
        yield f"{kind} {repo}: not in the cache"
        return
    branch = repository["revision"] or constants.DEFAULT_REVISION
    reference = folder / "refs" / branch
    current = reference.read_text().strip() if reference.is_file() else "nothing"
    if current != commit:
        yield f"{kind} {repo}: {branch} is {current}, the manifest says {commit}"
    for name, wanted in repository["files"].items():
        found = try_to_load_from_cache(repo, name, repo_type=kind, revision=commit)
        if not isinstance(found, str):
            yield f"{kind} {repo}: {name} is missing"
        elif _hash(Path(found)) != wanted["sha256"]:
            yield f"{kind} {repo}: {name} is damaged, its SHA-256 differs"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
