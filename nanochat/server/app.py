"""The HTTP side: the page, GET /health, and POST /v1/chat/completions in OpenAI's shape.

`create_app` builds it for one model. The page has no door of its own: whatever it does, any other
program on this machine can do too.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from nanochat.conversation import prompt_with_room
from nanochat.engine import Event
from nanochat.sampling import Sampling
from nanochat.server.guard import Guard, Refused, short
from nanochat.server.request import disconnected, read
from nanochat.server.worker import Busy, Job, Stopped, Worker
from nanochat.system.errors import UserError

PAGE = Path(__file__).parent / "page"


def create_app(worker: Worker, model: str, defaults: Sampling) -> FastAPI:
    """The app for one model; `model` is its name, `defaults` are for what a request leaves open."""
    # Its document pages would load scripts from elsewhere, which our CSP forbids; a redirect would
    # name whatever Host the request came with.
    app = FastAPI(
        title="nanochat", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.add_middleware(Guard)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def not_found(request: Request, error: HTTPException) -> Response:
        route = f"{request.method} {short(request.url.path)}"
        response = Refused(error.status_code, f"there is no {route} here").response()
        response.headers.update(error.headers or {})  # Allow, of a 405
        return response

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": model}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        asked = await read(request, defaults)
        try:
            # In a thread: a megabyte takes a second to encode, and /health must answer meanwhile.
            prompt, dropped = await asyncio.to_thread(
                prompt_with_room,
                asked.messages,
                worker.engine.tokenizer,
                worker.engine.model.config.max_seq_len,
                asked.sampling.max_new_tokens,
            )
        except UserError as error:  # too long; read() has checked everything else
            raise Refused(400, str(error), "messages", "context_length_exceeded") from None
        if await request.is_disconnected():  # before it takes a place in the queue
            raise disconnected()
        try:
            job = worker.submit(prompt, asked.sampling)
        except Busy:  # 429 says when to come back, and clients do so on their own
            busy = "too many requests are waiting for an answer: try again in a moment"
            raise Refused(429, busy, code="rate_limit_exceeded") from None
        except Stopped as error:
            raise _failure(error) from None
        head = {  # the same in every chunk: clients put a stream together by its id
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        if asked.stream:
            stream = _stream(job, head, dropped, asked.with_usage)
            return StreamingResponse(stream, media_type="text/event-stream")
        return JSONResponse(await _whole(request, job, head, dropped))

    def file(name: str, media_type: str) -> None:
        @app.api_route("/" if name == "index.html" else f"/{name}", methods=["GET", "HEAD"])
        async def get() -> FileResponse:
            return FileResponse(PAGE / name, media_type=media_type)

    file("index.html", "text/html")
    file("chat.js", "text/javascript")
    file("chat.css", "text/css")
    return app


def _extra(events: list[Event], dropped: int) -> dict[str, Any]:
    """What OpenAI's format has no field for: dropped messages, and the calculator's work."""
    tools = []  # one without a result is a call that the calculator could not make sense of
    for event in events:
        if event.kind == "tool_call":
            tools.append({"expression": event.text.strip(), "result": None})
        elif event.kind == "tool_result" and tools:
            tools[-1]["result"] = event.text
    return {"nanochat": {"dropped_messages": dropped, "tools": tools}}


def _usage(job: Job, events: list[Event]) -> dict[str, int]:
    # Counted by the engine: a piece of text may be several tokens, and a tool call has no text.
    prompt, answer = len(job.prompt), events[-1].tokens if events else 0
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _failure(error: Exception) -> Refused:
    if isinstance(error, Stopped):
        return Refused(503, "the server was stopped before the answer was complete")
    return Refused(500, f"the model failed ({type(error).__name__}: {error})")


async def _whole(request: Request, job: Job, head: dict[str, Any], dropped: int) -> dict[str, Any]:
    """The answer in one piece."""

    async def collect() -> list[Event]:
        return [event async for event in job.events()]

    # Nothing is written until the end, so a closed connection would go unnoticed and the model
    # would finish an answer for nobody: ask for it now and then.
    task = asyncio.create_task(collect())
    while not (await asyncio.wait({task}, timeout=0.2))[0]:
        if await request.is_disconnected():
            task.cancel()  # which cancels the job
            raise disconnected()
    try:
        events = task.result()
    except Exception as error:
        raise _failure(error) from None
    message = {"role": "assistant", "content": "".join(e.text for e in events if e.kind == "text")}
    ends = [e.text for e in events if e.kind == "done"]
    choice = {"index": 0, "message": message, "finish_reason": ends[-1] if ends else "stop"}
    return {
        **head,
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(job, events),
        **_extra(events, dropped),
    }


async def _stream(
    job: Job, head: dict[str, Any], dropped: int, with_usage: bool
) -> AsyncIterator[str]:
    """The answer as server-sent events: a chunk per piece of text, then `[DONE]`."""
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if with_usage else {})}

    def data(found: dict[str, Any]) -> str:
        return f"data: {json.dumps(found)}\n\n"

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return data({**head, "choices": [choice], **more})

    seen: list[Event] = []
    try:
        # Sent before the model says a word: the client learns what was dropped, and that it waits.
        yield chunk({"role": "assistant", "content": ""}, **_extra([], dropped))
        async for event in job.events():
            seen.append(event)
            if event.kind == "text":
                yield chunk({"content": event.text})
            elif event.kind == "done":
                yield chunk({}, event.text)
            else:
                yield chunk({}, **_extra(seen, dropped))
        if with_usage:
            yield data({**head, "choices": [], "usage": _usage(job, seen)})
    except Exception as error:  # 200 was sent long ago: the error comes as an event
        yield data(_failure(error).body())
    finally:
        job.cancel()  # a client may leave at any yield above
    yield "data: [DONE]\n\n"
