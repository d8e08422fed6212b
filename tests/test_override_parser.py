"""Overrides within limits: what would take a minute is refused in a moment."""

import time

import pytest

from experiments.config import override_parser, sweep
from experiments.config.compose import register
from experiments.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.targets=[" + "layer," * 20_000 + "x]", "120,018 characters (allowed: 10,000)"),
        ("x=" + "[" * 500 + "]" * 500, "more than 30 nested brackets"),
        ("x=" + "${a:" * 500 + "}" * 500, "more than 30 nested brackets"),
        ("seed=" + "9" * 5000, "Exceeds the limit"),
        ("nonsense", "nonsense: not an override, write key=value"),
        ("--seed=1", "--seed=1: not an override"),
        ("seed='1", "quote a value with special characters"),
        ("=1=2", "write key=value"),
        ("seed=range(a)", "write key=value"),
        ("seed=cast(1)", "write key=value"),
        ("", "not an override"),
    ],
)
def test_what_is_no_override(typed, said):
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        override_parser.parse(typed)
    assert said in str(caught.value) and len(str(caught.value)) < 600
    assert time.process_time() - began < 2


def test_long_texts_are_shown_in_part():
    assert (
        override_parser.shorten("x" * override_parser.MAX_SHOWN) == "x" * override_parser.MAX_SHOWN
    )
    assert override_parser.shorten("a" * 9000 + "b", 10) == "aaaaa…aaaab"


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("seed=3", 1),
        ("seed=[1,2]", 1),
        ("seed=1,2,2", 3),
        ("seed=choice(1,2)", 2),
        ("seed=range(5)", 5),
        ("seed=range(2,8,3)", 2),
        ("seed=range(8,2,-3)", 2),
        ("x=range(0,1,0.25)", 4),
        ("x=range(0.5)", 1),
        ("seed=range(0)", 0),
        ("seed=range(3,1)", 0),
        ("seed=range(1000000000)", 10**9),
        ("model=glob(gpt2_*)", 3),
        ("model=glob([gpt2_*,vit_*],exclude=*_tiny)", 6),
        ("method.n=glob(*)", 0),
        ("x=interval(1,2)", 1),
    ],
)
def test_values_are_counted_without_being_spelled_out(typed, number):
    assert override_parser.count_values(override_parser.parse(typed)) == number


def test_spelled_as_hydra_does():
    register()
    for typed in ("x=range(0,1,0.25)", "x=1,'a b',[1,2],{a: 1},null", "x=sort(3,1,2)", "+x=1,2"):
        override = override_parser.parse(typed)
        values = list(override.sweep_string_iterator())
        assert override_parser.expand_sweep(override) == [
            f"{override.get_key_element()}={one}" for one in values
        ]
    assert override_parser.expand_sweep(override_parser.parse("x=range(5)"), 2) == ["x=0", "x=1"]
    assert override_parser.expand_sweep(override_parser.parse("method=glob(lora*)")) == [
        "method=lora",
        "method=lora_all",
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("seed=range(1000000000)", "1,000,000,000 values (allowed: 10,000 runs in a sweep)"),
        ("seed=shuffle(range(1000000000))", "1,000,000,000 values"),
        ("seed=range(0)", "has no values"),
        ("seed=range(0,1,0)", "an infinite range"),
        ("x=range(0,inf)", "an infinite range"),
        ("method.n=glob(*)", "has no values"),
    ],
)
def test_sweeps_that_nobody_runs(typed, said):
    with pytest.raises(ConfigError, match="^") as caught:
        override_parser.expand_sweep(override_parser.parse(typed))
    assert said in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        list(sweep.compose_cells(None, [typed]))
    assert said in str(caught.value)
