"""Spoken SGD requests with defects that the words alone do not reveal: python experiments/audio/make.py SGD_FOLDER OUTPUT

Short requests are spoken by espeak-ng (`apt-get install espeak-ng`), by many voices, in noise at many levels. OUTPUT receives the
recordings and two corpora of one-turn dialogues, each with train.jsonl and test.jsonl (a request is in one of them):

- substituted/: three of ten requests are replaced by other words: another value of the same slot, or another request. Their recordings are
  noisier on average. Every recording has some noise. Defect: the words are wrong.
- recognised/: pocketsphinx (`pip install pocketsphinx`, with the English model that it brings, and a language model of other SGD requests)
  transcribes the requests at four signal-to-noise ratios, with a confidence. Defect: a slot value that was spoken is not in the transcript.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from pocketsphinx import Decoder, get_model_path
from pocketsphinx.lm import ArpaBoLM
from tqdm import tqdm

from labelgen.corpora.sgd import SGD
from labelgen.inputs.audio import read_wave

REQUESTS, TEST = 2000, 400
WRONG = 0.3
RIGHT_SNR, WRONG_SNR, SPREAD = 15.0, 5.0, 6.0  # dB, of substituted/
RECOGNISED_SNR = (30.0, 20.0, 15.0, 10.0)  # dB, of recognised/
RATE = 16_000
VOICES = ("en-us", "en-us+f2", "en-us+f4", "en-us+m3", "en-gb", "en-gb+f3", "en-gb-scotland", "en-gb-x-rp+m7")
RESPONSE = "All right, one moment."


class Request(NamedTuple):
    """A request with its spans of slots: name, start, end."""

    name: str
    text: str
    slots: tuple[tuple[str, int, int], ...]


class Spoken(NamedTuple):
    """A request and its sound, 16 kHz."""

    request: Request
    wave: np.ndarray


def words(text: str) -> list[str]:
    """In lower case, as the recogniser writes."""
    return re.findall(r"[a-z']+", text.lower())


def speakable(text: str, known: set[str]) -> bool:
    """Whether the recogniser's dictionary has every word, and there is no number."""
    return not re.search(r"[^A-Za-z' ,.?!]", text) and all(word in known for word in words(text))


def choose(root: str, known: set[str], draws: np.random.Generator) -> tuple[list[Request], list[list[str]]]:
    """One short request with a slot of each dialogue, no text twice; and the words of requests of other dialogues."""
    found: dict[str, Request] = {}
    others = []
    for dialogue in SGD(root, "train").read():
        usable = []
        for t, turn in enumerate(dialogue.turns):
            spans = tuple((slot.name, slot.start, slot.end) for slot in turn.request_slots or () if not slot.categorical)
            if turn.request and spans and 4 <= len(words(turn.request)) <= 12 and speakable(turn.request, known):
                usable.append(Request(f"{dialogue.id}/{t}", turn.request, spans))
        if usable and draws.random() < 0.5:
            request = usable[draws.integers(len(usable))]
            found.setdefault(request.text, request)
        else:
            others += [words(turn.request) for turn in dialogue.turns if turn.request and speakable(turn.request, known)]
    requests = list(found.values())
    return [requests[k] for k in draws.permutation(len(requests))[:REQUESTS]], others


def speak(text: str, draws: np.random.Generator) -> np.ndarray:
    """16 kHz, with a random voice, speed and pitch."""
    voice = ["-v", str(draws.choice(VOICES)), "-s", str(draws.integers(135, 180)), "-p", str(draws.integers(35, 65))]
    sound = subprocess.run(["espeak-ng", *voice, "--stdout", text], capture_output=True, check=True).stdout
    wave, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    return np.asarray(soxr.resample(wave, rate, RATE))


def in_noise(wave: np.ndarray, snr: float, babble: Sequence[np.ndarray], draws: np.random.Generator) -> np.ndarray:
    """The wave in pink noise, or among five other voices, at a signal-to-noise ratio in dB and a random level."""
    if draws.random() < 0.5:
        spectrum = np.fft.rfft(draws.normal(size=len(wave)))
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 10.0), len(wave))
    else:
        noise = np.sum([np.resize(babble[k], len(wave)) for k in draws.integers(len(babble), size=5)], axis=0)
    noise *= np.sqrt(np.mean(wave**2) / np.mean(noise**2) / 10 ** (snr / 10))
    mixed = wave + noise
    return np.asarray(mixed / np.abs(mixed).max() * draws.uniform(0.3, 0.9))


def misheard(request: Request, requests: Sequence[Request], values: dict[str, list[str]], draws: np.random.Generator) -> str:
    """Other words: another value of one of its slots, or another request."""
    name, start, end = request.slots[draws.integers(len(request.slots))]
    there = request.text[start:end]
    other = [value for value in values[name] if value.lower() != there.lower()]
    if other and draws.random() < 0.7:
        return request.text[:start] + other[draws.integers(len(other))] + request.text[end:]
    return requests[draws.integers(len(requests))].text


def recogniser(others: list[list[str]], file: Path) -> Decoder:
    """With a trigram model of the requests of other dialogues."""
    model = ArpaBoLM()
    model.read_corpus([f"<s> {' '.join(sentence)} </s>" for sentence in others if len(sentence) > 2])
    model.compute()
    with file.open("w", encoding="utf-8") as lines:
        model.write(lines)
    return Decoder(loglevel="FATAL", lm=str(file), fwdflat=False, maxhmmpf=3000, maxwpf=10, ds=2)  # fast, somewhat less exact


def recognise(decoder: Decoder, wave: np.ndarray) -> tuple[str, float]:
    """The transcript and its confidence: the posterior of the whole, as the geometric mean over its words."""
    decoder.start_utt()
    decoder.process_raw((wave * 32767).astype("<i2").tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    text = found.hypstr if found else ""
    return text, float(min(1.0, found.prob) ** (1 / max(1, len(text.split())))) if found else 0.0


def record(request: Request, text: str, defect: bool, audio: Path, snr: float, **numerical: float) -> dict[str, Any]:
    turn = {"request": text, "response": RESPONSE, "audio": str(audio.resolve()), "defect": defect, "numerical": numerical}
    return {"id": request.name, "turns": [turn], "metadata": {"spoken": request.text, "snr": round(snr, 1)}}


def write(records: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, part in (("test", records[:TEST]), ("train", records[TEST:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), "utf-8")
    defects = [row["turns"][0]["defect"] for row in records[:TEST]]
    order = np.argsort([row["metadata"]["snr"] for row in records[:TEST]], kind="stable")
    ranked = np.array(defects)[order]
    precision = (np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()
    print(
        f"{folder.name}: test {np.mean(defects):.1%} defects; ranked by the signal-to-noise ratio itself, average precision {precision:.3f}"
    )


def substituted(spoken: Sequence[Spoken], folder: Path, draws: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Records. Some do not hold the words that were spoken."""
    requests, babble = [one.request for one in spoken], [one.wave for one in spoken]
    values = defaultdict(list)
    for request in requests:
        for name, start, end in request.slots:
            values[name].append(request.text[start:end])
    for k, (request, wave) in enumerate(spoken):
        wrong = bool(draws.random() < WRONG)
        text = misheard(request, requests, values, draws) if wrong else request.text
        snr = draws.normal(WRONG_SNR if wrong else RIGHT_SNR, SPREAD)
        path = folder / f"{k}-substituted.flac"
        soundfile.write(path, in_noise(wave, snr, babble, draws), RATE)
        yield record(request, text, text != request.text, path, snr)


def recognised(spoken: Sequence[Spoken], decoder: Decoder, folder: Path, draws: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Records that hold the transcripts of the recogniser."""
    babble = [one.wave for one in spoken]
    for k, (request, wave) in enumerate(tqdm(spoken, desc="pocketsphinx")):
        snr = float(draws.choice(RECOGNISED_SNR))
        path = folder / f"{k}-recognised.flac"
        soundfile.write(path, in_noise(wave, snr, babble, draws), RATE)
        text, confidence = recognise(decoder, read_wave(str(path), RATE))
        values = [f" {' '.join(words(request.text[start:end]))} " for _, start, end in request.slots]
        missing = any(value not in f" {text} " for value in values)
        yield record(request, text, missing, path, snr, recogniser_confidence=confidence)


def main(root: str, output: str) -> None:
    folder = Path(output)
    recordings = folder / "recordings"
    recordings.mkdir(parents=True, exist_ok=True)
    known = {line.split()[0] for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text("utf-8").splitlines()}
    choice, voice, first, second = (np.random.default_rng(seed) for seed in range(4))
    requests, others = choose(root, known, choice)
    spoken = [Spoken(request, speak(request.text, voice)) for request in tqdm(requests, desc="espeak-ng")]
    write(list(substituted(spoken, recordings, first)), folder / "substituted")
    write(list(recognised(spoken, recogniser(others, folder / "requests.lm"), recordings, second)), folder / "recognised")


if __name__ == "__main__":
    main(*sys.argv[1:])
