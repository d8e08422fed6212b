"""`python -m fourierft.serve BASE --adapters FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ..bank.adapter_bank import AdapterBank


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a base model and its adapters, and serve them until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m fourierft.serve",
        description="Serve a causal language model and its FourierFT adapters in OpenAI's protocol:"
        " `model` names the adapter.",
    )
    parser.add_argument("base", help="folder or hub repository of the base model")
    parser.add_argument(
        "--adapters",
        type=Path,
        metavar="FOLDER",
        help="folders saved by PEFT and compact files; or one file of AdapterBank.save",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit if an adapter cannot be read, not skip it"
    )
    parser.add_argument("--name", help="name of the base model in the protocol (default: BASE)")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help="texts made at once")
    parser.add_argument("--capacity", type=int, help="adapters in memory; the oldest are evicted")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    problems = _find_problems(given)
    if problems:
        _exit("; ".join(problems))
    try:
        import uvicorn

        from .app import make_app
    except ImportError as error:
        _exit(f"{error.name} is missing: pip install fastapi uvicorn")
    from .service import Service

    bank, tokenizer = _load_base(given)
    name = given.name or given.base
    folder = given.adapters
    try:
        if folder is not None and folder.is_file():
            bank.load(folder)
            folder = None
        elif folder is not None and any(folder.iterdir()):
            bank.add_folder(folder, None if given.strict else _tell_skipped)
    except (OSError, ValueError) as error:
        _exit(str(error))
    if name in bank:
        clash = f"{name}: an adapter of the base model's name; choose another --name"
        if given.strict:
            _exit(clash)
        _tell_skipped(clash)
        bank.remove(name)
    service = Service(bank, tokenizer, name, folder, given.batch)
    print(
        f"{service.name} and {len(bank)} adapters: http://{given.host}:{given.port}/v1", flush=True
    )
    uvicorn.run(make_app(service), host=given.host, port=given.port, log_level="warning")


def _find_problems(given: argparse.Namespace) -> list[str]:
    """Return what can be refused before the base model is read."""
    import torch
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    problems = []
    if not Path(given.base).is_dir():
        try:
            validate_repo_id(given.base)
        except HFValidationError:
            problems.append(f"{given.base}: no such folder, and not a hub repository's name")
    if given.adapters is not None and not given.adapters.exists():
        problems.append(f"--adapters {given.adapters}: no such folder or file")
    for option, lowest in (("batch", 1), ("capacity", 1), ("port", 0)):
        value = getattr(given, option)
        if value is not None and value < lowest:
            problems.append(f"--{option} {value}: allowed {lowest} or more")
    try:
        torch.empty(0, device=given.device)
    except (AssertionError, RuntimeError) as error:  # the former: torch without CUDA
        problems.append(f"--device {given.device}: {str(error).splitlines()[0]}")
    return problems


def _load_base(given: argparse.Namespace) -> tuple[AdapterBank, Any]:
    """Return an empty bank around the base model, and the tokenizer."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..bank.adapter_bank import AdapterBank

    try:
        dtype = getattr(torch, given.dtype)
        net = AutoModelForCausalLM.from_pretrained(given.base, dtype=dtype).to(given.device)
        tokenizer = AutoTokenizer.from_pretrained(given.base)
    except (OSError, ValueError, SafetensorError) as error:
        kind = "" if Path(given.base).is_dir() else "no such folder, nor found on the hub: "
        _exit(f"{given.base}: {kind}{error}")
    net.eval().requires_grad_(False)  # products with W0 + DeltaW are for frozen weights
    return AdapterBank(net, given.capacity), tokenizer


def _tell_skipped(problem: str) -> None:
    print(f"fourierft.serve: skipped: {problem}", file=sys.stderr, flush=True)


def _exit(reason: str) -> NoReturn:
    sys.exit(f"fourierft.serve: {reason}")


if __name__ == "__main__":
    main()
