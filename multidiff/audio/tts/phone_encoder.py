"""The text side of the acoustic model: phones to hidden vectors, durations and mean frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.audio.tts.phones import NUM_MARKS, PAUSES, parse_phones
from multidiff.nn.convnext import channel_dropout
from multidiff.utils.errors import InputError

# Symbols from the sentence's ends beyond which a phone does not know how far they are.
FARTHEST = 30
# Frames from a phone's ends beyond which a frame does not know how far they are.
LONGEST = 20
FRAME_FEATURES = 4


class ConvBlock(nn.Module):
    """Depthwise convolution, layer norm, inverted bottleneck, gated residual (ConvNeXt).

    Args:
        width: channels.
        kernel: length of the convolution, odd.
        expansion: width of the bottleneck over that of the block.
        dropout: probability that a channel of the bottleneck is zeroed in training, over the
            whole sentence.
    """

    def __init__(self, width: int, kernel: int, expansion: int, dropout: float):
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gate = nn.Parameter(torch.full((width,), 0.3))
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "batch length width"], mask: Float[Tensor, "batch length 1"]
    ) -> Float[Tensor, "batch length width"]:
        """Return the vectors after the block; what the mask leaves out is not looked at."""
        mixed = self.mix((x * mask).transpose(1, 2)).transpose(1, 2)
        hidden = F.gelu(self.widen(self.norm(mixed)), approximate="tanh")
        hidden = channel_dropout(hidden, self.dropout, self.training)
        return x + self.gate * self.narrow(hidden)


@dataclass(frozen=True)
class PhoneBatch:
    """Sentences as numbers, padded to the longest.

    Attributes:
        symbols: number of each phone in the model's table.
        marks: stress and word start (:attr:`~multidiff.audio.tts.phones.Phone.mark`).
        places: distances to the ends of the sentence, in [0, 1].
        speaker: number of each sentence's voice.
        mask: 1 at phones, 0 at padding.
        lengths: phones of each sentence.
    """

    symbols: Int[Tensor, "batch phones"]
    marks: Int[Tensor, "batch phones"]
    places: Float[Tensor, "batch phones 2"]
    speaker: Int[Tensor, " batch"]
    mask: Float[Tensor, "batch phones 1"]
    lengths: list[int]


@dataclass(frozen=True)
class FrameIndex:
    """Phone of each frame and position of the frame in it.

    Attributes:
        phone: number of the phone of each frame.
        features: how far the ends of the phone are, as a share and in frames.
    """

    phone: Int[np.ndarray, " frames"]
    features: Float[np.ndarray, "frames features"]


def frames_of(durations: np.ndarray) -> FrameIndex:
    """Return the frames of phones of these durations."""
    durations = np.asarray(durations, np.int64)
    phone = np.repeat(np.arange(len(durations)), durations)
    length = durations[phone].astype(np.float32)
    number = np.arange(len(phone)) - np.repeat(np.cumsum(durations) - durations, durations)
    share = (number + 0.5) / length
    near = np.minimum(number, LONGEST) / 10
    far = np.minimum(length - 1 - number, LONGEST) / 10
    return FrameIndex(phone, np.stack([share, 1 - share, near, far], axis=1).astype(np.float32))


class PhoneEncoder(nn.Module):
    """Phones to durations and to mean frames.

    Two mel frames share a position of the frame side, which halves its cost.

    Args:
        phonemes: IPA phones that it reads, besides the pauses; their order is that of the
            weights.
        speakers: names of its voices.
        n_mels: bands of the mel.
        width: channels.
        depth: blocks over the phones.
        frame_depth: blocks over the frames.
        dropout: dropout probability of the blocks over the phones.
        frame_dropout: dropout probability of the blocks over the frames.
        duration_dropout: dropout probability of the duration predictor's blocks.

    Raises:
        ValueError: if a phoneme or speaker is listed twice.
    """

    def __init__(
        self,
        phonemes: list[str],
        speakers: list[str],
        n_mels: int = 80,
        width: int = 192,
        depth: int = 6,
        frame_depth: int = 3,
        dropout: float = 0.1,
        frame_dropout: float = 0.1,
        duration_dropout: float = 0.2,
    ):
        super().__init__()
        names = [*PAUSES, *phonemes]
        for what, listed in (("phoneme", names), ("speaker", speakers)):
            twice = [one for one in listed if listed.count(one) > 1]
            if twice or not listed:
                raise ValueError(f"{what}s: {twice[0] if twice else 'none'} listed twice or empty")
        self.phonemes, self.speakers = phonemes, speakers
        self.numbers = {name: number for number, name in enumerate(names)}
        self.n_mels, self.width = n_mels, width
        self.symbol = nn.Embedding(len(names), width)
        self.mark = nn.Embedding(NUM_MARKS, width)
        self.speaker = nn.Embedding(len(speakers), width)
        self.place = nn.Linear(2, width)
        self.blocks = nn.ModuleList(ConvBlock(width, 5, 2, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.duration_blocks = nn.ModuleList(
            ConvBlock(width, 3, 1, duration_dropout) for _ in range(2)
        )
        self.duration_norm = nn.LayerNorm(width)
        self.duration = nn.Linear(width, 1)
        self.frame = nn.Linear(width + FRAME_FEATURES, width)
        self.pair = nn.Linear(2 * width, width)
        self.frame_blocks = nn.ModuleList(
            ConvBlock(width, 7, 2, frame_dropout) for _ in range(frame_depth)
        )
        self.frame_norm = nn.LayerNorm(width)
        self.mean = nn.Linear(width, 2 * n_mels)
        for table in (self.symbol, self.mark, self.speaker):
            nn.init.normal_(table.weight, std=0.5)
        nn.init.zeros_(self.duration.weight)
        nn.init.constant_(self.duration.bias, 1.8)  # six frames

    def read(self, phones: Sequence[str], speaker: Sequence[str]) -> PhoneBatch:
        """Return sentences as numbers.

        Args:
            phones: a line of phones for each (:func:`~multidiff.audio.tts.phones.parse_phones`).
            speaker: name of each sentence's voice.

        Raises:
            InputError: if the model does not know a phone or a speaker.
        """
        parsed = [parse_phones(line) for line in phones]
        lengths = [len(one) for one in parsed]
        shape = (len(parsed), max(lengths))
        symbols, marks = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        places, mask = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 1), np.float32)
        for row, sentence in enumerate(parsed):
            count = len(sentence)
            symbols[row, :count] = [self.number_of(one.symbol) for one in sentence]
            marks[row, :count] = [one.mark for one in sentence]
            place = np.minimum(np.arange(count), FARTHEST) / FARTHEST
            places[row, :count] = np.stack([place, place[::-1]], axis=1)
            mask[row, :count] = 1
        voices = np.array([self.speaker_number(name) for name in speaker])
        symbol, mark, near, voice, real = map(self._tensor, (symbols, marks, places, voices, mask))
        return PhoneBatch(symbol, mark, near, voice, real, lengths)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.mean.weight.device)

    def number_of(self, symbol: str) -> int:
        """Return a phone's number.

        Raises:
            InputError: if the model does not know it.
        """
        if symbol not in self.numbers:
            raise InputError(
                f"phone {symbol!r}: the model does not know it; it has {' '.join(self.numbers)}"
            )
        return self.numbers[symbol]

    def speaker_number(self, name: str) -> int:
        """Return a speaker's number.

        Raises:
            InputError: if the model does not know it.
        """
        if name not in self.speakers:
            raise InputError(f"speaker {name!r}: the model has {', '.join(self.speakers)}")
        return self.speakers.index(name)

    def hidden(self, batch: PhoneBatch) -> Float[Tensor, "batch phones width"]:
        """Return a vector for each phone."""
        x = self.symbol(batch.symbols) + self.mark(batch.marks) + self.place(batch.places)
        x = x + self.speaker(batch.speaker)[:, None]
        for block in self.blocks:
            x = block(x, batch.mask)
        return self.norm(x)

    def log_durations(
        self, hidden: Float[Tensor, "batch phones width"], batch: PhoneBatch
    ) -> Float[Tensor, "batch phones"]:
        """Return the natural logarithm of each phone's frames; trains nothing before it."""
        x = hidden.detach()
        for block in self.duration_blocks:
            x = block(x, batch.mask)
        return self.duration(self.duration_norm(x))[..., 0]

    def frames(
        self,
        hidden: Float[Tensor, "batch phones width"],
        phone: Int[Tensor, "batch frames"],
        features: Float[Tensor, "batch frames features"],
        mask: Float[Tensor, "batch frames"],
    ) -> tuple[Float[Tensor, "batch pairs width"], Float[Tensor, "batch frames mels"]]:
        """Return the vectors of pairs of frames, and the mean mel (standardised).

        Args:
            hidden: a vector for each phone.
            phone: the phone of each frame; an even number of frames.
            features: where in it the frame lies (:func:`frames_of`).
            mask: 1 at frames, 0 at padding.
        """
        index = phone[..., None].expand(-1, -1, self.width)
        x = torch.cat([hidden.gather(1, index), features.to(hidden)], dim=-1)
        x = self.frame(x) * mask[..., None]
        x = self.pair(x.reshape(len(x), -1, 2 * self.width))
        pairs = mask[:, ::2, None]
        for block in self.frame_blocks:
            x = block(x, pairs)
        x = self.frame_norm(x)
        return x, self.mean(x).reshape(len(x), -1, self.n_mels)
