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
# `pip install 'labelgen[minilm]'` is all that this notebook needs: no network, no data, no GPU.
#
# An *export* is a folder with a trained model. If you have one, go on with
# `labelgen.load("FOLDER")`. Here we train a small one on simulated dialogues, in less than half a
# minute: the pretrained text encoder is left as it is (`frozen_layers=6`), so that each text passes
# through it once, and only what lies above learns. `labelgen demo` takes minutes, lets the upper
# layers learn too, and is much better.

# %%
from pathlib import Path
from tempfile import mkdtemp

import labelgen
from labelgen.demo import quiet

folder = Path(mkdtemp())
small = ("encoder.frozen_layers=6", "encoder.dialogue_layers=2", "trainer.max_epochs=4", "data.batch_tokens=384", "lr=3e-3")
plain = ("+trainer.enable_model_summary=false", "+trainer.enable_progress_bar=false", f"data.cache={folder}/cache")


def train(name, *overrides):
    """The same as `labelgen train output=... KEY=VALUE ...` and `labelgen export ...` in the shell."""
    with quiet():
        labelgen.run(labelgen.load_config("train", f"output={folder / name}", *small, *plain, *overrides))
        labelgen.run(labelgen.load_config("export", f"checkpoint={folder / name}", f"output={folder / name}/export"))
    return folder / name / "export"


annotator = labelgen.load(train("five", "corpus.num_dialogues=150"))

# %% [markdown]
# ## Label dialogues
#
# A dialogue is a list of turns, a turn is a request and its response. Anything may be missing.
# `labelgen.read("logs.jsonl")` reads files.

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
# The simulated corpus knows the truth, and never lends the phrasings of its `test` split to
# training. `content()` is a dialogue as it would be logged, without annotations: that is all that
# the annotator reads. Goals are brackets; hover over a label to see more.

# %%
from labelgen.corpora.simulated import Simulated

truth = list(Simulated(num_dialogues=20, split="test").read())
labelled = annotator(dialogue.content() for dialogue in truth)
labelgen.show(labelled[:2])

# %% [markdown]
# ## Confidences
#
# Every label says how sure the model is. It is the model's own probability: check it on a sample
# before you rely on it.

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
# The labels to look at first are those that the model doubts:

# %%
doubts = sorted((label.confidence, dialogue.id, label.task, label.value) for dialogue in labelled for label in dialogue.labels)
for confidence, name, task, value in doubts[:5]:
    print(f"{confidence:.2f}  {task}: {value}  ({name})")

# %% [markdown]
# ## A label type of your own
#
# A label type that classifies requests, responses or dialogues is a class with a name, its labels,
# and one method: what the annotations say. Is a request polite? Annotators' answers are votes in the
# record; a turn without a vote is not annotated, and then it counts nowhere.

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
# Nobody has annotated the simulated dialogues, so let a rule play the annotator, and let it answer
# for two requests of three.

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
# It is trained along with the five others, by its dotted path: `__main__.Politeness` here,
# `my_package.my_module.Politeness` once it has moved to a file. An export never makes labelgen
# import anything, so that `load` is given the class.

# %%
export = train("six", "corpus=jsonl", f"corpus.path={folder}/annotated.jsonl", "+tasks.politeness._target_=__main__.Politeness")
annotator = labelgen.load(export, tasks={"politeness": Politeness})

# %%
labelled = annotator([mine, *(dialogue.content() for dialogue in truth[:2])])
labelgen.show(labelled)

# %% [markdown]
# Next: `labelgen backfill export=... input=... output=...` labels files of any length, `labelgen
# evaluate` compares an export with annotations.
