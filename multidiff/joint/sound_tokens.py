"""Short sounds as tokens: an autoencoder of log mels with finite scalar quantization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.core.random import Rng
from multidiff.image.autoencoders.discriminator import PatchDiscriminator
from multidiff.image.autoencoders.quantizers import FSQ, Quantized, perplexity, usage
from multidiff.image.autoencoders.training import AutoencoderTrainer
from multidiff.joint.records import Cell, usable
from multidiff.nn.convnext import ConvNeXtBlock
from multidiff.utils.errors import InputError

# Peaks below this are silence.
QUIETEST = 1e-3


class MelAutoencoder(nn.Module):
    """Autoencoder from mels of one length to tokens.

    Two frames become one position with a token of each group; tokens are in the order of time, the
    groups of a position beside each other. Sounds that are shorter end in silence.

    Args:
        mel: the preset, or its name.
        frames: number of mel frames, even.
        width: number of channels.
        layers: number of blocks of the encoder at each of its two rates; the decoder has as many
            at the lower rate, and twice as many at the full one.
        levels: number of levels of each quantized channel of a group.
        groups: number of tokens of a position.

    Raises:
        ValueError: if the number of frames is odd.
    """

    def __init__(
        self,
        mel: str | MelPreset,
        frames: int = 64,
        width: int = 160,
        layers: int = 2,
        levels: tuple[int, ...] = (5, 5, 5, 4),
        groups: int = 2,
    ):
        if frames < 2 or frames % 2 or groups < 1:
            raise ValueError(f"frames {frames}, groups {groups}: frames are even, groups 1 or more")
        super().__init__()
        self.preset, self.frames, self.groups = preset_named(mel), frames, groups
        self.quantizer = FSQ(levels)
        channels = groups * self.quantizer.width
        self.encoder = _MelEncoder(self.preset.n_mels, width, layers, channels)
        self.decoder = _MelDecoder(self.preset.n_mels, width, layers, channels)

    @property
    def size(self) -> int:
        """Number of distinct tokens."""
        return self.quantizer.size

    @property
    def length(self) -> int:
        """Number of tokens of a sound."""
        return self.frames // 2 * self.groups

    @property
    def num_samples(self) -> int:
        """Number of samples of the longest sound."""
        return self.preset.num_samples(self.frames)

    def unit(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch mels frames"]:
        """Return mels of waveforms of full length, scaled to [-1, 1]."""
        low, high = self.preset.level_range
        return 2 * (self.preset.mel(wave) - low) / (high - low) - 1

    def mel(self, unit: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch mels frames"]:
        """Return the preset's levels: the inverse of the scaling."""
        low, high = self.preset.level_range
        return low + (unit.clamp(-1, 1) + 1) * (high - low) / 2

    def encode(self, unit: Float[Tensor, "batch mels frames"]) -> Quantized:
        """Encode scaled mels; latents and tokens are ``(batch, ..., positions, groups)``."""
        latents = self.encoder(unit).unflatten(1, (self.groups, -1))
        return self.quantizer(latents.permute(0, 2, 3, 1))

    def decode(
        self, latents: Float[Tensor, "batch width positions groups"]
    ) -> Float[Tensor, "batch mels frames"]:
        """Decode quantized latents to scaled mels."""
        return self.decoder(latents.permute(0, 3, 1, 2).flatten(1, 2))

    @torch.no_grad()
    def tokens(self, wave: Float[Tensor, "batch samples"]) -> Int[Tensor, "batch length"]:
        """Encode waveforms of full length."""
        return self.encode(self.unit(wave)).tokens.flatten(1)

    @torch.no_grad()
    def sound_mel(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch mels frames"]:
        """Decode tokens to mels."""
        grid = tokens.unflatten(1, (-1, self.groups))
        return self.mel(self.decode(self.quantizer.lookup(grid)).float())

    def read(self, cell: Cell) -> Float[Tensor, " samples"]:
        """Return a sound file's samples at the preset's rate.

        Raises:
            InputError: if it cannot be read, is silent, or is longer.
        """
        name, rate, most = cell.name, self.preset.sample_rate_hz, self.num_samples
        wave = cell.value
        if not isinstance(wave, Tensor):
            wave = SoundFile(cell.file(), name).read(rate, whole=True)
        if wave.ndim != 1 or not wave.is_floating_point() or not len(wave):
            raise InputError(
                f"{name}: {tuple(wave.shape)} of {wave.dtype}; a sound is floats, (n,)"
            )
        wave = wave.float()
        if not bool(torch.isfinite(wave).all()):
            raise InputError(f"{name}: has samples that are not finite; repair the sound")
        if len(wave) > most:
            raise InputError(
                f"{name}: takes {len(wave) / rate:.2f} s, the longest sound of this model "
                f"{most / rate:.2f} s; cut it"
            )
        if float(wave.abs().max()) < QUIETEST:
            raise InputError(f"{name}: is silent; give another recording")
        return wave

    def padded(self, waves: Sequence[Float[Tensor, " samples"]]) -> Float[Tensor, "batch samples"]:
        """Return sounds as one batch, each followed by silence to full length."""
        return torch.stack([F.pad(one, (0, self.num_samples - len(one))) for one in waves])

    def own_length(self, num_samples: int) -> int:
        """Return the number of tokens of that many samples, without what pads them."""
        hops = -(-num_samples // self.preset.hop_length)
        positions = -(-self.preset.num_frames(hops * self.preset.hop_length) // 2)
        return min(positions * self.groups, self.length)


class _MelEncoder(nn.Module):
    def __init__(self, mels: int, width: int, layers: int, channels: int):
        super().__init__()
        self.conv_in = nn.Conv1d(mels, width, 5, padding=2)
        self.fast, self.slow = _blocks(width, layers), _blocks(width, layers)
        self.down = nn.Conv1d(width, width, 4, 2, 1)
        self.conv_out = nn.Conv1d(width, channels, 3, padding=1)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.down(_through(self.fast, self.conv_in(mel)))
        return self.conv_out(_through(self.slow, hidden))


class _MelDecoder(nn.Module):
    def __init__(self, mels: int, width: int, layers: int, channels: int):
        super().__init__()
        self.conv_in = nn.Conv1d(channels, width, 5, padding=2)
        self.slow, self.fast = _blocks(width, layers), _blocks(width, 2 * layers)
        self.up = nn.ConvTranspose1d(width, width, 4, 2, 1)
        self.conv_out = nn.Conv1d(width, mels, 5, padding=2)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.up(_through(self.slow, self.conv_in(latents)))
        return self.conv_out(_through(self.fast, hidden))


def _blocks(width: int, layers: int) -> nn.ModuleList:
    # There is no noise level: the blocks' embedding is the number 1.
    return nn.ModuleList(ConvNeXtBlock(width, 1, expansion=3) for _ in range(layers))


def _through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    x, one = x.transpose(1, 2), x.new_ones(len(x), 1)
    for block in blocks:
        x = block(x, one)
    return x.transpose(1, 2)


class SoundTokenizer(AutoencoderTrainer):
    """A trainable :class:`MelAutoencoder`; the discriminator sees mels as grey images.

    Args:
        autoencoder: network to train.
        discriminator: patch discriminator of one channel, or None; see
            :class:`~multidiff.image.autoencoders.training.AutoencoderTrainer`.
        adversarial_weight: weight of the adversarial loss.
        adversarial_from: number of batches before the adversarial loss begins.
        freezes_encoder: whether to train the decoder alone: tokens stay the same.
    """

    autoencoder: MelAutoencoder

    def __init__(
        self,
        autoencoder: MelAutoencoder,
        discriminator: PatchDiscriminator | None = None,
        adversarial_weight: float = 0.1,
        adversarial_from: int = 0,
        freezes_encoder: bool = False,
    ):
        super().__init__(
            autoencoder,  # pyright: ignore[reportArgumentType]
            discriminator,
            adversarial_weight,
            adversarial_from,
            perceptual=None,
            pad_to=0,
        )
        if freezes_encoder:
            autoencoder.encoder.requires_grad_(False)

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {
            "kind": "sound tokenizer",
            "mel": self.autoencoder.preset.name,
            "codes": str(self.autoencoder.size),
        }

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return errors of the mels, the adversarial losses and the use of the codes, by name."""
        read = usable(batch["audio"], self.autoencoder.read)
        sounds = [one for one in read if one is not None]
        if not sounds:
            raise InputError("no sound of a batch can be used: see above; or raise data.batch_size")
        waves = self.autoencoder.padded(sounds)
        unit = self.autoencoder.unit(waves.to(next(self.parameters()).device))
        quantized = self.autoencoder.encode(unit)
        made = self.autoencoder.decode(quantized.latents).float()
        measures = {"usage": usage, "perplexity": perplexity}
        described = {n: of(quantized.tokens, self.autoencoder.size) for n, of in measures.items()}
        return {
            **self.judged(unit[:, None], made[:, None]),
            **{name: value.expand(len(unit)) for name, value in described.items()},
        }
