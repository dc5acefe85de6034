"""English numbers, abbreviations and signs as words (US usage)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from multidiff.audio.tts.english_words import (
    BEFORE_NUMBER,
    CURRENCIES,
    DOMAINS,
    INITIALISMS,
    LARGE,
    MONTHS,
    RATES,
    SIGNS,
    TITLES,
    UNITS,
    WORDS,
)
from multidiff.utils.packages import TTS_EXTRA, needs

NUMBER = r"\d+(?:,\d{3})+|\d+"
Match = re.Match[str]


def written_out(text: str) -> str:
    """Return an English text with numbers, abbreviations, units and signs as words."""
    text = re.sub(r"(?<![\w.])[-\u2212](?=[$\u20ac\u00a3]?\d)", "minus ", text)
    text = re.sub(r"\s*-{2,}\s*", ", ", text)
    for rule in (
        _apostrophes,
        _capitals,
        _addresses,
        _abbreviations,
        _dates,
        _times,
        _money,
        _units,
        _numbers,
        _signs,
    ):
        text = rule(text)
    return text


# ----------------------------------------------------------------------------- numbers


@lru_cache(maxsize=1)
def _speller() -> Any:
    with needs("num2words", "speech from text", TTS_EXTRA):
        from num2words import num2words
    return num2words


def cardinal(number: int) -> str:
    """Return a number in words, such as ``one hundred twenty three``."""
    return _plain(_speller()(number, lang="en"))


def ordinal(number: int) -> str:
    """Return ``twenty first`` and so on."""
    return _plain(_speller()(number, lang="en", to="ordinal"))


def _plain(words: str) -> str:
    return words.replace("-", " ").replace(",", "").replace(" and ", " ")


def year(number: int) -> str:
    """Return a year as it is read: nineteen oh five, two thousand one, twenty twenty four."""
    century, rest = divmod(number, 100)
    if number % 1000 < 10 or not 1100 <= number < 2100:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def digits(text: str) -> str:
    """Return each digit as a word."""
    return " ".join(cardinal(int(one)) for one in text if one.isdigit())


def quantity(text: str) -> str:
    """Return a number with thousands' commas and decimals in words."""
    whole, _, decimals = text.replace(",", "").partition(".")
    if (len(whole) > 1 and whole.startswith("0")) or len(whole) > 15:
        found = digits(whole)
    else:
        found = cardinal(int(whole or "0"))
    return f"{found} point {digits(decimals)}" if decimals else found


def _plural(words: str) -> str:
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith(("x", "ch", "s")) else f"{words}s"


# ------------------------------------------------------------------------------- rules


def _sub(
    pattern: str, found: Callable[[Match], str], text: str, *, ignore_case: bool = True
) -> str:
    return re.sub(pattern, found, text, flags=re.IGNORECASE if ignore_case else 0)


def _apostrophes(text: str) -> str:
    """Single quotes and elisions at the edges of words, which would join neighbours."""
    text = re.sub(r"(?<!\w)'n'?(?!\w)", "and", text)
    text = re.sub(r"(?<!\w)'(?=\w)(?!\d0s)", "", text)
    return re.sub(r"(?<=\w)'(?!\w)", "", text)


def _capitals(text: str) -> str:
    """Words in capitals, which are spelled letter by letter, where they are no initialism."""

    def spoken(m: Match) -> str:
        word = m[0]
        if word in INITIALISMS or not re.search("[AEIOUY]", word):
            return word
        beside = text[: m.start()].rstrip()[-2:], text[m.end() :].lstrip(" ,.!?")[:2]
        shouted = any(len(one) == 2 and one.isalpha() and one.isupper() for one in beside)
        return word.capitalize() if len(word) > 3 or shouted else word

    return re.sub(r"\b[A-Z]{2,}\b", spoken, text)


def _addresses(text: str) -> str:
    """Mail addresses and sites, whose points are spoken."""

    def spelled(match: Match) -> str:
        body = re.sub(r"^https?://", "", match[0]).rstrip(".,;:!?/")
        tail = match[0][len(match[0].rstrip(".,;:!?")) :]
        for sign, word in {".": " dot ", "@": " at ", "/": " slash ", "_": " underscore ",
                           "-": " dash ", "www": "w w w"}.items():  # fmt: skip
            body = body.replace(sign, word)
        return body + tail

    mail = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    site = rf"https?://\S+|\b(?:www\.)?[\w-]+(?:\.[\w-]+)*\.(?:{DOMAINS})\b(?:/\S*)?"
    return _sub(rf"{mail}|{site}", spelled, text)


def _abbreviations(text: str) -> str:
    text = re.sub(r"\b(e\.\s?g)\.,?", "for example,", text)
    text = re.sub(r"\b(i\.\s?e)\.,?", "that is,", text)
    text = re.sub(r"\b([ap])\.\s?m\.(?=\s+[A-Z]|\s*$)", r"\1 m.", text)
    text = re.sub(r"\b([ap])\.\s?m\.", r"\1 m", text)
    text = re.sub(r"(?<=\d)\s?([ap])m\b", r" \1 m", text, flags=re.IGNORECASE)
    # After a name a street, before a name a saint.
    text = re.sub(r"(?<=[a-z\d] )St\.(?!\s+[A-Z][a-z]+'s)(?=\s+[a-z]|\s*[,.]|\s*$)", "Street", text)
    text = re.sub(r"\bSt\.(?=\s+[A-Z])", "Saint", text)
    text = re.sub(r"\bSt\.", "Street", text)
    titles = "|".join(TITLES)
    text = re.sub(rf"\b({titles})\.(?=\s*$)", lambda m: f"{TITLES[m[1]]}.", text)
    text = re.sub(rf"\b({titles})\.", lambda m: TITLES[m[1]], text)
    text = _sub(
        rf"\b({'|'.join(BEFORE_NUMBER)})\.(?=\s*\d)", lambda m: BEFORE_NUMBER[m[1].lower()], text
    )
    last = rf"\b({'|'.join(WORDS)})\.(?=\s*$|\s+[A-Z][a-z]+\s+[a-z])"
    text = _sub(last, lambda m: f"{_cased(m[1])}.", text)
    text = _sub(rf"\b({'|'.join(WORDS)})\.", lambda m: _cased(m[1]), text)
    # U.S. and J. R. R.: letters, whose points end no sentence.
    letters = r"\b(?:[A-Z]\.\s?){1,}(?=\s*[A-Za-z,;:]|\s*$)"
    return re.sub(letters, lambda m: _letters(m, text), text)


def _letters(match: Match, text: str) -> str:
    found = " ".join(re.findall("[A-Z]", match[0]))
    if match[0].strip() == "I." and match.end() < len(text):
        return match[0]
    return f"{found}." if match.end() >= len(text.rstrip()) else f"{found} "


def _cased(word: str) -> str:
    found = WORDS[word.lower()]
    return found.capitalize() if word[0].isupper() else found


def _dates(text: str) -> str:
    def by_numbers(month: int, day: int, number: int) -> str | None:
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return None
        return f"{MONTHS[month - 1]} {ordinal(day)} {year(number)}"

    def slashed(m: Match) -> str:
        return by_numbers(int(m[1]), int(m[2]), int(m[3])) or m[0]

    def iso(m: Match) -> str:
        return by_numbers(int(m[2]), int(m[3]), int(m[1])) or m[0]

    text = re.sub(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", slashed, text)
    text = re.sub(r"\b(\d{4})-(\d{2})-(\d{2})\b", iso, text)
    months = "|".join((*MONTHS, *(f"{one[:3]}\\.?" for one in MONTHS), "Sept\\.?"))

    def named(m: Match) -> str:
        full = next((one for one in MONTHS if one.lower().startswith(m[1].lower()[:3])), m[1])
        when = f" {year(int(m[3]))}" if m[3] else ""
        return f"{full} {ordinal(int(m[2]))}{when}"

    return _sub(rf"\b({months}) (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?\b(?!:)", named, text)


def _times(text: str) -> str:
    def clock(m: Match) -> str:
        hours, minutes = int(m[1]), int(m[2])
        if hours > 24 or minutes > 59:
            return m[0]
        if minutes == 0:
            after = text[m.end() : m.end() + 5].lower().lstrip()
            return (
                cardinal(hours)
                if after.startswith(("a m", "p m"))
                else f"{cardinal(hours)} o'clock"
            )
        return f"{cardinal(hours)} {'oh ' if minutes < 10 else ''}{cardinal(minutes)}"

    return re.sub(r"\b(\d{1,2}):(\d{2})\b", clock, text)


def _money(text: str) -> str:
    signs = "".join(re.escape(one) for one in CURRENCIES)

    def amount(m: Match) -> str:
        one, several, cent, cents = CURRENCIES[m[1]]
        whole, decimals, scale = m[2].replace(",", ""), m[3], m[4]
        if scale:
            figure = whole + (f".{decimals}" if decimals else "")
            return f"{quantity(figure)} {scale.strip()} {several}"
        found = f"{quantity(whole)} {one if int(whole) == 1 else several}"
        if decimals is None or len(decimals) != 2:
            return found if decimals is None else f"{quantity(f'{whole}.{decimals}')} {several}"
        small = int(decimals)
        if small:
            found += f" and {cardinal(small)} {cent if small == 1 else cents}"
        return found

    return _sub(rf"([{signs}])\s?({NUMBER})(?:\.(\d+))?(\s(?:{LARGE})\b)?", amount, text)


def _units(text: str) -> str:
    figure = rf"({NUMBER})(\.\d+)?"
    rates = "|".join(re.escape(one) for one in RATES)
    units = "|".join(sorted(UNITS, key=len, reverse=True))

    def rate(m: Match) -> str:
        return f"{quantity(m[1] + (m[2] or ''))} {RATES[m[3].lower()]}"

    def unit(m: Match) -> str:
        name = UNITS[m[3].lower()]
        several = m[2] or int(m[1].replace(",", "")) != 1
        plural = {"foot": "feet", "hertz": "hertz"}
        words = plural.get(name, _plural(name)) if several else name
        if name.endswith("hertz"):
            words = name
        return f"{quantity(m[1] + (m[2] or ''))} {words}"

    text = _sub(rf"\b{figure}\s?({rates})(?![\w/])", rate, text)
    # Single letters stand for units only beside the number: 5 m is not read in "in 5 in".
    text = _sub(rf"\b{figure}\s?((?!in\b|s\b|h\b|l\b|v\b|w\b|g\b)(?:{units}))\b(?!/)", unit, text)
    return _sub(rf"\b{figure}((?:g|h|l|v|w))\b(?!/)", unit, text)


def _numbers(text: str) -> str:
    text = re.sub(rf"#\s?(?={NUMBER})", "number ", text)
    text = re.sub(
        r"\b(\d{3})-(\d{3})-(\d{4})\b", lambda m: ", ".join(map(digits, m.groups())), text
    )
    text = _sub(rf"\b({NUMBER})(?:st|nd|rd|th)\b", lambda m: ordinal(_whole(m[1])), text)
    text = re.sub(r"\b(1[1-9]\d|20\d)0s\b", lambda m: _plural(year(int(m[1]) * 10)), text)
    text = re.sub(r"'?\b([2-9])0s\b", lambda m: _plural(cardinal(int(m[1]) * 10)), text)
    text = re.sub(rf"(?<=\d)\s?[-\u2212]\s?(?=(?:{NUMBER}))", " to ", text)
    text = re.sub(r"\b1/2\b", "one half", text)
    text = re.sub(
        r"\b([13])/4\b", lambda m: f"{cardinal(int(m[1]))} quarter{'s' * (m[1] == '3')}", text
    )
    text = re.sub(r"\b(\d{1,2})/(\d{1,2})\b", _fraction, text)
    text = re.sub(rf"\b({NUMBER})\.(\d+)\b", lambda m: quantity(m[0]), text)
    text = re.sub(r"(?<![\d,])\b(1[1-9]\d\d|20\d\d)\b(?![,\d]\d)", lambda m: year(int(m[1])), text)
    text = re.sub(rf"({NUMBER})", lambda m: f" {quantity(m[1])} ", text)
    return re.sub(r" +([,.;:!?'])", r"\1", text)


def _fraction(m: Match) -> str:
    above, below = int(m[1]), int(m[2])
    if below < 3:
        return f"{cardinal(above)} over {cardinal(below)}"
    return f"{cardinal(above)} {ordinal(below)}{'s' if above != 1 else ''}"


def _whole(text: str) -> int:
    return int(text.replace(",", "")[:15])


def _signs(text: str) -> str:
    # The metal, which is not read as the verb.
    metal = r"\blead(?=\s+(?:pipes?|paint|poisoning|pencils?|weights?|bullets?|shot|acid)\b)"
    text = _sub(metal, lambda m: "led" if m[0].islower() else "Led", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    return text
