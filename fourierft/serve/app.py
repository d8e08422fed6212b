"""The endpoints."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..bank.places import BankedAdapter
from .decoding import TextRequest
from .protocol import AdapterSource, ChatRequest, CompletionRequest, Failure
from .service import Service

LARGEST_BODY = 2**20
"""Bytes of the largest request."""
_CLOSED = 499  # nginx's status of a request whose client is gone; nobody reads it
_READ_TO_REFUSE = 64 * LARGEST_BODY  # most clients read no answer before they have sent it all


def make_app(service: Service) -> FastAPI:
    """Return the application; it starts and stops the service's thread."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        service.scheduler.stop()

    app = FastAPI(title="fourierft", lifespan=lifespan)
    app.add_middleware(_BodyLimit)

    @app.exception_handler(Failure)
    async def tell_failure(request: Request, failure: Failure) -> Response:
        return JSONResponse(failure.body(), failure.status)

    @app.exception_handler(RequestValidationError)
    async def tell_invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse(Failure(400, "; ".join(map(_explain, error.errors()))).body(), 400)

    @app.exception_handler(HTTPException)
    async def tell_refused(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        if error.status_code == 404:
            known = [route.path for route in app.routes if isinstance(route, APIRoute)]
            message += "; found here: " + ", ".join(dict.fromkeys(known))
        failure = Failure(error.status_code, message)
        return JSONResponse(failure.body(), failure.status, error.headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        found = [{"id": service.name, "object": "model", "owned_by": "base"}]
        for name in sorted(service.bank.names):
            found.append({"id": name, "object": "model", "owned_by": "adapter"})
        return {"object": "list", "data": found}

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, connection: Request) -> Response:
        answer = _answer(service, asked, "chat.completion")
        return await _unless_closed(connection, answer)

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, connection: Request) -> Response:
        answer = _answer(service, asked, "text_completion")
        return await _unless_closed(connection, answer)

    @app.get("/v1/adapters")
    def list_adapters() -> dict[str, Any]:
        return {"object": "list", "data": [_describe(one) for one in service.bank.describe_all()]}

    @app.get("/v1/adapters/{name}")
    def describe(name: str) -> dict[str, Any]:
        return _describe(_find(service, name))

    @app.put("/v1/adapters/{name}")
    def put(name: str, source: AdapterSource) -> dict[str, Any]:
        return _describe(service.put(name, source.path))

    @app.delete("/v1/adapters/{name}")
    def remove(name: str) -> dict[str, Any]:
        about = _find(service, name)
        service.remove(name)
        return _describe(about)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(_metrics(service))

    return app


def _explain(problem: dict[str, Any]) -> str:
    """Return a problem that pydantic has found in a request, in words."""
    if problem["type"] == "json_invalid":
        return f"body: not valid JSON ({problem['ctx']['error']}, character {problem['loc'][1]})"
    return f"{'.'.join(map(str, problem['loc'][1:])) or 'body'}: {problem['msg']}"


def _find(service: Service, name: str) -> BankedAdapter:
    try:
        return service.bank.describe(name)
    except KeyError:
        raise Failure(404, f"no adapter {name!r}", "model_not_found") from None


def _describe(about: BankedAdapter) -> dict[str, Any]:
    return {
        "name": about.name,
        "version": about.version,
        "checksum": about.checksum,
        "parameters": about.parameters,
        "bytes": about.nbytes,
    }


async def _unless_closed(connection: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Wait for an answer; one whose client closes the connection is cancelled."""

    async def wait_for_close() -> None:
        while (await connection.receive())["type"] != "http.disconnect":
            pass

    answering, closing = asyncio.create_task(answer), asyncio.create_task(wait_for_close())
    try:
        await asyncio.wait({answering, closing}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        return Response(status_code=_CLOSED)
    finally:
        answering.cancel()
        closing.cancel()


async def _answer(service: Service, asked: ChatRequest | CompletionRequest, kind: str) -> Response:
    request = service.prepare(asked)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }
    if asked.stream:
        counted = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = _stream(service, request, asked.stops, head, counted)
        first = await anext(chunks)  # so that a refusal still has its status
        return StreamingResponse(_continue(first, chunks), media_type="text/event-stream")
    pieces = [piece async for piece in service.write(request, asked.stops)]
    text: dict[str, Any] = {"text": "".join(piece for piece, _ in pieces)}
    if kind == "chat.completion":
        text = {"message": {"role": "assistant", "content": text["text"]}}
    choice = {"index": 0, **text, "finish_reason": pieces[-1][1]}
    return JSONResponse({**head, "choices": [choice], "usage": _count_tokens(request)})


def _count_tokens(request: TextRequest) -> dict[str, int]:
    count = {"prompt_tokens": len(request.tokens), "completion_tokens": request.made}
    return {**count, "total_tokens": sum(count.values())}


async def _stream(
    service: Service, request: TextRequest, stops: list[str], head: dict[str, Any], counted: bool
) -> AsyncIterator[str]:
    chat = head["object"] == "chat.completion"
    if chat:
        head = {**head, "object": "chat.completion.chunk"}
    async for piece, reason in service.write(request, stops):
        text = {"delta": {"role": "assistant", "content": piece}} if chat else {"text": piece}
        choice = {"index": 0, **text, "finish_reason": reason}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    if counted:
        last = {**head, "choices": [], "usage": _count_tokens(request)}
        yield f"data: {json.dumps(last)}\n\n"
    yield "data: [DONE]\n\n"


async def _continue(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    try:
        async for chunk in rest:
            yield chunk
    except Failure as failure:  # the status is out already
        yield f"data: {json.dumps(failure.body())}\n\n"


def _metrics(service: Service) -> str:
    """Return the metrics in Prometheus' text format."""
    counters, scheduler, bank = service.scheduler.counters, service.scheduler, service.bank
    used = sum(one.nbytes for one in bank.describe_all())
    values = {
        "requests_total": (counters.requests, "Requests that were begun."),
        "tokens_total": (counters.tokens, "Tokens that were made."),
        "failures_total": (counters.failures, "Requests whose batch failed."),
        "forward_passes_total": (counters.batches, "Forward passes, of prompts or a token each."),
        "forward_seconds_total": (round(counters.seconds, 3), "Time spent in them."),
        "requests_running": (scheduler.running, "Texts that are being made."),
        "requests_waiting": (scheduler.waiting.qsize(), "Requests that wait for the batch."),
        "adapters": (len(bank), "Adapters in memory."),
        "adapter_bytes": (used, "Their coefficients and heads."),
        "adapter_memory_bytes": (bank.nbytes, "The same with places kept for further adapters."),
    }
    return "".join(
        f"# HELP fourierft_{name} {meaning}\n"
        f"# TYPE fourierft_{name} {'counter' if name.endswith('_total') else 'gauge'}\n"
        f"fourierft_{name} {value}\n"
        for name, (value, meaning) in values.items()
    )


class _BodyLimit:
    """Refuses bodies above `LARGEST_BODY`, of which no more than that is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size <= LARGEST_BODY:
                chunks.append(message.get("body", b""))
            elif size > _READ_TO_REFUSE:
                break
        if size > LARGEST_BODY:
            failure = Failure(413, f"a request may have {LARGEST_BODY} bytes")
            await JSONResponse(failure.body(), 413)(scope, receive, send)
            return
        whole: list[Message] = [
            {"type": "http.request", "body": b"".join(chunks), "more_body": False}
        ]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)
