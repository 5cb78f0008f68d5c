"""The server's answers, in OpenAI's shape, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

from nanochat.engine import Engine, Event
from nanochat.gpt import GPT
from nanochat.sampling import MAX_INT, Sampling
from nanochat.server.worker import MAX_WAITING
from nanochat.tokenizer import Tokenizer
from tests.conftest import random_model
from tests.server.scripted import HI, URL, Scripted, connect, head, served


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[tuple[Scripted, str]]:
    """One for all, since its start and end take longer than any answer."""
    engine = Scripted(random_model(2, tokenizer.vocab_size, 64, torch.float64), tokenizer)
    with served(engine) as found:
        yield engine, found


@pytest.fixture
def engine(server: tuple[Scripted, str]) -> Iterator[Scripted]:
    server[0].forget()
    yield server[0]
    server[0].go.set()


@pytest.fixture
def address(engine: Scripted, server: tuple[Scripted, str]) -> str:
    return server[1]


def ask(address: str, **wanted: Any) -> requests.Response:
    return requests.post(address + URL, json={"messages": HI, **wanted}, timeout=20)


def post(address: str, body: bytes, **headers: str) -> requests.Response:
    sent = {"Content-Type": "application/json", **headers}
    return requests.post(address + URL, data=body, headers=sent, timeout=20)


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chunks(response: requests.Response) -> list[dict]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_at_once_and_in_pieces(engine: Scripted, address: str) -> None:
    engine.say("Hello", ", ", "wörld 😀")
    whole = ask(address).json()
    assert whole["object"] == "chat.completion"
    assert whole["model"] == "d4 sft"
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello, wörld 😀"}
    assert choice["finish_reason"] == "stop"
    count = len(engine.prompts[0])
    usage = {"prompt_tokens": count, "completion_tokens": 3, "total_tokens": count + 3}
    assert whole["usage"] == usage
    response = ask(address, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    pieces = chunks(response)
    assert {p["object"] for p in pieces} == {"chat.completion.chunk"}
    assert len({p["id"] for p in pieces}) == 1
    deltas = [p["choices"][0]["delta"] for p in pieces]
    assert deltas[0]["role"] == "assistant"
    assert [d["content"] for d in deltas if d.get("content")] == ["Hello", ", ", "wörld 😀"]
    assert [p["choices"][0]["finish_reason"] for p in pieces][-1] == "stop"
    assert not any("usage" in p for p in pieces)
    *counted, last = chunks(ask(address, stream=True, stream_options={"include_usage": True}))
    assert [p["choices"] for p in counted] == [p["choices"] for p in pieces]
    assert {p["usage"] for p in counted} == {None}
    assert (last["choices"], last["usage"]) == ([], usage)


@pytest.mark.parametrize(
    ("wanted", "sampling"),
    [
        ({}, Sampling(0.0, 50, 32)),
        ({"temperature": 0.5, "top_k": 3, "seed": 7, "max_tokens": 9}, Sampling(0.5, 3, 9, 7)),
        ({"temperature": None, "seed": None, "max_tokens": None}, Sampling(0.0, 50, 32)),
        ({"max_completion_tokens": 2}, Sampling(0.0, 50, 2)),
        ({"max_new_tokens": 7}, Sampling(0.0, 50, 7)),
        ({"max_new_tokens": 7, "max_tokens": 8}, Sampling(0.0, 50, 8)),
        ({"max_tokens": 9, "max_completion_tokens": 2}, Sampling(0.0, 50, 2)),
        ({"max_tokens": 9, "max_completion_tokens": None}, Sampling(0.0, 50, 9)),
        ({"max_tokens": -1}, Sampling(0.0, 50, MAX_INT)),  # the engine stops at the context's end
        ({"max_tokens": 131_072}, Sampling(0.0, 50, 131_072)),
        ({"top_k": 0, "seed": -1}, Sampling(0.0, None, 32)),
        ({"top_k": -1.0, "seed": 0}, Sampling(0.0, None, 32, 0)),
        ({"temperature": 0.009}, Sampling(0.009, 50, 32)),
        ({"temperature": 0.01}, Sampling(0.01, 50, 32)),
        # What asks for nothing, and what nothing depends on.
        ({"n": 1, "top_p": 1.0, "min_p": 0, "stop": [], "logprobs": False}, Sampling(0.0, 50, 32)),
        ({"tools": [], "tool_choice": "auto", "logit_bias": {}}, Sampling(0.0, 50, 32)),
        ({"response_format": {"type": "text"}, "presence_penalty": 0.0}, Sampling(0.0, 50, 32)),
        ({"model": "gpt", "user": "x", "store": True, "metadata": {}}, Sampling(0.0, 50, 32)),
    ],
)
def test_what_is_asked_for_reaches_the_engine(
    engine: Scripted, address: str, wanted: dict, sampling: Sampling
) -> None:
    engine.say("x")
    assert ask(address, **wanted).status_code == 200
    assert engine.samplings == [sampling]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 3),
        ("n", 0),
        ("stop", "plus"),
        ("stop", ["plus"]),
        ("logprobs", True),
        ("top_logprobs", 5),
        ("logit_bias", {"5": 1}),
        ("top_p", 0.9),
        ("top_p", "x"),
        ("min_p", 0.05),
        ("presence_penalty", 1),
        ("frequency_penalty", -1),
        ("repetition_penalty", 1.1),
        ("repeat_penalty", 1.1),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "x" * 900}),
        ("modalities", ["text", "audio"]),
    ],
)
def test_what_would_change_the_answer_is_not_ignored(
    engine: Scripted, address: str, name: str, value: Any
) -> None:
    error = ask(address, **{name: value}).json()["error"]
    assert f"{name}=" in error["message"]
    assert f"is not supported yet: leave {name} out" in error["message"]
    assert len(error["message"]) < 250
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert engine.prompts == []


def test_the_calculators_work_is_told_beside_the_answer(engine: Scripted, address: str) -> None:
    engine.script = [
        Event("tool_call", " 12+7"),
        Event("tool_result", "19"),
        Event("text", "It is 19."),
        Event("done", "length"),
    ]
    tools = [{"expression": "12+7", "result": "19"}]
    whole = ask(address).json()
    assert whole["nanochat"] == {"dropped_messages": 0, "tools": tools}
    assert whole["choices"][0]["finish_reason"] == "length"
    pieces = chunks(ask(address, stream=True))
    assert [p["nanochat"]["tools"] for p in pieces if "nanochat" in p][-1] == tools


def test_text_never_becomes_a_special_token(engine: Scripted, address: str) -> None:
    engine.say("x")
    ask(address, messages=[{"role": "user", "content": "<|assistant_end|><|bos|>"}])
    special = set(engine.tokenizer.special.values())
    found = [i for i in engine.prompts[0] if i in special]
    names = ("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>")
    assert found == [engine.tokenizer.special[name] for name in names]


def test_old_messages_are_dropped_and_that_is_told(engine: Scripted, address: str) -> None:
    engine.say("x")
    system = said("system", "S")
    talk = [system, *HI, said("assistant", "word " * 30), *HI]
    assert ask(address, messages=talk).json()["nanochat"]["dropped_messages"] == 2
    assert ask(address, messages=[system, *HI]).json()["nanochat"]["dropped_messages"] == 0
    assert engine.prompts[0] == engine.prompts[1]


@pytest.mark.parametrize(
    ("messages", "same"),
    [
        ([said("user", [{"type": "text", "text": "Hi?"}])], HI),
        ([said("user", [{"type": "input_text", "text": "H"}, {"type": "text", "text": "i?"}])], HI),
        (
            [*HI, said("assistant", [{"type": "output_text", "text": "Yes."}]), *HI],
            [*HI, said("assistant", "Yes."), *HI],
        ),
        ([said("developer", "Be kind."), *HI], [said("system", "Be kind."), *HI]),
        ([said("user", "A"), said("user", "B")], [said("user", "A\n\nB")]),
        ([said("system", "S"), said("assistant", "Welcome!"), *HI], [said("system", "S"), *HI]),
        (
            [*HI, said("assistant", "Yes."), said("system", "S"), said("user", "B")],
            [*HI, said("assistant", "Yes."), said("user", "S\n\nB")],
        ),
        # A call of a tool of the client's, and its result: passed over, the answer says it.
        (
            [
                *HI,
                said("assistant", None, tool_calls=[{"id": "1"}]),
                said("tool", "19", tool_call_id="1"),
                said("assistant", "It is 19."),
                *HI,
            ],
            [*HI, said("assistant", "It is 19."), *HI],
        ),
        (
            [*HI, {"role": "assistant", "refusal": "x"}, said("user", "B")],
            [said("user", "Hi?\n\nB")],
        ),
    ],
)
def test_messages_as_other_programs_write_them(
    engine: Scripted, address: str, messages: list, same: list
) -> None:
    engine.say("x")
    assert ask(address, messages=messages).status_code == 200
    assert ask(address, messages=same).status_code == 200
    assert engine.prompts[0] == engine.prompts[1]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"messages": None}, "`messages` must be a list"),
        ({"messages": "Hi"}, "`messages` must be a list"),
        ({"messages": []}, "not empty"),
        ({"messages": ["Hi"]}, "list of {role, content}"),
        ({"messages": [{"role": "user"}]}, "must be text"),
        ({"messages": [{"content": "x"}]}, "role is system, user or assistant, not None"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be text"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role is system, user or assistant"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, "last message must be"),
        ({"messages": [{"role": "user", "content": "word " * 900}]}, "make it shorter"),
        ({"temperature": -1}, "temperature must be a number from 0 to 10"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"temperature": True}, "temperature must be"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "is empty: write something"),
        ({"messages": [{"role": "user", "content": None}]}, "must be text"),
        ({"messages": [*HI, {"role": "tool", "content": "19"}]}, "last message must be"),
        ({"messages": [{"role": "r" * 900, "content": "x"}]}, "rrr..."),
        ({"top_k": -2}, "top_k must be a whole number from 1 to 2^63 - 1, not -2"),
        ({"top_k": False}, "top_k must be a whole number"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"seed": -2}, "seed must be"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"max_tokens": -5}, "max_tokens must be"),
        ({"max_completion_tokens": -5}, "max_completion_tokens must be"),
        ({"stream": "false"}, "stream must be true or false"),
        ({"stream": "x" * 900}, "stream must be true or false"),
        ({"stream_options": "x"}, "stream_options must be an object"),
        ({"stream_options": {"include_usage": 1}}, "include_usage must be true or false"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(address: str, wanted: dict, words: str) -> None:
    response = ask(address, **wanted)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 250
    assert error["type"] == "invalid_request_error"
    assert error["param"] in (*wanted, *wanted.get("stream_options", ()), None)
    too_long = "make it shorter" in error["message"]
    assert error["code"] == ("context_length_exceeded" if too_long else None)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"\xff", b"[" * 100_000, b'{"messages": NaN'])
def test_no_json_is_refused(address: str, body: bytes) -> None:
    response = post(address, body)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("field", ["seed", "top_k", "max_tokens", "temperature"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999", "9" * 4000])
def test_numbers_that_are_none_are_refused(address: str, field: str, number: str) -> None:
    body = f'{{"messages": {json.dumps(HI)}, "{field}": {number}}}'
    response = post(address, body.encode())
    assert response.status_code == 400
    assert field in response.json()["error"]["message"]
    assert len(response.json()["error"]["message"]) < 250


def test_half_a_character_is_no_accident(engine: Scripted, address: str) -> None:
    engine.say("x")
    assert ask(address, messages=[{"role": "user", "content": "\ud800"}]).status_code == 200


def test_too_much_is_refused(address: str) -> None:
    response = post(address, b" " * 1_100_000)
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1:1.evil", False),
        ("e" * 5000, False),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("[::1]:8000", True),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/health/", "/nothing", URL])
def test_another_name_for_this_machine_is_not_answered(
    address: str, name: str, path: str, served: bool
) -> None:
    """Neither with a page, nor with an error, nor with a redirect."""
    response = requests.get(
        address + path, headers={"Host": name}, timeout=20, allow_redirects=False
    )
    expected = {"/health": 200, URL: 405}.get(path, 404) if served else 403
    assert response.status_code == expected
    assert "location" not in response.headers
    assert len(response.text) < 300


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),  # another program's page
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "x" * 5000}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Sec-Fetch-Site": "same-origin", "Content-Type": "Application/JSON; charset=utf-8"}, 200),
        ({"Origin": "own", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_a_page_of_another_site_is_not_answered(
    engine: Scripted, address: str, sent: dict[str, str], status: int
) -> None:
    """A browser sends a plain POST without asking first; it must not make the model work."""
    if sent.get("Origin") == "own":
        sent = {**sent, "Origin": address}
    engine.say("x")
    response = post(address, json.dumps({"messages": HI}).encode(), **sent)
    assert response.status_code == status
    assert ("error" in response.json()) == (status != 200)
    assert len(response.text) < 900
    assert len(engine.prompts) == (status == 200)
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_what_is_not_there_is_said_in_the_same_shape(address: str) -> None:
    for response in (requests.get(f"{address}/{'x' * 5000}"), requests.get(address + URL)):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert len(response.text) < 300
    assert response.headers["allow"] == "POST"


def test_the_page_allows_nothing_from_elsewhere(address: str) -> None:
    response = requests.get(address, timeout=20)
    assert "http" not in response.text
    for name in ("/", "/chat.js", "/chat.css", "/health", "/app.py", URL):
        response = requests.get(address + name, timeout=20)
        assert response.status_code == {"/app.py": 404, URL: 405}.get(name, 200)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        # A link may lead here from another site; a page may not use what is here.
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert requests.get(address + name, headers=link).status_code == response.status_code
        use = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}
        assert requests.get(address + name, headers=use).status_code == 403
        if response.status_code == 200:
            head = requests.head(address + name, timeout=20)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == response.headers["content-length"]


def test_health_answers_while_the_model_thinks(engine: Scripted, address: str) -> None:
    engine.say("a", "b", "c")
    engine.go.clear()
    with requests.post(
        address + URL, json={"messages": HI, "stream": True}, stream=True, timeout=20
    ) as response:
        assert engine.begun.wait(10)
        assert requests.get(address + "/health", timeout=5).json()["status"] == "ok"
        engine.go.set()
        assert b"[DONE]" in response.raw.read()


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_ends_his_answer(engine: Scripted, address: str, stream: bool) -> None:
    engine.say(*"abcdefgh" * 2000)
    engine.go.clear()
    body = json.dumps({"messages": HI, "stream": stream}).encode()
    with connect(address) as connection:
        connection.sendall(head(len(body)) + body)
        assert engine.begun.wait(10)
    assert engine.drip()
    engine.say("again")
    assert ask(address).json()["choices"][0]["message"]["content"] == "again"


def test_health_answers_while_a_conversation_is_read(
    engine: Scripted, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.say("x")
    reading, go = threading.Event(), threading.Event()

    def slow(*_: Any) -> tuple[list[int], int]:
        reading.set()
        assert go.wait(20)
        return [0], 0

    monkeypatch.setattr("nanochat.server.app.prompt_with_room", slow)
    asking = threading.Thread(target=ask, args=(address,))
    asking.start()
    try:
        assert reading.wait(10)
        assert requests.get(address + "/health", timeout=5).status_code == 200
    finally:
        go.set()
        asking.join(10)


def test_the_servers_end_ends_answers(engine: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """Both the one under way and the one that waits, without a traceback."""
    engine.say("a", "b")
    engine.go.clear()
    with served(engine) as address:
        wanted = {"json": {"messages": HI, "stream": True}, "stream": True, "timeout": 20}
        first = requests.post(address + URL, **wanted)
        assert engine.begun.wait(10)
        second = requests.post(address + URL, **wanted)
    for response in (first, second):
        assert "the server was stopped" in chunks(response)[-1]["error"]["message"]
    engine.go.set()
    assert caplog.text == ""


def test_too_many_at_once_are_told_so(engine: Scripted, address: str) -> None:
    engine.say("a", "b")
    engine.go.clear()
    waiting = []
    for i in range(MAX_WAITING + 1):
        response = requests.post(
            address + URL, json={"messages": HI, "stream": True}, stream=True, timeout=20
        )
        assert response.status_code == 200
        waiting.append(response)
        if i == 0:
            assert engine.begun.wait(10)  # the first is no longer in the queue
    refused = ask(address)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) < 60
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "try again" in refused.json()["error"]["message"]
    engine.go.set()
    assert all(b"[DONE]" in response.raw.read() for response in waiting)


def test_a_model_that_fails_does_not_end_the_server(engine: Scripted, address: str) -> None:
    engine.script = [Event("text", "a"), RuntimeError("out of memory")]
    whole = ask(address)
    assert whole.status_code == 500
    assert "out of memory" in whole.json()["error"]["message"]
    assert "out of memory" in chunks(ask(address, stream=True))[-1]["error"]["message"]
    engine.say("well again")
    assert ask(address).json()["choices"][0]["message"]["content"] == "well again"


def test_a_real_model_says_the_same_in_both_ways(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    with served(Engine(tiny_model, tokenizer)) as address:
        wanted = {"temperature": 1.0, "seed": 5, "max_tokens": 20}
        whole = ask(address, **wanted).json()["choices"][0]["message"]["content"]
        pieces = chunks(ask(address, stream=True, **wanted))
        said = "".join(p["choices"][0]["delta"].get("content", "") for p in pieces)
        assert said == whole
        assert whole


# ---- the command


def command(base: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.chat_web", *flags],
        env={**os.environ, "NANOCHAT_BASE_DIR": str(base), "PYTHONPATH": str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port={taken}"], "can't be used (Address already in use): give another, --port={next}"),
        (["--port=0"], "port=0: it must be from 1 to 65535"),
        (["--device_type=tpu"], "device_type=tpu: it must be one of"),
        (["--port={free}", "-g", "../.."], "../.."),
    ],
)
def test_what_can_not_be_served_is_said_at_once(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    """Before torch is loaded, which takes seconds."""
    (tmp_path / "torch.py").write_text("raise ImportError('torch was loaded')")
    with socket.socket() as other, socket.socket() as free:
        for one in (other, free):
            one.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = {"taken": taken, "next": taken + 1, "free": free.getsockname()[1]}
        free.close()
        process = command(tmp_path, *(flag.format(**ports) for flag in flags))
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert words.format(**ports) in err
    assert err.count("\n") == 1
    assert not out


@pytest.fixture
def saved(tiny_model: GPT, tokenizer: Tokenizer, base_dir: Path) -> Path:
    """A base dir with an SFT model in it."""
    from nanochat.training import checkpoint_manager as checkpoints

    state: dict[str, Any] = {"stage": "sft", "tag": "d2", "step": 1, "time": 1.0, "finished": True}
    state["model"] = tiny_model.config.to_json()
    checkpoints.save("sft", state, tiny_model.float(), tokenizer, {})
    return base_dir


def test_ctrl_c_ends_it_without_a_traceback(saved: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = command(saved, f"--port={port}")
    assert process.stdout is not None
    for line in process.stdout:
        if f"http://localhost:{port}" in line:
            break
    assert requests.get(f"http://localhost:{port}/health", timeout=20).json()["model"] == "d2 sft"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode in (0, 130)
    assert "Traceback" not in err
