"""Order of a contest's trials, which depends on nothing but the scores of those before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from experiments.contest.plan import Contest, Contestant
from experiments.contest.scores import Trial, choose

WIDER = 2
"""Rates that may be added at either end of a contestant's grid while the best one lies there."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One trial to be run."""

    contestant: Contestant
    rate: float
    seed: int


Done = Mapping[tuple[str, float, int], Trial]
"""Finished trials by contestant, rate and seed."""


def find_next(contest: Contest, done: Done) -> Planned | None:
    """Return the first trial that is missing, None if the contest has ended.

    All contestants' grids come first, contestant after contestant, then the chosen rates with the
    other seeds, seed after seed.
    """
    for contestant in contest.contestants:
        for rate in list_rates(contest, contestant, done):
            if (contestant.name, rate, contest.seeds[0]) not in done:
                return Planned(contestant=contestant, rate=rate, seed=contest.seeds[0])
    for seed in contest.seeds[1:]:
        for contestant in contest.contestants:
            for rate in choose_rates(contest, contestant, done):
                if (contestant.name, rate, seed) not in done:
                    return Planned(contestant=contestant, rate=rate, seed=seed)
    return None


def list_rates(contest: Contest, contestant: Contestant, done: Done) -> Iterator[float]:
    """Yield the rates of a contestant's grid, and more while the best lies at its edge."""
    yield from contestant.rates
    rates = list(contestant.rates)
    step = rates[-1] / rates[-2]
    for _ in range(2 * WIDER):
        trials = [done.get((contestant.name, rate, contest.seeds[0])) for rate in rates]
        if None in trials:
            return
        best = {choose([one for one in trials if one], half).rate for half in (0, 1)}
        below = sum(rate < contestant.rates[0] for rate in rates)
        above = sum(rate > contestant.rates[-1] for rate in rates)
        if rates[0] in best and below < WIDER:
            rates.insert(0, round_rate(contestant.rates[0] / step ** (below + 1)))
            yield rates[0]
        elif rates[-1] in best and above < WIDER:
            rates.append(round_rate(contestant.rates[-1] * step ** (above + 1)))
            yield rates[-1]
        else:
            return


def choose_rates(contest: Contest, contestant: Contestant, done: Done) -> list[float]:
    """Return the rates that the two halves choose, once if they agree; none without trials."""
    trials = find_trials(contest, contestant, done)
    return sorted({choose(trials, half).rate for half in (0, 1)}) if trials else []


def find_trials(contest: Contest, contestant: Contestant, done: Done) -> list[Trial]:
    """Return a contestant's finished trials with the first seed, by rate."""
    found = [
        trial
        for (name, _, seed), trial in done.items()
        if name == contestant.name and seed == contest.seeds[0]
    ]
    return sorted(found, key=lambda trial: trial.rate)


def list_possible_rates(contestant: Contestant) -> list[float]:
    """Return the rates of a contestant's grid and all that may be added at its ends."""
    rates = contestant.rates
    step = rates[-1] / rates[-2]
    wider = range(1, WIDER + 1)
    return [
        *rates,
        *(round_rate(rates[0] / step**place) for place in wider),
        *(round_rate(rates[-1] * step**place) for place in wider),
    ]


def is_at_edge(contest: Contest, contestant: Contestant, done: Done) -> bool:
    """Return True where a half chose the lowest or highest rate that was tried."""
    trials = find_trials(contest, contestant, done)
    rates = [trial.rate for trial in trials]
    return bool({rates[0], rates[-1]} & set(choose_rates(contest, contestant, done)))


def round_rate(rate: float) -> float:
    """Return a rate with three digits, as it is written in commands and folder names."""
    return float(f"{rate:.3g}")
