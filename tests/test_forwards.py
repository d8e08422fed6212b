"""Short spellings of commands."""

import runpy
import sys

import pytest


@pytest.mark.parametrize(
    "old, now",
    [
        ("experiments.answers", "experiments.commands.compare_answers"),
        ("experiments.export", "experiments.commands.export"),
        ("experiments.fid", "experiments.commands.fid"),
        ("experiments.hub", "experiments.commands.prefetch"),
        ("experiments.predict", "experiments.commands.predict"),
        ("experiments.rehearsal", "experiments.smoke"),
        ("experiments.results", "experiments.commands.results"),
    ],
)
def test_short_spelling_of_a_command_works(old, now, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python", "--help"])
    texts = []
    for module in (old, now):
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        assert not ended.value.code
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("usage: ")
