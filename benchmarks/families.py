"""How fast whole training runs go, family by family, and how much of a step is waiting for rows."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM = 3  # steps that are left out: memory, plans, workers


def images(
    path: Path | str,
    *,
    model: str = "vit_small",
    method: str = "fourierft",
    task: str = "cifar10",
    workers: int = 0,
    batch_size: int = 32,
    steps: int = 12,
    device: str = "auto",
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Trains a vision transformer with random weights for some steps, as a run does.

    Args:
        path: folder with the task's data.
        steps: measured, after `WARM` others.
        overrides: further ones, as on the command line.

    Returns:
        `samples_per_s`; `waiting` and `overhead`, the medians over the steps of the share of a step
        spent on getting its batch, and of all that is neither forward nor backward pass;
        `step_ms`, median.
    """
    sizes = {"fourierft": ("n=1000", "alpha=300"), "lora": ("r=16", "alpha=16")}.get(method, ())
    return _steps(
        [
            *(f"model={model}", "model.pretrained=false", f"task={task}", f"task.path={path}"),
            *(f"method={method}", *(f"method.{size}" for size in sizes), "source=none"),
            *("train.learning_rate=1e-3", "train.epochs=1", "train.checkpoint_every=0"),
            *(f"train.max_steps={WARM + steps}", f"train.batch_size={batch_size}"),
            *(f"train.workers={workers}", f"train.device={device}", "task.eval_rows=2"),
            *overrides,
        ],
        batch_size,
    )


def _steps(overrides: list[str], batch_size: int) -> dict[str, Any]:
    """Measures the steps of a run that the command line would start with these overrides."""
    from experiments import config, results
    from experiments.run import build, trainer_of

    config.register()
    asked = config.load(config.composed(overrides))
    data = asked.task.load(asked.model.processor(None), asked.task.locate(asked.offline))
    with tempfile.TemporaryDirectory() as folder:
        asked.tracking.start(Path(folder), {}, results.plain(asked), {})
        trainer = trainer_of(asked, build(asked, None), data, Path(folder))
        begun: list[float] = []  # a time per step, and the end of the last
        fetching: list[float] = []
        passing: list[float] = []

        def fetch(original: Callable) -> Callable:
            def timed(*args: Any) -> Any:
                begun.append(_now())
                got = original(*args)
                fetching.append(_now() - begun[-1])
                passing.append(0.0)
                return got

            return timed

        def step(original: Callable) -> Callable:
            def timed(*args: Any, **kwargs: Any) -> Any:
                start = _now()
                done = original(*args, **kwargs)
                passing[-1] += _now() - start  # several times where batches accumulate
                return done

            return timed

        trainer.get_batch_samples = fetch(trainer.get_batch_samples)
        trainer.training_step = step(trainer.training_step)
        evaluate = trainer.evaluate

        def last(*args: Any, **kwargs: Any) -> Any:
            begun.append(_now())
            return evaluate(*args, **kwargs)

        trainer.evaluate = last
        trainer.train()
    spent = [end - start for start, end in zip(begun, begun[1:], strict=False)][WARM:]
    shares = [
        (fetched / total, 1 - passed / total)
        for fetched, passed, total in zip(fetching[WARM:], passing[WARM:], spent, strict=True)
    ]
    return {
        "samples_per_s": batch_size * len(spent) / sum(spent),
        "waiting": statistics.median(waited for waited, _ in shares),
        "overhead": statistics.median(over for _, over in shares),
        "step_ms": 1000 * statistics.median(spent),
    }


def _now() -> float:
    """The time when everything asked of the device so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
