"""The bar of a training on a terminal."""

import logging
import sys
from pathlib import Path

import datasets
import pytest
from transformers import TrainerControl, TrainerState, trainer_utils

from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.run.main import run
from experiments.tasks import token_cache
from experiments.training import trainer  # noqa: F401  quiets the warning
from experiments.training.progress import TrainingBar


@pytest.fixture
def bar():
    bar = TrainingBar()
    yield bar
    bar.on_train_end(None, TrainerState(is_world_process_zero=True), TrainerControl())


def test_bar_has_step_loss_score_and_time_left(bar):
    state = TrainerState(max_steps=100, global_step=40)
    bar.on_train_begin(None, state, TrainerControl())
    state.global_step = 50
    bar.on_step_end(None, state, TrainerControl())
    bar.show(0.5, {"validation/accuracy": 0.75})
    shown = str(bar.training_bar)
    assert "50/100 [" in shown and "step" in shown
    assert shown.endswith("loss 0.5000, validation/accuracy 0.7500]")
    bar.training_bar.start_t -= 20  # ten steps in 20 seconds
    bar.training_bar.last_print_t = bar.training_bar.start_t + 20
    assert "<01:4" in str(bar.training_bar)


def test_every_split_has_its_own_bar(bar):
    state, control = TrainerState(max_steps=2), TrainerControl()
    bar.on_train_begin(None, state, control)
    seen = []
    for loader in ([0, 0], [0, 0, 0]):
        for _ in loader:
            bar.on_prediction_step(None, state, control, eval_dataloader=loader)
            seen.append((bar.prediction_bar.n, bar.prediction_bar.total))
    assert seen == [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]
    bar.on_evaluate(None, state, control)


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_has_a_bar(compose, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    run(compose(["train.epochs=2", "train.eval_every=1", f"output={tmp_path}"]))
    shown = capsys.readouterr().err
    assert ("2/2 [" in shown and "train/accuracy" in shown) is terminal


def test_tokens_are_made_without_a_bar_in_a_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path))
    datasets.enable_progress_bars()
    rows, tokenizer = datasets.Dataset.from_dict({"text": ["a", "b"]}), make_byte_tokenizer(514)
    token_cache.tokenise_rows(rows, lambda row: tokenizer(row["text"]), tokenizer, ["plain"])
    assert "Map" not in capsys.readouterr().err


def test_checkpoints_of_one_second_are_no_news(tmp_path, monkeypatch):
    log, told = logging.getLogger("transformers.trainer_utils"), []
    monkeypatch.setattr(log, "callHandlers", told.append)
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    log.warning_once.cache_clear()
    found = trainer_utils.sort_checkpoints(str(tmp_path), use_mtime=True)
    assert [Path(one).name for one in found] == ["checkpoint-2", "checkpoint-10"]
    log.warning("another")
    assert [one.msg for one in told] == ["another"]
