"""rustbpe against a plain BPE, against tiktoken and `tokenizers` on real text, and on its own."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import oracle_bpe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe

ROOT = Path(__file__).parents[1]
DATA = ROOT / "../shared/data"
PATTERN = rustbpe.DEFAULT_PATTERN

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"NOT TESTED on real text: no {DATA}")

# Texts that make pairs collide: few letters, each kind of character that the pattern knows.
dense_text = st.text(alphabet="ab 's\n\t1!é😀", max_size=40)
any_text = st.text(max_size=60)


def ranks_of(encoder):
    return {encoder.decode_bytes([token]): token for token in range(encoder.vocab_size)}


def with_tiktoken(encoder):
    import tiktoken

    ranks = ranks_of(encoder)
    return tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


def with_tokenizers(encoder, merges):
    """The same encoding in `tokenizers`, where a byte is written as a printable character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letter = {byte: chr(byte) for byte in printable}
    letter |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    names = ["".join(map(letter.get, encoder.decode_bytes([t]))) for t in range(encoder.vocab_size)]
    model = models.BPE(
        vocab={name: token for token, name in enumerate(names)},
        merges=[(names[left], names[right]) for left, right in merges],
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


# ---- against the oracle


@settings(max_examples=150, deadline=None)
@given(st.lists(dense_text, max_size=8), st.integers(256, 300), st.sampled_from([1, 2, 8]))
def test_train_and_encode_as_the_oracle(texts, vocab_size, num_threads):
    merges = rustbpe.train(texts, vocab_size, num_threads=num_threads)
    assert merges == oracle_bpe.train(texts, vocab_size, PATTERN)
    encoder = rustbpe.Encoder(merges)
    for text in texts:
        assert encoder.encode(text) == oracle_bpe.encode(text, merges, PATTERN)


def test_train_and_encode_as_the_oracle_on_prose():
    text = (ROOT / "LICENSE").read_text()
    merges = rustbpe.train([text], 500)
    assert merges == oracle_bpe.train([text], 500, PATTERN)
    assert rustbpe.Encoder(merges).encode(text) == oracle_bpe.encode(text, merges, PATTERN)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_encode_with_merges_of_no_training(data):
    merges = []
    for number in range(data.draw(st.integers(0, 12))):
        earlier = st.sampled_from([*b"ab", *range(256, 256 + number)])
        pair = data.draw(st.tuples(earlier, earlier))
        if pair in merges:
            break
        merges.append(pair)
    # 70 letters are beyond the length at which pieces are merged in another way.
    text = data.draw(st.text(alphabet="ab", max_size=20)) * data.draw(st.sampled_from([1, 70]))
    assert rustbpe.Encoder(merges).encode(text) == oracle_bpe.encode(text, merges, PATTERN)


@settings(max_examples=50, deadline=None)
@given(st.lists(any_text, max_size=5))
def test_custom_pattern(texts):
    pattern = r"\w+|\W"
    merges = rustbpe.train(texts, 270, pattern=pattern)
    # What \w is differs between Unicode versions, so only the round trip is compared.
    encoder = rustbpe.Encoder(merges, pattern)
    assert [encoder.decode_bytes(encoder.encode(t)).decode() for t in texts] == texts


def test_worked_example():
    merges = rustbpe.train(["low low lower", "lowest"], 260)
    lo, low = 256, 257
    # " low" and "lowe" both occur twice; the space is the smaller id. Then "lowe" occurs once.
    assert merges == [(*b"lo",), (lo, *b"w"), (*b" ", low)]
    encoder = rustbpe.Encoder(merges)
    assert encoder.encode("low slow low") == [low, *b" s", low, 258]
    assert encoder.vocab_size == 259


# ---- on real text, against what others do


@pytest.fixture(scope="module")
def real_texts():
    import pyarrow.parquet as pq

    texts = [gzip.decompress(path.read_bytes()).decode() for path in sorted(DATA.glob("text/*.gz"))]
    shard = pq.read_table(DATA / "pretrain/shard_00004.parquet", columns=["text"])
    texts += shard["text"].to_pylist()
    assert len(texts) > 100
    return texts


@pytest.fixture(scope="module")
def real_merges(real_texts):
    return rustbpe.train(real_texts, 8192)


@needs_data
def test_same_merges_for_any_number_of_threads(real_texts, real_merges):
    assert len(real_merges) == 8192 - 256
    for num_threads in (1, 2, 8):
        assert rustbpe.train(real_texts, 8192, num_threads=num_threads) == real_merges


@needs_data
def test_real_text_as_tiktoken_and_tokenizers(real_texts, real_merges):
    encoder = rustbpe.Encoder(real_merges)
    ours = encoder.encode_batch(real_texts)
    assert ours == [encoder.encode(text) for text in real_texts]
    assert [encoder.decode_bytes(ids).decode() for ids in ours] == real_texts
    assert ours == with_tiktoken(encoder).encode_ordinary_batch(real_texts)
    theirs = with_tokenizers(encoder, real_merges)
    # A few at a time: `tokenizers` keeps offsets and names of each token.
    for at in range(0, len(ours), 8):
        encodings = theirs.encode_batch(real_texts[at : at + 8])
        assert [encoding.ids for encoding in encodings] == ours[at : at + 8]


# ---- by itself


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(any_text, dense_text), max_size=5), st.sampled_from([None, 1, 3]))
def test_round_trip(texts, num_threads):
    encoder = rustbpe.Encoder(rustbpe.train(texts, 280))
    batch = encoder.encode_batch(texts, num_threads=num_threads)
    assert [encoder.decode_bytes(ids).decode() for ids in batch] == texts
    assert batch == [encoder.encode(text) for text in texts]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_every_byte_decodes(data):
    assert rustbpe.Encoder([]).decode_bytes(list(data)) == data


@pytest.mark.parametrize("unit", ["a", "ab", " ", "\n", "!", "7", "é", "漢"])
def test_a_long_piece_is_fast(unit):
    text = unit * (100_000 // len(unit))
    started = time.perf_counter()
    merges = rustbpe.train([text], 400)
    encoder = rustbpe.Encoder(merges)
    ids = encoder.encode(text)
    assert time.perf_counter() - started < 2  # both together take about 0.1 s
    assert encoder.decode_bytes(ids).decode() == text


def test_progress():
    calls = []

    def slowly(texts):
        for text in texts:
            time.sleep(0.05)
            yield text

    texts = ["some text", "some more text"] * 5
    merges = rustbpe.train(slowly(texts), 300, progress=lambda *call: calls.append(call))
    counts = [call for call in calls if call[0] == "count"]
    assert calls[: len(counts)] == counts
    assert 3 <= len(counts) <= 7, "about ten per second"
    assert counts[-1] == ("count", 10, 0)
    assert calls[-1] == ("merge", len(merges), 44)


class OurError(Exception):
    pass


def fail(*_):
    raise OurError


def texts_that_fail():
    yield "some text"
    raise OurError


def test_exceptions_come_out():
    with pytest.raises(OurError):
        rustbpe.train(texts_that_fail(), 300)
    with pytest.raises(OurError):
        rustbpe.train(["some text"], 300, progress=fail)


BUSY = {  # what is made ready, and the call that must be interrupted
    "reading": ("itertools.repeat('some text')", "rustbpe.train(it, 300)"),
    "reading slowly": ("(time.sleep(0.01) or '' for _ in range(9999))", "rustbpe.train(it, 300)"),
    "one huge text": ("['some text ' * 9_000_000]", r"rustbpe.train(it, 300, r'\w+(?=.)', 1)"),
    "merging": ("[random.Random(1).randbytes(9_000_000).hex()]", "rustbpe.train(it, 10**9, '.+')"),
    "encoding": ("['some text' * 99_999] * 9_999", "rustbpe.Encoder([]).encode_batch(it)"),
}


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
@pytest.mark.parametrize(("ready", "call"), BUSY.values(), ids=BUSY)
def test_control_c(ready, call):
    code = f"import itertools, random, time, rustbpe\nit = {ready}\nprint(flush=True)\n{call}\n"
    with subprocess.Popen(
        [sys.executable, "-c", code + "print('end')"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        time.sleep(1.0)
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()  # one that ignores Ctrl-C must not live forever
    assert time.perf_counter() - started < 2
    assert process.returncode != 0
    assert "end" not in out, "it ended too early to be interrupted"
    assert err.endswith("KeyboardInterrupt\n"), err


BAD = [
    (lambda: rustbpe.train([], 255), "vocab_size must be from 256"),
    (lambda: rustbpe.train([], -1), "vocab_size must be from 256"),
    (lambda: rustbpe.train([], 2**40), "vocab_size must be from 256"),
    (lambda: rustbpe.train([], 300, pattern="("), "pattern is not a valid"),
    (lambda: rustbpe.train([], 300, num_threads=0), "num_threads must be 1 or more"),
    (lambda: rustbpe.train(["", "ab\ud800"], 300), "text 1 has a lone surrogate"),
    (lambda: rustbpe.train(["x" * 40], 300, r"(x+x+)+(?=y)\1"), "pattern failed"),
    (lambda: rustbpe.Encoder([(97, 256)]), "merge 0 uses id 256, but only ids 0 to 255"),
    (lambda: rustbpe.Encoder([(1, 2), (1, 2)]), "merge 1 repeats"),
    (lambda: rustbpe.Encoder([(-1, 2)]), "-1 is not an id"),
    (lambda: rustbpe.Encoder([], pattern="["), "pattern is not a valid"),
    (lambda: rustbpe.Encoder([]).encode("\udfff"), "text 0 has a lone surrogate"),
    (lambda: rustbpe.Encoder([]).encode_batch(["", "\udfff"]), "text 1 has a lone surrogate"),
    (lambda: rustbpe.Encoder([]).encode_batch([], num_threads=0), "num_threads must be 1 or more"),
    (lambda: rustbpe.Encoder([]).decode_bytes([256]), "id 256 is not a token"),
    (lambda: rustbpe.Encoder([]).decode_bytes([-1]), "-1 is not an id"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("texts", ["one str", ["a", b"b"], [1], 7])
def test_texts_of_a_wrong_type(texts):
    with pytest.raises(TypeError):
        rustbpe.train(texts, 300)
