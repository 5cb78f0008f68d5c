"""The engine: the cache changes nothing, padding changes nothing, and what a person gets to see."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat import decode_graph, kv_cache
from nanochat.engine import UNSURE, Engine, Event
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.sampling import Sampling, sample
from nanochat.tokenizer import Tokenizer

GREEDY = Sampling()
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [300], [20, 30, 40], [1, 2, 3, 4, 5, 6, 7]]


def decoded(engine: Engine, prompts: list, steps: int) -> tuple[list[list[int]], list[Tensor]]:
    """Greedy ids of each row, and the logits of each step."""
    logits, cache = engine.prefill(prompts)
    ids, seen = [[] for _ in prompts], [logits]
    for _ in range(steps):
        tokens = logits.argmax(dim=-1)
        for row, token in zip(ids, tokens.tolist(), strict=True):
            row.append(token)
        logits = engine.decode_one_token(tokens, cache)
        seen.append(logits)
    return ids, seen


# ---- cache and padding


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("room", [1, 5, 64])
def test_cached_is_uncached_token_by_token(
    tiny_model: GPT,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    recorded: bool,
) -> None:
    """As it grows, and of fixed sizes as a recording has them."""
    monkeypatch.setattr(kv_cache, "CACHE_ROOM", room)
    monkeypatch.setattr(decode_graph, "MIN_ROOM", room)
    prompt = PROMPTS[0]
    ids, seen = decoded(Engine(tiny_model, tokenizer, recorded), [prompt], 40)
    assert len(set(ids[0])) > 5, "an answer that is the same token again and again tests little"
    for step, logits in enumerate(seen):
        whole = torch.tensor([prompt + ids[0][:step]])
        with torch.no_grad():
            torch.testing.assert_close(logits, tiny_model(whole), rtol=1e-5, atol=1e-5)


def test_hidden_states_with_a_cache_in_parts(tiny_model: GPT) -> None:
    """Several tokens at once after the first: in float64, to the last digits."""
    ids = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = tiny_model.hidden(ids)
        cache = kv_cache.KVCache(tiny_model.config, [0, 0], torch.device("cpu"))
        cuts = [0, 7, 8, 20, 30]
        parts = [tiny_model.hidden(ids[:, a:b], cache) for a, b in pairwise(cuts)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-10, atol=1e-10)


class _Waits(TorchDispatchMode):
    """Counts how often a value is read back, for which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_nothing_is_waited_for_between_two_tokens(
    tiny_model: GPT, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    """But for the tokens themselves: tolist, which copies a whole step's at once."""
    with _Waits() as waits:
        Engine(tiny_model, tokenizer).complete(prompts, Sampling(0.8, max_new_tokens=8, seed=1))
        assert waits.count == 0
        bool(torch.ones(1).any())
    assert waits.count == 1, "or it counts nothing"


@pytest.mark.parametrize("recorded", [False, True])
def test_left_padding_changes_nothing(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    monkeypatch.setattr(decode_graph, "MIN_ROOM", 8)
    engine = Engine(tiny_model, tokenizer, recorded)
    ids, seen = decoded(engine, PROMPTS, 20)
    for row, prompt in enumerate(PROMPTS):
        alone_ids, alone = decoded(engine, [prompt], 20)
        assert ids[row] == alone_ids[0]
        for together, single in zip(seen, alone, strict=True):
            torch.testing.assert_close(together[row], single[0], rtol=1e-5, atol=1e-5)


def test_complete_gives_what_stream_gives(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    engine, sampling = Engine(tiny_model, tokenizer), Sampling(max_new_tokens=30)
    texts = engine.complete(PROMPTS, sampling)
    assert len(set(texts)) > 1
    for prompt, text in zip(PROMPTS, texts, strict=True):
        events = list(engine.stream(prompt, sampling))
        assert "".join(e.text for e in events if e.kind == "text") == text
        assert [e.kind for e in events].index("done") == len(events) - 1


def test_answers_that_are_recorded_do_not_disturb_each_other(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, two at once, of other batches: always what the plain engine says."""
    monkeypatch.setattr(decode_graph, "MIN_ROOM", 8)
    sampling = Sampling(max_new_tokens=30)
    plain, engine = Engine(tiny_model, tokenizer), Engine(tiny_model, tokenizer, recorded=True)
    alone = [list(plain.stream(prompt, sampling)) for prompt in PROMPTS]
    assert [list(engine.stream(prompt, sampling)) for prompt in PROMPTS] == alone
    at_once = zip(*(engine.stream(prompt, sampling) for prompt in PROMPTS[:2]), strict=False)
    for one, other in zip(at_once, zip(*alone[:2], strict=False), strict=True):
        assert one == other
    next(iter(engine.stream(PROMPTS[2], sampling)))  # left early
    assert engine.complete(PROMPTS, sampling) == plain.complete(PROMPTS, sampling)
    assert list(engine.stream(PROMPTS[3], sampling)) == alone[3]


@pytest.mark.parametrize("fault", ["off", "nan", "raises"])
def test_a_recording_that_is_wrong_is_not_used(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    real = decode_graph._Recording.__call__

    def wrong(self: decode_graph._Recording, tokens: torch.Tensor) -> torch.Tensor:
        if fault == "raises":
            raise RuntimeError("operation not permitted when stream is capturing")
        logits = real(self, tokens)
        return logits * torch.nan if fault == "nan" else logits.flip(-1)

    monkeypatch.setattr(decode_graph._Recording, "__call__", wrong)
    engine, sampling = Engine(tiny_model, tokenizer, recorded=True), Sampling(max_new_tokens=9)
    expected = Engine(tiny_model, tokenizer).complete(PROMPTS, sampling)
    assert engine.complete(PROMPTS, sampling) == expected
    assert engine.recorder is not None
    assert engine.recorder.failed
    assert engine.complete(PROMPTS, sampling) == expected


def test_a_frozen_model_says_the_same(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    """In bfloat16 as well, since its weights were rounded for each token before."""
    tiny_model.float()
    for dtype in (torch.float32, torch.bfloat16):
        tiny_model.dtype, tiny_model._rotary = dtype, None
        _, before = decoded(Engine(tiny_model, tokenizer), PROMPTS, 10)
        frozen = copy.deepcopy(tiny_model).freeze()
        assert {weight.dtype for weight in frozen.parameters()} == {dtype}
        _, after = decoded(Engine(frozen, tokenizer), PROMPTS, 10)
        for one, other in zip(before, after, strict=True):
            assert torch.equal(one, other)


# ---- sampling


def test_same_seed_same_answer(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    engine = Engine(tiny_model, tokenizer)

    def answer(seed: int | None) -> list[Event]:
        return list(engine.stream(PROMPTS[0], Sampling(1.0, None, 40, seed)))

    tiny_model.lm_head.weight.data *= 0.2  # flatter, so that chance has a say
    assert answer(1) == answer(1)
    assert answer(1) != answer(2)
    assert len({str(answer(None)) for _ in range(5)}) == 5, "never the same without a seed"
    torch.manual_seed(0)
    one = answer(None)
    torch.manual_seed(0)
    assert answer(None) != one, "nor by way of torch's own generator"


@pytest.mark.parametrize("room", [5, 60])
def test_a_model_of_a_small_world_says_what_it_is_not_sure_of(
    tiny_model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Where its tokens are unlikely on average it does not know."""
    engine = Engine(tiny_model, tokenizer)
    asked = [[*prompt, tokenizer.special["<|assistant_start|>"]] for prompt in PROMPTS]

    def answers(min_confidence: float, prompts: list[list[int]] = asked) -> list[list[Event]]:
        sampling = Sampling(max_new_tokens=room, min_confidence=min_confidence)
        rows: list[list[Event]] = [[] for _ in prompts]
        for row, event in engine.events(prompts, sampling):
            rows[row].append(event)
        return rows

    as_ever = answers(1.0)  # of other models nothing is asked
    continued = answers(1.0, PROMPTS)
    monkeypatch.setattr(tokenizer, "plain_typing", True)
    assert answers(0) == as_ever
    assert answers(1.0, PROMPTS) == continued, "a text that is continued is not a question"
    assert answers(1e-9) == as_ever, "held back for a while, but all of it is said"
    tiny_model.lm_head.weight.data[tokenizer.special["<|assistant_end|>"]] *= 1000
    said = [[event.text for event in row] for row in answers(1e-9)]
    assert [UNSURE, "stop"] in said, "who would say nothing at all says that it does not know"
    for row in answers(1.0):  # nobody is that sure
        assert [event.text for event in row] == [UNSURE, "stop"]


def test_sampling_leaves_the_global_generator_alone(tiny_model: GPT, tokenizer: Tokenizer) -> None:
    state = torch.get_rng_state()
    list(Engine(tiny_model, tokenizer).stream(PROMPTS[0], Sampling(1.0, 50, 10)))
    assert torch.equal(torch.get_rng_state(), state), "or a sample would change the training run"


def test_sample_takes_the_likeliest_at_zero_and_among_top_k() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).expand(500, 4)
    generator = torch.Generator().manual_seed(0)
    assert sample(logits, Sampling(0.0), generator).unique().tolist() == [1]
    assert sample(logits, Sampling(1.0, 1), generator).unique().tolist() == [1]
    assert sample(logits, Sampling(1.0, 2), generator).unique().tolist() == [1, 2]
    assert sample(logits, Sampling(5.0, 99), generator).unique().tolist() == [0, 1, 2, 3]


def test_sample_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, 3)
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample(logits, Sampling(temperature, None), torch.Generator().manual_seed(0))
        shares = torch.bincount(drawn, minlength=3) / 20_000
        expected = torch.softmax(logits[0] / temperature, dim=-1)
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.015)


# ---- what a person gets to see, from a model that says what it is told to


class Scripted:
    """Stands for a GPT: says the next token of each row's script, whatever it reads."""

    def __init__(
        self, tokenizer: Tokenizer, *scripts: Sequence[int], max_seq_len: int = 500
    ) -> None:
        self.scripts = scripts
        self.config = GPTConfig(1, tokenizer.vocab_size, max_seq_len)
        self.wte = nn.Embedding(1, 1)
        self.fed: list[list[int]] = []  # what it has read after the prompt, a list a step

    def __call__(self, ids: Tensor, cache: object) -> Tensor:
        step = len(self.fed)
        self.fed.append(ids[:, -1].tolist())
        logits = torch.zeros(ids.size(0), self.config.vocab_size)
        for row, script in enumerate(self.scripts):
            logits[row, script[min(step, len(script) - 1)]] = 9.0
        return logits


def told(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text in which special tokens are written by name."""
    ids, rest = [], text
    while rest:
        name = next((n for n in tokenizer.special if rest.startswith(n)), None)
        if name:
            ids.append(tokenizer.special[name])
            rest = rest[len(name) :]
        else:
            end = min((rest.find(n) for n in tokenizer.special if n in rest), default=len(rest))
            ids += tokenizer.encode(rest[:end])
            rest = rest[end:]
    return ids


def run(
    tokenizer: Tokenizer, text: str, sampling: Sampling = GREEDY
) -> tuple[list[Event], Scripted]:
    model = Scripted(tokenizer, told(tokenizer, text))
    return list(Engine(model, tokenizer).stream([tokenizer.bos], sampling)), model


def seen_by_a_person(events: list[Event]) -> str:
    return "".join(event.text for event in events if event.kind == "text")


CALL = " 'strawberry'.count('r')"


def test_a_tool_call_gets_its_output(tokenizer: Tokenizer) -> None:
    # Three tokens of nonsense stand where the output is forced.
    text = f"I count.<|python_start|>{CALL}<|python_end|>ZZZ It has 3.<|assistant_end|>"
    assert len(tokenizer.encode("3")) == 1
    assert told(tokenizer, "ZZZ It")[:3] == [*b"ZZZ"]
    events, model = run(tokenizer, text)
    assert seen_by_a_person(events) == "I count. It has 3."
    calls = [event for event in events if event.kind.startswith("tool")]
    assert calls == [Event("tool_call", CALL), Event("tool_result", "3")]
    assert events[-1] == Event("done", "stop")
    fed = [tokens[0] for tokens in model.fed]
    right = f"I count.<|python_start|>{CALL}<|python_end|><|output_start|>3<|output_end|> It has 3."
    assert fed == [tokenizer.bos, *told(tokenizer, right)], "and the model reads it"


def test_a_wrong_tool_call_gets_no_output(tokenizer: Tokenizer) -> None:
    events, model = run(
        tokenizer, "<|python_start|>import os<|python_end|>I can't.<|assistant_end|>"
    )
    assert [e for e in events if e.kind != "text"] == [
        Event("tool_call", "import os"),
        Event("done", "stop"),
    ]
    assert seen_by_a_person(events) == "I can't."
    assert tokenizer.special["<|output_start|>"] not in [tokens[0] for tokens in model.fed]


def test_output_that_the_model_makes_up_is_not_shown(tokenizer: Tokenizer) -> None:
    events, _ = run(tokenizer, "a<|output_start|>42<|output_end|>b<|assistant_end|>")
    assert seen_by_a_person(events) == "ab"


def test_two_calls_in_one_answer(tokenizer: Tokenizer) -> None:
    once = "<|python_start|>1+1<|python_end|>ZZZ"
    events, _ = run(tokenizer, f"{once} and {once}.<|assistant_end|>")
    assert [e.text for e in events if e.kind == "tool_result"] == ["2", "2"]
    assert seen_by_a_person(events) == " and ."


@pytest.mark.parametrize(
    "end", ["assistant_end", "user_start", "user_end", "bos", "assistant_start"]
)
def test_no_special_token_is_ever_shown(tokenizer: Tokenizer, end: str) -> None:
    events, model = run(tokenizer, f"Hello.<|{end}|>and more")
    assert seen_by_a_person(events) == "Hello."
    assert events[-1] == Event("done", "stop")
    assert len(model.fed) == 1 + len(tokenizer.encode("Hello.")), (
        "nothing is computed after the end"
    )


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(["<|python_start|>", "<|python_end|>", "<|output_start|>"]),
            st.sampled_from(["<|output_end|>", "1+1", "😀", "<|bos"]),
        ),
        max_size=10,
    )
)
def test_whatever_it_says_no_name_is_shown(tokenizer: Tokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    events, _ = run(tokenizer, text + "<|assistant_end|>", Sampling(max_new_tokens=200))
    shown = seen_by_a_person(events)
    assert not [name for name in tokenizer.special if name in shown]
    assert [event.kind for event in events].count("done") == 1


# ---- characters that are several tokens


@pytest.mark.parametrize("text", ["a😀b", "😀😀", "漢字é", "👩‍👩‍👧!", "é"])
def test_characters_come_whole(text: str) -> None:
    bytes_only = Tokenizer([])
    events, _ = run(bytes_only, text + "<|assistant_end|>")
    assert [event.text for event in events if event.kind == "text"] == list(text)


def said(tokenizer: Tokenizer, ids: list[int], limit: int = 99) -> list[Event]:
    model = Scripted(tokenizer, ids)
    return list(Engine(model, tokenizer).stream([0], Sampling(max_new_tokens=limit)))


def test_broken_bytes_at_the_end_are_one_mark() -> None:
    bytes_only = Tokenizer([])
    end = bytes_only.special["<|assistant_end|>"]
    emoji = [*"😀".encode()]
    for cut in (1, 2, 3):
        events = said(bytes_only, [*b"a", *emoji[:cut], end])
        assert events == [Event("text", "a"), Event("text", "\ufffd"), Event("done", "stop")]
        events = said(bytes_only, [*b"a", *emoji], limit=1 + cut)
        assert events == [Event("text", "a"), Event("text", "\ufffd"), Event("done", "length")]


def test_a_broken_byte_in_the_middle_is_one_mark() -> None:
    bytes_only = Tokenizer([])
    ids = [*b"a", 0xF0, 0x9F, *b"b", bytes_only.special["<|assistant_end|>"]]
    assert seen_by_a_person(said(bytes_only, ids)) == "a\ufffdb"


# ---- the end


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_stops_at_max_new_tokens(tokenizer: Tokenizer, limit: int) -> None:
    model = Scripted(tokenizer, [ord("x")])
    events = list(Engine(model, tokenizer).stream([1, 2], Sampling(max_new_tokens=limit)))
    assert seen_by_a_person(events) == "x" * limit
    assert events[-1] == Event("done", "length")
    assert len(model.fed) == limit, "the last token needs no step"


@pytest.mark.parametrize(("length", "answer"), [(5, 11), (15, 1), (16, 0)])
def test_stops_at_the_contexts_end(tokenizer: Tokenizer, length: int, answer: int) -> None:
    model = Scripted(tokenizer, [ord("x")], max_seq_len=16)
    events = list(Engine(model, tokenizer).stream([1] * length, Sampling()))
    assert seen_by_a_person(events) == "x" * answer
    assert events[-1] == Event("done", "length")


def test_rows_end_on_their_own(tokenizer: Tokenizer) -> None:
    scripts = [
        told(tokenizer, t + "<|assistant_end|>") for t in ("one", "one and two", "", "x" * 9)
    ]
    call = told(tokenizer, "<|python_start|>6*7<|python_end|>")
    scripts.append([*call, *[ord("Z")] * 9, tokenizer.special["<|assistant_end|>"]])
    engine = Engine(Scripted(tokenizer, *scripts), tokenizer)
    forced = len(tokenizer.encode("42")) + 2
    texts = engine.complete([[1]] * 5, Sampling())
    assert texts == ["one", "one and two", "", "x" * 9, "Z" * (9 - forced)]
