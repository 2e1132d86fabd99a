"""Rendering: every label is there with its confidence, slots stand under their words, and logs cannot do harm."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, Goal, Label, Slot, Turn
from labelgen.io.display import DISPLAYS, LINE, Display, Style, annotations_as_labels
from labelgen.io.render import clean, show, to_html, to_text

ANSI = re.compile(r"\x1b\[[0-9;]*m")
VOID = {"br", "hr", "img"}


def label(task: str, value: str, turns: list[int], confidence: float = 0.5, **span: object) -> Label:
    row = {"task": task, "value": value, "turns": turns, "confidence": confidence, "source": "model", **span}
    return Label.model_validate(row)


def slot_label(name: str, text: str, words: str, part: str = "request", confidence: float = 0.5) -> Label:
    start = text.index(words)
    return label("slot", name, [0], confidence, part=part, start=start, end=start + len(words), text=words)


class Fragment(HTMLParser):
    """Tags must balance; keeps what is said, and every tag and attribute."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.said: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.said)


def column_of(line: str, words: str) -> int:
    return cell_len(line[: line.index(words)])


def below(text: str, words: str) -> str:
    """The line under the one that holds the words."""
    lines = text.split("\n")
    return lines[next(k for k, line in enumerate(lines) if words in line) + 1]


# -- labels ----------------------------------------------------------------------------------------------------------------------


def test_annotations_become_labels_and_what_is_missing_does_not() -> None:
    turn = Turn(request="to Oslo", intent="Travel/Fly", request_slots=[Slot(name="city", start=3, end=7)], defect=False)
    dialogue = Dialogue(id="a", turns=[turn, Turn(request="hm")], goals=[Goal(turns=[0], outcome="failure"), Goal(turns=[1])])
    assert [(item.task, item.value, item.turns, item.text) for item in annotations_as_labels(dialogue)] == [
        ("goal_segmentation", "0", [0], None),
        ("goal_evaluation", "failure", [0], None),
        ("goal_segmentation", "1", [1], None),
        ("intent", "Travel/Fly", [0], None),
        ("slot", "city", [0], "Oslo"),
        ("defect", "ok", [0], None),
    ]
    assert {(item.confidence, item.source) for item in annotations_as_labels(dialogue)} == {(1.0, "annotation")}
    assert annotations_as_labels(dialogue.content()) == []


def test_the_models_labels_come_before_annotations_and_given_ones_before_both() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="x", intent="Human/Said")])
    assert "Human/Said" in to_text(dialogue)
    labelled = dialogue.model_copy(update={"labels": [label("intent", "Model/Said", [0])]})
    assert "Model/Said" in to_text(labelled)
    assert "Human/Said" not in to_text(labelled)
    assert "Given/Said" in to_text(labelled, [label("intent", "Given/Said", [0])])
    assert "Model/Said" not in to_text(labelled, [])
    unlabelled = dialogue.model_copy(update={"labels": []})
    assert "Human/Said" not in to_text(unlabelled), "a model that found nothing is no reason to show annotations"


@pytest.mark.parametrize("render", [to_html, lambda d: to_text(d, color=False), lambda d: to_text(d, color=True)])
def test_every_label_is_shown_with_its_confidence(render) -> None:  # type: ignore[no-untyped-def]
    for dialogue in Simulated(30, seed=5).read():
        labels = annotations_as_labels(dialogue)
        labels += [label("mood", "calm", [0, len(dialogue.turns) - 1]), label("whole", "fine", []), label("goal_evaluation", "lost", [0])]
        values = [item.model_copy(update={"confidence": k / len(labels)}) for k, item in enumerate(labels)]
        text = render(dialogue.model_copy(update={"labels": values}))
        text = Fragment(text).text if render is to_html else ANSI.sub("", text)
        shown = sorted(re.findall(r"(?<![\d.])[01]\.\d\d(?!\d)", text))
        expected = sorted(f"{item.confidence:.2f}" for item in values)
        assert shown == expected


def test_labels_of_unknown_tasks_stand_at_their_last_turn() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request=f"turn {k}", response="x") for k in range(3)])
    labels = [label("satisfaction", "4", [0, 1], 0.75), label("tone", "rude", [2], 0.25, part="response", start=0, end=1, text="x")]
    text = to_text(dialogue, labels, color=False)
    assert text.index("turn 1") < text.index("satisfaction: 4 (0.75)") < text.index("turn 2") < text.index("tone: rude (0.25)")
    assert "tone: rude (0.25) [response 0:1] “x”" in text
    assert "satisfaction: 4 (0.75)" in to_html(dialogue, labels)


def test_a_task_of_ones_own_is_drawn_as_it_says() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="thanks a lot", response="x"), Turn(request="y")])
    labels = [label("mood", "glad", [0], 0.5), label("word", "thanks", [0], 0.25, part="request", start=0, end=6)]
    plain = to_text(dialogue, labels, color=False)
    assert "mood: glad (0.50)" in plain
    assert "word: thanks (0.25)" in plain
    displays = {"mood": Display("turn", {"glad": Style("☺", (1,), 90)}), "word": Display("span")}
    drawn = to_text(dialogue, labels, color=False, displays=displays)
    assert "0 · ☺ glad 0.50" in drawn
    assert below(drawn, "thanks a lot").strip().startswith("thanks 0.25")
    assert repr(show(dialogue.model_copy(update={"labels": labels}), displays)) == drawn
    assert "☺ glad 0.50" in Fragment(to_html(dialogue, labels, displays)).text


def test_values_that_stand_out_have_their_sign_and_colour() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="x")])
    for value, sign, code in (("defect", "✗ ", "1;31"), ("ok", "", "2")):
        assert f"\x1b[{code}m{sign}{value} 0.50\x1b[0m" in to_text(dialogue, [label("defect", value, [0])])
    assert "\x1b[36mPlay 0.50\x1b[0m" in to_text(dialogue, [label("intent", "Play", [0])])


def test_each_task_says_how_it_is_drawn() -> None:
    from labelgen.tasks.defect import Defect  # torch, which drawing does not need
    from labelgen.tasks.goal_evaluation import GoalEvaluation
    from labelgen.tasks.goal_segmentation import GoalSegmentation
    from labelgen.tasks.intent import Intent
    from labelgen.tasks.satisfaction import Satisfaction
    from labelgen.tasks.slot import SlotTask

    tasks = (GoalSegmentation, GoalEvaluation, Intent, SlotTask, Defect, Satisfaction)
    assert [DISPLAYS.get(task.name, LINE) for task in tasks] == [task.display for task in tasks]
    assert DISPLAYS.keys() == {task.name for task in tasks[:5]}, "the tasks that have annotations in the record"
    assert set(GoalEvaluation.display.styles) == set(GoalEvaluation.labels)
    assert set(Defect.display.styles) == set(Defect.labels)


# -- goals -----------------------------------------------------------------------------------------------------------------------


def lanes(text: str) -> dict[str, str]:
    """First letters of the margin per line with a turn's request."""
    return {line.split(" U ")[1]: line.split("  U ")[0] for line in text.split("\n") if " U " in line}


def test_interleaved_goals_have_columns_of_their_own() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request=word, response="fine") for word in ("one", "two", "three", "four")])
    labels = [
        label("goal_segmentation", "0", [0, 2], 0.9),
        label("goal_segmentation", "1", [1], 0.8),
        label("goal_segmentation", "2", [3], 0.7),
    ]
    labels += [label("goal_evaluation", "failure", [1], 0.6), label("goal_evaluation", "recovered", [0, 2], 0.4)]
    text = to_text(dialogue, labels, color=False)
    margin = lanes(text)
    assert [margin[word].rstrip() for word in ("one", "two", "three", "four")] == ["┃", "┊ ┃", "┃", "┃"]
    ends = [line for line in text.split("\n") if "╰" in line]
    assert [re.sub("[╰─╴┊ ]+", " ", line).strip() for line in ends] == [
        "✗ failure 0.60 · goal 1 0.80",
        "↻ recovered 0.40 · goal 0 0.90",
        "goal 2 0.70",
    ]
    assert text.count("╭") == text.count("╰") == 3


def test_goals_that_overlap_in_part_never_share_a_column() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request=word) for word in ("one", "two", "three", "four")])
    text = to_text(dialogue, [label("goal_segmentation", "0", [0, 2]), label("goal_segmentation", "1", [1, 3])], color=False)
    assert [lanes(text)[word].rstrip() for word in ("one", "two", "three", "four")] == ["┃", "┊ ┃", "┃ ┊", "  ┃"]


def test_goals_that_follow_one_another_share_a_column() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="x") for _ in range(500)])
    labels = [label("goal_segmentation", str(k), [k]) for k in range(500)]
    text = to_text(dialogue, labels, color=False)
    assert max(map(cell_len, text.split("\n"))) < 30
    assert text.count("╰") == 500


def test_goals_that_claim_the_same_turn_are_both_shown() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="x"), Turn(request="y")])
    labels = [label("goal_segmentation", "0", [0, 1]), label("goal_segmentation", "1", [1, 0]), label("goal_evaluation", "success", [0, 1])]
    text = to_text(dialogue, labels, color=False)
    assert "goal 0" in text
    assert "goal 1" in text
    assert lanes(text)["x"].split() == ["┃", "┃"]
    Fragment(to_html(dialogue, labels))


# -- words -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("play blue moon by sinatra", {"song": "blue moon", "artist": "sinatra"}),
        ("日本語で Zürich から Paris まで", {"origin": "Zürich", "destination": "Paris"}),
        ("👍🏽👍🏽 weather in São Paulo 👩‍👩‍👧 please", {"city": "São Paulo", "who": "👩‍👩‍👧"}),
        ("cafe\u0301 noir at nine", {"time": "nine", "item": "cafe\u0301 noir"}),
    ],
)
def test_slots_stand_under_their_words(text: str, slots: dict[str, str]) -> None:
    dialogue = Dialogue(id="a", turns=[Turn(request="x", response=text)])
    labels = [slot_label(name, text, words, part="response", confidence=0.25) for name, words in slots.items()]
    shown = to_text(dialogue, labels, color=False)
    line = next(line for line in shown.split("\n") if text in line)
    for name, words in slots.items():
        assert column_of(below(shown, text), f"{name} 0.25") == column_of(line, words)


def test_slots_too_close_for_one_line_are_stacked() -> None:
    text = "a b c d"
    dialogue = Dialogue(id="a", turns=[Turn(request=text)])
    shown = to_text(dialogue, [slot_label(f"name_of_{word}", text, word) for word in text.split()], color=False)
    lines = shown.split("\n")
    said = next(line for line in lines if text in line)
    for word in text.split():
        row = next(line for line in lines if f"name_of_{word}" in line)
        assert column_of(row, f"name_of_{word}") == cell_len(said[: said.index(text)]) + text.index(word)
    assert len(lines) == 4 + 4, "title, turn, request, four names, response"


def test_slot_names_wrap_with_their_words() -> None:
    text = "many words " * 20 + "and then San Francisco at last " + "more words " * 20
    dialogue = Dialogue(id="a", turns=[Turn(request=text)])
    for width in range(40, 80):
        shown = to_text(dialogue, [slot_label("city", text, "San Francisco")], color=False, width=width)
        assert max(map(cell_len, shown.split("\n"))) <= width
        lines = shown.split("\n")
        k = next(k for k, line in enumerate(lines) if "city 0.50" in line)
        assert "San" in lines[k - 1]
        if "San Francisco" in lines[k - 1] and column_of(lines[k - 1], "San") + len("city 0.50") < width:
            assert column_of(lines[k], "city 0.50") == column_of(lines[k - 1], "San")
        elif "San Francisco" not in lines[k - 1]:
            assert "Francisco" in lines[k + 1]
            assert "…" in lines[k + 2]


WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)


@settings(max_examples=60, deadline=None)
@given(
    request=WORDS,
    response=WORDS,
    spans=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=5),
    width=st.integers(30, 120),
)
def test_any_text_is_safe_and_keeps_its_words(request: str, response: str, spans: list[tuple[int, int]], width: int) -> None:
    """Whatever the log holds: no control character reaches the terminal, no line is too wide, HTML stays whole, nothing is lost."""
    labels = [
        label("slot", f"s{k}", [0], part="request", start=start, end=start + size) for k, (start, size) in enumerate(spans)
    ]  # those that do not fit the text are shown, too
    dialogue = Dialogue(id="a", turns=[Turn(request=request, response=response)])
    shown = to_text(dialogue, labels, color=False, width=width)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    assert all(f"s{k}" in shown for k in range(len(spans)))
    said = re.sub(r"\s", "", clean(response))
    if said and not any(start < len(request) for start, _ in spans):
        assert re.sub(r"\s", "", clean(response, lines=True)) in re.sub(r"\s", "", shown)
    assert ANSI.sub("", to_text(dialogue, labels, color=True, width=width)) == shown
    fragment = Fragment(to_html(dialogue, labels))
    assert fragment.tags <= {"div", "span"}
    assert fragment.attributes <= {"style", "title", "dir"}
    fragment.text.encode("utf-8")


@settings(max_examples=200)
@given(WORDS)
def test_cleaning_moves_no_offset(text: str) -> None:
    assert len(clean(text)) == len(clean(text, lines=True)) == len(text)
    assert clean(clean(text)) == clean(text)


def test_a_log_cannot_steer_the_terminal_or_the_page() -> None:
    bad = "\x1b[2J\x1b]0;owned\x07 \x9b31m <script>alert(1)</script> \" onmouseover='x' \u202eevil & \r\n done"
    hostile = Turn(request=bad, response=bad, request_slots=[Slot(name=bad, start=3, end=9)])
    dialogue = Dialogue(id=bad, user=bad, turns=[hostile])
    everywhere = [label(task, bad, [0]) for task in ("intent", "defect", "goal_segmentation", "goal_evaluation", bad)]
    everywhere += [label("slot", bad, [0], part="request", start=3, end=9, text=bad), label("whole", bad, [])]
    everywhere = [item.model_copy(update={"source": bad}) for item in everywhere]
    for labels in (None, everywhere):
        shown = ANSI.sub("", to_text(dialogue, labels))
        assert not set(shown) & {"\x1b", "\x9b", "\x07", "\r", "\u202e"}
        assert "\x1b" not in to_text(dialogue, labels, color=False)
        html = to_html(dialogue, labels)
        assert "\x1b" not in html
        assert "\u202e" not in html
        fragment = Fragment(html)
        assert fragment.tags <= {"div", "span"}
        assert fragment.attributes <= {"style", "title", "dir"}
        assert "<script>alert(1)</script>" in fragment.text


def test_missing_empty_and_very_long_turns() -> None:
    long = "word " * 2000 + "x" * 5000
    turns = [Turn(response="hello"), Turn(request="", response=None), Turn(), Turn(request=long)]
    dialogue = Dialogue(id="a", turns=turns)
    text = to_text(dialogue, color=False, width=80)
    assert text.count("(missing)") == 5
    assert text.count("(empty)") == 1
    assert max(map(cell_len, text.split("\n"))) <= 80
    assert text.count("word") == 2000
    assert text.count("x") == 5000
    assert Fragment(to_html(dialogue)).text.count("(missing)") == text.count("(missing)")


# -- notebooks -------------------------------------------------------------------------------------------------------------------


def test_show_displays_itself() -> None:
    dialogues = list(Simulated(3).read())
    shown = show(iter(dialogues))
    html, text = shown._repr_html_(), repr(shown)
    assert all(dialogue.id in html and dialogue.id in text for dialogue in dialogues)
    assert shown._repr_html_() == html, "an iterator is read once and kept"
    assert repr(show(dialogues[0])) == to_text(dialogues[0], color=False)
