"""Fields that identify a run, and folder names: readable, short, different where changes are."""

import pytest

from experiments.config.run_config import IDENTITY
from experiments.results.identity import name_variant


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, ""),
        ({"method.n": 5}, "n=5"),
        ({"train.epochs": 3.0, "method.n": 5}, "n=5,epochs=3"),
        ({"train.learning_rate": 1e-5}, "learning_rate=1e-05"),
        ({"train.learning_rate": 0.1234567891}, "learning_rate=0.1234567891"),
        ({"method.alpha": 1.0, "other.alpha": 2.0}, "method.alpha=1,other.alpha=2"),
        ({"train.max_steps": None, "x.on": True}, "max_steps=null,on=true"),
    ],
)
def test_variant_is_readable(changes, name):
    assert name_variant(changes) == name


def test_variant_does_not_depend_on_the_order():
    changes = {"a.x": 1, "b.y": 2, "c.z": 3}
    assert name_variant(changes) == name_variant(dict(reversed(changes.items())))


def test_variants_differ_where_the_changes_do():
    changes = [
        {"a.x": 0.1},
        {"a.x": 0.1 + 1e-9},
        {"a.x": "0/1"},
        {"a.x": "0 1"},
        {"a.x": "0_1"},
        {"a.x": [0, 1]},
        {"a.x": {"y": 1}},
        {"a.x": "../../etc"},
        {"a.x": "Größe=1"},
        {"a.x": "y" * 200},
        {"a.x": "y" * 199 + "z"},
        {f"a.x{i}": i for i in range(40)},
        {f"a.x{i}": i for i in range(41)},
    ]
    names = [name_variant(change) for change in changes]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name and not any(letter.isspace() for letter in name)
        assert 0 < len(name.encode()) <= 120


def test_long_variants_stay_readable_at_the_front():
    name = name_variant({f"a.key{i}": i for i in range(40)})
    assert name.startswith("key0=0,key1=1,")


def test_local_fields_are_those_of_earlier_versions():
    """Records of earlier versions are compared by these; a field added to the table is a choice."""
    assert IDENTITY == {
        "mode": set(),
        "recipe": set(),
        "profile": set(),
        "seed": set(),
        "model": {"path", "tokenizer", "origin", "wheel"},
        "task": {
            *("path", "class_path", "extractor", "questions", "generation_batch_size"),
            "class_names",
        },
        "method": {"memory", "gradient"},
        "train": {
            *("accumulation", "eval_batch_size", "checkpoint_every"),
            *("workers", "gradient_checkpointing", "device", "sharding", "deterministic"),
        },
    }
