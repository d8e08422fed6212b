"""Fine-tune a base model on a task with a method: `python train.py model=… task=… method=…`."""

from __future__ import annotations

import sys

from experiments import console
from experiments.config import help_page

if __name__ == "__main__":
    console.protect_streams()
    if help_page.is_requested(sys.argv[1:]):
        sys.exit(print(help_page.format_help()))  # before the imports below, which take longer

import contextlib
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.config import flags, overrides, paths, plugins, sweep
from experiments.config.compose import check_names, register
from experiments.config.load import load_config
from experiments.config.run_config import Config
from experiments.errors import UserError
from experiments.results.identity import get_run_dir
from experiments.results.record import RECORD
from experiments.results.run_folder import find_failure
from experiments.run import distributed, output_errors, sweep_log

if TYPE_CHECKING:
    from experiments.results.record import Record

register()


class CellFailed(CompactHydraException):
    """A UserError in one cell of a sweep: the others go on, Hydra exits with 1 at the end."""


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Train what Hydra composed: a cell of a sweep, or a run with settings of Hydra's own."""
    # Once more: a launcher may have carried this function to another process.
    register()
    plugins.load_named()
    console.protect_streams()
    given = HydraConfig.get()
    words, choices = given.overrides.task, given.runtime.choices
    if given.mode is not RunMode.MULTIRUN:
        train(cfg, words, choices=choices)
        return
    number, began = given.job.num + 1, time.monotonic()
    sweep_log.announce(number, words)
    try:
        record, before = train(cfg, words, choices=choices, sweeping=True)
    except Exception as error:
        name = "" if isinstance(error, CellFailed) else f"{type(error).__name__}: "
        sweep_log.add_failure(number, words, time.monotonic() - began, f"{name}{error}")
        raise
    sweep_log.add_record(number, words, time.monotonic() - began, record, before=before)


def train(
    cfg: DictConfig,
    given: Sequence[str],
    *,
    choices: Mapping[str, Any] | None = None,
    sweeping: bool = False,
) -> tuple[Record, bool]:
    """Train what a configuration says.

    Args:
        cfg: as Hydra composed it.
        given: overrides of which it was composed.
        choices: options that Hydra chose, if nobody has checked them yet.
        sweeping: True for one cell of several.

    Returns:
        The record, and True if it was there before.
    """
    if sweeping and distributed.size() > 1:
        distributed.abort(
            "train.py: torchrun and a sweep at once: start one run with torchrun, "
            "or the sweep without it"
        )
    try:
        if choices is not None:
            check_names(cfg, choices)
        run_config = load_config(cfg, given)
        if sweeping and not run_config.retry_failed:
            refuse_failed(run_config)
        before = not run_config.force and (get_run_dir(run_config) / RECORD).exists()
        from experiments.run.main import run

        return run(run_config), before
    except KeyboardInterrupt:
        sys.exit("train.py: interrupted; the same command goes on from the last checkpoint")
    except UserError as error:
        message = f"train.py: {error}"
        if not sweeping:
            distributed.abort(message)
        first = sweep_log.find_same_failure(message)
        told = message if first is None else f"train.py: failed as run {first}"
        print(told, file=sys.stderr, flush=True)
        raise CellFailed(message) from None


def refuse_failed(run_config: Config) -> None:
    """Raise UserError for a cell that failed in an earlier sweep."""
    run_dir = get_run_dir(run_config)
    failed = find_failure(run_dir, run_config)
    if failed is not None:
        raise UserError(
            f"failed before: {run_dir} ({failed.get('error')}: {failed.get('message')}); "
            "retry_failed=true runs it again"
        )


def check(arguments: list[str]) -> tuple[list[str], DictConfig | None]:
    """Refuse invalid overrides, all of them at once.

    Returns:
        The arguments as Hydra reads them, and the one run that they ask for; None where Hydra has
        to compose it.
    """
    wrong, cfg = overrides.compose_checked(arguments)
    if wrong:
        distributed.abort("\n  - ".join(["train.py: invalid overrides", *wrong]))
    return flags.parse_arguments(arguments).arguments, cfg


def start() -> None:
    """Hand over to Hydra: its refusals become one line, errors of a run are shown whole."""
    whole = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints by itself, most of it tracebacks
    try:
        main()
    except CellFailed:
        sys.exit(1)  # said when it happened
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if whole or any(one.name == "main" and one.filename == __file__ for one in frames):
            raise  # of a run
        if isinstance(error, OSError) and error.filename is not None:
            distributed.abort(f"train.py: {error.filename}: {error.strerror}")
        reason = f"{error} {error.__cause__ or ''}".strip()
        kind = "" if isinstance(error, HydraException) and reason else f"{type(error).__name__}: "
        distributed.abort(f"train.py: {kind}{reason}")


@contextlib.contextmanager
def summarize_sweep(arguments: list[str]) -> Iterator[None]:
    """Print a table of the sweep's runs behind them, however they ended.

    A sweep that is interrupted says how it goes on.
    """
    output = find_output(arguments)
    choices = None if output is None else sweep.find_choices(arguments)
    if choices is None:
        yield
        return
    sweep_log.begin(Path(output), choices)
    watcher = None
    if any(word.startswith("hydra/launcher=") and "slurm" in word for word in arguments):
        from experiments.run import slurm_array

        watcher = slurm_array.watch_queue(Path(output))
    try:
        yield
    except KeyboardInterrupt:
        rest = watcher and watcher.describe_rest()
        told = rest or "interrupted; the same command goes on with the missing runs"
        print(f"train.py: {told}", file=sys.stderr, flush=True)
        sys.exit(130)
    except SystemExit as stop:
        # With a message: the launcher has given up, as after a cell that was cancelled.
        if isinstance(stop.code, str) and (rest := watcher and watcher.describe_rest()):
            sys.exit(f"{stop.code}\ntrain.py: {rest}")
        raise
    finally:
        if (table := sweep_log.finish(Path(output))) is not None:
            print(table, flush=True)


def find_output(arguments: list[str]) -> str | None:
    """Return the folder of all runs; None if nothing is to be run."""
    given = {word for word in arguments if word.startswith("-")}
    return paths.find_output(arguments) if given <= {"--run", "--multirun"} else None


def make_folder(arguments: list[str]) -> None:
    """Make the folder of all runs where something is to be run, before Hydra writes there."""
    output = find_output(arguments)
    if output is not None:
        try:
            output_errors.make_folder(output)
        except UserError as error:
            distributed.abort(f"train.py: {error}")


if __name__ == "__main__":
    try:
        sys.argv[1:] = plugins.take_plugins(sys.argv[1:])
    except UserError as refusal:
        distributed.abort(f"train.py: {refusal}")
    sys.argv[1:], composed = check(paths.quote_paths(sys.argv[1:]))
    make_folder(sys.argv[1:])
    if composed is None:
        with summarize_sweep(sys.argv[1:]):
            start()
    else:
        train(composed, flags.parse_arguments(sys.argv[1:]).overrides)
