"""Results of a contest: every trial, the score of every contestant, differences with intervals."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.contest import schedule, scores
from experiments.contest.plan import Contest, Contestant
from experiments.files import write_atomically
from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.report.comparison.paired import Difference, Sample, compare
from experiments.results.record import replace_nonfinite

PRECISION = 4
"""Digits after the point of scores."""


def summarize(contest: Contest, done: schedule.Done) -> dict[str, Any]:
    """Return title, metric, trials, differences, and every contestant whose grid is complete."""
    samples = {
        one.name: sample
        for one in contest.contestants
        if (sample := _sample(contest, one, done)) is not None
    }
    metric = next((trial.metric for trial in done.values()), None)
    result = {
        "contest": contest.name,
        "title": contest.title + f" ({', '.join(contest.given)})" * bool(contest.given),
        "metric": metric,
        "lower_is_better": metric in LOWER_IS_BETTER,
        "reference": contest.reference,
        "contestants": [
            _describe(contest, one, done, samples)
            for one in contest.contestants
            if one.name in samples
        ],
        "pairs": list(_compare_pairs(contest, samples)),
        "trials": list(_list_trials(contest, done)),
    }
    return dict(replace_nonfinite(result))


def render(result: dict[str, Any]) -> str:
    """Return the tables of a result as Markdown: contestants, then all trials of the first seed."""
    better = "lower is better" if result["lower_is_better"] else "higher is better"
    reference = result["reference"]
    lines = [
        f"{result['title']}. {result['metric']}, {better}.",
        "",
        f"| Setting | Parameters | Trials | Chosen rates | Score | Each seed | Less {reference} |",
        "| --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    for one in result["contestants"]:
        rates = ", ".join(f"{rate:g}" for rate in one["rates"])
        cells = [
            one["name"],
            f"{one['parameters']:,}",
            str(one["trials"]),
            rates + (" (edge)" if one["edge"] else ""),
            format_score(one["score"]),
            ", ".join(format_score(value) for value in one["seeds"].values()),
            format_difference(one["difference"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = [one for one in result["pairs"] if one["difference"]["interval"] is not None]
    if told:
        lines += ["", "| Setting | Less | Difference |", "| --- | --- | --- |"]
        lines += [
            f"| {one['setting']} | {one['less']} | {format_difference(one['difference'])} |"
            for one in told
        ]
    lines += [
        "",
        "| Setting | Rate: first half, second half (seed of the trials) |",
        "| --- | --- |",
    ]
    for one in result["contestants"]:
        trials = [
            trial
            for trial in result["trials"]
            if trial["contestant"] == one["name"] and trial["first_seed"]
        ]
        told = "; ".join(
            f"{trial['rate']:g}: {', '.join(format_score(half) for half in trial['halves'])}"
            for trial in sorted(trials, key=lambda trial: trial["rate"])
        )
        lines.append(f"| {one['name']} | {told} |")
    return "\n".join([*lines, *_render_outside(result)]) + "\n"


def _render_outside(result: dict[str, Any]) -> Iterator[str]:
    """Yield the losses on another text: at the chosen rates by seed, and of the first seed by rate.

    Where the halves chose two rates, both count half.
    """
    outside = result.get("outside")
    if outside is None:
        return
    yield from (
        "",
        f"Loss per token of {outside['rows']} rows of another text ({outside['text']}), "
        f"{format_score(outside['base'])} before training:",
        "",
        "| Setting | At the chosen rates | Each seed | Rate: loss (seed of the trials) |",
        "| --- | ---: | --- | --- |",
    )
    first = {one["seed"] for one in result["trials"] if one["first_seed"]}
    for one in result["contestants"]:
        there = {
            (loss["seed"], loss["rate"]): loss["loss"]
            for loss in outside["losses"]
            if loss["contestant"] == one["name"]
        }
        seeds = [
            [there[seed, rate] for rate in one["rates"]]
            for seed in sorted({seed for seed, _ in there})
            if all((seed, rate) in there for rate in one["rates"])
        ]
        chosen = [None if None in losses else statistics.fmean(losses) for losses in seeds]
        whole = None if None in chosen or not chosen else statistics.fmean(chosen)
        grid = [(rate, loss) for (seed, rate), loss in sorted(there.items()) if seed in first]
        yield (
            f"| {one['name']} | {format_score(whole) if chosen else 'not measured'} "
            f"| {', '.join(format_score(loss) for loss in chosen)} "
            f"| {'; '.join(f'{rate:g}: {format_score(loss)}' for rate, loss in grid)} |"
        )


def keep_outside(result: dict[str, Any], place: Path) -> None:
    """Keep what an earlier call measured on another text.

    Trials that are gone are left out, but not contestants who do not take part in this call.
    """
    path = place.with_suffix(".json")
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = earlier.get("outside", {})
    if "losses" not in before:
        return
    measured = result.setdefault("outside", before | {"losses": []})
    if any(measured.get(key) != before.get(key) for key in ("text", "rows")):
        return
    known = {_key(loss) for loss in measured["losses"]}
    there = {_key(trial) for trial in result["trials"]}
    here = {trial["contestant"] for trial in result["trials"]}
    measured["losses"] = measured["losses"] + [
        loss
        for loss in before["losses"]
        if _key(loss) not in known and (_key(loss) in there or loss["contestant"] not in here)
    ]


def _key(trial: dict[str, Any]) -> tuple[str, float, int]:
    return trial["contestant"], trial["rate"], trial["seed"]


def write(result: dict[str, Any], place: Path) -> str:
    """Write PLACE.json and PLACE.md; return the Markdown."""
    text = render(result)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    write_atomically(place.with_suffix(".md"), text)
    return text


def _sample(contest: Contest, contestant: Contestant, done: schedule.Done) -> Sample | None:
    """Return a contestant's scores; None before its grid is complete."""
    rates = list(schedule.list_rates(contest, contestant, done))
    first = contest.seeds[0]
    if any((contestant.name, rate, first) not in done for rate in rates):
        return None
    trials = schedule.find_trials(contest, contestant, done)
    chosen = [
        {
            seed: done[contestant.name, rate, seed]
            for seed in contest.seeds
            if (contestant.name, rate, seed) in done
        }
        for rate in (scores.choose(trials, half).rate for half in (0, 1))
    ]
    return scores.combine(chosen, contestant.name)


def _describe(
    contest: Contest, contestant: Contestant, done: schedule.Done, samples: dict[str, Sample]
) -> dict[str, Any]:
    sample = samples[contestant.name]
    trials = schedule.find_trials(contest, contestant, done)
    difference = None
    if contest.reference in samples and contestant.name != contest.reference:
        difference = _to_json(compare(sample, samples[contest.reference]))
    return {
        "name": contestant.name,
        "overrides": contestant.overrides,
        "parameters": trials[0].record.parameters["adapter"],
        "trials": len(trials),
        "rates": schedule.choose_rates(contest, contestant, done),
        "edge": schedule.is_at_edge(contest, contestant, done),
        "score": sample.mean,
        "seeds": {str(seed): value for seed, value in sorted(sample.values.items())},
        "difference": difference,
    }


def _compare_pairs(contest: Contest, samples: dict[str, Sample]) -> Iterator[dict[str, Any]]:
    """Yield the differences that have no place beside the reference's."""
    names = [name for name in samples if name != contest.reference]
    for setting, less in itertools.combinations(names, 2):
        difference = _to_json(compare(samples[setting], samples[less]))
        yield {"setting": setting, "less": less, "difference": difference}


def _list_trials(contest: Contest, done: schedule.Done) -> Iterator[dict[str, Any]]:
    for (name, rate, seed), trial in done.items():
        yield {
            "contestant": name,
            "rate": rate,
            "seed": seed,
            "first_seed": seed == contest.seeds[0],
            "halves": list(trial.halves),
            "step": (trial.record.preflight or {}).get("step"),
            "start": (trial.record.preflight or {}).get("start"),
            "train_s": trial.record.time.get("train_s"),
            "commit": trial.record.environment.get("commit"),
            "run": f"{trial.run_dir.parent.parent.name}/{trial.run_dir.parent.name}",
        }


def _to_json(difference: Difference) -> dict[str, Any]:
    interval = difference.interval if math.isfinite(difference.value) else None
    return {
        "value": difference.value,
        "seeds": difference.seeds,
        "interval": None if interval is None else list(interval),
    }


def format_score(score: float | None) -> str:
    """Return a score as tables show it."""
    if score is None or not math.isfinite(score):
        return "diverged"
    return f"{score:.{PRECISION}f}"


def format_difference(difference: dict[str, Any] | None) -> str:
    """Return a difference with its interval, else with its number of seeds."""
    if difference is None:
        return ""
    if difference["value"] is None:
        return "diverged"
    told = f"{difference['value']:+.{PRECISION}f}"
    if difference["interval"] is None:
        return f"{told} ({difference['seeds']} seed{'s' * (difference['seeds'] != 1)})"
    low, high = difference["interval"]
    return f"{told} [{low:+.{PRECISION}f}, {high:+.{PRECISION}f}]"
