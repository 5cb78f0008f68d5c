"""The tokenizer: the same ids as the `tokenizers` library, the same interface for both trainers."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nanochat import tokenizer as tok
from nanochat.system.errors import UserError
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from scripts.tokenizer import encode

ROOT = Path(__file__).parents[1]
TRAINERS = [
    "tokenizers",
    pytest.param(
        "rustbpe",
        marks=pytest.mark.skipif(
            tok.available_trainer() != "rustbpe",
            reason="NOT TESTED: the Rust extension is not built (bash dev/setup.sh)",
        ),
    ),
]
# Texts that the pattern splits in many ways, and special tokens' names among them.
dense_text = st.text(alphabet="aZ é'sll 129\n\r\t.!漢😀\x00", max_size=60)
marked_text = st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "bos", " ", "é"])).map("".join)
any_text = st.one_of(st.text(max_size=80), dense_text, marked_text)


def theirs(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(tokenizer.to_json())


# ---- any text


@pytest.mark.parametrize("blank", [" ", "\u00a0"])
def test_a_run_of_blanks_of_any_length(tokenizer: Tokenizer, blank: str) -> None:
    """tiktoken's split pattern gives up (a panic) at a million and a few."""
    text = f"one{blank * 1_000_012}two"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["a b", "  \n  ", " " * 9, "\t" * 10 + "x" + "\u2003" * 11 + "\n"])
def test_only_longer_runs_are_cut(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tok, "MAX_BLANKS", 4)
    parts = tok.cut_long_blanks(text)
    assert "".join(parts) == text
    assert all(0 < len(run) <= 4 for part in parts for run in re.findall(r"[^\S\r\n]+", part))
    assert len(parts) == 1 + sum((len(r) - 1) // 4 for r in re.findall(r"[^\S\r\n]+", text))


def test_encode_prints_a_line_a_line(
    tokenizer: Tokenizer, tmp_path: Path, base_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines end at \\n alone, and what else is in them is in the ids."""
    tokenizer.save(base_dir / "tokenizer" / "tokenizer.json")
    lines = ["one", "a lone \r within", "windows\r", "", "\u2028"]
    (tmp_path / "x.txt").write_bytes("".join(line + "\n" for line in lines).encode())
    encode(tmp_path / "x.txt", None)
    printed = capsys.readouterr().out.split("\n")
    assert printed.pop() == ""
    assert [tokenizer.decode(map(int, ids.split())) for ids in printed] == lines


# ---- against the `tokenizers` library


@pytest.fixture(scope="module")
def real_texts(shared_data: Path) -> list[str]:
    paths = sorted(shared_data.glob("text/*.gz"))
    texts = [gzip.decompress(path.read_bytes()).decode() for path in paths]
    assert len(texts) == 2
    return texts


@pytest.fixture(scope="module")
def real_tokenizer(real_texts: list[str]) -> Tokenizer:
    return tok.train((text[:300_000] for text in real_texts), 2000)


def test_real_text_as_tokenizers(
    real_texts: list[str], real_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    real_tokenizer.save(path)
    loaded, other = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    assert other.get_vocab_size() == real_tokenizer.vocab_size == 2000
    for text in real_texts:
        ids = loaded.encode(text)
        assert ids == real_tokenizer.encode(text) == other.encode(text).ids
        assert loaded.decode(ids) == other.decode(ids, skip_special_tokens=False) == text


def test_real_lines_as_tokenizers(real_texts: list[str], real_tokenizer: Tokenizer) -> None:
    other = theirs(real_tokenizer)
    for text in real_texts:
        lines = text.splitlines()
        ours = [real_tokenizer.encode(line) for line in lines]
        for at in range(0, len(lines), 4000):
            some = other.encode_batch_fast(lines[at : at + 4000])
            assert [encoding.ids for encoding in some] == ours[at : at + 4000]


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(max_size=80), dense_text))
def test_any_text_as_tokenizers(tokenizer: Tokenizer, text: str) -> None:
    # There a special token's name in the text is that token; for us it is never more than text.
    assume(not any(name in text for name in SPECIAL_TOKENS))
    assert theirs_of(tokenizer).encode(text).ids == tokenizer.encode(text)


_theirs: dict[str, tokenizers.Tokenizer] = {}


def theirs_of(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    if tokenizer.sha256 not in _theirs:
        _theirs[tokenizer.sha256] = theirs(tokenizer)
    return _theirs[tokenizer.sha256]


# ---- by itself


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    sizes = tokenizer.token_bytes()
    assert sum(sizes[i] for i in ids) == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_text_never_gives_special_ids(tokenizer: Tokenizer, text: str) -> None:
    assert max(tokenizer.encode(text), default=0) < tokenizer.bos


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_a_special_name_is_just_characters(tokenizer: Tokenizer, name: str) -> None:
    ids = tokenizer.encode(f"say {name} please")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == f"say {name} please"


def test_a_lone_surrogate_does_not_raise(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_special_tokens_come_last_in_a_fixed_order(tokenizer: Tokenizer) -> None:
    assert SPECIAL_TOKENS == (
        "<|bos|>",
        "<|user_start|>",
        "<|user_end|>",
        "<|assistant_start|>",
        "<|assistant_end|>",
        "<|python_start|>",
        "<|python_end|>",
        "<|output_start|>",
        "<|output_end|>",
    )
    assert list(tokenizer.special) == list(SPECIAL_TOKENS)
    first = tokenizer.vocab_size - 9
    assert list(tokenizer.special.values()) == list(range(first, first + 9))
    assert len(tokenizer.pieces) == first
    assert tokenizer.bos == first
    assert tokenizer.token_bytes()[first:] == [0] * 9
    assert len(tokenizer.token_bytes()) == tokenizer.vocab_size
    other = theirs(tokenizer)
    assert [other.token_to_id(name) for name in SPECIAL_TOKENS] == list(tokenizer.special.values())
    assert other.encode("a<|user_end|>").ids[-1] == tokenizer.special["<|user_end|>"]


def test_decode_of_broken_bytes_and_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*b"a\xf0\x9f", tokenizer.bos, *b"b"]) == "a\ufffdb"


def test_numbers_come_in_groups_of_two_digits() -> None:
    trained = tok.train(["2024 2024 2024 "] * 9, 300, trainer="tokenizers")
    assert b"20" in trained.pieces
    assert b"24" in trained.pieces
    assert not any(piece.isdigit() and len(piece) > 2 for piece in trained.pieces)


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new folder" / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "new folder" / "tokenizer.json")
    assert loaded.merges == tokenizer.merges
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.to_json() == tokenizer.to_json()
    assert Tokenizer(tokenizer.merges[:-1]).sha256 != tokenizer.sha256


# ---- training


@pytest.mark.parametrize("trainer", TRAINERS)
def test_smallest_vocabulary(trainer: str, tmp_path: Path) -> None:
    trained = tok.train(["some text, some text"], 265, trainer=trainer)
    assert (trained.vocab_size, trained.merges, trained.bos) == (265, [], 256)
    assert trained.encode("é<") == [*"é<".encode()]
    trained.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("é") == [*"é".encode()]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("vocab_size", [266, 300, 331])
def test_exact_size_where_the_text_gives_it(trainer: str, vocab_size: int) -> None:
    license_text = (ROOT / "LICENSE").read_text()
    trained = tok.train([license_text], vocab_size, trainer=trainer)
    assert trained.vocab_size == vocab_size
    assert len(trained.merges) == vocab_size - 265
    assert len(set(trained.pieces)) == len(trained.pieces)
    assert trained.decode(trained.encode(license_text)) == license_text


@pytest.mark.parametrize("trainer", TRAINERS)
def test_stops_early_when_no_pair_occurs_twice(trainer: str) -> None:
    trained = tok.train(["abc abc", "xyz"], 1000, trainer=trainer)
    assert trained.pieces[256:] in ([b"ab", b"abc"], [b"bc", b"abc"])
    assert trained.vocab_size == 267
    assert trained.bos == 258


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("texts", [[], [""], ["", "ab"]])
def test_text_that_teaches_nothing(trainer: str, texts: list[str]) -> None:
    assert tok.train(texts, 500, trainer=trainer).vocab_size == 265


@pytest.mark.parametrize("vocab_size", [264, 256, 0, -1])
def test_too_small_is_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match=f"^vocab_size={vocab_size} is too small: 265 ") as error:
        tok.train(["text"], vocab_size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_progress_and_a_lazy_iterator(trainer: str) -> None:
    calls: list[tuple] = []
    texts = itertools.chain(["some text"] * 20)
    trained = tok.train(texts, 300, trainer=trainer, progress=lambda *call: calls.append(call))
    assert ("count", 20, 0) in calls
    assert calls[-1] == ("merge", len(trained.merges), 300 - 265)
    assert trained.trainer == trainer


class TextsFailed(Exception):
    pass


@pytest.mark.parametrize("trainer", TRAINERS)
def test_an_exception_of_the_texts_comes_out(trainer: str) -> None:
    def texts():
        yield "some text"
        raise TextsFailed("no more")

    with pytest.raises(TextsFailed):
        tok.train(texts(), 300, trainer=trainer)


@pytest.mark.skipif(
    tok.available_trainer() != "rustbpe",
    reason="NOT TESTED: the Rust extension is not built (bash dev/setup.sh)",
)
def test_both_trainers_compress_alike(real_texts: list[str]) -> None:
    text = real_texts[1]
    one, other = (tok.train([text[:200_000]], 700, trainer=t) for t in ("rustbpe", "tokenizers"))
    assert one.vocab_size == other.vocab_size == 700
    lengths = [len(t.encode(text[200_000:300_000])) for t in (one, other)]
    assert max(lengths) < 1.01 * min(lengths), "ties fall differently, and nothing else"


def test_a_bare_folder_named_rustbpe_is_no_trainer(tmp_path: Path) -> None:
    (tmp_path / "rustbpe" / "src").mkdir(parents=True)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "sys.modules.pop('rustbpe', None)\n"
        # An installed extension would be found before a namespace folder: leave only the folder.
        "sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        "import rustbpe\n"
        "assert not hasattr(rustbpe, 'train'), rustbpe\n"
        "from nanochat.tokenizer import available_trainer, train\n"
        "from nanochat.system.errors import UserError\n"
        "print(available_trainer())\n"
        "try: train(['text'], 300, trainer='rustbpe')\n"
        "except UserError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == ""
    name, refusal = result.stdout.splitlines()
    assert name == "tokenizers"
    assert refusal.startswith("the Rust extension is not built: install Rust")


# ---- damaged and foreign files


def swapped(ids: dict[str, int], one: str, other: str) -> None:
    ids[one], ids[other] = ids[other], ids[one]


DAMAGE = {
    "no model": lambda whole: whole.pop("model"),
    "no vocabulary": lambda whole: whole["model"].pop("vocab"),
    "vocabulary of another kind": lambda whole: whole["model"].update(vocab=[["a", 1.0]]),
    "vocabulary null": lambda whole: whole["model"].update(vocab=None),
    "merges as strings": lambda whole: whole["model"].update(merges=["a b", "c d"]),
    "merges null": lambda whole: whole["model"].update(merges=None),
    "merges of unknown names": lambda whole: whole["model"]["merges"].append(["QQ", "ZZ"]),
    "a merge missing": lambda whole: whole["model"]["merges"].pop(),
    "merges out of order": lambda whole: whole["model"]["merges"].reverse(),
    "a word more": lambda whole: whole["model"]["vocab"].update(extra=400),
    "a word less": lambda whole: whole["model"]["vocab"].pop("<|output_end|>"),
    "bytes swapped": lambda whole: swapped(whole["model"]["vocab"], "a", "b"),
    "special tokens swapped": lambda whole: swapped(
        whole["model"]["vocab"], "<|user_start|>", "<|user_end|>"
    ),
    "no pre_tokenizer": lambda whole: whole.update(pre_tokenizer=None),
    "another pattern": lambda whole: whole["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"Regex": r"\w+"}
    ),
    "another splitter": lambda whole: whole["pre_tokenizer"].update(pretokenizers=[]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_foreign_file_is_refused(tokenizer: Tokenizer, tmp_path: Path, damage) -> None:
    whole = json.loads(tokenizer.to_json())
    damage(whole)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(UserError) as error:
        Tokenizer.load(path)
    assert str(error.value).startswith(f"{path} is not a tokenizer of nanochat's")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[]", b"7", b"null", b'"text"'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(raw)
    with pytest.raises(UserError) as error:
        Tokenizer.load(path)
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_changed_file_is_refused_in_one_line_or_is_the_same(
    tokenizer: Tokenizer, tmp_path: Path, data: st.DataObject
) -> None:
    """Bits flipped, bytes cut out, bytes put in."""
    raw = bytearray(tokenizer.to_json().encode())
    where = data.draw(st.integers(0, len(raw) - 1))
    damage = data.draw(st.one_of(st.integers(0, 7), st.integers(8, 300), st.binary(max_size=20)))
    if isinstance(damage, bytes):
        raw[where:where] = damage
    elif damage < 8:
        raw[where] ^= 1 << damage
    else:
        del raw[where : where + damage]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(raw)
    try:
        found = Tokenizer.load(path).to_json()
    except UserError as error:
        found = str(error)
    refused = found.startswith(f"{path} ") and "\n" not in found
    assert refused or found == tokenizer.to_json()


def test_half_a_file_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    text = tokenizer.to_json()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="can't be read"):
        Tokenizer.load(path)


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no tokenizer at .*python -m scripts.tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
