"""A request's recording -> log-mel frames. A file that cannot be used is reported once, and its turn is read without audio.

`Turn.audio` names a recording by a path (relative to the working directory) or a URI. A log may name any file, and labelgen would fetch it
with this machine's credentials. So only paths of plain files and URIs of PROTOCOLS are opened (an https server may redirect). Formats are
wav, flac and all others that libsndfile decodes. MAX_SECONDS, MAX_SAMPLES (of all channels), MIN_RATE and MAX_RATE are limits.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import IO, Any, NamedTuple

import numpy as np

from labelgen.dialogue import Dialogue
from labelgen.io.paths import error_reason
from labelgen.io.progress import progress
from labelgen.io.wording import counted

log = logging.getLogger(__name__)
PROTOCOLS = ("file", "s3", "gs", "az", "abfs", "https")  # that a log may name; some others of fsspec run code
MIN_SECONDS, MAX_SECONDS = 0.02, 60.0  # a shorter recording has no speech sound; a longer one is not a request
MIN_RATE, MAX_RATE = 4_000, 192_000  # Hz
FULL_SCALE, CLIPPED = 0.999, 0.05  # clipped: more than this share of the samples is at full scale (of a full-scale sine, 0.03 is)
STEP_SECONDS = 0.32  # recordings are padded to a multiple of it, so that many are of equal length
MEL_BINS = 80
MAX_SAMPLES = 30_000_000  # of all channels together, 120 MB; a minute of stereo at 192 kHz has 23 million
MAX_BYTES = 4 * MAX_SAMPLES  # of a file that is fetched
TRANSIENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ESTALE}
TRANSIENT |= {errno.ENETUNREACH, errno.EHOSTUNREACH}  # errors of a disk on the network
UNKNOWN = 2**63 - 1  # what libsndfile gives as the number of samples if the header does not state it
KEPT_BYTES = 2_000_000_000  # of frames in memory: about 11 hours of log-mel


class AudioError(ValueError):
    """A recording that cannot be used: what is wrong and what to do."""


def read_wave(uri: str, rate: int) -> np.ndarray:
    """The recording as float32 [samples] in [-1, 1], the mean of its channels, at `rate` Hz. AudioError if it cannot be used.

    Transient errors are raised unchanged: some errors of a disk, and all of a store except a missing file.
    """
    import soundfile
    import soxr

    try:
        with _open(uri) as file:
            if not file.read(1):
                raise AudioError("the file is empty; record it again, or leave the turn's audio out")
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                source_rate = _usable_rate(sound)
                samples = sound.read(dtype="float32", always_2d=True)
                if len(samples) < sound.frames:
                    raise AudioError(f"cut short: {len(samples)} of {sound.frames} samples are there; fetch the file again")
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError("there is no such file; correct the path (relative ones start at the working directory)") from None
    except Exception as error:  # errors of file systems and decoders have no common type
        transient = isinstance(error, TimeoutError | ConnectionError | MemoryError) or getattr(error, "errno", None) in TRANSIENT
        if transient or not (_protocol(uri) == "file" or isinstance(error, ValueError | soundfile.LibsndfileError)):
            raise
        raise AudioError(f"cannot be read ({type(error).__name__}: {error_reason(error)}); is it a whole wav or flac file?") from None
    _check_samples(samples, source_rate)
    wave = samples.mean(axis=1)
    return wave if source_rate == rate else np.asarray(soxr.resample(wave, source_rate, rate), np.float32)


def _open(uri: str) -> IO[bytes]:
    """Opens the file of a path or URI."""
    from fsspec.core import url_to_fs

    protocol = _protocol(uri)
    if "::" in uri or protocol not in PROTOCOLS:
        named = "a chain of protocols (::)" if "::" in uri else f"the protocol {protocol!r}"
        raise AudioError(f"{named} is not opened for a log; give a path or a URI of {', '.join(PROTOCOLS)}, or fetch the file first")
    system, path = url_to_fs(uri)
    if protocol == "file" and system.exists(path) and not system.isfile(path):  # a pipe would wait for ever
        raise AudioError("a folder, pipe or device; give the path of a plain file")
    file: IO[bytes] = system.open(path, "rb")
    if protocol == "file":
        return file
    with file:
        content = file.read(MAX_BYTES + 1)  # all at once, because a decoder takes a failed read for the end of the file
    if len(content) > MAX_BYTES:
        raise AudioError(f"more than {MAX_BYTES / 1e6:.0f} MB; a request's recording has less, cut the turn out of the call")
    return BytesIO(content)


def _protocol(uri: str) -> str:
    from fsspec.core import split_protocol

    return split_protocol(uri)[0] or "file"


def _usable_rate(sound: Any) -> int:
    """The rate in Hz. AudioError if the header says that the recording cannot be used."""
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise AudioError(f"its rate of {sound.samplerate} Hz is wrong, or too low for speech; give {MIN_RATE} to {MAX_RATE} Hz, best 16000")
    if sound.frames == UNKNOWN:
        raise AudioError("its header has no length (was it written to a pipe?); convert it again, to a file")
    if (seconds := sound.frames / sound.samplerate) > MAX_SECONDS:
        raise AudioError(f"{seconds:.0f} s long; a request's recording has {MAX_SECONDS:.0f} s at most, cut the turn out of the call")
    if sound.frames * sound.channels > MAX_SAMPLES:
        raise AudioError(f"{sound.channels} channels of {sound.frames} samples; mix them down to one")
    return int(sound.samplerate)


def _check_samples(samples: np.ndarray, rate: int) -> None:
    """AudioError if the samples, [samples, channels], cannot be used."""
    if len(samples) < MIN_SECONDS * rate:
        raise AudioError(f"{len(samples)} samples are less than {MIN_SECONDS} s; leave the turn's audio out")
    if not np.isfinite(samples).all():
        raise AudioError("some samples are not finite numbers; convert it again, to 16-bit wav")
    if np.ptp(samples.mean(axis=1)) == 0:
        raise AudioError("silent: every sample is the same; was the microphone off? Leave the turn's audio out")
    if (share := float((np.abs(samples) >= FULL_SCALE).mean(axis=0).max())) > CLIPPED:  # the mean of channels would hide it
        raise AudioError(f"clipped: {share:.0%} of the samples are at full scale; record it at a lower level")


class LogMel:
    """80 log-mel energies every 10 ms, as Whisper's feature extractor computes them (Radford et al. 2022), without padding to 30 s."""

    rate = 16_000

    def __init__(self) -> None:
        from transformers import WhisperFeatureExtractor  # seconds to import

        self._extract = WhisperFeatureExtractor(feature_size=MEL_BINS, sampling_rate=self.rate)

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        inputs = self._extract(wave, sampling_rate=self.rate, padding="do_not_pad", truncation=False, return_tensors="np")
        frames: np.ndarray = inputs["input_features"][0].T
        return frames


class PublishedExtractor:
    """The feature extractor that a published audio encoder was trained with. `settings` is its preprocessor_config.json.

    It may cut recordings that are longer than its encoder reads (Whisper: 30 s).
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from transformers import SequenceFeatureExtractor
        from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name

        name = str(settings.get("feature_extractor_type"))
        kind: Any = feature_extractor_class_from_name(name)
        if not (isinstance(kind, type) and issubclass(kind, SequenceFeatureExtractor)):
            raise ValueError(f"preprocessor_config.json: feature_extractor_type {name!r} is no audio feature extractor of transformers")
        extractor: Any = kind.from_dict(dict(settings))
        self._extract = extractor
        self.rate = int(extractor.sampling_rate)

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        inputs = self._extract(wave, sampling_rate=self.rate, return_tensors="np")
        frames: np.ndarray = inputs[self._extract.model_input_names[0]][0]
        return frames if frames.ndim == 2 else frames[:, None]  # the wave itself: one number per sample


Extractor = LogMel | PublishedExtractor  # a function of the wave alone: [samples] at `rate` -> frames [A, C]


class Recording(NamedTuple):
    """The frames [A, C] of a recording. `turn` is the index of its turn among all turns of the dialogues."""

    turn: int
    frames: np.ndarray


class Recordings:
    """Dialogues -> the frames of their recordings. `keep` keeps them in memory, as float16. `unusable` counts files that were refused."""

    def __init__(self, extractor: Extractor, kept_bytes: int = KEPT_BYTES) -> None:
        self._extractor, self._free_bytes = extractor, kept_bytes
        self._kept: dict[str, np.ndarray] = {}
        self._unusable: set[str] = set()

    @property
    def unusable(self) -> int:
        """Files that were refused so far."""
        return len(self._unusable)

    def keep(self, dialogues: Sequence[Dialogue]) -> None:
        """Reads recordings and keeps their frames, up to `kept_bytes`. The others are read each time they are needed."""
        wanted = {turn.audio: (dialogue.id, t) for dialogue in dialogues for t, turn in enumerate(dialogue.turns) if turn.audio}
        for uri, (dialogue_id, t) in progress(wanted.items(), "recordings", "file", len(wanted)):
            frames = self._frames(uri, dialogue_id, t)
            if frames is None or uri in self._kept:
                continue
            if frames.nbytes > self._free_bytes:
                log.info("recordings kept in memory: %d of %d; the others are read each time", len(self._kept), len(wanted))
                break
            self._kept[uri] = frames
            self._free_bytes -= frames.nbytes
        if self._unusable:
            log.warning("%s could not be used; their turns are read without audio", counted(self.unusable, "recording"))

    def __call__(self, dialogues: Iterable[Dialogue]) -> list[Recording]:
        """The recordings that can be used, shortest first."""
        turns = [(dialogue.id, t, turn.audio) for dialogue in dialogues for t, turn in enumerate(dialogue.turns)]
        found = ((index, self._frames(uri, name, t)) for index, (name, t, uri) in enumerate(turns) if uri)
        recordings = [Recording(index, frames) for index, frames in found if frames is not None]
        return sorted(recordings, key=lambda recording: len(recording.frames))

    def _frames(self, uri: str, dialogue_id: str, turn: int) -> np.ndarray | None:
        if uri in self._kept:
            return self._kept[uri]
        if uri in self._unusable:
            return None
        try:
            wave = read_wave(uri, self._extractor.rate)
            frames = self._extractor(padded(wave, self._extractor.rate)).astype(np.float16)
        except AudioError as error:
            log.warning("dialogue %r, turn %d: %s: %s (read without audio)", dialogue_id, turn, uri, error)
            self._unusable.add(uri)
            return None
        return frames


def padded(wave: np.ndarray, rate: int) -> np.ndarray:
    """The wave with silence after it, up to a multiple of STEP_SECONDS."""
    return np.pad(wave, (0, -len(wave) % round(STEP_SECONDS * rate)))
