"""Command lines nobody thought of: each is run or refused in a few lines, soon, and never raises.

Drawn with a seed from the whole of Hydra's grammar, right and wrong: choices and values, sweeps,
globs, ranges, functions, quotes, interpolations, packages, deletions, flags, huge lists.
FOURIERFT_LINES says how many.
"""

import functools
import os
import random
import signal
import time

import pytest
from processes import Started

from experiments.config import flags, overrides, paths, sweep
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load_config
from experiments.errors import UserError

SEED = 14
CASES = int(os.environ.get("FOURIERFT_LINES", "200"))
RUN = range(1500, 1514)
SLOWEST = 10.0
"""Seconds of CPU for one line; most take a tenth."""
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
OPTIONS = {name: sorted(path.stem for path in (CONF / name).glob("*.yaml")) for name in GROUPS}
KEYS = [
    *("seed", "row", "force", "output", "mode", "offline", "source", "variant", "recipe"),
    *("method.n", "method.alpha", "method.targets", "method.frequency_bias.center", "method.r"),
    *("method.fields", "method.name", "train.epochs", "train.batch_size", "train.betas", "train"),
    *("train.schedule", "train.device", "task.max_length", "task.metrics", "task.path", "task"),
    *("task.train_rows", "model.sizes", "model.sizes.a.b", "model.path", "model.width", "model"),
    *("hydra.mode", "hydra.run.dir", "hydra.searchpath", "hydra/launcher", "hydra.sweeper.params"),
    *("hydra", "hydra.job.name", "search", "method.n.m", "modle", "a.b.c", "", "..", "a..b", ".a"),
    *("method[n]", "method.targets[0]", "method.targets.0", "ü", "a b", "/etc", "model/gpt2", "1"),
    *("schema/model", "rehearsal/method", "_target_", "model@x", "method.n@y", "model@model.z"),
]
PLAIN = [
    *("0", "1", "-1", "3", "1e400", "-1e400", "nan", "inf", "0.5", "1_000", "007", "9" * 25),
    *(
        "9" * 5000,
        "true",
        "false",
        "null",
        "",
        " ",
        "a",
        "x y",
        "~",
        "#",
        "%",
        "ü",
        "データ",
        "\x00",
    ),
    *("a\nb", "\\", "a\\,b", "'a'", '"a"', "'", '"', "'a\\'b'", "a=b", "=", "a:b", "a,", ",", ",a"),
    *(
        "[]",
        "[1]",
        "[1,2]",
        "[a,[b]]",
        "{}",
        "{a: 1}",
        "{a:{b:[1]}}",
        "{1: 2}",
        "[",
        "}",
        "[1,",
        "()",
    ),
    *("${seed}", "${nope}", "${oc.env:HOME}", "${oc.env:NOPE}", "${oc.env:NOPE,3}", "${foo:1}"),
    *("${", "${a:${b}}", "${method}", "${oc.select:x,1}", "${oc.decode:'1'}", "${hydra:job.name}"),
    *("${now:%Y}", "${oc.create:{a: 1}}", "\\${seed}", "${.n}", "${..train}", "???", "!!python/x"),
    *("cuda:99", "../x", "/proc/x", "<x>", "$(x)", "a" * 9000, "[" * 40 + "]" * 40, "*", "\udcff"),
]
SWEEPS = [
    *("1,2", "1,a", "a,b", "0,1,2,null", "choice(1,2)", "choice(a)", "choice()", "range(3)"),
    *(
        "range(0,10,3)",
        "range(0)",
        "range(1000000000)",
        "range(0,1,0)",
        "range(0,1,0.1)",
        "range()",
    ),
    *(
        "range(a)",
        "shuffle(range(1000000000))",
        "shuffle(1,2)",
        "sort(3,1)",
        "sort(1,a)",
        "glob(*)",
    ),
    *(
        "glob([a*,b*],exclude=*x)",
        "glob(l*)",
        "interval(0,1)",
        "interval(1,0)",
        "tag(log,interval(1,2))",
    ),
    *(
        "tag(a,choice(1,2))",
        "int(3.7)",
        "str([1,2])",
        "bool(x)",
        "float('a')",
        "json_str([1])",
        "f(x)",
    ),
    *(
        "extend_list(1)",
        "cast(1)",
        "{a:1},{b:2}",
        "[1],[2]",
        "'a','b'",
        "range(0,1e300)",
        "mlp,gpt2",
    ),
]
FLAGS = [
    *(["--seed=1"], ["--epochs", "3"], ["--cfg", "job"], ["--cfg=all"], ["-c", "x"], ["--resolve"]),
    *(["-m"], ["--multirun"], ["-r"], ["--config-dir=/tmp"], ["--config-dir"], ["--config-name=x"]),
    *(["--config-path", "/tmp"], ["--experimental-rerun=x"], ["--info"], ["-i", "plugins"], ["-x"]),
    *(
        ["--package", "a"],
        ["-sc"],
        ["--"],
        ["-"],
        ["---"],
        ["--=1"],
        ["--ü"],
        ["-1"],
        ["--hydra-help"],
    ),
]

GOOD = [
    *(
        "seed=1",
        "train.epochs=2",
        "method.n=8",
        "method=lora",
        "task=toy",
        "model=mlp",
        "force=true",
    ),
    *("train.device=cpu", "method.alpha=2", "source=ours", "output='a b'", "task.max_length=16"),
    *("method.targets=[hidden]", "train.betas=[0.9,0.95]", "+model=mlp", "hydra.verbose=true"),
    *("method.n=${seed}", "output=${oc.env:HOME}/x", "train={epochs: 3}", "train.max_steps=null"),
]
BEYOND = [
    *(
        "seed=-1",
        "method.n=0",
        "train.epochs=nan",
        "model=gpt2",
        "task=none",
        "row=-1",
        "method=full",
    ),
    *("seed=${nope}", "train.batch_size=9999999999", "method.targets=[]", "task.metrics=[bleu]"),
]


def value(draw):
    kind = draw.random()
    if kind < 0.35:
        return draw.choice(PLAIN)
    if kind < 0.6:
        return draw.choice(SWEEPS)
    if kind < 0.64:
        return "[" + ",".join(f"layer{number}" for number in range(draw.choice([50, 20_000]))) + "]"
    if kind < 0.75:
        letters = "a1,=[]{}()'\"\\$:.~+@ /-ü"
        return "".join(draw.choice(letters) for _ in range(draw.randrange(1, 12)))
    return str(draw.choice([0, 1, 2, 8, 100, 0.1]))


def override(draw, tame):
    if draw.random() < tame:
        return draw.choice(draw.choices([GOOD, BEYOND], [4, 1])[0])
    if draw.random() < 0.4:
        group = draw.choice([*GROUPS, "model", "task", "method"])
        text = f"{group}={draw.choice(OPTIONS[group] or ['x'])}"
        if draw.random() < 0.3:
            text = f"{group}={value(draw)}"
    else:
        text = f"{draw.choice(KEYS)}={value(draw)}"
    prefix = draw.choices(["", "+", "++", "~", "~+", "-"], [16, 2, 2, 2, 1, 1])[0]
    if prefix == "~" and draw.random() < 0.5:
        text = text.partition("=")[0]
    return draw.choices([prefix + text, text.replace("=", " ", 1)], [30, 1])[0]


def line(number):
    draw = random.Random(f"{SEED}/{number}")
    tame = draw.choice([0.0, 0.0, 0.0, 0.5, 1.0])  # lines with no mistake, one, or nothing else
    words = [override(draw, tame) for _ in range(draw.choices([1, 2, 3, 6], [10, 5, 2, 1])[0])]
    if draw.random() < 0.3 and tame < 1:
        place = draw.randrange(len(words) + 1)
        words[place:place] = draw.choice(FLAGS)
    return words


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_line_is_refused_in_words_or_composed(monkeypatch):
    """As train.py does it, and what prefetch and status make of its cells."""
    register()
    composed = compose_config
    cached = functools.lru_cache(maxsize=256)(
        lambda texts, with_hydra: composed(list(texts), with_hydra=with_hydra)
    )

    def remembered(texts, *, with_hydra=False):
        return cached(tuple(texts), with_hydra).copy()

    for module in (overrides, sweep):
        monkeypatch.setattr(module, "compose_config", remembered)
    signal.signal(signal.SIGVTALRM, too_long)
    outcomes = {"refused": 0, "not a run": 0, "a run": 0}
    for number in range(CASES):
        words, began = line(number), time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, SLOWEST)
        try:
            outcome = judged(words)
        except BaseException as error:
            raise AssertionError(f"line {number} raised: {words}"[:2000]) from error
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        spent = time.process_time() - began
        assert spent < SLOWEST, f"line {number} took {spent:.1f} s: {words}"[:2000]
        outcomes[outcome] += 1
    print(outcomes)
    assert min(outcomes.values()) > CASES / 50, outcomes


def too_long(*_):
    raise TimeoutError(f"more than {SLOWEST} s")


def judged(words):
    """What becomes of a line."""
    words = paths.quote_paths(words)
    said = overrides.find_problems(words)
    if said:
        assert all(0 < len(one) < 3000 and "Traceback" not in one for one in said)
        return "refused"
    texts = flags.parse_arguments(words).overrides
    try:
        load_config(compose_config(texts))
        return "a run"
    except UserError as error:
        assert 0 < len(str(error)) < 6000
    try:
        next(sweep.compose_cells(None, texts), None)
    except UserError as error:
        assert str(error)
    return "not a run"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_lines_are_really_run(tmp_path):
    """Short lines, trained for a moment where they fit."""
    tiny = ["train.epochs=1", "train.max_steps=1", "train.device=cpu", "task.points_per_class=4"]
    statuses = set()
    for number in RUN:
        words = [word for word in line(number) if "\x00" not in word and len(word) < 5000]
        process = Started("train.py", *tiny, f"output={tmp_path}", *words, folder=tmp_path)
        said, _ = process.communicate(timeout=300)
        assert "Traceback" not in said, f"{words}\n{said[-3000:]}"
        assert process.returncode in (0, 1) and (said or process.returncode == 0), words
        statuses.add(process.returncode)
    assert statuses == {0, 1}
