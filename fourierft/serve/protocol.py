"""Requests of OpenAI's protocol: what is understood, and its form of errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Failure(Exception):
    """What a client is told.

    Args:
        status: HTTP status.
        message: The text.
        code: Short name of the error, None if the protocol has none.
        param: Field of the request that is to blame, if it is one.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        about = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": about}


_HARMLESS = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prediction"),
    *("prompt_cache_key", "prompt_cache_retention", "tool_choice", "parallel_tool_calls"),
}
"""Fields without which an answer is the same; the last two as long as there are no tools."""
_DEFAULTS = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
}
"""Values of other fields that ask for nothing: many clients send them. `logprobs` of 0 does."""


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False
    """Count the tokens in a last chunk."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = 1

    @property
    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    def refuse_unsupported(self) -> None:
        """Raise for what the server does not do, though the answer would be another one.

        Raises:
            Failure: Names every such field.
        """
        fields = {"n": self.n} if self.n != 1 else {}
        fields |= {
            name: value
            for name, value in (self.model_extra or {}).items()
            if name not in _HARMLESS and not _asks_nothing(name, value)
        }
        if fields:
            got = "; ".join(f"{name}: got {value!r:.60}" for name, value in fields.items())
            only = "allowed 1" if list(fields) == ["n"] else "not supported by this server"
            param = next(iter(fields)) if len(fields) == 1 else None
            raise Failure(400, f"{got}, {only}", "unsupported_parameter", param)


def _asks_nothing(name: str, value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value in _DEFAULTS.get(name, ()) or not (value or number)


class Message(BaseModel):
    """A message of a conversation."""

    role: str
    content: str


class ChatRequest(_Options):
    """Body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)


class CompletionRequest(_Options):
    """Body of `/v1/completions`."""

    prompt: str


class AdapterSource(BaseModel):
    """Body of `PUT /v1/adapters/{name}`."""

    path: str
    """Folder or file, relative to the folder of adapters."""
