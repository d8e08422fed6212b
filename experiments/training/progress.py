"""Progress of a training: its bar on a terminal, and a line per evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from experiments.metrics.classification import format_score

log = logging.getLogger(__name__)


class TrainingBar(ProgressCallback):
    """Bar with steps, time left, the last loss and the scores of the last evaluation.

    `run_log` prints above it. It is removed after training: the log has all that it showed.
    """

    training_bar: tqdm | None
    prediction_bar: tqdm | None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step that the training goes on from."""
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                dynamic_ncols=True,
                leave=False,
            )
        self.current_step = state.global_step

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Advance the bar of an evaluation; every split has its own."""
        if self.prediction_bar is not None and self.prediction_bar.n == self.prediction_bar.total:
            self._close_prediction_bar()
        super().on_prediction_step(args, state, control, **kwargs)

    def show(self, loss: float, scores: Mapping[str, float]) -> None:
        """Show the values of an evaluation, whose own bar goes."""
        self._close_prediction_bar()
        if self.training_bar is not None:
            values = {"loss": loss, **scores}
            self.training_bar.set_postfix_str(
                ", ".join(f"{name} {format_score(value)}" for name, value in values.items())
            )

    def _close_prediction_bar(self) -> None:
        if self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None


def log_evaluation(state: TrainerState, loss: float, scores: Mapping[str, float]) -> None:
    """Log one line per evaluation, about twenty of them on the terminal."""
    position = state.global_step // state.eval_steps
    every = max(1, state.max_steps // state.eval_steps // 20)
    shown = position % every == 0 or state.global_step >= state.max_steps
    log.log(
        logging.INFO if shown else logging.DEBUG,
        "epoch %.4g, step %d/%d  loss %s  %s",
        state.epoch,
        state.global_step,
        state.max_steps,
        format_score(loss),
        "  ".join(f"{name} {format_score(value)}" for name, value in scores.items()),
    )
