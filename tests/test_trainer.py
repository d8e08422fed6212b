from collections import Counter
from pathlib import Path

import pytest

from experiments.results.history import read_history
from experiments.results.identity import to_plain
from experiments.seeding import stream
from experiments.training import fitting
from experiments.training.data_order import DataOrder, StepBatches
from fourierft.layer import adapted_layers

TINY = [
    "model=roberta_base",
    "model.pretrained=false",
    "+model.sizes.hidden_size=32",
    "+model.sizes.num_hidden_layers=2",
    "+model.sizes.num_attention_heads=2",
    "+model.sizes.intermediate_size=64",
    "task=cola",
    "source=none",
    "train.batch_size=32",
    "train.learning_rate=5e-2",
]
NO_DROPOUT = ["+model.sizes.hidden_dropout_prob=0", "+model.sizes.attention_probs_dropout_prob=0"]
FOURIERFT = ["method=fourierft", "method.n=100", "method.alpha=30"]


@pytest.fixture
def tiny(compose, data_folder, tmp_path):
    """A tiny RoBERTa with random weights on 32 real CoLA rows: one optimizer step per epoch."""

    def build(*overrides):
        return compose(
            [
                *TINY,
                *FOURIERFT,
                f"task.path={data_folder}/glue/cola",
                "task.train_rows=32",
                "task.eval_rows=64",
                "train.epochs=20",
                f"output={tmp_path}",
                *overrides,
            ]
        )

    return build


def losses(folder: Path) -> list[float]:
    return [line["train/loss"] for line in read_history(folder) if "train/loss" in line]


def trained(config, folder: Path):
    from experiments.run.main import run

    config.output = str(folder)
    run(config)
    return losses(next(folder.rglob("history.jsonl")).parent)


@pytest.mark.slow
def test_accumulation_gives_the_losses_of_one_batch(tiny, tmp_path):
    """1 x 32 = 4 x 8 rows, and 9 = 5 + 4 at the end of an epoch: each counts as much as another."""
    changes = [*NO_DROPOUT, "task.train_rows=41", "train.epochs=10", "train.eval_every=0.5"]
    whole = trained(tiny(*changes), tmp_path / "whole")
    parts = trained(tiny(*changes, "train.accumulation=4"), tmp_path / "parts")
    assert len(whole) == 20 and whole[-2] < whole[0]
    assert parts == pytest.approx(whole, abs=1e-5)


ADALORA = [  # whose penalty is a part of every micro-batch's loss
    *("method=adalora", "method.init_r=4", "method.target_r=2", "method.alpha=8"),
    *("method.warmup=0.5", "method.final=0.25", "method.interval=1", "method.orthogonality=3"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "smoothing"), [(FOURIERFT, 0.0), (["method=full"], 0.1), (ADALORA, 0.0)]
)
def test_accumulation_moves_no_weight_of_a_language_model(
    compose, data_folder, tmp_path, method, smoothing
):
    """1 x 8 = 4 x 2 rows of unequal length: a real small LLaMA on real rows of E2E."""
    from safetensors.torch import load_file

    found = {}
    for parts in (1, 4):
        given = [
            *("model=stories260k", f"model.path={data_folder}/models/stories260K", *method),
            *("task=e2e", f"task.path={data_folder}/e2e", "task.metrics=[cross_entropy]"),
            *("task.train_rows=28", "task.eval_rows=8", "source=none", "train.batch_size=8"),
            *("train.epochs=1", "train.learning_rate=1e-3", "train.eval_every=0.25"),
            *("train.select=last", f"train.label_smoothing={smoothing}", "train.device=cpu"),
            *("train.schedule=constant", f"train.accumulation={parts}"),
        ]
        folder = tmp_path / str(parts)
        losses_of_steps = trained(compose(given), folder)
        (kept,) = folder.rglob("adapter/*.safetensors")
        found[parts] = losses_of_steps, load_file(kept)
    whole, parts = found[1], found[4]
    assert len(whole[0]) == 4 and whole[0][-1] < whole[0][0]
    assert parts[0] == pytest.approx(whole[0], rel=2e-6)
    for name, value in whole[1].items():
        assert parts[1][name].shape == value.shape, name  # AdaLoRA may leave a matrix no rank
        assert (parts[1][name] - value).abs().sum() < 2e-6 * max(1, value.numel()), name


def test_order_depends_on_seed_and_epoch_alone():
    order = DataOrder(50, 3, None, 8)
    first = list(order)
    assert sorted(first) == list(range(50)) and list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert list(DataOrder(50, 4, None, 8)) != first


@pytest.mark.parametrize(
    ("rows", "accumulation", "processes"),
    [(40, 1, 1), (40, 4, 1), (41, 4, 1), (35, 2, 2), (33, 1, 4), (7, 2, 4), (16, 2, 4)],
)
def test_every_row_counts_once_and_as_much_as_another(rows, accumulation, processes):
    """Also in an epoch's last step, whose rows need not be enough for every process."""
    order = DataOrder(rows, 0, None, 16)
    each = [StepBatches(order, 16, accumulation, processes, rank) for rank in range(processes)]
    dealt = [list(one) for one in each]
    assert [len(one) for one in dealt] == [len(one) for one in each] == [len(each[0])] * processes
    assert each[0].steps == -(-rows // 16)
    counts = dict.fromkeys(range(rows), 0.0)
    for step in range(each[0].steps):
        wanted = list(order)[16 * step : 16 * step + 16]
        for batches, one in zip(dealt, each, strict=True):
            weights = one.weigh(step)
            assert len(weights) <= accumulation
            for weight in weights:
                batch = batches.pop(0)
                assert 0 < len(batch) <= 16 // accumulation // processes
                for row in batch if weight else ():  # the mean over processes, batches, rows
                    counts[row] += weight / processes / len(weights) / len(batch)
        assert [counts.pop(row) for row in wanted] == pytest.approx([1 / len(wanted)] * len(wanted))
    assert not counts and not any(dealt)


def test_length_groups_waste_less_padding():
    import torch

    lengths = torch.randint(3, 60, (512,), generator=torch.Generator().manual_seed(0)).tolist()

    def tokens(order):
        rows = list(order)
        assert sorted(rows) == list(range(512))
        batches = [rows[start : start + 32] for start in range(0, 512, 32)]
        return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)

    grouped = tokens(DataOrder(512, 0, lengths, 32))
    assert grouped < 0.8 * tokens(DataOrder(512, 0, None, 32))


def test_streams_never_share_seeds():
    seeds = [
        stream(seed, name) for seed in range(20) for name in ("head", "adapter", "data", "dropout")
    ]
    assert len(set(seeds)) == len(seeds)


def test_adapter_and_head_have_their_own_rates_and_biases_do_not_decay(tiny, tmp_path):
    config = tiny(
        "train.head_learning_rate=1e-3", "train.weight_decay=0.1", "train.schedule=constant"
    )
    fitting = build_trainer(config, tmp_path)
    groups = fitting.create_optimizer().param_groups
    found = {(group["lr"], group["weight_decay"]): len(group["params"]) for group in groups}
    # 2 layers x query, value; head: two weights that decay, two biases that do not
    assert found == {(5e-2, 0.1): 4, (1e-3, 0.1): 2, (1e-3, 0.0): 2}
    config.train.relative_rate = True
    fitting = build_trainer(config, tmp_path / "relative")
    sizes = {5e-2 / share for share in fitting.step_sizes.values()}
    groups = fitting.create_optimizer().param_groups
    assert {group["lr"] for group in groups} == {1e-3, *sizes} and 5e-2 not in sizes


def test_warmup_holds_for_every_schedule(tiny, tmp_path):
    for schedule in ("linear", "cosine", "constant"):
        config = tiny(f"train.schedule={schedule}", "train.warmup_ratio=0.5", "train.epochs=4")
        fitting = build_trainer(config, tmp_path / schedule)
        fitting.create_optimizer_and_scheduler(num_training_steps=4)
        rates = []
        for _ in range(4):
            rates.append(fitting.lr_scheduler.get_last_lr()[0])
            fitting.optimizer.step()
            fitting.lr_scheduler.step()
        assert rates[:2] == pytest.approx([0, 2.5e-2]), schedule
        assert rates[2] == pytest.approx(5e-2), schedule


def test_a_diverged_evaluation_never_replaces_the_kept_adapter(tiny, tmp_path):
    import math

    fitting = build_trainer(tiny(), tmp_path)
    kept = []
    fitting.method.save = lambda net, folder: kept.append(fitting.best)
    for score in (math.inf, 0.5, math.nan, 0.4, math.inf, 0.5, 0.6):
        fitting._keep(score)
    assert kept == [math.inf, 0.5, 0.6]


def test_an_evaluation_builds_updates_once_for_all_batches(tiny, tmp_path, monkeypatch):
    from fourierft.engine import weight_cache

    made, original = [], weight_cache.effective_weight
    monkeypatch.setattr(
        weight_cache, "effective_weight", lambda *args: made.append(1) or original(*args)
    )
    overrides = ["method.memory=save", "train.eval_batch_size=16", "task.eval_rows=64"]
    fitting = build_trainer(tiny(*overrides), tmp_path)
    fitting.evaluate()
    layers = list(adapted_layers(fitting.network).values())
    assert len(made) == len(layers) == 4
    assert not any(layer._cache.nbytes for layer in layers)


@pytest.mark.parametrize("name", ["train/loss", "validation/matthews"])
def test_a_run_that_diverges_says_so_in_one_line(tiny, tmp_path, caplog, name):
    import math

    fitting = build_trainer(tiny(), tmp_path)
    fitting._record({name: 0.5, "train/gradient_norm": math.inf})
    assert not caplog.messages
    for value in (math.nan, 0.5, math.inf):
        fitting._record({name: value})
    (said,) = caplog.messages
    assert said.startswith(f"diverged: {name} not finite at epoch 0, step 0; a lower train.learn")


@pytest.mark.slow
def test_a_diverged_run_has_no_best_and_shows_no_score(tiny, tmp_path, capsys):
    from experiments.commands.verify import verify_runs
    from experiments.results.identity import get_run_dir
    from experiments.results.record import read_record
    from experiments.run import main

    config = tiny("train.learning_rate=1e30", "train.epochs=6", "train.max_grad_norm=1e30")
    record = main.run(config)
    out = capsys.readouterr().out
    assert record.metrics["best"] is None and "diverged: " in out
    assert "; no matthews that is finite (best)" in out and " nan" not in out
    assert read_record(get_run_dir(config)).metrics["primary"]["value"] is None
    assert (get_run_dir(config) / "adapter").is_dir()
    assert verify_runs(tmp_path) == 0


@pytest.mark.slow
def test_the_kept_adapter_is_the_best_evaluations(tiny, tmp_path):
    """`adapter/` reloads to the predictions stored for the best epoch."""
    import numpy as np
    import torch
    from peft import PeftModel

    from experiments.results import predictions
    from experiments.run.main import run

    config = tiny("train.epochs=6")
    record = run(config)
    place = next(tmp_path.rglob("metrics.json")).parent
    source = config.task.locate()
    data = config.task.load(config.model.processor(None), source)
    torch.manual_seed(stream(config.seed, "head"))
    net = PeftModel.from_pretrained(
        config.model.build(config.task.head, None), place / "adapter"
    ).eval()
    rows = data.collate([data.evaluations["validation"][index] for index in range(64)])
    with torch.no_grad():
        logits = net(**rows).logits.numpy()
    best = next(
        entry
        for entry in predictions.load(place, "validation")
        if entry.step == record.metrics["best"]["step"]
    )
    assert np.allclose(logits, best.predictions, atol=1e-5)


def test_the_best_score_so_far_is_the_primary_metrics():
    """Not the training loss, where the split that is scored is called train too."""
    from types import SimpleNamespace

    def best(*scores):
        lines = [{"step": 1, "train/loss": 2.2, "train/learning_rate": 0.1}]
        lines += [
            {"step": step, "train/accuracy": score, "train/loss_of": 9.0}
            for step, score in enumerate(scores, 1)
        ]
        return fitting._best_so_far(
            SimpleNamespace(
                data=SimpleNamespace(evaluations={"train": []}),
                task=SimpleNamespace(metrics=["accuracy"]),
                history=SimpleNamespace(lines=lambda: lines),
            )
        )

    assert best() is None and best(0.1, 0.4, 0.3) == 0.4
    nan = float("nan")
    assert best(nan, 0.2) == 0.2 and best(nan) != best(nan)
    assert best(float("inf"), 0.2) == 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged", "goes_on_from"),
    [
        (["checkpoint-4/optimizer.pt"], 3),
        (["checkpoint-4/adapter_model.safetensors"], 3),
        (["checkpoint-4/rng_state.pth"], 3),
        (["checkpoint-4/scheduler.pt", "checkpoint-3/trainer_state.json"], None),
        (["../predictions/validation-0000004.npz"], 3),
        (["../predictions/validation-0000001.npz"], None),
    ],
)
def test_a_damaged_file_costs_a_checkpoint_and_changes_no_number(
    tiny, tmp_path, monkeypatch, damaged, goes_on_from
):
    from experiments.results import predictions
    from experiments.results.identity import get_run_dir
    from experiments.run import main

    def few(name):
        config = tiny("train.epochs=6")
        config.output = str(tmp_path / name)
        return config

    store = predictions.save

    def interrupted(place, split, entry):
        if entry.step == 5:
            raise KeyboardInterrupt
        store(place, split, entry)

    whole = main.run(few("whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predictions, "save", interrupted)
        main.run(few("killed"))
    place = get_run_dir(few("killed"))
    for name in damaged:
        path = place / "checkpoints" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    record = main.run(few("killed"))
    assert record.time["resumed_from"] == goes_on_from
    assert record.metrics == whole.metrics
    lines = [
        [{**line, "elapsed_s": 0} for line in read_history(get_run_dir(few(name)))]
        for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]
    adapters = [
        (get_run_dir(few(name)) / "adapter/adapter_model.safetensors").read_bytes()
        for name in ("whole", "killed")
    ]
    assert adapters[0] == adapters[1]


def build_trainer(config, folder):
    """The trainer of a run as `experiments.run.main` builds it."""
    from experiments.run.build import build_network, build_trainer

    folder.mkdir(exist_ok=True)
    data = config.task.load(config.model.processor(None), config.task.locate())
    config.tracking.start(folder, {}, to_plain(config), {})
    return build_trainer(config, build_network(config, None), data, folder)


def test_the_history_has_shares_where_the_rate_is_one(tiny, tmp_path, monkeypatch):
    """And gradient checkpointing computes a block twice."""
    from transformers.models.roberta.modeling_roberta import RobertaSelfAttention

    passes, forward = Counter(), RobertaSelfAttention.forward

    def count(self, *args, **kwargs):
        passes[self] += self.training
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RobertaSelfAttention, "forward", count)
    changes = ["train.relative_rate=true", "train.learning_rate=1e-2", "train.schedule=constant"]
    changes += ["train.head_learning_rate=1e-3", "train.gradient_checkpointing=true"]
    trained(tiny(*changes, "train.epochs=1", "train.warmup_ratio=0"), tmp_path)
    (line,) = (
        line
        for line in read_history(next(tmp_path.rglob("history.jsonl")).parent)
        if "train/learning_rate" in line
    )
    assert line["train/learning_rate"] == pytest.approx(1e-2)
    assert sorted(passes.values())[-2:] == [2, 2]
