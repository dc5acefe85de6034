"""The judge of meanings, on texts whose meaning is plain."""

import numpy as np
import pytest

from multidiff.text.metrics.attribute_classifier import AttributeClassifier

FOODS = ("Italian", "French", "Indian")


def corpus(count, seed):
    rng = np.random.default_rng(seed)
    texts, meanings = [], []
    for _ in range(count):
        meaning, words = {}, ["the", "eagle", "is", "a", "pub"]
        if rng.random() < 0.7:
            meaning["food"] = FOODS[rng.integers(3)]
            words += ["with", meaning["food"].lower(), "food"]
        if rng.random() < 0.6:
            meaning["family"] = ("yes", "no")[rng.integers(2)]
            words += ["that", "is"] + ["not"] * (meaning["family"] == "no") + ["family", "friendly"]
        texts.append(words)
        meanings.append(meaning)
    return texts, meanings


def test_it_finds_what_texts_say_and_what_they_do_not():
    classifier = AttributeClassifier(*corpus(300, 0))
    texts, meanings = corpus(100, 1)
    assert classifier.meanings(texts) == meanings
    assert classifier.accuracy(texts, meanings) == {"food": 1.0, "family": 1.0}


def test_negation_takes_more_than_single_words():
    classifier = AttributeClassifier(*corpus(300, 0))
    yes, no = (
        ["is", "a", "pub", "that", "is", "family", "friendly"],
        ["that", "is", "not", "family", "friendly"],
    )
    assert [one["family"] for one in classifier.meanings([yes, no])] == ["yes", "no"]


def test_accuracy_counts_each_attribute():
    classifier = AttributeClassifier(*corpus(300, 0))
    texts, meanings = corpus(50, 2)
    wrong = [{**one, "food": "Italian"} for one in meanings]
    ratio = sum(one.get("food") == "Italian" for one in meanings) / 50
    found = classifier.accuracy(texts, wrong)
    assert found["food"] == pytest.approx(ratio) and found["family"] == 1


def test_texts_of_unseen_words_are_judged_by_the_rest():
    classifier = AttributeClassifier(*corpus(300, 0))
    assert classifier.meanings([[], ["zebra"]]) == classifier.meanings([[], []])
    assert classifier.meanings([]) == []
