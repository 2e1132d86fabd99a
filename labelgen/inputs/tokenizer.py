"""The parts that labelgen accepts in a tokenizer.json: steps of published tokenizers, bounded so that a text costs little time and memory.

Anyone may have written the file, and some steps multiply a text. The rule is in docs/threat_model.md: the types of steps are listed, each
part has at most one step that lengthens a text, and every string is short. Everything else is refused by name.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tokenizers import normalizers

LENGTHENING = {"BertNormalizer": 3, "Precompiled": 18, "Prepend": 2}  # how many times larger a text may become, in `size`
NORMALIZERS = {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Replace", "Strip", "StripAccents", *LENGTHENING}
MARKING = {"ByteLevel", "Metaspace"}  # they put a sign before a word, and ByteLevel turns each byte into a character
PRE_TOKENIZERS = {"BertPreTokenizer", "Digits", "Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit", *MARKING}
FRAMING = {"BertProcessing", "RobertaProcessing", "TemplateProcessing"}  # they put special tokens around a text
POST_PROCESSORS = {"ByteLevel", *FRAMING}
MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}
REGEXES = {  # of published tokenizers, and of linear time; any other may take unbounded time
    *(" {2,}", r"\s+", r"\n", r"[\n\r\t]", r"\s{2,}|[\n\r\t]"),
    r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",  # CLIP
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",  # CLIP, too
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # Llama 3
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # Qwen 2
}
MAX_STEPS = 16  # of a part; ALBERT has 7 normalizers
MAX_STRING = 256  # characters; GPT-2 has a token of 128
MAX_PIECE = 64  # characters of a piece of a Unigram model (sentencepiece makes 16), and of an affix ("</w>" has 4)
MAX_WORD = 100  # characters of a word that WordPiece cuts, as in BERT
MAX_TEMPLATE = 4  # parts around and with a text; BERT has 3
UNLIMITED = {"merges", "precompiled_charsmap"}  # not strings that a model looks up: pairs of its pieces, and a table
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")  # what labelgen uses
NFKD = normalizers.NFKD()


def size(text: str) -> int:
    """Characters of the NFKD form: the same for every normal form of a text, and the sum of the sizes of its characters (1 to 18)."""
    return len(text) if text.isascii() else len(NFKD.normalize_str(text))


def checked_tokenizer(text: str) -> str:
    """A tokenizer.json, reduced to the parts that labelgen uses. ValueError if a part is not accepted. The message names it."""
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError(f"a JSON {type(given).__name__}, not an object")
    kept = {part: given.get(part) for part in PARTS}
    pre_tokenizers = _checked_types(kept["pre_tokenizer"], "pretokenizers", PRE_TOKENIZERS, MARKING)
    for step in (
        *_checked_types(kept["normalizer"], "normalizers", NORMALIZERS, LENGTHENING),
        *pre_tokenizers,
        *_checked_types(kept["post_processor"], "processors", POST_PROCESSORS, FRAMING),
    ):
        _check_step(step)
    _check_model(kept["model"], any(step["type"] == "ByteLevel" for step in pre_tokenizers))
    if (longest := max(map(len, _strings(kept)), default=0)) > MAX_STRING:
        raise ValueError(f"a string of {longest} characters, more than {MAX_STRING}")
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "decoder": None, **kept})


def is_tokenizer_error(error: BaseException) -> bool:
    """Whether `tokenizers` may have raised it: an Exception, or a Rust panic, which is no Exception and whose type cannot be imported."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _checked_types(part: Any, key: str, listed: Collection[str], single: Collection[str]) -> list[Mapping[str, Any]]:
    """The steps of a part. ValueError if a type is not listed, or if more than one is in `single`: their effects would multiply."""
    steps = list(_steps(part, key))
    types = [step.get("type") for step in steps]
    for kind in types:
        if kind not in listed:
            raise ValueError(f"a step of type {kind!r}, which no encoder that labelgen reads has")
    if len(types) > MAX_STEPS:
        raise ValueError(f"{len(types)} steps, more than {MAX_STEPS}")
    if len(several := [str(kind) for kind in types if kind in single]) > 1:
        raise ValueError(f"{several[0]} and {several[1]}, but a tokenizer may have only one of {', '.join(sorted(single))}")
    return steps


def _steps(part: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part, in order. Sequences are flattened."""
    if part is None:
        return
    if not isinstance(part, dict):
        raise ValueError(f"a step that is a JSON {type(part).__name__}, not an object")
    if part.get("type") != "Sequence":
        yield part
        return
    for inner in part[key]:
        yield from _steps(inner, key)


def _check_step(step: Mapping[str, Any]) -> None:
    """ValueError if a step could lengthen a text more than its type needs, or take unbounded time."""
    kind = step["type"]
    if kind in ("Replace", "Split"):
        smallest = _pattern_size(kind, step["pattern"])
        if kind == "Replace" and size(step["content"]) > smallest:
            raise ValueError(f"Replace puts {step['content'][:20]!r} in the place of {step['pattern']}, and makes the text longer")
    elif kind == "Prepend" and size(step["prepend"]) > 1:
        raise ValueError(f"Prepend of {step['prepend'][:20]!r}, which has more than 1 character")
    elif kind == "Precompiled":
        _check_table(step["precompiled_charsmap"])
    elif kind == "TemplateProcessing":
        _check_template(step)


def _pattern_size(kind: str, pattern: Mapping[str, str]) -> int:
    """The size of the smallest text that a pattern matches."""
    if "Regex" in pattern:
        if pattern["Regex"] not in REGEXES:
            raise ValueError(
                f"{kind} by the regular expression {pattern['Regex'][:40]!r}, which is not in labelgen.inputs.tokenizer.REGEXES"
            )
        return 1
    if not pattern["String"]:
        raise ValueError(f"{kind} by an empty pattern")
    return size(pattern["String"])


def _check_table(encoded: str) -> None:
    """A sentencepiece table: the bytes of a trie of integers, the trie, and the replacements, each ended by a zero byte."""
    table = base64.b64decode(encoded, validate=True)
    replacements = table[4 + int.from_bytes(table[:4], "little") // 4 * 4 :].split(b"\0")
    largest = max(size(replacement.decode("utf-8", "replace")) for replacement in replacements)
    if largest > LENGTHENING["Precompiled"]:
        raise ValueError(f"Precompiled with a replacement of {largest} characters, more than {LENGTHENING['Precompiled']}")


def _check_template(step: Mapping[str, Any]) -> None:
    if len(step["single"]) > MAX_TEMPLATE:
        raise ValueError(f"TemplateProcessing with {len(step['single'])} parts, more than {MAX_TEMPLATE}")
    if sum("Sequence" in piece for piece in step["single"]) != 1:
        raise ValueError("TemplateProcessing does not name the text once")
    if any(len(token["ids"]) != 1 for token in step["special_tokens"].values()):
        raise ValueError("TemplateProcessing with a special token of other than one id")


def _check_model(model: Any, of_bytes: bool) -> None:
    if not isinstance(model, dict) or model.get("type") not in MODELS:
        kind = model.get("type") if isinstance(model, dict) else model
        raise ValueError(f"a model of type {kind!r}; {', '.join(sorted(MODELS))} are read")
    if model.get("dropout"):
        raise ValueError("BPE with dropout cuts a text another way each time; set it to null")
    if model["type"] == "WordPiece" and not 0 < model.get("max_input_chars_per_word", 100) <= MAX_WORD:
        raise ValueError(f"WordPiece with max_input_chars_per_word={model['max_input_chars_per_word']}; give 1 to {MAX_WORD}")
    affixes = [model[name] for name in AFFIXES if model.get(name)]
    pieces = [piece for piece, _ in model["vocab"]] if model["type"] == "Unigram" else []
    if (longest := max(map(len, [*affixes, *pieces]), default=0)) > MAX_PIECE:
        raise ValueError(f"{model['type']} with a piece or an affix of {longest} characters, more than {MAX_PIECE}")
    if model.get("byte_fallback") and (of_bytes or affixes):
        raise ValueError("byte_fallback with ByteLevel or an affix makes bytes of bytes; set it to false")


def _strings(part: Any) -> Iterator[str]:
    """Keys and values within a JSON value."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for inner in part:
            yield from _strings(inner)
    elif isinstance(part, dict):
        yield from part
        for key, inner in part.items():
            if key not in UNLIMITED:
                yield from _strings(inner)
