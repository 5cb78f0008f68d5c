"""Talk to a model in the terminal. `python -m scripts.chat_cli -i sft`"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from nanochat.system import cli
from nanochat.system.errors import UserError

if TYPE_CHECKING:
    from nanochat.engine import Engine
    from nanochat.sampling import Sampling

MOST_SEED = 2**63 - 1  # what torch's generators take
PASTED_S = 0.05  # a line that follows another so fast was not typed


class Words(NamedTuple):
    """What a kind of model is for, in the terminal."""

    help: str
    prompt: str
    answer: str  # before what the model says


CHAT = Words("Type a question.", "You: ", "nanochat: ")
# A base model has read no conversations: it continues each text by itself.
BASE = Words("Type the beginning of a text.", "Text: ", "... ")
COMMANDS = "/clear: start over; /quit or Ctrl-D: leave; Ctrl-C: stop an answer."


@dataclass(frozen=True)
class Config:
    """Talk to a model; with --prompt, answer once and print nothing but the answer."""

    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "sft"
    """sft, mid, or base, which continues texts and holds no conversation"""
    prompt: Annotated[str | None, tyro.conf.arg(aliases=["-p"])] = None
    """ask this and leave; - reads it from standard input"""
    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    step: Annotated[int | None, tyro.conf.arg(aliases=["-s"])] = None
    """which step (default: the last)"""
    temperature: Annotated[float, tyro.conf.arg(aliases=["-t"])] = 0.0
    """0: always the most likely word; around 0.8: livelier, and more often wrong"""
    top_k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 50
    """choose among so many tokens"""
    seed: int | None = None
    """the same seed and question give the same answer (default: never the same)"""
    max_new_tokens: int = 256
    """tokens of an answer at most"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best there is)"""

    def __post_init__(self) -> None:
        """Refuse nonsense by name."""
        if self.source not in ("base", "mid", "sft"):
            raise ValueError(f"-i {self.source}: it must be sft, mid or base")
        if self.temperature != 0 and not 0.01 <= self.temperature <= 10:
            raise ValueError(f"temperature={self.temperature}: it must be 0, or from 0.01 to 10")
        for name in ("top_k", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it must be 1 or more")
        if self.seed is not None and not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed={self.seed}: it must be from 0 to {MOST_SEED}")
        cli.check_device_type(self.device_type)


def main(config: Config) -> None:
    """Load the model, then answer once or hold a conversation."""
    text = sys.stdin.read() if config.prompt == "-" else config.prompt
    if text is not None and not text.strip():
        raise UserError("the prompt is empty: give a question after -p")
    from nanochat.training import checkpoint_manager as checkpoints

    found = checkpoints.find(config.source, config.model_tag, config.step)
    from nanochat.engine import Engine  # torch: after what a user can get wrong
    from nanochat.sampling import Sampling
    from nanochat.system.device import open_device

    with contextlib.redirect_stdout(sys.stderr):  # standard output is for answers
        device = open_device(config.device_type)
    engine = Engine(found.model(device).freeze(), found.tokenizer())
    sampling = Sampling(config.temperature, config.top_k, config.max_new_tokens, config.seed)
    base = config.source == "base"
    if text is not None:
        # An argument that is not UTF-8 comes with lone surrogates, which no tokenizer takes.
        text = text.strip().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        prompt, _ = prompt_of(engine, [{"role": "user", "content": text}], sampling, base)
        answer(engine, prompt, sampling, interruptible=sys.stdin.isatty())
        return
    words = BASE if base else CHAT
    title = f"nanochat, {found.tag} ({config.source}, step {found.step:,})"
    print(f"{title}. {words.help} {COMMANDS}", file=sys.stderr)
    converse(engine, sampling, base)


def converse(engine: Engine, sampling: Sampling, base: bool = False) -> None:
    """Read, answer, remember, until the user leaves; base: continue each text by itself."""
    with contextlib.suppress(ImportError):
        import readline  # gives input() its line editing

        # Python turns it off: with it a paste of several lines can be looked at before Enter.
        # libedit (macOS) does not know it; read_message puts such lines together as well.
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
            print()
            if leaving:
                return
            leaving = True
            print("(Ctrl-C once more leaves, as /quit and Ctrl-D do; else just go on)")
            continue
        leaving = False
        if text.lower() in ("quit", "exit", "/quit", "/exit"):
            return
        if text.lower() in ("clear", "/clear"):
            conversation, told = [], False
            print("(a new conversation)")
            continue
        if text.startswith("/") and "\n" not in text:
            if text.lower() != "/help":
                print(f"({text.split()[0]} is not a command)")
            print(f"({words.help} {COMMANDS})")
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
        if dropped and not told:
            told = True
            print("(from here on the oldest messages are forgotten: no more fit)", file=sys.stderr)
        print(words.answer, end="", flush=True)
        conversation.append({"role": "assistant", "content": answer(engine, prompt, sampling)})


def read_message(prompt: str) -> str:
    """What the user types, or pastes: lines that come at once are one message.

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
            print("(an empty answer)", end="", file=sys.stderr)
    except KeyboardInterrupt:
        if not interruptible:
            raise
        sys.stdout.write(" (stopped)")
    print(flush=True)
    return said


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_cli")
