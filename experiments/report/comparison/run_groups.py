"""Groups of finished runs that were scored on the same rows, with the scores of every setting."""

from __future__ import annotations

import functools
import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.metrics.selection import RULES
from experiments.report.comparison import intervals, names, paired
from experiments.report.comparison.intervals import Interval
from experiments.report.comparison.paired import Difference, Sample
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.comparison.seed_groups import Setting, group_seeds
from experiments.report.comparison.setting_labels import label_settings
from experiments.results import predictions
from experiments.results.history import TRAINING_LOSS

LONGEST_NAME = 60
"""Letters of the name of the user's own data."""


@dataclass(kw_only=True)
class ScoredSetting:
    """One setting of a group with its scores."""

    setting: Setting
    label: str
    scores: dict[str, float | None]
    """Mean over the seeds, by selection rule."""
    parameters: int
    seconds: float | None
    interval: Interval | None = None
    """Of the score by the task's own rule."""
    difference: Difference | None = None
    """From the best setting; None for that one, and without a score."""

    @property
    def difference_interval(self) -> Interval | None:
        """Interval of the difference."""
        return None if self.difference is None else intervals.of_difference(self.difference)

    @property
    def runs(self) -> list[Run]:
        """Its runs, a seed each."""
        return list(self.setting.runs.values())


@dataclass(kw_only=True)
class RunGroup:
    """Runs of one base model and task that were scored on the same rows."""

    model: str
    task: str
    data: str | None
    """Name of the user's own data."""
    profile: str | None
    metric: str | None
    """None for runs without a score."""
    split: str | None
    rule: str
    """Selection rule of the score."""
    rows: int | None
    """Rows scored."""
    settings: list[ScoredSetting] = field(default_factory=list)
    """The best first."""
    mark: str = ""
    """What tells it from another group of the same description."""

    @property
    def title(self) -> str:
        """MiniLM on SST-2."""
        return f"{names.name_model(self.model)} on {_name_rows(self.task, self.data)}"

    @property
    def conditions(self) -> str:
        """Rows and profile: "872 validation rows scored"."""
        parts = [f"profile {self.profile}"] if self.profile else []
        if self.metric and self.rows:
            parts.append(f"{self.rows:,} {self.split} rows scored")
        return ", ".join([*parts, *([self.mark] if self.mark else [])])

    @property
    def score_key(self) -> str:
        """Key of the score in the runs' histories."""
        return f"{self.split}/{self.metric}"

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for one in self.settings for run in one.runs]

    @property
    def finished(self) -> str:
        """Time of the last run, as records hold it."""
        times = [run.record.time for run in self.runs]
        return max(str(one.get("finished") or one.get("started") or "") for one in times)


def find_groups(index: RunIndex) -> list[RunGroup]:
    """Return all groups of trained runs, that of the latest run first."""
    groups = [_make_group(runs) for runs in group_runs(index)]
    described: dict[tuple[str, str], list[RunGroup]] = {}
    for group in groups:
        described.setdefault((group.title, group.conditions), []).append(group)
    for alike in described.values():
        for place, group in enumerate(alike if len(alike) > 1 else (), 1):
            group.mark = f"data {place} of {len(alike)}"
    groups.sort(key=lambda one: (one.title, one.conditions))
    return sorted(groups, key=lambda one: one.finished, reverse=True)


def add_comparison(group: RunGroup, most: int) -> None:
    """Add intervals, and differences from the best, of the first settings of a group."""
    shown = [one for one in group.settings[:most] if one.scores.get(group.rule) is not None]
    if not shown:
        return
    mark = _mark_rows(shown[0].runs[0], group)
    samples = [_sample(one, group, mark) for one in shown]
    for one, sample in zip(shown, samples, strict=True):
        one.interval = intervals.of_score(sample, one.runs, group.rule, group.metric)
        if one is not shown[0]:
            one.difference = paired.compare(sample, samples[0])


def find_curve_key(group: RunGroup, index: RunIndex) -> str | None:
    """Return the key of the histories that shows the score best; None without any.

    The score's own if it was logged, else another score, else the training loss.
    """
    lines = next(filter(None, map(index.lines, group.runs)), [])
    keys = dict.fromkeys(key for line in lines for key in line)
    wanted = [group.score_key]
    wanted += [key for key in keys if "/" in key and key not in predictions.OF_TRAINING]
    return next((key for key in [*wanted, TRAINING_LOSS] if key in keys), None)


def group_runs(index: RunIndex) -> list[list[Run]]:
    """Return the trained runs of one base model, task, data and metric each."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in index.runs:
        if run.record.metrics:
            found.setdefault(find_key(run), []).append(run)
    return list(found.values())


def find_key(run: Run) -> tuple[Any, ...]:
    """Return what runs of one group share."""
    said, primary = run.record.run, run.primary
    environment = run.record.environment
    return (
        *(said["model"], said["task"], _find_data(run), said.get("profile")),
        *(primary.get(key) for key in ("name", "split", "select")),
        *(environment.get("data"), _count_rows(run)),
    )


def name_data(run: Run) -> str:
    """Return the name of a run's task, and of the user's own data: reviews.csv (text)."""
    return _name_rows(run.record.run["task"], _find_data(run))


def _name_rows(task: str, data: str | None) -> str:
    return f"{data} ({task})" if data else names.name_task(task)


def average(values: Iterable[float | None]) -> float | None:
    """Return the mean; None without values, or if a seed has none, as one that diverged."""
    found = list(values)
    return None if None in found or not found else statistics.fmean(found)


def _find_data(run: Run) -> str | None:
    """Return the name of the user's own data."""
    name = run.values.get("task.data")
    return name[:LONGEST_NAME] if isinstance(name, str) else None


def _count_rows(run: Run) -> int | None:
    rows = run.record.environment.get("rows")
    return rows.get(f"scored {run.primary.get('split')}") if isinstance(rows, dict) else None


def _make_group(runs: Sequence[Run]) -> RunGroup:
    first, settings = runs[0], group_seeds(runs)
    primary = first.primary
    said = first.record.run
    group = RunGroup(
        **{key: said.get(key) for key in ("model", "task", "profile")},
        data=_find_data(first),
        metric=primary.get("name"),
        split=primary.get("split"),
        rule=primary["select"] if primary.get("select") in RULES else "best",
        rows=_count_rows(first),
    )
    lower = group.metric in LOWER_IS_BETTER
    if not any(_score(run, group.rule) is not None for run in runs):
        group.rule = "last"

    def order(one: ScoredSetting) -> tuple[bool, float, str]:
        score = one.scores.get(group.rule)
        return score is None, (score or 0.0) * (1 if lower else -1), one.label

    for setting, label in zip(settings, label_settings(settings), strict=True):
        seeds = list(setting.runs.values())
        group.settings.append(
            ScoredSetting(
                setting=setting,
                label=label,
                scores={rule: average(_score(run, rule) for run in seeds) for rule in RULES},
                parameters=setting.first.record.parameters["adapter"],
                seconds=average(number(run.record.time.get("train_s")) for run in seeds),
            )
        )
    group.settings.sort(key=order)
    return group


def _score(run: Run, rule: str) -> float | None:
    name = run.primary.get("name")
    return None if name is None else run.score(rule, name)


def _sample(one: ScoredSetting, group: RunGroup, mark: str | None) -> Sample:
    """Return the scores of a setting, with resampled rows where they are those of `mark`."""
    values = {
        seed: run.score(group.rule, group.metric or "") for seed, run in one.setting.runs.items()
    }
    same = [(seed, run) for seed, run in one.setting.runs.items() if _mark_rows(run, group) == mark]
    return paired.sample(
        {seed: value for seed, value in values.items() if value is not None},
        same if mark is not None else (),
        rule=group.rule,
        metric=group.metric,
    )


def _mark_rows(run: Run, group: RunGroup) -> str | None:
    """Return a mark of the rows whose predictions are stored for the score; None without."""
    step = run.find_step(group.rule)
    if step is None or group.split is None:
        return None
    return _hash_references(run.run_dir, group.split, step)


@functools.cache
def _hash_references(run_dir: Path, split: str, step: int) -> str | None:
    try:
        entry = predictions.load_step(run_dir, split, step)
    except (RecordError, OSError):
        return None  # `experiments.results verify` reports it
    return None if entry is None else hashlib.sha256(entry.references.tobytes()).hexdigest()
