"""Swaps: how many, from where, never common answers, the same each time. The model cannot see what it selects, and learns both aims."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from labelgen.config import load_config
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, Goal, Turn
from labelgen.inputs.batch import IGNORE, Batch, Collator, TextEncoder
from labelgen.inputs.features import Features, FeatureSpace
from labelgen.labelling.export import export
from labelgen.model.audio_encoder import SmallAudioConfig
from labelgen.model.encoder import Encoder
from labelgen.model.losses import info_nce
from labelgen.tasks import Task
from labelgen.training.checkpoint import read_checkpoint
from labelgen.training.data import BatchLoader, DialogueData
from labelgen.training.labeler import Labeler
from labelgen.training.learner import Learner, parameter_groups
from labelgen.training.pretrain import MASKED, SWAPPED, Pretrainer, ResponsePool, SwappedResponses, domains, swap_responses
from labelgen.training.train import load_encoder

COMMON = "Anything else?"
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")  # Lightning's own


def talk(name: str, turns: int = 8, domain: str | None = None) -> Dialogue:
    """Every response is its own, but for the last, which every dialogue has."""
    turns_of = [Turn(request=f"{name} asks {t}", response=f"{domain} {name} {t}", intent=domain and f"{domain}/Ask") for t in range(turns)]
    return Dialogue(id=name, turns=[*turns_of, Turn(request="thanks", response=COMMON), Turn(request="hello?")])


@pytest.fixture(scope="module")
def corpus() -> list[Dialogue]:
    return [talk(f"d{k}", domain=["Hotels", "Buses", None][k % 3]) for k in range(120)]


@pytest.fixture(scope="module")
def pool(corpus: list[Dialogue]) -> ResponsePool:
    return ResponsePool(corpus, common=0.03)


@pytest.fixture
def encoder(make_encoder: Callable[..., Encoder]) -> Encoder:
    return make_encoder(features=FeatureSpace()).eval()


def pretrainer(encoder: Encoder, lr: float = 1e-3) -> Pretrainer:
    return Pretrainer(encoder, {}, torch.optim.AdamW, lr=lr, encoder_rate=1.0)


def collated(encoder: Encoder, dialogues: list[Dialogue], examples: SwappedResponses) -> Batch:
    return Collator(TextEncoder(encoder.tokenizer, 128), FeatureSpace(), examples.targets)(dialogues)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_share_of_swaps(corpus: list[Dialogue], pool: ResponsePool, share: float) -> None:
    made = swap_responses(corpus, pool, share, "anywhere", seed=0)
    swapped, whole = sum(len(m.swapped) for m in made), sum(len(m.swapped) + len(m.own) for m in made)
    assert whole == 8 * len(corpus)  # neither the common response nor the missing one
    assert abs(swapped - share * whole) <= 4 * (whole * share * (1 - share)) ** 0.5  # four standard deviations


def test_what_a_swap_changes(corpus: list[Dialogue], pool: ResponsePool) -> None:
    before = [dialogue.model_copy(deep=True) for dialogue in corpus]
    holder = {turn.response: dialogue.id for dialogue in corpus for turn in dialogue.turns}
    for old, (new, swapped, own) in zip(corpus, swap_responses(corpus, pool, 0.5, "anywhere", seed=0), strict=True):
        assert not set(swapped) & set(own)
        for t, (was, turn) in enumerate(zip(old.turns, new.turns, strict=True)):
            assert turn.request == was.request
            if t in swapped:
                assert turn.response not in {None, COMMON, was.response}
                assert holder[turn.response] != old.id
            else:
                assert turn.response == was.response
    assert corpus == before


def test_common_answers_take_no_part() -> None:
    rare, twice = [f"rare {k}" for k in range(100)], ["twice", "twice"]
    responses = [*rare, *twice, *[COMMON] * 5]
    corpus = [Dialogue(id=str(k), turns=[Turn(response=text), Turn(response=""), Turn(response=None)]) for k, text in enumerate(responses)]
    assert ResponsePool(corpus, common=0.03).common == {COMMON}
    assert ResponsePool(corpus, common=0.0).common == {COMMON}  # twice is not yet common
    assert not ResponsePool(corpus, common=0.5).common
    for record, swapped, own in swap_responses(corpus, ResponsePool(corpus, 0.03), 1.0, "anywhere", 0):
        original = corpus[int(record.id)].turns[0].response
        assert (swapped, own) == (((), ()) if original == COMMON else ((0,), ()))
        assert original == COMMON or record.turns[0].response != COMMON


def test_a_response_repeated_in_its_dialogue_is_not_common() -> None:
    corpus = [Dialogue(id="a", turns=[Turn(response="again")] * 9), Dialogue(id="b", turns=[Turn(response="once")])]
    assert not ResponsePool(corpus, 0.0).common


def test_same_domain(corpus: list[Dialogue], pool: ResponsePool) -> None:
    where: Counter[tuple[str | None, str]] = Counter()
    for old, made in zip(corpus, swap_responses(corpus, pool, 0.5, "same_domain", seed=1), strict=True):
        for t in made.swapped:
            where[domains(old)[t], str(made.dialogue.turns[t].response).split()[0]] += 1
    assert {"Hotels", "Buses", "None"} == {to for of, to in where if of is None}  # nothing annotated: from anywhere
    assert {(of, to) for of, to in where if of} == {("Hotels", "Hotels"), ("Buses", "Buses")}


def test_domain_without_another_answer_is_not_swapped(corpus: list[Dialogue]) -> None:
    alone = talk("alone", domain="Trains")
    made = swap_responses([alone], ResponsePool([*corpus, alone], 0.03), 1.0, "same_domain", 0)[0]
    assert made.swapped == ()
    assert len(made.own) == 8
    assert len(swap_responses([alone], ResponsePool([*corpus, alone], 0.03), 1.0, "anywhere", 0)[0].swapped) == 8


def test_domain_of_a_goal() -> None:
    goals = [Goal(turns=[0, 1], name="Hotels/Book"), Goal(turns=[2], name="vague")]
    turns = [Turn(), Turn(intent="Buses/Find"), Turn(intent="NONE"), Turn()]
    assert domains(Dialogue(id="a", turns=turns, goals=goals)) == ["Hotels", "Buses", None, None]


def test_deterministic_and_independent_of_the_company(corpus: list[Dialogue], pool: ResponsePool) -> None:
    once = swap_responses(corpus, pool, 0.3, "anywhere", seed=5)
    assert once == swap_responses(corpus, pool, 0.3, "anywhere", seed=5)
    assert once[::-1] == swap_responses(corpus[::-1], pool, 0.3, "anywhere", seed=5)
    assert [m.swapped for m in once] != [m.swapped for m in swap_responses(corpus, pool, 0.3, "anywhere", seed=6)]


def test_annotations_do_not_matter() -> None:
    labelled, bare = (list(Simulated(num_dialogues=40, labelled=share).read()) for share in (1.0, 0.0))
    assert labelled != bare
    made = [[SwappedResponses(d, seed=1)(dialogue, 0) for dialogue in d] for d in (labelled, bare)]
    assert made[0] == made[1]
    assert all(turn.intent is None and turn.defect is None for dialogue in made[0] for turn in dialogue.turns)


def test_targets_say_what_was_done(corpus: list[Dialogue]) -> None:
    examples = SwappedResponses(corpus, swapped=0.3, masked=0.4, common=0.03)
    masks = turns = 0
    for dialogue in corpus:
        record = examples(dialogue, epoch=2)
        swap, mask = (examples.targets[name](record, []) for name in (SWAPPED, MASKED))
        changed = np.array([new.response != old.response for new, old in zip(record.turns, dialogue.turns, strict=True)])
        assert ((swap == 1) == changed).all()
        assert not ((mask == 1) & changed).any()
        assert (swap[mask == 1] == IGNORE).all()  # what is hidden is no target
        assert (swap[8:] == IGNORE).all()
        assert (mask[8:] == IGNORE).all()
        assert (mask[:8] != IGNORE).all()
        masks, turns = masks + (mask == 1).sum(), turns + (~changed[:8]).sum()
    assert abs(masks - 0.4 * turns) <= 4 * (0.24 * turns) ** 0.5
    assert examples(corpus[0], 2) == examples(corpus[0], 2)
    assert len({examples(corpus[0], epoch).model_dump_json() for epoch in range(5)}) == 5  # drawn again each epoch


def test_epochs_resume_at_any_batch(corpus: list[Dialogue]) -> None:
    examples = SwappedResponses(corpus, common=0.03)

    def batches(epoch: int) -> BatchLoader:
        return BatchLoader(corpus, [10] * len(corpus), list, 100, augment=examples, seed=3, epoch=lambda: epoch)  # type: ignore[arg-type]

    whole, broken_off = list(batches(1)), batches(1)
    for _, _ in zip(range(4), broken_off, strict=False):
        pass
    resumed = batches(1)
    resumed.load_state_dict(broken_off.state_dict())
    rest: list[Any] = list(resumed)
    assert 0 < len(rest) < len(whole)
    assert whole[-len(rest) :] == rest
    assert sorted(dialogue.id for batch in whole for dialogue in batch) == sorted(dialogue.id for dialogue in corpus)  # type: ignore[attr-defined]
    assert whole != list(batches(2))


@pytest.mark.parametrize("wrong", [{"swapped": 1.5}, {"masked": -0.1}, {"source": "nowhere"}])
def test_wrong_settings_are_refused(corpus: list[Dialogue], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SwappedResponses(corpus, **wrong)


def test_nothing_to_swap_is_refused() -> None:
    with pytest.raises(ValueError, match="no response"):
        SwappedResponses([Dialogue(id="a", turns=[Turn(request="hello?")])])


def test_the_masked_response_is_not_seen(encoder: Encoder, corpus: list[Dialogue]) -> None:
    """Another text at a hidden response changes neither its query nor any logit, but its key; at a visible one it changes the queries."""
    examples = SwappedResponses(corpus, common=0.03, masked=0.5)
    model = pretrainer(encoder)
    record = examples(corpus[0], 0)
    mask = examples.targets[MASKED](record, [])
    hidden, visible = int(np.flatnonzero(mask == 1)[0]), int(np.flatnonzero(mask == 0)[0])

    def read(turn: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        turns = [t.model_copy(update={"response": "Something of another length"}) if k == turn else t for k, t in enumerate(record.turns)]
        logits, (queries, keys, _, right) = model(collated(encoder, [record.model_copy(update={"turns": turns})], examples))
        return logits, queries, keys[right]

    with torch.no_grad():
        logits, queries, keys = read(None)
        hidden_logits, hidden_queries, hidden_keys = read(hidden)
        _, visible_queries, _ = read(visible)
    torch.testing.assert_close(queries, hidden_queries, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, hidden_logits, atol=1e-5, rtol=0)
    assert (keys[0] - hidden_keys[0]).abs().max() > 1e-3
    assert (queries - visible_queries).abs().max() > 1e-4


def test_features_known_with_a_hidden_response_are_not_seen(make_encoder: Callable[..., Encoder], corpus: list[Dialogue]) -> None:
    """The length of a response would give it away."""
    space = Features(numerical=["request_tokens", "response_tokens"]).fit(corpus)
    encoder = make_encoder(features=space).eval()
    nn.init.normal_(encoder.feature_encoder.numerical_projection.weight)  # type: ignore[union-attr]
    examples = SwappedResponses(corpus, common=0.03, masked=0.5)
    record = examples(corpus[0], 0)
    hidden = int(np.flatnonzero(examples.targets[MASKED](record, []) == 1)[0])
    collate = Collator(TextEncoder(encoder.tokenizer, 128), space, examples.targets)
    model, found = pretrainer(encoder), []
    for part in ("response", "request"):
        turns = [t.model_copy(update={part: "a b c d e f"}) if k == hidden else t for k, t in enumerate(record.turns)]
        found += [model(collate([record.model_copy(update={"turns": rows})]))[1].queries for rows in (record.turns, turns)]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)
    assert (found[2] - found[3]).abs().max() > 1e-4


def test_audio_learns(make_encoder: Callable[..., Encoder], corpus: list[Dialogue], tmp_path: Path) -> None:
    """The audio encoder is in the optimizer, and the losses reach every weight of it."""
    import soundfile

    examples = SwappedResponses(corpus, common=0.03, masked=0.5)
    record = examples(corpus[0], 0)
    soundfile.write(tmp_path / "a.wav", 0.2 * np.sin(0.3 * np.arange(8000)), 16_000)
    spoken = [turn.model_copy(update={"audio": str(tmp_path / "a.wav")}) for turn in record.turns]
    model = pretrainer(make_encoder(features=FeatureSpace(), audio=SmallAudioConfig(layers=1, width=16, heads=2)))
    audio = model.encoder.audio_encoder
    assert audio is not None
    nn.init.normal_(audio.output_projection.weight)  # zero at the start: nothing below it would get a gradient
    collate = Collator(TextEncoder(model.encoder.tokenizer, 128), FeatureSpace(), examples.targets, recordings=model.encoder.recordings())
    losses = model.losses(collate([record.model_copy(update={"turns": spoken})]))
    torch.stack([loss.total for loss in losses.values()]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in audio.parameters())
    groups = parameter_groups(model, model.encoder, 1.0, 0.1, 0.5)
    assert {id(p) for p in audio.parameters()} <= {id(p) for group in groups for p in group["params"]}


@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 0.1), (0.0, 0.1), (2.0, 0.5)])
def test_the_loss_is_that_of_swaps_and_the_weighted_one_of_selection(
    weight: float, temperature: float, encoder: Encoder, corpus: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = SwappedResponses(corpus, common=0.03, masked=0.5, swapped=0.3)
    batch = collated(encoder, [examples(dialogue, 0) for dialogue in corpus[:3]], examples)
    model = Pretrainer(encoder, {}, torch.optim.AdamW, temperature=temperature, selection_weight=weight)
    monkeypatch.setattr(Pretrainer, "log", lambda *_, **__: None)
    model.trainer = trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]  # held by name: the module has a weak reference
    logits, (queries, keys, _, right) = model(batch)
    swap = torch.nn.functional.cross_entropy(logits, batch.targets[SWAPPED], ignore_index=IGNORE)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], keys[None], dim=2)
    selection = torch.nn.functional.cross_entropy(cosines / temperature, right)
    torch.testing.assert_close(model.training_step(batch, 0), swap + weight * selection)
    assert trainer.world_size == 1


@pytest.mark.parametrize("kind", ["Labeler", "Pretrainer"])
def test_rates_and_warmup_reach_the_optimizer(kind: str, encoder: Encoder, tasks: dict[str, Task]) -> None:
    settings = {"lr": 0.1, "encoder_rate": 0.5, "layer_decay": 0.25, "warmup": 0.5}
    make: Any = Labeler if kind == "Labeler" else Pretrainer
    learner = make(encoder, tasks if kind == "Labeler" else {}, torch.optim.AdamW, **settings)
    learner.trainer = trainer = SimpleNamespace(estimated_stepping_batches=10, callbacks=[])
    groups = learner.configure_optimizers()["optimizer"].param_groups
    assert {group["initial_lr"] for group in groups} == {0.1, 0.05, 0.0125, 0.003125}  # above, two layers, embeddings
    assert {round(group["lr"] / group["initial_lr"], 6) for group in groups} == {0.2}  # the first of five steps
    assert not trainer.callbacks


def test_a_seed_draws_other_swaps(corpus: list[Dialogue]) -> None:
    records = [[SwappedResponses(corpus, common=0.03, seed=seed)(dialogue, 0) for dialogue in corpus[:9]] for seed in (0, 0, 1)]
    assert records[0] == records[1] != records[2]


def test_candidates_are_the_distinct_responses_that_take_part(encoder: Encoder, corpus: list[Dialogue]) -> None:
    """Equal texts are one candidate, common ones none; every query's right key is that of its own text."""
    twins = [dialogue.model_copy(update={"id": f"twin of {dialogue.id}"}) for dialogue in corpus[:3]]
    examples = SwappedResponses(corpus, common=0.03, masked=0.5, swapped=0.2)
    records = [examples(dialogue, 0) for dialogue in (*corpus[:3], *twins)]
    batch = collated(encoder, records, examples)
    model = pretrainer(encoder)
    with torch.no_grad():
        _, (queries, keys, _, right) = model(batch)
        part = {str(turn.response) for record in records for turn in record.turns if turn.response not in {None, COMMON}}
        hidden = [str(d.turns[t].response) for d in batch.dialogues for t in np.flatnonzero(examples.targets[MASKED](d, []) == 1)]
        texts = TextEncoder(encoder.tokenizer, 128)(hidden)
        alone = Collator(TextEncoder(encoder.tokenizer, 128), FeatureSpace(), {})(
            [Dialogue(id=str(k), turns=[Turn(response=text)]) for k, text in enumerate(dict.fromkeys(hidden))]
        )
        vectors = encoder.turn_encoder.pool(encoder.turn_encoder(alone.ids, alone.groups), alone.groups)
    assert len(texts) < len(hidden) == len(queries)  # a text may be asked for twice
    assert len(keys) == len(part)
    own = alone.utterances[1::2]
    place = {d.turns[0].response: int(own[k]) for k, d in enumerate(alone.dialogues)}
    expected = model.key(torch.stack([vectors[place[text]] for text in hidden]))
    torch.testing.assert_close(keys[right], expected, atol=1e-5, rtol=0)


def test_info_nce_equals_its_definition() -> None:
    torch.manual_seed(0)
    queries, keys, right = torch.randn(4, 8), torch.randn(6, 8), torch.tensor([0, 5, 2, 2])
    expected = 0.0
    for q in range(4):
        score = [float(torch.cosine_similarity(queries[q], key, dim=0)) / 0.2 for key in keys]
        expected -= score[right[q]] - np.log(sum(np.exp(s) for s in score))
    loss = info_nce(queries, keys, right, 0.2)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert int(loss.count) == 4


def test_a_tiny_model_overfits_one_batch(encoder: Encoder, corpus: list[Dialogue]) -> None:
    examples = SwappedResponses(corpus, swapped=0.3, masked=0.2, common=0.03)
    batch = collated(encoder, [examples(dialogue, 0) for dialogue in corpus[:3]], examples)
    model = pretrainer(encoder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first: dict[str, float] = {}
    for _ in range(50):
        losses = {name: loss.total / loss.count for name, loss in model.losses(batch).items()}
        first = first or {name: loss.item() for name, loss in losses.items()}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    assert all(losses[name].item() < 0.2 * first[name] for name in first), (first, losses)


def test_nothing_labelled_has_no_loss_and_every_gradient(encoder: Encoder, corpus: list[Dialogue]) -> None:
    examples = SwappedResponses(corpus, common=0.03)
    losses = pretrainer(encoder).losses(collated(encoder, [Dialogue(id="a", turns=[Turn(request="hi", response=COMMON)])], examples))
    assert {name: (loss.total.item(), int(loss.count)) for name, loss in losses.items()} == {"swap": (0.0, 0), "selection": (0.0, 0)}
    assert all(loss.total.requires_grad for loss in losses.values())


def test_tasks_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="intent"):
        Pretrainer(encoder, {"intent": object()}, torch.optim.AdamW)  # type: ignore[dict-item]


def test_batches_without_swaps_are_refused(encoder: Encoder, corpus: list[Dialogue]) -> None:
    batch = Collator(TextEncoder(encoder.tokenizer, 128), FeatureSpace(), {})(corpus[:1])
    with pytest.raises(ValueError, match="augment"):
        pretrainer(encoder)(batch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small `labelgen pretrain`."""
    folder = tmp_path_factory.mktemp("run")
    small = [
        "corpus=simulated",
        "corpus.num_dialogues=30",
        "encoder=tiny",
        "trainer.max_epochs=1",
        "data.valid_fraction=0.3",
        "data.cache=null",
    ]
    config = load_config("pretrain", *small, "trainer.log_every_n_steps=1", f"output={folder}")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain["call"]["trainer"].update(quiet)
    score = instantiate(plain["call"], _convert_="all")
    assert 0.0 < score <= 1.0
    return folder


def test_checkpoint_starts_training(run: Path, encoder: Encoder) -> None:
    saved = read_checkpoint(run)["state_dict"]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    load_encoder(encoder, run)
    after = encoder.state_dict()
    wanted = [name for name in after if not name.startswith("feature_encoder.")]
    assert all(torch.equal(after[name], saved[f"encoder.{name}"]) for name in wanted)
    assert any(not torch.equal(after[name], before[name]) for name in wanted if name.startswith("dialogue_encoder."))
    assert any(not torch.equal(after[name], before[name]) for name in wanted if name.startswith("turn_encoder."))


def test_another_encoder_is_refused(run: Path, make_encoder: Callable[..., Encoder], tiny: dict[str, Any]) -> None:
    for change in ({"dialogue_layers": 2}, {"dialogue_heads": 4}, {"backbone": {**tiny["backbone"], "hidden_size": 16}}):
        with pytest.raises(ValueError, match="another one"):
            load_encoder(make_encoder(features=FeatureSpace(), **change), run)


def test_what_was_learned_both_ways_may_go_on_causally(run: Path, make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder(features=FeatureSpace(), causal=True)
    load_encoder(encoder, run)
    saved = read_checkpoint(run)["state_dict"]
    assert torch.equal(encoder.state_dict()["dialogue_encoder.output_norm.weight"], saved["encoder.dialogue_encoder.output_norm.weight"])


def test_pretraining_is_not_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pretraining"):
        export(str(run), str(tmp_path / "export"))


def test_it_is_a_learner_over_plain_data(run: Path) -> None:
    assert issubclass(Pretrainer, Learner)
    written = (run / "metrics.csv").read_text("utf-8").splitlines()[0].split(",")
    assert {"valid/score", "valid/swap/ap", "valid/selection/accuracy", "train/swap_loss", "train/selection_loss"} <= set(written)


def test_data_reads_no_annotations(tmp_path: Path) -> None:
    """The same batches, whatever is annotated."""
    whole, bare = (
        DialogueData(Simulated(num_dialogues=20, labelled=share), Features(), {}, tmp_path, augment=SwappedResponses)
        for share in (1.0, 0.0)
    )
    for module in (whole, bare):
        module.setup()
    assert whole.augment is not None
    assert bare.augment is not None
    assert [whole.augment(d, 1) for d in whole.train] == [bare.augment(d, 1) for d in bare.train]
