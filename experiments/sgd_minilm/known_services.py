"""How many errors are only wrong names? Scores an export on SGD with labels restricted to the schemas of a dialogue's services.

SGD's services name the same thing differently (PlaySong or PlayMedia, destination or location), which the words do not reveal. Its own
protocol gives a model the services' schemas; labelgen does not read them. python known_services.py EXPORT SGD_FOLDER [SPLIT]
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import labelgen
from labelgen.corpora.sgd import SGD
from labelgen.dialogue import Dialogue
from labelgen.evaluation.evaluate import score, written
from labelgen.metrics import Prediction


def names(root: str, split: str) -> dict[str, tuple[set[str], set[str]]]:
    """Service -> its intents (Domain/Intent) and its slots."""
    schema = json.loads((Path(root) / split / "schema.json").read_text("utf-8"))
    return {
        service["service_name"]: (
            {f"{re.sub(r'_[0-9]+$', '', service['service_name'])}/{intent['name']}" for intent in service["intents"]},
            {slot["name"] for slot in service["slots"]},
        )
        for service in schema
    }


def restricted(probabilities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] over the allowed classes alone."""
    kept = probabilities * allowed + 1e-12 * allowed
    return kept / kept.sum(1, keepdims=True)


def main(export: str, root: str, split: str = "dev") -> None:
    """Prints both figures for each slice."""
    annotator = labelgen.load(export)
    intent, slot = (annotator.network.tasks[name] for name in ("intent", "slot"))
    schema = names(root, split)

    def known(pairs: list[tuple[Dialogue, dict[str, Prediction]]]) -> Iterator[tuple[Dialogue, dict[str, Prediction]]]:
        texts = annotator.network.text_encoder()
        for dialogue, predictions in pairs:
            intents, slots = (set.union(*(schema[service][k] for service in dialogue.metadata["services"])) for k in (0, 1))
            of_intent = np.array([label in intents or label == "NONE" for label in intent.labels])
            of_slot = np.array([True, *(name in slots for name in slot.labels for _ in "BI")])
            words = [text for turn in dialogue.turns for text in (turn.request, turn.response)]
            tokens = texts([text for text in words if text is not None])
            utterances = [None if text is None else tokens[text] for text in words]
            changed = dict(predictions)
            for task, mask in ((intent, of_intent), (slot, of_slot)):
                probabilities = restricted(predictions[task.name].probabilities, mask)
                labels = [item.label(task.name, annotator.source) for item in task.decode(probabilities, dialogue, utterances, {})]
                changed[task.name] = Prediction(labels, probabilities)
            yield dialogue, changed

    pairs = list(annotator.predict(SGD(root, split).read()))
    tasks = {task.name: task for task in (intent, slot)}
    before, after = score(tasks, pairs), score(tasks, known(pairs))
    for part in before.slices:
        for name, figure in before.slices[part].items():
            print(f"{part:8}{name:18}{written(figure):24} services known: {written(after.slices[part][name])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
