"""Image classifiers in training: every method, interruption, which epoch's adapter is kept."""

import numpy as np
import pytest
import torch
from pyarrow import parquet

from experiments.metrics import selection
from experiments.results import predictions
from experiments.results.history import read_history
from experiments.run.main import run
from experiments.seeding import stream

TINY = [
    "model=vit_tiny",
    "model.sizes.num_hidden_layers=2",
    "task=cifar10",
    "source=none",
    "train.batch_size=50",
    "train.weight_decay=1e-4",
    "train.head_learning_rate=3e-3",
]
FOURIERFT = ["method=fourierft", "method.n=500", "method.alpha=20", "train.learning_rate=0.1"]
PLAIN = ["train.learning_rate=1e-2", "train.epochs=1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(data_folder, tmp_path_factory):
    """The first 600 and 100 images of CIFAR-10."""
    folder = tmp_path_factory.mktemp("cifar10")
    for split, rows in (("train", 600), ("test", 100)):
        table = parquet.read_table(data_folder / f"cifar10/{split}.parquet")
        parquet.write_table(table.slice(0, rows), folder / f"{split}.parquet")
    return folder


@pytest.fixture
def tiny(compose, photographs, tmp_path, monkeypatch):
    """A small ViT with random weights on real images."""
    monkeypatch.setattr(selection, "RESAMPLES", 20)
    place = f"task.path={photographs}"
    return lambda output, *overrides: compose(
        [*TINY, place, f"output={tmp_path}/{output}", *overrides]
    )


def folder_of(tmp_path, output):
    return next((tmp_path / output).rglob("config.yaml")).parent


def arrays(place):
    return {
        path.name: {key: value.tobytes() for key, value in np.load(path).items()}
        for path in (place / predictions.FOLDER).glob("*.npz")
    }


def test_an_interrupted_run_ends_as_one_in_one_go(tiny, tmp_path, monkeypatch):
    """Augmentation, order, predictions, adapter and record are equal to the last bit; the
    second half even without the loader processes of the first."""
    settings = [*FOURIERFT, "task.train_rows=200", "train.epochs=4"]
    whole = run(tiny("whole", *settings, "train.workers=2"))

    store, calls = predictions.save, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 6:  # the third epoch's test split
            raise KeyboardInterrupt
        store(*args)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny("parts", *settings, "train.workers=1"))
    parts = run(tiny("parts", *settings))
    assert parts.time["resumed_from"] == 8 and whole.time["resumed_from"] is None
    assert parts.metrics == whole.metrics
    one, two = folder_of(tmp_path, "whole"), folder_of(tmp_path, "parts")
    curves = [[{**line, "elapsed_s": 0} for line in read_history(place)] for place in (one, two)]
    assert curves[0] == curves[1] and len(curves[0]) == 8
    assert arrays(one) == arrays(two) and len(arrays(one)) == 8
    weights = [(place / "adapter/adapter_model.safetensors").read_bytes() for place in (one, two)]
    assert weights[0] == weights[1]


def test_workers_do_not_pile_up(tiny, monkeypatch):
    """Every evaluation once brought processes of its own, which stayed."""
    from multiprocessing import active_children

    from experiments.training.trainer import Trainer

    alive, evaluate = [], Trainer.evaluate

    def counted(self, **kwargs):
        values = evaluate(self, **kwargs)
        alive.append(len(active_children()))
        return values

    monkeypatch.setattr(Trainer, "evaluate", counted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(1))  # more than cores never help
    settings = ["method=linear_probe", "task.train_rows=50", "task.eval_rows=10", PLAIN[0]]
    run(tiny("workers", *settings, "train.epochs=3", "train.workers=2"))
    assert alive == [3, 3, 3], "for training, validation and test"


def test_seeds_see_other_views(tiny, tmp_path):
    first = run(tiny("a", *FOURIERFT, "task.train_rows=100", "train.epochs=1"))
    other = run(tiny("b", *FOURIERFT, "task.train_rows=100", "train.epochs=1", "seed=1"))
    assert first.environment["data"] == other.environment["data"]
    assert first.metrics["last"] != other.metrics["last"]


def test_the_kept_adapter_is_the_best_validation_epochs(tiny, tmp_path):
    from peft import PeftModel

    config = tiny("kept", *FOURIERFT, "task.train_rows=400", "train.epochs=5")
    record = run(config)
    best = record.metrics["best"]
    on_validation = [
        (entry.predictions.argmax(1) == entry.references).mean()
        for entry in predictions.load(folder_of(tmp_path, "kept"), "validation")
    ]
    assert best["step"] == 8 * (1 + int(np.argmax(on_validation)))
    assert best["chosen_on"] == {"split": "validation", "value": max(on_validation)}
    assert record.metrics["primary"]["split"] == "test" and record.metrics["heldout"] is None

    place = folder_of(tmp_path, "kept")
    data = config.task.load(config.model.processor(None), config.task.locate())
    torch.manual_seed(stream(config.seed, "head"))
    net = PeftModel.from_pretrained(
        config.model.build(config.task.head, None), place / "adapter"
    ).eval()
    with torch.no_grad():
        batch = data.collate(list(data.evaluations["test"]))
        logits = net(**batch).logits.numpy()
    stored = {entry.step: entry.predictions for entry in predictions.load(place, "test")}
    assert np.allclose(logits, stored[best["step"]], atol=1e-4)


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        (("fourierft", "method.n=500", "method.alpha=20"), 2 * 2 * 500),
        (("lora", "method.r=4", "method.alpha=4"), 2 * 2 * 2 * 128 * 4),
        (("full",), None),
        (("linear_probe",), 0),
        (("bitfit",), 128 + 2 * (4 * 128 + 2 * 128 + 512 + 128) + 128),
    ],
)
def test_every_method_trains(tiny, tmp_path, method, adapter):
    name, *sizes = method
    record = run(tiny(name, f"method={name}", *sizes, "profile=smoke", *PLAIN))
    if adapter is not None:
        assert record.parameters["adapter"] == adapter
    assert record.parameters["head"] == 10 * 128 + 10
    assert record.environment["rows"] == {
        "train": 16,
        "scored validation": 16,
        "scored test": 16,
    }
    assert 0 <= record.metrics["primary"]["value"] <= 1


def test_accumulated_batches_give_the_same_losses(tiny, tmp_path):
    losses = []
    for parts in (1, 5):
        settings = ["task.train_rows=100", "train.epochs=3", f"train.accumulation={parts}"]
        run(tiny(f"by {parts}", *FOURIERFT, *settings))
        history = read_history(folder_of(tmp_path, f"by {parts}"))
        losses.append([line["train/loss"] for line in history if "train/loss" in line])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4) and len(losses[0]) == 3
