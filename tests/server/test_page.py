"""The page in a real browser, with an engine that a test holds and lets go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from nanochat.engine import Event
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.tokenizer import Tokenizer
from tests.server.scripted import Scripted, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED: no playwright here")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED in a browser: no chromium here"),
]


@pytest.fixture
def engine(tiny_model: GPT, tokenizer: Tokenizer) -> Scripted:
    tiny_model.config = GPTConfig(2, tokenizer.vocab_size, 512)
    return Scripted(tiny_model, tokenizer)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


@pytest.fixture
def page(engine: Scripted, browser) -> Iterator:
    """The page, opened; the test fails for anything on its console."""
    complaints: list[str] = []
    with served(engine) as address:
        found = browser.new_page(viewport={"width": 1000, "height": 700})
        found.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        found.on("pageerror", lambda error: complaints.append(str(error)))
        found.goto(address)
        yield found
        if folder := os.environ.get("SCREENSHOTS"):  # to be looked at
            name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split()[0]
            found.screenshot(path=f"{folder}/{name}.png")
        engine.go.set()
        found.close()
    assert [
        c
        for c in complaints
        if "status of 4" not in c and "status of 5" not in c and "REFUSED" not in c
    ] == []


def items(page) -> list[str]:
    return page.locator("#log li").all_inner_texts()


def test_an_answer_is_streamed(page, engine: Scripted) -> None:
    expect = playwright.expect
    expect(page.locator("#model")).to_have_text("d4 sft")
    engine.say("The sky", " is <b>blue</b>.")
    engine.go.clear()
    page.locator("#text").fill("What color is the sky?")
    page.keyboard.press("Enter")
    expect(page.locator("#log li").nth(1)).to_have_text("The sky")
    expect(page.locator("#send")).to_have_text("Stop")
    engine.go.set()
    expect(page.locator("#log li").nth(1)).to_have_text("The sky is <b>blue</b>.")
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator("#welcome")).to_be_hidden()
    engine.say("Green.")
    page.locator("#text").fill("And grass?")
    page.locator("#send").click()
    expect(page.locator("#log li").nth(3)).to_have_text("Green.")
    ids = engine.prompts[-1]
    assert "The sky is <b>blue</b>." in engine.tokenizer.decode([i for i in ids if i < 391])


@pytest.mark.parametrize("how", ["button", "escape"])
def test_an_answer_can_be_stopped(page, engine: Scripted, how: str) -> None:
    expect = playwright.expect
    engine.say("one ", *["more "] * 2000)
    engine.go.clear()
    page.locator("#examples button").first.click()
    expect(page.locator("#log li").nth(1)).to_contain_text("one")
    if how == "button":
        page.locator("#send").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator("#log li").nth(1)).to_contain_text("(stopped)")
    assert engine.drip()
    expect(page.locator("#send")).to_have_text("Send")


def test_an_error_is_said_and_the_question_stays_in_the_box(page, engine: Scripted) -> None:
    expect = playwright.expect
    text = page.locator("#text")
    engine.script = [RuntimeError("out of memory")]
    text.fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("out of memory")
    expect(page.locator("#log .user")).to_have_count(0)
    expect(text).to_have_value("Hi")
    engine.say("Hello.")
    page.keyboard.press("Enter")
    expect(page.locator("#log li")).to_have_text(["Hi", "Hello."])
    text.fill("word " * 900 + "end")
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("make it shorter")
    expect(text).to_have_value("word " * 900 + "end")
    engine.script = [Event("tool_call", "1"), RuntimeError("out of memory")]
    engine.go.clear()
    text.fill("Short")
    page.keyboard.press("Enter")
    expect(page.locator("#log .tool")).to_have_text("1")
    text.fill("And more")
    engine.go.set()
    expect(text).to_have_value("Short\nAnd more")
    engine.say("Hello.")
    text.fill("Again")
    page.keyboard.press("Enter")
    expect(page.locator("#log li")).to_have_text(["Hi", "Hello.", "Again", "Hello."])
    asked = engine.tokenizer.decode([i for i in engine.prompts[-1] if i < 391])
    assert "word" not in asked


def test_what_was_forgotten_is_said_and_no_longer_sent(page, engine: Scripted) -> None:
    expect = playwright.expect
    text = page.locator("#text")
    engine.say("word " * 100)
    for n in range(2):
        text.fill(f"Question {n}")
        page.keyboard.press("Enter")
        expect(page.locator("#log .assistant:not(.waiting)")).to_have_count(n + 1)
    engine.script = [RuntimeError("out of memory")]
    text.fill("word " * 60)
    page.keyboard.press("Enter")
    expect(page.locator("#log .note").last).to_contain_text("dropping the oldest messages")
    expect(page.locator("#log .error")).to_be_visible()
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json["messages"]))
    engine.say("Hello.")
    text.fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_have_count(0)
    expect(page.locator("#log li").last).to_have_text("Hello.")
    expect(page.locator("#log .user")).to_have_text(["Question 0", "Question 1", "Hi"])
    expect(page.locator("#log .note")).to_have_count(1)  # it is said once
    engine.say("word " * 100)
    for n in range(2):
        text.fill("word " * 60)
        page.keyboard.press("Enter")
        expect(page.locator("#log .assistant:not(.waiting)")).to_have_count(n + 4)
    expect(page.locator("#log .note")).to_have_count(1)
    page.locator("#new").click()
    for n in range(2):
        text.fill("word " * 60)
        page.keyboard.press("Enter")
        expect(page.locator("#log .assistant:not(.waiting)")).to_have_count(n + 1)
    expect(page.locator("#log .note")).to_have_count(1)
    questions = [m["content"] for m in sent[0] if m["role"] == "user"]
    assert questions in (["Question 1", "Hi"], ["Hi"])


def test_a_server_that_is_gone_is_said_in_plain_words(page, engine: Scripted) -> None:
    expect = playwright.expect
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=500, body="<oops>"))
    page.locator("#text").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("The server failed (status 500).")
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("Is it still running?")
    expect(page.locator("#text")).to_have_value("Hi")
    page.unroute("**/v1/chat/completions")
    html = {"status": 200, "body": "<p>another program", "content_type": "text/html"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**html))
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("The server failed (status 200).")
    expect(page.locator("#text")).to_have_value("Hi")


def streamed(*chunks: str) -> str:
    return "".join(f"{chunk}\n\n" for chunk in chunks)


def piece(text: str, finish: str = "null") -> str:
    return f'data: {{"choices": [{{"delta": {{"content": "{text}"}}, "finish_reason": {finish}}}]}}'


USAGE = 'data: {"choices": [], "usage": {"total_tokens": 3}}'
ENDED = 'data: {"error": {"message": "the server was stopped"}}'


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            [": alive", piece("Blue."), ": alive", piece("", '"stop"'), USAGE, "data: [DONE]"],
            "Blue.",
        ),
        ([piece("Blue."), 'data: {"object": "of another kind"}', piece("", '"stop"')], "Blue."),
        ([piece("half an ans")], "half an ans … (interrupted: The connection was lost"),
        ([piece("half an ans"), "data: [DONE]"], "half an ans … (interrupted: The connection"),
        ([piece("half an ans"), ENDED], "half an ans … (interrupted: the server was stopped)"),
        ([piece("half an ans"), "data: {"], "half an ans … (interrupted: This page failed: Syntax"),
        ([piece("half an ans"), 'data: {"choices": [{}]}'], "This page failed: TypeError"),
        ([piece("", '"stop"'), "data: [DONE]"], "(empty answer)"),
        ([piece("  ", '"stop"'), "data: [DONE]"], "(empty answer)"),
    ],
)
def test_what_a_stream_may_bring(page, body: list[str], shown: str) -> None:
    expect = playwright.expect
    answers = {"body": streamed(*body), "content_type": "text/event-stream"}
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json["messages"]))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answers))
    for question in ("Hi", "And?"):
        page.locator("#text").fill(question)
        page.keyboard.press("Enter")
        expect(page.locator("#send")).to_have_text("Send")
        expect(page.locator("#log .assistant").last).to_contain_text(shown)
    expect(page.locator("#log .error")).to_have_count(0)
    said = next((text for text in ("Blue.", "half an ans") if any(text in b for b in body)), "")
    assert [message["content"].strip() for message in sent[1]] == ["Hi", said, "And?"]


def test_a_stream_cut_by_the_servers_death_keeps_its_text(engine: Scripted, browser) -> None:
    expect = playwright.expect
    engine.say("half an ans", "wer")
    engine.go.clear()
    with served(engine) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("#text").fill("Hi")
        page.keyboard.press("Enter")
        expect(page.locator("#log .assistant")).to_have_text("half an ans")
    expect(page.locator("#log .assistant")).to_contain_text("interrupted: the server was stopped")
    expect(page.locator("#log .assistant")).to_contain_text("half an ans")
    engine.go.set()
    page.locator("#text").fill("And?")
    page.keyboard.press("Enter")
    expect(page.locator("#log .error")).to_contain_text("Is it still running?")
    expect(page.locator("#text")).to_have_value("And?")
    page.close()


def test_who_speaks_is_told_to_who_listens(page, engine: Scripted) -> None:
    engine.say("مرحبا")
    page.locator("#text").fill("Hi")
    page.keyboard.press("Enter")
    answer = page.locator("#log .assistant:not(.waiting)")
    playwright.expect(answer).to_have_text("مرحبا")
    heard = page.locator("body").aria_snapshot()
    assert "You: Hi" in heard
    assert "nanochat: مرحبا" in heard
    assert 'form "Your message"' in heard
    assert answer.evaluate("item => getComputedStyle(item).direction") == "rtl"


def test_who_reads_further_up_is_left_there(page, engine: Scripted) -> None:
    expect = playwright.expect
    engine.say("line\n" * 80, *["more\n"] * 20)
    engine.go.clear()
    page.locator("#text").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#log li").nth(1)).to_contain_text("line")
    expect(page.locator("#log")).to_have_attribute("aria-busy", "true")
    page.evaluate("document.querySelector('main').scrollTop = 0")
    engine.go.set()
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator("#log")).to_have_attribute("aria-busy", "false")
    assert page.evaluate("document.querySelector('main').scrollTop") == 0


def test_a_new_chat_forgets_and_ends_what_was_under_way(page, engine: Scripted) -> None:
    expect = playwright.expect
    engine.say("one ", *["more "] * 2000)
    engine.go.clear()
    page.locator("#text").fill("Tell me")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("a lot")
    page.keyboard.press("Enter")
    expect(page.locator("#log li").nth(1)).to_contain_text("one")
    page.locator("#new").click()
    expect(page.locator("#log li")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    assert engine.drip()
    engine.say("Fresh.")
    page.locator("#text").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#log li")).to_have_text(["Hi", "Fresh."])
    assert "Tell me" not in engine.tokenizer.decode([i for i in engine.prompts[-1] if i < 391])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tools_cuts_and_a_narrow_window(page, engine: Scripted, scheme: str) -> None:
    expect = playwright.expect
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 320, "height": 560})
    engine.script = [
        Event("tool_call", " 12+7"),
        Event("tool_result", "19"),
        Event("text", "12 plus 7 is 19. " + "long" * 60),
        Event("done", "length"),
    ]
    page.locator("#text").fill("What is 12 + 7?")
    page.keyboard.press("Enter")
    expect(page.locator("#log .tool")).to_have_text("12+7 = 19")
    expect(page.locator("#log li").nth(1)).to_contain_text("cut off at the length limit")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 320
