"""Speed of whole training runs, family by family, and the share of a step that waits for rows."""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM = 3  # steps that are left out: memory, plans, workers


CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "glue": ("glue/sst2", ("model=minilm", "task=sst2", "task.train_rows=2000")),
    "e2e": ("e2e", ("model=gpt2_tiny", "task=e2e", "task.train_rows=2000", "task.metrics=[bleu]")),
    "images": ("cifar10", ("model=vit_small", "task=cifar10", "model.pretrained=false")),
    "instruction": ("alpaca", ("model=stories260k", "task=alpaca")),
    "dreambooth": ("dreambooth", ("model=sd_tiny", "task=dreambooth", "task.class_images=4")),
}
"""Per family, the folder below the data's and what is run."""
SIZES = {"fourierft": ("n=200", "alpha=30"), "lora": ("r=8", "alpha=16")}


def measure(
    family: str,
    path: Path | str,
    *,
    method: str = "fourierft",
    batch_size: int = 16,
    steps: int = 12,
    device: str = "auto",
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train the rehearsal of a family for some steps, as a run does.

    Args:
        family: one of CASES.
        path: folder with the task's data.
        steps: measured, after `WARM` others.
        overrides: further ones, as on the command line.

    Returns:
        `samples_per_s`; `waiting` and `overhead`, the medians over the steps of the share of a step
        spent on getting its batch, and of all that is neither forward nor backward pass;
        `step_ms`, median.
    """
    return _steps(
        [
            *CASES[family][1],
            *(f"task.path={path}", f"method={method}", "source=none", "train.select=last"),
            *(f"method.{size}" for size in SIZES.get(method, ())),
            *("train.learning_rate=1e-3", "train.epochs=1000", "train.checkpoint_every=0"),
            *(f"train.max_steps={WARM + steps}", f"train.batch_size={batch_size}"),
            *(f"train.device={device}", "task.eval_rows=2"),
            *overrides,
        ],
        batch_size,
    )


def _steps(overrides: list[str], batch_size: int) -> dict[str, Any]:
    """Measure the steps of a run that the command line would start with these overrides."""
    from experiments.config.compose import compose_config, register
    from experiments.config.load import load_config
    from experiments.results.identity import to_plain
    from experiments.run.build import build_network, build_trainer

    register()
    asked = load_config(compose_config(overrides))
    weights = asked.model.locate(asked.offline)
    data = asked.task.load(asked.model.processor(weights), asked.task.locate(asked.offline))
    with tempfile.TemporaryDirectory() as folder:
        asked.tracking.start(Path(folder), {}, to_plain(asked), {})
        trainer = build_trainer(asked, build_network(asked, weights), data, Path(folder))
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
    spent = [end - start for start, end in itertools.pairwise(begun)][WARM:]
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
    """Return the time once the device has finished all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Measure every family with FourierFT and LoRA, without loader processes."""
    parser = argparse.ArgumentParser(prog="benchmarks.families", description=__doc__)
    parser.add_argument(
        "data", type=Path, help=f"folder of {', '.join(d for d, _ in CASES.values())}"
    )
    parser.add_argument("--stories260k", type=Path, help="folder of the tiny LLaMA (instruction)")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    print("| family | method | rows/s | waiting for rows | neither forward nor backward | step |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for family, (folder, _) in CASES.items():
        more: tuple[str, ...] = ()
        if family == "instruction":
            if options.stories260k is None:
                continue
            more = (f"model.path={options.stories260k}",)
        for method in SIZES:
            found = measure(
                family, options.data / folder, method=method, steps=options.steps, overrides=more
            )
            print(
                f"| {family} | {method} | {found['samples_per_s']:.1f} | {found['waiting']:.1%} "
                f"| {found['overhead']:.1%} | {found['step_ms']:.0f} ms |",
                flush=True,
            )


if __name__ == "__main__":
    main()
