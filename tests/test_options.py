"""Options given twice, and texts from files and standard input, for every command at once."""

import io
import sys

import pytest
import typer
from commands import complains, does

from multidiff.cli.main import app
from multidiff.cli.parsing import Commands, LivePrinter
from multidiff.config.options import read_options
from multidiff.utils.errors import InputError
from multidiff.utils.lines import read_lines
from multidiff.utils.report import Report


def take(
    *, one: int = 0, flag: bool = False, pair: tuple[int, int] | None = None,
    some: tuple[str, ...] = (), texts: list[str] = [], numbers: list[int] = [],  # noqa: B006
):  # fmt: skip
    """A command's function."""


def given(*words):
    return read_options(words, take, ())


def typed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# ------------------------------------------------------------------------------ given twice


def test_what_takes_several_values_adds_up():
    words = ["--texts", "a", "--texts=b", "--numbers", "1", "--numbers", "2"]
    words += ["--some", "x,y", "--some", "z"]
    assert given(*words) == {"texts": ["a", "b"], "numbers": [1, 2], "some": ("x", "y", "z")}


@pytest.mark.parametrize("words", [("--one", "1"), ("--one=1",), ("--flag",), ("--pair", "1,2")])
def test_what_takes_one_value_is_refused_when_it_is_given_twice(words):
    option = words[0].partition("=")[0]
    with pytest.raises(InputError, match=f"{option}: is given twice but takes one value; keep one"):
        given(*words, *words)
    assert len(given(*words)) == 1


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["synth", "a.wav", "-o", "b.wav", "--out", "c.wav"], "--out"),
        (["synth", "a.wav", "-o", "b.wav", "--steps", 3, "--steps", 4], "--steps"),
        (["sample", "masked", "--seed", 1, "--seed", 2], "--seed"),
        (["sample", "masked", "-n", 1, "-n", 1], "-n"),
        (["sample", "masked", "--json", "--json"], "--json"),
        (["eval", "masked", "--steps", 1, "--steps=2"], "--steps"),
        (["train", "r.yaml", "--out", "a", "--out", "b"], "--out"),
        (["train", "r.yaml", "trainer.steps=1", "trainer.steps=2"], "trainer.steps"),
        (["convert", "a", "b", "--half", "--half"], "--half"),
    ],
)
def test_every_command_refuses_repeated_options(capsys, words, option):
    assert f"{option}: is given twice but takes one value" in complains(capsys, *words)


def test_commands_to_come_refuse_them_too():
    assert isinstance(app, Commands)
    later = Commands()

    @later.command()
    def only(number: int = 0, names: list[str] | None = None) -> None:
        print(number, names)

    words = ["--names", "a", "--names", "b"]
    assert later([*words], standalone_mode=False) is None
    with pytest.raises(InputError, match="--number: is given twice"):
        later(["--number", "1", "--number", "1"], standalone_mode=False)


# ------------------------------------------------------------------------------ from files


def test_texts_come_from_files_and_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffé one\r\ntwo\n\n \n".encode())
    typed(monkeypatch, b"typed\n- x")
    words = ["--texts", "a", "--texts-file", path, "--texts", "-", "--texts", "z"]
    assert given(*map(str, words))["texts"] == ["a", "é one", "two", "typed", "- x", "z"]
    with pytest.raises(InputError, match="--numbers-file: no such option here"):
        given("--numbers-file", "x")
    typed(monkeypatch, b"a\nb\n")
    assert read_lines("-", "--texts") == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a\n\nb\n", ":2: is blank; remove the line"),
        ("a\nb".encode("utf-16"), "is in UTF-16; convert it to UTF-8 (iconv -f UTF-16"),
        ("ab".encode("utf-32"), "is in UTF-32"),
        ("ab\ncd".encode("utf-16-le"), ":1: contains a zero byte, so it is not UTF-8"),
        ("ab\nö".encode("latin-1"), ":2: byte 0xf6 is not UTF-8"),
    ],
)
def test_files_that_hold_no_lines_of_text(tmp_path, content, reported):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as fault:
        given("--texts-file", str(path))
    assert reported in str(fault.value) and str(path) in str(fault.value)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"--texts-file .*none.txt: cannot be read"):
        given("--texts-file", str(tmp_path / "none.txt"))
    typed(monkeypatch, b"a\n")
    with pytest.raises(InputError, match="standard input is empty or was read by another"):
        given("--texts", "-", "--texts-file", "-")


# ------------------------------------------------------------------------------ as they are made


def test_lines_are_flushed_one_by_one(monkeypatch):
    written = []

    class Out(io.StringIO):
        def flush(self):
            written.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Out())
    live = LivePrinter(goes_on=False)
    live("one")
    live("two")
    assert written == ["one\n", "one\ntwo\n"] and live.count == 2


def test_nothing_is_made_for_nobody(monkeypatch, tmp_path):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return handle.fileno()

    with (tmp_path / "sink").open("w") as handle:
        monkeypatch.setattr(sys, "stdout", Gone())
        with pytest.raises(typer.Exit):
            LivePrinter(goes_on=False)("one")
        LivePrinter(goes_on=True)("one")  # a file is written too


def test_texts_to_be_spoken_come_from_a_file(tmp_path, monkeypatch, capsys):
    said = []

    def speaks(model, texts, out, **options):
        said.append((model, texts))
        return Report()

    monkeypatch.setattr("multidiff.models.loading.load", lambda name, device, dtype: name)
    monkeypatch.setattr("multidiff.cli.synth.verb", lambda model, name: speaks)
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\n")
    words = ["synth", "-o", tmp_path, "--text", "zero", "--text-file", path]
    does(capsys, *words)
    assert said == [("kathleen", ["zero", "one", "two"])]
    assert "not both" in complains(capsys, *words, "a.wav")


def test_prompts_of_pictures_come_from_a_file(tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("3\n7\n")
    words = ["sample", "digits", "--steps", 1, "-o", tmp_path / "made", "--prompt-file", path]
    printed = does(capsys, *words)
    assert len(list((tmp_path / "made").glob("*.png"))) == 3, printed  # two and their grid
