"""The judge as a command: what it asks, keeps, resumes and prints, against a scripted server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.judge import endpoint
from experiments.judge.__main__ import main, make_file_name
from experiments.judge.arguments import parse_arguments
from experiments.judge.journal import InUse, Journal
from experiments.results import fastchat
from experiments.results.generations import get_path
from tests.scripted_judge import KEY, Answer, serving
from tests.test_judge_reading import answer, write_lines

ROOT = Path(__file__).resolve().parent.parent
CATEGORIES = {1: "writing", 2: "math", 3: "stem"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses of milliseconds, and a key in the environment."""
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(endpoint, "MAX_PAUSE", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def write_answers(run: Path, suffix: str = "") -> None:
    rows = [answer(number, f"A{number}{suffix}", f"B{number}{suffix}") for number in CATEGORIES]
    write_lines(get_path(run, "mt_bench"), rows)


@pytest.fixture
def folder(tmp_path):
    """Two runs with answers to three questions of two turns: twelve judgements."""
    rows = [
        {"question_id": number, "category": name, "turns": [f"Q{number}", f"R{number}"]}
        for number, name in CATEGORIES.items()
    ]
    write_lines(tmp_path / "data/mt_bench/question.jsonl", rows)
    write_lines(tmp_path / "data/mt_bench/reference_answer/gpt-4.jsonl", [answer(2, "S2", "T2")])
    for name in ("one", "two"):
        write_answers(tmp_path / "outputs" / name, suffix=name)
    return tmp_path


def command(folder: Path, server, *more: str, run: str = "outputs/one") -> list[str]:
    what = ["--all", str(folder / "outputs")] if run == "all" else [str(folder / run)]
    there = ["--base-url", server.url, "--model", "judge", "--questions", str(folder / "data")]
    there += [] if "--prompts" in more else ["--prompts", "ours"]
    return [*what, *there, "--retries", "1", *more]


def lines_of(folder: Path, run: str = "one", name: str = "judge") -> list[dict]:
    path = folder / f"outputs/{run}/judgements/mt_bench/{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def result_of(folder: Path, run: str = "one", name: str = "judge") -> dict | None:
    path = folder / f"outputs/{run}/judgements/mt_bench/{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def by_question(asked, _) -> Answer:
    """Grades that tell which question, turn and run they belong to: 1 to 3, half more for turn 2,
    three more for the second run."""
    text = asked["messages"][-1]["content"]
    number = next(number for number in CATEGORIES if f"Q{number}" in text)
    second_turn, second_run = f"B{number}" in text, f"A{number}two" in text
    return Answer(content=f"[[{number + 0.5 * second_turn + 3 * second_run}]]")


def test_scores(folder, capsys):
    (folder / "outputs/one/metrics.json").write_text("{}")
    with serving(by_question) as server:
        assert main(command(folder, server, "--concurrency", "3", run="all")) == 0
    assert len(server.requests) == 12
    assert {one["temperature"] for one in server.requests} == {0.0}
    assert {one["max_tokens"] for one in server.requests} == {2048}
    found = result_of(folder)
    scores = found["scores"]
    assert scores["average"] == pytest.approx(2.25) and scores["turn_1"] == pytest.approx(2.0)
    assert scores["turn_2"] == pytest.approx(2.5) and scores["spread"] is None
    assert scores["categories"] == pytest.approx({"math": 2.25, "stem": 3.25, "writing": 1.25})
    assert scores["standard_error"] == pytest.approx(1 / 3**0.5)
    assert result_of(folder, "two")["scores"]["average"] == pytest.approx(5.25)
    assert (found["judged"], found["failed"]) == (6, 0)
    assert found["judge"]["reported"] == ["judge-0613"] and found["judge"]["asked"] == "judge"
    assert found["judge"]["hosts"] == [server.url.split("/")[2]]
    assert found["questions"]["source"] == "mt_bench; references: gpt-4"
    assert found["tokens"] == {"prompt_tokens": 600, "completion_tokens": 60}
    assert found["answers"]["models"] == ["m"] and found["prompts"]["source"] == "ours"
    assert found["dates"]["first"] <= found["dates"]["last"]
    assert (folder / "outputs/one/metrics.json").read_text() == "{}"
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith(str(folder / "outputs/one")))
    assert row.split()[1:] == ["mt_bench", "2.25", "2.00", "2.50", "-", "0.58", "6", "0"]
    assert "0.02 to 0.10 (MT-Bench) and 0.03 to 0.17 (Vicuna)" in " ".join(out.split())
    assert "A single repeat does not show the noise of the judge" in out


def test_a_line_holds_all_that_is_known(folder):
    with serving(by_question) as server:
        main(command(folder, server))
    line = next(one for one in lines_of(folder) if one["question_id"] == 2 and one["turn"] == 2)
    assert line["rating"] == 2.5 and line["reply"] == "[[2.5]]" and line["pattern"] == "[[x]]"
    assert line["model"] == {"asked": "judge", "reported": "judge-0613"}
    assert line["prompt"]["name"] == "reference-turn-2" and len(line["prompt"]["hash"]) == 16
    assert line["usage"]["prompt_tokens"] == 100 and line["finish"] == "stop"
    assert line["repeat"] == line["attempt"] == 1 and line["temperature"] == 0
    assert time.strptime(line["date"], "%Y-%m-%dT%H:%M:%S%z")
    assert len(line["answer"]) == len(line["request"]) == 16
    (text,) = [text for text in server.texts if "R2" in text]
    assert all(part in text for part in ("Q2", "A2one", "S2", "B2one", "T2"))


def test_nothing_is_asked_twice(folder):
    with serving(by_question) as server:
        main(command(folder, server))
        before = everything_below(folder)
        assert main(command(folder, server)) == 0
        assert len(server.requests) == 6 and everything_below(folder) == before
        main(command(folder, server, "--repeats", "2"))
        assert len(server.requests) == 12
    assert [line["repeat"] for line in lines_of(folder)] == [1] * 6 + [2] * 6


def test_changed_answers_are_judged_again(folder):
    with serving(by_question) as server:
        main(command(folder, server))
        first = result_of(folder)
        rows = [answer(number, f"A{number}one", f"B{number}one") for number in CATEGORIES]
        rows[1]["choices"][0]["turns"][1] = "B2one, and more"
        write_lines(get_path(folder / "outputs/one", "mt_bench"), rows)
        assert main(command(folder, server)) == 0
    # The first turn of question 2 is the same; only the second is asked again.
    assert len(server.requests) == 7 and "B2one, and more" in server.texts[-1]
    assert len(lines_of(folder)) == 7
    second = result_of(folder)
    assert second["judged"] == 6
    assert first["answers"]["hash"] != second["answers"]["hash"]


@pytest.mark.parametrize(
    "more", [["--temperature", "0.5"], ["--model", "other", "--name", "judge"]]
)
def test_other_requests_do_not_count(folder, more):
    with serving(by_question) as server:
        main(command(folder, server))
        main(command(folder, server, *more))
    assert len(server.requests) == 12 and result_of(folder)["judged"] == 6


def test_temperature_of_the_server_and_newer_names(folder):
    with serving(by_question) as server:
        more = ["--temperature", "server", "--limit-field", "max_completion_tokens"]
        main(command(folder, server, *more, "--max-tokens", "7"))
    assert set(server.requests[0]) == {"model", "messages", "max_completion_tokens"}
    assert server.requests[0]["max_completion_tokens"] == 7


def test_repeats_show_the_noise_of_the_judge(folder, capsys):
    grades = {1: 4.0, 2: 6.0, 3: 5.0}

    def script(asked, number):
        return Answer(content=f"[[{grades[number // 6 + 1]}]]")

    with serving(script) as server:
        more = ["--repeats", "3", "--concurrency", "1"]
        assert main(command(folder, server, *more, "--temperature", "0.7")) == 0
    scores = result_of(folder)["scores"]
    assert scores["repeats"] == [4.0, 6.0, 5.0] and scores["average"] == 5.0
    assert scores["spread"] == pytest.approx(1.0) and scores["standard_error"] == 0.0
    out = capsys.readouterr().out
    assert "± judge" in out and "A single repeat" not in out and "At temperature 0" not in out
    with serving(script) as server:
        main(command(folder, server, *more))
    assert "At temperature 0 repeats are hardly independent" in capsys.readouterr().out


def test_fewer_repeats_do_not_replace_more(folder, capsys):
    with serving(by_question) as server:
        assert main(command(folder, server, "--repeats", "2")) == 0
        more = result_of(folder)
        assert main(command(folder, server)) == 0
        assert result_of(folder) == more and len(more["scores"]["repeats"]) == 2
        assert "not replaced, since it has more repeats" in capsys.readouterr().err
        main(command(folder, server, "--temperature", "0.7"))  # another measurement
        assert len(result_of(folder)["scores"]["repeats"]) == 1


def test_replies_without_a_grade(folder, capsys):
    """Asked again, then kept as failed, never as 0; more attempts ask again."""

    def script(asked, number):
        text = asked["messages"][-1]["content"]
        return Answer(content="Lovely." if "Q2" in text and "R2" not in text else "[[8]]")

    with serving(script) as server:
        assert main(command(folder, server, "--attempts", "2")) == 0
        assert len(server.requests) == 7
        found = result_of(folder)
        assert (found["judged"], found["failed"], found["scores"]["average"]) == (5, 1, 8.0)
        assert found["failures"] == [{"question_id": 2, "turn": 1, "repeat": 1}]
        assert found["scores"]["turn_1"] == 8.0
        captured = capsys.readouterr()
        assert (
            "1 judgements failed, no grade in any reply: questions 2\n" in captured.err
            and "not counted as 0" in captured.out
        )
        main(command(folder, server, "--attempts", "2"))
        assert len(server.requests) == 7
        main(command(folder, server, "--attempts", "3"))
        assert len(server.requests) == 8
    failed = [line for line in lines_of(folder) if line["rating"] is None]
    assert [line["attempt"] for line in failed] == [1, 2, 3] and failed[0]["reply"] == "Lovely."


def test_all_replies_without_a_grade(folder, capsys):
    with serving(Answer(content="no")) as server:
        assert main(command(folder, server, "--attempts", "1")) == 1
    found = result_of(folder)
    assert (found["judged"], found["failed"], found["scores"]["average"]) == (0, 6, None)
    assert " - " in capsys.readouterr().out


def test_the_first_grade_counts(folder):
    """Whatever a second process or a careless copy added."""
    with serving(by_question) as server:
        main(command(folder, server))
        finished = result_of(folder)
        path = folder / "outputs/one/judgements/mt_bench/judge.jsonl"
        more = [{**line, "rating": 10.0} for line in lines_of(folder)]
        with path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in more))
        assert main(command(folder, server)) == 0
    assert len(server.requests) == 6 and result_of(folder)["scores"] == finished["scores"]


def test_a_second_chance(folder):
    seen = set()

    def script(asked, _):
        text = asked["messages"][-1]["content"]
        again = text in seen
        seen.add(text)
        return Answer(content="[[5]]" if again else "between 5 and 6")

    with serving(script) as server:
        assert main(command(folder, server)) == 0
    assert len(server.requests) == 12 and result_of(folder)["failed"] == 0


def test_a_server_that_fails_now_and_then(folder):
    bad = [
        Answer(status=429, headers={"Retry-After": "0.1"}),
        Answer(status=500),
        Answer(drop=True),
        Answer(raw=b"<html>", headers={"Content-Type": "text/html"}),
        Answer(raw=b'{"choices": []}'),
    ]
    turn = iter(range(1000))

    def script(asked, number):
        return bad[next(turn) // 2 % 5] if number % 2 == 0 else by_question(asked, number)

    with serving(script) as server:
        more = ["--concurrency", "1", "--repeats", "2"]
        assert main(command(folder, server, *more)) == 0
    assert result_of(folder)["judged"] == 12 and len(server.requests) == 24


def test_total_failure_keeps_what_is_there(folder, capsys):
    """A server that dies: exit 1, what is missing is said, no result; later only that is asked."""

    def script(asked, number):
        return by_question(asked, number) if number < 4 else Answer(status=503, raw=b"down")

    with serving(script) as server:
        assert main(command(folder, server, "--concurrency", "1", run="all")) == 1
    captured = capsys.readouterr()
    assert "status 503: down" in captured.err and "5 requests in a row failed" in captured.err
    assert "2 judgements are missing: questions 3;" in captured.err
    assert "6 judgements are missing: questions 1-3;" in captured.err
    assert "4 of 6" in captured.out and "incomplete" in captured.out
    assert len(server.requests) == 4 + 5 * 2
    assert len(lines_of(folder)) == 4 and result_of(folder) is None
    with serving(by_question) as server:
        assert main(command(folder, server, run="all")) == 0
    assert len(server.requests) == 8 and result_of(folder)["judged"] == 6


def test_failure_of_more_repeats_leaves_the_finished_result(folder):
    with serving(by_question) as server:
        main(command(folder, server))
    finished = result_of(folder)
    with serving(Answer(status=500)) as server:
        assert main(command(folder, server, "--repeats", "2")) == 1
        assert result_of(folder) == finished
        write_answers(folder / "outputs/one", suffix="one, changed")
        assert main(command(folder, server)) == 1
    assert result_of(folder) is None  # its answers are gone; its judgements are not
    assert len(lines_of(folder)) == 6


def test_a_wrong_key_ends_at_the_first_answer(folder, capsys):
    raw = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with serving(Answer(status=401, raw=raw)) as server:
        assert main(command(folder, server, "--concurrency", "1")) == 1
    assert len(server.requests) == 1
    assert "Incorrect API key provided: ***" in capsys.readouterr().err


def test_one_refused_question_does_not_end_the_others(folder, capsys):
    def script(asked, number):
        if "Q2" in asked["messages"][-1]["content"]:
            return Answer(status=400, raw=b'{"error": {"message": "context too long"}}')
        return by_question(asked, number)

    with serving(script) as server:
        assert main(command(folder, server)) == 1
    assert len(lines_of(folder)) == 4 and len(server.requests) == 6
    err = capsys.readouterr().err
    assert "context too long (2 requests)" in err and "missing: questions 2;" in err


def test_only_failures_in_a_row_end_the_work(folder):
    def script(asked, number):
        return Answer(status=400) if number % 2 else by_question(asked, number)

    with serving(script) as server:
        assert main(command(folder, server, "--concurrency", "1", run="all")) == 1
    assert len(server.requests) == 12
    assert len(lines_of(folder)) + len(lines_of(folder, "two")) == 6


def test_a_run_by_several_names_is_one_run(folder):
    (folder / "outputs/link").symlink_to(folder / "outputs/one")
    with serving(by_question) as server:
        more = [str(folder / "outputs/one"), str(folder / "outputs/two/../one")]
        assert main(command(folder, server, *more, run="outputs/link")) == 0
        assert len(server.requests) == 6


def test_every_run_has_one_judgement_before_any_has_two(folder):
    with serving(by_question) as server:
        more = ["--repeats", "2", "--concurrency", "1"]
        assert main(command(folder, server, *more, run="all")) == 0
    assert len(set(server.texts[:12])) == 12 and len(server.texts) == 24


def test_concurrency_is_real(folder):
    """The server answers once six requests are there."""
    six = threading.Barrier(6)

    def script(asked, number):
        six.wait(30)
        return by_question(asked, number)

    with serving(script) as server:
        assert main(command(folder, server, "--concurrency", "6", run="all")) == 0
    assert server.busiest == 6 and len(server.requests) == 12
    with serving(by_question) as server:
        main(command(folder, server, "--concurrency", "1", "--name", "slow", run="all"))
    assert server.busiest == 1


def test_the_key_is_nowhere(folder, capfd):
    def script(asked, number):
        if number == 0:
            return Answer(status=429, raw=f"slow down, {KEY}".encode())
        if number == 1:
            return Answer(status=400, raw=f"bad {KEY}".encode())
        return Answer(content=f"Bearer {KEY} [[5]]", headers={"X-Key": KEY})

    with serving(script) as server:
        main(command(folder, server))
        main(command(folder, server))
    assert {one["Authorization"] for one in server.headers} == {f"Bearer {KEY}"}
    captured = capfd.readouterr()
    everything = everything_below(folder) + captured.out.encode() + captured.err.encode()
    assert b"Bearer ***" in everything
    assert KEY.encode() not in everything and KEY[:10].encode() not in everything


def test_another_variable_for_the_key(folder, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "another-secret-42\n")
    with serving(by_question) as server:
        main(command(folder, server, "--key-variable", "JUDGE_KEY"))
        assert server.headers[0]["Authorization"] == "Bearer another-secret-42"
        monkeypatch.delenv("JUDGE_KEY")
        main(command(folder, server, "--key-variable", "JUDGE_KEY", "--name", "open"))
    assert "Authorization" not in server.headers[-1]


def test_dry_run_sends_nothing(folder, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    before = sorted(folder.rglob("*"))
    arguments = ["--all", str(folder / "outputs"), "--questions", str(folder / "data")]
    arguments += ["--model", "judge", "--dry-run", "--prompts", "ours"]
    assert main([*arguments, "--price-in", "30", "--price-out", "60"]) == 0
    assert sorted(folder.rglob("*")) == before
    out = capsys.readouterr().out
    assert "requests to send: 12" in out and "at 4 characters per token" in out
    sent = int(out.split("tokens in:")[1].split()[0].replace(",", ""))
    assert f"tokens out: {12 * 2048:,} (upper bound, --max-tokens)" in out
    assert f"cost: {(sent * 30 + 12 * 2048 * 60) / 1e6:.2f} at 30 in and 60 out" in out
    with serving(Answer(content="four words here [[5]]")) as server:  # 21 characters
        main(command(folder, server))
    characters = sum(len(m["content"]) for one in server.requests for m in one["messages"])
    capsys.readouterr()
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "requests to send: 6" in out and "cost" not in out
    assert f"tokens out: {round(6 * 21 / 4)} (as long as the replies so far)" in out
    rest = int(out.split("tokens in:")[1].split()[0].replace(",", ""))
    assert rest + characters / 4 == pytest.approx(sent, abs=1) and "0 of 6" in out


def test_half_a_line_is_done_again(folder, capsys):
    with serving(by_question) as server:
        main(command(folder, server))
        finished = result_of(folder)
        path = folder / "outputs/one/judgements/mt_bench/judge.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-40])
        capsys.readouterr()
        assert main(command(folder, server)) == 0
        assert len(server.requests) == 7 and "1 damaged lines ignored" in capsys.readouterr().err
        assert whole[:-40] in path.read_bytes()
        main(command(folder, server))
        assert len(server.requests) == 7
    assert result_of(folder)["scores"] == finished["scores"]


def start(folder: Path, server, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.judge", *command(folder, server, *more)],
        cwd=ROOT,
        env=os.environ | {"OPENAI_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores interrupts, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_killed_and_resumed(folder):
    """The server answers two requests and is silent on the third when the process is killed."""
    with serving(lambda asked, n: by_question(asked, n) if n < 2 else Answer(delay=3)) as server:
        process = start(folder, server, "--concurrency", "1")
        until(lambda: len(server.requests) == 3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(lines_of(folder)) == 2 and result_of(folder) is None
    stored = set(server.texts[:2])
    with serving(by_question) as server:
        assert main(command(folder, server)) == 0
    assert len(server.requests) == 4 and not stored & set(server.texts)
    assert result_of(folder)["judged"] == 6


def test_interrupted_keeps_what_is_under_way(folder):
    answers = threading.Event()

    def script(asked, number):
        assert number < 2 or answers.wait(30)
        return by_question(asked, number)

    with serving(script) as server:
        process = start(folder, server, "--concurrency", "1")
        until(lambda: len(server.requests) == 3)
        process.send_signal(signal.SIGINT)
        while "finishing the current requests" not in process.stdout.readline():
            assert process.poll() is None
        answers.set()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in out + err
    assert len(lines_of(folder)) == 3 == len(server.requests)
    assert "3 judgements are missing" in err


def test_two_processes_on_the_same_answers(folder):
    """One works, the other says so and sends nothing; the file is whole."""
    answers = threading.Event()

    def script(asked, number):
        assert answers.wait(30)
        return by_question(asked, number)

    with serving(script) as server:
        one = start(folder, server)
        until(lambda: server.requests)
        two = start(folder, server)
        _, refused = two.communicate(timeout=30)
        answers.set()
        one.communicate(timeout=30)
    assert (one.returncode, two.returncode) == (0, 1)
    assert "another process is judging these answers" in refused
    assert len(server.requests) == 6 == len(lines_of(folder))
    assert result_of(folder)["judged"] == 6


def test_two_processes_share_the_runs(folder):
    """What is locked by one is left to it; everything else is done."""
    with Journal(folder / "outputs/two/judgements/mt_bench/judge.jsonl"):
        with pytest.raises(InUse), Journal(folder / "outputs/two/judgements/mt_bench/judge.jsonl"):
            pass
        with serving(by_question) as server:
            assert main(command(folder, server, run="all")) == 1
    assert len(server.requests) == 6 and result_of(folder)["judged"] == 6
    assert result_of(folder, "two") is None


def test_a_full_disk_ends_the_work(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with serving(by_question) as server:
        assert main(command(folder, server, "--concurrency", "1")) == 1
    assert len(server.requests) == 1 and "No space left" in capsys.readouterr().err


def test_everything_wrong_is_said_at_once(folder, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    (folder / "empty").mkdir()
    arguments = [str(folder / "nowhere"), str(folder / "empty"), "--all", str(folder / "empty")]
    arguments += ["--questions", "nope", "--prompts", "nope.jsonl", "--temperature", "hot"]
    arguments += ["--repeats", "0", "--concurrency", "-1", "--retries", "-1", "--timeout", "0"]
    arguments += ["--max-tokens", "0", "--price-in", "3", "--base-url", "https://api.openai.com/v1"]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    for part in (
        "nowhere: no such folder",
        "empty: no answers",
        "no run with answers below it",
        "--questions nope",
        "--prompts nope.jsonl",
        "--temperature hot",
        "--repeats 0",
        "--concurrency -1",
        "--retries -1",
        "--timeout 0",
        "--max-tokens 0",
        "--price-in and --price-out: set both or neither",
        "--model is missing",
        "OPENAI_API_KEY is not set",
    ):
        assert part in err, part


def test_prompts_are_fastchats_or_said_to_be_ours(folder, capsys):
    """Without a file nothing is sent, and where to get it is said; ours are named as ours."""
    with serving(by_question) as server:
        words = command(folder, server)
        place = words.index("--prompts")
        with pytest.raises(SystemExit):
            main(words[:place] + words[place + 2 :])
        err = capsys.readouterr().err
        assert "--prompts is missing: no judge_prompts.jsonl" in err and fastchat.PROMPTS_URL in err
        assert not server.requests
        assert main(words) == 0
    assert "prompts of ours: not FastChat's" in capsys.readouterr().err


def test_a_dry_run_without_answers_says_what_a_run_would_cost(data_folder, tmp_path, capsys):
    given = ["--all", str(tmp_path), "--questions", str(data_folder), "--model", "gpt-4"]
    assert main([*given, "--dry-run", "--price-in", "30", "--price-out", "60"]) == 0
    out = capsys.readouterr().out
    assert "no run below" in out and "task.questions=" in out
    assert "requests to send: 240" in out and "cost: " in out


MAKE = ("make", "-n", "table4", "-o", "install", "QUESTIONS=DATA")


@pytest.mark.parametrize("server", [(), ("JUDGE_URL=http://localhost:8000/v1",)])
def test_make_table4_answers_and_grades(server, tmp_path, monkeypatch):
    """With a judge it asks it, without one it only reckons; both commands are understood."""
    said = subprocess.run([*MAKE, *server], cwd=ROOT, capture_output=True, text=True, check=True)
    line = " ".join(said.stdout.replace("\\\n", " ").split())
    assert 'asked="task.questions=DATA"' in line and "$asked" in line
    words = line.split("-m experiments.judge ")[1].split(";")[0].split("||")[0].split()
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA/judge_prompts.jsonl").touch()
    write_answers(tmp_path / "outputs/one")
    monkeypatch.chdir(tmp_path)
    args = parse_arguments(words)
    assert args.model == "gpt-4" and args.dry_run == (not server)
    assert args.prompts == Path("DATA/judge_prompts.jsonl")
    assert args.base_url == (server[0].removeprefix("JUDGE_URL=") if server else None)
    assert ("nothing was graded" in line) == (not server)


def test_numbers_that_no_machine_serves_are_refused(folder, capsys):
    given = ["--concurrency", "100000", "--repeats", "1000000000", "--attempts", "1000000"]
    with pytest.raises(SystemExit):
        main([str(folder / "outputs/one"), *given])
    err = capsys.readouterr().err
    for part in ("--concurrency 100000: must be at most 256", "--repeats", "--attempts"):
        assert part in err


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "--base-url is missing"),
        ("api.openai.com/v1", "must be http(s)://"),
        ("ftp://api.openai.com", "must be http(s)://"),
        ("https://x:port/v1", "--base-url"),
        ("https://me:hunter2@host/v1", "must not contain a user or password"),
        ("https://host/v1?api-version=hunter2", "must be http(s)://"),
    ],
)
def test_base_urls(folder, capsys, url, part):
    with pytest.raises(SystemExit) as caught:
        main([str(folder / "outputs/one"), "--model", "judge", "--base-url", url])
    assert caught.value.code == 2 and part in capsys.readouterr().err


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ-длинный", "tab\tin"])
def test_odd_keys_are_not_shown(folder, capsys, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SystemExit):
        main(command(folder, type("Server", (), {"url": "https://host/v1"})))
    err = capsys.readouterr().err
    assert "OPENAI_API_KEY: contains a space" in err and key not in err


def test_missing_answers_end_before_anything_is_sent(folder, capsys):
    write_lines(get_path(folder / "outputs/one", "mt_bench"), [answer(2, "A2", "B2")])
    with serving(by_question) as server:
        assert main(command(folder, server, run="all")) == 1
        assert not server.requests and "no answers to 1, 3" in capsys.readouterr().err
        assert main(command(folder, server, "--partial", run="outputs/one")) == 0
    found = result_of(folder)
    assert found["questions"]["unanswered"] == [1, 3] and found["judged"] == 2
    assert "2 questions have no answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        ("gpt-4", "gpt-4"),
        ("gpt-4.1-2025", "gpt-4.1-2025"),
        ("/models/llama/", "models_llama-"),
        ("../../x", "x-"),
        ("", "judge-"),
        ("a" * 300, "a" * 80 + "-"),
    ],
)
def test_file_names(judge, name):
    found = make_file_name(judge)
    assert found.startswith(name) and "/" not in found and len(found) < 100
    assert (found == judge) == (name == judge)


def test_names_that_would_be_equal_are_not():
    assert make_file_name("a/b") != make_file_name("a b")


def test_real_questions_prompts_and_reference_answers(data_folder, tmp_path, capsys):
    """Both benchmarks as published, with FastChat's prompts: 240 judgements of one run."""
    run = tmp_path / "outputs" / "m" / "seed=0"
    for benchmark, place, turns in (("mt_bench", "mt_bench", 2), ("vicuna", "vicuna_bench", 1)):
        lines = (data_folder / place / "question.jsonl").read_text().splitlines()
        ids = [json.loads(line)["question_id"] for line in lines]
        write_lines(get_path(run, benchmark), [answer(i, *["Forty-two."] * turns) for i in ids])
    with serving(Answer(content="Rating: [[4]]")) as server:
        arguments = ["--all", str(tmp_path), "--questions", str(data_folder), "--model", "gpt-4"]
        assert main([*arguments, "--base-url", server.url, "--concurrency", "8"]) == 0
    assert len(server.requests) == 80 * 2 + 80
    with_reference = [text for text in server.texts if "eference" in text.split("[Question]")[-1]]
    assert len(with_reference) >= 30 * 2 + 10
    counts = {
        name: json.loads((run / f"judgements/{name}/gpt-4.json").read_text())
        for name in ("mt_bench", "vicuna")
    }
    assert (counts["mt_bench"]["judged"], counts["vicuna"]["judged"]) == (160, 80)
    for name, one in counts.items():
        assert one["prompts"]["hash"] == fastchat.PROMPTS
        assert one["questions"]["hash"] == fastchat.QUESTIONS[name]
    assert "not FastChat's" not in capsys.readouterr().err
    assert len(counts["mt_bench"]["scores"]["categories"]) == 8
    assert len(counts["vicuna"]["scores"]["categories"]) == 9
    assert counts["vicuna"]["scores"]["turn_2"] is None
    lines = (run / "judgements/mt_bench/gpt-4.jsonl").read_text().splitlines()
    names = [json.loads(line)["prompt"]["name"] for line in lines]
    assert {name: names.count(name) for name in set(names)} == {
        "single-v1": 50,
        "single-v1-multi-turn": 50,
        "single-math-v1": 30,
        "single-math-v1-multi-turn": 30,
    }


def test_help_is_fast_and_shows_examples():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "experiments.judge", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--base-url http://localhost:8000/v1" in done.stdout
    assert time.monotonic() - started < 5


def test_one_reply_that_cannot_be_read_ends_no_judging_and_takes_no_key_along(folder):
    """Nested beyond what a parser reads; then the key, spelled as JSON may."""
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    said = f'{{"choices": [{{"message": {{"content": "[[7]] {spelled}"}}}}], "model": "{spelled}"}}'

    def script(_, number):
        return Answer(raw=b"[" * 100_000 if number < 2 else said.encode())

    with serving(script) as server:
        assert main(command(folder, server, "--retries", "3", "--concurrency", "1")) == 0
    assert len(lines_of(folder)) == 6
    for line in lines_of(folder):
        assert line["reply"] == "[[7]] ***" and KEY not in json.dumps(line)
    assert KEY not in json.dumps(result_of(folder))
