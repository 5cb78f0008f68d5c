"""Talk to a model in the terminal. `python -m scripts.chat_cli -i sft`"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from nanochat import stages
from nanochat.model_choice import ModelChoice
from nanochat.sampling import Sampling
from nanochat.system import cli
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.engine import Engine

# A terminal that sends a paste line by line sends it all at once; nobody types a line in 50 ms.
PASTED_S = 0.05


class Words(NamedTuple):
    """What a kind of model is for, in the terminal."""

    help: str
    prompt: str
    answer: str  # before what the model says


CHAT = Words("Type a question.", "You: ", "nanochat: ")
# A base model was never shown a conversation: it continues each text on its own.
BASE = Words("Type the beginning of a text.", "Text: ", "... ")
COMMANDS = "/clear: start over; /quit or Ctrl-D: leave; Ctrl-C: stop an answer."


@dataclass(frozen=True)
class Config:
    """Talk to a model; with --prompt, answer once and print nothing but the answer."""

    prompt: Annotated[str | None, tyro.conf.arg(aliases=["-p"])] = None
    """ask this and exit; - reads it from standard input"""
    model: ModelChoice = field(default_factory=lambda: ModelChoice("sft"))
    """which model to talk to; a base model continues texts instead of answering"""
    sampling: Sampling = field(default_factory=Sampling)
    """how it picks its words"""


def main(config: Config) -> None:
    """Load the model, then answer once or hold a conversation."""
    text = sys.stdin.read() if config.prompt == "-" else config.prompt
    if text is not None and not text.strip():
        raise UserError("the prompt is empty: give a question after -p")
    found = config.model.find()
    from nanochat.engine import Engine  # torch: only after everything a user can get wrong

    with contextlib.redirect_stdout(sys.stderr):  # standard output is for answers
        model, tokenizer, _ = config.model.load(found)
    engine, sampling = Engine(model, tokenizer), config.sampling
    base = config.model.source not in stages.CHAT
    if text is not None:
        # An argument that is not UTF-8 arrives with lone surrogates, which no tokenizer takes.
        text = text.strip().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        prompt, _ = prompt_of(engine, [{"role": "user", "content": text}], sampling, base)
        answer(engine, prompt, sampling, interruptible=sys.stdin.isatty())
        return
    words = BASE if base else CHAT
    print(f"nanochat, {found.tag} ({config.model.source}, step {found.step:,})", file=sys.stderr)
    print(f"{words.help}\n{COMMANDS}", file=sys.stderr)
    converse(engine, sampling, base)


def converse(engine: Engine, sampling: Sampling, base: bool = False) -> None:
    """Read, answer, remember, until the user leaves; base: continue each text by itself."""
    with contextlib.suppress(ImportError):
        import readline  # gives input() line editing and a history

        # Python turns this off. With it, a pasted text of several lines waits for Enter, so it can
        # be read over first. libedit (macOS) does not know it; there read_message joins the lines.
        readline.parse_and_bind("set enable-bracketed-paste on")
    words = BASE if base else CHAT
    conversation: list[dict] = []
    told = leaving = False
    while True:
        try:
            text = read_message(f"\n{words.prompt}").strip()
        except EOFError:
            print()
            return
        except OSError:  # the terminal was closed
            return
        except KeyboardInterrupt:
            # It was often meant for an answer that ended a moment ago: leaving at once would throw
            # the conversation away for a key pressed too late.
            print()
            if leaving:
                return
            leaving = True
            print("(press Ctrl-C again, or Ctrl-D, to leave)")
            continue
        leaving = False
        if text.lower() in ("quit", "exit", "/quit", "/exit"):
            return
        if text.lower() in ("clear", "/clear"):
            conversation, told = [], False
            print("(a new conversation)")
            continue
        if text.startswith("/") and "\n" not in text:
            # A mistyped command would get a confident answer from a model that never saw one.
            if text.lower() != "/help":
                print(f"({text.split()[0]} is not a command)")
            print(f"({words.help}\n {COMMANDS})")
            continue
        if not text:
            continue
        conversation = [*([] if base else conversation), {"role": "user", "content": text}]
        try:
            prompt, dropped = prompt_of(engine, conversation, sampling, base)
        except UserError as error:
            print(f"({error})")
            conversation.pop()
            continue
        if dropped and not told:  # once: from here on it is true of every answer
            told = True
            print("(context full: dropping the oldest messages from here on)", file=sys.stderr)
        print(words.answer, end="", flush=True)
        conversation.append({"role": "assistant", "content": answer(engine, prompt, sampling)})


def read_message(prompt: str) -> str:
    """What the user types or pastes; lines that arrive together are one message.

    Raises what input() raises: EOFError, KeyboardInterrupt, and OSError from a closed terminal.
    """
    lines = [input(prompt)]
    while sys.stdin.isatty() and select.select([sys.stdin], [], [], PASTED_S)[0]:
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines)


def prompt_of(
    engine: Engine, conversation: Sequence[dict], sampling: Sampling, base: bool = False
) -> tuple[list[int], int]:
    """(token ids to continue, how many of the oldest messages did not fit)."""
    from nanochat.conversation import prompt_with_room

    tokenizer, length = engine.tokenizer, engine.model.config.max_seq_len
    if not base:
        return prompt_with_room(conversation, tokenizer, length, sampling.max_new_tokens)
    # No chat tokens: base training never shows them, and with them it would answer at its worst.
    ids = [tokenizer.bos, *tokenizer.encode(conversation[-1]["content"])]
    if len(ids) >= length:
        raise UserError(
            f"the text has {len(ids)} tokens, and the model reads {length - 1} at most: "
            "make it shorter"
        )
    return ids, 0


def answer(
    engine: Engine, prompt: list[int], sampling: Sampling, interruptible: bool = True
) -> str:
    """Stream the answer to standard output; returns it. interruptible: Ctrl-C ends only it."""
    from nanochat.system.log import printable

    # On a terminal, an escape sequence in the answer could move the cursor or clear the screen. A
    # pipe gets what the model said, byte for byte.
    said, shown = "", printable if sys.stdout.isatty() else str
    try:
        for event in engine.stream(prompt, sampling):
            if event.kind == "text":
                said += event.text
                sys.stdout.write(shown(event.text))
                sys.stdout.flush()
            elif event.kind == "done" and event.text == "length":
                print(" ...", end="", file=sys.stderr)
        if not said.strip():
            print("(empty answer)", end="", file=sys.stderr)
    except KeyboardInterrupt:
        if not interruptible:
            raise
        sys.stdout.write(" (stopped)")
    print(flush=True)
    return said


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_cli")
