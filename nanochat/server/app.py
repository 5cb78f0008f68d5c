"""The HTTP side: the page, GET /health, and POST /v1/chat/completions in OpenAI's shape.

`create_app` makes it for one model. The page uses nothing that another program could not use, too.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from nanochat.conversation import prompt_with_room
from nanochat.engine import Event, Sampling
from nanochat.server.worker import Busy, Job, Stopped, Worker
from nanochat.system.cli import UserError

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 1_000_000  # of a request
LEAST_TEMPERATURE = 0.01  # or 0; below it the division overflows
THIS_MACHINE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
# Field -> type, least, most. Other fields of OpenAI's are accepted and ignored.
FIELDS = {
    "temperature": (float, 0, 10),
    "top_k": (int, 1, 1_000_000),
    "seed": (int, 0, 2**63 - 1),
    "max_tokens": (int, 1, 65_536),
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Refused(Exception):
    """A request that can't be answered: HTTP status and one plain sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_app(worker: Worker, model: str, defaults: Sampling) -> FastAPI:
    """The app for one model; `model` is its name, `defaults` what a request leaves open."""
    app = FastAPI(
        title="nanochat",
        dependencies=[Depends(_from_this_machine)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        return JSONResponse({"error": {"message": str(error), "type": kind}}, error.status)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        return await refused(request, Refused(error.status_code, f"there is no {where} here"))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": model}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        wanted = await _body(request)
        messages, sampling = _messages(wanted), _sampling(wanted, defaults)
        streamed = wanted.get("stream") or False
        if not isinstance(streamed, bool):
            raise Refused(400, f"stream must be true or false, not {streamed!r}")
        config = worker.engine.model.config
        try:
            prompt, dropped = await asyncio.to_thread(  # a long text takes a while
                prompt_with_room,
                messages,
                worker.engine.tokenizer,
                config.max_seq_len,
                sampling.max_new_tokens,
            )
        except UserError as error:
            raise Refused(400, str(error)) from None
        try:
            job = worker.submit(prompt, sampling)
        except Busy:
            raise Refused(
                503, "too many are waiting for an answer: try again in a moment"
            ) from None
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        if streamed:
            stream = _stream(job, head, dropped)
            return StreamingResponse(stream, media_type="text/event-stream", headers=SECURITY)
        return JSONResponse(await _whole(request, job, head, dropped))

    def file(name: str, media_type: str) -> None:
        @app.get("/" if name == "index.html" else f"/{name}", name=name)
        async def get() -> FileResponse:
            return FileResponse(PAGE / name, media_type=media_type, headers=SECURITY)

    file("index.html", "text/html")
    file("chat.js", "text/javascript")
    file("chat.css", "text/css")
    return app


class Server(uvicorn.Server):
    """uvicorn's, which ends the answers under way before it waits for them."""

    def __init__(self, app: FastAPI, worker: Worker) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
        )
        self.worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn after Ctrl-C."""
        self.worker.stop()
        await super().shutdown(sockets)


async def _from_this_machine(request: Request) -> None:
    """Refuse what a page of another site sends here, or reaches by a name that points here."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not THIS_MACHINE.fullmatch(host):
        raise Refused(403, f"this server answers to localhost, not to {host[:100]!r}")
    if origin is not None and not THIS_MACHINE.fullmatch(origin.removeprefix("http://")):
        raise Refused(403, f"this server answers no page of {origin[:100]!r}")


async def _body(request: Request) -> dict[str, Any]:
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise Refused(413, f"the request is larger than {MOST_BYTES:,} bytes: send less")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is no JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the request must be a JSON object with `messages`")
    return found


def _messages(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation, OpenAI's lists of text parts joined. conversation.check says the rest."""
    messages = wanted.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, "`messages` must be a list of {role, content}")
    return [{**m, "content": _text(m.get("content"))} for m in messages]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str)
        for p in content
    ):
        return "".join(part["text"] for part in content)
    raise Refused(400, "a message's content must be text")


def _sampling(wanted: dict[str, Any], defaults: Sampling) -> Sampling:
    given: dict[str, Any] = {}
    for name, (kind, least, most) in FIELDS.items():
        value = wanted.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # The range first: int() of what is infinite, or no number, fails.
        in_range = is_number and least <= value <= most
        if not in_range or (kind is int and value != int(value)):
            what = "a whole number" if kind is int else "a number"
            rule = f"{name} must be {what} from {least:,} to {most:,}"
            raise Refused(400, f"{rule}, not {str(value)[:100]}")
        given["max_new_tokens" if name == "max_tokens" else name] = kind(value)
    if 0 < given.get("temperature", 0) < LEAST_TEMPERATURE:
        raise Refused(400, f"temperature must be 0, or from {LEAST_TEMPERATURE} to 10")
    return replace(defaults, **given)


def _extra(events: list[Event], dropped: int) -> dict[str, Any]:
    """What OpenAI's shape has no place for: forgotten messages, and the calculator's work."""
    tools = []
    for event in events:
        if event.kind == "tool_call":
            tools.append({"expression": event.text.strip(), "result": None})
        elif event.kind == "tool_result" and tools:
            tools[-1]["result"] = event.text
    return {"nanochat": {"dropped_messages": dropped, "tools": tools}}


def _failure(error: Exception) -> Refused:
    if isinstance(error, Stopped):
        return Refused(503, "the server was ended in the middle of the answer")
    return Refused(500, f"the model failed ({type(error).__name__}: {error})")


async def _whole(request: Request, job: Job, head: dict[str, Any], dropped: int) -> dict[str, Any]:
    async def collect() -> list[Event]:
        return [event async for event in job.events()]

    task = asyncio.create_task(collect())
    while not (await asyncio.wait({task}, timeout=0.2))[0]:
        if await request.is_disconnected():
            job.cancel()
    try:
        events = task.result()
    except Exception as error:
        raise _failure(error) from None
    message = {"role": "assistant", "content": "".join(e.text for e in events if e.kind == "text")}
    ends = [e.text for e in events if e.kind == "done"]
    choice = {"index": 0, "message": message, "finish_reason": ends[-1] if ends else "stop"}
    return {**head, "object": "chat.completion", "choices": [choice], **_extra(events, dropped)}


async def _stream(job: Job, head: dict[str, Any], dropped: int) -> AsyncIterator[str]:
    """Server-sent events: a chunk a piece of text, then `[DONE]`."""
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n"

    seen: list[Event] = []
    try:
        yield chunk({"role": "assistant", "content": ""}, **_extra([], dropped))
        async for event in job.events():
            seen.append(event)
            if event.kind == "text":
                yield chunk({"content": event.text})
            elif event.kind == "done":
                yield chunk({}, event.text)
            else:
                yield chunk({}, **_extra(seen, dropped))
    except Exception as error:
        failed = {"error": {"message": str(_failure(error)), "type": "server_error"}}
        yield f"data: {json.dumps(failed)}\n\n"
    finally:
        job.cancel()
    yield "data: [DONE]\n\n"
