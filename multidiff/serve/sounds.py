"""Sound behind the service: speech from text, and from mels and recordings, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from multidiff.audio.data.mel_scale import mel_scale_named
from multidiff.audio.mel import preset_named
from multidiff.audio.synthesis import trimmed
from multidiff.serve.families import Family
from multidiff.serve.jobs import DONE, Event, Job
from multidiff.serve.schemas import Fields, file_field, options_from, text_field
from multidiff.serve.settings import ServerSettings
from multidiff.serve.sound_uploads import mel_from
from multidiff.serve.wav import WAV, pcm, wav_header


def _sound(chunks: Iterable[np.ndarray], rate_hz: int, body: Any, job: Job) -> Event:
    """Pass on each chunk as it is made, and return the whole file."""
    parts: list[bytes] = []
    for number, samples in enumerate(chunks):
        job.check()
        parts.append(pcm(samples))
        if job.detailed:
            data = {"chunk": number, "sample_rate_hz": rate_hz}
            job.emit(Event("audio", data, parts[-1], "audio/L16"))
    content = b"".join(parts)
    facts = {"seed": body.seed, "seconds": round(len(content) / 2 / rate_hz, 4)}
    return Event(DONE, facts, wav_header(rate_hz, len(content)) + content, WAV)


def _speech_inputs(model: Any, settings: ServerSettings) -> Fields:
    names = ", ".join(model.text.speakers)
    about = f"name of the voice, the first by default: {names}"
    return {
        "text": text_field("text to speak", settings, ...),
        "speaker": text_field(about, settings, None),
    }


def _spoken(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    request = {"speaker": body.speaker, "seed": body.seed}
    request["config"] = options_from(body, model.sampling)
    if job.detailed:  # the first sound comes before its sentence is synthesised
        waves = model.stream(body.text, **request)
    else:
        waves = (one.wave for one in model.speak(body.text, **request))
    chunks = (wave.numpy() for wave in waves)
    return _sound(chunks, model.preset.sample_rate_hz, body, job)


def _vocoder_inputs(model: Any, settings: ServerSettings) -> Fields:
    scale = "scale of a mel file that states none, such as log10"
    preset = "preset of a mel file that states none"
    return {
        "input": file_field("recording or mel file", settings, ...),
        "mel_scale": (str | None, Field(None, max_length=100, description=scale)),
        "mel_preset": (str | None, Field(None, max_length=100, description=preset)),
    }


def _synthesised(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    config = options_from(body, model.sampling)
    if body.mel_scale is not None:
        mel_scale_named(body.mel_scale)
    if body.mel_preset is not None:
        preset_named(body.mel_preset)
    stated = body.mel_scale, body.mel_preset
    with mel_from("input", body.input, model.preset, settings, *stated) as (mel, num_samples):
        waves = model.stream(mel, seed=body.seed, config=config)
        return _sound(trimmed(waves, num_samples), model.preset.sample_rate_hz, body, job)


SPEECH = Family("speech", "Speak a text.", _speech_inputs, _spoken, WAV)
VOCODER = Family("vocoder", "Make sound of a mel or a recording.", _vocoder_inputs, _synthesised,
                 WAV)  # fmt: skip
