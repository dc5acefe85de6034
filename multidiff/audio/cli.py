"""Commands of vocoders."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from multidiff.audio.data.mel_scale import mel_scale_named
from multidiff.audio.data.sound import EXTENSIONS, WRITTEN, SoundFormat
from multidiff.audio.mel import preset_named
from multidiff.audio.metrics.evaluation import Clip, Scores, clips_of, evaluate, write_items
from multidiff.audio.metrics.pairs import METRICS
from multidiff.audio.synthesis import Synthesis, find_inputs, synthesize_file
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig, write_plans
from multidiff.audio.vocoder.model import Vocoder
from multidiff.audio.vocoder.search import distance_on, search
from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.packages import PackageError
from multidiff.utils.report import Report, table

logger = logging.getLogger(__name__)

SOUND, ITEMS = ".wav", "items.csv"
# Number of clips that a search uses, and seconds of each.
SEARCH_CLIPS, SEARCH_SECONDS = 6, 3.0


def synth(
    model: Vocoder,
    inputs: Sequence[Path],
    out: Path,
    *,
    seed: int,
    sampling: VocoderSamplingConfig,
    mel_scale: str | None = None,
    mel_preset: str | None = None,
    sound_format: SoundFormat,
) -> Report:
    """Synthesise recordings and mels into sound files.

    Args:
        model: the vocoder.
        inputs: files and folders.
        out: sound file for one input, folder for several.
        seed: random seed.
        sampling: options of synthesis.
        mel_scale: scale of mel files that state none: natural, log10, decibels, linear, preset,
            range:LOW:HIGH:FROM:TO, standard:MEAN:STD, times:FACTOR:OFFSET.
        mel_preset: preset of mel files that state none.
        sound_format: kind of the samples in sound files.

    Raises:
        InputError: if an option or the only input is wrong.
    """
    if mel_scale is not None:
        mel_scale_named(mel_scale)
    if mel_preset is not None:
        preset_named(mel_preset)
    jobs = outputs_for(find_inputs(list(inputs)), out, inputs)
    for _, output in jobs[:1]:
        sound_format.check(output)
    done: list[Synthesis] = []
    faults: list[str] = []
    for source, output in jobs:
        try:
            made = synthesize_file(
                model, source, output, seed=seed, config=sampling,
                mel_scale=mel_scale, mel_preset=mel_preset, sound_format=sound_format,
            )  # fmt: skip
            done.append(made)
        except PackageError:
            raise
        except InputError as fault:
            faults.append(str(fault))
    several = sum(one.channels > 1 for one in done)
    if several and sound_format.channels == 1:
        logger.warning(
            "%d of %d recordings have several channels: the output has one", several, len(done)
        )
    return Report([_line(one) for one in done], _facts(done, sampling.steps), faults)


def outputs_for(
    files: Sequence[Path], out: Path, inputs: Sequence[Path]
) -> list[tuple[Path, Path]]:
    """Return the output file of each input.

    Raises:
        InputError: if two inputs have the same output, or its format cannot be written.
    """
    if out.suffix.lower() in set(EXTENSIONS) - set(WRITTEN):
        raise InputError(f"{out}: sound is written as {' or '.join(WRITTEN)}")
    if len(files) == 1 and not any(resolve_path(path).is_dir() for path in inputs):
        is_file = out.suffix.lower() in WRITTEN
        return [(files[0], out if is_file else out / f"{files[0].stem}{SOUND}")]
    if out.suffix.lower() in WRITTEN:
        raise InputError(f"{out}: {len(files)} inputs do not fit into one file; name a folder")
    pairs = [(file, out / f"{file.stem}{SOUND}") for file in files]
    _check_distinct(pairs)
    return pairs


def _check_distinct(pairs: Sequence[tuple[Path, Path]]) -> None:
    taken: dict[Path, Path] = {}
    for file, output in pairs:
        if output in taken:
            raise InputError(f"{file}: would be written to {output}, as would {taken[output]}")
        taken[output] = file


def _line(one: Synthesis) -> str:
    threads = f"{one.threads} thread{'s' if one.threads > 1 else ''}"
    return (
        f"{one.output}: {one.seconds:.2f} s of sound in {one.wall_seconds:.2f} s, "
        f"real-time factor {one.real_time_factor:.3f} on {threads}"
    )


def _facts(done: Sequence[Synthesis], steps: int) -> dict[str, Any]:
    seconds = sum(one.seconds for one in done)
    wall = sum(one.wall_seconds for one in done)
    return {
        "outputs": [
            {"input": one.input, "output": one.output, "seconds": round(one.seconds, 4)}
            for one in done
        ],
        "steps": steps,
        "seconds": round(seconds, 4),
        "wall_seconds": round(wall, 4),
        "real_time_factor": round(wall / seconds, 4) if seconds else None,
        "threads": torch.get_num_threads(),
    }


def sample(
    model: Vocoder,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    seed: FirstSeeds,
    sampling: VocoderSamplingConfig,
    sound_format: SoundFormat,
) -> Report:
    """Write several samples of each prompt, which for a vocoder is a recording or a mel.

    Args:
        model: the vocoder.
        num: number of sounds of each prompt; sound ``i`` of each uses seed ``seed + i``.
        prompts: recordings and mel files.
        out: folder of the sounds.
        seed: random seed of each prompt's first sound; a sequence has one for each.
        sampling: options of synthesis.
        sound_format: kind of the samples in sound files.

    Raises:
        InputError: if a prompt or the output folder is missing, or two sounds have one name.
    """
    if not prompts:
        raise InputError("a vocoder speaks from a mel: give --prompt a recording or a mel file")
    if out is None:
        raise InputError("-o OUT: name a folder for the sound files")
    sources = find_inputs([Path(prompt) for prompt in prompts])
    ranges = zip(sources, seed_ranges(seed, len(sources), num), strict=True)
    jobs = [(source, number) for source, seeds in ranges for number in seeds]
    pairs = [(source, out / f"{source.stem}-{number}{SOUND}") for source, number in jobs]
    _check_distinct(pairs)
    done = [
        synthesize_file(
            model, source, output, seed=number, config=sampling, sound_format=sound_format
        )
        for (source, output), (_, number) in zip(pairs, jobs, strict=True)
    ]
    return Report([_line(one) for one in done], _facts(done, sampling.steps))


def measure(
    model: Vocoder,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    sampling: VocoderSamplingConfig,
    held_out_every: int = 0,
    search_steps: tuple[int, ...] = (),
    per_item: Path | None = None,
) -> Report:
    """Measure the vocoder on recordings, beside network and projection alone and Griffin-Lim.

    Args:
        model: the vocoder.
        data: source of recordings; the package's own by default.
        folder: folder of the model, where searched inference schedules are stored.
        seed: random seed.
        sampling: options of synthesis.
        held_out_every: n to use only every n-th recording, which training with n held out.
        search_steps: numbers of evaluations to search the best inference schedules for first;
            they are stored.
        per_item: folder to write every sound to, and their figures as items.csv.
    """
    clips = clips_of("starter:speech" if data is None else data, model.preset, held_out_every)
    lines = []
    if search_steps:
        lines = search_plans(model, clips, folder, search_steps)
    scores = evaluate(model, clips, sampling, seed, per_item)
    if per_item is not None:
        write_items(per_item / ITEMS, clips, scores)
    return Report(lines + score_table(scores), _score_facts(scores, len(clips)))


def search_plans(
    model: Vocoder, clips: Sequence[Clip], folder: Path, numbers: Sequence[int]
) -> list[str]:
    """Search for inference schedules, store them, and return lines on the result."""
    hop, rate = model.preset.hop_length, model.preset.sample_rate_hz
    frames = int(SEARCH_SECONDS * rate / hop)
    chosen = clips[:: max(len(clips) // SEARCH_CLIPS, 1)][:SEARCH_CLIPS]
    short = [Clip(c.name, c.wave[: frames * hop], c.mel[:, :frames]) for c in chosen]
    objective = distance_on(model, short)
    lines = []
    for number in numbers:
        plan, value = search(objective, model.plan(steps=number), bounds=model.log_snr_bounds())
        model.searched[number] = plan
        write_plans(folder, model.searched)
        lines.append(f"{number} evaluations: distance {value:.4f}, kept in {folder}")
    return lines


def score_table(scores: Sequence[Scores]) -> list[str]:
    """Format scores as lines of text."""
    heading = ["system", *(name for name, _ in METRICS.values()), "RTF"]
    rows = [
        [
            one.system,
            *(_number(one.metrics.get(key, math.nan)) for key in METRICS),
            _number(one.real_time_factor),
        ]
        for one in scores
    ]
    return table([heading, *rows])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _score_facts(scores: Sequence[Scores], count: int) -> dict[str, Any]:
    return {
        "clips": count,
        "threads": torch.get_num_threads(),
        "systems": [
            {
                "system": one.system,
                **{
                    key: None if math.isnan(value) else round(value, 4)
                    for key, value in {
                        "real_time_factor": one.real_time_factor,
                        **one.metrics,
                    }.items()
                },
            }
            for one in scores
        ],
    }
