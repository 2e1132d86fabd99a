"""The parts that labelgen accepts in a tokenizer.json: steps of published tokenizers, bounded so that a text costs little time and memory.

Anyone may have written the file, and some steps multiply a text (docs/threat_model.md). Therefore only listed types are accepted. A step
that lengthens a text may occur once, and what it inserts is bounded. Everything else is refused by name.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

NORMALIZERS = {
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace", "Strip", "StripAccents"),
}
PRE_TOKENIZERS = {
    *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
}
POST_PROCESSORS = {"BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"}
MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}
REPEATABLE = {"Replace", "Split", "Strip"}  # they never lengthen a text
REGEXES = {  # of published tokenizers; any other may take unbounded time
    *(" {2,}", r"\s+", r"\n", r"[\n\r\t]", r"\s{2,}|[\n\r\t]", " +▁", "^▁+$"),
    r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",  # CLIP
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",  # CLIP, too
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # Llama 3
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # Qwen 2
}
MAX_STEPS = 16  # ALBERT has 8
MAX_REPLACEMENT = 64  # bytes that a character becomes in a Precompiled table; NFKC needs 33
MAX_WORD = 1000  # characters of a word that WordPiece cuts in a time that grows with the square; BERT has 100
MAX_TEMPLATE = 8  # parts around and with the text; BERT has 3
PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")  # what labelgen uses


def checked_tokenizer(text: str) -> str:
    """A tokenizer.json, reduced to the parts that labelgen uses. ValueError if a part is not accepted. The message names it."""
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError(f"a JSON {type(given).__name__}, not an object")
    kept = {part: given.get(part) for part in PARTS}
    before = [*_steps(kept["normalizer"], "normalizers"), *_steps(kept["pre_tokenizer"], "pretokenizers")]
    after = list(_steps(kept["post_processor"], "processors"))
    for step in before:
        _refuse_unlisted(step, NORMALIZERS | PRE_TOKENIZERS)
        _check_step(step)
    counted = Counter(str(step.get("type")) for step in before)
    if twice := [name for name, count in counted.items() if count > 1 and name not in REPEATABLE]:
        raise ValueError(f"{twice[0]} stands {counted[twice[0]]} times before the model; once is enough")
    if (most := max(len(before), len(after))) > MAX_STEPS:
        raise ValueError(f"{most} steps before or after the model, more than {MAX_STEPS}")
    for step in after:
        _refuse_unlisted(step, POST_PROCESSORS)
        if step["type"] == "TemplateProcessing":
            _check_template(step)
    _check_model(kept["model"])
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "decoder": None, **kept})


def is_tokenizer_error(error: BaseException) -> bool:
    """Whether `tokenizers` may have raised it: an Exception, or a Rust panic, which is no Exception and whose type cannot be imported."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


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


def _refuse_unlisted(step: Mapping[str, Any], listed: set[str]) -> None:
    if step.get("type") not in listed:
        raise ValueError(f"a step of type {step.get('type')!r}, which no encoder that labelgen reads has")


def _check_step(step: Mapping[str, Any]) -> None:
    """ValueError if a step could lengthen a text more than its type needs, or take unbounded time."""
    kind = step["type"]
    if kind in ("Replace", "Split"):
        longest = _pattern_length(kind, step["pattern"])
        if kind == "Replace" and len(step["content"]) > longest:
            raise ValueError(f"Replace puts {step['content'][:20]!r} in the place of {step['pattern']}, and makes the text longer")
    elif kind == "Prepend" and len(step["prepend"]) > 1:
        raise ValueError(f"Prepend of {len(step['prepend'])} characters, more than 1")
    elif kind == "Precompiled":
        _check_table(step["precompiled_charsmap"])


def _pattern_length(kind: str, pattern: Mapping[str, str]) -> int:
    """The fewest characters that a pattern matches."""
    if "Regex" in pattern:
        if pattern["Regex"] not in REGEXES:
            raise ValueError(
                f"{kind} by the regular expression {pattern['Regex'][:40]!r}, which is not in labelgen.inputs.tokenizer.REGEXES"
            )
        return 1
    if not pattern["String"]:
        raise ValueError(f"{kind} by an empty pattern")
    return len(pattern["String"])


def _check_table(encoded: str) -> None:
    """A sentencepiece table: the size of a trie, the trie, and the replacements, each ended by a zero byte."""
    table = base64.b64decode(encoded)
    replacements = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    if (longest := max(map(len, replacements))) > MAX_REPLACEMENT:
        raise ValueError(f"Precompiled with a replacement of {longest} bytes, more than {MAX_REPLACEMENT}")


def _check_template(step: Mapping[str, Any]) -> None:
    for part in ("single", "pair"):
        if len(step[part]) > MAX_TEMPLATE:
            raise ValueError(f"TemplateProcessing with {len(step[part])} parts, more than {MAX_TEMPLATE}")
    if sum("Sequence" in piece for piece in step["single"]) != 1:
        raise ValueError("TemplateProcessing does not name the text once")
    if any(len(token["ids"]) != 1 for token in step["special_tokens"].values()):
        raise ValueError("TemplateProcessing with a special token of other than one id")


def _check_model(model: Any) -> None:
    if not isinstance(model, dict) or model.get("type") not in MODELS:
        kind = model.get("type") if isinstance(model, dict) else model
        raise ValueError(f"a model of type {kind!r}; {', '.join(sorted(MODELS))} are read")
    if model.get("dropout"):
        raise ValueError("BPE with dropout cuts a text another way each time; set it to null")
    if model["type"] == "WordPiece" and not 0 < model.get("max_input_chars_per_word", 100) <= MAX_WORD:
        raise ValueError(f"WordPiece with max_input_chars_per_word={model['max_input_chars_per_word']}; give 1 to {MAX_WORD}")
