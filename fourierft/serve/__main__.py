"""`python -m fourierft.serve BASE --adapters FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


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
    parser.add_argument("--name", help="name of the base model in the protocol (default: BASE)")
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help="texts made at once")
    parser.add_argument("--capacity", type=int, help="adapters in memory; the oldest are evicted")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    try:
        import uvicorn

        from .app import make_app
    except ImportError as error:
        sys.exit(f"fourierft.serve: {error.name} is missing: pip install fastapi uvicorn")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..bank.adapter_bank import AdapterBank
    from .service import Service

    try:
        dtype = getattr(torch, given.dtype)
        net = AutoModelForCausalLM.from_pretrained(given.base, dtype=dtype).to(given.device)
        net.eval().requires_grad_(False)  # products with W0 + DeltaW are for frozen weights
        tokenizer = AutoTokenizer.from_pretrained(given.base)
        bank = AdapterBank(net, given.capacity)
        folder = given.adapters
        if folder is not None and folder.is_file():
            bank.load(folder)
            folder = None
        elif folder is not None and any(folder.iterdir()):
            bank.add_folder(folder)
    except (OSError, ValueError) as error:
        sys.exit(f"fourierft.serve: {error}")
    name = given.name or given.base
    if name in bank:
        sys.exit(f"fourierft.serve: {name} is the base model and an adapter: choose another --name")
    service = Service(bank, tokenizer, name, folder, given.batch)
    print(
        f"{service.name} and {len(bank)} adapters: http://{given.host}:{given.port}/v1", flush=True
    )
    uvicorn.run(make_app(service), host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
