"""Spoken SGD requests with defects that the words alone do not tell: python experiments/audio/make.py SGD_FOLDER OUTPUT

Short requests are spoken by espeak-ng (`apt-get install espeak-ng`), by many voices, in noise of many levels. OUTPUT receives the
recordings, and two corpora of one-turn dialogues, each with train.jsonl and test.jsonl (a request stands in one of them):

- substituted/: of each tenth request three are not what was said: another value of the same slot, or another request. Those are noisier,
  on average; every request is in some noise. Defect: the words are wrong.
- recognised/: pocketsphinx (`pip install pocketsphinx`, with the English model that it brings, and a language model of other SGD requests)
  hears the requests at four signal-to-noise ratios, and says how sure it is. Defect: a slot value that was said is not in its words.
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
    """In small letters, as the recogniser writes them."""
    return re.findall(r"[a-z']+", text.lower())


def speakable(text: str, known: set[str]) -> bool:
    """Has the recogniser's dictionary every word, and is there no number?"""
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
    """16 kHz, at a voice, speed and pitch of chance."""
    voice = ["-v", str(draws.choice(VOICES)), "-s", str(draws.integers(135, 180)), "-p", str(draws.integers(35, 65))]
    said = subprocess.run(["espeak-ng", *voice, "--stdout", text], capture_output=True, check=True).stdout
    wave, rate = soundfile.read(io.BytesIO(said), dtype="float32")
    return np.asarray(soxr.resample(wave, rate, RATE))


def in_noise(wave: np.ndarray, snr: float, babble: Sequence[np.ndarray], draws: np.random.Generator) -> np.ndarray:
    """The wave in pink noise, or among five other voices, at a signal-to-noise ratio in dB and a level of chance."""
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
    """What was heard, and how sure it is: the posterior of the whole, as the geometric mean over its words."""
    decoder.start_utt()
    decoder.process_raw((wave * 32767).astype("<i2").tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    text = found.hypstr if found else ""
    return text, float(min(1.0, found.prob) ** (1 / max(1, len(text.split())))) if found else 0.0


def record(request: Request, text: str, defect: bool, audio: Path, snr: float, **numerical: float) -> dict[str, Any]:
    turn = {"request": text, "response": RESPONSE, "audio": str(audio.resolve()), "defect": defect, "numerical": numerical}
    return {"id": request.name, "turns": [turn], "metadata": {"said": request.text, "snr": round(snr, 1)}}


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


def substituted(said: Sequence[Spoken], folder: Path, draws: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Records of which some do not hold what was said."""
    requests, babble = [one.request for one in said], [one.wave for one in said]
    values = defaultdict(list)
    for request in requests:
        for name, start, end in request.slots:
            values[name].append(request.text[start:end])
    for k, (request, wave) in enumerate(said):
        wrong = bool(draws.random() < WRONG)
        text = misheard(request, requests, values, draws) if wrong else request.text
        snr = draws.normal(WRONG_SNR if wrong else RIGHT_SNR, SPREAD)
        path = folder / f"{k}-substituted.flac"
        soundfile.write(path, in_noise(wave, snr, babble, draws), RATE)
        yield record(request, text, text != request.text, path, snr)


def recognised(said: Sequence[Spoken], decoder: Decoder, folder: Path, draws: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Records that hold what the recogniser heard."""
    babble = [one.wave for one in said]
    for k, (request, wave) in enumerate(tqdm(said, desc="pocketsphinx")):
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
    said = [Spoken(request, speak(request.text, voice)) for request in tqdm(requests, desc="espeak-ng")]
    write(list(substituted(said, recordings, first)), folder / "substituted")
    write(list(recognised(said, recogniser(others, folder / "requests.lm"), recordings, second)), folder / "recognised")


if __name__ == "__main__":
    main(*sys.argv[1:])
