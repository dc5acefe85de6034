"""An independent classifier of attributes in texts: logistic regression on their n-grams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multidiff.text.metrics.ngram import Sentence

MOST = 3  # largest number of tokens in an n-gram
ABSENT = ""


class AttributeClassifier:
    """Predicts the value of each attribute from a text's n-grams of 1 to 3 tokens.

    It shares nothing with the evaluated models except the words, and must be trained on texts that
    they were not trained on.

    Args:
        texts: tokens of the training texts.
        meanings: attributes and values of each; a missing attribute counts as a value too.
        least: n-grams in fewer texts than this are ignored.
    """

    def __init__(
        self, texts: Sequence[Sentence], meanings: Sequence[Mapping[str, str]], least: int = 5
    ):
        from sklearn.dummy import DummyClassifier
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        grams: Any = _grams  # scikit-learn's own type allows names alone
        self.vectorizer = CountVectorizer(analyzer=grams, min_df=min(least, len(texts)))
        features = self.vectorizer.fit_transform(texts)
        self.classifiers: dict[str, Any] = {}
        for name in dict.fromkeys(name for meaning in meanings for name in meaning):
            values = [one.get(name, ABSENT) for one in meanings]
            several = len(set(values)) > 1
            classifier = LogisticRegression(max_iter=1000) if several else DummyClassifier()
            self.classifiers[name] = classifier.fit(features, values)

    def meanings(self, texts: Sequence[Sentence]) -> list[dict[str, str]]:
        """Return the predicted meanings of texts; attributes predicted absent are omitted."""
        if not texts:
            return []
        features = self.vectorizer.transform(texts)
        found = [classifier.predict(features) for classifier in self.classifiers.values()]
        return [
            {
                name: str(value)
                for name, value in zip(self.classifiers, row, strict=True)
                if value != ABSENT
            }
            for row in zip(*found, strict=True)
        ] or [{} for _ in texts]

    def accuracy(
        self, texts: Sequence[Sentence], meanings: Sequence[Mapping[str, str]]
    ) -> dict[str, float]:
        """Return the accuracy for each attribute."""
        found = self.meanings(texts)
        return {
            name: sum(
                one.get(name) == truth.get(name) for one, truth in zip(found, meanings, strict=True)
            )
            / len(texts)
            for name in self.classifiers
        }


def _grams(text: Sentence) -> set[tuple[str | int, ...]]:
    return {
        tuple(text[start : start + length])
        for length in range(1, MOST + 1)
        for start in range(len(text) - length + 1)
    }
