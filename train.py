"""Fine-tune a base model on a task with a method: `python train.py model=roberta_base task=cola method=fourierft`."""

from __future__ import annotations

import hydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from experiments import config
from experiments.errors import UserError

config.register()


class Refused(CompactHydraException):
    """A UserError on its way through Hydra, which prints it without a traceback and exits with 1."""


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Composed configuration -> the primary metric (None where nothing is trained), for sweepers to maximise."""
    try:
        run_config = config.load(cfg)
        from experiments.run import run

        record = run(run_config)
    except UserError as error:
        raise Refused(str(error)) from None
    return record.metrics["primary"]["value"] if record.metrics else None


if __name__ == "__main__":
    main()
