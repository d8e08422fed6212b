"""Fine-tune a base model on a task with a method: `python train.py model=roberta_base task=cola method=fourierft`."""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments import config, overrides
from experiments.errors import UserError

config.register()


class Refused(CompactHydraException):
    """A UserError in one cell of a sweep: the others go on, Hydra reports it at the end and exits with 1."""


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Composed configuration -> the primary metric (None where nothing is trained), for sweepers to maximise."""
    try:
        run_config = config.load(cfg)
        from experiments.run import run

        record = run(run_config)
    except UserError as error:
        if HydraConfig.get().mode is RunMode.RUN:
            sys.exit(_message(str(error)))
        print(_message(str(error)), file=sys.stderr, flush=True)
        raise Refused(str(error)) from None
    return record.metrics["primary"]["value"] if record.metrics else None


def _message(text: str) -> str:
    return f"train.py: {text}"


if __name__ == "__main__":
    if not any(argument in ("--help", "-h", "--hydra-help") for argument in sys.argv[1:]):
        wrong = overrides.problems(sys.argv[1:])
        if wrong:
            sys.exit(
                _message(
                    "\n".join(["these overrides do not fit", *(f"  - {line}" for line in wrong)])
                )
            )
    main()
