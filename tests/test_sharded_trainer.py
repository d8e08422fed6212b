"""train.sharding=fsdp: the losses, files and checkpoints of one process, on ranks that share it."""

import json
import re

import pytest
from processes import nodes, ranks
from pyarrow import parquet
from safetensors.torch import load_file
from test_distributed import METHODS, REGRESSION
from trained_parts import fit

from experiments.config.run_config import Config
from experiments.errors import UserError
from experiments.results import generations
from experiments.results.history import read_history
from experiments.results.identity import to_plain
from experiments.run import distributed
from experiments.run.main import run

SCORE = "validation/pearson"
SHARDED = "train.sharding=fsdp"
METHODS = METHODS | {
    "full": ["method=full", "train.learning_rate=1e-4"],
    "bitfit": ["method=bitfit", "train.learning_rate=5e-3"],
    "linear_probe": ["method=linear_probe", "train.learning_rate=5e-3"],
}
IMAGES = [
    *("model=vit_tiny", "model.sizes.num_hidden_layers=2", "task=cifar10", "source=none"),
    *("task.train_rows=35", "train.batch_size=32", "train.eval_every=0.5"),
]
FEW = ["train.epochs=2", "task.eval_rows=24", "train.checkpoint_every=1"]
FAIL_AT = 4  # within the second epoch, whose order of rows is another
VARIANTS = {
    "fourierft": [],
    "lora": ["train.accumulation=2", "train.max_grad_norm=0.5"],
    "full": ["train.gradient_checkpointing=true"],
    "bf16": ["train.precision=bf16"],
}
"""What is begun by one process and continued by two, each with something that sharding touches."""
ON_NODES = ("bitfit", "linear_probe", "vit")
"""What is trained on two nodes of one process each."""


def read_losses(folder):
    return [line["train/loss"] for line in read_history(folder) if "train/loss" in line]


def read_scores(folder):
    return [line[SCORE] for line in read_history(folder) if SCORE in line]


def read_weights(folder):
    (path,) = folder.glob("adapter/*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def trained(data_folder, tmp_path_factory):
    """Folders of runs of one process, and of the same runs that were sharded for some steps."""
    root = tmp_path_factory.mktemp("sharded")
    for split in ("train", "test"):
        table = parquet.read_table(data_folder / f"cifar10/{split}.parquet")
        parquet.write_table(table.slice(0, 64), root / f"{split}.parquet")

    def words(name):
        base, folder = REGRESSION, f"{data_folder}/glue/stsb"
        if name == "vit":
            base, folder = IMAGES, root
        method = METHODS.get(name, METHODS["fourierft"])
        given = *base, *method, *FEW, *VARIANTS.get(name, [])
        return [*given, f"task.path={folder}", f"output={root}"]

    jobs = []
    for name in VARIANTS:
        fit(words(name), root / f"{name}-alone")
        fit(words(name), root / f"{name}-two", fail_at=FAIL_AT)
        jobs.append([[*words(name), SHARDED], f"{root}/{name}-two"])
    replicated = [*words("lora"), "train.epochs=1"]
    jobs += [[replicated, f"{root}/used"], [replicated, f"{root}/unused", None, True]]
    given = {name: [*words(name), "train.epochs=1"] for name in ON_NODES}
    for name, plain in given.items():
        fit(plain, root / f"{name}-alone")
    there = [[[*plain, SHARDED], f"{root}/{name}-nodes"] for name, plain in given.items()]
    (root / "nodes.json").write_text(json.dumps(there))
    statuses, printed = nodes(2, "tests/trained_parts.py", f"{root}/nodes.json")
    assert statuses == [0, 0], printed[-3000:]
    for number, given in (2, jobs), (4, [[[*words("four"), SHARDED], f"{root}/four", FAIL_AT]]):
        (root / "jobs.json").write_text(json.dumps(given))
        statuses, printed = ranks(number, "tests/trained_parts.py", f"{root}/jobs.json")
        assert statuses == [0] * number, printed[-3000:]
        if number == 2:
            (root / "printed").write_text(printed)
            (root / "jobs.found").rename(root / "two.found")
    fit(words("four"), root / "four")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_of_one_process_goes_on_sharded(trained, name):
    alone, two = (trained / f"{name}-{how}" for how in ("alone", "two"))
    close = 1e-2 if name == "bf16" else 1e-5
    one = read_losses(alone)
    assert len(one) == 4 and read_losses(two) == pytest.approx(one, abs=close)
    here, there = read_weights(alone), read_weights(two)
    assert here.keys() == there.keys()
    for key, value in here.items():
        assert value.dtype == there[key].dtype
        # AdamW makes whole steps of the few gradients that are nothing but rounding errors.
        assert ((there[key] - value).abs() < 10 * close).float().mean() > 0.95, key
    if name == "bf16":  # and not in fp32, which would be as close
        assert read_losses(two) != pytest.approx(read_losses(trained / "fourierft-alone"), abs=1e-4)
        return
    for mine, theirs in zip(read_scores(alone), read_scores(two), strict=True):
        assert theirs == pytest.approx(mine, abs=close)


@pytest.mark.slow
def test_processes_draw_dropout_of_their_own(trained):
    assert len({path.read_text() for path in trained.glob("jobs.seed*")}) == 4


@pytest.mark.slow
def test_a_run_of_four_processes_goes_on_in_one(trained):
    wanted = read_losses(trained / "fourierft-alone")
    assert read_losses(trained / "four") == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_NODES)
def test_two_nodes_train_as_one_process_does(trained, name):
    """Each with a launcher of its own, and one process that is the first of its node."""
    alone, nodes = trained / f"{name}-alone", trained / f"{name}-nodes"
    wanted = read_losses(alone)
    assert len(wanted) == 2 and read_losses(nodes) == pytest.approx(wanted, abs=1e-5)
    here, there = read_weights(alone), read_weights(nodes)
    assert here.keys() == there.keys()
    for key, value in here.items():
        assert ((there[key] - value).abs() < 1e-4).float().mean() > 0.95, key


@pytest.mark.slow
def test_replicas_look_for_unused_parameters_only_where_there_are_some(trained):
    *_, used, unused = json.loads((trained / "two.found").read_text())
    assert (used, unused) == (False, True)
    assert read_losses(trained / "used") == read_losses(trained / "unused")
    assert "find_unused_parameters=True was specified" not in (trained / "printed").read_text()


@pytest.mark.slow
def test_a_sharded_language_model_answers_as_one_process_would(
    compose, data_folder, tmp_path, monkeypatch
):
    """A whole run: its first process answers with the network that it kept."""
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    words = [
        *("model=stories260k", f"model.path={data_folder}/models/stories260K", "source=none"),
        *("task=alpaca", f"task.path={data_folder}/alpaca", f"task.questions={data_folder}"),
        *("task.train_rows=9", "task.validation_rows=8", "task.eval_rows=2", "task.max_length=512"),
        *("task.max_new_tokens=4", "train.batch_size=8", "train.epochs=1", "train.select=last"),
        *("method=full", "train.learning_rate=1e-3", "train.label_smoothing=0.1"),
        "train.eval_every=0.5",  # the second step has a row for one process alone
    ]
    alone = run(compose([*words, f"output={tmp_path}/alone"]))
    statuses, printed = ranks(2, "train.py", *words, SHARDED, f"output={tmp_path}/shared")
    assert statuses == [0, 0], printed[-3000:]
    here, there = (
        next((tmp_path / root).rglob("metrics.json")).parent for root in ("alone", "shared")
    )
    assert read_losses(there) == pytest.approx(read_losses(here), abs=1e-5)
    for path in here.glob("generations/*.jsonl"):
        mine, theirs = (
            [line["choices"] for line in generations.read(folder / "generations" / path.name)]
            for folder in (here, there)
        )
        assert len(mine) == 2 and theirs == mine
    record = json.loads((there / "metrics.json").read_text())
    assert record["parameters"] == alone.parameters
    assert record["metrics"]["primary"]["value"] == pytest.approx(
        alone.metrics["primary"]["value"], abs=1e-5
    )
    found = record["environment"]
    assert (found["sharding"], found["ranks"]) == ("fsdp", 2)
    assert alone.environment["sharding"] == "none"
    forecast = record["preflight"]["memory"], alone.preflight["memory"]
    assert forecast[0]["optimizer"] == pytest.approx(forecast[1]["optimizer"] / 2, abs=1)


def test_sharding_is_not_another_result(compose):
    plain, shared = (
        compose(["model=roberta_base", "task=stsb", *extra]) for extra in ((), (SHARDED,))
    )
    assert Config.identify(to_plain(plain)) == Config.identify(to_plain(shared))
    assert plain.variant == shared.variant == ""


def test_one_process_has_nobody_to_share_with(compose, tmp_path):
    words = ["model=roberta_base", "task=stsb", SHARDED, f"output={tmp_path}"]
    with pytest.raises(UserError, match="one process has nothing to share") as found:
        run(compose(words))
    assert "torchrun --nproc_per_node" in str(found.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot be divided"):
        distributed.check_processes(3, 2, sharded=False)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model=mlp", "task=toy"], "model=mlp"),
        (["model=sd_tiny", "task=dreambooth"], "model=sd_tiny"),
        (["model=llama2_7b", "task=alpaca", "model.quantization=nf4"], "model.quantization=nf4"),
        (["model=llama2_7b", "task=alpaca", "model.quantization=int8"], "model.quantization=int8"),
        (["model=roberta_base", "task=rte", "method=adalora"], "method=adalora"),
        (["model=roberta_base", "task=rte", "method.memory=cache"], "method.memory=cache"),
        (["model=roberta_base", "task=rte", "train.precision=fp16"], "train.precision=fp16"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(compose, words, named):
    with pytest.raises(UserError, match=re.escape(f"train.sharding=fsdp: {named}")):
        compose([*words, SHARDED])
