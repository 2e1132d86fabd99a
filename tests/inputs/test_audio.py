"""Recordings: what is usable becomes the same frames however it is stored; what is not is reported with dialogue, turn and file."""

import errno
import logging
import os
import wave as wav
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs import audio as audio_module
from labelgen.inputs.audio import MAX_SECONDS, AudioError, LogMel, PublishedExtractor, Recordings, padded, read_wave

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, pitch: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = RATE, **options: str) -> str:
    soundfile.write(path, wave, rate, **options)
    return str(path)


def dialogue(*uris: str | None) -> Dialogue:
    return Dialogue(id="call 7", turns=[Turn(request="yes", audio=uri) for uri in uris])


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_recording_is_read_by_path_and_by_uri(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, tone())
    for uri in (path, Path(path).as_uri()):
        np.testing.assert_allclose(read_wave(uri, RATE), tone(), atol=1e-4)


def test_a_uri_of_another_file_system_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr(audio_module, "PROTOCOLS", ("file", "memory"))
    path = write(tmp_path / "a.wav", tone())
    with fsspec.open("memory://calls/a.wav", "wb") as file:
        file.write(Path(path).read_bytes())
    np.testing.assert_array_equal(read_wave("memory://calls/a.wav", RATE), read_wave(path, RATE))


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([tone(), 0.5 * tone()], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_wave(path, RATE), 0.75 * tone(), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_another_rate_is_resampled(rate: int, tmp_path: Path) -> None:
    found = read_wave(write(tmp_path / "a.wav", tone(1.0, rate), rate), RATE)
    assert found.dtype == np.float32
    assert abs(len(found) - RATE) <= 1
    middle = slice(2000, 14_000)
    np.testing.assert_allclose(found[middle], tone(1.0)[middle], atol=5e-3)


@pytest.mark.parametrize(
    "uri",
    [
        "memory://calls/a.wav", "http://169.254.169.254/a.wav", "reference://a.wav", "data:audio/wav;base64,UklGRg==", "dask://a.wav",
        "simplecache::file:///a.wav", "reference://a.wav::file:///calls.json", "file://a.zip::https://example.org/a", "a::b", "S3://a/b.wav",
    ],
)  # fmt: skip
def test_a_log_makes_no_other_protocol_open(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", None)
    with pytest.raises(
        AudioError, match=r"(the protocol '\w+'|a chain of protocols \(::\)) is not opened for a log; give a path or a URI of"
    ):
        read_wave(uri, RATE)


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


def an_hour(path: Path) -> str:
    """A header that promises an hour, over samples that are not on the disk (the file has a hole)."""
    with wav.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"\0\0" * 10)
    size = 2 * 3600 * RATE
    with path.open("r+b") as raw:
        raw.seek(4)
        raw.write((36 + size).to_bytes(4, "little"))
        raw.seek(40)
        raw.write(size.to_bytes(4, "little"))
        raw.truncate(44 + size)
    return str(path)


def cut_flac(path: Path) -> str:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    write(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


def not_sound(path: Path) -> str:
    path.write_bytes(b"these are words, and no sound at all\n" * 20)
    return str(path)


def empty(path: Path) -> str:
    path.touch()
    return str(path)


def without_length(path: Path) -> str:
    """A FLAC file as a pipe writes it: the header says 0 samples, which means unknown."""
    write(path, tone())
    found = bytearray(path.read_bytes())
    found[21] &= 0xF0  # 36 bits of the block STREAMINFO
    found[22:26] = bytes(4)
    path.write_bytes(found)
    return str(path)


UNUSABLE: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda path: str(path / "nowhere.wav"), "there is no such file"),
    "a folder": (str, "a folder, pipe or device"),
    "a pipe": (lambda path: a_pipe(path / "a.wav"), "a folder, pipe or device"),
    "a device": (lambda path: "/dev/zero", "a folder, pipe or device"),
    "unknown scheme": (lambda path: "nonesuch://calls/a.wav", "protocol 'nonesuch' is not opened"),
    "empty": (lambda path: empty(path / "a.wav"), "the file is empty"),
    "no samples": (lambda path: write(path / "a.wav", tone(0.0)), "0 samples are less than 0.02 s"),
    "not sound": (lambda path: not_sound(path / "a.wav"), "is it a whole wav or flac file"),
    "raw": (lambda path: not_sound(path / "a.raw"), "is it a whole wav or flac file"),
    "cut short": (lambda path: cut_flac(path / "a.flac"), "cut short|cannot be read"),
    "silent": (lambda path: write(path / "a.wav", 0 * tone()), "every sample is the same"),
    "constant": (lambda path: write(path / "a.wav", 0 * tone() + 0.5), "every sample is the same"),
    "not finite": (lambda path: write(path / "a.wav", np.append(tone(), np.nan), subtype="FLOAT"), "not finite"),
    "clipped": (lambda path: write(path / "a.wav", np.clip(tone(level=3.0), -1, 1)), r"clipped: 7\d% of the samples"),
    "one channel clipped": (
        lambda path: write(path / "a.wav", np.stack([tone(), np.clip(tone(level=3.0), -1, 1)], axis=1)),
        r"clipped: 7\d% of the samples",
    ),
    "low rate": (lambda path: write(path / "a.wav", tone(), 100), "rate of 100 Hz"),
    "high rate": (lambda path: write(path / "a.wav", tone(), 1_000_000), "rate of 1000000 Hz"),
    "an hour": (lambda path: an_hour(path / "a.wav"), "3600 s long"),
    "without length": (lambda path: without_length(path / "a.flac"), "its header has no length"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_cannot_be_used_is_reported_once_and_the_turn_is_read_without(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, problem = UNUSABLE[kind]
    bad, good = make(tmp_path), write(tmp_path / "good.wav", tone())
    with pytest.raises(AudioError, match=problem):
        read_wave(bad, RATE)
    recordings = Recordings(LogMel())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [one.turn for one in recordings([dialogue(None, bad, good)])] == [2]
    (message,) = [record.getMessage() for record in caplog.records]
    assert "'call 7', turn 1" in message
    assert bad in message
    assert recordings.unusable == 1


def test_many_channels_are_refused_without_being_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence in 255 channels takes kilobytes, and gigabytes once decoded."""
    soundfile.write(tmp_path / "a.wav", np.zeros((50 * RATE, 40), np.float32), RATE)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    with pytest.raises(AudioError, match="40 channels of 800000 samples; mix them down to one"):
        read_wave(str(tmp_path / "a.wav"), RATE)


def test_a_disk_that_fails_for_a_while_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, recordings = write(tmp_path / "a.wav", tone()), Recordings(LogMel())
    with monkeypatch.context() as patched:
        for number in (errno.EMFILE, errno.EHOSTUNREACH):
            patched.setattr("labelgen.inputs.audio._open", lambda uri, number=number: (_ for _ in ()).throw(OSError(number, "not now")))
            with pytest.raises(OSError, match="not now"):
                recordings([dialogue(path)])
    assert recordings.unusable == 0
    assert len(recordings([dialogue(path)])) == 1


@pytest.mark.parametrize("error", [PermissionError("token expired"), OSError(errno.EBUSY, "slow down"), RuntimeError("503")])
def test_only_a_missing_file_is_a_stores_last_word(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr(audio_module, "PROTOCOLS", ("file", "memory"))
    with pytest.raises(AudioError, match="no such file"):
        read_wave("memory://calls/none.wav", RATE)
    with fsspec.open("memory://calls/b.wav", "wb") as file:
        file.write(b"RIFF")
    with pytest.raises(AudioError, match="cannot be read"):
        read_wave("memory://calls/b.wav", RATE)
    monkeypatch.setattr(audio_module, "MAX_BYTES", 3)
    with pytest.raises(AudioError, match="more than 0 MB"):
        read_wave("memory://calls/b.wav", RATE)
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        read_wave("memory://calls/b.wav", RATE)


def test_an_hour_is_refused_without_being_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded")

    path = an_hour(tmp_path / "a.wav")
    monkeypatch.setattr(soundfile.SoundFile, "read", decode)
    with pytest.raises(AudioError, match="3600 s long; a request's recording has 60 s at most"):
        read_wave(path, RATE)


def test_what_is_just_usable_is_used(tmp_path: Path) -> None:
    longest = write(tmp_path / "long.flac", tone(MAX_SECONDS))
    assert len(read_wave(longest, RATE)) == MAX_SECONDS * RATE
    loud = write(tmp_path / "loud.wav", tone(level=1.0))
    assert np.abs(read_wave(loud, RATE)).max() > 0.999
    assert len(read_wave(write(tmp_path / "short.wav", tone(0.02)), RATE)) == 320


def test_log_mel_shows_the_pitch() -> None:
    found = [LogMel()(tone(1.0, pitch=pitch)) for pitch in (200.0, 400.0, 1000.0, 3000.0)]
    assert all(frames.shape == (100, 80) and frames.dtype == np.float32 for frames in found)
    peaks = [int(frames.mean(axis=0).argmax()) for frames in found]
    assert peaks == sorted(set(peaks)), "a higher tone lies in a higher bin"


def test_padding_is_silence_up_to_a_step() -> None:
    for samples in (1, 5119, 5120, 5121):
        wave = tone(1.0)[:samples]
        found = padded(wave, RATE)
        assert len(found) % 5120 == 0
        assert len(found) - samples < 5120
        np.testing.assert_array_equal(found[:samples], wave)
        assert not found[samples:].any()
        assert len(LogMel()(found)) % 32 == 0


def test_kept_or_read_read_again_frames_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [write(tmp_path / f"{k}.wav", tone(0.3 * k, pitch=100.0 * k)) for k in range(1, 6)]
    rows = [dialogue(uris[4], uris[0], None), dialogue(uris[2], uris[3], uris[1])]
    read_again = Recordings(LogMel())(rows)
    assert [one.turn for one in read_again] == [1, 5, 3, 4, 0]
    assert [len(one.frames) for one in read_again] == sorted(len(one.frames) for one in read_again)
    for room in (0, 60_000, 10_000_000):
        recordings = Recordings(LogMel(), kept_bytes=room)
        recordings.keep(rows)
        if room > 1_000_000:
            monkeypatch.setattr(audio_module, "read_wave", None)  # no file is opened again
        for found, wanted in zip(recordings(rows), read_again, strict=True):
            assert found.turn == wanted.turn
            np.testing.assert_array_equal(found.frames, wanted.frames)


def test_a_published_extractor_is_rebuilt_from_its_settings() -> None:
    from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

    wave = tone(0.64)
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True)
    found = PublishedExtractor(theirs.to_dict())(wave)
    np.testing.assert_array_equal(found[:, 0], theirs(wave, sampling_rate=RATE)["input_values"][0])
    whisper = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    assert PublishedExtractor(whisper.to_dict())(wave).shape == (16, 200)
    for wrong in ("ViTImageProcessor", "os", "None"):
        with pytest.raises(ValueError, match="is no audio feature extractor"):
            PublishedExtractor({"feature_extractor_type": wrong})
