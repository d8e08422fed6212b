"""The protocol against a real server: `transformers serve` with a real, tiny language model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from experiments.judge.__main__ import main
from experiments.results.generations import get_path
from tests.test_judge_reading import answer, write_lines

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.fixture
def server(data_folder, tmp_path):
    """Base URL and model name; the model answers with the beginning of a children's story."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    model = tmp_path / "stories"
    shutil.copytree(data_folder / "models" / "stories260K", model)
    settings = model / "tokenizer_config.json"
    settings.chmod(0o644)
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": TEMPLATE}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = "transformers.cli.transformers serve --device cpu --dtype float32 --host 127.0.0.1"
    log = (tmp_path / "server.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", *words.split(), "--port", str(port), str(model)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", str(model)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _await(url, process, log):
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                pytest.fail(f"transformers serve does not answer:\n{log.read()[-2000:]}")
            time.sleep(0.2)


@pytest.mark.slow
def test_a_real_server(server, tmp_path, capsys, monkeypatch):
    """A story is no grade: the replies are kept, the judgements are failures and no number."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url, model = server
    data, run = tmp_path / "data", tmp_path / "run"
    question = {"question_id": 1, "category": "writing", "turns": ["Tell a story.", "Shorter."]}
    write_lines(data / "question.jsonl", [question])
    write_lines(get_path(run, "mt_bench"), [answer(1, "Once upon a time", "Once")])
    words = [
        {"name": name, "system_prompt": "", "prompt_template": template, "type": "single"}
        for name, template in {
            "single-v1": "{question} {answer}",
            "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
            "single-math-v1": "{question} {ref_answer_1} {answer}",
            "single-math-v1-multi-turn": "{question_1} {ref_answer_1} {question_2} {ref_answer_2} "
            "{answer_1} {answer_2}",
        }.items()
    ]
    arguments = [str(run), "--questions", str(data), "--base-url", url, "--model", model]
    arguments += ["--prompts", str(write_lines(tmp_path / "prompts.jsonl", words))]
    arguments += ["--max-tokens", "24", "--attempts", "2", "--name", "stories", "--retries", "1"]
    assert main(arguments) == 1
    lines = [
        json.loads(line)
        for line in (run / "judgements/mt_bench/stories.jsonl").read_text().splitlines()
    ]
    assert sorted((line["turn"], line["attempt"]) for line in lines) == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    for line in lines:
        assert line["rating"] is None and line["reply"].strip()
        assert line["model"]["asked"] == model and line["model"]["reported"]
        assert line["usage"]["completion_tokens"] <= 24 < line["usage"]["total_tokens"]
    found = json.loads((run / "judgements/mt_bench/stories.json").read_text())
    assert (found["judged"], found["failed"], found["scores"]["average"]) == (0, 2, None)
    err = capsys.readouterr().err
    assert "2 judgements failed, no grade in any reply: questions 1; 4 replies were cut" in err
    # What a real server says to a wrong model, as it says it.
    assert main([*arguments, "--model", "no/such-model", "--name", "none"]) == 1
    assert "status 4" in (refused := capsys.readouterr().err) and "are missing" in refused
