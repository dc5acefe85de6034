"""German numbers, abbreviations and signs as words.

Numbers are written as separate words, because a phonemiser that does not know the compound
``zweihundertvierunddreißig`` guesses at all of it.
"""

from __future__ import annotations

import re

SMALL = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn",
    "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn",
    "neunzehn",
]  # fmt: skip
TENS = [
    "", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig",
    "neunzig",
]  # fmt: skip
MONTHS = [
    "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September",
    "Oktober", "November", "Dezember",
]  # fmt: skip
WORDS = {
    "z. B.": "zum Beispiel", "z.B.": "zum Beispiel", "d. h.": "das heißt", "d.h.": "das heißt",
    "u. a.": "unter anderem", "u.a.": "unter anderem", "usw.": "und so weiter",
    "bzw.": "beziehungsweise", "ca.": "zirka", "Dr.": "Doktor", "Prof.": "Professor",
    "Hr.": "Herr", "Fr.": "Frau", "Nr.": "Nummer", "Str.": "Straße", "St.": "Sankt",
    "vgl.": "vergleiche", "evtl.": "eventuell", "ggf.": "gegebenenfalls", "inkl.": "inklusive",
    "Tel.": "Telefon", "Jh.": "Jahrhundert", "Mio.": "Millionen", "Mrd.": "Milliarden",
    "o. ä.": "oder ähnliches", "s. o.": "siehe oben", "v. Chr.": "vor Christus",
    "n. Chr.": "nach Christus", "Abb.": "Abbildung", "S.": "Seite", "Std.": "Stunden",
}  # fmt: skip
UNITS = {
    "km/h": "Kilometer pro Stunde", "km": "Kilometer", "cm": "Zentimeter", "mm": "Millimeter",
    "m": "Meter", "kg": "Kilogramm", "g": "Gramm", "mg": "Milligramm", "l": "Liter",
    "ml": "Milliliter", "Std.": "Stunden", "h": "Stunden", "min": "Minuten", "s": "Sekunden",
    "kWh": "Kilowattstunden", "kW": "Kilowatt", "GB": "Gigabyte", "MB": "Megabyte",
    "\u00b0C": "Grad Celsius", "\u00b0": "Grad",
}  # fmt: skip
SIGNS = {"%": " Prozent ", "&": " und ", "+": " plus ", "=": " gleich ", "@": " ät ",
         "\u20ac": " Euro ", "$": " Dollar ", "§": " Paragraf "}  # fmt: skip
# What an article makes of an ordinal number's ending.
ENDINGS = {
    "am": "ten", "dem": "ten", "den": "ten", "vom": "ten", "zum": "ten", "des": "ten",
    "im": "ten", "seit": "tem", "die": "te", "der": "te", "das": "te",
}  # fmt: skip
NUMBER = r"\d{1,3}(?:\.\d{3})+|\d+"


def written_out(text: str) -> str:
    """Return a German text with numbers, abbreviations, units and signs as words."""
    text = re.sub(r"(?<![\w.])[-\u2212](?=\d)", "minus ", text)
    text = re.sub(
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        lambda m: m[0].replace("@", " ät ").replace(".", " Punkt ").replace("-", " Minus "),
        text,
    )
    for short, word in sorted(WORDS.items(), key=lambda pair: -len(pair[0])):
        if short == "S.":  # a page, and otherwise an initial
            text = re.sub(r"\bS\.(?=\s*\d)", word, text)
            continue
        final = rf"(?<!\w){re.escape(short)}(?=\s*$)"
        text = re.sub(final, f"{word}.", text)
        text = re.sub(rf"(?<!\w){re.escape(short)}", word, text)
    text = _dates_and_times(text)
    text = _quantities(text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    return re.sub(r" +([,.;:!?])", r"\1", text)


def cardinal(number: int, before_noun: bool = False) -> str:
    """Return a number as separate words: ``zwei hundert vier und dreißig``."""
    if number < 20:
        return "ein" if number == 1 and before_noun else SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{cardinal(ones, True)} und {TENS[tens]}" if ones else TENS[tens]
    for value, one, several in (
        (10**9, "eine Milliarde", "Milliarden"),
        (10**6, "eine Million", "Millionen"),
        (1000, "tausend", "tausend"),
        (100, "hundert", "hundert"),
    ):
        count, rest = divmod(number, value)
        if count:
            head = one if count == 1 and value > 1000 else f"{cardinal(count, True)} {several}"
            return f"{head} {cardinal(rest)}" if rest else head
    raise AssertionError(number)


def ordinal(number: int, ending: str = "te") -> str:
    """Return ``dritte``, ``zwanzigste`` and so on, the last word inflected."""
    special = {1: "ers", 3: "drit", 7: "sieb", 8: "ach"}
    *front, last = cardinal(number).split()
    rest = number % 100
    stem = special.get(rest, last + ("" if 0 < rest < 20 else "s"))
    return " ".join([*front, stem + ending])


def year(number: int) -> str:
    """Return a year as it is read: neunzehn hundert neun und neunzig."""
    if not 1100 <= number < 2000:
        return cardinal(number)
    century, rest = divmod(number, 100)
    return f"{cardinal(century)} hundert" + (f" {cardinal(rest)}" if rest else "")


def _dates_and_times(text: str) -> str:
    months = "|".join(MONTHS)
    articles = "|".join(ENDINGS)

    def ending(article: str | None) -> str:
        return ENDINGS[article.strip().lower()] if article else "ter"

    def numbered(m: re.Match[str]) -> str:
        day, month = int(m[2]), int(m[3])
        if not (1 <= day <= 31 and 1 <= month <= 12):
            return m[0]
        when = f" {year(int(m[4]))}" if m[4] else ""
        return f"{m[1] or ''}{ordinal(day, ending(m[1]))} {MONTHS[month - 1]}{when}"

    def named(m: re.Match[str]) -> str:
        return f"{m[1] or ''}{ordinal(int(m[2]), ending(m[1]))}"

    date = rf"\b((?:{articles})\s)?(\d{{1,2}})\.\s?(\d{{1,2}})\.(?:\s?(\d{{4}}))?(?!\d)"
    text = re.sub(date, numbered, text, flags=re.IGNORECASE)
    day = rf"\b((?:{articles})\s)?(\d{{1,2}})\.(?=\s*(?:{months}))"
    text = re.sub(day, named, text, flags=re.IGNORECASE)
    # After an article an ordinal number: die zweite Frau.
    text = re.sub(rf"\b((?i:{articles})\s)(\d{{1,2}})\.(?=\s+[A-ZÄÖÜ])", named, text)

    def clock(m: re.Match[str]) -> str:
        hours, minutes = int(m[1]), int(m[2])
        if hours > 24 or minutes > 59:
            return m[0]
        return f"{cardinal(hours, True)} Uhr" + (f" {cardinal(minutes)}" if minutes else "")

    return re.sub(r"\b(\d{1,2}):(\d{2})\b(?:\s*Uhr)?", clock, text)


def _quantities(text: str) -> str:
    def money(m: re.Match[str]) -> str:
        name = {"\u20ac": "Euro", "$": "Dollar", "Euro": "Euro"}[m[3]]
        found = f"{_figure(m[1], None, True)} {name}"
        return f"{found} {cardinal(int(m[2]))}" if m[2] and int(m[2]) else found

    text = re.sub(rf"\b({NUMBER})(?:,(\d\d))?\s?(\u20ac|\$|Euro)", money, text)
    units = "|".join(re.escape(one) for one in sorted(UNITS, key=len, reverse=True))
    text = re.sub(
        rf"\b({NUMBER})(?:,(\d+))?\s?({units})(?!\w)",
        lambda m: f"{_figure(m[1], m[2], True)} {UNITS[m[3]]}",
        text,
    )
    text = re.sub(r"(?<![\d.,])(1[1-9]\d\d|20\d\d)(?![\d.,]*\d)", lambda m: year(int(m[1])), text)
    return re.sub(rf"({NUMBER})(?:,(\d+))?", lambda m: f" {_figure(m[1], m[2])} ", text)


def _figure(whole: str, decimals: str | None, before_noun: bool = False) -> str:
    plain = whole.replace(".", "")
    if len(plain) > 12 or (len(plain) > 1 and plain.startswith("0")):
        found = " ".join(SMALL[int(one)] for one in plain)
    else:
        found = cardinal(int(plain), before_noun and not decimals)
    if not decimals:
        return found
    return f"{found} Komma {' '.join(SMALL[int(one)] for one in decimals)}"
