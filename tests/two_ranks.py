"""Trains a run's configuration under torchrun: `torchrun --nproc_per_node=2 tests/two_ranks.py
overrides.json folder`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from experiments import config as configuration  # noqa: E402
from experiments import run, trainer  # noqa: E402

if __name__ == "__main__":
    torch.set_num_threads(1)
    configuration.register()
    config = configuration.load(configuration.composed(json.loads(Path(sys.argv[1]).read_text())))
    folder = Path(sys.argv[2])
    data = config.task.load(config.model.processor(None), config.task.locate())
    net = run.build(config, None)
    trainer.fit(run.trainer_of(config, net, data, folder))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
