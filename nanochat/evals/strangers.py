"""The stranger's test put to a model: every turn of a conversation is answered by the model itself.

Three figures: answered right, honestly not known, and false or nonsense. tasks/strangers.py has the
questions, and says what is right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nanochat.conversation import Message, prompt_with_room
from nanochat.engine import Engine
from nanochat.sampling import Sampling
from nanochat.tasks import strangers
from nanochat.tasks.strangers import Question, Verdict

BATCH = 32
VERDICTS: tuple[Verdict, ...] = ("right", "unknown", "wrong")
ANSWER_TOKENS = 96  # more than a small model needs, less than a context of 256 leaves


@dataclass
class StrangersResult:
    """Verdicts by kind, and each (question, answer to its last turn, verdict)."""

    by_kind: dict[str, Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))
    answers: list[tuple[Question, str, Verdict]] = field(default_factory=list)

    def share(self, verdict: Verdict) -> float:
        """Share of all questions; they count alike, since people ask what they ask."""
        return sum(v == verdict for *_, v in self.answers) / max(1, len(self.answers))


def ask(
    engine: Engine, questions: Sequence[Question], progress: Callable[[int], None] = lambda n: None
) -> StrangersResult:
    """Put the questions, greedily, a batch of conversations at a time."""
    result = StrangersResult()
    # Conversations of as many turns together, so that a batch ends at once.
    for turns in sorted({len(question.turns) for question in questions}):
        alike = [question for question in questions if len(question.turns) == turns]
        for first in range(0, len(alike), BATCH):
            some = alike[first : first + BATCH]
            for question, answer in zip(some, _last_answers(engine, some), strict=True):
                verdict = strangers.judge(question, answer)
                result.by_kind[question.kind][verdict] += 1
                result.answers.append((question, answer, verdict))
            progress(len(result.answers))
    return result


def _last_answers(engine: Engine, some: Sequence[Question]) -> list[str]:
    """Answers to the last turns; what the model said to the turns before stays in its view."""
    talks: list[list[Message]] = [[] for _ in some]
    replies: list[str] = []
    for turn in range(len(some[0].turns)):
        for talk, question in zip(talks, some, strict=True):
            talk.append({"role": "user", "content": question.turns[turn]})
        length = engine.model.config.max_seq_len
        # As the terminal does it: the oldest turns leave where the context is full.
        prompts = [
            prompt_with_room(talk, engine.tokenizer, length, ANSWER_TOKENS)[0] for talk in talks
        ]
        replies = engine.complete(prompts, Sampling(max_new_tokens=ANSWER_TOKENS))
        for talk, reply in zip(talks, replies, strict=True):
            talk.append({"role": "assistant", "content": reply})
    return replies
