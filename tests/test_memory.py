"""Expected memory against what tensors really take."""

import pytest
import torch
from peft import PeftModel

from experiments.run.build import build_network
from experiments.tasks import Data
from experiments.training import memory
from experiments.training.train_config import Sharding
from experiments.training.weight_bytes import count_weight_bytes

COUNT = ["mode=count", "task=alpaca", "source=none"]
FOURIER = ["method=fourierft", "method.n=1000", "method.alpha=8"]
TRAIN = ["train.epochs=1", "train.batch_size=4", "train.learning_rate=0.1", "train.select=last"]


def counted(compose, *overrides):
    run = compose([*COUNT, *overrides])
    net = run.method.apply(run.model.build(run.task.head, None, meta=True), run.model.head)
    return memory.estimate_memory(net, run.model, run.task, None, None)


@pytest.fixture
def story(compose, data_folder):
    """Function: overrides -> configuration and network of the small LLaMA with its weights."""

    def made(*overrides):
        path = f"model.path={data_folder}/models/stories260K"
        run = compose(["model=stories260k", path, "task=alpaca", "source=none", *TRAIN, *overrides])
        return run, build_network(run, run.model.path)

    return made


def data_of(tokens, rows=8, **changes):
    given = {"train": [{}] * rows, "evaluations": {}, "collate": None, "fingerprint": ""}
    return Data(**given | {"lengths": [tokens] * rows} | changes)


@pytest.mark.slow
def test_weights_gradients_and_averages_of_a_known_model(compose):
    """LLaMA-2 7B has 6,738,415,616 numbers, FourierFT trains 64,000 of its own."""
    buffers = 1e5
    found = counted(compose, "model=llama2_7b", *FOURIER)
    assert found["weights"] == pytest.approx(4 * (6_738_415_616 + 64_000), abs=buffers)
    assert (found["gradients"], found["optimizer"]) == (4 * 64_000, 8 * 64_000)
    half = counted(compose, "model=llama2_7b", "model.dtype=bf16", *FOURIER)
    assert half["weights"] == pytest.approx(2 * 6_738_415_616, abs=2 * buffers + 4 * 64_000)


@pytest.mark.slow
def test_quantised_weights_of_a_known_model(compose):
    """Embeddings and language model head stay as they are; of the rest, NF4 takes 4.127 bits."""
    found = counted(
        compose, "model=llama2_13b", "model.dtype=bf16", "model.quantization=nf4", *FOURIER
    )
    plain = 2 * 32_000 * 5120
    linear = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
    expected = 2 * plain + linear * (4 + 8 / 64 + 32 / (64 * 256)) / 8
    assert found["weights"] == pytest.approx(expected, rel=1e-3)
    assert found["weights"] < 7.3e9


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_weights_are_what_was_counted_without_them(story, compose, quantization):
    _, net = story(f"model.quantization={quantization}", *FOURIER)
    found = counted(compose, "model=stories260k", f"model.quantization={quantization}", *FOURIER)
    measured = count_weight_bytes(net, None)
    assert found["weights"] == pytest.approx(measured, rel=0.02)
    assert measured < 4 * 260_032, "nothing was quantised"


def saved(net, batch):
    """Bytes that autograd really keeps of a forward pass, parameters left out."""
    own = {id(value) for value in [*net.parameters(), *net.buffers()]}
    storages = {value.untyped_storage()._cdata for value in net.parameters()}
    kept = {}

    def keep(value):
        if id(value) not in own and value.untyped_storage()._cdata not in storages:
            kept[value.untyped_storage()._cdata] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        net(**batch)
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        (["method=full"], (0.9, 1.1)),
        (["method=lora", "method.r=2", "method.alpha=2"], (0.85, 1.1)),
        ([*FOURIER], (0.7, 1.1)),  # kept as long as the coefficients: W0 + DeltaW on a CPU
    ],
)
def test_what_a_forward_pass_keeps(story, method, limits):
    run, net = story(*method)
    net.train()
    rows, tokens = 4, 200
    ids = torch.randint(3, 500, (rows, tokens))
    mask = torch.ones_like(ids)
    mask[1, 150:] = 0  # padding, as nearly every batch has
    real = saved(net, {"input_ids": ids, "attention_mask": mask, "labels": ids})
    found = memory._estimate_activations(net, run.model, run.task.head, False, rows, tokens)
    assert limits[0] * real < found < limits[1] * real, (found, real)


@pytest.mark.slow
def test_checkpointing_half_precision_and_short_rows_take_less(story):
    def step(tokens, *overrides):
        run, net = story(*FOURIER, *overrides)
        return memory.estimate_memory(net, run.model, run.task, run.train, data_of(tokens))["step"]

    whole = step(400)
    assert step(400, "train.gradient_checkpointing=true") < whole / 2
    assert step(400, "train.precision=bf16") < whole
    assert step(100) < whole / 3
    assert step(400, "train.accumulation=4") == pytest.approx(whole / 4, rel=0.1)


@pytest.mark.slow
def test_evaluation_and_generation_count_where_they_are_larger(story):
    run, net = story(*FOURIER, "train.eval_batch_size=64")
    rows = {"validation": [{}] * 64}
    alone = memory.estimate_memory(net, run.model, run.task, run.train, data_of(300))
    both = memory.estimate_memory(
        net,
        run.model,
        run.task,
        run.train,
        data_of(300, evaluations=rows, prompts={"mt_bench": [{}]}),
    )
    assert alone["evaluation"] is None and alone["generation"] is None
    assert both["evaluation"] >= 3 * 64 * 300 * 512 * 4
    heads, layers = 4 * 8, 5
    assert both["generation"] == 4 * 512 * 2 * heads * layers * 4
    asked = data_of(300, prompts={"mt_bench": [{}]}, longest=100)
    short = memory.estimate_memory(net, run.model, run.task, run.train, asked)
    assert short["generation"] == 4 * 100 * 2 * heads * layers * 4
    fixed = sum(both[key] for key in ("weights", "gradients", "optimizer", "updates"))
    passing = max(both[key] for key in ("step", "evaluation", "generation"))
    assert both["total"] == fixed + passing


@pytest.mark.slow
def test_effective_weights_are_those_of_the_engine(story):
    cells, net = 5 * (64 * 64 + 64 * 32), story(*FOURIER)[1]
    assert memory._effective_weights(net, "cpu", "cache", False) == 4 * cells
    assert memory._effective_weights(net, "cpu", "cache", True) == 2 * cells
    gpu = "cuda:0"  # where the trainer will move it
    assert memory._effective_weights(net, gpu, "cache", False) == 0
    assert memory._effective_weights(net, gpu, "batched", False) == 4 * cells
    frugal = story(*FOURIER, "method.memory=recompute")[1]
    for device in ("cpu", gpu):
        assert memory._effective_weights(frugal, device, "cache", False, held=True) == 0
        assert memory._effective_weights(frugal, device, "save", False) == 0
    quantised = story(*FOURIER, "model.quantization=nf4")[1]
    assert isinstance(quantised, PeftModel)
    assert memory._effective_weights(quantised, gpu, "save", False) == 0
    assert memory._effective_weights(quantised, "cpu", "cache", False) == 0
    assert memory._effective_weights(quantised, "cpu", "cache", False, held=True) == 4 * cells


def test_a_step_counts_what_is_saved_for_its_backward_pass(story, monkeypatch):
    """`memory=save` without checkpointing: in all layers at once."""
    monkeypatch.setattr(memory, "_estimate_activations", lambda *_: 1000)
    cells, found = 5 * (64 * 64 + 64 * 32), {}
    for use in ("save", "cache", "recompute", "batched", "kept"):
        run, net = story(*FOURIER, f"method.memory={use}")
        found[use] = memory.estimate_memory(net, run.model, run.task, run.train, data_of(50))
    steps = {use: one["step"] for use, one in found.items()}
    assert steps["save"] == steps["recompute"] + 4 * cells == steps["cache"] + 4 * cells
    # Groups of five layers: their updates, and of the gradients as much.
    assert steps["batched"] == steps["save"] + 2 * 4 * (5 - 1) * 64 * 64
    assert found["kept"] == found["batched"]
    assert found["save"]["total"] == found["cache"]["total"] > found["recompute"]["total"]


def test_processes_that_share_a_network_need_a_part_each(story, monkeypatch):
    run, net = story("method=full", "train.learning_rate=1e-4", "train.batch_size=8")
    alone = memory.estimate_memory(net, run.model, run.task, run.train, data_of(50))
    monkeypatch.setenv("WORLD_SIZE", "4")
    replica = memory.estimate_memory(net, run.model, run.task, run.train, data_of(50))
    run.train.sharding = Sharding.fsdp
    part = memory.estimate_memory(net, run.model, run.task, run.train, data_of(50))
    for key in ("weights", "gradients", "optimizer"):
        assert replica[key] == alone[key]
        assert part[key] == pytest.approx(alone[key] / 4, abs=1)
    assert (alone["rows"], replica["rows"], part["rows"]) == (8, 2, 2)
    block = sum(value.nbytes for value in net.model.layers[0].parameters())
    outside = alone["gradients"] - len(net.model.layers) * block
    assert part["gathered"] == 3 * block + outside and "gathered" not in alone
    assert "gathered" in memory.format_estimate(part)


def test_models_that_are_no_transformers_have_no_step(compose):
    run = compose(["model=mlp", "task=toy"])
    net = build_network(run, None)
    found = memory.estimate_memory(net, run.model, run.task, run.train, None)
    assert found["step"] is None and found["total"] > found["weights"] > 0
    assert "GB" in memory.format_estimate(found)


def test_a_model_that_cannot_run_dry_costs_no_run(story, monkeypatch):
    run, net = story(*FOURIER)
    monkeypatch.setattr(type(run.model), "build", lambda *_, **__: 1 / 0)
    found = memory.estimate_memory(net, run.model, run.task, run.train, data_of(50))
    assert found["step"] is None and found["total"] > 0


@pytest.mark.slow
def test_an_encoder(compose):
    run = compose(
        ["model=roberta_base", "model.pretrained=false", "task=cola", *FOURIER, "source=none"]
        + ["train.epochs=1", "train.batch_size=32", "train.learning_rate=0.1", "mode=count"]
    )
    net = run.method.apply(run.model.build(run.task.head, None, meta=True), run.model.head)
    found = memory.estimate_memory(net, run.model, run.task, None, None)
    assert found["tokens"] == 512 and 1e8 < found["step"] < 1e9
