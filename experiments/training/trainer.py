"""Hugging Face's Trainer with two learning rates, all predictions kept, and exact resumption."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LabelSmoother

from experiments.methods import Method
from experiments.metrics.selection import Evaluation, Select
from experiments.results import kept_adapter, predictions
from experiments.results.history import History
from experiments.seeding import stream
from experiments.tasks import Data, Task
from experiments.tasks.language import IGNORED
from experiments.training.data_order import DataOrder, StepBatches, build_loader
from experiments.training.optimizer import build_arguments, build_optimizer
from experiments.training.progress import TrainingBar, log_evaluation
from experiments.training.train_config import Train
from experiments.training.unused_parameters import find_unused
from fourierft.holding import hold_weights
from fourierft.step_sizes import step_sizes

log = logging.getLogger(__name__)
# Checkpoints of small networks are written within a second, which transformers takes for a fault of
# the file system. It goes by their steps instead, as it should.
logging.getLogger("transformers.trainer_utils").addFilter(
    lambda record: not str(record.msg).startswith("mtime may not be reliable")
)


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
        check: Callable[[], None] = lambda: None,
    ):
        """Create a trainer (see `experiments.run.build`).

        `check` raises if another process has taken the run folder over.
        """
        self.check = check
        check()
        self.data, self.train_recipe, self.task, self.method = data, train, task, method
        self.head, self.run, self.history = head, run, history
        self.started, self.evaluating, self.loss = time.monotonic(), 0.0, math.nan
        self.best: float | None = None
        self.checkpointed = 0
        self.diverged = False
        # Taken while every process has the weights whole, as sharding divides them later.
        self.step_sizes = step_sizes(net) if train.relative_rate else None
        arguments = build_arguments(train, len(data.train), run, seed)
        lengths = data.lengths if train.group_by_length else None
        self.batches = StepBatches(
            DataOrder(
                len(data.train), arguments.data_seed, lengths, train.batch_size, data.augmented
            ),
            *(train.batch_size, train.accumulation, arguments.world_size, arguments.process_index),
        )
        self.batch_weights: list[float] = []
        smooths = train.label_smoothing and task.head.kind == "language"
        super().__init__(
            net,
            arguments,
            data_collator=data.collate,
            train_dataset=data.train,
            eval_dataset=data.evaluations,
            # Left to transformers, labels are shifted for classes of models that it knows by name,
            # which a sharded one is not.
            compute_loss_func=(
                partial(LabelSmoother(train.label_smoothing), shift_labels=True)
                if smooths
                else None
            ),
            callbacks=[_EvaluateAtTheEnd(), *method.callbacks(net, seed)],
        )
        if arguments.process_index:  # or all processes would drop the same units
            torch.manual_seed(stream(seed, f"dropout of process {arguments.process_index}"))
        # A language model's loss is a mean over the target tokens of the whole step. Other networks
        # return that of a micro-batch: transformers would multiply a sequence classifier's by
        # accumulation steps and ranks (its issue 47688).
        self.model_accepts_loss_kwargs &= task.head.kind == "language"
        self.loss_is_of_step = bool(self.model_accepts_loss_kwargs or smooths)
        self.remove_callback(transformers.PrinterCallback)
        self.bar: TrainingBar | None = None
        if self.pop_callback(transformers.ProgressCallback) is not None:  # on a terminal
            self.bar = TrainingBar()
            self.add_callback(self.bar)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of this process."""
        return build_loader(self.train_dataset, self.batches, self.data_collator, self.args)

    def get_batch_samples(self, epoch_iterator: Iterator, *args: Any) -> Any:
        """Return the batches of a step and its number of tokens; note the batches' weights."""
        self.batch_weights = self.batches.weigh(self.state.global_step % self.batches.steps)
        counted = map(self._leave_out, epoch_iterator, list(self.batch_weights))
        return super().get_batch_samples(counted, *args)

    def _leave_out(self, batch: dict[str, Any], weight: float) -> dict[str, Any]:
        """Return a batch, without tokens to predict if it does not count."""
        if weight == 0 and self.loss_is_of_step:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW over adapter and head, each with and without weight decay."""
        decaying = set(self.get_decay_parameter_names(self.model))  # all but biases and norms
        self.optimizer = build_optimizer(
            self.train_recipe,
            self.model.named_parameters(),
            self.head,
            decaying,
            self.step_sizes,
        )
        return self.optimizer

    @property
    def network(self) -> nn.Module:
        """The trained network, without the wrappers of distributed training."""
        return self.accelerator.unwrap_model(self.model)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.world_size > 1 and not self.is_fsdp_enabled:
            unused = self._find_unused()
            if unused:
                log.info("trained without effect on the loss: %s", ", ".join(unused[:5]))
            self.accelerator.ddp_handler.find_unused_parameters = bool(unused)
        return super()._prepare_for_training(*args, **kwargs)

    def _find_unused(self) -> list[str]:
        """Return the trained parameters that the loss of one row leaves out, the same on all ranks.

        DDP would look for them in every step, or wait in vain for the gradient of one.
        """
        row = self.train_dataset[next(iter(self.batches.sampler))]
        inputs = self._prepare_inputs(self.data_collator([row]))
        gpus = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(gpus), self.accelerator.autocast():
            return find_unused(self.model.train(), self.compute_loss(self.model, inputs))

    def collect(self) -> nn.Module:
        """Return the network to save what was trained from, on the first process.

        All processes must call this.
        """
        return self.network

    def compute_loss(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the batch's loss, in training with the method's penalty."""
        found = super().compute_loss(model, *args, **kwargs)
        if model.training and self.batch_weights and not self.loss_is_of_step:
            found = found * self.batch_weights.pop(0)  # a mean over the batch's rows
        penalty = self.method.penalty(self.network) if model.training else None
        if penalty is None:
            return found
        if self.loss_is_of_step:  # the batch's loss is a part of the step's already
            penalty = penalty / self.current_gradient_accumulation_steps  # fewer in an epoch's last
        return found + penalty

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Return loss, predictions and references of one batch, as the task keeps them."""
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        return loss, *self.task.reduce(logits, labels)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score every split, store its predictions, and keep the adapter of the selection rule."""
        self.check()
        if self.is_world_process_zero():
            predictions.check(self.run, self.history.lines())
        began = time.monotonic()
        values: dict[str, float] = {}
        for split in self.data.evaluations:
            with hold_weights(self.network, quantised=False):
                output = self.evaluation_loop(
                    # By name it is kept, with its workers, for the next evaluation.
                    self.get_eval_dataloader(split),
                    description=f"Evaluation {split}",
                )
            entry = Evaluation(
                step=self.state.global_step,
                epoch=float(self.state.epoch or 0.0),
                predictions=output.predictions,
                references=output.label_ids,
            )
            scores = self.task.score(entry.predictions, entry.references)
            values |= {f"{split}/{name}": value for name, value in scores.items()}
            self.check()
            if self.is_world_process_zero():
                predictions.save(self.run, split, entry)
        self._keep(next(iter(values.values()), math.nan))
        self.evaluating += time.monotonic() - began
        self._record(values)
        if self.bar is not None:
            self.bar.show(self.loss, values)
        log_evaluation(self.state, self.loss, values)
        self.control: transformers.TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log training values to the history."""
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "grad_norm": "train/gradient_norm",
        }
        values = {names[name]: float(value) for name, value in logs.items() if name in names}
        if "learning_rate" in logs and self.train_recipe.relative_rate:
            # It is the rate of the first matrix; the recipe's is a share of |W|.
            peak = self.lr_scheduler.base_lrs[0]
            values["train/learning_rate"] *= self.train_recipe.learning_rate / peak
        if values:
            self.loss = values.get("train/loss", self.loss)
            self._record(values)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.check()
        super()._save_checkpoint(*args, **kwargs)
        self.checkpointed = self.state.global_step

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save what the method needs; PEFT's own way would ask the hub every time."""
        net = self.network
        if isinstance(net, PeftModel):
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.method.checkpoint(net, folder)
        else:
            super()._save(output_dir, state_dict)

    def _record(self, values: dict[str, float]) -> None:
        self.check()
        broken = [name for name in values if not math.isfinite(values[name])]
        # A gradient may overflow in half precision: the step is then left out.
        if set(broken) - {"train/gradient_norm"} and not self.diverged:
            self.diverged = True
            log.warning(
                "diverged: %s not finite at epoch %.4g, step %d; a lower train.learning_rate or "
                "train.max_grad_norm may help",
                *(" and ".join(broken), self.state.epoch or 0.0, self.state.global_step),
            )
        if self.is_world_process_zero():
            epoch = float(self.state.epoch or 0.0)
            self.history.log(self.state.global_step, epoch, time.monotonic() - self.started, values)

    def _keep(self, score: float) -> None:
        """Save the adapter if this evaluation is the best so far, or the last."""
        if self.train_recipe.select is Select.best:
            best = math.nan if self.best is None else self.best
            wanted = not math.isfinite(best) or (math.isfinite(score) and score > best)
        else:
            wanted = self.state.global_step >= self.state.max_steps
        if wanted:
            self.best = score
            net = self.collect()
            if self.is_world_process_zero():
                kept_adapter.replace(
                    self.run,
                    self.state.global_step,
                    lambda folder: self.method.save(net, folder),
                    self.checkpointed,
                )


class _EvaluateAtTheEnd(TrainerCallback):
    """Evaluates the last step even if it is not a multiple of the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Request an evaluation and a log line at the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_log = True
        return control
