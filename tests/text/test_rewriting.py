"""Rewritings beside copies."""

import pytest

from multidiff.text.data.listing import TextSource
from multidiff.text.diffuser.rewriting import compared, pairs_of
from multidiff.text.metrics.scores import bleu, sari
from multidiff.utils.errors import InputError

SOURCES = ["the eagle , which is cheap , is a pub .", "the mill is near the river ."]
WANTED = ["the eagle is a pub . it is cheap .", "the mill is near the river ."]


def test_copies_and_exact_rewritings_are_told_apart():
    facts = compared(SOURCES, WANTED, {"exact": WANTED, "half": [WANTED[0], SOURCES[0]]})
    assert facts["exact"]["bleu"] == pytest.approx(100)
    assert facts["exact"]["sari"] == pytest.approx(100)
    assert facts["exact"]["exact"] == 1 and facts["exact"]["unchanged"] == 0.5
    assert facts["copied"]["unchanged"] == 1 and facts["copied"]["exact"] == 0.5
    words = [text.split() for text in SOURCES]
    references = [[text.split()] for text in WANTED]
    assert facts["copied"]["bleu"] == pytest.approx(bleu(words, references))
    assert facts["copied"]["sari"] == pytest.approx(sari(words, words, references))
    assert facts["half"]["exact"] == 0.5 and facts["half"]["unchanged"] == 0


def test_pairs_are_the_held_out_ones(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"long {n}\tshort {n}\n" for n in range(12)))
    source = TextSource(str(path), "1", source_column="0", header=False, held_out_every=4)
    reported, wanted = pairs_of(source, 2)
    assert len(reported) == 2
    assert [one.split()[1] for one in reported] == [one.split()[1] for one in wanted]
    with pytest.raises(InputError, match="--source-column"):
        pairs_of(TextSource(str(path), "1", header=False), 2)
