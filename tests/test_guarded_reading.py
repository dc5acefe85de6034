"""One line for whatever a library raises, and nothing in it that a terminal obeys."""

import logging

import pytest

from multidiff.cli.main import PrintableLines, complain
from multidiff.utils.budgets import check_inflation, check_pixels, check_safetensors, check_sound
from multidiff.utils.errors import InputError, Interrupted, printable
from multidiff.utils.readers import is_plausible_hub_id, parse_json, read_text, reading


class Panic(BaseException):
    """What Rust libraries raise: no Exception."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Panic("index out of\nbounds"), "index out of"),
        (KeyError("model"), "KeyError: 'model'"),
        (RuntimeError(""), "RuntimeError"),
        (MemoryError(), "memory"),
        (RecursionError("maximum"), "nested too deeply"),
        (PermissionError(13, "Permission denied"), "permission denied"),
        (ValueError("\x1b[2Jcleared" + "x" * 9999), "\\x1b[2Jcleared"),
    ],
)
def test_any_exception_becomes_one_line_with_name_reason_and_fix(error, reason):
    with pytest.raises(InputError) as caught, reading("a\x1b]0;b", "is no mel", "write it again"):
        raise error
    line = str(caught.value)
    assert line.startswith("a\\x1b]0;b: is no mel (") and line.endswith("; write it again")
    assert reason in line and line.isprintable() and len(line) < 500
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), Interrupted(15), InputError("as it is")]
)
def test_signals_and_faults_pass(error):
    with pytest.raises(type(error)) as caught, reading("a"):
        raise error
    assert caught.value is error


def test_nothing_of_a_name_is_obeyed(capsys):
    name = "a\x1b[31m\r\n\x07\x9b\u202egpj.exe\udcff\u2028\x00"
    assert printable(name).isprintable()
    assert printable("日本語 🙂 é") == "日本語 🙂 é"
    assert str(InputError(f"{name}: no")).count("\n") == 0
    complain(f"{name}: no\nsecond")
    record = logging.makeLogRecord({"msg": "%s is\x1b gone", "args": (name,)})
    reported = capsys.readouterr().err + PrintableLines("multidiff: %(message)s").format(record)
    assert "\x1b" not in reported and "\r" not in reported and "\u202e" not in reported
    assert "second" in reported and "\\x1b gone" in reported


def test_text_and_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(path) == "{}"
    with pytest.raises(InputError, match="more than the limit of 1"):
        read_text(path, most=1)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"a\.json: is not UTF-8 text"):
        read_text(path)
    with pytest.raises(InputError, match="nested too deeply"):
        parse_json("[" * 100_000, "a.json")
    with pytest.raises(InputError, match="more than 4000000 values"):
        parse_json("," * 4_000_001, "a.json")
    with pytest.raises(InputError, match="not a file"):
        read_text(tmp_path)


def test_budgets_refuse_what_no_file_declares(tmp_path):
    check_inflation("a", 64 << 20, 100)
    check_inflation("a", 10 << 30, 1 << 30)
    with pytest.raises(InputError, match="bombs"):
        check_inflation("a", 256 << 20, 250_000)
    check_pixels("a", 4000, 4000, 10)
    with pytest.raises(InputError, match="too large"):
        check_pixels("a", 13_000, 13_000, 500_000)
    check_sound("a", 22_050, 2)
    for rate_hz, channels in ((1, 1), (10_000_000, 1), (22_050, 1000), (22_050, 0)):
        with pytest.raises(InputError):
            check_sound("a", rate_hz, channels)
    pointer = tmp_path / "a.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match="git-lfs pointer"):
        check_safetensors(pointer)


@pytest.mark.parametrize("name", ["mnist", "allenai/c4", "LJSpeech-1.1"])
def test_names_of_the_hub(name):
    assert is_plausible_hub_id(name)


@pytest.mark.parametrize("name", ["a.zip", "a/b/c", "../x", "x--y", "my data", "", "a/", "/a"])
def test_names_that_are_not_of_the_hub(name):
    assert not is_plausible_hub_id(name)
