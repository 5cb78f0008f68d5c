"""A request's JSON, read: the conversation, how to sample, and what is not supported yet.

Checked by hand: a mistake is answered with one sentence that a person can act on (the field, the
rule, the value), and what clients send is looser than a schema: -1 for "no limit", text or parts,
half a surrogate pair. Pydantic models of the same rules were longer, and on a request of 30,000
messages they held up the event loop for a second, six times as long.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from fastapi import Request
from starlette.requests import ClientDisconnect

from nanochat.sampling import MAX_INT, RULES, Sampling
from nanochat.server.guard import Refused, short

MAX_BYTES = 1_000_000  # of a request; a model reads a few thousand tokens at most

# OpenAI's names of a setting. The newest comes last, and counts where several are given.
OTHER_NAMES = {"max_new_tokens": ("max_tokens", "max_completion_tokens")}
# What clients of llama.cpp and vLLM send to switch a setting off.
OFF: dict[str, dict[float, int | None]] = {
    "top_k": {0: None, -1: None},
    "seed": {-1: None},
    "max_new_tokens": {-1: MAX_INT},  # the engine stops at the end of the context
}
# Fields that would change the answer, but can't yet -> the values that ask for nothing, as null
# does. Ignored, they would give a wrong answer that looks right: a client that asked for JSON would
# get prose. Fields in no list change nothing (`model`, `user`, `metadata`), so they are ignored.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ("", []),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "top_p": (1,),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
ROLES = ("system", "developer", "user", "assistant")
TEXT_PARTS = ("text", "input_text", "output_text")


class Asked(NamedTuple):
    """What a request asks for; with_usage: a stream ends with the token counts."""

    messages: list[dict[str, str]]
    sampling: Sampling
    stream: bool
    with_usage: bool


async def read(request: Request, defaults: Sampling) -> Asked:
    """The request's body; defaults are for what it leaves open. Raises Refused."""
    try:
        wanted = json.loads(await _body(request))
    except (ValueError, RecursionError):  # a million brackets are within MAX_BYTES
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(wanted, dict):
        raise Refused(400, "the request must be a JSON object with `messages`")
    for name, neutral in NOT_YET.items():
        value = wanted.get(name)
        # A name that became a field of Sampling is read below.
        if name not in RULES and value is not None and value not in neutral:
            rule = f"{name}={short(value)} is not supported yet: leave {name} out"
            raise Refused(400, rule, name, "unsupported_parameter")
    options = wanted.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refused(400, f"stream_options must be an object, not {short(options)}")
    return Asked(
        _messages(wanted.get("messages")),
        _sampling(wanted, defaults),
        _flag(wanted, "stream"),
        _flag(options, "include_usage"),
    )


def disconnected() -> Refused:
    """The "answer" to a client that has disconnected; nobody reads it."""
    return Refused(400, "the client disconnected")


async def _body(request: Request) -> bytes:
    # Counted as it comes in: a Content-Length may lie, and a chunked request has none.
    raw = b""
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_BYTES:
                raise Refused(413, f"the request is larger than {MAX_BYTES:,} bytes: send less")
    except ClientDisconnect:  # uncaught, it would leave a traceback for every closed tab
        raise disconnected() from None
    return raw


def _flag(wanted: dict[str, Any], name: str) -> bool:
    value = wanted.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false, not {short(value)}", name)
    return bool(value)


def _sampling(wanted: dict[str, Any], defaults: Sampling) -> Sampling:
    given: dict[str, Any] = {}
    for setting, rule in RULES.items():
        off = OFF.get(setting, {})
        for name in (setting, *OTHER_NAMES.get(setting, ())):
            value = wanted.get(name)
            if value is None:
                continue
            if type(value) in (int, float) and value in off:
                given[setting] = off[value]
            elif rule.allows(value):
                given[setting] = rule.kind(value)
            else:
                raise Refused(400, f"{name} must be {rule}, not {short(value)}", name)
    return replace(defaults, **given)


def _messages(given: Any) -> list[dict[str, str]]:
    """The conversation in our own form: text only, from the user's first message to the last.

    The model has only seen conversations of one shape: a system text or none, then user and
    assistant in turn. Clients send other shapes for good reasons, so what can be mapped onto that
    one is mapped; what would lose something that the user wrote is refused.
    """
    if not isinstance(given, list) or not given or not all(isinstance(m, dict) for m in given):
        rule = "`messages` must be a list of {role, content}, and not empty"
        raise Refused(400, rule, "messages")
    found: list[dict[str, str]] = []
    user_spoke = False
    for message in given:
        role = message.get("role")
        if _of_tools(message):
            continue
        if role not in ROLES:
            rule = f"a message's role is system, user or assistant, not {short(role)}"
            raise Refused(400, rule, "messages")
        text = _text(message.get("content"))
        if role == "user" and not text.strip():
            raise Refused(400, "the user's message is empty: write something", "messages")
        user_spoke = user_spoke or role == "user"
        if role == "assistant" and not user_spoke:
            continue  # a client's own greeting
        if user_spoke and role in ("system", "developer"):
            role = "user"  # later instructions: as the user's, they are at least read
        found.append({"role": role, "content": text})
    if given[-1].get("role") != "user":
        rule = "the last message must be the user's: it is the one to answer"
        raise Refused(400, rule, "messages")
    return found


def _of_tools(message: dict[str, Any]) -> bool:
    """A call of the client's own tools, or its result. The answer made from them comes later."""
    role, content = message.get("role"), message.get("content")
    is_call = content is None or (not content and message.get("tool_calls"))
    return role in ("tool", "function") or (role == "assistant" and bool(is_call))


def _text(content: Any) -> str:
    """A message's text, with OpenAI's lists of parts joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict)
        and part.get("type") in TEXT_PARTS
        and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    # Also a picture beside a text: answering the text alone would look like having seen it.
    raise Refused(400, f"a message's content must be text, not {short(content)}", "messages")
