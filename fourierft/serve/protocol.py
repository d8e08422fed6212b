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
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}


class _Options(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    n: int = 1

    @property
    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]


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
