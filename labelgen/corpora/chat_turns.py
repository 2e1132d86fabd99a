"""The messages of a conversation -> the turns of a dialogue, whichever format they come from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelgen.corpora.chat_fields import Message
from labelgen.corpora.chat_parts import FieldError, Tool


@dataclass
class Conversation:
    """A conversation while its messages are read: the fields of its turns, its metadata, and what is not in them."""

    skip_without_words: bool = False
    turns: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, list[Any]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    answered: bool = False  # the assistant has spoken in the last turn
    within_calls: bool = False  # the message before called tools, or was a tool's
    unanswered: list[dict[str, Any]] = field(default_factory=list)  # calls without a result, which are few at any time

    def note(self, name: str, value: Any) -> None:
        """Appends the value to a list of the metadata."""
        self.metadata.setdefault(name, []).append(value)

    def add(self, message: Message, index: int) -> None:
        """Adds the next message. FieldError: it has no words and no call, so that its turn would be empty."""
        if message.role == "ignore":
            self.left_out["messages whose role is ignored"] += 1
            return
        self._note_rest(message, index)
        if message.role == "system" and message.contents.text:
            self.note("system", message.contents.text)
        if message.role in ("system", "tool") or message.contents.tools or self._has_words(message):
            self._add_to_turns(message, index)

    def _add_to_turns(self, message: Message, index: int) -> None:
        contents = message.contents
        called = [tool for tool in contents.tools if tool.called]
        if message.role == "user" and (contents.texts or contents.recordings):
            self._begin(message)
            self.turns[-1]["request"] = contents.text
            if contents.recordings:
                self.turns[-1]["audio"] = contents.recordings[0].location
        elif message.role == "assistant" and (contents.texts or called):
            self._answer(message, bool(called))
        elif called and not self.turns:
            self._begin(message)
        others = contents.recordings[1:] if message.role == "user" else contents.recordings
        self._leave_out([recording.kind for recording in others], index)
        for tool in contents.tools:
            self._use(tool)
        if contents.tools:
            self.within_calls = contents.ends_in_tool

    def _has_words(self, message: Message) -> bool:
        """Whether the message has words, or a recording of the user. FieldError: it has neither, and is not skipped."""
        contents = message.contents
        if contents.texts or (message.role == "user" and contents.recordings):
            return True
        if message.standalone:
            return False
        if not self.skip_without_words:
            held = [*contents.left_out, *(recording.kind for recording in contents.recordings), *["reasoning"][: len(contents.reasoning)]]
            what = f" (only {', '.join(dict.fromkeys(held))})" if held else ""
            remedy = "give the words, set corpus.text to the key that holds them, or leave such messages out with corpus.without_words=skip"
            raise FieldError(f"{message.where}.content", f"a message of {message.role} without words and without a call{what}; {remedy}")
        self.left_out[f"messages of {message.role} without words"] += 1
        return False

    def _note_rest(self, message: Message, index: int) -> None:
        """Notes what a message has besides words and calls."""
        self._leave_out(message.contents.left_out, index)
        for text in message.contents.reasoning:
            self.note("reasoning", {"message": index, "text": text})
        if message.other:
            self.note("other", {"message": index, **message.other})

    def _leave_out(self, kinds: list[str], index: int) -> None:
        """Counts parts of these types, which are left out."""
        for kind in kinds:
            self.left_out[f"parts of type {kind}"] += 1
            self.note("parts", {"message": index, "type": kind})

    def _begin(self, message: Message) -> None:
        self.turns.append({"timestamp": message.time, "categorical": {}, "numerical": {}})
        self.answered = self.within_calls = False

    def _answer(self, message: Message, called: bool) -> None:
        if not self.turns or (self.answered and not called and not self.within_calls):
            self._begin(message)
        turn, text = self.turns[-1], message.contents.text
        if text is not None:
            turn["response"] = f"{turn['response']}\n{text}" if turn.get("response") else text
        turn["numerical"].setdefault("tool_calls", 0)
        self.answered, self.within_calls = True, called

    def _use(self, tool: Tool) -> None:
        """Adds a call, or a result to its call: by id, or else to the first call of that tool (or of any) without a result.

        Calls of this turn come first. A call of an earlier turn may have been given up without a result.
        """
        turn = max(len(self.turns) - 1, 0)
        result = {"result": tool.result, **({"error": True} if tool.failed else {})} if tool.answered else {}
        identity = {"id": tool.identity} if tool.identity else {}
        if tool.called:
            numerical = self.turns[-1]["numerical"]
            numerical["tool_calls"] = numerical.get("tool_calls", 0) + 1
            call = {"turn": turn, "name": tool.name, "arguments": tool.arguments, **identity, **result}
            self.note("tool_calls", call)
            self.unanswered += [] if result else [call]
            return
        fitting = [call for call in self.unanswered if answers(tool, call)]
        if not fitting:
            self.note("tool_calls", {"turn": turn, "name": tool.name, "id": tool.identity, **result})  # the log is cut
            return
        call = next((call for call in fitting if call["turn"] == turn), fitting[0])
        call |= result
        self.unanswered = [other for other in self.unanswered if other is not call]

    def finish(self) -> None:
        """Names the tools of each turn: its feature `tool`."""
        names: defaultdict[int, dict[str, None]] = defaultdict(dict)  # by turn, in order
        for call in self.metadata.get("tool_calls", ()):
            if "arguments" in call:
                names[call["turn"]][call["name"]] = None
        for turn, called in names.items():
            self.turns[turn]["categorical"]["tool"] = "+".join(called)


def answers(result: Tool, call: Mapping[str, Any]) -> bool:
    """Whether a result may be that of a call: by the id, or else by the tool's name. A result without either fits each call."""
    return bool(call.get("id") == result.identity if result.identity else result.name in (None, call["name"]))
