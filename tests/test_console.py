"""Whatever happens to what is printed, the work is done."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TALK = """
import sys
from experiments import console
def main():
    for number in range(5000):
        print(f"line {number}")
        print(f"remark {number}", file=sys.stderr)
    open("done", "w").close()
console.run_command("talk", main, prints={prints})
"""
TOY = ["train.epochs=2", "train.max_steps=4", "train.device=cpu"]


def program(*words, place, **streams):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=place, env=environment, **streams
    )


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_has_seen_enough(tmp_path, both):
    errors = subprocess.STDOUT if both else subprocess.DEVNULL
    script = ["-c", TALK.replace("{prints}", "True")]
    talk = program(*script, place=tmp_path, stdout=subprocess.PIPE, stderr=errors)
    assert talk.stdout.readline().endswith(b" 0\n")
    talk.stdout.close()
    assert talk.wait(60) == 0 and (tmp_path / "done").exists()


@pytest.mark.parametrize("prints", [False, True])
def test_a_full_disk_is_told_once(tmp_path, prints):
    with open("/dev/full", "w") as full:
        script = ["-c", TALK.replace("{prints}", str(prints))]
        talk = program(*script, place=tmp_path, stdout=full, stderr=subprocess.PIPE)
        said = talk.communicate(timeout=60)[1].decode()
    assert talk.returncode == int(prints) and (tmp_path / "done").exists()
    assert said.count("standard output cannot be written (No space left on device)") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_closed_and_full_streams(tmp_path, closed):
    script = TALK.replace("{prints}", "True")
    command = f"exec '{sys.executable}' -c '{script}' {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "done").exists()


def test_a_line_is_written_at_once_where_python_does_not_buffer(tmp_path, monkeypatch):
    """Else lines would come after the bar that they stand above."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    script = "from experiments import console; console.protect_streams(); print(1); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with program("-c", script, place=tmp_path, **pipes) as talk:
        ready = select.select([talk.stdout], [], [], 60)[0]
        talk.communicate(b"\n")
    assert ready


def test_letters_that_a_terminal_lacks():
    script = "from experiments import console; console.protect_streams(); print('n=1…\\udcff')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"n=1\\u2026\\udcff\n"), done.stderr


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        ("UserError('no', ['key'])", 1, "talk: no\n  - key\n"),
        ("KeyboardInterrupt", 130, "talk: interrupted\n"),
        ("PermissionError(13, 'Permission denied', 'out')", 1, "talk: out: Permission denied\n"),
        ("SystemExit(2)", 2, ""),
    ],
)
def test_what_ends_a_command(raised, status, said):
    script = f"""
from experiments import console
from experiments.errors import UserError
def main(): raise {raised}
console.run_command("talk", main)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (status, said)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [[], ["seed=0,1", "-m"]])
@pytest.mark.parametrize("full", [False, True])
def test_training_needs_no_reader(tmp_path, sweep, full):
    with open("/dev/full", "w") as disk:
        words = [ROOT / "train.py", *TOY, f"output={tmp_path}", *sweep]
        stream = disk if full else subprocess.PIPE
        train = program(*words, place=tmp_path, stdout=stream, stderr=subprocess.PIPE)
        if not full:
            assert train.stdout.read(1)
            train.stdout.close()
        said = train.stderr.read().decode()
    assert train.wait(120) == 0, said
    assert len(list(tmp_path.rglob("metrics.json"))) == max(1, len(sweep)) and "Trace" not in said
