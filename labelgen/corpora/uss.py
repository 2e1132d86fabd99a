"""User Satisfaction Simulation (Sun et al. 2021, https://arxiv.org/abs/2105.03748): the publisher's folder -> dialogues with ratings.

Where to get it: github.com/sunnweiwei/user-satisfaction-simulation, which states no licence. `root` is its folder `dataset`, with
`SGD.txt`, `ReDial.txt`, `CCPE.txt`, `MWOZ.txt`, `JDDC.txt`: sessions of five corpora, separated by blank lines, with one message per
line. Its tab-separated columns are USER or SYSTEM, the text, the dialogue act, and ratings from 1 to 5 separated by commas. A session
ends with a user's line OVERALL: ratings of the whole dialogue (in JDDC with a fifth column, explanations separated by semicolons).

A user's line and the system's line right after it are one turn. Other lines become turns without a request or without a response.

What is labelled, and by which rule:

- Votes of a turn: the ratings at the user's line, one vote per rating, question "satisfaction". The raters change from session to
  session, so votes have no annotator. They say how satisfied the user is when speaking, so they judge the response before.
- Votes of the dialogue: the ratings at OVERALL, and their explanations (JDDC), question "satisfaction_explanation".
- Defects: the first rated request after a response judges it, unless another response comes between them. More than half of the
  ratings below 3: True. Fewer than a third: False. Otherwise None, as for responses that nobody rated (the last of a session).
- With `sgd` and name "SGD": goals, outcomes, intents, slots and the logged service of the dialogue of Schema-Guided Dialogue's train
  split that has the same turns, word for word (white space aside), by the rules of `labelgen.corpora.sgd`. A session without such
  a dialogue has votes and defects only; the number of these sessions is logged. This reads all of SGD's train split, which takes about
  20 s. To read it once, write the dialogues to a file (`labelgen convert`) and train on that.
- `request_acts`: the act of the request as published, also where SGD has others.
- `metadata`: `sgd`, the id of the SGD dialogue, with the metadata of that dialogue.

Not labelled: goals, intents and slots, without `sgd`. The published acts of responses are not read. No split is published: see
`labelgen.corpora.in_fold`. SGD, ReDial and CCPE were checked on the publisher's files. MWOZ and JDDC were not: they follow the publisher's
description of the format.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Exchange, Fold, convert_each, in_fold, pair_utterances
from labelgen.corpora.sgd import SGD
from labelgen.dialogue import Dialogue, Reject

Words = tuple[tuple[str | None, str | None], ...]  # request and response of each turn
RATINGS = ("1", "2", "3", "4", "5")

log = logging.getLogger(__name__)

NAMES = ("SGD", "ReDial", "CCPE", "MWOZ", "JDDC")
OVERALL = "OVERALL"
PUBLISHER = "github.com/sunnweiwei/user-satisfaction-simulation (no licence stated)"


class Block(NamedTuple):
    """The lines of a session, its number in the file (from 0), and the number of its first line (from 1)."""

    number: int
    start: int
    lines: list[bytes]


class Line(NamedTuple):
    """A line of a session: a message or OVERALL, with its annotations."""

    speaker: str
    text: str
    act: str | None
    ratings: list[float]
    explanations: list[str]


class Session(NamedTuple):
    """The messages, as exchanges, and the line OVERALL where there is one."""

    exchanges: list[Exchange[Line]]
    overall: Line | None

    def words(self) -> Words:
        """The words of each turn."""
        return words_of((user and user.text, system and system.text) for user, system in self.exchanges)


@dataclass(frozen=True)
class USS:
    """One corpus (`name`) below `root`. `sgd`: the folder of Schema-Guided Dialogue, which is read if `name` is "SGD"."""

    root: str
    name: str
    sgd: str | None = None
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `uss:SGD/0`, by the number of the session in the file.

        Malformed sessions (and dialogues of `sgd`) go to `reject`; without it the first raises RecordError. ValueError: no such corpus.
        """
        if self.name not in NAMES:
            raise ValueError(f"name {self.name!r}: give one of {', '.join(NAMES)}")
        file = Path(self.root) / f"{self.name}.txt"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; get {PUBLISHER} and give its folder `dataset` as `root`")
        blocks = split_blocks(file.read_bytes())
        if not blocks:
            raise ValueError(f"{file}: the file is empty; get it again from {PUBLISHER}")
        chosen = [block for block in blocks if in_fold(self._name(block), self.split, self.fold)]
        sources = _find_sources(self.sgd, chosen, reject) if self.sgd is not None and self.name == "SGD" else {}
        for dialogue in convert_each(blocks, partial(convert, sources=sources), self._name, str(file), reject):
            if in_fold(dialogue.id, self.split, self.fold):
                yield dialogue

    def _name(self, block: Block) -> str:
        return f"uss:{self.name}/{block.number}"


def split_blocks(content: bytes) -> list[Block]:
    """The sessions of a file."""
    numbered = enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1)
    groups = [list(group) for blank, group in groupby(numbered, lambda line: not line[1].strip(b" \r")) if not blank]
    return [Block(number, group[0][0], [line for _, line in group]) for number, group in enumerate(groups)]


def convert(block: Block, sources: Mapping[Words, Dialogue]) -> dict[str, Any]:
    """A session -> the fields of the record, without the id. `sources`: the dialogues of SGD by their words.

    ValueError: the session is not in the publisher's format.
    """
    session = parse_session(block)
    if source := sources.get(session.words()):
        record = source.model_dump(exclude={"id"})
        record["metadata"]["sgd"] = source.id
    else:
        record = {"turns": [{"request": user and user.text, "response": system and system.text} for user, system in session.exchanges]}
    for turn, exchange, ratings in zip(record["turns"], session.exchanges, response_ratings(session.exchanges), strict=True):
        turn["votes"] = _votes(exchange.user.ratings if exchange.user else ())
        turn["defect"] = ratings and is_defect(ratings)
        turn["request_acts"] = [exchange.user.act] if exchange.user and exchange.user.act else None
    if session.overall is None:
        return record
    explanations = [{"question": "satisfaction_explanation", "value": words} for words in session.overall.explanations]
    return {**record, "votes": _votes(session.overall.ratings) + explanations}


def parse_session(block: Block) -> Session:
    """The parsed lines of a session. ValueError names the line of the file."""
    lines = [parse_line(raw, f"line {number}") for number, raw in enumerate(block.lines, block.start)]
    closing = [number for number, line in enumerate(lines, block.start) if (line.speaker, line.text) == ("USER", OVERALL)]
    if closing and closing[0] < block.start + len(lines) - 1:
        raise ValueError(f"line {closing[0]}: {OVERALL} is not the session's last line; put a blank line between sessions")
    messages = lines[:-1] if closing else lines
    return Session(pair_utterances(messages, lambda line: line.speaker == "USER"), lines[-1] if closing else None)


def parse_line(raw: bytes, where: str) -> Line:
    """One parsed line of the file. ValueError says which column is wrong; `where` is the position in its message."""
    cells = raw.decode().rstrip("\r").split("\t")
    if len(cells) not in (4, 5):
        raise ValueError(f"{where}: {len(cells)} columns; speaker, text, action, ratings (and explanations) are separated by tabs")
    speaker, text, act, rated = cells[:4]
    if speaker not in ("USER", "SYSTEM"):
        raise ValueError(f"{where}: speaker {speaker!r} is neither USER nor SYSTEM")
    ratings = []
    for rating in rated.split(",") if rated else ():
        if rating.strip() not in RATINGS:
            raise ValueError(f"{where}: ratings {rated!r} are not numbers from 1 to 5 with commas between them")
        ratings.append(float(rating))
    if ratings and speaker == "SYSTEM":
        raise ValueError(f"{where}: ratings {rated!r} of a SYSTEM line; the users' lines carry them")
    if any(cells[4:]) and text != OVERALL:
        raise ValueError(f"{where}: a fifth column; only {OVERALL} has explanations, is there a tab in the text?")
    return Line(speaker, text, act or None, ratings, [words for words in "".join(cells[4:]).split(";") if words])


def response_ratings(exchanges: Iterable[Exchange[Line]]) -> list[list[float] | None]:
    """For each turn, the ratings of its response: those of the first rated request before the next response. None: there are none."""
    judged: list[list[float] | None] = []
    open_turn = None
    for turn, exchange in enumerate(exchanges):
        judged.append(None)
        if open_turn is not None and exchange.user is not None and exchange.user.ratings:
            judged[open_turn] = exchange.user.ratings
            open_turn = None
        if exchange.system is not None:
            open_turn = turn
    return judged


def is_defect(ratings: Sequence[float]) -> bool | None:
    """Whether most raters were dissatisfied. True: more than half of them. False: fewer than a third. None: a share between these."""
    low = sum(rating < 3 for rating in ratings)
    return True if 2 * low > len(ratings) else False if 3 * low < len(ratings) else None


def _votes(ratings: Iterable[float]) -> list[dict[str, Any]]:
    return [{"question": "satisfaction", "value": rating} for rating in ratings]


def words_of(turns: Iterable[tuple[str | None, str | None]]) -> Words:
    """Request and response of each turn, with single spaces. A session and its source in SGD agree in them."""
    return tuple((request and " ".join(request.split()), response and " ".join(response.split())) for request, response in turns)


def _find_sources(sgd: str, blocks: Iterable[Block], reject: Reject | None) -> dict[Words, Dialogue]:
    """The dialogues of SGD's train split that the sessions come from, by their words. Skips malformed sessions: `convert` rejects them."""
    sought = []
    for block in blocks:
        with suppress(ValueError):
            sought.append(parse_session(block).words())
    missing, sources = set(sought), {}
    for dialogue in SGD(sgd).read(reject):
        words = words_of((turn.request, turn.response) for turn in dialogue.turns)
        if words in missing:
            sources[words] = dialogue
            missing.remove(words)
            if not missing:
                break
    alone = sum(words in missing for words in sought)
    level = logging.WARNING if alone else logging.INFO
    log.log(level, "%d of %d sessions have no dialogue in %s/train and have ratings only", alone, len(sought), sgd)
    return sources
