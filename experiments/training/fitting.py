"""A training from its last whole checkpoint to the end, in a run folder taken back to that."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from experiments.metrics.selection import Select
from experiments.results import kept_adapter, predictions
from experiments.training import checkpoints
from experiments.training.trainer import Trainer

log = logging.getLogger(__name__)


def fit(trainer: Trainer) -> dict[str, Any]:
    """Train to the end, from the last whole checkpoint if there is one.

    Returns:
        train_s (with evaluations, and with earlier attempts up to the resumed checkpoint),
        evaluation_s (of this attempt), steps, epochs, resumed_from (step or None).
    """
    with trainer.args.main_process_first(local=False):
        damaged = predictions.find_first_damaged(trainer.run)
        if damaged is not None:
            log.warning("%s: damaged; its evaluation is made again", damaged)
        checkpoint, step = checkpoints.find_latest(
            trainer.run / "checkpoints",
            before=None if damaged is None else predictions.parse_step(damaged),
        )
        if trainer.is_world_process_zero():
            while lost := _rewind(trainer, step, checkpoint):
                log.warning("lost, and made again: %s", "; ".join(lost))
                checkpoint, step = checkpoints.find_latest(trainer.run / "checkpoints", before=step)
    trainer.checkpointed = step
    elapsed = trainer.history.elapsed()
    trainer.started = time.monotonic() - elapsed
    trainer.best = _best_so_far(trainer)
    if checkpoint is not None:
        log.info("resuming from step %d", step)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {
        "train_s": round(time.monotonic() - trainer.started, 3),
        "evaluation_s": round(trainer.evaluating, 3),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "resumed_from": step or None,
    }


def _rewind(trainer: Trainer, step: int, checkpoint: Path | None) -> list[str]:
    """Take a run folder back to a checkpoint; return what was lost of its state."""
    scores = {at: one for at, one in _primary_scores(trainer).items() if math.isfinite(one)}
    if scores:
        best = trainer.train_recipe.select is Select.best
        kept_adapter.add_label(
            trainer.run, max(scores, key=scores.__getitem__) if best else max(scores)
        )
    trainer.history.cut(step)
    predictions.delete_after(trainer.run, step)
    lines = trainer.history.lines()
    lost = list(predictions.find_differences(trainer.run, lines))
    there = kept_adapter.restore(trainer.run, step)
    if trainer.train_recipe.select is Select.best:
        needed = bool(predictions.count_evaluations(lines))
    else:
        needed = checkpoint is not None and checkpoints.is_complete_training(checkpoint)
    return lost + ([f"{kept_adapter.FOLDER}/"] if needed and not there else [])


def _best_so_far(trainer: Trainer) -> float | None:
    """Return the primary score of the adapter kept before an interruption, or None."""
    scores = _primary_scores(trainer).values()
    finite = [score for score in scores if math.isfinite(score)]
    return max(finite) if finite else (math.nan if scores else None)


def _primary_scores(trainer: Trainer) -> dict[int, float]:
    """Primary score of every evaluation so far, by its step."""
    key = f"{next(iter(trainer.data.evaluations), '')}/{trainer.task.metrics[0]}"
    return {line["step"]: line[key] for line in trainer.history.lines() if key in line}
