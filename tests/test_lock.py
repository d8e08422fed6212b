"""One run folder, one run at a time: with real processes, kills and races."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.errors import RecordError
from experiments.results import lock

ROOT = Path(__file__).resolve().parent.parent

OWNER = """
import sys, time
from pathlib import Path
from experiments.results import lock
with lock.acquire_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

# Takes the lock at the time given, says so, and keeps it until told to end.
RACER = """
import sys, time
from pathlib import Path
from experiments.results import lock
from experiments.errors import RecordError
for line in sys.stdin:
    folder, start = line.split()
    while time.time() < float(start):
        pass
    try:
        with lock.acquire_lock(Path(folder)):
            print("held", flush=True)
            sys.stdin.readline()
    except RecordError:
        print("refused", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
"""


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def owner(tmp_path):
    """A living process that holds the lock of `tmp_path`."""
    process = python(OWNER, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def foreign(folder, age, machine="elsewhere", **changes):
    """A lock of another machine whose last heartbeat was `age` seconds ago."""
    path = folder / lock.LOCK
    owner = {"token": "theirs", **lock._describe_process(), "host": "far", "machine": machine}
    path.write_text(json.dumps(owner | changes))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_lock_says_who_and_goes_at_the_end(tmp_path):
    with lock.acquire_lock(tmp_path):
        held = json.loads((tmp_path / lock.LOCK).read_text())
        assert held["pid"] == os.getpid()
        assert os.listdir(tmp_path) == [lock.LOCK]
    assert os.listdir(tmp_path) == []


def test_lock_goes_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.acquire_lock(tmp_path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_second_holder_is_refused_while_the_first_lives(tmp_path, owner):
    before = (tmp_path / lock.LOCK).read_bytes()
    with pytest.raises(RecordError) as caught, lock.acquire_lock(tmp_path):
        pytest.fail("two holders")
    assert str(tmp_path) in str(caught.value) and f"process {owner.pid}" in str(caught.value)
    assert (tmp_path / lock.LOCK).read_bytes() == before
    assert os.listdir(tmp_path) == [lock.LOCK]


def test_second_holder_in_the_same_process_is_refused(tmp_path):
    with lock.acquire_lock(tmp_path), pytest.raises(RecordError), lock.acquire_lock(tmp_path):
        pytest.fail("two holders")


def test_killed_owner_is_replaced_at_once(tmp_path, owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (tmp_path / lock.LOCK).exists()
    began = time.monotonic()
    with lock.acquire_lock(tmp_path):
        assert json.loads((tmp_path / lock.LOCK).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 2
    assert os.listdir(tmp_path) == []


def test_reused_process_number_is_not_the_owner(tmp_path):
    """This process has the lock's number, but started at another time."""
    foreign(tmp_path, 0, machine=lock._describe_process()["machine"], started="1")
    with lock.acquire_lock(tmp_path):
        pass


def test_foreign_owner_is_believed_until_its_heartbeat_stops(tmp_path):
    path = foreign(tmp_path, lock.STALE_SECONDS - 20)
    with pytest.raises(RecordError, match="host far"), lock.acquire_lock(tmp_path):
        pytest.fail("taken from a living owner")
    assert json.loads(path.read_text())["token"] == "theirs"
    foreign(tmp_path, lock.STALE_SECONDS + 20)
    with lock.acquire_lock(tmp_path):
        assert json.loads(path.read_text())["token"] != "theirs"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", '{"token": "th', "[]"])
def test_damaged_lock_ages_like_a_foreign_one(tmp_path, content):
    path = foreign(tmp_path, 0)
    path.write_text(content)
    with pytest.raises(RecordError), lock.acquire_lock(tmp_path):
        pytest.fail("taken while fresh")
    then = time.time() - lock.STALE_SECONDS - 20
    os.utime(path, (then, then))
    with lock.acquire_lock(tmp_path):
        pass


def test_heartbeat_keeps_the_lock_young(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    path = tmp_path / lock.LOCK
    with lock.acquire_lock(tmp_path):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < deadline, "no heartbeat"
            time.sleep(0.02)
    time.sleep(0.2)
    assert not path.exists(), "the heartbeat goes on after the end"


def test_lock_of_somebody_else_stays(tmp_path, monkeypatch):
    """Who slept so long that another took over neither removes nor refreshes that lock."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with lock.acquire_lock(tmp_path):
        path = tmp_path / lock.LOCK
        path.unlink()
        foreign(tmp_path, 1000)
        time.sleep(0.3)
        assert path.stat().st_mtime < time.time() - 900
    assert json.loads(path.read_text())["token"] == "theirs"


def test_taker_that_died_on_the_way_blocks_nobody(tmp_path):
    foreign(tmp_path, 1000)
    claim = tmp_path / f".{lock.LOCK}.heir"
    (tmp_path / lock.LOCK).rename(claim)
    foreign(tmp_path, 1000)
    with lock.acquire_lock(tmp_path):
        assert not claim.exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_of_processes_racing_for_a_stale_lock_one_gets_it(tmp_path):
    racers = [python(RACER, stdin=subprocess.PIPE) for _ in range(4)]
    try:
        for round_ in range(12):
            folder = tmp_path / f"round{round_}"
            folder.mkdir()
            foreign(folder, 1000)
            start = time.time() + (1.5 if round_ == 0 else 0.05)
            for racer in racers:
                racer.stdin.write(f"{folder} {start}\n")
                racer.stdin.flush()
            answers = [racer.stdout.readline().strip() for racer in racers]
            assert sorted(answers) == ["held", "refused", "refused", "refused"]
            assert os.listdir(folder) == [lock.LOCK]
            for racer in racers:
                racer.stdin.write("end\n")
                racer.stdin.flush()
            assert [racer.stdout.readline() for racer in racers] == ["done\n"] * 4
            assert os.listdir(folder) == []
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()


def test_a_process_that_lost_its_lock_is_told(tmp_path):
    with lock.acquire_lock(tmp_path) as held:
        held.check()
        owner = json.loads((tmp_path / lock.LOCK).read_text())
        (tmp_path / lock.LOCK).write_text(json.dumps(owner | {"token": "another"}))
        with pytest.raises(RecordError, match="took over this folder"):
            held.check()
