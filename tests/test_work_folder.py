"""The folder of a run while it is made: what is continued, moved aside, put in its place; and kills
between any two steps of that."""

import copy
import json
import os
from pathlib import Path

import pytest
import yaml

from experiments.errors import Lost, RecordError
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.lock import LOCK, acquire_lock
from experiments.results.record import Record, read_record, write_failure, write_record
from experiments.run import work_folder


@pytest.fixture
def config(compose, tmp_path):
    return compose([f"output={tmp_path}"])


def changed(config, **values):
    config = copy.deepcopy(config)
    for key, value in values.items():
        path, _, name = key.rpartition("__")
        setattr(getattr(config, path) if path else config, name, value)
    return config


def record(config, value=0.5):
    return Record(
        run={"model": "mlp", "task": "toy", "method": "fourierft"},
        config=to_plain(config),
        parameters={"adapter": 1, "head": 0, "base": 2, "stored_bytes": 4},
        metrics={"primary": {"value": value}},
        time={},
        memory={},
        environment={},
    )


def fill(folder, config, text="old"):
    """What a run leaves, without its record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    (folder / "history.jsonl").write_text(f'"{text}"\n')
    (folder / "run.log").write_text(text)
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "weights").write_text(text)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "state").write_text(text)


@pytest.fixture
def unfinished(config):
    folder = get_run_dir(config)
    fill(folder, config)
    return folder


@pytest.fixture
def place(unfinished, config):
    """A finished run."""
    (unfinished / "checkpoints" / "state").unlink()
    (unfinished / "checkpoints").rmdir()
    write_record(unfinished, record(config))
    return unfinished


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and LOCK not in path.name
    }


def begin(place, config):
    """What `prepare` returns, as a path that stays valid; None for the record of a finished run."""
    with acquire_lock(place) as held:
        work = work_folder.prepare(held, config)
        return held.get_visible_path(work) if isinstance(work, Path) else None


def beside(place):
    return sorted(item.name for item in place.parent.iterdir() if item != place)


def repeat(place, config, text="new", value=0.75):
    """A whole repetition by `force`."""
    with acquire_lock(place) as held:
        work = work_folder.prepare(held, config)
        fill(work, config, text)
        write_record(work, record(config, value))
        return work_folder.complete_repetition(held)


def test_a_killed_run_is_continued_by_itself(unfinished, config):
    before = contents(unfinished)
    assert begin(unfinished, config) == unfinished
    assert contents(unfinished).keys() == before.keys() and beside(unfinished) == []


def test_a_failed_run_is_continued_by_itself(unfinished, config):
    write_failure(unfinished, RuntimeError("out of memory"))
    assert begin(unfinished, config) == unfinished
    assert not (unfinished / "failure.json").exists()
    assert (unfinished / "checkpoints" / "state").exists()


def test_a_failed_run_of_another_configuration_is_moved_aside(unfinished, config):
    """Its checkpoints would otherwise be taken for ours."""
    write_failure(unfinished, RuntimeError("out of memory"))
    before = contents(unfinished)
    assert begin(unfinished, changed(config, method__n=5)) == unfinished
    assert set(contents(unfinished)) == {"config.yaml"}
    assert contents(unfinished.with_name("seed=0.replaced-1")) == before


def test_an_unfinished_run_of_another_configuration_is_refused(unfinished, config):
    before = contents(unfinished)
    with pytest.raises(RecordError, match="unfinished"):
        begin(unfinished, changed(config, method__n=5))
    assert contents(unfinished) == before


def test_a_kill_while_the_configuration_was_written_left_nothing_to_keep(tmp_path, config):
    place = tmp_path / "runs" / "seed=0"
    place.mkdir(parents=True)
    (place / ".config.yaml.tmp").write_text("mode: tr")
    begin(place, config)
    assert set(contents(place)) == {"config.yaml"} and beside(place) == []


def test_what_has_no_configuration_is_nobodys(unfinished, config):
    (unfinished / "config.yaml").unlink()
    begin(unfinished, config)
    assert set(contents(unfinished)) == {"config.yaml"}
    assert "checkpoints/state" in contents(unfinished.with_name("seed=0.replaced-1"))


def test_a_run_that_was_finished_meanwhile_is_not_begun(place, config):
    before = contents(place)
    assert begin(place, config) is None
    assert contents(place) == before


def test_a_forced_run_leaves_the_finished_one_in_place_until_it_is_whole(place, config):
    forced = changed(config, force=True, method__n=5)
    before = contents(place)
    assert begin(place, forced) == place / "repetition"
    kept = {
        name: text for name, text in contents(place).items() if not name.startswith("repetition/")
    }
    assert kept == before and read_record(place) == record(config)

    assert repeat(place, forced) == place.with_name("seed=0.replaced-1")
    assert contents(place.with_name("seed=0.replaced-1")) == before
    assert read_record(place) == record(forced, 0.75)
    names = {"metrics.json", "config.yaml", "history.jsonl", "adapter", "run.log"}
    assert {item.name for item in place.iterdir()} == names
    repeat(place, forced, "newer", 1.0)
    assert read_record(place.with_name("seed=0.replaced-2")) == record(forced, 0.75)
    assert contents(place.with_name("seed=0.replaced-1")) == before


def test_a_killed_repetition_is_continued_by_the_same_command(place, config):
    forced = changed(config, force=True)
    for _ in range(3):
        work = begin(place, forced)
        fill(work, forced, "new")
    assert (work / "checkpoints" / "state").read_text() == "new"
    assert beside(place) == []
    assert begin(place, changed(config, force=True, method__n=5)) == work
    assert set(contents(work)) == {"config.yaml"}, "another repetition than that"
    assert beside(place) == ["seed=0.replaced-1"]


def test_a_killed_forced_run_where_nothing_was_finished_is_continued_as_well(unfinished, config):
    forced = changed(config, force=True)
    assert begin(unfinished, forced) == unfinished
    assert beside(unfinished) == ["seed=0.replaced-1"], "another's beginning is not continued"
    fill(unfinished, forced, "new")
    for _ in range(3):
        begin(unfinished, forced)
    assert (unfinished / "checkpoints" / "state").read_text() == "new"
    assert beside(unfinished) == ["seed=0.replaced-1"]
    write_failure(unfinished, RuntimeError("out of memory"))
    begin(unfinished, forced)
    assert beside(unfinished) == ["seed=0.replaced-1", "seed=0.replaced-2"]


def test_a_repetition_that_fails_goes_beside(place, config):
    before = contents(place)
    with acquire_lock(place) as held:
        work = work_folder.prepare(held, changed(config, force=True))
        write_failure(work, RuntimeError("out of memory"))
        assert work_folder.abandon_repetition(held) == place.with_name("seed=0.failed-1")
        assert work_folder.abandon_repetition(held) is None
    assert contents(place) == before
    assert "failure.json" in contents(place.with_name("seed=0.failed-1"))


def test_a_whole_repetition_of_another_setting_is_not_the_answer(place, config):
    """It was killed on its last steps; what is asked for now is another run."""
    forced = changed(config, force=True)
    with acquire_lock(place) as held:
        work = work_folder.prepare(held, forced)
        fill(work, forced, "new")
        write_record(work, record(forced, 0.75))
    assert begin(place, changed(config, force=True, method__n=5)) == place / "repetition"
    assert read_record(place) == record(forced, 0.75)


def test_force_in_an_empty_folder_moves_nothing(tmp_path, config):
    place = tmp_path / "runs" / "seed=0"
    place.mkdir(parents=True)
    begin(place, changed(config, force=True))
    assert beside(place) == []


class Killed(BaseException):
    pass


def test_a_kill_between_any_two_steps_of_a_repetition_is_completed(config, tmp_path, monkeypatch):
    """Every rename and removal is once the last that is done."""
    forced, step, limit = changed(config, force=True), 0, -1

    def counting(function):
        def counted(*args, **options):
            nonlocal step
            step += 1
            if limit >= 0 and step > limit:
                raise Killed
            return function(*args, **options)

        return counted

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    ends = []
    for stop in range(40):
        place = tmp_path / f"kill{stop}" / "seed=0"
        fill(place, config)
        write_record(place, record(config))
        work_folder.remove_temporary(place)
        before = contents(place)
        with acquire_lock(place) as held:
            work = work_folder.prepare(held, forced)
            fill(work, forced, "new")
            write_record(work, record(forced, 0.75))
            step, limit = 0, stop
            killed = False
            try:
                work_folder.complete_repetition(held)
                ends.append(stop)
            except Killed:
                killed = True
            limit = -1
        assert not killed or begin(place, forced) is None, f"after {stop} steps"
        work_folder.clean_finished(place)
        assert contents(place.with_name("seed=0.replaced-1")) == before
        assert beside(place) == ["seed=0.replaced-1"]
        assert read_record(place) == record(forced, 0.75)
        assert (place / "adapter" / "weights").read_text() == "new"
        assert not (place / "repetition").exists() and not (place / "checkpoints").exists()
    assert 5 < min(ends) < 35, "some were interrupted, some not"


def test_what_a_killed_finish_left_is_cleared(place, config):
    (place / "checkpoints").mkdir()
    (place / LOCK).write_text(json.dumps({"token": "0" * 32}))
    os.utime(place / LOCK, (1, 1))
    (place / f".{LOCK}.{'1' * 32}").write_text("")
    (place / ".adapter.tmp").mkdir()
    place.with_name(f".seed=0.{'0' * 32}").symlink_to("seed=0")
    work_folder.clean_finished(place)
    names = {"metrics.json", "config.yaml", "history.jsonl", "adapter", "run.log"}
    assert {item.name for item in place.iterdir()} == names and beside(place) == []


def test_a_link_that_a_kill_left_alone_is_cleared(place, config):
    """The lock goes first, so a kill may leave nothing else."""
    work_folder.clean_finished(place)
    place.with_name(f".seed=0.{'0' * 32}").symlink_to("seed=0")
    work_folder.clean_finished(place)
    assert beside(place) == []


def test_nothing_is_cleared_while_another_is_at_work(place, config):
    (place / "checkpoints").mkdir()
    with acquire_lock(place):
        work_folder.clean_finished(place)
        assert (place / "checkpoints").is_dir()


def test_who_lost_the_folder_reaches_nothing_in_it(place, config):
    """Whatever it does, whenever it wakes: its way there is gone."""
    with acquire_lock(place) as held:
        work = work_folder.prepare(held, changed(config, force=True))
        log = (work / "run.log").open("a")
        (place / LOCK).unlink()
        with acquire_lock(place) as heir:
            theirs = work_folder.prepare(heir, changed(config, force=True))
            before = contents(place)
            log.write("late")
            log.close()
            with pytest.raises(Lost):
                held.check()
            for act in (
                lambda: write_record(work, record(config)),
                lambda: write_failure(work, ValueError()),
                lambda: (
                    work_folder.abandon_repetition(held) and None or (_ for _ in ()).throw(OSError)
                ),
                lambda: (work / "new").mkdir(),
            ):
                with pytest.raises(OSError):
                    act()
            work_folder.complete_repetition(held)
            assert contents(place) == before and theirs != work
        assert beside(place) == []
