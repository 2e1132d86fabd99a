"""What compare.py and backends.py compare with: the export's own turn encoder, as the libraries that people build on would run it.

`save` writes its weights as a Hugging Face folder; every opponent is built from that folder (or holds the packed encoder itself) and is
called with dialogues. Heads are random: they cost what trained ones cost. "Windows" are what a model without a dialogue level reads to
know the context: a turn with the five turns before it, once for each turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    pipeline,
)

from labelgen.dialogue import PARTS, Dialogue
from labelgen.inputs.batch import TextEncoder, group_equal
from labelgen.inputs.pretrained import known_config
from labelgen.model.backbones import EMBEDDINGS, LAYER, PackedBackbone
from labelgen.model.encoder import Encoder, TurnEncoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CONTEXT = 6  # turns of a window
WINDOW_TOKENS = 512  # of it at most, or what the encoder can read; beyond it the oldest words are dropped
BATCH = 32
TURN_CLASSES = {"goal segmentation": 3, "goal evaluation": 3, "intent": 40, "defect": 2}  # heads that label a turn
SLOT_CLASSES = 181  # O, and two for each of 90 slots


def texts_of(dialogue: Dialogue) -> list[str]:
    """Requests and responses, in order."""
    return [text for turn in dialogue.turns for part in PARTS if (text := turn.text(part))]


def windows_of(dialogue: Dialogue, separator: str) -> list[str]:
    """For each turn, its texts and those of the five turns before it."""
    turns = [separator.join(text for part in PARTS if (text := turn.text(part))) for turn in dialogue.turns]
    return [separator.join(turns[max(0, t + 1 - CONTEXT) : t + 1]) for t in range(len(turns))]


def published(backbone: PackedBackbone) -> dict[str, Tensor]:
    """The weights under the names that Hugging Face has for them: the way back from `PackedBackbone.load`."""
    found = {}
    for key, value in backbone.state_dict().items():
        owner, kind = key.rsplit(".", 1)
        if owner in EMBEDDINGS:
            found[f"embeddings.{EMBEDDINGS[owner]}.{kind}"] = value
            continue
        _, number, part = owner.split(".")
        layer = f"encoder.layer.{number}"
        if part == "query_key_value":
            for name, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"{layer}.attention.self.{name}.{kind}"] = third.contiguous()
        else:
            found[f"{layer}.{LAYER[part]}.{kind}"] = value
    return found


def window_tokens(encoder: Encoder) -> int:
    """Tokens of a window at most."""
    return min(WINDOW_TOKENS, encoder.turn_encoder.backbone.max_length)


def save(encoder: Encoder, folder: Path) -> PreTrainedTokenizerBase:
    """Writes the turn encoder as a Hugging Face folder; the tokenizer in it reads up to a window."""
    if not isinstance(encoder.turn_encoder.backbone, PackedBackbone):
        raise SystemExit(f"{encoder.config['model_type']}: only encoders of the BERT and RoBERTa architectures are compared here")
    model = AutoModel.from_config(known_config(encoder.config, ("input_ids",)))
    missing, unexpected = model.load_state_dict(published(encoder.turn_encoder.backbone), strict=False)
    assert not unexpected and all("pooler" in name for name in missing), (missing, unexpected)
    model.save_pretrained(folder)
    ends = encoder.tokenizer.encode("").ids  # [CLS] [SEP], as this tokenizer calls them
    special = {"cls_token": ends[0], "sep_token": ends[-1], "pad_token": encoder.config.get("pad_token_id") or 0}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=encoder.tokenizer,
        **{name: encoder.tokenizer.id_to_token(number) for name, number in special.items()},
        truncation_side="left",
        model_max_length=window_tokens(encoder),
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


class Pipeline:
    """(a) One Hugging Face pipeline: a class for each window, or (`slots`) the spans in it.

    Nearly all tokens are made O, as they are for a trained model: pipelines build the spans of all others in Python.
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, slots: bool) -> None:
        self.separator = f" {tokenizer.sep_token} "
        if slots:
            names = dict(enumerate(["O", *(f"{tag}-{n}" for n in range(SLOT_CLASSES // 2) for tag in "BI")]))
            model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=SLOT_CLASSES, id2label=names)
            with torch.no_grad():
                model.classifier.bias[0] = 20.0
            self.run = pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu", aggregation_strategy="simple")
        else:
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=TURN_CLASSES["intent"])
            self.run = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", truncation=True)

    def __call__(self, dialogues: Sequence[Dialogue]) -> None:
        windows = [window for dialogue in dialogues for window in windows_of(dialogue, self.separator)]
        assert len(self.run(windows, batch_size=BATCH)) == len(windows)


class Heads(nn.Module):
    """Five linear heads: four on a window's vector, one on its tokens; the best class of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.turn = nn.ModuleList(nn.Linear(width, classes) for classes in TURN_CLASSES.values())
        self.token = nn.Linear(width, SLOT_CLASSES)

    def forward(self, vectors: Tensor, tokens: Tensor) -> list[list[int]]:
        scores = [*(head(vectors) for head in self.turn), self.token(tokens)]
        return [score.softmax(-1).max(-1).indices.tolist() for score in scores]


class Shared:
    """(b) One Hugging Face model for all labels: windows in batches of 32, each padded to its longest."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.model = tokenizer, AutoModel.from_pretrained(folder).eval()
        self.heads = Heads(self.model.config.hidden_size)

    @torch.inference_mode()
    def __call__(self, dialogues: Sequence[Dialogue]) -> None:
        windows = [window for dialogue in dialogues for window in windows_of(dialogue, f" {self.tokenizer.sep_token} ")]
        for start in range(0, len(windows), BATCH):
            batch = self.tokenizer(windows[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            tokens = self.model(**batch).last_hidden_state
            self.heads(tokens[:, 0], tokens)


class SharedPacked:
    """(b') The same windows through labelgen's packed encoder, sorted by length, without padding."""

    def __init__(self, encoder: TurnEncoder, texts: TextEncoder, separator: str) -> None:
        self.encoder, self.texts, self.separator = encoder, texts, separator
        self.heads = Heads(encoder.width)

    @torch.inference_mode()
    def __call__(self, dialogues: Sequence[Dialogue]) -> None:
        windows = [window for dialogue in dialogues for window in windows_of(dialogue, self.separator)]
        encoded = self.texts(windows)
        rows = sorted((encoded[window].ids for window in windows), key=len)
        groups = group_equal(map(len, rows))
        tokens = self.encoder(torch.cat([torch.from_numpy(row) for row in rows]).long(), groups)
        self.heads(self.encoder.pool(tokens, groups), tokens)


class Sentences:
    """(c) sentence-transformers' `encode` of requests and responses: a vector for each, and no label."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from sentence_transformers import SentenceTransformer

        self.model: SentenceTransformer = SentenceTransformer(str(folder), device="cpu")
        self.model.max_seq_length = max_tokens

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """[N, D]."""
        found: Any = self.model.encode(list(texts), batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)
        return found

    def __call__(self, dialogues: Sequence[Dialogue]) -> None:
        self.vectors([text for dialogue in dialogues for text in texts_of(dialogue)])


def packed_vectors(encoder: TurnEncoder, texts: TextEncoder, words: Sequence[str]) -> Iterator[Tensor]:
    """Our vector of each text, by itself: slow, for a check that the opponents compute the same."""
    with torch.inference_mode():
        for ids in (texts([word])[word].ids for word in words):
            groups = group_equal([len(ids)])
            yield encoder.pool(encoder(torch.from_numpy(ids).long(), groups), groups)[0]
