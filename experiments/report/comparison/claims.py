"""Claims in words as combinations of comparisons, and what the comparisons tell about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from experiments.report.comparison import paired
from experiments.report.comparison.paired import Difference, Sample, compare
from experiments.report.comparison.verdict import Judgement, Verdict

RULE = (
    f"**Claims.** Both sides of a comparison need {paired.SEEDS} seeds in common. Its standard "
    "error adds up that of the seeds' differences and, where predictions are stored, that of the "
    "mean difference over resampled rows; its interval is Student's, 95 %. A claim is "
    "**supported** or **contradicted** if the comparisons that it rests on tell it at 5 %, and "
    "otherwise **cannot be told**: then the differences from which it would have been, with all "
    "corrections, are given. Where one comparison of several is enough for a claim, their number "
    "is corrected for (Bonferroni); over the claims of a page, Holm's correction is applied to "
    "every verdict; the intervals are not corrected. "
    '"As good as" means at most 1 % worse. Differences have the unit of their table or figure: '
    "accuracies are in per cent and correlations times 100, but fractions in Figure 6."
)
SEEDS_NEEDED = f"Its claims need {paired.SEEDS} seeds of every point: add `seed=0,1,2` to it."
"""How to come to claims that can be told."""
AS_GOOD = 0.99
"""Share of a score that counts as equally good."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one comparison, or a combination of them, tells about a claim."""

    words: str
    """Comparison that decides it."""
    shown: Difference
    """Its plain difference."""
    holds: bool
    """True if it holds for the means, whatever their errors."""
    support: float
    """Probability of such numbers if the claim were false."""
    against: float
    """Probability of such numbers if it were true."""
    strength: float
    """Difference that must be above 0, in standard errors where they are known."""
    tested: Difference
    """Difference of that comparison that supports it if above 0, of which 1 % may be left out."""
    denied: Difference | None
    """Difference that contradicts it if below 0; None if another comparison would."""
    seeds: int
    """Fewest seeds of any comparison."""
    told: bool = True
    """False if no comparison has enough seeds."""
    comparisons: int = 1
    support_times: int = 1
    """Number by which the probability of `tested` was multiplied."""
    against_times: int = 1
    """Number by which that of `denied` was."""

    def find_limits(self, times: int) -> tuple[float | None, float | None]:
        """Return the plain differences at which its comparison contradicts and supports a claim.

        Args:
            times: number that corrects for other claims.

        Returns:
            None for those that are not known.
        """
        plain, low, high = self.shown.value, None, None
        up = self.tested.find_reach(paired.LEVEL / (times * self.support_times))
        if up is not None:
            high = plain - self.tested.value + up
        if self.denied is not None:
            down = self.denied.find_reach(paired.LEVEL / (times * self.against_times))
            low = None if down is None else plain - self.denied.value - down
        return low, high


def comparison(
    words: str, of: Sample, than: Sample, factor: float = 1.0, ahead: float | None = None
) -> Evidence:
    """Return the evidence that one setting is above another.

    Args:
        words: the two settings.
        of: the one that is said to be better.
        than: the other.
        factor: the first must be above this much of the other; of a negative score that is as
            far below it as of a positive one.
        ahead: factor below which the claim is contradicted, where that is another.
    """
    if than.mean < 0:
        factor, ahead = 2 - factor, ahead and 2 - ahead
    tested = compare(of, than, factor)
    denied = compare(of, than, ahead or factor)
    return Evidence(
        words=words,
        shown=compare(of, than),
        holds=tested.value > 0,
        support=tested.probability,
        against=replace(denied, value=-denied.value).probability,
        strength=tested.value / tested.error if tested.error else tested.value,
        tested=tested,
        denied=denied,
        seeds=tested.seeds,
        told=tested.error is not None,
    )


def at_least(enough: int, parts: Sequence[Evidence]) -> Evidence:
    """Combine evidence for a claim that holds if `enough` of its parts do.

    The probability is that of a partial conjunction: of n parts the one at rank `enough` decides,
    and counts n - enough + 1 times.
    """
    if len(parts) == 1:
        return parts[0]
    deciding = sorted(parts, key=lambda one: (one.support, -one.strength))[enough - 1]
    spare = len(parts) - enough
    denying = sorted(parts, key=lambda one: one.against)[spare]
    return replace(
        deciding,
        holds=sum(one.holds for one in parts) >= enough,
        support=min(1.0, (spare + 1) * deciding.support),
        against=min(1.0, enough * denying.against),
        denied=deciding.denied if denying is deciding else None,
        seeds=min(one.seeds for one in parts),
        told=any(one.told for one in parts),
        comparisons=sum(one.comparisons for one in parts),
        support_times=(spare + 1) * deciding.support_times,
        against_times=enough * deciding.against_times,
    )


def every(parts: Iterable[Evidence]) -> Evidence:
    """Combine evidence for a claim that holds if all of its parts do."""
    found = list(parts)
    return at_least(len(found), found)


def some(parts: Iterable[Evidence]) -> Evidence:
    """Combine evidence for a claim that holds if one of its parts does."""
    return at_least(1, list(parts))


def most(parts: Iterable[Evidence]) -> Evidence:
    """Combine evidence for a claim that holds if more than half of its parts do."""
    found = list(parts)
    return at_least(len(found) // 2 + 1, found)


@dataclass(kw_only=True)
class Claim:
    """A claim with the evidence of the runs."""

    says: str
    parts: dict[str, Evidence] = field(default_factory=dict)
    """Evidence by panel, epoch or case, all of which must hold."""
    missing: int = 0
    """Points or cells that were not run."""
    reasons: list[str] = field(default_factory=list)
    """Reasons not to compare the runs with the paper's."""
    reservations: list[str] = field(default_factory=list)
    """Words that a verdict is never given without."""
    unit: str = "panels"
    """Name of the parts."""

    @property
    def evidence(self) -> Evidence | None:
        """All parts together; None if none was run."""
        return every(self.parts.values()) if self.parts else None

    @property
    def probability(self) -> float | None:
        """Two-sided probability before any correction; None if nothing can be tested."""
        evidence = self.evidence
        if evidence is None or self.reasons or not evidence.told:
            return None
        support = 1.0 if self.missing else evidence.support
        return min(1.0, 2 * min(support, evidence.against))


def judge(claims: Sequence[Claim]) -> list[Judgement]:
    """Judge the claims of a page, corrected for their number by Holm's method."""
    tested = sorted(
        (one for one in claims if one.probability is not None),
        key=lambda one: one.probability or 0.0,
    )
    corrected: dict[int, tuple[float, int]] = {}
    highest = 0.0
    for place, one in enumerate(tested):
        times = len(tested) - place
        highest = max(highest, min(1.0, times * (one.probability or 0.0)))
        corrected[id(one)] = highest, times
    told = sum(probability <= paired.LEVEL for probability, _ in corrected.values())
    for key, (probability, _) in corrected.items():
        if probability > paired.LEVEL:  # at its limits it would come right after those
            corrected[key] = probability, len(tested) - told
    return [_judge(one, *corrected.get(id(one), (None, 1))) for one in claims]


def _judge(claim: Claim, probability: float | None, times: int) -> Judgement:
    """Judge a claim by its corrected probability.

    Args:
        claim: the claim.
        probability: its corrected probability.
        times: number by which its plain probability is multiplied, for one that cannot be told
            the number at its limits.
    """
    evidence = claim.evidence
    absent = f"{claim.missing} point{'s' * (claim.missing > 1)} missing" if claim.missing else ""
    if evidence is None:
        return Judgement(verdict=Verdict.not_run, reason=absent)
    held = sum(one.holds for one in claim.parts.values())
    words = [f"holds in {held} of {len(claim.parts)} {claim.unit}", absent]
    if claim.reasons:
        return _told(Verdict.not_comparable, [*words, *dict.fromkeys(claim.reasons)], evidence)
    words += [describe(evidence), *dict.fromkeys(claim.reservations)]
    if evidence.seeds < paired.SEEDS:
        words.insert(0, f"{evidence.seeds} of at least {paired.SEEDS} shared seeds")
    if probability is None or probability > paired.LEVEL:
        needed = _describe_limits(claim, evidence, times)
        return replace(_told(Verdict.cannot_be_told, [*words, needed], evidence), needed=needed)
    words.append(f"p {_shown(probability)}")
    contradicted = claim.missing or 2 * times * evidence.against <= paired.LEVEL
    return _told(Verdict.contradicted if contradicted else Verdict.supported, words, evidence)


def _shown(probability: float) -> str:
    return f"= {probability:.2g}" if probability >= 1e-4 else "< 0.0001"


def _told(verdict: Verdict, words: Iterable[str], evidence: Evidence) -> Judgement:
    reason = "; ".join(filter(None, words))
    return Judgement(verdict=verdict, reason=reason, difference=evidence.shown.value)


def _describe_limits(claim: Claim, evidence: Evidence, times: int) -> str:
    """Say from which differences on a claim would have been told; "" if that is not known."""
    low, high = evidence.find_limits(times)
    limits = [low, None if claim.missing else high]  # what is missing may speak against it
    told = " or ".join(f"{limit:+.3g}" for limit in limits if limit is not None)
    return f"told from {told} on" if told else ""


def describe(evidence: Evidence) -> str:
    """Describe the comparison that decides, with its interval."""
    shown = evidence.shown
    text = f"{evidence.words}: {round(shown.value, 9) + 0.0:+.3g}"  # 0 may be -5e-15
    if shown.interval is not None:
        low, high = shown.interval
        over = f"{shown.seeds} seeds" + (f" and {shown.rows:,} rows" if shown.rows else " alone")
    elif shown.floor is not None and shown.seeds < paired.SEEDS:
        low, high = shown.value - shown.floor, shown.value + shown.floor
        over = f"the rows alone ({shown.seeds} seed{'s' * (shown.seeds != 1)})"
    else:
        return text
    return f"{text} [{low:+.3g}, {high:+.3g}] over {over}"


def summarize(claims: Sequence[Claim], judgements: Sequence[Judgement]) -> str:
    """Say in a sentence how many claims and comparisons a page makes, and what came out."""
    told = [one for one in claims if one.probability is not None]
    made = sum(one.evidence.comparisons for one in told if one.evidence is not None)
    counts = {verdict: sum(one.verdict is verdict for one in judgements) for verdict in Verdict}
    parts = [f"{count} {verdict.value}" for verdict, count in counts.items() if count]
    text = f"{len(claims)} claims: {', '.join(parts)}"
    if told:
        text += f"; {made} comparisons for {len(told)} tested claims, Holm's correction"
    return f"{text}."
