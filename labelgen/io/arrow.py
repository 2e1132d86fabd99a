"""Dialogues to Arrow rows and back. Every Parquet file that labelgen writes has these columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from labelgen.dialogue import Dialogue

if TYPE_CHECKING:
    import pyarrow as pa

MAPS = ("categorical", "numerical", "paraphrases")  # fields of a turn
PROVENANCE_COLUMNS = ("model", "config", "input", "version", "time")  # backfill adds them


def arrow_schema() -> pa.Schema:
    """The Arrow schema of all Parquet files. The metadata and the values of votes are JSON texts."""
    import pyarrow as pa

    text, texts, integers = pa.string(), pa.list_(pa.string()), pa.list_(pa.int32())
    span = [("start", pa.int32()), ("end", pa.int32())]
    slots = pa.list_(pa.struct([("name", text), *span, ("value", text), ("normalised", text), ("categorical", pa.bool_())]))
    votes = pa.list_(pa.struct([("question", text), ("value", text), ("annotator", text)]))
    goals = pa.list_(pa.struct([("turns", integers), ("name", text), ("outcome", text)]))
    labels = pa.list_(
        pa.struct([
            ("task", text), ("value", text), ("turns", integers), ("confidence", pa.float64()),
            ("part", text), *span, ("text", text), ("source", text),
        ])
    )  # fmt: skip
    turn = pa.struct([
        ("request", text), ("response", text), ("timestamp", pa.timestamp("us", tz="UTC")),
        ("categorical", pa.map_(text, text)), ("numerical", pa.map_(text, pa.float64())), ("audio", text),
        ("intent", text), ("request_acts", texts), ("response_acts", texts), ("request_slots", slots), ("response_slots", slots),
        ("defect", pa.bool_()), ("retry", pa.bool_()), ("rewrites", texts), ("rewritten_with_hindsight", pa.bool_()),
        ("paraphrases", pa.map_(text, text)), ("votes", votes),
    ])  # fmt: skip
    return pa.schema([
        ("id", text), ("turns", pa.list_(turn)), ("user", text), ("goals", goals), ("votes", votes), ("labels", labels),
        ("slices", texts), ("metadata", text),
    ])  # fmt: skip


def to_arrow(dialogue: Dialogue) -> dict[str, Any]:
    """A row of `arrow_schema`."""
    row = dialogue.model_dump()
    row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
    for holder in (row, *row["turns"]):
        holder["votes"] = [{**vote, "value": json.dumps(vote["value"], ensure_ascii=False)} for vote in holder["votes"]]
    return row


def to_tables(rows: Sequence[dict[str, Any]], schema: pa.Schema, refuse: Callable[[int, str], None], first: int = 0) -> list[pa.Table]:
    """The rows as tables. `refuse` takes the index of a row that Arrow refuses (a number beyond the column's type, ...) and the reason.

    If Arrow refuses rows, they are split in half until the row at fault is alone. `first`: index of the first row.
    """
    import pyarrow as pa

    if not rows:
        return []
    try:
        return [pa.Table.from_pylist(rows, schema=schema)]
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if len(rows) == 1:
            refuse(first, f"cannot be written as Parquet ({error}); correct the value, or write JSONL")
            return []
    middle = len(rows) // 2
    return [*to_tables(rows[:middle], schema, refuse, first), *to_tables(rows[middle:], schema, refuse, first + middle)]


def from_arrow(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `arrow_schema` -> the fields of the record. In Arrow, maps are lists of pairs and absent fields are null.

    The columns of provenance are left out. Columns of another writer raise errors of several types.
    """
    row = {name: value for name, value in row.items() if value is not None and name not in PROVENANCE_COLUMNS}
    if isinstance(row.get("metadata"), str):
        row["metadata"] = json.loads(row["metadata"])
    row["votes"] = [_vote(vote) for vote in row.get("votes", ())]
    turns = []
    for turn in row.get("turns", ()):
        turn = {name: value for name, value in turn.items() if value is not None}
        for name in MAPS:
            turn[name] = dict(turn.get(name, ()))
        turn["votes"] = [_vote(vote) for vote in turn.get("votes", ())]
        turns.append(turn)
    return {**row, "turns": turns}


def _vote(vote: dict[str, Any]) -> dict[str, Any]:
    return {**vote, "value": json.loads(vote["value"])}
