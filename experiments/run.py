"""run(config) -> Record: the path of one run, top to bottom."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import (
    attempt,
    hub,
    journal,
    lock,
    prepared,
    provenance,
    ranks,
    results,
    supplement,
    writing,
)
from experiments.description import describe, describe_run, stamp
from experiments.results import Record

if TYPE_CHECKING:
    from torch import nn

    from experiments.config import Config
    from experiments.tasks import Data
    from experiments.trainer import Trainer

log = logging.getLogger(__name__)

DONE = "done before"


def run(config: Config) -> Record:
    """Does what the configuration says, or returns the record if that was done before.

    Raises:
        UserError: weights or data are missing or do not fit, the folder belongs to another run.
    """
    if config.train is not None:
        ranks.check(config.train.batch_size, config.train.accumulation)
    if config.offline:
        hub.go_offline()
    place = results.folder(config)
    with ranks.patience(), writing.into(config.output):
        record = _follow(config, place) if ranks.rank() else _lead(config, place)
    ranks.part()
    return record


def _lead(config: Config, place: Path) -> Record:
    """A run alone, or as the first of several ranks."""
    finished = None if config.force else results.find(place, config)
    if finished is None:
        weights, rows = prepared.locate(config) if config.mode.trains else (None, None)
        place.mkdir(parents=True, exist_ok=True)
        with lock.hold(place) as held:
            work = attempt.begin(held, config)
            if work is not None:
                return _do(config, held, work, weights, rows)
        finished = results.read(place)  # done since the first look, or by a start that was killed
    else:
        attempt.tidy(place)
    provenance.check(place, config, finished)
    print(f"{DONE}: {place}\n{describe(finished)}", flush=True)
    ranks.tell("verdict", DONE)
    return supplement.add(config, place, finished, base)


def _do(
    config: Config, held: lock.Hold, work: Path, weights: str | None, rows: str | None
) -> Record:
    """The run itself, made in the folder `work`."""
    ranks.tell("owner", held.token)
    ranks.tell("verdict", str(work))
    with journal.keep(work):
        try:
            if config.mode.trains:
                record = _train(config, held, work, weights, rows)
            else:
                record = _count(config)
            held.check()
            results.write(work, record)
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
    journal.silence()  # the first rank tells
    verdict = ranks.ask("verdict")
    if verdict != DONE:
        work, held = Path(verdict), lock.Hold(place=place, token=ranks.ask("owner"))
        try:
            if config.mode.trains:
                from experiments import trainer

                with ranks.first_alone("prepared"):
                    _, data, net = _prepare(config, *prepared.locate(config))
                trainer.fit(trainer_of(config, net, data, work, held.check))
        except Exception as error:
            if not _fail(held, work, error):
                sys.exit(1)
            raise
        ranks.ask("ended")
    return results.read(place)


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
                results.write_failure(work, error)
        except OSError as trouble:  # a full disk, for one
            held.check()
            log.warning("failure.json cannot be written: %s", trouble)

    if not held.kept:
        ranks.first_to_fail(lambda: None)
        held.check()
    mine = ranks.first_to_fail(record)
    if not ranks.rank() and not goes_on:
        failed = attempt.give_up(held)
        if failed is not None:
            log.warning("the finished run is in its place, the failed one in %s", failed)
    return mine


def _close(config: Config, record: Record | None) -> None:
    """Ends tracking; a service that fails now costs a warning, not the run."""
    try:
        config.tracking.finish(results.finite(record.metrics or {}) if record else None)
    except Exception as error:  # whatever a service's library raises
        log.warning("tracking=%s could not be closed: %s", config.tracking.name, error)


def _train(
    config: Config, held: lock.Hold, work: Path, weights: str | None, rows: str | None
) -> Record:
    began = time.time()
    from experiments import environment, kept, memory, preflight, scoring, trainer

    surroundings = environment.describe()  # of the code that runs, not of what is there in the end
    measured = environment.Memory()
    with ranks.first_alone("prepared"):
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
    config.tracking.start(work, identity, results.plain(config), counts)
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
        config=results.plain(config),
        parameters=counts,
        metrics=metrics,
        adapter=kept.seal(held.shown(work), step),
        preflight=outlook,
        time={"started": stamp(began), "finished": stamp(time.time()), **spent},
        memory=peak,
        environment={
            **surroundings,
            "device": str(fitting.args.device),
            "ranks": ranks.size(),
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
    from experiments import environment

    environment.check_device(config.train)
    config.task.check()
    processor, data = prepared.prepare(config.model, config.task, weights, rows)
    return processor, data, build(config, weights)


def base(config: Config, weights: str | None) -> nn.Module:
    """The base model with a fresh head, drawn from a stream of its own."""
    import torch

    from experiments.streams import stream

    torch.manual_seed(stream(config.seed, "head"))
    return config.model.build(config.task.head, weights, device=config.train.device)


def build(config: Config, weights: str | None) -> nn.Module:
    """The network to train; the adapter is drawn from another stream than the head."""
    import torch

    from experiments.streams import stream

    net = base(config, weights)
    torch.manual_seed(stream(config.seed, "adapter"))
    return config.method.apply(net, config.model.head)


def trainer_of(
    config: Config,
    net: nn.Module,
    data: Data,
    place: Path,
    check: Callable[[], None] = lambda: None,
) -> Trainer:
    """The trainer that a configuration describes, writing into the run folder `place`.

    `check` is called before whatever is written.
    """
    from experiments.tracking import History
    from experiments.trainer import Trainer

    return Trainer(
        net,
        data,
        train=config.train,
        task=config.task,
        method=config.method,
        head=config.model.head,
        run=place,
        history=History(place, config.tracking),
        seed=config.seed,
        check=check,
    )


def _count(config: Config) -> Record:
    began = time.time()
    from experiments import environment, memory

    measured = environment.Memory()
    bare = config.model.build(config.task.head, None, meta=True)
    net = config.method.apply(bare, config.model.head)
    outlook = memory.expected(net, config.model, config.task, None, None)
    if config.task.head.kind != "none":
        log.info("memory expected for one row a step: %s", memory.describe(outlook))
    return Record(
        run=describe_run(config),
        config=results.plain(config),
        parameters=counting(net, config.model.head),
        preflight={"memory": outlook},
        time={"started": stamp(began), "finished": stamp(time.time())},
        memory=measured.peak(),
        environment={**environment.describe(), "inputs": provenance.describe(config)},
    )


def counting(net: Any, head: list[str]) -> dict[str, int]:
    """Trainable and stored numbers of the network, as a record holds them."""
    from fourierft.counting import count

    return results.plain(count(net, head))
