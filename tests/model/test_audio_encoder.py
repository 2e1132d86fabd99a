"""The audio branch: it learns, each recording is read alone, a turn without one is as if there were no branch, and exports carry it."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, WhisperConfig, WhisperFeatureExtractor, WhisperModel

import labelgen
from labelgen.dialogue import Dialogue
from labelgen.inputs.audio import LogMel, Recordings
from labelgen.inputs.batch import Batch, Collator, Group
from labelgen.inputs.features import FeatureSpace
from labelgen.model.audio_encoder import AudioEncoder, SmallAudioConfig
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task

RATE = 16_000
SMALL = SmallAudioConfig(layers=1, width=16, heads=2)
EXACT = {"rtol": 0.0, "atol": 1e-5}
Make = Callable[..., Encoder]


@pytest.fixture(scope="module")
def spoken(dialogues: list[Dialogue], tmp_path_factory: pytest.TempPathFactory) -> list[Dialogue]:
    """The dialogues; two of three requests have a recording: a tone in noise."""
    folder, draws = tmp_path_factory.mktemp("recordings"), np.random.default_rng(6)
    rows = []
    for dialogue in dialogues:
        turns = []
        for t, turn in enumerate(dialogue.turns):
            wave = 0.2 * np.sin(draws.uniform(0.1, 0.9) * np.arange(round(draws.uniform(0.2, 1.2) * RATE)))
            path = folder / f"{len(rows)}-{t}.flac"
            soundfile.write(path, wave + draws.normal(0, 0.02, len(wave)), RATE)
            turns.append(turn.model_copy(update={"audio": str(path) if t % 3 else None}))
        rows.append(dialogue.model_copy(update={"turns": turns}))
    return rows


@pytest.fixture(scope="module")
def listen(collate: Collator) -> Collator:
    """As training collates for an encoder that reads recordings."""
    return Collator(collate.texts, collate.features, collate.targets, recordings=Recordings(LogMel()))


def loud(encoder: Encoder) -> Encoder:
    """Every weight of the branch random: zeros would hide what they multiply."""
    assert encoder.audio_encoder is not None
    torch.manual_seed(8)
    for parameter in encoder.audio_encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def utterances(encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
    parts = encoder(batch).utterances.split([2 * number for number in batch.num_turns])
    return {dialogue.id: part for dialogue, part in zip(batch.dialogues, parts, strict=True)}


def test_recordings_stand_at_their_turns(spoken: list[Dialogue], listen: Collator) -> None:
    batch = listen(spoken)
    turns = [turn for dialogue in batch.dialogues for turn in dialogue.turns]
    assert batch.audio is not None
    assert sorted(batch.audio.turn.tolist()) == [t for t, turn in enumerate(turns) if turn.audio]
    for frames, row in zip(split(batch), batch.audio.turn.tolist(), strict=True):
        (alone,) = Recordings(LogMel())([Dialogue(id="x", turns=[turns[row]])])
        np.testing.assert_array_equal(frames, alone.frames.astype(np.float32))
    moved = batch.to("meta").audio
    assert moved is not None
    assert moved.frames.is_meta and moved.turn.is_meta


def split(batch: Batch) -> list[np.ndarray]:
    assert batch.audio is not None
    lengths = [length for count, length in batch.audio.groups for _ in range(count)]
    assert lengths == sorted(lengths)
    return [part.numpy() for part in batch.audio.frames.split(lengths)]


def test_many_recordings_are_of_equal_length(spoken: list[Dialogue], listen: Collator) -> None:
    audio = listen(spoken).audio
    assert audio is not None
    assert max(group.count for group in audio.groups) > 3


@pytest.mark.parametrize("gradients", [False, True])
def test_company_and_order_change_nothing(gradients: bool, make_encoder: Make, listen: Collator, spoken: list[Dialogue]) -> None:
    encoder = loud(make_encoder(audio=SMALL))
    with torch.set_grad_enabled(gradients):
        together = utterances(encoder, listen(spoken))
        permuted = utterances(encoder, listen(spoken[::-1]))
        alone = {key: value for dialogue in spoken for key, value in utterances(encoder, listen([dialogue])).items()}
    for found in (permuted, alone):
        torch.testing.assert_close(found, together, **EXACT)


def test_the_sound_is_heard(make_encoder: Make, listen: Collator, collate: Collator, spoken: list[Dialogue]) -> None:
    encoder = loud(make_encoder(audio=SMALL))
    with_sound, without = utterances(encoder, listen(spoken)), utterances(encoder, collate(spoken))
    assert all((with_sound[dialogue.id] - without[dialogue.id]).abs().max() > 1e-3 for dialogue in spoken if len(dialogue.turns) > 1)


def test_a_turn_without_audio_is_as_if_there_were_no_branch(
    make_encoder: Make, listen: Collator, collate: Collator, dialogues: list[Dialogue], spoken: list[Dialogue]
) -> None:
    heard, deaf = loud(make_encoder(audio=SMALL)), make_encoder().eval()
    names = deaf.state_dict().keys()
    assert heard.state_dict().keys() - names == {name for name in heard.state_dict() if name.startswith("audio_encoder.")}
    deaf.load_state_dict({name: value for name, value in heard.state_dict().items() if name in names})
    batch = listen(dialogues)
    assert batch.audio is None
    assert torch.equal(heard(batch).utterances, deaf(collate(dialogues)).utterances)
    mixed = [*spoken[:3], *dialogues[3:]]  # in a batch with dialogues that have audio, too
    found, wanted = utterances(heard, listen(mixed)), utterances(deaf, collate(mixed))
    for dialogue in mixed[3:]:
        assert torch.equal(found[dialogue.id], wanted[dialogue.id])


def test_a_new_branch_has_no_say_yet(make_encoder: Make, listen: Collator, spoken: list[Dialogue]) -> None:
    torch.testing.assert_close(
        make_encoder(audio=SMALL).eval()(listen(spoken)).utterances, make_encoder().eval()(listen(spoken)).utterances
    )


def test_unusable_recordings_leave_their_turns_to_the_text(
    make_encoder: Make, listen: Collator, collate: Collator, spoken: list[Dialogue], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(dialogue: Dialogue) -> Dialogue:
        turns = [turn.model_copy(update={"audio": f"{tmp_path}/nowhere/{dialogue.id}-{t}.wav"}) for t, turn in enumerate(dialogue.turns)]
        return dialogue.model_copy(update={"turns": turns})

    encoder = loud(make_encoder(audio=SMALL))
    rows = [broken(dialogue) for dialogue in spoken[:2]]
    with caplog.at_level(logging.WARNING):
        assert torch.equal(encoder(listen(rows)).utterances, encoder(collate(rows)).utterances)
    assert len(caplog.records) == sum(len(dialogue.turns) for dialogue in rows)
    for record in caplog.records:
        assert "there is no such file" in record.getMessage()


def test_the_branch_learns_what_only_the_sound_says(make_encoder: Make, listen: Collator, spoken: list[Dialogue]) -> None:
    """Same words, two pitches."""
    turn = next(turn for dialogue in spoken for turn in dialogue.turns if turn.audio)
    folder = Path(str(turn.audio)).parent
    rows = []
    for k in range(24):
        path, draws = folder / f"pitch{k}.wav", np.random.default_rng(k)
        wave = 0.2 * np.sin((0.1 if k % 2 else 0.5) * np.arange(draws.integers(4000, 9000))) + draws.normal(0, 0.02)
        soundfile.write(path, wave, RATE)
        rows.append(Dialogue(id=f"{k:02}", turns=[turn.model_copy(update={"audio": str(path)})]))
    encoder = make_encoder(audio=SMALL)
    head = nn.Linear(encoder.width, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    batch = listen(rows)
    wanted = torch.tensor([int(dialogue.id) % 2 for dialogue in batch.dialogues]).float()
    for _ in range(40):
        loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(batch).request)[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert encoder.audio_encoder is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.audio_encoder.parameters())


def test_wrong_settings_are_refused(make_encoder: Make) -> None:
    for wrong in (SmallAudioConfig(1, 15, 2), SmallAudioConfig(1, 16, 5), SmallAudioConfig(-1, 16, 2), SmallAudioConfig(1, 16, 0)):
        with pytest.raises(ValueError, match="multiple of 2 "):
            make_encoder(audio=wrong)


# -- encoders of others ----------------------------------------------------------------------------------------------------------


def wav2vec(folder: Path) -> nn.Module:
    convolutions = {"conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [20, 16], "num_feat_extract_layers": 2}
    attention = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = Wav2Vec2Model(Wav2Vec2Config(**convolutions, **attention, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return model


def whisper(folder: Path) -> nn.Module:
    layers = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (("layers", 2), ("attention_heads", 2))}
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16, "num_mel_bins": 8, "max_source_positions": 100}
    model = WhisperModel(WhisperConfig(**layers, **sizes, vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8, chunk_length=2).save_pretrained(folder)
    return model


@pytest.fixture(params=[wav2vec, whisper])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(9)
    return request.param(tmp_path).eval(), tmp_path


def test_a_published_encoder_computes_what_transformers_does(published: tuple[nn.Module, Path]) -> None:
    theirs, folder = published
    ours = AudioEncoder(str(folder), 12)
    waves = [np.random.default_rng(k).normal(0, 0.1, 5120 * k).astype(np.float32) for k in (1, 1, 3)]
    frames = [ours.backbone.extractor(wave) for wave in waves]
    groups = [Group(2, len(frames[0])), Group(1, len(frames[2]))]
    for training in (False, True):
        found = ours.train(training).backbone(torch.from_numpy(np.concatenate(frames)), groups)
        for wave, vector in zip(waves, found, strict=True):
            inputs = ours.backbone.extractor._extract(wave, sampling_rate=RATE, return_tensors="pt")
            with torch.no_grad():
                part: Any = theirs.encoder if isinstance(theirs, WhisperModel) else theirs
                torch.testing.assert_close(vector, part(**inputs).last_hidden_state[0].mean(0), **EXACT)


def test_a_published_encoder_learns_at_the_encoders_rate(
    published: tuple[nn.Module, Path], make_encoder: Make, collate: Collator, spoken: list[Dialogue]
) -> None:
    encoder = make_encoder(audio=str(published[1])).train()
    assert encoder.audio_encoder is not None
    slow = {id(parameter) for parameter, _ in encoder.parameter_depths()}
    assert slow >= {id(parameter) for parameter in encoder.audio_encoder.backbone.parameters() if parameter.requires_grad}
    assert not slow & {id(parameter) for parameter in encoder.audio_encoder.output_projection.parameters()}
    batch = Collator(collate.texts, collate.features, {}, recordings=encoder.recordings())(spoken[:2])
    nn.init.normal_(encoder.audio_encoder.output_projection.weight)
    encoder(batch).utterances.square().sum().backward()
    for name, parameter in encoder.audio_encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_missing_files_and_weights_are_named(published: tuple[nn.Module, Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = published[1]
    weights = load_file(folder / "model.safetensors")
    dropped = next(key for key in weights if "layers.1" in key and "encoder" in key)
    save_file({key: value for key, value in weights.items() if key != dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="the checkpoint lacks"):
        AudioEncoder(str(folder), 12)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json"):
        AudioEncoder(str(folder), 12)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        AudioEncoder(str(folder), 12)


# -- exports ---------------------------------------------------------------------------------------------------------------------


def check_export(
    audio: Any, make_encoder: Make, tasks: dict[str, Task], features: FeatureSpace, save: Callable[..., str], rows: list[Dialogue], to: Path
) -> None:
    from labelgen.labelling.export import export
    from labelgen.training.labeler import Labeler

    labeler = Labeler(loud(make_encoder(audio=audio)), {"defect": tasks["defect"]}, partial(torch.optim.AdamW)).eval()
    encoder = labeler.network.encoder
    export(save(labeler, features, to / "x.ckpt"), str(to / "export"))
    annotator = labelgen.load(to / "export")
    collate = Collator(labeler.network.text_encoder(), features, {}, recordings=encoder.recordings())
    batch = collate(rows)
    with torch.no_grad():
        wanted = dict(zip((d.id for d in batch.dialogues), labeler.network.predict(labeler.network(batch), batch, ""), strict=True))
    silent = {d.id: predictions["defect"].probabilities for d, predictions in annotator.predict(without_audio(rows))}
    for dialogue, predictions in annotator.predict(rows):
        np.testing.assert_allclose(predictions["defect"].probabilities, wanted[dialogue.id]["defect"].probabilities, atol=1e-5)
    assert any(np.abs(predictions["defect"].probabilities - silent[d.id]).max() > 1e-4 for d, predictions in annotator.predict(rows))
    config = json.loads((to / "export" / "config.json").read_text("utf-8"))
    assert config["encoder"]["audio"] == encoder.describe()["audio"]
    assert "with the recordings of requests" in (to / "export" / "README.md").read_text("utf-8")
    config["encoder"]["audio"] = "a/name"
    (to / "export" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="were changed since"):
        labelgen.load(to / "export")


def without_audio(rows: list[Dialogue]) -> list[Dialogue]:
    return [row.model_copy(update={"turns": [turn.model_copy(update={"audio": None}) for turn in row.turns]}) for row in rows]


def test_an_export_hears_the_same(
    make_encoder: Make, tasks: dict[str, Task], features: FeatureSpace, save_checkpoint: Callable[..., str], spoken: list[Dialogue],
    tmp_path: Path,
) -> None:  # fmt: skip
    check_export(SMALL, make_encoder, tasks, features, save_checkpoint, spoken[:4], tmp_path)


def test_an_export_of_a_published_encoder_needs_neither_its_files_nor_a_hub(
    published: tuple[nn.Module, Path], make_encoder: Make, tasks: dict[str, Task], features: FeatureSpace,
    save_checkpoint: Callable[..., str], spoken: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import huggingface_hub

    folder = published[1]

    def save(labeler: Any, space: FeatureSpace, path: Path) -> str:
        for file in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
            file.unlink()
        monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
        return save_checkpoint(labeler, space, path)

    check_export(str(folder), make_encoder, tasks, features, save, spoken[:4], tmp_path)
