"""Command line of the judge."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from experiments.judge.benchmark_runs import find_benchmarks, find_runs
from experiments.judge.endpoint import is_loopback
from experiments.judge.prompts import find_prompts
from experiments.results import generations
from experiments.results.fastchat import BENCHMARKS, PROMPTS_FILE, PROMPTS_URL

OURS = "ours"
"""Value of --prompts for the prompts of this project."""

EXAMPLES = """\
examples:
  # estimate the cost (sends nothing)
  python -m experiments.judge --all outputs --questions DATA --model gpt-4 --dry-run

  # OpenAI, with the key in OPENAI_API_KEY and the prompts in DATA/judge_prompts.jsonl
  python -m experiments.judge outputs/llama2_7b/alpaca/fourierft/seed=0 --questions DATA \\
      --base-url https://api.openai.com/v1 --model gpt-4

  # a local server, three judgements of every turn, this project's own prompts
  python -m experiments.judge --all outputs --questions DATA --base-url http://localhost:8000/v1 \\
      --model MODEL --prompts ours --repeats 3 --temperature 0.7

DATA is fastchat/llm_judge/data of FastChat: judge_prompts.jsonl, mt_bench/ and vicuna_bench/, each
with question.jsonl and reference_answer/. After a failure or interruption, the same command
requests only what is missing.
"""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line; `runs` includes those of --all.

    Raises:
        SystemExit: status 2, after printing all problems.
    """
    parser = _build_parser()
    args = parser.parse_intermixed_args(arguments)
    problems = list(_find_problems(args))
    if problems:
        parser.error("\n".join(["", *(f"  - {problem}" for problem in problems)]))
    found = find_runs(args.all, args.benchmarks) if args.all else []
    # A run named twice would find its journal locked.
    args.runs = list({run.resolve(): run for run in [*found, *args.runs]}.values())
    return args


def read_key(variable: str) -> str | None:
    """Return the key from an environment variable, None if it is not set."""
    return os.environ.get(variable, "").strip() or None


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.judge",
        usage="%(prog)s RUN... --questions FOLDER --base-url URL --model MODEL [options]",
        description="Grade stored answers to MT-Bench and Vicuna from 1 to 10 with a language "
        "model behind an OpenAI-compatible server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("answers").add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="run folders with generations/")
    add("--all", type=Path, metavar="OUTPUTS", help="all runs with answers below this folder")
    add("--benchmark", choices=BENCHMARKS, help="benchmark to judge (default: all with answers)")
    add("--questions", type=Path, metavar="FOLDER", help="folder of question.jsonl and "
        "reference_answer/, or of both benchmarks (default: MT-Bench from the hub)")  # fmt: skip
    add("--partial", action="store_true", help="accept unanswered questions and missing references")

    add = parser.add_argument_group("judge").add_argument
    add("--base-url", metavar="URL", help="base URL of the server, without /chat/completions")
    add("--model", help="model name of the judge")
    add("--name", help="name of the result files (default: the model's)")
    add("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable "
        "of the key (default: %(default)s); a local server may need none")  # fmt: skip
    add("--prompts", metavar="FILE", help="judge prompts in FastChat's format, or `ours` for this "
        f"project's, which Table 4 does not compare (default: {PROMPTS_FILE} in or beside the "
        "folder of --questions)")  # fmt: skip
    add(
        "--temperature",
        default="0",
        metavar="T",
        help="0 to 2, or `server` for its default (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=2048,
        metavar="N",
        help="maximum length of a reply (default: %(default)s)",
    )
    add("--limit-field", choices=("max_tokens", "max_completion_tokens"), default="max_tokens",
        help="field of that maximum in requests (default: %(default)s)")  # fmt: skip
    add("--repeats", type=int, default=1, metavar="K", help="independent judgements of every turn")
    add("--attempts", type=int, default=3, metavar="N", help="replies without a grade after "
        "which a judgement has failed (default: %(default)s)")  # fmt: skip

    add = parser.add_argument_group("requests").add_argument
    add(
        "--concurrency",
        type=int,
        default=4,
        metavar="N",
        help="parallel requests (default: %(default)s)",
    )
    add(
        "--retries",
        type=int,
        default=6,
        metavar="N",
        help="retries after a transient failure (default: %(default)s)",
    )
    add(
        "--timeout",
        type=float,
        default=120,
        metavar="S",
        help="seconds per answer (default: %(default)s)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the pending requests and their cost, and send nothing",
    )
    add("--price-in", type=float, metavar="P", help="price per million input tokens")
    add("--price-out", type=float, metavar="P", help="price per million output tokens")
    return parser


def _find_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield all problems; sets `benchmarks`, converts `prompts` and `temperature` on the way."""
    args.benchmarks = [args.benchmark] if args.benchmark else list(BENCHMARKS)
    yield from _find_prompts(args)
    yield from _check_paths(args)
    yield from _check_numbers(args)
    if not args.model:
        yield "--model is missing: set the model name of the judge"
    if not args.dry_run:
        yield from _check_endpoint(args)


def _check_paths(args: argparse.Namespace) -> Iterator[str]:
    if not args.runs and not args.all:
        yield "no run: name run folders, or set --all OUTPUTS"
    for run in args.runs:
        if not run.is_dir():
            yield f"{run}: no such folder"
        elif not find_benchmarks(run, args.benchmarks):
            files = " or ".join(str(generations.get_path(run, one)) for one in args.benchmarks)
            yield f"{run}: no answers (expected {files})"
    if args.all and not args.all.is_dir():
        yield f"--all {args.all}: no such folder"
    elif args.all and not args.dry_run and not find_runs(args.all, args.benchmarks):
        yield f"--all {args.all}: no run with answers below it"
    if args.questions and not args.questions.is_dir():
        yield f"--questions {args.questions}: no such folder"


def _find_prompts(args: argparse.Namespace) -> Iterator[str]:
    """Set `prompts` to a path, or to None for our own; yield what is wrong with it."""
    if args.prompts == OURS:
        args.prompts = None
    elif args.prompts is not None:
        args.prompts = Path(args.prompts)
        if not args.prompts.is_file():
            yield f"--prompts {args.prompts}: no such file"
    else:
        args.prompts = find_prompts(args.questions)
        if args.prompts is None:
            yield (
                f"--prompts is missing: no {PROMPTS_FILE} in or beside the folder of --questions; "
                f"download FastChat's, `curl -LO {PROMPTS_URL}`, or set --prompts {OURS} (grades "
                "that Table 4 does not compare)"
            )


def _check_numbers(args: argparse.Namespace) -> Iterator[str]:
    for name in ("max_tokens", "repeats", "attempts", "concurrency"):
        if getattr(args, name) < 1:
            yield f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1"
    for name, maximum in (("concurrency", 256), ("repeats", 1000), ("attempts", 1000)):
        if getattr(args, name) > maximum:
            yield f"--{name} {getattr(args, name)}: must be at most {maximum}"
    if args.retries < 0:
        yield f"--retries {args.retries}: must not be negative"
    if not (args.timeout > 0 and math.isfinite(args.timeout)):
        yield f"--timeout {args.timeout:g}: must be positive"
    if (args.price_in is None) != (args.price_out is None):
        yield "--price-in and --price-out: set both or neither"
    value, args.temperature = args.temperature, None
    if value != "server":
        try:
            args.temperature = float(value)
        except ValueError:
            args.temperature = math.nan
        if not 0 <= args.temperature <= 2:
            yield f"--temperature {value}: must be a number from 0 to 2, or `server`"


def _check_endpoint(args: argparse.Namespace) -> Iterator[str]:
    try:
        url = urlsplit(args.base_url or "")
        valid_port = url.port is None or url.port > 0
    except ValueError:
        url, valid_port = urlsplit(""), False
    if not args.base_url:
        yield "--base-url is missing: for example https://api.openai.com/v1"
        return
    if "@" in url.netloc:
        # Not shown, since it is a secret.
        yield f"--base-url: must not contain a user or password; set {args.key_variable} to the key"
        return
    if url.scheme not in ("http", "https") or not url.hostname or not valid_port or url.query:
        yield f"--base-url {args.base_url}: must be http(s)://host[:port]/path"
        return
    key = read_key(args.key_variable)
    if key is None and not is_loopback(args.base_url):
        yield (
            f"{args.key_variable} is not set: set it to the key of {url.netloc} (to any word if "
            "the server needs none), or name another variable with --key-variable"
        )
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        yield f"{args.key_variable}: contains a space, line break or other invalid character"
