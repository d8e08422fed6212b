"""The command line of the judge: what can be asked for, and everything that is wrong with it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from experiments.judge.cases import benchmarks_of, find_runs
from experiments.judge.endpoint import is_loopback
from experiments.results import generations
from experiments.results.fastchat import BENCHMARKS

EXAMPLES = """\
examples:
  # how much would it be? (sends nothing)
  python -m experiments.judge --all outputs --questions DATA --model gpt-4 --dry-run

  # with OpenAI, the key in OPENAI_API_KEY, FastChat's own prompts
  python -m experiments.judge outputs/llama2_7b/alpaca/fourierft/seed=0 --questions DATA \\
      --base-url https://api.openai.com/v1 --model gpt-4 --prompts DATA/judge_prompts.jsonl

  # with a server on this machine, three judgements of every turn
  python -m experiments.judge --all outputs --questions DATA --base-url http://localhost:8000/v1 \\
      --model MODEL --repeats 3 --temperature 0.7

DATA is fastchat/llm_judge/data of FastChat: mt_bench/ and vicuna_bench/, each with question.jsonl
and reference_answer/. Stopped or failed, the same command again asks only for what is missing.
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads and checks the command line; `runs`, `key` and `judge_name` are filled in.

    Raises:
        SystemExit: status 2, after naming everything that is wrong.
    """
    parser = _parser()
    asked = parser.parse_intermixed_args(arguments)
    problems = list(_problems(asked))
    if problems:
        parser.error("\n".join(["", *(f"  - {problem}" for problem in problems)]))
    found = find_runs(asked.all, asked.benchmarks) if asked.all else []
    # One folder by two names would wait for itself.
    asked.runs = list({run.resolve(): run for run in [*found, *asked.runs]}.values())
    return asked


def read_key(variable: str) -> str | None:
    """The key, None if there is none."""
    return os.environ.get(variable, "").strip() or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.judge",
        usage="%(prog)s RUN... --questions FOLDER --base-url URL --model MODEL [options]",
        description="Grades stored answers to MT-Bench and Vicuna from 1 to 10 with a language "
        "model behind an OpenAI-compatible server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what is graded").add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="run folders that hold generations/")
    add("--all", type=Path, metavar="OUTPUTS", help="every run with answers below this folder")
    add("--benchmark", choices=BENCHMARKS, help="only this one (default: whatever has answers)")
    add("--questions", type=Path, metavar="FOLDER", help="question.jsonl and reference_answer/, or "
        "the folder of both benchmarks (default: the hub's copy of MT-Bench)")  # fmt: skip
    add("--partial", action="store_true", help="accept unanswered questions and missing references")

    add = parser.add_argument_group("who grades").add_argument
    add("--base-url", metavar="URL", help="up to and without /chat/completions")
    add("--model", help="the judge, as its server calls it")
    add("--name", help="name of the judge's files (default: the model's)")
    add("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable "
        "with the key (%(default)s); a server on this machine may need none")  # fmt: skip
    add("--prompts", type=Path, metavar="FILE", help="judge prompts in FastChat's format "
        "(default: ours)")  # fmt: skip
    add("--temperature", default="0", metavar="T", help="a number, or `server` (%(default)s)")
    add("--max-tokens", type=int, default=2048, metavar="N", help="of a reply (%(default)s)")
    add("--limit-field", choices=("max_tokens", "max_completion_tokens"), default="max_tokens",
        help="what the server calls that limit (%(default)s)")  # fmt: skip
    add("--repeats", type=int, default=1, metavar="K", help="independent judgements of every turn")
    add("--attempts", type=int, default=3, metavar="N", help="replies without a grade until a "
        "judgement has failed (%(default)s)")  # fmt: skip

    add = parser.add_argument_group("how").add_argument
    add(
        "--concurrency",
        type=int,
        default=4,
        metavar="N",
        help="requests side by side (%(default)s)",
    )
    add("--retries", type=int, default=6, metavar="N", help="after a failed request (%(default)s)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds per request (%(default)s)")
    add("--dry-run", action="store_true", help="say what would be asked, and send nothing")
    add("--price-in", type=float, metavar="P", help="price of a million tokens sent")
    add("--price-out", type=float, metavar="P", help="price of a million tokens received")
    return parser


def _problems(asked: argparse.Namespace) -> Iterator[str]:
    """Everything that is wrong; values that later code needs are put right on the way."""
    asked.benchmarks = [asked.benchmark] if asked.benchmark else list(BENCHMARKS)
    yield from _wrong_places(asked)
    yield from _wrong_numbers(asked)
    if not asked.model:
        yield "--model is missing: the judge, as its server calls it"
    if not asked.dry_run:
        yield from _wrong_endpoint(asked)


def _wrong_places(asked: argparse.Namespace) -> Iterator[str]:
    if not asked.runs and not asked.all:
        yield "no run: give run folders, or --all OUTPUTS"
    for run in asked.runs:
        if not run.is_dir():
            yield f"{run}: no such folder"
        elif not benchmarks_of(run, asked.benchmarks):
            files = " or ".join(str(generations.path_of(run, one)) for one in asked.benchmarks)
            yield f"{run}: no answers ({files})"
    if asked.all and not asked.all.is_dir():
        yield f"--all {asked.all}: no such folder"
    elif asked.all and not find_runs(asked.all, asked.benchmarks):
        yield f"--all {asked.all}: no run with answers in it"
    if asked.questions and not asked.questions.is_dir():
        yield f"--questions {asked.questions}: no such folder"
    if asked.prompts and not asked.prompts.is_file():
        yield f"--prompts {asked.prompts}: no such file"


def _wrong_numbers(asked: argparse.Namespace) -> Iterator[str]:
    for name in ("max_tokens", "repeats", "attempts", "concurrency"):
        if getattr(asked, name) < 1:
            yield f"--{name.replace('_', '-')} {getattr(asked, name)}: must be at least 1"
    for name, most in (("concurrency", 256), ("repeats", 1000), ("attempts", 1000)):
        if getattr(asked, name) > most:
            yield f"--{name} {getattr(asked, name)}: must be at most {most}"
    if asked.retries < 0:
        yield f"--retries {asked.retries}: must not be negative"
    if not (asked.timeout > 0 and math.isfinite(asked.timeout)):
        yield f"--timeout {asked.timeout:g}: must be positive"
    if (asked.price_in is None) != (asked.price_out is None):
        yield "--price-in and --price-out go together"
    given, asked.temperature = asked.temperature, None
    if given != "server":
        try:
            asked.temperature = float(given)
        except ValueError:
            asked.temperature = math.nan
        if not 0 <= asked.temperature <= 2:
            yield f"--temperature {given}: must be a number from 0 to 2, or `server`"


def _wrong_endpoint(asked: argparse.Namespace) -> Iterator[str]:
    try:
        url = urlsplit(asked.base_url or "")
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        url, port_is_one = urlsplit(""), False
    if not asked.base_url:
        yield "--base-url is missing: for instance https://api.openai.com/v1"
        return
    if "@" in url.netloc:
        # Not shown: what stands there is a secret.
        yield f"--base-url: no user or password in it; a key goes into {asked.key_variable}"
        return
    if url.scheme not in ("http", "https") or not url.hostname or not port_is_one or url.query:
        yield f"--base-url {asked.base_url}: must be http(s)://host[:port]/path"
        return
    key = read_key(asked.key_variable)
    if key is None and not is_loopback(asked.base_url):
        yield (
            f"{asked.key_variable} is not set: the key of {url.netloc} is taken from there "
            "(--key-variable NAME takes another; a server that wants none takes any word)"
        )
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        yield f"{asked.key_variable}: holds a space, line break or other character no key has"
