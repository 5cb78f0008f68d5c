"""Talk to a model in the terminal. `python -m scripts.chat_cli -i sft`"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from nanochat.system import cli

HELP = "Type a question. clear: begin anew; quit or Ctrl-D: leave; Ctrl-C: stop an answer."


@dataclass(frozen=True)
class Config:
    """Talk to a model; with --prompt, answer once and print nothing but the answer."""

    source: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "sft"
    """sft, mid or base"""
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
    """tokens of an answer at the most"""
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


def main(config: Config) -> None:
    """Load the model, then answer once or hold a conversation."""
    text = sys.stdin.read() if config.prompt == "-" else config.prompt
    if text is not None and not text.strip():
        raise cli.UserError("the prompt is empty: give a question after -p")
    from nanochat.engine import Engine, Sampling
    from nanochat.system.device import open_device
    from nanochat.training import checkpoint_manager as checkpoints

    found = checkpoints.find(config.source, config.model_tag, config.step)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for answers
        device = open_device(config.device_type)
    engine = Engine(found.model(device), found.tokenizer())
    sampling = Sampling(config.temperature, config.top_k, config.max_new_tokens, config.seed)
    if text is not None:
        prompt, _ = prompt_of(engine, [{"role": "user", "content": text.strip()}], sampling)
        answer(engine, prompt, sampling, interruptible=sys.stdin.isatty())
        return
    print(f"nanochat, {found.tag} ({config.source}, step {found.step:,}). {HELP}", file=sys.stderr)
    converse(engine, sampling)


def converse(engine, sampling) -> None:
    """Read, answer, remember, until the user leaves."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives input() its line editing)
    conversation: list[dict] = []
    told = False
    while True:
        try:
            text = input("\nYou: ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.lower() in ("quit", "exit"):
            return
        if text.lower() == "clear":
            conversation, told = [], False
            print("(a new conversation)")
            continue
        if not text:
            continue
        conversation.append({"role": "user", "content": text})
        try:
            prompt, dropped = prompt_of(engine, conversation, sampling)
        except cli.UserError as error:
            print(f"({error})")
            conversation.pop()
            continue
        if dropped and not told:
            told = True
            print("(from here on the oldest messages are forgotten: no more fit)", file=sys.stderr)
        print("nanochat: ", end="", flush=True)
        conversation.append({"role": "assistant", "content": answer(engine, prompt, sampling)})


def prompt_of(engine, conversation: list[dict], sampling) -> tuple[list[int], int]:
    """(token ids to continue, how many of the oldest messages did not fit)."""
    from nanochat.conversation import prompt_with_room

    length = engine.model.config.max_seq_len
    return prompt_with_room(conversation, engine.tokenizer, length, sampling.max_new_tokens)


def answer(engine, prompt: list[int], sampling, interruptible: bool = True) -> str:
    """Stream the answer to standard output; returns it. interruptible: Ctrl-C ends only it."""
    said = ""
    try:
        for event in engine.stream(prompt, sampling):
            if event.kind == "text":
                said += event.text
                sys.stdout.write(event.text)
                sys.stdout.flush()
            elif event.kind == "done" and event.text == "length":
                print(" ...", end="", file=sys.stderr)
    except KeyboardInterrupt:
        if not interruptible:
            raise
        sys.stdout.write(" (stopped)")
    print(flush=True)
    return said


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.chat_cli")
