"""Stored texts: appended, read, and whole again after a kill."""

import json

import pytest

from experiments.errors import RecordError
from experiments.results import generations

LINES = [{"id": 0, "text": "größe\nnext"}, {"id": 1, "text": ""}, {"id": 2, "text": '"'}]


def test_path(tmp_path):
    assert generations.get_path(tmp_path, "test") == tmp_path / "generations" / "test.jsonl"


def test_what_is_appended_is_read_in_order(tmp_path):
    path = generations.get_path(tmp_path, "test")
    assert generations.read(path) == []
    generations.append(path, LINES[:1])
    generations.append(path, [])
    generations.append(path, LINES[1:])
    assert generations.read(path) == LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3, "a line holds a line break"


@pytest.mark.parametrize("left", ["{", '{"id": 3, "text": "ab', '{"id": 3, "text": "ab"}'])
def test_a_half_line_is_passed_over_and_cut_off(tmp_path, left):
    """Also where it would parse: without its end the write was not finished."""
    path = tmp_path / "test.jsonl"
    generations.append(path, LINES)
    with path.open("a", encoding="utf-8") as file:
        file.write(left)
    assert generations.read(path) == LINES
    generations.append(path, [{"id": 4}])
    assert generations.read(path) == [*LINES, {"id": 4}]
    assert left not in path.read_text(encoding="utf-8").splitlines()


def test_a_kill_within_the_first_line(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"id"', encoding="utf-8")
    assert generations.read(path) == []
    generations.append(path, LINES)
    assert generations.read(path) == LINES


@pytest.mark.parametrize("damage", ["{half\n", "[1, 2]\n", "\n"])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + damage, encoding="utf-8")
    with pytest.raises(RecordError, match=r"test\.jsonl, line 2: damaged"):
        generations.read(path)
