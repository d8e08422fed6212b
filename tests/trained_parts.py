"""Trainings without a session, several in one process: `trained_parts.py JOBS.json` on every rank.

JOBS.json holds a list of [overrides, run folder, step to fail at or null, add an unused parameter].
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402

from experiments.config.compose import compose_config, register  # noqa: E402
from experiments.config.load import load_config  # noqa: E402
from experiments.run import data_cache, distributed  # noqa: E402
from experiments.run.build import build_parts, build_trainer  # noqa: E402
from experiments.training import fitting  # noqa: E402


def fit(overrides, folder, fail_at=None, unused=False):
    """Trains in a folder, or continues there; returns DDP's find_unused_parameters."""
    register()
    config = load_config(compose_config(list(overrides)))
    parts = build_parts(config, *data_cache.locate(config))
    if unused:
        parts.network.register_parameter("unused", torch.nn.Parameter(torch.zeros(3)))
    Path(folder).mkdir(exist_ok=True)
    trainer = build_trainer(config, parts.network, parts.data, Path(folder))
    training_step = trainer.training_step

    def failing_step(*args, **kwargs):
        if trainer.state.global_step + 1 == fail_at:
            raise ArithmeticError("interrupted")
        return training_step(*args, **kwargs)

    trainer.training_step = failing_step
    try:
        fitting.fit(trainer)
    except ArithmeticError:
        if fail_at is None:
            raise
    handler = trainer.accelerator.ddp_handler
    AcceleratorState._reset_state(reset_partial_state=True)
    return handler.find_unused_parameters


if __name__ == "__main__":
    jobs = Path(sys.argv[1])
    found = [fit(*job) for job in json.loads(jobs.read_text())]
    jobs.with_suffix(f".seed{distributed.rank()}").write_text(str(torch.initial_seed()))
    if distributed.rank() == 0:
        jobs.with_suffix(".found").write_text(json.dumps(found))
    distributed.shutdown()
