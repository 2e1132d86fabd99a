"""Training data: splits depend on ids alone, batches weigh alike and are as many each epoch, any step can be resumed at."""

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelgen.corpora import hash_fraction
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, Goal, RecordError, Reject, Turn, Vote
from labelgen.inputs.features import Features
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.intent import Intent
from labelgen.tasks.slot import SlotTask
from labelgen.training.data import BatchLoader, DialogueData, annotated, fit_labels, pack, texts_of, truncate

TASKS: dict[str, Task] = {task.name: task for task in (GoalSegmentation(), GoalEvaluation(), Intent(), SlotTask(), Defect())}


@dataclass(frozen=True)
class Given:
    """A corpus of the dialogues it is given."""

    dialogues: list[Dialogue] = field(default_factory=list)
    rejected: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        for number in range(self.rejected):
            assert reject is not None
            reject(RecordError("file", number, None, "turns", "there are none"))
        yield from self.dialogues


def data(output: Path, dialogues: list[Dialogue], **changed: Any) -> DialogueData:
    settings: dict[str, Any] = {"features": Features(), "tasks": TASKS, "batch_tokens": 400, "valid_fraction": 0.25}
    module = DialogueData(**{"corpus": Given(dialogues), "output": output, **settings, **changed})
    module.setup()
    return module


def attach(module: DialogueData, encoder: Encoder) -> None:
    """What train and the trainer do after the model is built."""
    module.attach(encoder)
    module.prepare_data()
    module.setup("fit")


def ids(dialogues: list[Dialogue]) -> list[str]:
    return [dialogue.id for dialogue in dialogues]


MANY = list(Simulated(num_dialogues=60, seed=2).read())


def test_splits_depend_on_ids_alone(tmp_path: Path) -> None:
    whole, backwards, part = (data(tmp_path, rows) for rows in (MANY, MANY[::-1], MANY[:30]))
    assert set(ids(whole.train)) | set(ids(whole.valid)) == set(ids(MANY))
    assert not set(ids(whole.train)) & set(ids(whole.valid))
    assert 5 <= len(whole.valid) <= 25
    assert set(ids(backwards.valid)) == set(ids(whole.valid))
    assert set(ids(part.valid)) == set(ids(whole.valid)) & set(ids(MANY[:30]))
    assert set(ids(data(tmp_path, MANY, seed=1).valid)) != set(ids(whole.valid))


def test_fractions_are_nested_and_leave_validation_alone(tmp_path: Path) -> None:
    parts = [data(tmp_path, MANY, fraction=fraction) for fraction in (0.2, 0.5, 1.0)]
    chosen = [set(ids(part.train)) for part in parts]
    assert chosen[0] < chosen[1] < chosen[2]
    assert all(ids(part.valid) == ids(parts[0].valid) for part in parts)


@given(st.text(max_size=9), st.text(max_size=9))
def test_shares_are_numbers_below_one(identity: str, salt: str) -> None:
    assert 0 <= hash_fraction(identity, salt) < 1
    assert hash_fraction(identity, salt) == hash_fraction(identity, salt)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=40), st.integers(1, 60), st.randoms(), st.integers(1, 3))
def test_batches_weigh_alike_and_hold_each_item_once(weights: list[int], budget: int, random: Any, world: int) -> None:
    order = list(range(len(weights)))
    random.shuffle(order)
    packed = pack(weights, budget, order, world)
    assert sorted(item for batch in packed for item in batch) == list(range(len(weights)))
    assert all(packed)
    assert len(packed) % world == 0
    assert len(packed) == len(pack(weights, budget, sorted(order), world)), "as many in each order"
    totals = [sum(max(weights[item], 1) for item in batch) for batch in packed]
    assert max(totals) - min(totals) <= max(1, *weights), "no batch is lighter by more than an item"


def test_fewer_dialogues_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be divided among 3 processes"):
        pack([1, 1], 10, [0, 1], 3)


def batches(**options: Any) -> BatchLoader:
    tokens = [sum(map(len, texts_of(dialogue))) for dialogue in MANY]
    return BatchLoader(MANY, tokens, names, 4_000, **options)  # type: ignore[arg-type]


def names(dialogues: list[Dialogue]) -> tuple[str, ...]:
    """Stands in for a batch."""
    return tuple(dialogue.id for dialogue in dialogues)


def test_epochs_are_shuffled_and_as_long() -> None:
    epochs = [list(batches(seed=3, epoch=lambda e=e: e)) for e in (0, 0, 1, 2)]
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2] != epochs[3]
    assert {len(epoch) for epoch in epochs} == {len(batches(seed=3))}
    assert len(batches(seed=3)) > 3
    for epoch in epochs:
        assert sorted(item for batch in epoch for item in batch) == sorted(ids(MANY))  # type: ignore[misc]
    assert list(batches(seed=4)) != epochs[0]
    assert list(batches()) == list(batches(epoch=lambda: 1)), "validation has one order"


def test_ranks_share_the_dialogues_in_as_many_steps() -> None:
    for seed in (None, 3):
        ranks = [list(batches(seed=seed, rank=rank, world=2)) for rank in range(2)]
        assert len(ranks[0]) == len(ranks[1]) == len(batches(seed=seed, rank=1, world=2))
        assert sorted(item for rank in ranks for batch in rank for item in batch) == sorted(ids(MANY))  # type: ignore[misc]


def test_any_batch_can_be_resumed_at() -> None:
    whole = list(batches(seed=3, epoch=lambda: 5))
    for done in range(len(whole) + 1):
        interrupted = batches(seed=3, epoch=lambda: 5)
        for _, _ in zip(range(done), interrupted, strict=False):
            pass
        clock = SimpleNamespace(epoch=5)
        again = batches(seed=3, epoch=lambda clock=clock: clock.epoch)
        again.load_state_dict(interrupted.state_dict() if done else {"epoch": 5, "batch": 0})
        assert list(again) == whole[done:]
        clock.epoch = 6
        assert len(list(again)) == len(whole), "the next epoch is whole"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
def test_workers_give_the_same_batches_and_prefetching_is_not_counted(tmp_path: Path, make_encoder: Callable[..., Encoder]) -> None:
    found = []
    for workers in (0, 2):
        module = data(tmp_path, MANY, num_workers=workers, cache=tmp_path / "cache")
        attach(module, make_encoder(frozen_layers=1))
        module.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
        loader, before = module.train_dataloader(), torch.get_rng_state()
        batches = [next(iter(loader)), *list(loader)]
        assert torch.equal(torch.get_rng_state(), before), "training draws the same numbers"
        found.append(batches)
        for count, _ in enumerate(zip(loader, range(2), strict=False), 1):
            assert module.state_dict() == {"epoch": 0, "batch": count}
    assert len(found[0]) == len(found[1]) > 4
    for one, other in zip(*found, strict=True):
        assert [dialogue.id for dialogue in one.dialogues] == [dialogue.id for dialogue in other.dialogues]
        for name in ("ids", "utterances", "token", "categorical", "frozen_states"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert all(torch.equal(one.targets[name], other.targets[name]) for name in one.targets)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # from 3.12 on Python warns of threads
def test_a_worker_that_ctrl_c_reaches_still_delivers_its_batches() -> None:
    tokens = [sum(map(len, texts_of(dialogue))) for dialogue in MANY]
    whole = list(BatchLoader(MANY, tokens, names, 1_000))  # type: ignore[arg-type]
    loaded = iter(BatchLoader(MANY, tokens, names, 1_000, num_workers=1))  # type: ignore[arg-type]
    first = next(loaded)
    [worker] = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGINT)
    assert [first, *loaded] == whole and len(whole) > 6, "more than the worker makes ahead"


def test_the_corpus_is_read_by_setup_and_once(tmp_path: Path) -> None:
    reads = []

    class Counted(Given):
        def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
            reads.append(1)
            return super().read(reject)

    module = DialogueData(Counted(MANY[:4]), Features(), TASKS, tmp_path, valid_fraction=0.0)
    assert not reads
    module.setup()
    module.setup("fit")
    assert len(reads) == 1
    assert len(module.train) == 4


def test_a_dialogue_longer_than_a_batch_is_cut_in_training(tmp_path: Path, make_encoder: Callable[..., Encoder]) -> None:
    long = Dialogue(
        id="long",
        turns=[Turn(request=f"request number {k:03d}", response="yes", intent="A/B", defect=False) for k in range(50)],
        goals=[Goal(turns=[0, 2], outcome="success"), Goal(turns=[1, 49], outcome="failure"), Goal(turns=[48], outcome="failure")],
        votes=[Vote(question="satisfaction", value=1.0)],
    )
    module = data(tmp_path, [long], valid_fraction=0.0, batch_tokens=100)
    attach(module, make_encoder())
    lengths = {text: len(text.encode()) + 2 for text in texts_of(long)}
    cut = truncate(long, lengths, 100)
    assert 1 <= len(cut.turns) < 50
    assert sum(lengths[text] for text in texts_of(cut)) <= 100 < sum(lengths[text] for text in texts_of(long)[: 2 * len(cut.turns) + 2])
    assert cut.goals == [Goal(turns=[0, 2], outcome="success"), Goal(turns=[1], outcome=None)], "its end was not seen"
    assert not cut.votes, "they speak of the whole dialogue"
    assert len(long.turns) == 50
    assert truncate(cut, lengths, 100) is cut
    module.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    [batch] = list(module.train_dataloader())
    assert batch.num_turns == [len(cut.turns)]
    module.valid = [long]
    [batch] = list(module.val_dataloader())
    assert batch.num_turns == [50], "validation has no gradients to keep: its figures are of whole dialogues"
    huge = Dialogue(id="one", turns=[Turn(request="x" * 500)])
    assert truncate(huge, {"x" * 500: 502}, 100) is huge, "one turn at least"


def test_a_batch_without_any_text_is_read_from_the_cache_too(tmp_path: Path, make_encoder: Callable[..., Encoder]) -> None:
    module = data(tmp_path, MANY[:6], valid_fraction=0.0, cache=tmp_path / "cache")
    attach(module, make_encoder(frozen_layers=1))
    batch = module.collate([Dialogue(id="silent", turns=[Turn(), Turn()])])
    assert batch.frozen_states is not None
    assert len(batch.frozen_states) == len(batch.ids)


def test_unusable_records_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        module = data(tmp_path, [], corpus=Given(MANY[:8], rejected=2))
    assert "2 records were not usable" in caplog.text
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 2
    assert len(module.train) + len(module.valid) == 8
    with pytest.raises(ValueError, match="no dialogue to train on: 0 read, 2 rejected"):
        data(tmp_path, [], corpus=Given([], rejected=2))


def test_tasks_without_any_annotation_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = [dialogue.content() for dialogue in MANY[:6]]
    for dialogue in bare:
        dialogue.turns[0].defect = False
    with caplog.at_level(logging.WARNING):
        module = data(tmp_path, bare, valid_fraction=0.0)
    assert list(module.tasks) == ["defect"]
    assert "goal_evaluation, goal_segmentation, intent, slot" in caplog.text
    assert list(data(tmp_path, MANY).tasks) == list(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_annotated_means_something_to_learn(name: str) -> None:
    task = data_task = TASKS[name]
    if name in ("intent", "slot"):
        task = fit_labels(type(data_task)(), MANY)
    assert any(annotated(task, dialogue) for dialogue in MANY)
    assert not any(annotated(task, dialogue.content()) for dialogue in MANY)


def test_the_fingerprint_is_of_the_annotations_too(tmp_path: Path) -> None:
    prints = [data(tmp_path, MANY).fingerprint() for _ in range(2)]
    assert prints[0] == prints[1]
    other = [dialogue.model_copy(deep=True) for dialogue in MANY]
    for dialogue in other:
        dialogue.turns[0].defect = None
    assert data(tmp_path, other).fingerprint() != prints[0]
    assert json.loads(json.dumps(prints[0])) == prints[0]
