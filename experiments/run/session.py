"""A run folder while a run is made in it: locked, logged, left in order however the run ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import RecordError
from experiments.results import inputs, lock, run_log
from experiments.results.record import (
    Record,
    read_record,
    replace_nonfinite,
    write_failure,
    write_record,
)
from experiments.results.run_folder import find_record
from experiments.run import data_cache, distributed, output_errors, work_folder
from experiments.run.description import summarize
from experiments.training.backends import check_device

if TYPE_CHECKING:
    from experiments.config.run_config import Config

log = logging.getLogger(__name__)

DONE = "done before"


@dataclass(kw_only=True)
class Session:
    """A run on one rank."""

    config: Config
    run_dir: Path
    record: Record | None = None
    """Of the finished run; None while it is still to be made."""
    folder_lock: lock.FolderLock = field(init=False)
    """The lock of the run folder. Unset, like `work_dir`, where the run was done before."""
    work_dir: Path = field(init=False)
    """Where the run is made, by the owner's link."""
    weights: str | None = None
    """Where the weights are; found by the first rank before it takes the folder."""
    dataset_path: str | None = None
    """Where the data are, likewise."""

    def finish(self, record: Record) -> None:
        """Write the record: from here on the run is finished.

        Raises:
            Lost: another process took the folder over.
        """
        self.folder_lock.check()
        write_record(self.work_dir, record)
        self.record = record


@contextmanager
def session(run_dir: Path, config: Config) -> Iterator[Session]:
    """Open the run folder for a run, and close it behind the run.

    The first rank locks the folder, completes what an earlier start left, logs to run.log, writes
    failure.json if the block raises, and in the end puts a repetition in the place of the run that
    it repeats. The other ranks wait for it to begin and to finish. In a folder where the run is
    done, the block begins with its record, without the lock.

    Raises:
        UserError: weights or data are missing, or the folder belongs to another run.
    """
    opened = _open_worker if distributed.rank() else _open_main
    with (
        distributed.delay_sigterm(),
        output_errors.translate_errors(config.output),
        opened(run_dir, config) as current,
    ):
        yield current
    distributed.shutdown()


@contextmanager
def _open_main(run_dir: Path, config: Config) -> Iterator[Session]:
    """Open the session of a run alone, or of the first of several ranks."""
    current = Session(config=config, run_dir=run_dir)
    finished = None if config.force else find_record(run_dir, config)
    if finished is None:
        if config.mode.trains:
            # Before weights and data are looked for, which may take long.
            check_device(config.training)
            config.task.check()
            current.weights, current.dataset_path = data_cache.locate(config)
        run_dir.mkdir(parents=True, exist_ok=True)
        with lock.acquire_lock(run_dir) as folder_lock:
            prepared = work_folder.prepare(folder_lock, config)
            if isinstance(prepared, Path):
                current.folder_lock, current.work_dir = folder_lock, prepared
                with _log_and_close(current):
                    yield current
                return
        finished = prepared  # since the first look, or by a start that was killed
    else:
        work_folder.clean_finished(run_dir)
    try:
        inputs.check(run_dir, config, finished)
    except RecordError as error:
        found = f"the finished run: {summarize(finished)}"
        raise RecordError(error.summary, [*error.problems, found]) from None
    print(f"{DONE}: {run_dir}\n{summarize(finished)}", flush=True)
    distributed.set("state", DONE)
    current.record = finished
    yield current


@contextmanager
def _log_and_close(current: Session) -> Iterator[None]:
    """Log the block, and close the folder according to how it ends."""
    folder_lock = current.folder_lock
    distributed.set("owner", folder_lock.token)
    distributed.set("state", str(current.work_dir))
    with run_log.open_run_log(current.work_dir):
        try:
            yield
        except BaseException as error:
            _finish_tracking(current)
            if isinstance(error, Exception) and not _record_failure(current, error):
                sys.exit(1)  # whoever failed first says why
            raise
        _finish_tracking(current)
        earlier = work_folder.complete_repetition(folder_lock)
        if earlier is not None:
            log.info("the earlier run is kept in %s", earlier)
        work_folder.remove_temporary(folder_lock.path)
    assert current.record is not None  # else the block has raised
    print(f"{summarize(current.record)}\n{current.run_dir}", flush=True)
    if (rest := current.config.tracking.describe_rest(current.run_dir)) is not None:
        print(rest, flush=True)


@contextmanager
def _open_worker(run_dir: Path, config: Config) -> Iterator[Session]:
    """Open the session of a rank behind the first, which writes nothing but its own failure."""
    run_log.silence_logging()  # the first rank tells
    current = Session(config=config, run_dir=run_dir)
    state = distributed.get("state")
    if state == DONE:
        current.record = read_record(run_dir)
        yield current
        return
    current.work_dir = Path(state)
    current.folder_lock = lock.FolderLock(run_dir=run_dir, token=distributed.get("owner"))
    try:
        yield current
    except Exception as error:
        if not _record_failure(current, error):
            sys.exit(1)
        raise
    distributed.get("ended")
    current.record = read_record(run_dir)


def _record_failure(current: Session, error: Exception) -> bool:
    """Write failure.json for the first error of the run; return False for a later one.

    A repetition that failed goes beside the finished run, unless it can go on once there is room.

    Raises:
        Lost: the folder is another process's by now, which is left alone.
    """
    folder_lock = current.folder_lock
    goes_on = output_errors.find_reason(error, str(current.run_dir.parent)) is not None

    def record() -> None:
        try:
            if not goes_on:
                write_failure(current.work_dir, error)
        except OSError as trouble:  # a full disk, for one
            folder_lock.check()
            log.warning("failure.json cannot be written: %s", trouble)

    if not folder_lock.is_held:
        distributed.on_first_failure(lambda: None)
        folder_lock.check()
    mine = distributed.on_first_failure(record)
    if not distributed.rank() and not goes_on:
        failed = work_folder.abandon_repetition(folder_lock)
        if failed is not None:
            log.warning("the finished run is in its place, the failed one in %s", failed)
    return mine


def _finish_tracking(current: Session) -> None:
    """End tracking; a service that fails now costs a warning, not the run."""
    tracking, record = current.config.tracking, current.record
    try:
        tracking.finish(replace_nonfinite(record.metrics or {}) if record else None)
    except Exception as error:  # whatever a service's library raises
        log.warning("tracking=%s could not be closed: %s", tracking.name, error)
