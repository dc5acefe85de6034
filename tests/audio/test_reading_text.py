"""Texts to words and phones: numbers, abbreviations, signs, dictionaries, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from multidiff.audio.tts import german
from multidiff.audio.tts.dictionary import read_dictionary
from multidiff.audio.tts.front_end import FrontEnd, _processor
from multidiff.audio.tts.normalization import normalized
from multidiff.audio.tts.phones import Phone, write_phones
from multidiff.utils.errors import InputError

ENGLISH = {
    "Dr. Smith lives at 221 St. James St. in St. Louis.":
        "Doctor Smith lives at two hundred twenty one Saint James Street in Saint Louis.",
    "Prof. Jones paid $3.50 for No. 5, approx. 10 km away.":
        "Professor Jones paid three dollars and fifty cents for number five, approximately ten "
        "kilometers away.",
    "On 12/05/2021 at 3:30 p.m., 50% off & more":
        "On December fifth twenty twenty one at three thirty p m, fifty percent off and more",
    "naïve café, x@y.com or www.example.com/a.":
        "naive cafe, x at y dot com or w w w dot example dot com slash a.",
    "He has 1,234,567 lead pipes, and will lead.":
        "He has one million two hundred thirty four thousand five hundred sixty seven led pipes, "
        "and will lead.",
    "The 21st of May, 1999; in the 1990s and '80s.":
        "The twenty first of May, nineteen ninety nine; in the nineteen nineties and eighties.",
    "The U.S. army. J. R. R. Tolkien wrote it.": "The U S army. J R R Tolkien wrote it.",
    "It cost $5 million, or 3.14 euros, at 5:00.":
        "It cost five million dollars, or three point one four euros, at five o'clock.",
    "Call 555-123-4567 or 007.":
        "Call five five five, one two three, four five six seven or zero zero seven.",
    "1/2 cup, 3/4 mile, 2/3, 10-20 people": "one half cup, three quarters mile, two thirds, "
        "ten to twenty people",
    "May 3, 2004, 5ft 10in at -5 °C": "May third two thousand four, five feet ten in at minus "
        "five degrees Celsius",
    "“Yes,” she said — no. There is no. 5": '"Yes," she said, no. There is number five',
    "2005, 1905, 1900 and 12000": "two thousand five, nineteen oh five, nineteen hundred and "
        "twelve thousand",
    "He said 'go' -- give 'em rock 'n' roll, the dogs' way": "He said go, give em rock and roll, "
        "the dogs way",
    "STOP NOW! NATO and the FBI use HTTP.": "Stop Now! Nato and the FBI use HTTP.",
    "See fig. 3, e.g. this. 1 kg, 60 mph": "See figure three, for example, this. one kilogram, "
        "sixty miles per hour",
}  # fmt: skip
GERMAN = {
    "Dr. Meier kommt am 3. Oktober 1999 um 14:30 Uhr, z.B. mit 50% Rabatt.":
        "Doktor Meier kommt am dritten Oktober neunzehn hundert neun und neunzig um vierzehn Uhr "
        "dreißig, zum Beispiel mit fünfzig Prozent Rabatt.",
    "Das kostet 3,50 € oder 1.234 Euro, 21 km bei -5 °C.":
        "Das kostet drei Euro fünfzig oder ein tausend zwei hundert vier und dreißig Euro, ein "
        "und zwanzig Kilometer bei minus fünf Grad Celsius.",
    "Am 12.05.2021 die 1. Frau, der 7. Mann, 3,14 usw.":
        "Am zwölften Mai zwei tausend ein und zwanzig die erste Frau, der siebte Mann, drei Komma "
        "eins vier und so weiter.",
}  # fmt: skip


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_written_out_as_it_is_read(text):
    assert normalized(text, "en-us") == ENGLISH[text]


@pytest.mark.parametrize("text", GERMAN)
def test_german_is_written_out_as_it_is_read(text):
    assert normalized(text, "de-de") == GERMAN[text]


@pytest.mark.parametrize("number", [0, 1, 17, 21, 100, 101, 999, 1000, 21000, 1_000_000, 2_345_678])
def test_german_numbers_are_those_of_num2words_in_words(number):
    from num2words import num2words

    ours = german.cardinal(number).replace(" ", "").lower()
    theirs = num2words(number, lang="de").replace(" ", "").lower()
    assert ours == theirs


@pytest.mark.parametrize("text", ["", "   \n", "...", "!?", "😀 🎉", "привет мир", "---"])
def test_texts_without_words_are_refused(text):
    with pytest.raises(InputError, match=r"no words that en-us can read|is empty"):
        normalized(text, "en-us")


def test_what_cannot_be_read_is_reported_and_left_out(caplog):
    assert normalized("Hello 😀 привет world", "en-us") == "Hello world"
    assert "not read: 😀 п р и в е т" in caplog.text


def test_a_word_of_ten_thousand_letters_is_refused():
    with pytest.raises(InputError, match="a word of 10000 letters"):
        normalized("a" * 10_000, "en-us")


def test_sentences_have_pauses_at_their_ends_and_at_punctuation():
    first, second = FrontEnd().sentences("Hello, world. Is it you?")
    assert write_phones(first.phones) == "^ #h ɛ l ˈoʊ , #w ˈɚ l d ."
    assert second.phones[-1] == Phone("?") and second.text == "Is it you"
    one = FrontEnd().phones("Hello, world. Is it you?")
    assert write_phones(one) == write_phones([*first.phones, *second.phones[1:]])


def test_phones_are_the_librarys_in_any_thread():
    import gruut

    text = "I read a book about Zyxterquon; will you read it on May 5th?"
    with ThreadPoolExecutor(1) as pool:
        found = [pool.submit(FrontEnd()._parts, text).result(), FrontEnd()._parts(text)]
    words = [[(w.text, w.phonemes) for part in parts for w in part] for parts in found]
    expected = [(w.text, w.phonemes) for part in gruut.sentences(text, "en-us") for w in part]
    assert words == [expected, expected]


def test_words_are_looked_up_by_an_index():
    FrontEnd().preload()
    lexicon = _processor("en-us").get_settings("en-us").lookup_phonemes.phonemizer.db_conn
    query = "SELECT role, phonemes FROM word_phonemes WHERE word = 'a' ORDER BY pron_order"
    (plan,) = lexicon.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "USING INDEX" in plan[-1]


def test_a_dictionary_goes_before_the_library(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\nTomato  t ə m ˈɑ t oʊ\n", "utf-8")
    words = read_dictionary(path, lambda symbol: None)
    (sentence,) = FrontEnd(dictionary=words).sentences("A tomato.")
    assert write_phones(sentence.phones).endswith("#t ə m ˈɑ t oʊ .")


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("IBM", "#b ɑ"),                      # the library spells capitals
        ("Zürich", "#z u"),                   # and reads English without accents
        ("zurich", "#z u"),
        ("well-known", "#k ɑ"),
        ("New York", "#n j"),
        ("Bess's", "#b ɛ s ɪ z"),
        ("Matt's", "#m æ t s"),
        ("New York's", "#n j z"),
        ("matt, s.", "#m æ t , #ˈɛ s"),
    ],
)  # fmt: skip
def test_words_of_a_dictionary_that_the_library_splits(tmp_path, text, phones):
    path = tmp_path / "words.txt"
    lines = ("IBM\tb ɑ", "Zürich\tz u", "well-known\tk ɑ", "new york\tn j", "matt\tm æ t",
             "bess\tb ɛ s")  # fmt: skip
    path.write_text("\n".join(lines), "utf-8")
    found = FrontEnd(dictionary=read_dictionary(path)).phones(text)
    assert write_phones(found) == f"^ {phones} ."


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("tomato", "no phones"),
        ("tomato t qq", "phone 'qq'"),
        ("tomato t .", "a pause"),
        ("", "no words"),
    ],
)
def test_a_wrong_dictionary_names_its_line(tmp_path, line, reported):
    path = tmp_path / "words.txt"
    path.write_text(f"{line}\n", "utf-8")

    def check(symbol):
        if symbol == "qq":
            raise InputError("phone 'qq': the model does not know it")

    with pytest.raises(InputError, match=rf"words\.txt.*{reported}"):
        read_dictionary(path, check)


def test_an_unknown_language_is_refused():
    with pytest.raises(InputError, match="language 'fr-fr': one of en-us, de-de"):
        FrontEnd("fr-fr")
