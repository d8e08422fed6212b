"""Published revisions and SHA-256 of weights and data, and downloads compared with them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiments.hub import fingerprints

FILE = Path(__file__).with_suffix(".yaml")
KINDS = {"model": "models", "dataset": "datasets"}


@dataclass(kw_only=True)
class Comparison:
    """Repository of a manifest beside what is published of it."""

    revision: str | None
    """Published commit; None if it is not known."""
    commit: str
    equal: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Files whose SHA-256 is not known."""

    def describe(self) -> str:
        """Say in a line what is equal, different and unknown."""
        if self.revision is None:
            parts = ["published revision unknown"]
        elif self.revision == self.commit:
            parts = ["the published revision"]
        else:
            parts = [f"revision {self.commit}, published {self.revision}"]
        if self.equal:
            parts.append(f"SHA-256 of {', '.join(self.equal)} as published")
        if self.different:
            parts.append(f"SHA-256 of {', '.join(self.different)} DIFFERS from the published one")
        if self.unknown:
            parts.append(f"SHA-256 unknown: {len(self.unknown)} files")
        return "; ".join(parts)


@functools.cache
def load() -> dict[str, Any]:
    """Read what is published: `models` and `datasets` by repository, `others` by name."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def fingerprint_weights(repo: str, names: Sequence[str]) -> str | None:
    """Return the fingerprint of published weights; None if the SHA-256 of a file is not known.

    Args:
        repo: repository of the model.
        names: its files of weights, in the order of `fingerprints.find_weights`.
    """
    known = load()["models"][repo]["files"]
    found = [known.get(name) for name in names]
    return None if None in found else fingerprints.combine_digests(map(bytes.fromhex, found))


def compare(repository: dict[str, Any]) -> Comparison:
    """Compare a repository of a manifest with what is published of it."""
    pin = load()[KINDS[repository["kind"]]].get(repository["repo"]) or {}
    known, found = pin.get("files") or {}, repository["files"]
    told = Comparison(revision=pin.get("revision"), commit=repository["commit"])
    for name, file in found.items():
        wanted = known.get(name)
        same = file["sha256"] == wanted
        (told.unknown if wanted is None else told.equal if same else told.different).append(name)
    return told
