"""One run from its configuration to its record, top to bottom."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.device import select_device
from experiments.results import inputs
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import Record
from experiments.run import data_cache, distributed, late_answers
from experiments.run.build import (
    Parts,
    build_base,
    build_parts,
    build_trainer,
    count_parameters,
    restore_trained,
)
from experiments.run.description import (
    describe_environment,
    describe_fallback,
    describe_run,
    format_time,
)
from experiments.run.session import Session, session
from experiments.training.determinism import deterministic_algorithms
from experiments.training.train_config import Sharding

if TYPE_CHECKING:
    from experiments.config.run_config import Config

log = logging.getLogger(__name__)


def run(config: Config) -> Record:
    """Do what the configuration says, or return the record if that was done before.

    Raises:
        UserError: weights or data are missing or do not fit, the folder belongs to another run.
    """
    if config.train is not None:
        sharded = config.train.sharding is Sharding.fsdp
        distributed.check_processes(config.train.batch_size, config.train.accumulation, sharded)
    if config.offline:
        hub.go_offline()
    with (
        session(get_run_dir(config), config) as current,
        deterministic_algorithms(config.train),
    ):
        if distributed.rank():
            run_worker(current)
        elif current.record is not None:
            current.record = late_answers.answer_pending(config, current.run_dir, current.record)
        else:
            current.finish(train(current) if config.mode.trains else count(config))
    assert current.record is not None  # finished, by this process or another
    return current.record


def run_worker(current: Session) -> None:
    """Train along with the first rank."""
    if current.record is not None or not current.config.mode.trains:
        return
    from experiments.training import fitting

    with distributed.main_process_first("prepared"):
        parts = build_parts(current.config, *data_cache.locate(current.config))
    work_dir, check = current.work_dir, current.folder_lock.check
    fitting.fit(build_trainer(current.config, parts.network, parts.data, work_dir, check))


def train(current: Session) -> Record:
    """Build, train, let the model answer, score."""
    config, folder_lock, work_dir = current.config, current.folder_lock, current.work_dir
    started = time.time()
    if (fallback := describe_fallback(config)) is not None:
        log.warning("%s", fallback)
    if config.model.origin is not None and config.model.pretrained and config.model.path is None:
        log.info("weights: %s", config.model.origin)
    from experiments.results import environment, kept_adapter
    from experiments.training import fitting, memory, scoring

    machine = environment.describe()  # of the code that runs, not of what is there in the end
    peak_memory = environment.PeakMemory(select_device(config.training.device))
    with distributed.main_process_first("prepared"):
        before = inputs.describe(config)
        parts = build_parts(config, current.weights, current.dataset_path)
        inputs_read = inputs.write_inputs(work_dir, config, current.run_dir, before)

    parameters = count_parameters(parts.network, config.model.head)
    checks = check_before_training(config, parts)
    config.tracking.start(work_dir, describe_run(config), to_plain(config), parameters)
    trainer = build_trainer(config, parts.network, parts.data, work_dir, folder_lock.check)
    timings = fitting.fit(trainer)

    answering = time.monotonic()
    # Without autocast, as for later answers and other prompts.
    network = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if config.training.sharding is Sharding.fsdp and parts.data.prompts:
        # This rank alone answers, with the network as it was trained last.
        network = restore_trained(config, build_base(config, current.weights), work_dir)
    config.task.generate(network, parts.processor, parts.data, work_dir, config.seed)
    folder_lock.check()
    timings["produce_s"] = round(time.monotonic() - answering, 3)
    peak = peak_memory.peak()
    log.info("memory taken: %.3g GB", peak["taken"] / memory.GIGABYTE)

    written = folder_lock.get_visible_path(work_dir)
    scoring.check(written, config.task)
    metrics = scoring.score(
        written, config.task, config.training.select, device=config.training.device
    )
    step = (metrics[config.training.select.value] or {}).get("step")
    return Record(
        run=describe_run(config),
        config=to_plain(config),
        parameters=parameters,
        metrics=metrics,
        adapter=kept_adapter.verify(written, step),
        preflight=checks,
        time={"started": format_time(started), "finished": format_time(time.time()), **timings},
        memory=peak,
        environment=machine
        | describe_environment(parts.data, trainer.args.device, inputs_read)
        | {
            "sharding": config.training.sharding.value,
            "deterministic": config.training.deterministic,
        },
    )


def check_before_training(config: Config, parts: Parts) -> dict[str, Any]:
    """Log before training if this setting can learn, and the memory that it takes."""
    from experiments.training import memory, preflight

    own = config.recipe in ("ours", "none") and config.model.pretrained
    checks = preflight.check_setting(parts.network, config.training, len(parts.data.train), own=own)
    if (setting := preflight.describe_setting(checks)) is not None:
        log.info("%s", setting)
    for warning in checks["warnings"]:
        log.warning("preflight: %s", warning)
    checks["memory"] = memory.estimate_memory(
        parts.network, config.model, config.task, config.train, parts.data
    )
    log.info("memory expected: %s", memory.format_estimate(checks["memory"]))
    return checks


def count(config: Config) -> Record:
    """Count parameters and memory on shapes alone: no weights, no data."""
    started = time.time()
    from experiments.results import environment
    from experiments.training import memory

    peak_memory = environment.PeakMemory()
    bare = config.model.build(config.task.head, None, meta=True)
    network = config.method.apply(bare, config.model.head)
    checks = memory.estimate_memory(network, config.model, config.task, None, None)
    if config.task.head.kind != "none":
        log.info("memory expected for one row a step: %s", memory.format_estimate(checks))
    return Record(
        run=describe_run(config),
        config=to_plain(config),
        parameters=count_parameters(network, config.model.head),
        preflight={"memory": checks},
        time={"started": format_time(started), "finished": format_time(time.time())},
        memory=peak_memory.peak(),
        environment={**environment.describe(), "inputs": inputs.describe(config)},
    )
