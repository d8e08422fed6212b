"""run(config) -> Record: the path of one run, top to bottom."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.results import inputs as provenance
from experiments.results import lock, run_log
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import Record, finite, read_record, write_failure, write_record
from experiments.results.run_folder import find_record
from experiments.run import attempt, data_cache, distributed, late_answers, writing
from experiments.run.build import build, counting, trainer_of
from experiments.run.description import describe, describe_run, stamp

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config
    from experiments.tasks import Data


log = logging.getLogger(__name__)


DONE = "done before"


def run(config: Config) -> Record:
    """Does what the configuration says, or returns the record if that was done before.

    Raises:
        UserError: weights or data are missing or do not fit, the folder belongs to another run.
    """
    if config.train is not None:
        distributed.check(config.train.batch_size, config.train.accumulation)
    if config.offline:
        hub.go_offline()
    place = get_run_dir(config)
    with distributed.patience(), writing.into(config.output):
        record = _follow(config, place) if distributed.rank() else _lead(config, place)
    distributed.part()
    return record


def _lead(config: Config, place: Path) -> Record:
    """A run alone, or as the first of several ranks."""
    finished = None if config.force else find_record(place, config)
    if finished is None:
        weights, rows = data_cache.locate(config) if config.mode.trains else (None, None)
        place.mkdir(parents=True, exist_ok=True)
        with lock.hold(place) as held:
            work = attempt.begin(held, config)
            if work is not None:
                return _do(config, held, work, weights, rows)
        finished = read_record(place)  # done since the first look, or by a start that was killed
    else:
        attempt.tidy(place)
    provenance.check(place, config, finished)
    print(f"{DONE}: {place}\n{describe(finished)}", flush=True)
    distributed.tell("verdict", DONE)
    return late_answers.add(config, place, finished)


def _do(
    config: Config, held: lock.Hold, work: Path, weights: str | None, rows: str | None
) -> Record:
    """The run itself, made in the folder `work`."""
    distributed.tell("owner", held.token)
    distributed.tell("verdict", str(work))
    with run_log.keep(work):
        try:
            if config.mode.trains:
                record = _train(config, held, work, weights, rows)
            else:
                record = _count(config)
            held.check()
            write_record(work, record)
        except BaseException as error:
            _close(config, None)
            if isinstance(error, Exception) and not _fail(held, work, error):
                sys.exit(1)  # whoever failed first says why
            raise
        _close(config, record)
        earlier = attempt.settle(held)
        if earlier is not None:
            log.info("the earlier run is kept in %s", earlier)
        attempt.clear(held.path)
    print(f"{describe(record)}\n{held.place}", flush=True)
    return record


def _follow(config: Config, place: Path) -> Record:
    """A rank behind the first: computes with it and writes nothing but its own failure."""
    run_log.silence()  # the first rank tells
    verdict = distributed.ask("verdict")
    if verdict != DONE:
        work, held = Path(verdict), lock.Hold(place=place, token=distributed.ask("owner"))
        try:
            if config.mode.trains:
                from experiments.training import trainer

                with distributed.first_alone("prepared"):
                    _, data, net = _prepare(config, *data_cache.locate(config))
                trainer.fit(trainer_of(config, net, data, work, held.check))
        except Exception as error:
            if not _fail(held, work, error):
                sys.exit(1)
            raise
        distributed.ask("ended")
    return read_record(place)


def _fail(held: lock.Hold, work: Path, error: Exception) -> bool:
    """Records the error if it is the first of the run; False if another rank failed before.

    A repetition that failed goes beside the finished run, unless it can go on once there is room.

    Raises:
        Lost: the folder is another process's by now, which is left alone.
    """

    goes_on = writing.reason(error, str(held.place.parent)) is not None

    def record() -> None:
        try:
            if not goes_on:
                write_failure(work, error)
        except OSError as trouble:  # a full disk, for one
            held.check()
            log.warning("failure.json cannot be written: %s", trouble)

    if not held.kept:
        distributed.first_to_fail(lambda: None)
        held.check()
    mine = distributed.first_to_fail(record)
    if not distributed.rank() and not goes_on:
        failed = attempt.give_up(held)
        if failed is not None:
            log.warning("the finished run is in its place, the failed one in %s", failed)
    return mine


def _close(config: Config, record: Record | None) -> None:
    """Ends tracking; a service that fails now costs a warning, not the run."""
    try:
        config.tracking.finish(finite(record.metrics or {}) if record else None)
    except Exception as error:  # whatever a service's library raises
        log.warning("tracking=%s could not be closed: %s", config.tracking.name, error)


def _train(
    config: Config, held: lock.Hold, work: Path, weights: str | None, rows: str | None
) -> Record:
    began = time.time()
    from experiments.results import environment, kept_adapter
    from experiments.training import memory, preflight, scoring, trainer

    surroundings = environment.describe()  # of the code that runs, not of what is there in the end
    measured = environment.Memory()
    with distributed.first_alone("prepared"):
        before = provenance.describe(config)
        processor, data, net = _prepare(config, weights, rows)
        inputs = provenance.begin(work, config, held.place, before)
    counts = counting(net, config.model.head)
    outlook = preflight.check(net, config.train, len(data.train))
    for warning in outlook["warnings"]:
        log.warning("preflight: %s", warning)
    outlook["memory"] = memory.expected(net, config.model, config.task, config.train, data)
    log.info("memory expected: %s", memory.describe(outlook["memory"]))
    identity = describe_run(config)
    config.tracking.start(work, identity, to_plain(config), counts)
    fitting = trainer_of(config, net, data, work, held.check)
    spent = trainer.fit(fitting)
    began_producing = time.monotonic()
    config.task.produce(fitting.network, processor, data, work, config.seed)
    held.check()
    spent["produce_s"] = round(time.monotonic() - began_producing, 3)
    peak = measured.peak()
    log.info("memory taken: %.3g GB", peak["taken"] / memory.GIGABYTE)
    scoring.check(held.shown(work), config.task)
    metrics = scoring.score(held.shown(work), config.task, config.train.select)
    step = (metrics[config.train.select.value] or {}).get("step")
    return Record(
        run=identity,
        config=to_plain(config),
        parameters=counts,
        metrics=metrics,
        adapter=kept_adapter.seal(held.shown(work), step),
        preflight=outlook,
        time={"started": stamp(began), "finished": stamp(time.time()), **spent},
        memory=peak,
        environment={
            **surroundings,
            "device": str(fitting.args.device),
            "ranks": distributed.size(),
            "weights": inputs.get("weights", {}).get("fingerprint"),
            "data": data.fingerprint,
            "inputs": inputs,
            "rows": {"train": len(data.train)}
            | {f"scored {name}": len(part) for name, part in data.evaluations.items()}
            | {f"asked {name}": len(part) for name, part in data.prompts.items()},
        },
    )


def _prepare(config: Config, weights: str | None, rows: str | None) -> tuple[Any, Data, nn.Module]:
    """Processor, data and network."""
    from experiments.training.device import check_device

    check_device(config.train)
    config.task.check()
    processor, data = data_cache.prepare(config.model, config.task, weights, rows)
    return processor, data, build(config, weights)


def _count(config: Config) -> Record:
    began = time.time()
    from experiments.results import environment
    from experiments.training import memory

    measured = environment.Memory()
    bare = config.model.build(config.task.head, None, meta=True)
    net = config.method.apply(bare, config.model.head)
    outlook = memory.expected(net, config.model, config.task, None, None)
    if config.task.head.kind != "none":
        log.info("memory expected for one row a step: %s", memory.describe(outlook))
    return Record(
        run=describe_run(config),
        config=to_plain(config),
        parameters=counting(net, config.model.head),
        preflight={"memory": outlook},
        time={"started": stamp(began), "finished": stamp(time.time())},
        memory=measured.peak(),
        environment={**environment.describe(), "inputs": provenance.describe(config)},
    )
