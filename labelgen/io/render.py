"""Renders a dialogue and its labels: as text for a terminal and as HTML for notebooks and reports.

Goals are brackets at the left margin, slots stand under their words, and all other labels stand at their turns, each with its confidence
(see display.py). Logs are not trusted: HTML is escaped, and control characters are made visible, so that no log can control the terminal.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from zlib import crc32

from rich.cells import cell_len, get_character_cell_size

from labelgen.dialogue import PARTS, Dialogue, Label, Part
from labelgen.io.display import BOLD, DIM, DISPLAYS, LINE, UNDERLINE, YELLOW, Display, annotations_as_labels
from labelgen.io.wording import counted

HUES = (210, 30, 145, 285, 0, 180, 55, 325)  # of goals, in order; the terminal has its own
ANSI_GOALS = (34, 33, 32, 35, 36, 94, 93, 92, 95, 96)
INDENT = 4  # cells before a turn's words
JOINER = "\u200d"  # makes one emoji of two
SPEAKERS: dict[Part, str] = {"request": "U", "response": "A"}


# -- what is shown where ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Goal:
    label: Label
    number: int  # by first turn; gives the colour
    lane: int  # column at the left; goals that overlap have different ones
    outcomes: list[Label]

    def __post_init__(self) -> None:
        self.turns = frozenset(self.label.turns)
        self.first, self.last = min(self.turns), max(self.turns)


@dataclass
class _Scene:
    """Labels by position: goals in lanes, the others by turn."""

    displays: Mapping[str, Display]
    goals: list[_Goal] = field(default_factory=list)
    tags: dict[int, list[Label]] = field(default_factory=lambda: defaultdict(list))
    spans: dict[tuple[int, Part], list[Label]] = field(default_factory=lambda: defaultdict(list))
    lines: dict[int | None, list[Label]] = field(default_factory=lambda: defaultdict(list))  # None: of no turn

    @property
    def num_lanes(self) -> int:
        return max((goal.lane for goal in self.goals), default=-1) + 1

    def lanes(self, turn: int) -> list[_Goal | None]:
        """For each lane, the goal that occupies it at this turn."""
        lanes: list[_Goal | None] = [None] * self.num_lanes
        for goal in self.goals:
            if goal.first <= turn <= goal.last:
                lanes[goal.lane] = goal
        return lanes

    def display(self, label: Label) -> Display:
        return self.displays.get(label.task, LINE)

    def marked(self, label: Label) -> str:
        """The value after its sign, with the confidence."""
        sign = self.display(label).style(label.value).sign
        return clean(f"{sign} {label.value} {_confidence(label)}" if sign else f"{label.value} {_confidence(label)}")


def _arrange(dialogue: Dialogue, labels: Sequence[Label] | None, displays: Mapping[str, Display] | None) -> _Scene:
    if labels is None:
        labels = annotations_as_labels(dialogue) if dialogue.labels is None else dialogue.labels
    scene = _Scene({**DISPLAYS, **(displays or {})})
    goals = [label for label in labels if scene.display(label).position == "goal" and label.turns]
    outcomes: dict[tuple[int, ...], list[Label]] = {tuple(sorted(label.turns)): [] for label in goals}
    for label in labels:
        key = tuple(sorted(label.turns))
        match (display := scene.display(label)).position:
            case "goal" if label.turns:
                pass
            case "outcome" if key in outcomes and label.value in display.styles:
                outcomes[key].append(label)
            case "turn" if len(key) == 1:
                scene.tags[key[0]].append(label)
            case "span" if len(key) == 1 and label.part is not None and _fits(label, dialogue):
                scene.spans[key[0], label.part].append(label)
            case _:
                scene.lines[max(key) if key else None].append(label)
    free: list[int] = []  # for each lane, the first turn at which it is free again
    for number, label in enumerate(sorted(goals, key=lambda label: (min(label.turns), max(label.turns)))):
        lane = next((k for k, turn in enumerate(free) if turn <= min(label.turns)), len(free))
        free[lane : lane + 1] = [max(label.turns) + 1]
        scene.goals.append(_Goal(label, number, lane, outcomes[tuple(sorted(label.turns))]))
    return scene


def _fits(label: Label, dialogue: Dialogue) -> bool:
    """Whether a label's span can be shown at its words."""
    if label.part is None or label.start is None or label.end is None:
        return False
    text = dialogue.turns[label.turns[0]].text(label.part)
    return text is not None and 0 <= label.start < label.end <= len(text)


# Control characters, bidirectional overrides, line separators, lone surrogates. Each is replaced by one character, so offsets stay valid.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    return " " if code in (9, 13) else chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def clean(text: str, lines: bool = False) -> str:
    """Replaces what could control a terminal. The number of code points stays the same. `lines` keeps line feeds."""
    return "\n".join(_UNSAFE.sub(_visible, line) for line in text.split("\n")) if lines else _UNSAFE.sub(_visible, text)


def _confidence(label: Label) -> str:
    return f"{label.confidence:.2f}"


def _line(label: Label) -> str:
    where = "" if label.part is None else f" [{label.part}]" if label.start is None else f" [{label.part} {label.start}:{label.end}]"
    text = f" “{label.text}”" if label.text else ""
    return clean(f"{label.task}: {label.value} ({_confidence(label)}){where}{text}")


def _title(dialogue: Dialogue) -> str:
    user = f" · user {dialogue.user}" if dialogue.user else ""
    return clean(f"{dialogue.id}{user} · {counted(len(dialogue.turns), 'turn')}")


# -- text ------------------------------------------------------------------------------------------------------------------------


def to_text(
    dialogue: Dialogue,
    labels: Sequence[Label] | None = None,
    color: bool = True,
    width: int = 100,
    displays: Mapping[str, Display] | None = None,
) -> str:
    """The dialogue for a terminal of `width` cells. `labels`: by default the dialogue's own, or else its annotations.

    `displays`: how tasks of your own are drawn, by name.

    Goals that overlap have columns of their own, heavy at their turns and dotted between them. A free column is used again.
    """
    scene = _arrange(dialogue, labels, displays)
    paint = _Paint(color)
    room = max(20, width - 2 * scene.num_lanes - INDENT)
    lines = [paint(_title(dialogue), BOLD)]
    for t in range(len(dialogue.turns)):
        running = scene.lanes(t)
        for k, line in enumerate(_turn_lines(dialogue, t, scene, paint, room)):
            lines.append(_margin(running, t, paint, first=k == 0) + line)
        for goal in [goal for goal in running if goal is not None and goal.last == t]:
            lines.append(_margin(running, t, paint, ends=goal) + _verdict(goal, scene, paint))
            running[goal.lane] = None
    lines += [" " * INDENT + _line(label) for label in scene.lines[None]]
    return "\n".join(line.rstrip() for line in lines)


class _Paint:
    """Wraps words in ANSI colours, or leaves them as they are."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, words: str, *codes: int) -> str:
        return f"\x1b[{';'.join(map(str, codes))}m{words}\x1b[0m" if self.on and codes and words else words


def _margin(lanes: Sequence[_Goal | None], t: int, paint: _Paint, first: bool = False, ends: _Goal | None = None) -> str:
    cells = []
    for lane, goal in enumerate(lanes):
        owner = goal or (ends if ends is not None and lane > ends.lane else None)  # the bracket that ends continues to its verdict
        mark = "╰─" if goal is ends else "╭ " if first and goal and t == goal.first else "┃ " if goal and t in goal.turns else "┊ "
        mark = mark if goal else "──" if owner else "  "
        cells.append(paint(mark, _ansi(owner)) if owner else mark)
    return "".join(cells) + (paint("╴", _ansi(ends)) if ends else "")


def _ansi(goal: _Goal) -> int:
    return ANSI_GOALS[goal.number % len(ANSI_GOALS)]


def _verdict(goal: _Goal, scene: _Scene, paint: _Paint) -> str:
    outcomes = [paint(scene.marked(outcome), *scene.display(outcome).style(outcome.value).codes) for outcome in goal.outcomes]
    return " · ".join([*outcomes, paint(clean(f"goal {goal.label.value} {_confidence(goal.label)}"), _ansi(goal))])


def _turn_lines(dialogue: Dialogue, t: int, scene: _Scene, paint: _Paint, room: int) -> list[str]:
    turn = dialogue.turns[t]
    tags = [paint(scene.marked(label), *scene.display(label).style(label.value).codes) for label in scene.tags[t]]
    head = [paint(f"{t:>3}", DIM), *tags]
    lines = [" · ".join(head)]
    for part in PARTS:
        text = turn.text(part)
        if not text:
            lines.append(f"  {SPEAKERS[part]} " + paint("(missing)" if text is None else "(empty)", DIM))
            continue
        body = _body(clean(text, lines=True), scene.spans[t, part], paint, room)
        lines += [(f"  {SPEAKERS[part]} " if k == 0 else " " * INDENT) + line for k, line in enumerate(body)]
    return lines + [" " * INDENT + paint(_line(label), DIM) for label in scene.lines[t]]


def _body(text: str, slots: Sequence[Label], paint: _Paint, room: int) -> list[str]:
    """Breaks the text into lines of `room` cells. The names of the slots in a line follow it, under their words."""
    lines = []
    for start, end in _wrap(text, room):
        inside = [label for label in slots if label.start < end and start < label.end]  # type: ignore[operator]
        lines.append(_underlined(text, start, end, inside, paint))
        rows: list[str] = []
        for label in sorted(inside, key=lambda label: label.start or 0):
            left, right = max(start, label.start or 0), min(end, label.end or 0)
            name = clean(f"{label.value} {_confidence(label)}") if left == label.start else "…"
            name += "‾" * (cell_len(text[left:right]) - cell_len(name))
            column = max(0, min(cell_len(text[start:left]), room - cell_len(name)))
            row = next((k for k, words in enumerate(rows) if cell_len(words) < column), len(rows))
            before = rows[row] if row < len(rows) else ""
            rows[row : row + 1] = [before + " " * (column - cell_len(before)) + name]
        lines += [paint(row, YELLOW) for row in rows]
    return lines


def _underlined(text: str, start: int, end: int, slots: Sequence[Label], paint: _Paint) -> str:
    edges = {start, end} | {edge for label in slots for edge in (label.start or 0, label.end or 0) if start < edge < end}
    runs = []
    for left, right in pairwise(sorted(edges)):
        inside = any((label.start or 0) <= left < (label.end or 0) for label in slots)
        runs.append(paint(text[left:right], *((UNDERLINE, YELLOW) if inside else ())))
    return "".join(runs)


def _wrap(text: str, room: int) -> list[tuple[int, int]]:
    """The code points of each line of at most `room` cells. Lines break at line feeds, else after spaces, else between characters."""
    lines, start, used, space = [], 0, 0, 0  # `space`: where the last word begins, if that is after `start`
    for at, character in enumerate(text):
        if character == "\n":
            lines.append((start, at))
            start, used = at + 1, 0
            continue
        cells = get_character_cell_size(character)
        hangs = character == " " and used <= room  # a space at the edge is not seen
        if used + cells > room and cells and not hangs and text[at - 1] != JOINER:
            cut = space if space > start else at
            lines.append((start, cut))
            start, used = cut, sum(map(get_character_cell_size, text[cut:at]))
        used += cells
        if character == " ":
            space = at + 1
    return [*lines, (start, len(text))]


# -- HTML ------------------------------------------------------------------------------------------------------------------------


def to_html(dialogue: Dialogue, labels: Sequence[Label] | None = None, displays: Mapping[str, Display] | None = None) -> str:
    """The dialogue as a fragment of HTML with inline styles for light and dark pages, and without scripts. Hovering shows details."""
    scene = _arrange(dialogue, labels, displays)
    rows = []
    for t in range(len(dialogue.turns)):
        running = scene.lanes(t)
        rows.append(_row(_bars(running, t), _turn_html(dialogue, t, scene)))
        for goal in [goal for goal in running if goal is not None and goal.last == t]:
            rows.append(_row(_bars(running, t, goal), _verdict_html(goal, scene)))
            running[goal.lane] = None
    rows += [f"<div>{escape(_line(label))}</div>" for label in scene.lines[None]]
    title = f'<div style="font-weight:600;margin-bottom:4px">{escape(_title(dialogue))}</div>'
    return f'<div style="font:13px/1.5 system-ui,sans-serif;color:inherit;max-width:60em;margin:8px 0">{title}{"".join(rows)}</div>'


def _row(bars: str, body: str) -> str:
    return f'<div style="display:flex">{bars}<div style="flex:1;min-width:0;padding:2px 6px">{body}</div></div>'


def _bars(lanes: Sequence[_Goal | None], t: int, ends: _Goal | None = None) -> str:
    bars = []
    for goal in lanes:
        style = "flex:none;width:0;margin-right:7px;border-left:5px "
        if goal is None:
            bars.append(f'<div style="{style}solid transparent"></div>')
            continue
        radius = "0 0 5px 5px" if goal is ends else "5px 5px 0 0" if t == goal.first and ends is None else "0"
        kind = "solid" if t in goal.turns else "dotted"
        hover = " · ".join([f"goal {goal.label.value}", _details(goal.label), *(f"{o.value} {_confidence(o)}" for o in goal.outcomes)])
        bars.append(f'<div title="{escape(clean(hover))}" style="{style}{kind} {_hsl(_hue(goal))};border-radius:{radius}"></div>')
    return "".join(bars)


def _verdict_html(goal: _Goal, scene: _Scene) -> str:
    outcomes = [_tag(scene.marked(o), scene.display(o).style(o.value).hue, _details(o)) for o in goal.outcomes]
    return " ".join([*outcomes, _tag(f"goal {goal.label.value} {_confidence(goal.label)}", _hue(goal), _details(goal.label))])


def _turn_html(dialogue: Dialogue, t: int, scene: _Scene) -> str:
    turn = dialogue.turns[t]
    head = [f'<span style="opacity:.6">{t}</span>']
    for label in scene.tags[t]:
        hue = scene.display(label).style(label.value).hue
        head.append(_tag(scene.marked(label), hue, f"{label.task} · {_details(label)}"))
    lines = ["<div>" + " ".join(head) + "</div>"]
    for part in PARTS:
        text = turn.text(part)
        missing = f'<span style="opacity:.6">({"missing" if text is None else "empty"})</span>'
        words = _highlighted(text, scene.spans[t, part]) if text else missing
        speaker = f'<span title="{part}" style="flex:none;width:1.6em;opacity:.6">{SPEAKERS[part]}</span>'
        body = f'<span dir="auto" style="flex:1;min-width:0;white-space:pre-wrap;overflow-wrap:anywhere">{words}</span>'
        lines.append(f'<div style="display:flex">{speaker}{body}</div>')
    return "".join(lines + [f'<div style="opacity:.8">{escape(_line(label))}</div>' for label in scene.lines[t]])


def _highlighted(text: str, slots: Sequence[Label]) -> str:
    """The text with its slots highlighted. If slots overlap, each gets the words that no earlier one has."""
    parts, at = [], 0
    for label in sorted(slots, key=lambda label: label.start or 0):
        left, right = max(at, label.start or 0), max(at, label.end or 0)
        parts.append(escape(clean(text[at:left], lines=True)))
        name = f'<span style="font-size:75%;opacity:.75"> {escape(clean(label.value))} {_confidence(label)}</span>'
        hue = crc32(label.value.encode("utf-8", "replace")) % 360
        style = f"background:hsla({hue},70%,50%,.22);border-bottom:2px solid {_hsl(hue)};border-radius:3px;padding:0 2px"
        hover = escape(clean(f"slot {label.value}: {label.text or text[label.start : label.end]} · {_details(label)}"))
        parts.append(f'<span title="{hover}" style="{style}">{escape(clean(text[left:right], lines=True))}{name}</span>')
        at = right
    return "".join([*parts, escape(clean(text[at:], lines=True))])


def _tag(words: str, hue: int, hover: str) -> str:
    style = f"background:hsla({hue},70%,50%,.18);border:1px solid {_hsl(hue)};border-radius:8px;padding:0 6px;font-size:85%"
    return f'<span title="{escape(clean(hover))}" style="{style}">{escape(clean(words))}</span>'


def _details(label: Label) -> str:
    return f"confidence {label.confidence:.3f} · from {label.source}"


def _hsl(hue: int) -> str:
    return f"hsl({hue},65%,50%)"


def _hue(goal: _Goal) -> int:
    return HUES[goal.number % len(HUES)]


# -- notebooks -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Shown:
    """Dialogues that display themselves: HTML in a notebook, text elsewhere."""

    dialogues: tuple[Dialogue, ...]
    displays: Mapping[str, Display] | None = None

    def _repr_html_(self) -> str:
        return "".join(to_html(dialogue, displays=self.displays) for dialogue in self.dialogues)

    def __repr__(self) -> str:
        return "\n\n".join(to_text(dialogue, color=sys.stdout.isatty(), displays=self.displays) for dialogue in self.dialogues)


def show(dialogues: Dialogue | Iterable[Dialogue], displays: Mapping[str, Display] | None = None) -> Shown:
    """One dialogue or several, as the last line of a notebook's cell. `displays`: how tasks of your own are drawn, by name."""
    return Shown((dialogues,) if isinstance(dialogues, Dialogue) else tuple(dialogues), displays)
