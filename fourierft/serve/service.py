"""Requests to texts: adapters by name, prompts to tokens, tokens to text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from ..bank.adapter_bank import AdapterBank
from ..bank.places import BankedAdapter, PinnedAdapter
from .decoding import Decoder, TextRequest
from .protocol import ChatRequest, CompletionRequest, Failure
from .scheduler import Scheduler

_UNFINISHED = "\ufffd"  # what a tokenizer writes for a character whose last token is still missing


class Service:
    """One base model and its adapters, for the endpoints of `make_app`.

    Args:
        bank: The adapters.
        tokenizer: The model's.
        name: Name of the base model in the protocol.
        folder: Folder of adapters; None if none can be added.
        largest: Texts made at once.
    """

    def __init__(
        self,
        bank: AdapterBank,
        tokenizer: Any,
        name: str,
        folder: Path | None = None,
        largest: int = 32,
    ) -> None:
        self.bank = bank
        self.tokenizer = tokenizer
        self.name = name
        self.folder = folder
        configured = getattr(bank.net, "generation_config", None)
        ends = getattr(configured, "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id]
        self.scheduler = Scheduler(Decoder(bank, [e for e in ends if e is not None]), largest)
        self.context = getattr(bank.net.config, "max_position_embeddings", 2048)

    def put(self, name: str, source: str) -> BankedAdapter:
        """Add an adapter of the folder, or replace one.

        Raises:
            Failure: The folder has no such adapter, or it is damaged.
        """
        folder = self._writable_folder()
        if name == self.name:
            raise Failure(400, f"name: got {name!r}, which is the base model")
        try:
            path = (folder / source).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise Failure(403, f"path: got {source!r}, allowed what lies in the folder")
            return (self.bank.replace if name in self.bank else self.bank.add)(name, path)
        except (ValueError, OSError) as error:
            raise Failure(400, str(error)) from error
        except KeyError:  # removed meanwhile
            raise Failure(404, f"no adapter {name!r}", "model_not_found") from None

    def remove(self, name: str) -> None:
        """Remove an adapter; texts that are being made with it go on."""
        self._writable_folder()
        try:
            self.bank.remove(name)
        except KeyError:
            raise Failure(404, f"no adapter {name!r}", "model_not_found") from None

    def prepare(self, asked: ChatRequest | CompletionRequest) -> TextRequest:
        """Return the text to make.

        Raises:
            Failure: Unknown adapter, a prompt without room for an answer, or fields of the request
                that are not supported.
        """
        asked.refuse_unsupported()
        adapter = self._pin(asked.model)
        if isinstance(asked, ChatRequest):
            messages = [message.model_dump() for message in asked.messages]
            if self.tokenizer.chat_template is None:
                raise Failure(400, "the model has no chat template: use /v1/completions")
            try:
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # a template raises what it likes, of roles for example
                raise Failure(400, f"messages: the chat template refuses them ({error})") from error
            tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            tokens = self.tokenizer(asked.prompt, verbose=False)["input_ids"]
        if not tokens:
            raise Failure(400, "prompt: got no tokens")
        room = self.context - len(tokens)
        if room < 1:
            raise Failure(
                400,
                f"prompt: {len(tokens)} tokens, the model reads {self.context}",
                "context_length_exceeded",
            )
        most = asked.max_completion_tokens or asked.max_tokens or 256
        return TextRequest(
            tokens, adapter, min(most, room), asked.temperature, asked.top_p, asked.seed
        )

    async def write(
        self, request: TextRequest, stops: Sequence[str]
    ) -> AsyncIterator[tuple[str, str | None]]:
        """Make a text.

        Args:
            request: See `prepare`.
            stops: Texts before which it ends.

        Yields:
            New pieces of text, the last of them with the reason for the end (stop, length).

        Raises:
            Failure: Too many requests wait, or the batch failed.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[tuple[int | None, str | None]]()

        def emit(token: int | None, reason: str | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, (token, reason))

        request.emit = emit
        if not self.scheduler.submit(request):
            raise Failure(503, "too many requests wait; try again later")
        tokens: list[int] = []
        sent, reason = "", None
        held = max(map(len, stops), default=1) - 1  # the beginning of a stop may be the end so far
        try:
            while reason is None:
                token, reason = await events.get()
                if reason == "error":
                    raise Failure(500, "the text could not be made; see the server's log")
                tokens += [] if token is None else [token]
                text = self.tokenizer.decode(tokens, skip_special_tokens=True)
                found = [place for stop in stops if (place := text.find(stop)) >= 0]
                if found:
                    text, reason = text[: min(found)], "stop"
                elif reason is None:
                    text = text.rstrip(_UNFINISHED)
                    text = text[: max(len(text) - held, len(sent))]
                if reason is not None or len(text) > len(sent):
                    yield text[len(sent) :], reason
                    sent = text
        finally:
            request.cancelled = True

    def _writable_folder(self) -> Path:
        if self.folder is None:
            raise Failure(403, "the server was started without a folder of adapters to change")
        return self.folder

    def _pin(self, name: str) -> PinnedAdapter | None:
        if name == self.name:
            return None
        try:
            return self.bank.pin(name)
        except KeyError:
            raise Failure(404, f"model: no adapter {name!r}", "model_not_found") from None
        except ValueError as error:  # its coefficients lie in a damaged file
            raise Failure(500, str(error)) from error
