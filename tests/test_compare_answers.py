"""The page of answers: whole, escaped, and honest about what is missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from experiments.commands import compare_answers
from experiments.results import generations
from experiments.results.record import Record, write_record


def line(question, turns, **extra):
    return {
        "question_id": question,
        "answer_id": str(question),
        "model_id": "m",
        "choices": [{"index": 0, "turns": turns}],
        "tstamp": 0.0,
        "category": "math",
        "asked": [f"What is <b>{question}</b>?", "And & why?"],
        "truncated": [False, False],
    } | extra


@pytest.fixture
def finished(tmp_path):
    """Function: method and answers -> folder of a finished run."""

    def made(method, lines, grade=None):
        place = tmp_path / method
        place.mkdir()
        generations.append(generations.get_path(place, "mt_bench"), lines)
        run = {"model": "m", "task": "alpaca", "method": method, "variant": "", "seed": 0}
        counts = {"adapter": 1, "stored_bytes": 4}
        empty = {"time": {}, "memory": {}, "environment": {}}
        write_record(place, Record(run=run, config={}, parameters=counts, **empty))
        if grade is not None:
            folder = place / "judgements/mt_bench"
            folder.mkdir(parents=True)
            (folder / "gpt-4.json").write_text(json.dumps({"scores": {"average": grade}}))
        return place

    return made


def page(tmp_path, *places):
    out = tmp_path / "page.html"
    assert compare_answers.main([*map(str, places), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Raises on tags that do not close as they opened."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_holds_every_answer_beside_the_others(finished, tmp_path):
    one = finished("lora", [line(81, ["four", "because"]), line(82, ["five", "so"])], 4.25)
    two = finished("fourierft", [line(81, ["4", "it is"])])
    text = page(tmp_path, one, two)
    for words in ("four", "because", "it is", "And &amp; why?", "m, lora, seed 0", "4.25"):
        assert words in text
    assert text.count("no answer") == 2, "question 82, both turns"
    assert text.index("question 81") < text.index("question 82")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []


def test_nothing_that_models_write_becomes_markup_or_is_loaded(finished, tmp_path):
    evil = '<script>alert(1)</script><img src="http://x.y/z.png"> & "q"'
    text = page(tmp_path, finished("lora", [line(81, [evil, evil], category="<i>x</i>")]))
    checker = Checker()
    checker.feed(text)
    tags = {tag for tag, _ in checker.found}
    assert not tags & {"script", "img", "link", "i", "iframe"}
    links = [value for _, found in checker.found for key, value in found.items() if key == "href"]
    assert links and all(value.startswith("#") for value in links)
    assert "url(" not in text and "@import" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_what_was_cut_and_what_is_not_judged_is_said(finished, tmp_path):
    text = page(tmp_path, finished("lora", [line(81, ["a", ""], truncated=[False, True])]))
    assert text.count("lost its beginning") == 1
    assert "Not judged yet" in text and text.count("no answer") == 1


def test_page_reads_on_phones_and_in_the_dark(finished, tmp_path):
    text = page(tmp_path, finished("lora", [line(81, ["a", "b"])]))
    assert "width=device-width" in text and "color-scheme: light dark" in text
    assert re.search(r"minmax\(min\(\d+rem, 100%\), 1fr\)", text)


def test_every_run_that_cannot_be_shown_is_named(finished, tmp_path, capsys):
    good = finished("lora", [line(81, ["a", "b"])])
    bare = finished("bare", [])
    generations.get_path(bare, "mt_bench").unlink()
    out = tmp_path / "page.html"
    code = compare_answers.main([str(good), str(bare), str(tmp_path / "none"), "--out", str(out)])
    told = capsys.readouterr().err
    assert code == 1 and not out.exists()
    assert f"{bare}: no answers" in told
    assert f"{tmp_path / 'none'}: no metrics.json, not a finished run" in told


def test_damaged_judgements_are_named(finished, tmp_path, capsys):
    place = finished("lora", [line(81, ["a", "b"])], 5.0)
    (place / "judgements/mt_bench/gpt-4.json").write_text("{}")
    assert compare_answers.main([str(place), "--out", str(tmp_path / "page.html")]) == 1
    assert "gpt-4.json: damaged judgements" in capsys.readouterr().err


def test_damaged_answers_are_named_and_left_out(finished, tmp_path, capsys):
    lines = [line(81, ["a", "b"]), line(82, ["c"]) | {"choices": []}, {"choices": []}]
    place = finished("lora", lines)
    with generations.get_path(place, "mt_bench").open("a") as file:
        file.write("{oops\n")
    text = page(tmp_path, place)
    told = capsys.readouterr().err
    assert "question 81" in text and "question 82" not in text
    assert "question 82; left out" in told and "line 4: damaged" in told


def test_halves_of_characters_and_other_types_stop_nothing(tmp_path, finished, capsys):
    lines = [
        line(1, ["half \ud83d of one", "b"]),
        line(2, ["a"], truncated=1),
        line(3, ["a"], asked="text"),
        line(4, ["a"], category=["math"]),
        line("5", ["a"]),
    ]
    place = finished("lora", lines[1:])
    path = generations.get_path(place, "mt_bench")
    with path.open("a") as file:
        file.write(json.dumps(lines[0]) + "\n" + "[" * 100_000 + "\n")
    text = page(tmp_path, place)
    assert "half \\ud83d of one" in text
    assert capsys.readouterr().err.count("; left out") == 5
