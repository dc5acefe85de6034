"""Meanings as numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multidiff.text.data.attributes import UNSPECIFIED, MeaningTable
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

ATTRIBUTES = {"food": ("Italian", "French"), "area": ("riverside", "city centre")}
TABLE = MeaningTable(ATTRIBUTES)


def test_every_value_and_every_absence_has_a_number_of_its_own():
    numbers = [*TABLE.absent.values(), *TABLE.number.values()]
    assert sorted(numbers) == list(range(TABLE.size)) and TABLE.size == 6
    assert TABLE.whole({}) == [0, 3]
    assert TABLE.whole({"area": "city centre"}) == [0, 5]
    assert TABLE.partial({"area": "city centre"}) == [UNSPECIFIED, 5]


@given(st.dictionaries(st.sampled_from(["food", "area"]), st.integers(0, 1)))
def test_whole_and_partial_agree_on_what_is_said(choice):
    meaning = {name: ATTRIBUTES[name][value] for name, value in choice.items()}
    whole, partial = TABLE.whole(meaning), TABLE.partial(meaning)
    for name, full, part in zip(ATTRIBUTES, whole, partial, strict=True):
        assert part == (full if name in meaning else UNSPECIFIED)
        assert (full == TABLE.absent[name]) == (name not in meaning)


@pytest.mark.parametrize(
    ("meaning", "reported"),
    [
        ({"foods": "x"}, "foods=x: unknown attribute; did you mean food?"),
        ({"food": "italian"}, "food=italian: unknown value of food; did you mean Italian?"),
        ({"food": "zzz"}, "food=zzz: unknown value of food; expected one of Italian, French"),
    ],
)
def test_what_it_does_not_know(meaning, reported):
    with pytest.raises(InputError) as fault:
        TABLE.whole(meaning)
    assert str(fault.value) == reported


def test_of_many_words_the_first_are_named():
    names = [f"name{n}" for n in range(30)]
    assert suggestion("zzz", names) == f"expected one of {', '.join(names[:24])} and 6 more"
    assert suggestion("Name2", names[:3], 2) == "did you mean name2 or name1?"
