"""A request's JSON, read: the conversation, how to sample, and what is not supported yet."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from fastapi import Request
from starlette.requests import ClientDisconnect

from nanochat.sampling import Sampling
from nanochat.server.guard import Refused, short

MOST_BYTES = 1_000_000  # of a request
LEAST_TEMPERATURE = 0.01  # less is 0: the division would overflow, and there is no difference
LARGEST = 2**63 - 1  # that torch takes

# Field -> type, least, most, and what other servers' clients send for "none" or "no limit".
NUMBERS: dict[str, tuple[type, int, int, tuple[int, ...]]] = {
    "temperature": (float, 0, 10, ()),
    "top_k": (int, 1, LARGEST, (0, -1)),
    "seed": (int, 0, LARGEST, (-1,)),
    "max_tokens": (int, 1, LARGEST, (-1,)),
    "max_completion_tokens": (int, 1, LARGEST, (-1,)),
}
# Fields that would change the answer and can't yet -> the values that ask for nothing, as null
# does. Ignored, they would give a wrong answer that looks right. Fields of no list are ignored.
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
    """What a request wants; with_usage: a stream ends with how many tokens there were."""

    messages: list[dict[str, str]]
    sampling: Sampling
    stream: bool
    with_usage: bool


async def read(request: Request, defaults: Sampling) -> Asked:
    """The request's body; defaults are for what it leaves open. Raises Refused."""
    raw = b""
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MOST_BYTES:
                raise Refused(413, f"the request is larger than {MOST_BYTES:,} bytes: send less")
    except ClientDisconnect:
        raise gone() from None
    try:
        wanted = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(wanted, dict):
        raise Refused(400, "the request must be a JSON object with `messages`")
    for name, neutral in NOT_YET.items():
        value = wanted.get(name)
        if value is not None and value not in neutral:
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


def gone() -> Refused:
    """What is "answered" to a client that has left; nobody reads it."""
    return Refused(400, "the client has left")


def _flag(wanted: dict[str, Any], name: str) -> bool:
    value = wanted.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false, not {short(value)}", name)
    return bool(value)


def _messages(given: Any) -> list[dict[str, str]]:
    """The conversation in our own form: text only, from the user's first message to the last."""
    if not isinstance(given, list) or not given or not all(isinstance(m, dict) for m in given):
        rule = "`messages` must be a list of {role, content}, and not empty"
        raise Refused(400, rule, "messages")
    found: list[dict[str, str]] = []
    begun = False  # by the user
    for message in given:
        role = message.get("role")
        if _of_tools(message):
            continue
        if role not in ROLES:
            rule = f"a message's role is system, user or assistant, not {short(role)}"
            raise Refused(400, rule, "messages")
        text = _text(message.get("content"))
        if role == "user" and not text.strip():
            raise Refused(400, "a message of the user's is empty: write something", "messages")
        begun = begun or role == "user"
        if role == "assistant" and not begun:
            continue  # a greeting; the model has only seen conversations that the user begins
        if begun and role in ("system", "developer"):
            role = "user"  # it knows a system's text at the beginning only
        found.append({"role": role, "content": text})
    if given[-1].get("role") != "user":
        rule = "the last message must be the user's: it is the one to answer"
        raise Refused(400, rule, "messages")
    return found


def _of_tools(message: dict[str, Any]) -> bool:
    """A call of the client's tools or its result: the answer that came of them follows it."""
    role, content = message.get("role"), message.get("content")
    called = content is None or (not content and message.get("tool_calls"))
    return role in ("tool", "function") or (role == "assistant" and bool(called))


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
    raise Refused(400, f"a message's content must be text, not {short(content)}", "messages")


def _sampling(wanted: dict[str, Any], defaults: Sampling) -> Sampling:
    given: dict[str, Any] = {}
    for name, (kind, least, most, none) in NUMBERS.items():
        value = wanted.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # The range first: int() of what is infinite, or no number, fails.
        in_range = is_number and (least <= value <= most or value in none)
        if not in_range or (kind is int and value != int(value)):
            what = "a whole number" if kind is int else "a number"
            rule = f"{name} must be {what} from {least:,} to {most:,}, not {short(value)}"
            raise Refused(400, rule, name)
        if name.startswith("max_"):  # max_completion_tokens is the newer name, and comes later
            given["max_new_tokens"] = LARGEST if value in none else kind(value)
        else:
            given[name] = None if value in none else kind(value)
    if given.get("temperature", 1) < LEAST_TEMPERATURE:
        given["temperature"] = 0.0
    return replace(defaults, **given)
