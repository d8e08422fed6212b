"""The paper's claims on base models that it does not have."""

import json

import numpy as np
import pytest
from records import METRIC, scored

from experiments.metrics.selection import Evaluation
from experiments.report.comparison import reference, run_index
from experiments.report.pages import other_networks, registry
from experiments.results import predictions
from experiments.results.identity import to_plain

LEVEL = "FourierFT is level with LoRA on GLUE on average"
BASES = "Fourier's basis is above the random and the orthogonal one"
SAME = "with as many parameters per layer FourierFT is better: n=6144 than r=4"
RISES = "FourierFT gets better with n"
NOISE = {"fourierft": (0.0, 0.004, -0.003), "lora": (0.002, -0.001, 0.001)}
CUT = {"task.train_rows": 2000}


@pytest.fixture
def asked(tmp_path, compose):
    """Functions that write a setting's records, and that return the claims by their words."""
    plain = {
        method: to_plain(compose(["model=minilm", "task=cola", f"method={method}"]))
        for method in NOISE
    }

    def write(method, value, changes=CUT, numbers=None, weights="ab" * 32):
        name = "_".join(f"{key}={one}" for key, one in changes.items())
        for seed, noise in enumerate(NOISE[method]):
            place = tmp_path / f"minilm/{method}/{name}/seed={seed}"
            scored(
                tmp_path, plain[method], seed, value + noise,
                changes=changes, place=place, weights=weights,
            )  # fmt: skip
            if numbers is not None:
                path = place / "metrics.json"
                record = json.loads(path.read_text())
                record["parameters"]["adapter"] = numbers
                path.write_text(json.dumps(record))

    def claims():
        found = other_networks.find_claims(run_index.collect(tmp_path))
        return {row["claim"]: row for row in other_networks.list_raw(found)}

    return write, claims, tmp_path


def test_a_table_is_asked_on_what_was_run(asked):
    write, claims, root = asked
    for task in ("cola", "rte"):
        on = CUT | {"task.name": task}
        write("fourierft", 0.8, on)
        write("lora", 0.7, on)
        write("fourierft", 0.9, on | {"method.basis": "random", "train.learning_rate": 0.2})
    found = claims()
    told = found[LEVEL]
    assert told["verdict"] == "supported, as far as tested"
    assert "MiniLM, average of 2 data sets" in told["evidence"]
    assert told["network"] == "MiniLM (CoLA, RTE: 2000 rows, 3 epochs)"
    assert {"SST-2", "MRPC", "QNLI", "STS-B"} <= set(told["untested"].split("; "))
    assert "subset" not in told["untested"] and "another base model" not in told["untested"]
    assert found[BASES]["evidence"].startswith("holds in 0 of 1 cases")
    assert "against Orthogonal, n=1000" in found[BASES]["untested"]
    page = registry.build("claims", run_index.collect(root))
    line = next(one for one in page.rows if one["claim"] == LEVEL and one["network"] is None)
    assert line["verdict"] == "not run", "the paper's own line says nothing of other networks"
    assert page.tables and "Other networks" in next(iter(page.tables)).columns


def test_one_task_does_not_contradict_an_average(asked):
    write, claims, _ = asked
    write("fourierft", 0.6, CUT)
    write("lora", 0.8, CUT)
    told = claims()[LEVEL]
    assert told["verdict"] == "contradicted, as far as tested"
    assert "MiniLM, CoLA, FourierFT" in told["evidence"], "no average"


def test_what_was_not_run_names_nothing_that_was(tmp_path, compose):
    """CIFAR-10 was run with LoRA, and stands for DTD, which was not; one seed is not enough."""
    for method, size, value in (("lora", "r", 16), ("linear_probe", "train.epochs", 2)):
        words = ["model=vit_s", "task=cifar10", f"method={method}"]
        words.append(f"{'method.' * (size == 'r')}{size}={value}")
        plain = to_plain(compose([*words, "train.epochs=2"]))
        scored(tmp_path, plain, 0, 0.01 * value, weights="ab" * 32)
    words = ["model=vit_s", "task=cifar10", "method=fourierft", "method.n=10000", "train.epochs=2"]
    scored(tmp_path, to_plain(compose(words)), 0, 0.5, weights="ab" * 32)
    found = other_networks.find_claims(run_index.collect(tmp_path))
    told = {row["claim"]: row["untested"].split("; ") for row in other_networks.list_raw(found)}
    probes = told["LoRA and FourierFT are far above linear probing (here: above, on average)"]
    assert "FourierFT, n=3000 on CIFAR-10" in probes and "CIFAR-10" not in probes
    assert "OxfordPets" in probes and "2 more shared seeds" in probes
    images = told["FourierFT is better than LoRA on DTD"]
    assert images[0] == "DTD" and "LoRA, r=8, 32 on CIFAR-10 for DTD" in images
    shown = [
        line.cells[0].text
        for block in other_networks.show(found)
        for line in getattr(block, "lines", ())
    ]
    assert "FourierFT with n=10000 is above LoRA on average" in shown, "no gain of ViT-Base's"


def test_table_4_is_asked_of_the_loss_of_held_out_answers(tmp_path, compose, monkeypatch):
    """A loss is better when lower, and its texts are rows."""
    monkeypatch.setitem(METRIC, "alpaca", "cross_entropy")
    tokens = np.arange(20, 60)
    for method, size, loss in (("fourierft", "n=1000", 1.62), ("lora", "r=64", 1.58)):
        words = ["model=smollm2_135m", "task=alpaca", f"method={method}", f"method.{size}"]
        plain = to_plain(compose(words))
        for seed, noise in enumerate(NOISE[method]):
            place = scored(tmp_path, plain, seed, loss + noise, weights="ab" * 32)
            sums = tokens * (loss + noise + 0.1 * np.sin(tokens))
            kept = Evaluation(epoch=3.0, step=30, predictions=sums, references=tokens)
            predictions.save(place, "validation", kept)
    [told] = other_networks.list_raw(other_networks.find_claims(run_index.collect(tmp_path)))
    assert told["claim"] == "FourierFT is as good as LoRA in instruction tuning"
    assert "loss, LoRA, r=64 less FourierFT, n=1000 (lower is better): -0.0" in told["evidence"]
    assert "over 3 seeds and 40 rows" in told["evidence"] and "as far as tested" in told["verdict"]
    assert "not by grades" in told["untested"]


def test_equal_numbers_are_those_of_the_network(asked):
    """6144 of a matrix of 768 rows, as LoRA's r=4 has there, are 3072 at width 384."""
    write, claims, _ = asked
    for size, value in ((50, 0.7), (3072, 0.9)):
        write("fourierft", value, CUT | {"method.n": size}, numbers=12 * size)
    write("lora", 0.8, CUT | {"method.r": 4}, numbers=12 * 3072)
    found = claims()
    assert "n=3072 against LoRA, r=4: +9.97" in found[SAME]["evidence"]
    assert found[SAME]["verdict"] == "supported, as far as tested"
    assert found[RISES]["evidence"].startswith("holds in 1 of 1 panels")
    assert "MRPC" in found[SAME]["untested"]
    assert "FourierFT, n=100, 200, 1000, 6144, 12288 on CoLA" in found[RISES]["untested"]


def test_of_as_many_points_the_papers_sizes_count(asked):
    """Figure 6's runs of n=768 and r=1, of fewer epochs, do not stand for Figure 4's."""
    write, claims, _ = asked
    for epochs, size, rank in ((2, 768, 1), (3, 1000, 8)):
        long = CUT | {"train.epochs": epochs, "task.name": "mrpc"}
        write("fourierft", 0.9, long | {"method.n": size})
        write("lora", 0.8, long | {"method.r": rank})
    told = claims()["FourierFT is better than LoRA on all six tasks"]
    assert "FourierFT, n=1000 against LoRA, r=8" in told["evidence"]


def test_figure_6_takes_as_many_parameters_as_rank_1(asked):
    write, claims, _ = asked
    on = CUT | {"task.name": "mrpc"}
    for size, value in ((50, 0.5), (768, 0.9)):
        write("fourierft", value, on | {"method.n": size}, numbers=12 * size)
    write("lora", 0.8, on | {"method.r": 1}, numbers=12 * 768)
    told = claims()["Accuracy: FourierFT above LoRA throughout"]
    assert told["evidence"].startswith(
        "holds in 1 of 1 epochs; epoch 3, FourierFT against LoRA: +0.0997"
    )
    assert told["verdict"] == "supported"


def test_the_networks_recipe_comes_first_and_what_changes_it_is_named(asked):
    write, claims, _ = asked
    tuned = {"train.learning_rate": 0.2, "variant": "learning_rate=0.2"}
    write("fourierft", 0.9, CUT | tuned)
    write("lora", 0.8)
    told = claims()[LEVEL]
    assert told["verdict"] == "supported, as far as tested"
    assert "FourierFT, n=1000: learning_rate 0.2 (recipe: " in told["untested"]
    write("fourierft", 0.6)
    told = claims()[LEVEL]
    assert told["verdict"] == "contradicted, as far as tested"
    assert "recipe: " not in told["untested"]


def test_a_task_that_nobody_learned_is_named(asked):
    write, claims, _ = asked
    write("fourierft", 0.002)
    write("lora", 0.001)
    assert "CoLA: no setting is told to be above a constant answer" in claims()[LEVEL]["untested"]
    write("lora", 0.2)
    assert "constant answer" not in claims()[LEVEL]["untested"]


def test_seeds_that_diverged_are_not_left_out(asked):
    write, claims, root = asked
    write("fourierft", 0.9)
    write("lora", 0.8)
    path = next(root.rglob("lora/*/seed=2/metrics.json"))
    record = json.loads(path.read_text())
    record["metrics"]["best"] = None
    path.write_text(json.dumps(record))
    told = claims()[LEVEL]
    assert told["verdict"] == "not comparable"
    assert "1 of 3 seeds without a score" in told["untested"]


def test_runs_of_other_rows_or_epochs_are_not_compared(asked):
    write, claims, _ = asked
    write("fourierft", 0.8)
    write("lora", 0.7, CUT | {"train.epochs": 5})
    assert LEVEL not in claims()


@pytest.mark.parametrize("unfit", [{"weights": None}, {"changes": {"profile": "smoke"}}])
def test_random_weights_and_smoke_tests_speak_to_nothing(asked, unfit):
    write, claims, _ = asked
    for method in NOISE:
        write(method, 0.8, **unfit)
    assert claims() == {}


def test_two_base_models_are_no_claim_of_one():
    from experiments.report.comparison.transferred_tables import _transfer_cases

    kept = [one["says"] for one in reference.claims() if _transfer_cases(one, "minilm")]
    lost = [one["says"] for one in reference.claims() if one["says"] not in kept]
    assert len(lost) == 1 and "13B" in lost[0]
