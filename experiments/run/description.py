"""Description of a run in a few words, with its result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from experiments.metrics.classification import format_score
from experiments.results.record import Record, replace_nonfinite
from experiments.run import distributed

if TYPE_CHECKING:
    from experiments.config.run_config import Config
    from experiments.tasks import Data


def describe_run(config: Config) -> dict[str, Any]:
    """Describe the run in a few words."""
    return {
        "model": config.model.name,
        "task": config.task.name,
        "method": config.method.name,
        "variant": config.variant,
        "seed": config.seed,
        "source": config.source,
        "recipe": config.recipe,
        "profile": config.profile,
        "mode": config.mode.value,
        "experiment": config.experiment,
    }


def describe_fallback(config: Config) -> str | None:
    """Return a line on values of another source than the requested one; None if there is none."""
    if not config.mode.trains or config.source in (config.recipe, "none"):
        return None
    parts = f"{config.method.name} on {config.model.name}, {config.task.name}"
    unchanged = (config.source, config.recipe) == ("printed", "paper")
    why = f"no {'misprint' if unchanged else 'recipe'} for {parts}"
    return f"source={config.source}: {why}; the values are those of source={config.recipe}"


def describe_environment(data: Data, device: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Describe what a training ran with, beside the machine.

    Args:
        data: the rows.
        device: where it was trained.
        inputs: as `results.inputs.write_inputs` returns them.
    """
    return {
        "device": str(device),
        "matmul": _describe_matmul(str(device)),
        "ranks": distributed.size(),
        "weights": inputs.get("weights", {}).get("fingerprint"),
        "data": data.fingerprint,
        "inputs": inputs,
        "rows": {"train": len(data.train)}
        | {f"scored {name}": len(part) for name, part in data.evaluations.items()}
        | {f"asked {name}": len(part) for name, part in data.prompts.items()},
        **({"held_out": dict(data.held_out)} if data.held_out is not None else {}),
    }


def _describe_matmul(device: str) -> dict[str, str] | None:
    """Return how a GPU computed with fp32 values; None on a CPU, which has no TF32."""
    import torch

    if device == "cpu":
        return None
    backends = torch.backends
    allowed = {
        "products": backends.cuda.matmul.allow_tf32,
        "convolutions": backends.cudnn.allow_tf32,
    }
    return {name: "tf32" if one else "ieee" for name, one in allowed.items()}


def summarize(record: Record) -> str:
    """One line about a finished run for the terminal."""
    run, parameters = record.run, record.parameters
    line = f"{run['model']} {run['task']} {run['method']} {run.get('variant') or ''}".rstrip()
    line += f": {parameters['adapter']:,} adapter parameters ({parameters['stored_bytes']:,} bytes)"
    if parameters.get("head"):
        line += f" + {parameters['head']:,} in the head"
    primary = (record.metrics or {}).get("primary")
    if primary:
        value, interval = replace_nonfinite([primary.get("value"), primary.get("interval")])
        if value is None:
            return f"{line}; no {primary.get('name')} that is finite ({primary.get('select')})"
        line += f"; {primary.get('select')} {primary.get('name')} {format_score(value)}"
        if interval is not None:
            line += f" [{', '.join(map(format_score, interval))}]"
    return line


def format_time(seconds: float) -> str:
    """Format a moment as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
