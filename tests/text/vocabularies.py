"""Texts of many scripts, and sources of them."""

from multidiff.text.data.listing import TextSource

TEXTS = [
    "The cat  sat on the mat.",
    "Is this the (very) end-of-line? It's £5, or 10%!",
    " emoji 🙂 👩\u200d🚀 und Grüße, кириллица 漢字 ",
    "tab\there, bell\x07, separators\x1c\u2028and \u200b none",
    "שלום हिन्दी Ⅳ ﬁ ①",
]


def source_of(folder, texts, **more):
    """A source of texts, which it holds one a line."""
    path = folder / "texts.txt"
    path.write_text("\n".join(texts), "utf-8")
    return TextSource(str(path), **more)


def kept(vocabulary, folder):
    """A folder with a vocabulary's files in it."""
    folder.mkdir()
    for name, text in vocabulary.assets().items():
        (folder / name).write_text(text, "utf-8")
    return folder
