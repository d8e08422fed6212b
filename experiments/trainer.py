"""Hugging Face's Trainer with two learning rates, all predictions kept, and exact resumption."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from experiments import predictions
from experiments.methods import Method
from experiments.recipe import Precision, Schedule, Select, Train
from experiments.selection import Evaluation
from experiments.streams import DataOrder, stream
from experiments.tasks import Data, Task
from experiments.tracking import History
from fourierft.counting import in_head

log = logging.getLogger(__name__)

SCHEDULES = {
    Schedule.linear: "linear",
    Schedule.cosine: "cosine",
    Schedule.constant: "constant_with_warmup",
}


class Trainer(transformers.Trainer):
    """Trains what requires a gradient; `evaluate` scores every split and keeps the predictions."""

    def __init__(
        self,
        net: nn.Module,
        data: Data,
        *,
        train: Train,
        task: Task,
        method: Method,
        head: Sequence[str],
        run: Path,
        history: History,
        seed: int,
    ):
        self.data, self.train_recipe, self.task, self.method = data, train, task, method
        self.head, self.run, self.history = head, run, history
        self.started, self.evaluating, self.loss = time.monotonic(), 0.0, math.nan
        self.best: float | None = None
        ranks = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun
        rows = train.batch_size // train.accumulation // ranks
        updates = math.ceil(
            math.ceil(len(data.train) / rows / ranks) / train.accumulation
        )  # per epoch
        evaluate_every = updates * train.eval_every
        arguments = TrainingArguments(
            output_dir=str(run / "checkpoints"),
            per_device_train_batch_size=rows,
            per_device_eval_batch_size=train.eval_batch_size,
            gradient_accumulation_steps=train.accumulation,
            num_train_epochs=train.epochs,
            max_steps=train.max_steps or -1,
            lr_scheduler_type=SCHEDULES[train.schedule],
            warmup_steps=train.warmup_ratio,  # below 1 it is a share of all steps
            max_grad_norm=train.max_grad_norm,
            eval_strategy="steps",
            eval_steps=evaluate_every,
            logging_steps=evaluate_every,
            save_strategy="steps" if train.checkpoint_every else "no",
            save_steps=evaluate_every * max(1, train.checkpoint_every),
            save_total_limit=2,  # a kill while one is written leaves the one before
            seed=stream(seed, "dropout"),
            data_seed=stream(seed, "data"),
            use_cpu=train.device == "cpu" or not torch.cuda.is_available(),
            bf16=train.precision is Precision.bf16,
            fp16=train.precision is Precision.fp16,
            label_names=["labels"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=not sys.stderr.isatty(),
        )
        _ = arguments.device  # decides n_gpu
        arguments._n_gpu = 1  # several visible GPUs would multiply the batch (nn.DataParallel)
        super().__init__(
            net,
            arguments,
            data_collator=data.collate,
            train_dataset=data.train,
            eval_dataset=data.evaluations,
            callbacks=[_EvaluateAtTheEnd()],
        )
        # Otherwise transformers multiplies the loss of a sequence classifier by accumulation steps
        # and ranks (its issue 47688).
        self.model_accepts_loss_kwargs = False
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        recipe, rows = self.train_recipe, self.data.train
        lengths = [len(row["input_ids"]) for row in rows] if recipe.group_by_length else None
        return DataOrder(len(rows), self.args.data_seed, lengths, recipe.batch_size)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over adapter and head, each with and without weight decay."""
        recipe, groups = self.train_recipe, {}
        decaying = set(self.get_decay_parameter_names(self.model))  # all but biases and norms
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((in_head(name, self.head), name in decaying), []).append(
                    parameter
                )
        rates = {
            False: recipe.learning_rate,
            True: recipe.head_learning_rate or recipe.learning_rate,
        }
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": group,
                    "lr": rates[head],
                    "weight_decay": recipe.weight_decay if decays else 0.0,
                }
                for (head, decays), group in groups.items()
            ],
            betas=tuple(recipe.betas),
            eps=recipe.epsilon,
            fused=True,
        )
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Scores every split, stores its predictions, keeps the adapter the selection
        rule names."""
        began, values = time.monotonic(), {}
        for position, (split, rows) in enumerate(self.data.evaluations.items()):
            output = self.evaluation_loop(
                self.get_test_dataloader(rows), description=f"Evaluation {split}"
            )
            entry = Evaluation(
                step=self.state.global_step,
                epoch=float(self.state.epoch or 0.0),
                predictions=output.predictions,
                references=output.label_ids,
            )
            scores = self.task.score(entry.predictions, entry.references)
            values |= {f"{split}/{name}": value for name, value in scores.items()}
            if self.is_world_process_zero():
                predictions.store(self.run, split, entry)
            if position == 0:
                self._keep(scores[self.task.metrics[0]])
        self.evaluating += time.monotonic() - began
        self._record(values)
        self._tell(values)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Training logs go to the history."""
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "grad_norm": "train/gradient_norm",
        }
        values = {names[name]: float(value) for name, value in logs.items() if name in names}
        if values:
            self.loss = values.get("train/loss", self.loss)
            self._record(values)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Checkpoints hold what the method keeps; PEFT's own way would ask the hub every time."""
        net = self.accelerator.unwrap_model(self.model)
        if isinstance(net, PeftModel):
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.method.save(net, folder)
        else:
            super()._save(output_dir, state_dict)

    def _record(self, values: dict[str, float]) -> None:
        if self.is_world_process_zero():
            epoch = float(self.state.epoch or 0.0)
            self.history.log(self.state.global_step, epoch, time.monotonic() - self.started, values)

    def _tell(self, scores: dict[str, float]) -> None:
        """One line per evaluation in run.log, about twenty of them on the terminal."""
        state = self.state
        position, every = (
            state.global_step // state.eval_steps,
            max(1, state.max_steps // state.eval_steps // 20),
        )
        level = (
            logging.INFO
            if position % every == 0 or state.global_step >= state.max_steps
            else logging.DEBUG
        )
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.log(
            level,
            "epoch %.4g, step %d/%d  loss %.4f  %s",
            state.epoch,
            state.global_step,
            state.max_steps,
            self.loss,
            shown,
        )

    def _keep(self, score: float) -> None:
        """Saves the adapter if this evaluation is the one to keep so far."""
        if self.train_recipe.select is Select.best:
            wanted = self.best is None or score > self.best or math.isnan(self.best)
        else:
            wanted = self.state.global_step >= self.state.max_steps
        if wanted:
            self.best = score
        if wanted and self.is_world_process_zero():
            draft, kept = self.run / ".adapter.tmp", self.run / "adapter"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            self.method.save(self.accelerator.unwrap_model(self.model), draft)
            shutil.rmtree(kept, ignore_errors=True)
            draft.rename(kept)


class _EvaluateAtTheEnd(TrainerCallback):
    """The last step is evaluated even where it is no multiple of the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Asks for an evaluation and a log line at the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_log = True
        return control


def fit(trainer: Trainer) -> dict[str, Any]:
    """Trains to the end, from the last whole checkpoint if there is one.

    Returns:
        train_s (with evaluations, and with earlier attempts up to the resumed checkpoint),
        evaluation_s (of this attempt), steps, epochs, resumed_from (step or None).
    """
    checkpoint, step = latest_checkpoint(trainer.run / "checkpoints")
    elapsed = trainer.history.cut(step)
    predictions.cut(trainer.run, step)
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


def _best_so_far(trainer: Trainer) -> float | None:
    """Primary score of the adapter kept before an interruption; None if there is none."""
    key = f"{next(iter(trainer.data.evaluations))}/{trainer.task.metrics[0]}"
    scores = [line[key] for line in trainer.history.lines() if key in line]
    finite = [score for score in scores if not math.isnan(score)]
    return max(finite) if finite else (math.nan if scores else None)


def latest_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """The newest checkpoint written whole (its state file comes last) and its step; others go."""
    found: tuple[Path | None, int] = (None, 0)
    for path in folder.glob("checkpoint-*"):
        try:
            step = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))[
                "global_step"
            ]
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path, ignore_errors=True)
            continue
        if step > found[1]:
            found = (path, step)
    return found
