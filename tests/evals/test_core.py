"""CORE: questions in tokens, what the model is asked of them, and what is made of its answers."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.evals import core, core_tasks
from nanochat.evals.core import Judged, Span, TaskScore
from nanochat.evals.core_tasks import Example, Task
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.system.errors import UserError
from nanochat.tokenizer import Tokenizer

CHOICES = Task(
    "arc_easy",
    "multiple_choice",
    num_fewshot=3,
    delimiter="\nAnswer: ",
    baseline=0.25,
    examples=tuple(
        Example(tuple((f"Question: {n} and a river?", c) for c in ("3", "the sea", "mill")), n % 3)
        for n in range(9)
    ),
)
SCHEMA = Task(
    "winograd",
    "schema",
    baseline=0.5,
    examples=(
        Example((("The river met the sea so the river", "was wide."), ("The sea", "was wide.")), 0),
        Example((("Anna asked, so Anna", "knew."), ("Anna asked, so he", "knew.")), 1),
    ),
)
WORDS = Task(
    "lambada_openai",
    "language_modeling",
    num_fewshot=2,
    examples=tuple(
        Example(((f"The capital of {name} is", "Paris and the market"),), 0)
        for name in ("France", "the river", "Käse", "hills")
    ),
)
TASKS = (CHOICES, SCHEMA, WORDS)
LONG = 1000  # a context in which everything fits


class Rigged(GPT):
    """A model of which each next token's logits are a row of a table, by the token before."""

    def __init__(self, tokenizer: Tokenizer, max_seq_len: int = LONG) -> None:
        super().__init__(GPTConfig(1, tokenizer.vocab_size, max_seq_len))
        self.table = torch.zeros(tokenizer.vocab_size, tokenizer.vocab_size, dtype=torch.float64)
        self.inputs: list[tuple[int, ...]] = []  # shapes of what was read

    def hidden(self, ids: Tensor, cache: Any = None) -> Tensor:
        self.inputs.append(tuple(ids.shape))
        return ids[..., None]

    def logits(self, x: Tensor) -> Tensor:
        return self.table[x[..., 0]]

    def say(self, ids: list[int], logit: float = 5.0) -> None:
        """Make each of these tokens likely after the one before."""
        for before, after in itertools.pairwise(ids):
            self.table[before, after] = logit


def exact(model: GPT) -> GPT:
    """The model with logits in float64, so that only the batching can make a difference."""

    def logits(x: Tensor) -> Tensor:
        cap = model.config.softcap
        return torch.tanh(model.lm_head(x) / cap) * cap

    model.logits = logits
    return model


# --- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_at_once", [1, 100, 10_000])
@pytest.mark.parametrize("max_seq_len", [16, 64])
def test_losses_are_those_of_one_sequence_at_a_time(
    tiny_model: GPT, tokenizer: Tokenizer, tokens_at_once: int, max_seq_len: int
) -> None:
    model = exact(tiny_model)
    prompts = [
        core.prompt(task, i, tokenizer, max_seq_len)
        for task in TASKS
        for i in range(len(task.examples))
    ]
    spans = [span for prompt in prompts for span in prompt.spans]
    assert len({len(span.ids) for span in spans}) > 1
    found = core.judge(model, spans, tokens_at_once)
    for span, (loss, greedy) in zip(spans, found, strict=True):
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.tensor([span.ids[:-1]])))[0]
        logp = logits.log_softmax(dim=-1)
        at = range(span.start, len(span.ids))
        nats = [-logp[t - 1, span.ids[t]].item() for t in at]
        assert loss == pytest.approx(sum(nats) / len(nats), abs=1e-9)
        assert greedy == all(logp[t - 1].argmax() == span.ids[t] for t in at)


def test_logits_in_chunks(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few positions fit at once; never more than the continuations have."""
    model = exact(tiny_model)
    spans = core.prompt(CHOICES, 0, tokenizer, 64).spans
    whole = core.judge(model, spans, 1000)
    made: list[int] = []
    plain = model.logits
    monkeypatch.setitem(core.CHUNK_FLOATS, "cpu", 2 * tokenizer.vocab_size)
    model.logits = lambda x: (made.append(len(x)), plain(x))[1]
    for ours, (loss, greedy) in zip(core.judge(model, spans, 1000), whole, strict=True):
        assert ours.loss == pytest.approx(loss, abs=1e-9)
        assert ours.greedy == greedy
    assert max(made) == 2
    assert sum(made) == sum(len(span.ids) - span.start for span in spans)


def test_batches_keep_to_their_tokens_and_same_inputs_share_a_row(tokenizer: Tokenizer) -> None:
    model = Rigged(tokenizer)
    spans = [Span([9, *[1] * n, last], n) for n in (3, 5, 5, 8, 20) for last in (2, 3)]
    found = core.judge(model, spans, 20)
    assert sum(rows for rows, _ in model.inputs) == 4
    assert all(rows == 1 or rows * length <= 20 for rows, length in model.inputs)
    assert [j.loss for j in found] == pytest.approx([math.log(tokenizer.vocab_size)] * 10)


def test_the_right_choice_is_the_likely_one(tokenizer: Tokenizer) -> None:
    """By mean loss: a long choice is not worse for being long."""
    example = Example((("What?", "3"), ("What?", "the mill and the market"), ("What?", "sea")), 1)
    task = replace(CHOICES, num_fewshot=0, examples=(example,))
    model = Rigged(tokenizer)
    assert core.evaluate_task(model, tokenizer, task).right == 0
    span = core.prompt(task, 0, tokenizer, LONG).spans[1]
    assert len(span.ids) - span.start > 3
    model.say(span.ids[span.start - 1 :])
    assert core.evaluate_task(model, tokenizer, task).right == 1


def test_the_right_context_is_the_one_after_which_the_rest_is_likely(tokenizer: Tokenizer) -> None:
    task = replace(SCHEMA, examples=SCHEMA.examples[1:])
    spans = core.prompt(task, 0, tokenizer, LONG).spans
    for right in (0, 1):
        model = Rigged(tokenizer)
        model.say(spans[right].ids[spans[right].start - 1 :][:2])
        assert core.evaluate_task(model, tokenizer, task).right == right


def test_language_modeling_wants_every_token(tokenizer: Tokenizer) -> None:
    task = replace(WORDS, num_fewshot=0, examples=WORDS.examples[:1])
    ids, start = core.prompt(task, 0, tokenizer, LONG).spans[0]
    said = ids[start - 1 :]
    assert len(said) == len(set(said)) > 3, "the table is of one token before"
    model = Rigged(tokenizer)
    model.say(said)
    assert core.evaluate_task(model, tokenizer, task).right == 1
    for i, token in enumerate(said[:-1]):
        other = Rigged(tokenizer)
        other.say(said)
        other.table[token, tokenizer.bos] = 6.0
        assert core.evaluate_task(other, tokenizer, task).right == 0, f"token {i} is not the first"


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_continuations_are_found(task: Task, tokenizer: Tokenizer) -> None:
    for i, example in enumerate(task.examples):
        prompt = core.prompt(task, i, tokenizer, LONG)
        assert prompt[1:] == (False, False, False)
        shots = "".join(
            shot.options[shot.gold][0] + task.delimiter + shot.options[shot.gold][1] + "\n\n"
            for shot in core.draw_shots(task, i)
        )
        assert shots.count("\n\n") == task.num_fewshot
        for (ids, start), (context, rest) in zip(prompt.spans, example.options, strict=True):
            assert ids[0] == tokenizer.bos
            assert tokenizer.decode(ids) == shots + context + task.delimiter + rest
            assert tokenizer.decode(ids[start:]).strip() == rest


def test_a_space_before_a_number_is_the_models_to_say(tokenizer: Tokenizer) -> None:
    """A number takes no space into its token, and the prompt must not end in a lone space."""
    task = Task(
        "bigbench_operators", "language_modeling", examples=(Example((("op 3 =", "12"),), 0),)
    )
    ((ids, start),) = core.prompt(task, 0, tokenizer, LONG).spans
    assert tokenizer.decode(ids[start:]) == " 12"


def test_a_choice_that_begins_another_still_has_a_token(tokenizer: Tokenizer) -> None:
    for choices in (("the sea", "the sea and the mill"), ("3", "3")):
        example = Example(tuple(("What?", choice) for choice in choices), 0)
        task = replace(CHOICES, num_fewshot=0, examples=(example,))
        spans = core.prompt(task, 0, tokenizer, LONG).spans
        assert all(span.start < len(span.ids) for span in spans)
        score = core.evaluate_task(Rigged(tokenizer), tokenizer, task)
        assert score.right == 1, "equal losses: the first"


def test_each_question_has_shots_of_its_own_and_never_itself() -> None:
    copies = tuple(Example(*example) for example in CHOICES.examples[:2])
    copied = replace(CHOICES, examples=CHOICES.examples + copies)
    drawn = [core.draw_shots(copied, i) for i in range(len(copied.examples))]
    assert drawn == [core.draw_shots(copied, i) for i in range(len(copied.examples))]
    assert len({tuple(shots) for shots in drawn}) > 5
    for i, shots in enumerate(drawn):
        assert len(shots) == 3
        assert copied.examples[i] not in shots
    few = replace(CHOICES, num_fewshot=10, examples=CHOICES.examples[:3])
    assert sorted(core.draw_shots(few, 0)) == sorted(few.examples[1:])
    seen = {shot for i in range(9) for shot in core.draw_shots(CHOICES, i)}
    assert seen == set(CHOICES.examples)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_everything_fits_and_the_continuation_is_whole(task: Task, tokenizer: Tokenizer) -> None:
    whole = core.prompt(task, 0, tokenizer, LONG)
    longest = max(len(span.ids) - span.start for span in whole.spans)
    full = max(len(span.ids) for span in whole.spans)
    bare = core.prompt(replace(task, num_fewshot=0), 0, tokenizer, LONG)
    alone = max(len(span.ids) for span in bare.spans)
    for max_seq_len in range(1, full + 2):
        prompt = core.prompt(task, 0, tokenizer, max_seq_len)
        assert prompt.shots_dropped == (full - 1 > max_seq_len and task.num_fewshot > 0)
        assert prompt.cropped == (alone - 1 > max_seq_len)
        assert prompt.too_long == (longest > max_seq_len)
        for (ids, start), original in zip(prompt.spans, whole.spans, strict=True):
            assert len(ids) - 1 <= max_seq_len
            assert ids[0] == tokenizer.bos
            assert 1 <= start < len(ids)
            rest = original.ids[original.start :]
            assert ids[start:] == rest[:max_seq_len]
            kept = ids[1:start]
            assert kept == original.ids[original.start - len(kept) : original.start]
        if prompt.cropped and not prompt.too_long:
            assert max(len(span.ids) for span in prompt.spans) == max_seq_len + 1, "as much as fits"
        if task.kind == "multiple_choice":
            assert len({tuple(ids[:start]) for ids, start in prompt.spans}) == 1


def test_shots_are_dropped_whole_and_from_the_left(tokenizer: Tokenizer) -> None:
    shots = core.draw_shots(CHOICES, 4)
    seen = set()
    for max_seq_len in range(30, 200):
        prompt = core.prompt(CHOICES, 4, tokenizer, max_seq_len)
        if not prompt.cropped:
            text = tokenizer.decode(prompt.spans[0].ids)
            n = text.count("\n\n")
            kept = [shot.options[0][0] for shot in shots[len(shots) - n :]]
            assert [part.split("\n")[0] for part in text.split("\n\n")[:-1]] == kept
            assert text.startswith("Question: ")
            seen.add(n)
    assert seen == {0, 1, 2, 3}


def test_overflow_is_counted(tokenizer: Tokenizer) -> None:
    fits = Example((("The", "sea"),), 0)
    long_context = Example((("The river runs down from the hills, " * 9, "sea"),), 0)
    long_rest = Example((("The", "river and sea " * 20),), 0)
    task = Task("jeopardy", "language_modeling", examples=(fits, long_context, long_rest) * 2)
    score = core.evaluate_task(Rigged(tokenizer, 32), tokenizer, task)
    assert (score.asked, score.shots_dropped, score.cropped, score.too_long) == (6, 0, 4, 2)
    assert score.overflow() == "context cropped in 4 of 6, continuation too long in 2 of 6"
    shots = replace(CHOICES, examples=CHOICES.examples[:4])
    assert core.evaluate_task(Rigged(tokenizer, 70), tokenizer, shots).shots_dropped == 4
    plain = core.evaluate_task(Rigged(tokenizer), tokenizer, shots)
    assert (plain.shots_dropped, plain.overflow()) == (0, "")


def test_a_continuation_that_was_cut_is_not_said_exactly(tokenizer: Tokenizer) -> None:
    task = Task("jeopardy", "language_modeling", examples=(Example((("A", "e" * 90),), 0),))
    (ids, start), *_ = core.prompt(task, 0, tokenizer, LONG).spans
    for max_seq_len, right in ((LONG, 1), (4, 0)):
        model = Rigged(tokenizer, max_seq_len)
        model.say(ids[start - 1 :])
        model.say([tokenizer.bos, ids[start]])
        assert core.evaluate_task(model, tokenizer, task).right == right
    prompt = core.prompt(task, 0, tokenizer, 4)
    assert core.judge(model, prompt.spans, 100)[0].greedy
    assert not core.is_right(task, task.examples[0], prompt, [Judged(0.0, True)])


# --- scores and bounds ---------------------------------------------------------------------------


def score(label: str, right: int, asked: int, baseline: float) -> TaskScore:
    return TaskScore(label, right, asked, baseline, 0, 0, 0, 0.0)


def test_centered_and_their_mean() -> None:
    scores = [score("a", 5, 8, 0.25), score("b", 31, 100, 0.62), score("c", 1, 4, 0.0)]
    assert [s.accuracy for s in scores] == [0.625, 0.31, 0.25]
    by_hand = [0.375 / 0.75, -0.31 / 0.38, 0.25]
    assert [s.centered for s in scores] == pytest.approx(by_hand)
    assert core.mean_centered(scores) == pytest.approx(sum(by_hand) / 3)


def test_only_all_the_tasks_are_core() -> None:
    assert len(core_tasks.LABELS) == len(set(core_tasks.LABELS)) == 22
    names = [core_tasks.name(n) for n in range(1, 23)]
    assert names[17] == "CORE (18 of 22)"
    assert names.index("CORE") == 21


def test_the_same_twice_and_a_prefix_of_a_shuffle(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plain = core.prompt
    monkeypatch.setattr(core, "prompt", lambda t, i, *a: (asked.append(i), plain(t, i, *a))[1])

    def run(**bounds: Any) -> tuple[TaskScore, list[int]]:
        asked.clear()
        found = core.evaluate_task(tiny_model, tokenizer, CHOICES, **bounds)
        return replace(found, seconds=0.0), list(asked)

    everything, order = run()
    assert everything.asked == 9
    assert sorted(order) == list(range(9)) != order
    assert run() == (everything, order)
    some, prefix = run(max_problems=4)
    assert (some.asked, prefix) == (4, order[:4])
    assert run(max_problems=100) == (everything, order)
    bounded, _ = run(max_seconds=1e-9)
    assert bounded.asked == 1, "never fewer than one"
    assert run(max_seconds=1e9) == (everything, order)


def test_batches_of_questions_do_not_change_the_score(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = core.evaluate_task(tiny_model, tokenizer, CHOICES)
    seen: list[tuple[int, int]] = []
    monkeypatch.setitem(core.TOKENS_AT_ONCE, "cpu", 100)
    pieces = core.evaluate_task(
        tiny_model, tokenizer, CHOICES, progress=lambda asked, of: seen.append((asked, of))
    )
    assert replace(pieces, seconds=0.0) == replace(whole, seconds=0.0)
    assert len(seen) > 2
    assert sorted(seen) == seen
    assert seen[-1] == (9, 9)


def test_every_task_gets_an_equal_share_of_what_is_left(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, takes = [100.0], {"arc_easy": 1.0, "winograd": 20.0, "lambada_openai": 0.0}
    shares = []

    def fake(model, tokenizer, task, max_problems, max_seconds, progress) -> TaskScore:
        shares.append(max_seconds)
        now[0] += takes[task.label]
        return score(task.label, 0, 1, 0.0)

    monkeypatch.setattr(core, "evaluate_task", fake)
    monkeypatch.setattr(core.time, "monotonic", lambda: now[0])
    missing = Task("coqa", missing="no file")
    tasks = [missing, *TASKS]
    found = list(core.evaluate(tiny_model, tokenizer, tasks, None, 19.0))
    assert [s.label for s in found] == [task.label for task in TASKS]
    assert shares == pytest.approx([19 / 3, 18 / 2, 0.0])
    shares.clear()
    list(core.evaluate(tiny_model, tokenizer, tasks))
    assert shares == [None] * 3


# --- files ---------------------------------------------------------------------------------------

LINES = {
    "multiple_choice": {"query": "2 + 2 =", "choices": ["4", "5"], "gold": 0},
    "schema": {"context_options": ["He", "She"], "continuation": "knew.", "gold": 1},
    "language_modeling": {"context": " The end ", "continuation": "came"},
}
READ = {
    "multiple_choice": Example((("2 + 2 =", "4"), ("2 + 2 =", "5")), 0),
    "schema": Example((("He", "knew."), ("She", "knew.")), 1),
    "language_modeling": Example((("The end", "came"),), 0),
}
LABELS = {"multiple_choice": "copa", "schema": "winograd", "language_modeling": "coqa"}


def write_ours(folder: Path) -> Path:
    """A folder with three of the tasks, laid out like the shared data."""
    folder.mkdir()
    listed = []
    for kind, line in LINES.items():
        path = folder / f"{LABELS[kind]}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write((json.dumps(line) + "\n") * 3)
        task = {"label": LABELS[kind], "task_type": kind, "num_fewshot": 1}
        task |= {"continuation_delimiter": " | ", "random_baseline_percent": 20.0}
        listed.append(task | {"file": f"evals/core/{path.name}"})
    listed.append(listed[0] | {"label": "squad", "file": None})
    (folder / "core_tasks.json").write_text(json.dumps(listed))
    return folder


def write_bundle(folder: Path) -> Path:
    """The same as the upstream bundle has it."""
    data = folder / "eval_data" / "some where"
    data.mkdir(parents=True)
    listed, table = ["icl_tasks:"], ["Eval Task,Task Category,Random baseline"]
    for kind, line in LINES.items():
        label = LABELS[kind]
        (data / f"{label}.jsonl").write_text((json.dumps(line) + "\n") * 3)
        listed += [
            "-",
            f"  label: {label}",
            f"  dataset_uri: some where/{label}.jsonl",
            "  num_fewshot: [1]",
            f"  icl_task_type: {kind}",
            '  continuation_delimiter: " | "',
        ]
        table.append(f"{label},symbols,20")
    (folder / "core.yaml").write_text("\n".join(listed) + "\n")
    (folder / "eval_meta_data.csv").write_text("\n".join(table) + "\n")
    return folder


@pytest.mark.parametrize("write", [write_ours, write_bundle])
def test_both_layouts(tmp_path: Path, write: Any) -> None:
    tasks = core_tasks.load_tasks(write(tmp_path / "core"))
    assert [task.label for task in tasks] == list(core_tasks.LABELS)
    present = {task.kind: task for task in tasks if not task.missing}
    assert {kind: task.label for kind, task in present.items()} == LABELS
    for kind, task in present.items():
        assert (task.num_fewshot, task.delimiter, task.baseline) == (1, " | ", 0.2)
        assert task.examples == (READ[kind],) * 3
    assert all(not task.examples for task in tasks if task.missing)


def test_what_is_missing_says_why(tmp_path: Path) -> None:
    folder = write_ours(tmp_path / "core")
    whole = (folder / "copa.jsonl.gz").read_bytes()
    (folder / "copa.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "winograd.jsonl.gz").unlink()
    with gzip.open(folder / "coqa.jsonl.gz", "w") as file:
        file.write(b"\n")
    why = {task.label: task.missing for task in core_tasks.load_tasks(folder)}
    assert "copa.jsonl.gz can't be read" in why["copa"]
    assert why["winograd"] == "winograd.jsonl.gz not found"
    assert why["coqa"] == "coqa.jsonl.gz is empty"
    assert why["squad"] == "no file is listed for it"
    assert why["boolq"] == "not listed in core_tasks.json"


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("multiple_choice", {"gold": 2}),
        ("multiple_choice", {"gold": -1}),
        ("multiple_choice", {"gold": True}),
        ("multiple_choice", {"choices": ["4"]}),
        ("multiple_choice", {"choices": "45"}),
        ("multiple_choice", {"choices": ["4", " "]}),
        ("multiple_choice", {"query": None}),
        ("schema", {"context_options": [1, 2]}),
        ("schema", {"gold": None}),
        ("language_modeling", {"continuation": ""}),
        ("language_modeling", {"context": ["The end"]}),
    ],
)
def test_a_line_that_is_not_a_question(tmp_path: Path, kind: str, change: dict[str, Any]) -> None:
    folder = write_ours(tmp_path / "core")
    good, bad = json.dumps(LINES[kind]), json.dumps(LINES[kind] | change)
    path = folder / f"{LABELS[kind]}.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(f"{good}\n\n{bad}\n")
    with pytest.raises(UserError, match=r"\.jsonl\.gz line 3: ") as found:
        core_tasks.load_tasks(folder)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("raw", [b"{", b"[1]", b'{"query": "\xff"}', b"null"])
def test_a_line_that_is_not_a_json_object(tmp_path: Path, raw: bytes) -> None:
    folder = write_ours(tmp_path / "core")
    with gzip.open(folder / "copa.jsonl.gz", "w") as file:
        file.write(raw + b"\n")
    with pytest.raises(UserError, match=r"copa\.jsonl\.gz line 1: "):
        core_tasks.load_tasks(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[3]",
        '[{"label": "copa"}]',
        '[{"label": "mmlu", "task_type": "schema", "num_fewshot": 0, "continuation_delimiter": " ",'
        ' "random_baseline_percent": 1, "file": null}]',
        '[{"label": "copa", "task_type": "quiz", "num_fewshot": 0, "continuation_delimiter": " ",'
        ' "random_baseline_percent": 1, "file": null}]',
        '[{"label": "copa", "task_type": "schema", "num_fewshot": 0, "continuation_delimiter": " ",'
        ' "random_baseline_percent": 100, "file": null}]',
    ],
)
def test_a_list_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    (tmp_path / "core_tasks.json").write_text(text)
    if text == "{}":  # a list without tasks is a list
        assert all(task.missing for task in core_tasks.load_tasks(tmp_path))
        return
    with pytest.raises(UserError, match=r"core_tasks\.json"):
        core_tasks.load_tasks(tmp_path)


def test_a_folder_with_neither_layout_or_half_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no CORE tasks"):
        core_tasks.load_tasks(tmp_path)
    folder = write_bundle(tmp_path / "bundle")
    (folder / "eval_meta_data.csv").unlink()
    with pytest.raises(UserError, match="unpack it again"):
        core_tasks.load_tasks(folder)
    (folder / "core.yaml").write_text("icl_tasks: [")
    with pytest.raises(UserError, match="unpack it again"):
        core_tasks.load_tasks(folder)


# --- real questions ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shared_tasks(shared_data: Path, tokenizer: Tokenizer, tiny_model: GPT) -> None:
    """A model that knows nothing is as good as guessing, within four standard errors."""
    tasks = core_tasks.load_tasks(shared_data / "evals" / "core")
    present = [task for task in tasks if not task.missing]
    assert len(present) == 18
    assert {task.label for task in tasks if task.missing} == {
        "hellaswag",
        "hellaswag_zeroshot",
        "squad",
        "coqa",
    }
    listed = json.loads((shared_data / "evals/core/core_tasks.json").read_text())
    for entry in listed:
        task = tasks[core_tasks.LABELS.index(entry["label"])]
        assert len(task.examples) == entry.get("count_here", 0)
    model = tiny_model.float()
    model.dtype = torch.float32
    scores = list(core.evaluate(model, tokenizer, present, max_problems=40))
    for task, found in zip(present, scores, strict=True):
        assert found.asked == min(40, len(task.examples))
        guess = 0.5 if task.label == "boolq" else task.baseline  # its baseline is "always yes"
        if task.label == "bigbench_language_identification":
            guess = 0.25  # four choices here
        error = math.sqrt(guess * (1 - guess) / found.asked)
        assert abs(found.accuracy - guess) <= 4 * error + 1e-9, task.label
