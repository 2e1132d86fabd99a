# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First labels
#
# This notebook needs only `pip install 'labelgen[minilm]'`. It needs no network, no data and no GPU.
#
# An *export* is a folder with a trained model. If you have one, load it with
# `labelgen.load("FOLDER")`. Here we train a small one on simulated dialogues, in less than half a
# minute. The pretrained text encoder does not learn (`frozen_layers=6`), so each text passes
# through it only once. `labelgen demo` lets its upper layers learn too. That takes minutes, and the
# model is much better.

# %%
from pathlib import Path
from tempfile import mkdtemp

import labelgen
from labelgen.demo import quiet

folder = Path(mkdtemp())
small = ("encoder.frozen_layers=6", "encoder.dialogue_layers=2", "trainer.max_epochs=4", "data.batch_tokens=384", "lr=3e-3")
plain = ("+trainer.enable_progress_bar=false", f"data.cache={folder}/cache")


def train(name, *overrides):
    """The same as `labelgen train output=... KEY=VALUE ...` and `labelgen export ...` in the shell."""
    with quiet():
        labelgen.run(labelgen.load_config("train", f"output={folder / name}", *small, *plain, *overrides))
        labelgen.run(labelgen.load_config("export", f"checkpoint={folder / name}", f"output={folder / name}/export"))
    return folder / name / "export"


annotator = labelgen.load(train("five", "corpus=simulated", "corpus.num_dialogues=150"))

# %% [markdown]
# ## Label dialogues
#
# A dialogue is a list of turns. A turn is a user's request and the assistant's response to it. Either
# may be missing. `labelgen.read("logs.jsonl")` reads dialogues from a file.

# %%
mine = labelgen.parse(
    {
        "id": "mine",
        "turns": [
            {"request": "book a table for two tonight please", "response": "Which city?"},
            {"request": "Lisbon", "response": "Here is the weather in London: rain."},
            {"request": "no, I want a table in Lisbon", "response": "Sorry, I can't help with that."},
        ],
    }
)
labelgen.show(annotator([mine]))

# %% [markdown]
# Simulated dialogues come with the true labels. Some phrasings of the `test` split do not occur in
# training. `content()` is the dialogue as it would be logged, without annotations. The annotator
# reads nothing else. The bars at the left are goals. Hover over a label to see more.

# %%
from labelgen.corpora.simulated import Simulated

truth = list(Simulated(num_dialogues=20, split="test").read())
labelled = annotator(dialogue.content() for dialogue in truth)
labelgen.show(labelled[:2])

# %% [markdown]
# ## Confidences
#
# Every label has a confidence. It is the model's own probability and is not calibrated. Check it on a
# sample before you rely on it.

# %%
from collections import defaultdict

sure = defaultdict(list)
for dialogue in labelled:
    for label in dialogue.labels:
        sure[label.task].append(label.confidence)

print(f"{'task':20}{'labels':>8}{'mean':>8}{'>= 0.9':>8}")
for task, values in sure.items():
    print(f"{task:20}{len(values):8}{sum(values) / len(values):8.2f}{sum(value >= 0.9 for value in values) / len(values):8.0%}")

# %% [markdown]
# Look first at the labels with the lowest confidence:

# %%
doubts = sorted((label.confidence, dialogue.id, label.task, label.value) for dialogue in labelled for label in dialogue.labels)
for confidence, name, task, value in doubts[:5]:
    print(f"{confidence:.2f}  {task}: {value}  ({name})")

# %% [markdown]
# ## A label type of your own
#
# A label type that classifies requests, responses or dialogues is a class with a name, its labels, and
# one method that reads the annotations. Our example asks whether a request is polite. The answers of
# annotators are votes in the record. A turn without a vote is not annotated. Neither the loss nor the
# metrics count it.

# %%
from dataclasses import dataclass
from typing import ClassVar

from labelgen.tasks import Classification


@dataclass(frozen=True)
class Politeness(Classification):
    name: ClassVar[str] = "politeness"
    labels = ("plain", "polite")

    def annotated(self, dialogue):
        votes = [[vote.value for vote in turn.votes if vote.question == "politeness"] for turn in dialogue.turns]
        return [answers[0] if answers else None for answers in votes]


# %% [markdown]
# The simulated dialogues have no such votes. Here a rule plays the annotator, for two out of three
# requests.

# %%
from labelgen.dialogue import Vote


def annotate(dialogue, number):
    for t, turn in enumerate(dialogue.turns):
        if turn.request and (number + t) % 3:
            polite = any(word in turn.request.casefold() for word in ("please", "thank", "kindly", "could you", "would you"))
            turn.votes.append(Vote(question="politeness", value="polite" if polite else "plain", annotator="rule"))
    return dialogue


annotated = [annotate(dialogue, number) for number, dialogue in enumerate(Simulated(num_dialogues=150).read())]
labelgen.write(annotated, folder / "annotated.jsonl")

# %% [markdown]
# The new task is trained along with the five others. We name it by its dotted path, which is
# `__main__.Politeness` here and `my_package.my_module.Politeness` once it is in a file. Loading an
# export never imports code that the export names, so we pass the class to `load`.

# %%
export = train("six", "corpus=jsonl", f"corpus.path={folder}/annotated.jsonl", "+tasks.politeness._target_=__main__.Politeness")
annotator = labelgen.load(export, tasks={"politeness": Politeness})

# %%
labelled = annotator([mine, *(dialogue.content() for dialogue in truth[:2])])
labelgen.show(labelled)

# %% [markdown]
# Next: `labelgen backfill export=... input=... output=...` labels files of any size, and `labelgen
# evaluate` compares an export with annotations.
