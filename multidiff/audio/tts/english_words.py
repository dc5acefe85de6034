"""English abbreviations, units, currencies and initialisms, and how they are read."""

# What ends in a point without ending a sentence; a following capital does not matter.
TITLES = {
    "Prof": "Professor", "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz",
    "Gen": "General", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Col": "Colonel",
    "Maj": "Major", "Rev": "Reverend", "Hon": "Honorable", "Sen": "Senator", "Gov": "Governor",
    "Rep": "Representative", "Jr": "Junior", "Sr": "Senior", "Mt": "Mount", "Ft": "Fort",
    "Mme": "Madame", "Pres": "President", "Adm": "Admiral", "Cmdr": "Commander",
}  # fmt: skip
WORDS = {
    "approx": "approximately", "vs": "versus", "dept": "department", "fig": "figure",
    "vol": "volume", "ch": "chapter", "pp": "pages", "est": "established",
    "misc": "miscellaneous", "min": "minutes", "max": "maximum", "tel": "telephone",
    "ext": "extension", "govt": "government", "etc": "etcetera",
    "assn": "association", "bros": "brothers", "inc": "incorporated", "ltd": "limited",
    "corp": "corporation", "co": "company", "ave": "avenue", "blvd": "boulevard", "rd": "road",
    "apt": "apartment", "univ": "university", "jan": "January", "feb": "February", "mar": "March",
    "apr": "April", "aug": "August", "sept": "September", "sep": "September", "oct": "October",
    "nov": "November", "dec": "December",
}  # fmt: skip
# Read as the words only before a number, as they are words of their own.
BEFORE_NUMBER = {"no": "number", "nos": "numbers", "p": "page"}
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
UNITS = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "m": "meter", "ft": "foot",
    "in": "inch", "mi": "mile", "yd": "yard", "kg": "kilogram", "g": "gram", "mg": "milligram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "ml": "milliliter", "l": "liter",
    "s": "second", "sec": "second", "ms": "millisecond", "min": "minute", "h": "hour",
    "hr": "hour", "hrs": "hour", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte",
    "tb": "terabyte", "hz": "hertz", "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz",
    "w": "watt", "kw": "kilowatt", "mw": "megawatt", "v": "volt", "kwh": "kilowatt hour",
}  # fmt: skip
RATES = {
    "km/h": "kilometers per hour", "kph": "kilometers per hour", "mph": "miles per hour",
    "m/s": "meters per second", "mpg": "miles per gallon", "kbps": "kilobits per second",
    "mbps": "megabits per second", "rpm": "revolutions per minute",
    "\u00b0c": "degrees Celsius", "\u00b0f": "degrees Fahrenheit", "\u00b0": "degrees",
}  # fmt: skip
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "\u20ac": ("euro", "euros", "cent", "cents"),
    "\u00a3": ("pound", "pounds", "penny", "pence"),
    "\u00a5": ("yen", "yen", "sen", "sen"),
}
# Capitals that are read letter by letter; others of four letters and more are read as words.
INITIALISMS = {
    "AI", "AM", "ATM", "BBC", "CEO", "CIA", "CNN", "DIY", "DNA", "EU", "FAQ", "FBI", "GPS", "HIV",
    "IBM", "ID", "IQ", "IRS", "IT", "MIT", "NBA", "NHL", "UAE", "UFO", "UK", "UN", "URL", "US",
    "USA", "USB", "USSR", "VIP",
}  # fmt: skip
LARGE = "hundred|thousand|million|billion|trillion"
DOMAINS = "com|org|net|edu|gov|io|ai|info|co|uk|de|us"
SIGNS = {"&": " and ", "+": " plus ", "=": " equals ", "%": " percent ", "@": " at "}
