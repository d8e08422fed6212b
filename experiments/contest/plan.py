"""Contests as conf/contest/ describes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments.config.compose import CONF
from experiments.errors import ConfigError
from experiments.results.identity import name_variant

KEY = "train.learning_rate"
"""Setting whose values are tried for every contestant."""
KINDS = {"title": str, "set": list, "seeds": list, "reference": str, "contestants": dict}
"""Keys of a contest's file; one with `like: NAME` has those that it lacks from that contest."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One setting and the learning rates at which it is tried first."""

    name: str
    overrides: list[str]
    rates: list[float]
    """Ascending."""

    def at(self, rate: float) -> list[str]:
        """Return its overrides at a rate."""
        return [*self.overrides, f"{KEY}={rate:g}"]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Settings of one network on one task that are compared."""

    name: str
    title: str
    overrides: list[str]
    """Shared by all contestants."""
    seeds: list[int]
    """The first one is that of all trials; the chosen rates are repeated with the others."""
    reference: str
    """Contestant that the others are compared with."""
    contestants: list[Contestant]
    given: tuple[str, ...] = ()
    """Overrides of whoever holds it that change what is measured."""

    def select(self, names: list[str]) -> Contest:
        """Return the contest among some of the contestants.

        Raises:
            ConfigError: unknown contestants.
        """
        _require(self.name, names, [one.name for one in self.contestants])
        chosen = [one for one in self.contestants if one.name in (*names, self.reference)]
        return replace(self, contestants=chosen)

    def drop(self, contestant: Contestant) -> Contest:
        """Return the contest without one of the contestants."""
        return replace(self, contestants=[one for one in self.contestants if one != contestant])


def list_contests() -> list[str]:
    """Return the names of all contests."""
    return sorted(path.stem for path in (CONF / "contest").glob("*.yaml"))


def load_contest(name: str) -> Contest:
    """Read conf/contest/<name>.yaml, or the file of that name if it ends in .yaml.

    Raises:
        ConfigError: no such contest, or everything that is wrong with it.
    """
    found = _read(name)
    problems = list(_find_problems(found))
    if problems:
        raise ConfigError(f"contest {name}", problems)
    contestants = [
        Contestant(
            name=one,
            overrides=[str(word) for word in entry["set"]],
            rates=[float(rate) for rate in entry["rates"]],
        )
        for one, entry in found["contestants"].items()
    ]
    return Contest(
        name=Path(name).stem,
        title=found["title"],
        overrides=[str(word) for word in found["set"]],
        seeds=found["seeds"],
        reference=found["reference"],
        contestants=contestants,
    )


def _read(name: str, beside: Path | None = None, seen: tuple[Path, ...] = ()) -> Any:
    """Return the keys of a contest's file, and those of the one that it is like.

    A list of contestants chooses among the other's. A file's name is relative to the folder
    `beside`; `seen` are the files that are like this one.
    """
    if name.endswith(".yaml"):
        path = (beside or Path()) / name
    else:
        path = CONF / "contest" / f"{name}.yaml"
    if path in seen:
        raise ConfigError(f"contest {name}: like itself")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        allowed = ", ".join(list_contests())
        raise ConfigError(
            f"contest {name}: unknown (allowed: {allowed}, or a .yaml file)"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"contest {name}: cannot be read", [str(error)]) from error
    if not isinstance(found, dict) or "like" not in found:
        return found
    like = found.pop("like")
    other = _read(like, path.parent, (*seen, path)) if isinstance(like, str) else None
    if not isinstance(other, dict) or not isinstance(other.get("contestants"), dict):
        raise ConfigError(f"contest {name}: like={like!r}: needs a contest with contestants")
    if isinstance(found.get("contestants"), list):
        chosen = [str(one) for one in found["contestants"]]
        _require(name, chosen, other["contestants"])
        found["contestants"] = {one: other["contestants"][one] for one in chosen}
    return {**other, **found}


def _require(contest: str, names: Sequence[str], there: Collection[str]) -> None:
    """Raise a ConfigError that lists unknown contestants, if there are any."""
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(
            f"contest {contest}: no contestant {', '.join(unknown)} (allowed: {', '.join(there)})"
        )


def _find_problems(found: Any) -> Iterator[str]:
    """Yield what is wrong with a contest's file."""
    if not isinstance(found, dict):
        yield f"holds no mapping (needed: {', '.join(KINDS)})"
        return
    for key in found.keys() - KINDS.keys():
        yield f"{key}: unknown (allowed: {', '.join(KINDS)})"
    wrong = [key for key, kind in KINDS.items() if not isinstance(found.get(key), kind)]
    for key in wrong:
        yield f"{key}={found.get(key)!r}: needs a {KINDS[key].__name__}"
    if wrong:
        return
    if not found["seeds"] or any(type(seed) is not int for seed in found["seeds"]):
        yield f"seeds={found['seeds']}: needs integers, at least one"
    yield from find_taken([str(word) for word in found["set"]])
    counts = set()
    for name, entry in found["contestants"].items():
        if "," in str(name):
            yield f"{name}: a comma, which separates names in --only"
        if not isinstance(entry, dict) or entry.keys() != {"set", "rates"}:
            yield f"{name}: needs set and rates, nothing else"
            continue
        try:
            rates = [float(rate) for rate in entry["rates"]]
        except (TypeError, ValueError):
            yield f"{name}: rates={entry['rates']!r}: needs numbers"
            continue
        if not isinstance(entry["set"], list):
            yield f"{name}: set={entry['set']!r}: needs a list"
            continue
        counts.add(len(rates))
        if len(rates) < 3 or rates != sorted(set(rates)) or rates[0] <= 0:
            yield f"{name}: rates={entry['rates']}: needs at least three above 0, ascending"
        yield from (f"{name}: {line}" for line in find_taken([str(word) for word in entry["set"]]))
    if len(counts) > 1:
        yield f"rates: every contestant needs equally many, not {sorted(counts)}"
    if found["reference"] not in found["contestants"]:
        yield f"reference={found['reference']}: not one of the contestants"


def find_taken(words: Sequence[str]) -> Iterator[str]:
    """Yield overrides of what the contest itself chooses."""
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in (KEY, "seed"):
            yield f"{word}: {'the rates' if key == KEY else 'the seeds'} say what is tried"


def locate_results(output: Path, contest: Contest) -> Path:
    """Return the file that a contest's results are written to, without its suffix."""
    name = contest.name + f",{name_variant(_split(contest.given))}" * bool(contest.given)
    return output / ".contests" / name


def _split(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}
