"""The tables in Weights & Biases: built and checked offline, saved only with a login."""

import json

import pytest
from records import scored

from experiments.report import wandb_report
from experiments.report.__main__ import main
from experiments.report.comparison import reference, run_index
from experiments.results.identity import to_plain

pytest.importorskip("wandb_workspaces")
pytestmark = pytest.mark.slow  # the libraries take seconds to import


def test_built_and_checked_without_a_network(tmp_path, compose, capsys):
    config = to_plain(compose(["model=roberta_base", "task=cola", "method=fourierft"]))
    scored(tmp_path, config, 0, 0.6)
    assert main(["wandb", "--offline", "--outputs", str(tmp_path)]) == 0
    assert "built and checked" in capsys.readouterr().out
    found = json.loads((tmp_path / "report/wandb.json").read_text())
    text = json.dumps(found)
    assert "Table 2: GLUE with RoBERTa" in text and "60.0" in text and "best.value" in text
    assert len(found["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]) >= 6


def test_the_runs_of_a_table_are_chosen_by_configuration():
    assert wandb_report.selection(reference.load("table6")) == (
        "Config('task.name') in ['cola', 'rte'] and "
        "Config('model.name') in ['roberta_base', 'roberta_large']"
    )
    assert wandb_report.selection(reference.load("table1")) == ""


def test_without_login_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["wandb", "--outputs", str(tmp_path)]) == 1
    assert "wandb: not saved" in capsys.readouterr().err


def test_without_the_package_it_says_so(tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["wandb", "--offline", "--outputs", str(tmp_path)]) == 1
    assert "wandb-workspaces is not installed" in capsys.readouterr().err
    with pytest.raises(Exception, match="not installed"):
        wandb_report.build(run_index.collect(tmp_path), "p", "e")
