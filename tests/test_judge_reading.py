"""What the judge reads: questions, answers, prompts and its own grades."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from experiments.errors import DataError, HubUnavailable
from experiments.judge import benchmark_runs, prompts
from experiments.judge.prompts import load_prompts
from experiments.judge.questions import format_ranges, load_questions
from experiments.judge.scores import find_rating
from experiments.results.fastchat import BENCHMARKS
from experiments.results.generations import get_path


def write_lines(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(number: int, *turns: str, model: str = "m") -> dict:
    """An answer in FastChat's format."""
    return {
        "question_id": number,
        "answer_id": f"a{number}",
        "model_id": model,
        "choices": [{"index": 0, "turns": list(turns)}],
        "tstamp": 0.0,
    }


@pytest.mark.parametrize(
    ("reply", "rating", "pattern"),
    [
        ("Good.\n[[7]]", 7, "[[x]]"),
        ("Rating: [[7.5]]", 7.5, "[[x]]"),
        ("[[ 10 ]]", 10, "[[x]]"),
        ("[[1]] I said [[1]]", 1, "[[x]]"),
        ("I give it [8]", 8, "[x]"),
        ("The list[2] is wrong. [[4]]", 4, "[[x]]"),
        ("<think>[[3]]? No.</think>[[9]]", 9, "[[x]]"),
        ("[[0]]", None, None),
        ("[[11]]", None, None),
        ("[[-3]]", None, None),
        ("[[3]] for style, [[8]] for content", None, None),
        ("[[ 11 ]], or [5]", None, None),
        ("as in row[1] and row[2]", None, None),
        ("[[rating]]", None, None),
        ("[[7/10]]", None, None),
        ("7 of 10", None, None),
        ("", None, None),
    ],
)
def test_grades(reply, rating, pattern):
    assert find_rating(reply) == (rating, pattern)


@pytest.mark.parametrize(
    ("ids", "text"), [([], ""), ([5], "5"), ([83, 81, 82, 90, 92, 93], "81-83, 90, 92-93")]
)
def test_ranges(ids, text):
    assert format_ranges(ids) == text


# Real files


def test_mt_bench_as_published(data_folder):
    known = load_questions("mt_bench", data_folder)
    assert list(known.by_id) == list(range(81, 161))
    assert {len(one.turns) for one in known.by_id.values()} == {2}
    with_reference = [one.id for one in known.by_id.values() if one.reference]
    assert with_reference == list(range(101, 131)) and not known.without_reference
    assert known.by_id[101].reference[0].startswith("If you have just overtaken")
    assert known.source == "mt_bench; references: gpt-4"
    assert known == load_questions("mt_bench", data_folder / "mt_bench")


def test_vicuna_as_published(data_folder):
    known = load_questions("vicuna", data_folder)
    assert list(known.by_id) == list(range(1, 81))
    assert [one.id for one in known.by_id.values() if one.reference] == list(range(61, 71))
    assert {len(one.turns) for one in known.by_id.values()} == {1}


def test_own_references_without_reference_answers(data_folder, tmp_path):
    """question.jsonl alone: its own short references, four of them missing or cut."""
    (tmp_path / "question.jsonl").symlink_to(data_folder / "mt_bench" / "question.jsonl")
    known = load_questions("mt_bench", tmp_path)
    assert known.without_reference == [103, 108, 110, 123]
    assert known.by_id[101].reference == ("You are in second place.", "Uncertain.")
    assert known.by_id[81].reference is None and known.by_id[131].reference is None


@pytest.mark.parametrize("whose", ["ours", "fastchat"])
def test_prompts_fill_in_real_questions(data_folder, whose):
    words = load_prompts(data_folder / "judge_prompts.jsonl" if whose == "fastchat" else None)
    for benchmark in BENCHMARKS:
        for one in load_questions(benchmark, data_folder).by_id.values():
            for turn in range(1, len(one.turns) + 1):
                given = [f"{{answer}} {number}" for number in range(turn)]
                references = one.reference and one.reference[:turn]
                _, (system, user) = words.format_messages(one.turns[:turn], given, references)
                shown = [*one.turns[:turn], *given, *(references or ())]
                assert all(text in user["content"] for text in shown)
                assert not {"{question", "{ref_answer"} & set(user["content"].split("\n"))
                if turn < len(one.turns):
                    assert one.turns[turn] not in user["content"]
                assert "[[" in user["content"] + system["content"]


def test_our_prompts_ask_for_what_is_parsed():
    words = load_prompts()
    assert set(words.kinds) == set(prompts.FIELDS) and words.source == "ours"
    assert len({one.hash for one in words.kinds.values()}) == 4
    for kind, one in words.kinds.items():
        assert not prompts._check_placeholders(
            next(name for name, known in prompts.FASTCHAT_KINDS.items() if known == kind),
            one.template,
        )
        assert "from 1" in one.template and "to 10" in one.template
        # A judge that quotes its instructions has not graded yet.
        assert find_rating(one.template) == (None, None)


def test_fastchat_prompts_of_other_kinds_are_left_alone(data_folder):
    words = load_prompts(data_folder / "judge_prompts.jsonl")
    assert sorted(one.name for one in words.kinds.values()) == sorted(prompts.FASTCHAT_KINDS)
    assert words.source == "judge_prompts.jsonl"


def test_prompt_file_problems_come_at_once(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"name": "single-v1", "prompt_template": "{question} {anser}"},
        {"name": "single-math-v1", "prompt_template": 3},
        {"name": "single-v1-multi-turn", "prompt_template": "{"},
    ]
    path.write_text("nonsense\n" + "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        load_prompts(path)
    text = str(caught.value)
    for part in (
        "line 1: not JSON",
        "single-v1: prompt_template misses {answer}",
        "unknown placeholder {anser}",
        "single-math-v1: prompt_template (and system_prompt) must be a string",
        "single-v1-multi-turn: prompt_template is not a valid template",
        "missing prompts: single-math-v1-multi-turn",
    ):
        assert part in text


# What is wrong with questions and answers


def test_damaged_questions_come_at_once(tmp_path):
    (tmp_path / "question.jsonl").write_text(
        '{"question_id": 1, "category": "writing", "turns": ["a"]}\n'
        "half a li\n"
        '{"question_id": 1, "category": "writing", "turns": ["a"]}\n'
        '{"question_id": 2, "category": "writing", "turns": ["a", "b", "c"]}\n'
        '{"category": "writing", "turns": ["a"]}\n'
    )
    for name in ("gpt-4", "other"):
        write_lines(tmp_path / "reference_answer" / f"{name}.jsonl", [answer(1, "r")])
    with pytest.raises(DataError) as caught:
        load_questions("vicuna", tmp_path)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for part in (
        "line 2",
        "duplicate question_id 1",
        "question 2 needs",
        "line 5",
        "gpt-4.jsonl, oth",
    ):
        assert part in problems


def test_no_questions_in_the_folder(tmp_path):
    with pytest.raises(DataError, match="fastchat/llm_judge/data"):
        load_questions("mt_bench", tmp_path)


def test_vicuna_needs_a_folder():
    with pytest.raises(DataError, match="vicuna_bench/ in fastchat/llm_judge/data.*--questions"):
        load_questions("vicuna", None)


def test_mt_bench_from_the_cache(data_folder, tmp_path, monkeypatch):
    """As `hf download HuggingFaceH4/mt_bench_prompts --repo-type dataset` leaves it: the turns are
    called `prompt`, and four questions have no reference answer."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        HubUnavailable, match="hf download HuggingFaceH4/mt_bench_prompts --repo-ty"
    ):
        load_questions("mt_bench", None)
    place = tmp_path / "datasets--HuggingFaceH4--mt_bench_prompts"
    lines = (data_folder / "mt_bench" / "question.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    write_lines(
        place / "snapshots" / ("a" * 40) / "raw" / "question.jsonl",
        [{"prompt": row.pop("turns"), **row} for row in rows],
    )
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    known = load_questions("mt_bench", None)
    assert len(known.by_id) == 80 and known.without_reference == [103, 108, 110, 123]
    assert (
        known.source == "HuggingFaceH4/mt_bench_prompts on the hub; references: the questions' own"
    )


@pytest.fixture
def known(tmp_path):
    """Three questions, the middle one with a reference."""
    rows = [
        {"question_id": 1, "category": "writing", "turns": ["w1", "w2"]},
        {"question_id": 2, "category": "math", "turns": ["m1", "m2"]},
        {"question_id": 3, "category": "stem", "turns": ["s1", "s2"]},
    ]
    write_lines(tmp_path / "q" / "question.jsonl", rows)
    write_lines(tmp_path / "q" / "reference_answer" / "gpt-4.jsonl", [answer(2, "r1", "r2")])
    return {"mt_bench": load_questions("mt_bench", tmp_path / "q")}


def test_all_that_does_not_fit_comes_at_once(known, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_lines(get_path(one, "mt_bench"), [answer(1, "a", "b"), answer(9, "a", "b")])
    path = write_lines(get_path(two, "mt_bench"), [answer(1, "a"), answer(2, "a", "b")])
    with path.open("a") as file:
        file.write('{"question_id": 3, "choic')
    with pytest.raises(DataError) as caught:
        benchmark_runs.read_runs([one, two], known, load_prompts())
    first, second = answers = [str(get_path(run, "mt_bench")) for run in (one, two)]
    assert caught.value.problems == [
        f"{first}: answers to 9, not among the questions of q; references: gpt-4",
        f"{first}: no answers to 2-3 (--partial judges the others)",
        f"{second}: line 3 is not a JSON object with an integer question_id",
        f"{second}: not one answer per turn of 1",
        f"{second}: no answers to 3 (--partial judges the others)",
    ], answers


def test_partial(known, tmp_path):
    write_lines(get_path(tmp_path, "mt_bench"), [answer(2, "a", "b")])
    (run,) = benchmark_runs.read_runs([tmp_path], known, load_prompts(), partial=True, repeats=2)
    assert [(one.question, one.turn, one.repeat) for one in run.judgements] == [
        (2, 1, 1),
        (2, 2, 1),
        (2, 1, 2),
        (2, 2, 2),
    ]
    assert run.unanswered == [1, 3]
    assert [one.prompt["name"] for one in run.judgements[:2]] == ["reference", "reference-turn-2"]


def test_second_turn_sees_the_conversation_and_the_first_does_not(known, tmp_path):
    rows = [answer(number, f"first {number}", f"second {number}") for number in (1, 2, 3)]
    write_lines(get_path(tmp_path, "mt_bench"), rows)
    (run,) = benchmark_runs.read_runs([tmp_path], known, load_prompts())
    shown = {(one.question, one.turn): one.messages[-1]["content"] for one in run.judgements}
    assert "first 2" in shown[2, 1] and "r1" in shown[2, 1]
    assert not any(text in shown[2, 1] for text in ("second 2", "m2", "r2"))
    assert all(text in shown[2, 2] for text in ("m1", "first 2", "r1", "m2", "second 2", "r2"))
    assert all(text in shown[1, 2] for text in ("w1", "first 1", "w2", "second 1"))


def test_requests_differ_with_all_that_moves_a_grade(known, tmp_path):
    def request(second="b", model="j", temperature=0.0, words=None, turn=2):
        write_lines(get_path(tmp_path, "mt_bench"), [answer(2, "a", second)])
        (run,) = benchmark_runs.read_runs([tmp_path], known, words or load_prompts(), partial=True)
        return run.judgements[turn - 1].hash_request(model, temperature)

    other = load_prompts()
    other.kinds[True, 2] = prompts.Prompt(name="x", system="", template="{question_1}")
    asked = [
        request(),
        request("B"),
        request(model="k"),
        request(temperature=None),
        request(words=other),
    ]
    assert len(set(asked)) == 5 and request() == asked[0]
    # A new second answer leaves the first turn's judgement alone.
    assert request(turn=1) == request("B", turn=1)


def test_finding_runs(tmp_path):
    for place in ("a/seed=0", "a/seed=0.replaced-1", "b/seed=1.failed-2", "b/seed=1", "c"):
        benchmark = "vicuna" if place == "c" else "mt_bench"
        write_lines(get_path(tmp_path / "x.failed-1" / place, benchmark), [])
    top = tmp_path / "x.failed-1"
    names = [str(run.relative_to(top)) for run in benchmark_runs.find_runs(top, BENCHMARKS)]
    assert names == ["a/seed=0", "b/seed=1", "c"]
    assert benchmark_runs.find_runs(top, ["vicuna"]) == [top / "c"]


def test_odd_texts_have_hashes():
    assert prompts.hash_json("\ud800") != prompts.hash_json("\u2028")
