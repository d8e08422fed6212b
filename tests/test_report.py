"""Tables and figures from records written here; nothing is run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from records import scored

from experiments.report import __main__ as command
from experiments.report.__main__ import main
from experiments.report.comparison import reference, run_index
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import figure7, registry
from experiments.report.plots import style, training_curves
from experiments.report.render import document, text
from experiments.results.identity import to_plain
from experiments.results.record import Record, write_record

TABLE1 = reference.load("table1")
FIGURE7 = reference.load("figure7")
ROOT = Path(__file__).resolve().parent.parent
TEXTS = (".md", ".csv", ".tex")


def write_count(root: Path, row: dict, method: str, more: int = 0, **run) -> Path:
    """Writes the record of one cell of Table 1, `more` numbers beside the formula."""
    size = TABLE1["methods"][method]["size"]
    cell = row[method]
    run = {
        "model": row["model"],
        "task": "none",
        "method": method,
        "variant": f"{size}={cell[size]}",
    } | run
    run = {"seed": 0, "source": "none", "recipe": "none", "profile": None, "mode": "count"} | run
    place = root / run["model"] / "none" / method / run["variant"] / "seed=0"
    numbers = cell["formula"] + more
    record = Record(
        run={"experiment": "table1"} | run,
        config={"method": {"name": method, size: cell[size]}},
        parameters={"adapter": numbers, "head": 0, "base": 1, "stored_bytes": 4 * numbers},
        time={},
        memory={},
        environment={},
    )
    place.mkdir(parents=True)
    write_record(place, record)
    return place


def write_table1(root: Path) -> None:
    for row in TABLE1["rows"]:
        for method in TABLE1["methods"]:
            write_count(root, row, method)


def write_toy(
    root: Path, method: str, seed: int, curve: list[tuple[float, float]], **changes
) -> Path:
    """Writes the record and the history of one run of the toy; `curve` is (epoch, accuracy)."""
    numbers = changes.pop("adapter", 128)
    run = {
        "model": "mlp",
        "task": "toy",
        "method": method,
        "variant": "",
        "seed": seed,
        "profile": None,
    }
    run |= {"mode": "train"} | changes
    place = root / "mlp/toy" / method / (run["variant"] or run["profile"] or ".") / f"seed={seed}"
    place.mkdir(parents=True)
    record = Record(
        run=run,
        config={"train": {"learning_rate": 0.02}, "method": {"alpha": 3.0}, "task": {"any": 7}},
        parameters={"adapter": numbers, "head": 0, "base": 4808, "stored_bytes": 4 * numbers},
        metrics={"primary": {"split": "train"}},
        time={"train_s": 2.0, "evaluation_s": 0.5},
        memory={},
        environment={},
    )
    write_record(place, record)
    lines = [
        {"step": 0, "epoch": epoch, "elapsed_s": 0, "train/accuracy": value}
        for epoch, value in curve
    ]
    lines.insert(1, {"step": 0, "epoch": 1, "elapsed_s": 0, "train/loss": 1.0})
    (place / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def rising(reaches: float | None, last: float = 2000) -> list[tuple[float, float]]:
    """Accuracy every 20 epochs, 1 from epoch `reaches` on, 0.93 at most before."""
    epochs = np.arange(20, last + 1, 20)
    return [
        (float(epoch), 1.0 if reaches is not None and epoch >= reaches else min(0.93, epoch / 200))
        for epoch in epochs
    ]


def shown(tmp_path: Path, *names: str) -> tuple[dict[str, str], list[str]]:
    """Writes the pages of what lies in tmp_path/outputs, without the site.

    Returns the text per file name, and what could not be counted.
    """
    to = tmp_path / "report"
    found = run_index.collect(tmp_path / "outputs")
    for name in names:
        command.write(registry.build(name, found), to)
    texts = {path.name: path.read_text() for path in to.glob("*") if path.suffix in TEXTS}
    return texts, [str(record) for record in found.excluded]


def cells(text: str, *start: str) -> list[str]:
    """The cells of the only table line that begins with these cells."""
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    [line] = [line for line in found if tuple(line[: len(start)]) == start]
    return line


def test_table1_complete(tmp_path):
    write_table1(tmp_path / "outputs")
    files, _ = shown(tmp_path, "table1")
    text = files["table1.md"]
    assert "**32 of 32 counts equal the formula.**" in text
    assert "29 of 32 counts and 20 of 32 sizes" in text
    golden = "LLaMA-2 7B|LoRA|r=16|8,388,608|8,388,608|8.39M|equals formula|32 MB|32.8 MB [9]"
    assert cells(text, "LLaMA-2 7B", "LoRA", "r=16") == golden.split("|")
    rows = list(csv.DictReader(files["table1.csv"].splitlines()))
    assert len(rows) == 32
    assert all(int(row["count_ours"]) == int(row["count_formula"]) for row in rows)
    assert rows[0]["count_printed"] == "147000" and rows[0]["stored_bytes_ours"] == str(4 * 147456)


def test_table1_marks_the_papers_misprints(tmp_path):
    write_table1(tmp_path / "outputs")
    text = shown(tmp_path, "table1")[0]["table1.md"]
    line = cells(text, "RoBERTa Base", "FourierFT", "n=1000 [2]")
    assert line[3:7] == ["24,000", "24,000", "24K", "equals formula"]
    assert "- [2] RoBERTa Base, FourierFT n=1000: n=200" in text
    assert cells(text, "GPT-2 Medium", "LoRA", "r=4")[5] == "350K [5]"
    assert cells(text, "ViT Base", "FourierFT", "n=10000")[5] == "239K [14]"
    misprints = [
        note
        for row in TABLE1["rows"]
        for m in TABLE1["methods"]
        for note in row[m].get("misprint", {})
    ]
    assert text.count("\n- [") == len(misprints)


def test_table1_says_how_a_count_differs(tmp_path):
    row = TABLE1["rows"][0]
    write_count(tmp_path / "outputs", row, "lora", more=-1000)
    text = shown(tmp_path, "table1")[0]["table1.md"]
    assert cells(text, "RoBERTa Base", "LoRA", "r=4")[3:7] == [
        "146,456",
        "147,456",
        "147K",
        "differs by -1,000",
    ]
    assert "0 of 32 counts equal the formula, 1 differ, 31 not run" in text


def test_table1_counts_of_any_experiment_but_its_own_first(tmp_path):
    root, row = tmp_path / "outputs", TABLE1["rows"][0]
    write_count(root, row, "lora", more=7, variant="a", experiment=None)
    write_count(root, row, "lora", profile="smoke", variant="b")
    write_count(root, row, "fourierft", task="cola")
    text = shown(tmp_path, "table1")[0]["table1.md"]
    assert cells(text, "RoBERTa Base", "LoRA", "r=4")[6] == "differs by +7"
    assert cells(text, "RoBERTa Base", "FourierFT", "n=200")[6] == "not run"
    write_count(root, row, "lora", variant="c")
    text = shown(tmp_path, "table1")[0]["table1.md"]
    assert cells(text, "RoBERTa Base", "LoRA", "r=4")[6] == "equals formula"


def test_missing_runs_are_shown_as_missing(tmp_path):
    files, left_out = shown(tmp_path, "table1", "figure7")
    assert files["table1.md"].count("| not run ") == 3 * 32
    assert "32 not run.**" in files["table1.md"]
    assert "Not run: `make table1`" in files["table1.md"]
    assert files["figure7.md"].count("not run") >= 10
    assert "Not run: `make figure7`" in files["figure7.md"]
    assert "Undecided: FourierFT not run, LoRA not run." in files["figure7.md"]
    assert (tmp_path / "report/figure7.png").exists() and not left_out


@pytest.mark.parametrize("damage", ["{half a rec", "[]", '{"schema": 99}', None])
def test_damaged_record_is_named_and_the_rest_shown(tmp_path, damage):
    root = tmp_path / "outputs"
    write_table1(root)
    broken = next(root.rglob("metrics.json"))
    record = json.loads(broken.read_text())
    text = json.dumps(record | {"parameters": {"adapter": "many"}}) if damage is None else damage
    broken.write_text(text)
    files, left_out = shown(tmp_path, "table1", "troubles")
    assert "31 of 32 counts equal the formula, 1 not run" in files["table1.md"]
    assert files["troubles.md"].count(str(broken)) == 1
    assert [str(broken) in record for record in left_out] == [True]


def test_replaced_records_do_not_count(tmp_path):
    root = tmp_path / "outputs"
    place = write_count(root, TABLE1["rows"][0], "lora")
    place.rename(place.with_name("seed=0.replaced-1"))
    assert not run_index.collect(root).runs


def toy(tmp_path: Path, fourierft: list, lora: list) -> str:
    for method, seeds in {"fourierft": fourierft, "lora": lora}.items():
        for seed, curve in enumerate(seeds):
            write_toy(tmp_path / "outputs", method, seed, curve)
    return shown(tmp_path, "figure7")[0]["figure7.md"]


FIGURE7_VERDICTS = {
    "As": Verdict.supported,
    "In": Verdict.cannot_be_told,
    "Cannot": Verdict.cannot_be_told,
    "Contradicts": Verdict.contradicted,
    "Undecided": Verdict.not_run,
}


def test_figure7_reproduced(tmp_path):
    text = toy(tmp_path, [rising(epoch) for epoch in (300, 380, 400, 340, 500)], [rising(None)] * 5)
    assert (
        "**As the paper says: FourierFT reaches 100 % within 2000 epochs in 5 of 5 seeds "
        "(median epoch 380" in text
    )
    assert "LoRA reaches 100 % within 2000 epochs in 0 of 5 seeds (best 93.0 %)" in text
    line = cells(text, "FourierFT", "1")
    assert line[2:] == ["380", "380", "100.0 %", "100.0 %", "unknown", "2000", "128", "0.02", "2.0"]
    assert cells(text, "LoRA", "4")[2:5] == ["never", "never", "93.0 %"]
    assert "evaluated every 20 epochs" in text and "Not run" not in text
    assert "method.alpha=3.0" in text and "task.any=7" in text


def test_figure7_contradicted(tmp_path):
    text = toy(tmp_path, [rising(380)] * 5, [rising(600)] * 4 + [rising(None)])
    assert (
        "**Contradicts the paper: FourierFT reaches 100 % within 2000 epochs in 5 of 5 seeds"
        in text
    )
    assert "LoRA reaches 100 % within 2000 epochs in 4 of 5 seeds (median epoch 600" in text


@pytest.mark.parametrize(
    ("fourierft", "lora", "word"),
    [
        ([rising(None)] * 3, [rising(None)] * 3, "Contradicts the paper:"),
        ([rising(500)] * 3, [rising(None)] * 2 + [rising(80)], "In part as the paper says:"),
        ([rising(60)] * 3, [rising(None)] * 3, "As the paper says, but sooner:"),
        ([rising(1500)] * 3, [rising(None)] * 3, "As the paper says, but later:"),
        ([rising(500)] * 3, [rising(None, last=400)] * 3, "Undecided:"),
        ([rising(500)] * 3, [], "Undecided:"),
        ([], [rising(40)] * 3, "Contradicts the paper:"),
        ([rising(500)] * 3, [rising(2400, last=3000)] * 3, "As the paper says:"),
        ([rising(2400, last=3000)] * 3, [rising(None)] * 3, "Contradicts the paper:"),
        ([rising(500)] * 2, [rising(None)] * 5, "Cannot be told from fewer than 3 seeds"),
        ([], [rising(40)], "Cannot be told from fewer than 3 seeds"),
    ],
)
def test_figure7_verdicts(tmp_path, fourierft, lora, word):
    assert f"**{word}" in toy(tmp_path, fourierft, lora)
    page = registry.build("figure7", run_index.collect(tmp_path / "outputs"))
    assert page.verdicts == {FIGURE7_VERDICTS[word.split()[0].strip(":")]: 1}


def test_figure7_best_is_that_of_the_papers_epochs(tmp_path):
    text = toy(tmp_path, [rising(500)], [rising(2400, last=3000)])
    assert "LoRA reaches 100 % within 2000 epochs in 0 of 1 seeds (best 93.0 %)" in text


def test_figure7_tells_reaching_from_staying(tmp_path):
    curve = [(20.0, 0.5), (40.0, 1.0), (60.0, 0.99), (80.0, 1.0), (2000.0, 1.0)]
    text = toy(tmp_path, [curve, [*curve, (2020.0, 0.9996)]], [])
    assert cells(text, "FourierFT", "0")[2:4] == ["40", "80"]
    assert cells(text, "FourierFT", "1")[2:5] == ["40", "never", "99.9 %"]


def test_figure7_lists_runs_that_are_not_its_own(tmp_path):
    root = tmp_path / "outputs"
    write_toy(root, "lora", 0, rising(100), adapter=256)
    write_toy(root, "lora", 1, rising(100), variant="alpha=2")
    write_toy(root, "lora", 2, rising(100), profile="smoke")
    write_toy(root, "lora", 3, [])
    place = write_toy(root, "lora", 4, rising(None))
    (place / "history.jsonl").write_bytes(
        (place / "history.jsonl").read_bytes() + b'{"step": 1, "epo'
    )
    text = shown(tmp_path, "figure7")[0]["figure7.md"]
    assert "LoRA reaches 100 % within 2000 epochs in 0 of 1 seeds" in text
    for reason in ("trains 256 parameters", "another recipe", "a smoke test", "no train/accuracy"):
        assert text.count(reason) == 1


def test_figure7_damaged_history_is_named(tmp_path):
    place = write_toy(tmp_path / "outputs", "lora", 0, rising(None))
    (place / "history.jsonl").write_text('{"step": 1, "epoch": "late", "train/accuracy": 1.0}\n')
    files, _ = shown(tmp_path, "figure7", "troubles")
    assert "no train/accuracy in its history" in files["figure7.md"]
    assert str(place / "history.jsonl") in files["troubles.md"]


def test_figure7_picture(tmp_path):
    toy(tmp_path, [rising(300), rising(500)], [rising(None), rising(None, last=1000)])
    path = tmp_path / "report/figure7.png"
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) >= 800 and max(picture.size) <= 1600
        seen = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in (style.STYLES[method][0] for method in ("fourierft", "lora")):
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(seen.astype(int) - wanted).max(axis=1) <= 2).sum() > 500
    assert not list((tmp_path / "report").glob(".*"))


def test_figure7_csv(tmp_path):
    toy(tmp_path, [rising(300)], [rising(None)])
    rows = list(csv.DictReader((tmp_path / "report/figure7.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert (
        rows[0]["first_epoch_at_100"] == "300.0" and rows[0]["record"] == "mlp/toy/fourierft/seed=0"
    )
    assert rows[1]["record"] == "" and rows[5]["final_accuracy"] == "0.93"


def test_band_of_seeds_evaluated_at_different_epochs():
    epochs, mean, low, high = training_curves.band(
        [[(0, 0.0), (10, 1.0)], [(0, 0.5), (5, 0.5), (8, 0.5)]]
    )
    assert epochs.tolist() == [0, 5, 8]
    assert mean == pytest.approx([0.25, 0.5, 0.65])
    assert low == pytest.approx([0, 0.5, 0.5]) and high == pytest.approx([0.5, 0.5, 0.8])


def test_percent_never_rounds_up_to_all():
    assert figure7.percent(239 / 240) == "99.5 %"
    assert figure7.percent(0.99999) == "99.9 %"
    assert figure7.percent(1.0) == "100.0 %"
    assert figure7.percent(0.93) == "93.0 %"


def test_columns_line_up():
    lines = text.grid(["a", "wide name"], [["x", "1"], ["a|b", "22"]], right=["wide name"])
    assert lines == [
        "| a    | wide name |",
        "| ---- | --------: |",
        "| x    |         1 |",
        "| a\\|b |        22 |",
    ]


def test_unknown_name_is_one_line_and_status_2(tmp_path, capsys):
    assert (
        main(["table1", "table99", "--outputs", str(tmp_path), "--to", str(tmp_path / "report")])
        == 2
    )
    known = ", ".join(registry.names())
    assert capsys.readouterr().err == f"unknown: table99; known: {known}\n"
    assert not (tmp_path / "report").exists()


def test_nothing_shown_is_status_1(tmp_path, capsys):
    (tmp_path / "report").write_text("a file where a folder should be")
    assert main(["table1", "--outputs", str(tmp_path), "--to", str(tmp_path / "report")]) == 1
    assert "table1" in capsys.readouterr().err


def test_damaged_reference_is_named(tmp_path, capsys, monkeypatch):
    """The other pages and the site are written all the same, and one that needs it not is not
    held up."""
    references = tmp_path / "reference"
    references.mkdir()
    for name in ("table1", "table6", "protocols", "weights"):
        text = (reference.REFERENCE / f"{name}.yaml").read_text()
        (references / f"{name}.yaml").write_text("rows: [" if name == "table1" else text)
    monkeypatch.setattr(reference, "REFERENCE", references)
    to = tmp_path / "report"
    given = ["--outputs", str(tmp_path / "none"), "--to", str(to)]
    assert main(["table1", "table6", *given]) == 1
    captured = capsys.readouterr()
    assert str(references / "table1.yaml") in captured.err and "no such folder" in captured.err
    assert "# Table 6" in captured.out and "# Finished runs" not in captured.out
    assert main(["table6", *given]) == 0
    assert (to / "table6.md").exists() and (to / "index.html").exists()


@pytest.mark.slow
def test_report_writes_all_of_it_under_outputs_by_default(tmp_path, capsys):
    assert main(["all", "--outputs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*registry.names(), "site:"]  # a line a page
    for name in registry.names():
        for suffix in ("md", "csv", "tex", "html"):
            assert (tmp_path / f"report/{name}.{suffix}").exists()
    for name in ("figure1", "figure3", "figure4", "figure5", "figure6", "figure7"):
        assert (tmp_path / f"report/{name}.png").exists()
        drawn = (tmp_path / f"report/{name}.svg").read_text()
        assert "prefers-color-scheme:dark" in drawn and "<text" in drawn


def test_report_never_imports_torch():
    code = (
        "import sys; import experiments.report.__main__; "
        "import experiments.report.pages.registry; import experiments.report.render.site; "
        "heavy = {'torch', 'transformers', 'hydra', 'experiments.run.main', 'experiments.models'}; "
        "found = heavy & set(sys.modules); "
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_runs_lists_every_training_with_its_interval(tmp_path):
    run = {"model": "minilm", "task": "sst2", "method": "full", "variant": "x=1", "seed": 3}
    run |= {"source": "paper", "recipe": "ours"}
    chosen = {"value": 0.86, "interval": [0.84, 0.88]}
    record = Record(
        run=run,
        config={"train": {"learning_rate": 1e-4}},
        parameters={"adapter": 10, "head": 2, "base": 12, "stored_bytes": 40},
        metrics={"primary": {"name": "accuracy"}, "best": chosen, "last": chosen, "heldout": None},
        time={"train_s": 12.4},
        memory={"peak_rss": 5 * 1024**2, "peak_gpu": None},
        environment={},
    )
    place = tmp_path / "outputs" / "run"
    place.mkdir(parents=True)
    write_record(place, record)
    write_count(tmp_path / "outputs", TABLE1["rows"][0], "lora")  # a count is no training
    text, _ = shown(tmp_path, "runs")
    (line,) = [line for line in text["runs.md"].splitlines() if line.startswith("| minilm")]
    found = [cell.strip() for cell in line.strip("| ").split("|")]
    assert found[2] == "full ours (asked: paper); x=1"
    assert found[3:8] == ["3", "accuracy", "0.860 [0.840, 0.880]", "0.860 [0.840, 0.880]", "-"]
    assert found[8:] == ["10", "2", "12", "5", "0.0001"]
    told = registry.build("runs", run_index.collect(tmp_path / "outputs")).summary
    assert told == "1 finished training run. 1 more record of mode=count, without training."


def test_figure7_draws_the_plane_of_the_lowest_seed_that_has_one(tmp_path):
    places = [write_toy(tmp_path, "fourierft", seed, rising(380)) for seed in (0, 1)]
    (places[0] / "regions.npz").write_bytes(b"half a file")
    points, labels = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    classes = np.zeros((241, 241), np.uint8)
    with (places[1] / "regions.npz").open("wb") as file:
        np.savez(file, classes=classes, reach=7.0, points=points, labels=labels)
    page = figure7.show("figure7", reference.load("figure7"), run_index.collect(tmp_path))
    found = [picture for picture in page.pictures if picture.name == "figure7_regions"]
    (axes,) = found[0].draw().axes
    assert axes.get_title().startswith("FourierFT, n = 128") and len(axes.collections) == 2
    (places[1] / "regions.npz").unlink()
    page = figure7.show("figure7", reference.load("figure7"), run_index.collect(tmp_path))
    assert [picture.name for picture in page.pictures] == ["figure7"]


def test_csv_holds_no_formula():
    """A spreadsheet computes what begins like one; numbers stay numbers."""
    rows = [{"a": "=1+1", "b": " @SUM(A1)", "c": -0.5, "d": "-1", "e": "+x", "f": None, "g": "x=1"}]
    page = document.Page(name="n", title="t", blocks=[], rows=rows)
    [line] = list(csv.reader(text.separated(page).splitlines()))[1:]
    assert line == ["'=1+1", "' @SUM(A1)", "-0.5", "'-1", "'+x", "", "x=1"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a < b, `<model>`", "a < b, `<model>`"),
        ("``<b>`", "``&lt;b>`"),
        ("<!-- x", "&lt;!-- x"),
        ("![x](y) [a][b]", "![x]\\(y) [a]\\[b]"),
        ("one\ntwo\x0bthree", "one two three"),
    ],
)
def test_markdown_holds_no_markup_of_records(said, shown):
    table = document.Table(
        caption="c", columns=["A"], lines=[document.Line(cells=[document.Shown(text=said)])]
    )
    page = document.Page(name="n", title="t", blocks=[table, document.Items([said])])
    written = text.markdown(page)
    assert f"| {shown} |" in written and f"- {shown}\n" in written


def test_a_run_without_a_score_of_its_own_counts(tmp_path):
    """As instruction tuning without held-out rows: judges grade its answers."""
    place = write_toy(tmp_path, "lora", 0, rising(100))
    record = json.loads((place / "metrics.json").read_text())
    record["metrics"] = {"primary": None, "best": None, "heldout": None, "last": {"value": None}}
    (place / "metrics.json").write_text(json.dumps(record))
    found = run_index.collect(tmp_path)
    assert len(found.runs) == 1 and not found.excluded
    for name in registry.names():
        page = registry.build(name, found)
        assert text.markdown(page)
        for picture in page.pictures:
            assert name == "figure3" or picture.draw()


def test_dollar_signs_are_no_mathematics(tmp_path, compose):
    config = to_plain(compose(["model=minilm", "task=sst2", "method=lora", "train.epochs=1"]))
    for seed, rate in ((0, 0.1), (1, 0.2)):
        changes = {"train.max_steps": "$\\x{$", "train.learning_rate": rate}
        scored(tmp_path, config, seed, 0.5, changes=changes)
    page = registry.build("pareto", run_index.collect(tmp_path))
    [picture] = page.pictures
    style.save(picture.draw(), tmp_path, "drawn")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": np.zeros(5)},
        {"classes": np.full((4, 4), 1e9)},
        {"classes": np.full((4, 4), -1)},
        {"classes": np.zeros((0, 0))},
        {"reach": np.array([1.0])},
        {"reach": np.array(np.nan)},
        {"points": np.zeros((3, 3))},
        {"labels": np.array(["a", "b", "c"])},
    ],
)
def test_planes_that_cannot_be_drawn_are_left_out(tmp_path, changes):
    place = write_toy(tmp_path, "lora", 0, rising(100))
    plane = {"classes": np.zeros((4, 4)), "reach": np.array(2.0), "points": np.zeros((3, 2))}
    plane["labels"] = np.zeros(3)
    for arrays, drawn in ((plane, 2), (plane | changes, 1)):
        np.savez(place / "regions.npz", **arrays)
        page = registry.build("figure7", run_index.collect(tmp_path))
        assert len([picture.draw() for picture in page.pictures]) == drawn


def test_records_left_out_are_found_where_they_are_listed(tmp_path, capsys):
    for number in range(command.SHOWN + 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/metrics.json").write_text("{}")
    command.main(["table1", "--outputs", str(tmp_path)])
    assert "left out: 2 more, named by the page `troubles`" in capsys.readouterr().err
    command.main(["troubles", "--outputs", str(tmp_path)])
    written = tmp_path / "report/troubles.md"
    assert f"left out: 2 more, see {written}" in capsys.readouterr().err and written.exists()
