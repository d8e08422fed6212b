"""A study in its folder: `study.sqlite`, which Optuna reads, and `trials.json`, which anybody does.

What a trial tries depends on the search's seed, the trial's number, the values of the trials
before it and the release of Optuna alone. A search that was killed and continued is therefore the
search that was not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from experiments.errors import ConfigError, RecordError, UserError
from experiments.files import write_atomically
from experiments.search.space import Axis

if TYPE_CHECKING:
    import optuna

DATABASE, TRIALS = "study.sqlite", "trials.json"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What to try."""

    number: int
    """Of the trial, from 0."""
    overrides: list[str]
    """The values, as overrides of the configuration."""


class Study:
    """Trials of one cell.

    Args:
        folder: where it is kept; made if need be.
        space: what is chosen.
        lower: True where lower values are better.
        seed: of the search.

    Raises:
        UserError: Optuna is not installed.
        ConfigError: the folder holds a search of another kind.
        RecordError: what it holds cannot be read.
    """

    def __init__(self, folder: Path, space: Sequence[Axis], *, lower: bool, seed: int):
        self.folder, self.space, self.lower, self.seed = folder, list(space), lower, seed
        optuna = _optuna()
        folder.mkdir(parents=True, exist_ok=True)
        where = {"storage": _open_storage(folder.resolve()), "study_name": "search"}
        where["sampler"] = optuna.samplers.RandomSampler(seed=0)  # never asked: `_sample` is
        try:
            self._study = optuna.load_study(**where)
            begun = self._study.direction.name != "NOT_SET"  # else a kill was faster
        except KeyError:
            begun = False
        if not begun:
            self._study = optuna.create_study(
                **where, direction=self._direction, load_if_exists=True
            )
        self._agree({"space": json.dumps([asdict(axis) for axis in space]), "seed": str(seed)})

    @property
    def _direction(self) -> str:
        return "minimize" if self.lower else "maximize"

    @property
    def finished(self) -> int:
        """Number of trials that have a value."""
        return len(self._of("COMPLETE"))

    def propose(self) -> Proposal:
        """Return the trial that an interruption left open, else a new one."""
        optuna = _optuna()
        running = self._of("RUNNING")
        if running:
            trial = optuna.trial.Trial(self._study, running[0]._trial_id)
        else:
            if not self._of("WAITING"):  # stored whole: no kill can leave a part of the values
                self._study.enqueue_trial(self._sample(len(self._study.get_trials(deepcopy=False))))
            trial = self._study.ask()
        values = {axis.key: _suggest(trial, axis) for axis in self.space}
        return Proposal(
            number=trial.number, overrides=[f"{key}={value}" for key, value in values.items()]
        )

    def finish(self, number: int, value: float | None, run: str) -> None:
        """End a trial.

        Args:
            number: of the trial.
            value: of the metric; None, for a run that diverged, is the worst there is.
            run: its folder.
        """
        if value is None:
            value = float("inf" if self.lower else "-inf")
        self._tell(number, {"run": run}, value)

    def fail(self, number: int, error: str, run: str | None) -> None:
        """End a trial that has no value."""
        self._tell(number, {"run": run, "error": error}, None)

    def best(self) -> dict[str, Any] | None:
        """Return the finished trial with the best value, as `listing` shows it."""
        done = [trial for trial in self.listing() if trial["state"] == "complete"]
        better = min if self.lower else max
        worst = float("inf" if self.lower else "-inf")
        return better(
            done,
            key=lambda trial: worst if trial["value"] is None else trial["value"],
            default=None,
        )

    def listing(self) -> list[dict[str, Any]]:
        """Every trial: number, state, value (None if it failed or diverged), params, run, error."""
        shown = []
        for trial in self._study.get_trials(deepcopy=False):
            finite = trial.value is not None and abs(trial.value) < float("inf")
            shown.append(
                {
                    "number": trial.number,
                    "state": trial.state.name.lower(),
                    "value": trial.value if finite else None,
                    "params": {
                        axis.key: trial.params[axis.key]
                        for axis in self.space
                        if axis.key in trial.params
                    },
                    "run": trial.user_attrs.get("run"),
                    "error": trial.user_attrs.get("error"),
                }
            )
        return shown

    def _sample(self, number: int) -> dict[str, Any]:
        """Values of a new trial from the ended ones, by an estimator with a seed of its own."""
        optuna = _optuna()
        seed = random.Random(f"{self.seed}/{number}").getrandbits(32)
        mirror = optuna.create_study(
            direction=self._direction, sampler=optuna.samplers.TPESampler(seed=seed)
        )
        mirror.add_trials(self._of("COMPLETE"))
        trial = mirror.ask()
        return {axis.key: _suggest(trial, axis) for axis in self.space}

    def _of(self, state: str) -> list[optuna.trial.FrozenTrial]:
        states = (_optuna().trial.TrialState[state],)
        return self._study.get_trials(deepcopy=False, states=states)

    def _tell(self, number: int, notes: dict[str, Any], value: float | None) -> None:
        optuna = _optuna()
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        for key, note in notes.items():
            trial.set_user_attr(key, note)
        state = optuna.trial.TrialState["FAIL" if value is None else "COMPLETE"]
        self._study.tell(trial, value, state)
        write_atomically(self.folder / TRIALS, json.dumps(self.listing(), indent=2) + "\n")

    def _agree(self, settings: dict[str, str]) -> None:
        """Keep the search's settings with it, and refuse to go on with others."""
        there = self._study.user_attrs
        problems = [
            f"{key}: found {there[key]}, expected {value}"
            for key, value in settings.items()
            if there.get(key, value) != value
        ]
        if self._study.direction.name.lower() != self._direction:
            problems.append(f"direction: found {self._study.direction.name.lower()}")
        if problems:
            raise ConfigError(
                f"{self.folder}: another search lies there (give its own intervals on the command "
                "line to go on with it, or move it away to start anew)",
                problems,
            )
        for key, value in settings.items():
            self._study.set_user_attr(key, value)


def _suggest(trial: optuna.trial.Trial, axis: Axis) -> Any:
    if axis.choices:
        return trial.suggest_categorical(axis.key, axis.choices)
    if isinstance(axis.low, int):
        return trial.suggest_int(axis.key, axis.low, axis.high, log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("a search needs Optuna", ["pip install -e '.[sweep]'"]) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_storage(folder: Path) -> optuna.storages.RDBStorage:
    """Open the database of a study.

    Raises:
        RecordError: it is damaged or of another layout, or the trials lie there without it.
    """
    optuna = _optuna()
    from sqlalchemy.exc import SQLAlchemyError

    database = folder / DATABASE
    if (folder / TRIALS).exists() and not database.exists():
        raise RecordError(
            f"{folder / TRIALS}: its {DATABASE} is missing; put it back, "
            "or move the folder away to start anew"
        )
    url = f"sqlite:///{quote(str(database))}"
    try:
        return optuna.storages.RDBStorage(url)
    except RuntimeError as error:  # of another Optuna; it says which command upgrades the file
        raise RecordError(
            f"{database}: {str(error).replace('$STORAGE_URL', url)} The same search then goes on"
        ) from error
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise RecordError(
            f"{database}: cannot be read ({str(error).splitlines()[0]}); "
            "move the folder away to start anew"
        ) from error
