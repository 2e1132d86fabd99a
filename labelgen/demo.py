"""Entry `demo`: the whole workflow once, on simulated dialogues and without network: write, train, export, label, evaluate, show."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rich.console import Console

from labelgen.corpora import Corpus
from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue
from labelgen.evaluation.evaluate import evaluate
from labelgen.io.files import read, write
from labelgen.io.progress import progress
from labelgen.io.render import to_text
from labelgen.labelling.backfill import backfill
from labelgen.labelling.export import export
from labelgen.tasks.goal_evaluation import GoalEvaluation

WIDTH = 100  # cells; of a printed dialogue
TURNS = range(3, 7)  # of the printed dialogues: they must fit a screen


def demo(output: str, train: Corpus, test: Corpus, fit: Callable[[], float], shown: int = 2) -> float:
    """Trains on `train` with `fit` (which reads OUTPUT/train.jsonl), labels `test` and prints the result. Returns what `evaluate` returns.

    Writes train.jsonl, test.jsonl (annotated), raw.jsonl (the test dialogues as they would be logged), the run, export/, labelled/ and
    metrics.json to the folder OUTPUT, in place of those of an earlier demo. `shown` labelled dialogues are printed.
    """
    folder = Path(output)
    console = Console(highlight=False)
    with quiet():
        console.rule("1. simulated dialogues", align="left")
        for name, corpus in (("train", train), ("test", test)):
            write(progress(corpus.read(), f"writing {name}.jsonl", "dialogue"), folder / f"{name}.jsonl")
        write((dialogue.content() for dialogue in read(folder / "test.jsonl")), folder / "raw.jsonl")
        console.rule("2. training: five tasks, one model", align="left")
        fit()
        export(output, str(folder / "export"))
        console.rule("3. labelling raw dialogues with the export", align="left")
        shutil.rmtree(folder / "labelled", ignore_errors=True)
        backfill(str(folder / "export"), str(folder / "raw.jsonl"), str(folder / "labelled"))
        console.rule("4. against the truth, on dialogues of which some phrasings and values are new", align="left")
        figure = evaluate(str(folder / "export"), Records(str(folder / "test.jsonl")), output, Records(str(folder / "train.jsonl")))
    console.rule("5. two labelled dialogues" if shown == 2 else f"5. {shown} labelled dialogues", align="left")
    console.print("[dim]╭ a goal and its outcome · intent · slots under their words · defects; each with the model's confidence[/]\n")
    for dialogue in islice(_worth_seeing(folder / "labelled"), shown):
        print(to_text(dialogue, color=sys.stdout.isatty(), width=min(console.width, WIDTH)), end="\n\n")
    console.rule("next", align="left")
    print(
        f"label your own logs       labelgen backfill export={folder / 'export'} input=LOGS.jsonl output=LABELLED\n"
        "see their format          labelgen schema\n"
        "train on your annotations labelgen train corpus=jsonl corpus.path=ANNOTATED.jsonl output=runs/mine"
    )
    return figure


def _worth_seeing(path: Path) -> Iterator[Dialogue]:
    """Short dialogues first, and among them those with several goals that did not all succeed, then those with several goals."""

    def rank(dialogue: Dialogue) -> tuple[bool, bool, bool]:
        outcomes = [label.value for label in dialogue.labels or () if label.task == GoalEvaluation.name]
        return len(dialogue.turns) not in TURNS, len(outcomes) < 2, set(outcomes) <= {GoalEvaluation.labels[0]}

    yield from sorted(read(path), key=rank)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides log lines below a warning, and the warnings of libraries. Progress bars, results and our own warnings stay."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # not by logger: Lightning sets its own level when it is first imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
