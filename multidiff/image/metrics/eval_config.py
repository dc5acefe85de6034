"""Options of comparing generated with real images, which all image models share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multidiff.config.option_set import OptionSet, option
from multidiff.image.metrics.classifier import ImageClassifier

GROUP = "Evaluation"


@dataclass(frozen=True)
class ImageEvalConfig(OptionSet):
    """Options of comparing samples with real images.

    Attributes:
        num: number of samples; 0 for none.
        classifier: image classifier, such as digit-features: feature distance on it, and the
            fraction of samples that show their prompt.
        inception: file of Inception's weights: FID and KID.
        most: largest number of real images to compare with.
        split: split of the data set.
        label_column: column of the data set's labels; ``label`` by default.
        caption_column: column of the data set's captions.

    Raises:
        InputError: if a number is out of range.
    """

    num: int = option(1000, "number of samples", group=GROUP, least=0, note="0 for none")
    classifier: ImageClassifier | None = option(
        None,
        "image classifier, such as digit-features: feature distance on it, and the fraction of "
        "samples that show their prompt",
        group=GROUP,
    )
    inception: Path | None = option(None, "file of Inception's weights: FID and KID", group=GROUP)
    most: int = option(5000, "largest number of real images to compare with", group=GROUP, least=1)
    split: str = option("train", "split of the data set", group=GROUP)
    label_column: str | None = option(
        None, "column of the data set's labels", group=GROUP, note="label by default"
    )
    caption_column: str | None = option(None, "column of the data set's captions", group=GROUP)
