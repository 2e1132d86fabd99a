"""Dialogues to a `datasets.Dataset` of Hugging Face and back. Its columns are those of Parquet (arrow.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from labelgen.dialogue import Dialogue, RecordError, Reject, parse, reject_or_raise
from labelgen.io.arrow import MAPS, arrow_schema, from_arrow, to_arrow, to_tables

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

ROWS = 1000  # dialogues that are held as Python objects at a time


def import_datasets() -> Any:
    """The package `datasets`. ValueError: it is not installed."""
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ValueError(f"this needs the package datasets ({error}); pip install 'labelgen[hugging_face]'") from None


def features() -> datasets.Features:
    """The features of a dialogue: the columns of `arrow_schema`, with maps as lists of {key, value}, since features have no maps.

    ValueError: `datasets` is not installed.
    """
    found: datasets.Features = import_datasets().Features.from_arrow_schema(_without_maps(arrow_schema()))
    return found


def to_dataset(dialogues: Iterable[Dialogue]) -> datasets.Dataset:
    """A dataset with a row per dialogue, with annotations and labels, held in memory as Arrow.

    The metadata and the values of votes are JSON texts. ValueError: `datasets` is not installed. RecordError: a value does not fit its
    column (an integer beyond 32 bits).
    """
    import pyarrow as pa

    package, columns, schema, tables, first = import_datasets(), features(), _without_maps(arrow_schema()), list[Any](), 1
    iterator = iter(dialogues)
    while group := list(islice(iterator, ROWS)):
        tables += to_tables([_listed(to_arrow(dialogue)) for dialogue in group], schema, partial(_refuse, group, first))
        first += len(group)
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    dataset: datasets.Dataset = package.Dataset(table.replace_schema_metadata(columns.arrow_schema.metadata))
    return dataset


def from_dataset(dataset: Iterable[Mapping[str, Any]], reject: Reject | None = None) -> Iterator[Dialogue]:
    """The dialogues of a dataset that `to_dataset` made, also of one that was saved, published or is streamed.

    `reject` takes rows that are no dialogues. Without it the first one raises RecordError. ValueError: the dataset is a dict of splits.
    """
    if isinstance(dataset, Mapping):
        raise ValueError(
            f"a dict of the splits {', '.join(map(str, dataset))}; give one of them, such as dataset[{next(iter(dataset), '')!r}]"
        )
    for number, row in enumerate(dataset, 1):
        try:
            dialogue = parse(record_of(row, "dataset", number), "dataset", number)
        except RecordError as error:
            reject_or_raise(error, reject)
        else:
            yield dialogue


def record_of(row: Mapping[str, Any], source: str, number: int) -> dict[str, Any]:
    """A row of a dataset that `to_dataset` made -> the fields of the record. RecordError: it has other columns."""
    try:
        turns = [
            {name: _pairs(value) if name in MAPS else value for name, value in turn.items()} for turn in row["turns"]
        ]  # from_arrow makes dicts of pairs
        return from_arrow({**row, "turns": turns})
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        problem = f"the columns are not labelgen's ({type(error).__name__}: {error}); make the dataset with labelgen.to_dataset"
        raise RecordError(source, number, None, "record", problem) from None


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return [(entry["key"], entry["value"]) for entry in value or ()]


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with lists of {key, value} in the place of maps."""
    for turn in row["turns"]:
        for name in MAPS:
            turn[name] = [{"key": key, "value": value} for key, value in turn[name].items()]
    return row


def _without_maps(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([field.with_type(_listed_type(field.type)) for field in schema])


def _listed_type(kind: pa.DataType) -> pa.DataType:
    """The type with a list of {key, value} in the place of each map."""
    import pyarrow as pa

    if pa.types.is_map(kind):
        return pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
    if pa.types.is_list(kind):
        return pa.list_(_listed_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _listed_type(field.type)) for field in kind])
    return kind


def _refuse(group: Sequence[Dialogue], first: int, index: int, problem: str) -> None:
    raise RecordError("dialogues", first + index, group[index].id, "record", problem)
