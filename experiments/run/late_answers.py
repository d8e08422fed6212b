"""Additions to a finished run: answers to questions that it was not given, for one."""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import RecordError
from experiments.results import inputs, kept_adapter, lock, run_log
from experiments.results.record import Record, read_record, write_record
from experiments.run import work_folder
from experiments.run.build import build_base, restore_trained

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config

log = logging.getLogger(__name__)


def answer_pending(config: Config, run_dir: Path, record: Record) -> Record:
    """Answer `Task.pending_prompts` with the adapter that the run kept; nothing is trained.

    The record gets the numbers of what was asked and the time that it took, and keeps all else.

    Args:
        config: as asked for now; the same run.
        run_dir: its folder.
        record: as it lies there.

    Returns:
        The record, `record` itself where nothing is pending.

    Raises:
        UserError: the weights are not here, or others than those that the run began with; the
            folder is in use, or lacks its adapter. The run stays finished.
    """
    if not config.mode.trains or not config.task.pending_prompts(run_dir):
        return record
    if not (run_dir / "adapter").is_dir():
        raise RecordError(f"{run_dir}: no adapter there, so the run cannot be asked anything more")
    weights = config.model.locate(config.offline)
    with lock.acquire_lock(run_dir) as folder_lock, _open_log(folder_lock):
        # Again: another process may have been faster.
        pending, record = config.task.pending_prompts(run_dir), read_record(run_dir)
        if not pending:
            return record
        log.info("trained before; to be answered: %s", ", ".join(pending))
        kept_adapter.check(run_dir / kept_adapter.FOLDER, record)
        net, processor = _restore_network(config, run_dir, weights, record)
        began = time.monotonic()
        config.task.generate(
            net, processor, _wrap_prompts(pending, record), folder_lock.path, config.seed
        )
        rows = {f"asked {name}": len(prompts) for name, prompts in pending.items()}
        spent = round(record.time.get("produce_s", 0.0) + time.monotonic() - began, 3)
        added = dataclasses.replace(
            record,
            time=record.time | {"produce_s": spent},
            environment=record.environment
            | {"rows": (record.environment.get("rows") or {}) | rows},
        )
        folder_lock.check()
        write_record(folder_lock.path, added)
    return added


def _open_log(folder_lock: lock.FolderLock) -> AbstractContextManager[None]:
    work_folder.replace_open_files(folder_lock.path)
    return run_log.open_run_log(folder_lock.path)


def _restore_network(
    config: Config,
    run_dir: Path,
    weights: str | None,
    record: Record,
) -> tuple[nn.Module, Any]:
    """Return the trained network, its adapter beside the weights, and the processor."""
    from experiments.training.backends import check_device, set_matmul

    check_device(config.training)
    set_matmul(config.training)
    config.task.check()
    processor = config.model.processor(weights, device=config.training.device)
    net = build_base(config, weights)  # downloads, if need be
    inputs.check_model(run_dir, config, record)
    return restore_trained(config, net, run_dir), processor


def _wrap_prompts(pending: dict[str, Any], record: Record) -> Any:
    """Prompts without rows to train on."""
    from experiments.tasks import Data

    fingerprint = record.environment.get("data") or ""
    return Data(
        train=(),
        evaluations={},
        prompts=pending,
        collate=lambda rows: {"rows": rows},  # never called
        fingerprint=fingerprint,
    )
