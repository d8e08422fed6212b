"""The line about a finished run."""

from types import SimpleNamespace

import pytest

from experiments.results.record import Record
from experiments.run import description

RUN = {"model": "minilm", "task": "sst2", "method": "lora", "variant": "rank=4"}
PRIMARY = {"name": "accuracy", "select": "best", "value": 0.75, "interval": [0.7, 0.8]}


def described(**changes):
    given = {"run": RUN, "parameters": {"adapter": 1200, "stored_bytes": 4800, "head": 30}}
    given |= {"metrics": {"primary": PRIMARY}} | changes
    return description.summarize(Record(config={}, time={}, memory={}, environment={}, **given))


def test_the_line():
    assert described() == (
        "minilm sst2 lora rank=4: 1,200 adapter parameters (4,800 bytes) + 30 in the head; "
        "best accuracy 0.7500 [0.7000, 0.8000]"
    )


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"metrics": None}, "in the head"),
        ({"metrics": {"primary": PRIMARY | {"interval": None}}}, "best accuracy 0.7500"),
        ({"metrics": {"primary": PRIMARY | {"value": None}}}, "no accuracy that is finite (best)"),
        ({"metrics": {}}, "in the head"),
        ({"parameters": {"adapter": 1, "stored_bytes": 4}, "metrics": None}, "(4 bytes)"),
        ({"run": RUN | {"variant": None}, "metrics": None}, "in the head"),
    ],
)
def test_what_a_record_may_lack(changes, end):
    assert described(**changes).endswith(end)


@pytest.mark.parametrize(
    ("source", "recipe", "trains", "said"),
    [
        ("paper", "ours", True, True),
        ("paper", "paper", True, False),
        ("none", "ours", True, False),
        ("paper", "ours", False, False),
    ],
)
def test_values_of_another_source_are_announced(source, recipe, trains, said):
    part = SimpleNamespace
    config = part(source=source, recipe=recipe, mode=part(trains=trains),
                  method=part(name="lora"), model=part(name="vit_large"),
                  task=part(name="dtd"))  # fmt: skip
    expected = "source=paper: no recipe for lora on vit_large, dtd; the values are those of "
    expected += "source=ours"
    assert description.describe_fallback(config) == (expected if said else None)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("paper", "no misprint for fourierft on vit_large, dtd"),
     ("ours", "no recipe for fourierft on vit_large, dtd"),
     ("printed", None)],
)  # fmt: skip
def test_what_is_printed_falls_back_to_what_is_decided(recipe, said):
    part = SimpleNamespace
    config = part(source="printed", recipe=recipe, mode=part(trains=True), task=part(name="dtd"),
                  method=part(name="fourierft"), model=part(name="vit_large"))  # fmt: skip
    line = f"source=printed: {said}; the values are those of source={recipe}"
    assert description.describe_fallback(config) == (line if said else None)
