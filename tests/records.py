"""Records of runs that nobody ran, for tests of what reads records: real configurations, numbers
made up."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.config.run_config import Config
from experiments.report.comparison import reference
from experiments.results.history import read_history
from experiments.results.identity import to_plain
from experiments.results.record import Record, write_record

WEIGHTS, DATA = "0f" * 32, "d" * 64
ROWS = {  # of the whole data sets
    "sst2": (67349, 872),
    "mrpc": (3668, 408),
    "cola": (8551, 1043),
    "qnli": (104743, 5463),
    "rte": (2490, 277),
    "stsb": (5749, 1500),
}
METRIC = {"cola": "matthews", "stsb": "pearson"}
SEEDS = (0, 11111, 22222, 33333, 44444)
PRINTED = {"sst2": 94.2, "mrpc": 90.0, "cola": 63.8, "qnli": 92.2, "rte": 79.1, "stsb": 90.8}


def scored(
    root: Path,
    config: dict[str, Any],
    seed: int,
    best: float | None,
    *,
    last: float | None = None,
    heldout: float | None = None,
    weights: str | None = WEIGHTS,
    data: str = DATA,
    inputs: dict[str, str] | None = None,
    seconds: float = 60.0,
    place: Path | None = None,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Writes the record of a trained run; returns its folder.

    Args:
        root: the output folder.
        config: a plain configuration (`results.plain`).
        seed: of the run.
        best, last, heldout: values of the primary metric; None of the last two is the best's.
        weights: fingerprint of the base model's weights.
        data: fingerprint of the data.
        inputs: fingerprints by input; None as records of earlier versions, which have none.
        seconds: of training.
        place: folder, if not the one of the configuration.
        changes: fields of the configuration with dotted keys that are set otherwise.
    """
    config = copy.deepcopy(config) | {"seed": seed}
    for key, value in (changes or {}).items():
        *path, leaf = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[leaf] = value
    task = config["task"]["name"]
    train, validation = ROWS.get(task, (100, 50))
    name = METRIC.get(task, "accuracy")

    def chosen(value: float | None) -> dict[str, Any]:
        value = best if value is None else value
        interval = None if value is None else [value - 0.01, value + 0.01]
        return {"epoch": 3.0, "step": 30, "value": value, "interval": interval,
                "scores": {"validation": {name: value}}}  # fmt: skip

    marked = {name: {"fingerprint": mark} for name, mark in (inputs or {}).items()}
    if weights == WEIGHTS:  # of a paper's base model: the published ones
        known = reference.weights().get(config["model"]["name"]) or {}
        weights = known.get("fingerprint") or WEIGHTS
    record = Record(
        run={
            **{key: config[key]["name"] for key in ("model", "task", "method")},
            **{key: config[key] for key in ("variant", "seed", "source", "recipe", "profile")},
            "mode": config["mode"],
            "experiment": config["experiment"],
        },
        config=config,
        parameters={"adapter": 24000, "head": 592130, "base": 124647170, "stored_bytes": 96000},
        metrics={
            "primary": {"name": name, "split": "validation", "select": "best", **chosen(best)},
            "best": chosen(best),
            "last": chosen(last),
            "heldout": {**chosen(heldout), "epochs": [2.0, 3.0], "steps": [20, 30]},
        },
        time={"started": "2026-11-24T10:00:00+0000", "train_s": seconds, "evaluation_s": 1.0},
        memory={"peak_rss": 2**30, "peak_gpu": None},
        environment={
            "versions": {"torch": "2.13.0"},
            "commit": "c0ffee",
            "weights": weights,
            "data": data,
            **({} if inputs is None else {"inputs": marked}),
            "rows": {"train": train, "scored validation": validation},
        },
    )
    variant = config["variant"] or "."
    place = place or root / record.run["model"] / task / record.run["method"] / variant / (
        f"seed={seed}"
    )
    place.mkdir(parents=True, exist_ok=True)
    write_record(place, record)
    history = {"step": 30, "epoch": 3.0, "elapsed_s": seconds, f"validation/{name}": best}
    (place / "history.jsonl").write_text(json.dumps(history) + "\n")
    return place


def five_hundred_runs(root: Path, compose: Callable[..., Config]) -> None:
    """Writes Table 2's FourierFT whole, LoRA of one seed, rehearsals, other models, and records
    that do not count."""

    def plain(*overrides: str) -> dict[str, Any]:
        return to_plain(compose(*overrides))

    shift = {"sst2": 0.0, "mrpc": 0.0, "cola": -3.5, "qnli": 0.15, "rte": 0.1, "stsb": 0.0}
    for task, printed in PRINTED.items():
        fourierft = plain("model=roberta_base", f"task={task}", "method=fourierft")
        lora = plain("model=roberta_base", f"task={task}", "method=lora")
        for place, seed in enumerate(SEEDS):
            value = (printed + shift[task] + 0.05 * (place - 2)) / 100
            scored(root, fourierft, seed, value, last=value - 0.02, heldout=value - 0.01)
        scored(root, lora, 0, printed / 100)
    minilm = plain("model=minilm", "task=sst2", "method=fourierft")
    for number in range(440):
        place = root / f"minilm/sst2/fourierft/learning_rate={number}/seed={number % 5}"
        rate = {"train.learning_rate": 0.001 * (number + 1), "variant": f"learning_rate={number}"}
        scored(root, minilm, number % 5, 0.5 + number / 1000, changes=rate, place=place)
    smoke = {"profile": "smoke", "task.train_rows": 16, "train.max_steps": 2}
    cola = plain("model=roberta_base", "task=cola", "method=fourierft")
    for seed in range(24):
        place = root / f"roberta_base/cola/fourierft/profile=smoke/seed={seed}"
        scored(root, cola, seed, 0.1, changes=smoke, weights=None, place=place)
    (root / "broken").mkdir()
    (root / "broken/metrics.json").write_text('{"schema": 1, "half')
    shutil.copytree(place, root / "<copy> & more/seed=23")


def contents(output: Path) -> dict[str, dict]:
    """What each run folder holds, without times and places."""
    found = {}
    for path in output.rglob("metrics.json"):
        place, record = path.parent, json.loads(path.read_text())
        predictions = {item.name: item.read_bytes() for item in place.glob("predictions/*.npz")}
        found[place.relative_to(output).as_posix()] = {
            "curve": [{**line, "elapsed_s": 0} for line in read_history(place)],
            "adapter": {
                item.name: item.read_bytes() for item in place.glob("adapter/*.safetensors")
            },
            "predictions": predictions,
            "config": {**record["config"], "output": ""},
            **{name: record[name] for name in ("run", "metrics", "parameters", "preflight")},
        }
    return found
