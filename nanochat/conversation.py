"""Messages to token ids, with a mask of what the model is to learn to say itself.

<|bos|> <|user_start|> question <|user_end|> <|assistant_start|> answer <|assistant_end|> ...
The user's turns and the output of tools are context. The assistant's turns, the token that ends
them, and its tool calls are supervised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nanochat.clean_typing import clean_typing
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system", "content": str | parts}
Conversation = Sequence[Message]

# An assistant's content may be a list of parts: the marks around each, and whether the model is to
# say it. It writes a calculation; the result comes from the calculator. A model that learned to say
# results would make them up instead of asking.
PARTS = {
    "text": (None, None, True),
    "python": ("<|python_start|>", "<|python_end|>", True),
    "python_output": ("<|output_start|>", "<|output_end|>", False),
}


class Rendered(NamedTuple):
    """Token ids and, for each, 1 if the model is to learn to say it, else 0."""

    ids: list[int]
    mask: list[int]


def check(conversation: Any, plain: bool = False) -> Conversation:
    """Return the conversation as the model sees it: the user and the assistant, taking turns.

    Consecutive texts of one role are joined. plain: what the user typed is read in its plain form.
    Raises UserError that names what is wrong.
    """
    system, turns = _system_and_turns(conversation, plain)
    return [_with_system(system, turns[0]), *turns[1:]]


def _system_and_turns(conversation: Any, plain: bool) -> tuple[str, list[Message]]:
    """The system's text, and turns that alternate, the user first."""
    if not isinstance(conversation, list) or not conversation:
        raise UserError("a conversation is a list of {role, content} messages, and not empty")
    turns: list[Message] = []
    last = None  # the role before
    for number, message in enumerate(conversation, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError(f"a message needs role and content, not {str(message)[:60]!r}")
        _check_content(message)
        # Before anything is joined to it: a system's text is not typed.
        if message["role"] == "user":
            message = {**message, "content": clean_typing(message["content"], plain)}
        # Newer programs call the system's message the developer's.
        role = "system" if message["role"] == "developer" else message["role"]
        wanted = "assistant" if last == "user" else "user"
        # Chat programs do send two user messages in a row. The model has never seen that, so they
        # become one; parts with marks around them can't be joined like that.
        if role == last and all(isinstance(m["content"], str) for m in (turns[-1], message)):
            turns[-1] = {"role": role, "content": _joined(turns[-1], message)}
            continue
        if last == "system" and role != "user":
            raise UserError("a system message must be followed by the user's")
        if role != wanted and not (role == "system" and last is None):
            raise UserError(f"message {number} must be the {wanted}'s, not {role!r}'s")
        turns.append(message)
        last = role
    if last == "system":
        raise UserError("a system message must be followed by the user's")
    has_system = turns[0]["role"] in ("system", "developer")
    return (turns.pop(0)["content"] if has_system else ""), turns


def _with_system(system: str, first: Message) -> Message:
    """The first user's message, with the system's text in front of it if there is any."""
    # The format has no token for a system's turn, so that a model need not learn one from the few
    # conversations that have it: to the model it is how the first question begins.
    if not system.strip():
        return first
    return {"role": "user", "content": _joined({"content": system}, first)}


def _joined(first: Message, second: Message) -> str:
    """Both texts with a blank line in between, or the only one that says anything."""
    return "\n\n".join(m["content"] for m in (first, second) if m["content"].strip())


def text_of(conversation: Conversation) -> str:
    """What is said in it, one paragraph per turn, without marks and tool calls."""
    said = []
    for message in conversation:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(part["text"] for part in content if part["type"] == "text")
        said.append(content)
    return "\n\n".join(said)


def _check_content(message: Message) -> None:
    content = message["content"]
    if isinstance(content, str):
        return
    if message["role"] != "assistant" or not isinstance(content, list):
        raise UserError(f"the {message['role']}'s content must be text, not {str(content)[:60]!r}")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise UserError(f"a part of an answer needs type and text, not {str(part)[:60]!r}")
        if part.get("type") not in PARTS:
            raise UserError(f"a part's type is one of {', '.join(PARTS)}, not {part.get('type')!r}")


def render(
    conversation: Conversation, tokenizer: Tokenizer, max_tokens: int | None = None
) -> Rendered:
    """Ids and mask of a whole conversation, of at most max_tokens.

    What is too long loses whole exchanges from its end; a first exchange that is too long by itself
    is cut inside.
    """
    # Cut between exchanges, because half an answer teaches the model to stop in the middle of one.
    ids, mask = [tokenizer.bos], [0]
    conversation = check(conversation, tokenizer.plain_typing)
    # strict=False: a last question without an answer is dropped, since it teaches nothing.
    for question, answer in zip(conversation[::2], conversation[1::2], strict=False):
        turn_ids, turn_mask = _turn(question, tokenizer)
        answer_ids, answer_mask = _turn(answer, tokenizer)
        turn_ids, turn_mask = turn_ids + answer_ids, turn_mask + answer_mask
        if max_tokens is not None and len(ids) + len(turn_ids) > max_tokens:
            if len(ids) == 1:
                ids, mask = (ids + turn_ids)[:max_tokens], (mask + turn_mask)[:max_tokens]
            break
        ids, mask = ids + turn_ids, mask + turn_mask
    return Rendered(ids, mask)


def render_prompt(
    conversation: Conversation, tokenizer: Tokenizer, max_tokens: int
) -> tuple[list[int], int]:
    """Ids that the assistant is to continue, and how many turns did not fit.

    Whole exchanges are dropped from the start; the system's text stays. Raises UserError if the
    last message alone is too long.
    """
    # A prompt is rendered as in training, up to the token that begins an answer. What follows that
    # token is what the model has learned to say: this is all that "chat" is.
    system, turns = _system_and_turns(conversation, tokenizer.plain_typing)
    if turns[-1]["role"] != "user":
        raise UserError("the last message must be the user's: it is the one to answer")
    found: tuple[list[int], int] | None = None
    later: list[int] = []  # ids of the turns after the first one that is kept
    # From the newest question back, as long as it fits: the latest turns matter most, and what
    # does not fit need not even be encoded.
    for first in range(len(turns) - 1, -1, -2):
        head = _turn(_with_system(system, turns[first]), tokenizer)[0]
        ids = [tokenizer.bos, *head, *later, tokenizer.special["<|assistant_start|>"]]
        if len(ids) > max_tokens:
            break
        found = ids, first
        for message in reversed(turns[max(0, first - 1) : first + 1]):
            later = [*_turn(message, tokenizer)[0], *later]
    if found is None:
        raise UserError(
            f"the message has {len(ids)} tokens, and the model reads at most {max_tokens}: "
            "make it shorter"
        )
    return found


def prompt_with_room(
    conversation: Conversation, tokenizer: Tokenizer, max_seq_len: int, max_new_tokens: int
) -> tuple[list[int], int]:
    """Like render_prompt, with part of the context (or max_new_tokens) left for the answer."""
    # The answer goes into the same context as the prompt. A prompt that fills it would be answered
    # with one word. Of 256 tokens 80 are left: a story of tinyworld.
    room = min(max_seq_len * 5 // 16, max_new_tokens)
    return render_prompt(conversation, tokenizer, max_seq_len - room)


def _turn(message: Message, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    role, content = message["role"], message["content"]
    spoken = int(role == "assistant")
    # The first token is never learned: we put it there, to say whose turn it is. The last one is,
    # if it is the assistant's: saying it is how the model ends its answer.
    ids, mask = [tokenizer.special[f"<|{role}_start|>"]], [0]
    parts: Sequence[dict[str, str]] = (
        [{"type": "text", "text": content}] if isinstance(content, str) else content
    )
    for part in parts:
        # Encoded by itself, so what a user types can never merge with a mark or become one.
        start, end, own = PARTS[part["type"]]
        marked = tokenizer.encode(part["text"])
        if start and end:
            marked = [tokenizer.special[start], *marked, tokenizer.special[end]]
        ids += marked
        mask += [int(spoken and own)] * len(marked)
    ids.append(tokenizer.special[f"<|{role}_end|>"])
    mask.append(spoken)
    return ids, mask
