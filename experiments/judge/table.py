"""What a judge run prints: the scores of every run, and what is still to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.judge.cases import Case
from experiments.judge.journal import Standing
from experiments.judge.pool import Judge

HEAD = ("Run", "Benchmark", "Average", "Turn 1", "Turn 2", "± judge", "± questions")
COUNTS = ("Judged", "Failed")
CHARACTERS_PER_TOKEN = 4

# The gaps are those of Table 4 between the best and the worst method on one base model.
NOTE = """\
± judge: standard deviation of the average between repeats (--repeats); ± questions: standard error
over questions. Table 4's methods differ by 0.02 to 0.10 (MT-Bench) and 0.03 to 0.17 (Vicuna) on the
same base model: where either ± is as large, the order of two methods is not known."""
NO_NOISE = (
    "One repeat shows nothing of the judge's own noise; --repeats 3 or more with a --temperature\n"
    "above 0 does, and asks only for what is not there yet at that temperature."
)
COLD = "At temperature 0 repeats are hardly independent: ± judge is then a lower bound."


def show(rows: Sequence[tuple[Case, Standing, dict[str, Any]]], judge: Judge, repeats: int) -> str:
    """The table of scores, with the notes that it must not be read without."""
    cells = [HEAD + COUNTS]
    for case, standing, scores in rows:
        asked = len(case.items)
        judged = len(standing.rated)
        cells.append(
            (
                str(case.run),
                case.benchmark,
                *(_number(scores[name]) for name in ("average", "turn_1", "turn_2")),
                *(_number(scores[name]) for name in ("spread", "standard_error")),
                str(judged) if not standing.open else f"{judged} of {asked}",
                str(len(standing.failed)),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [NOTE]
    if repeats == 1:
        notes.append(NO_NOISE)
    elif judge.temperature == 0:
        notes.append(COLD)
    if any(standing.open for _, standing, _ in rows):
        notes.append(
            "`n of m`: incomplete, the average is over what is there; no .json is written."
        )
    left_out = {len(case.unanswered) for case, _, _ in rows} - {0}
    if left_out:
        notes.append(f"--partial: up to {max(left_out)} questions have no answer and are left out.")
    if any(standing.failed for _, standing, _ in rows):
        notes.append(
            f"Failed: no grade in {judge.attempts} replies (--attempts); left out of all averages, "
            "never counted as 0."
        )
    return "\n".join([*lines, "", *notes])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is still to be asked, by the rule of four characters per token."""

    requests: int
    tokens_in: int
    tokens_out: int
    measured: bool
    """True if the length of replies is that of those already there; else it is their limit."""

    def show(self, price_in: float | None, price_out: float | None) -> str:
        """The estimate in words; prices are per million tokens."""
        bound = "as long as the replies so far" if self.measured else "at most, by --max-tokens"
        lines = [
            f"requests to send: {self.requests} (more if replies come without a grade)",
            f"tokens in:  {self.tokens_in:,} (estimated: {CHARACTERS_PER_TOKEN} characters each)",
            f"tokens out: {self.tokens_out:,} ({bound})",
        ]
        if price_in is not None and price_out is not None:
            cost = (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6
            lines.append(f"cost: {cost:.2f} at {price_in:g} in and {price_out:g} out per million")
        return "\n".join(lines)


def estimate(standings: Sequence[Standing], judge: Judge) -> Estimate:
    """Sizes what is open."""
    todo = [item for standing in standings for item, _ in standing.open]
    replies = [len(line.get("reply") or "") for one in standings for line in one.lines]
    characters = sum(len(message["content"]) for item in todo for message in item.messages)
    each = sum(replies) / len(replies) / CHARACTERS_PER_TOKEN if replies else judge.max_tokens
    return Estimate(
        requests=len(todo),
        tokens_in=round(characters / CHARACTERS_PER_TOKEN),
        tokens_out=round(len(todo) * each),
        measured=bool(replies),
    )
