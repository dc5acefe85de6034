"""Files and words as accidents leave them, and how what reads them may end.

``MULTIDIFF_TEST_CASES=20`` draws twenty times as many, and others each time.
"""

import contextlib
import io
import os
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from multidiff.cli.main import run
from multidiff.utils.errors import InputError

TIMES = int(os.environ.get("MULTIDIFF_TEST_CASES", "1"))
MARK = b"\xef\xbb\xbf"
NUMBERS = [
    *("nan", "inf", "-inf", "1e999", "-1e999", "-0", "0", "-1", "1", "2", "0.5", "1e-320", "0x10"),
    *("1_0", "99999999999999999999999", "-99999999999999999999999", "9223372036854775807"),
    *(
        "9223372036854775808",
        "18446744073709551616",
        "1e18",
        "",
        " ",
        "three",
        "٣",
        "½",
        "1,2",
        "true",
    ),
    *("0,0,0", "nan,nan,nan", "inf,1,1", "1,inf,1", "1,1,inf", "1" * 5000),
]
WORDS = [
    "",
    " ",
    ",",
    "[",
    "]",
    "a[b",
    "name[]",
    "name[The Eagle], name[The Eagle]",
    "\n",
    "\t",
    "é",
    "日本語",
    "🙂" * 50,
    "x" * 5000,
    "a\0b",
    "\udcff",
    "\ufeff",
    "[MASK]",
    "[MASK]" * 100,
    "-",
    "--",
    "=",
    "length=0",
    "length=nan",
    "length=٣",
    "first=",
    "food=Italian",
    "a/b",
    "/dev/null",
    "{}",
    "%s%n",
    "8x8",
    "0x0",
    "999999x999999",
    "speech",
    "starter:",
    "starter:..",
]


def cases(count):
    """Randomly drawn cases, the same every time."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def spoiled(draw, content):
    """Bytes that something happened to, once or twice."""
    for _ in range(draw(st.integers(1, 2))):
        content = draw(st.sampled_from(SPOILERS))(draw, content)
    return content


def _place(draw, content):
    """Any place, the beginning more often, where headers are."""
    last = max(len(content) - 1, 0)
    return draw(st.one_of(st.integers(0, min(last, 64)), st.integers(0, last)))


def _cut(draw, content):
    return content[: _place(draw, content)]


def _flipped(draw, content):
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 8)) if found else 0):
        found[_place(draw, content)] ^= 1 << draw(st.integers(0, 7))
    return bytes(found)


def _overwritten(draw, content):
    place = _place(draw, content)
    new = draw(
        st.sampled_from(
            [
                b"\xff" * 8,
                b"\0" * 8,
                b"\xff\xff\xff\x7f",
                b"\xff" * 7 + b"\x7f",
                b"\0\0\0\x80",
                b"\0\0\xc0\x7f",
                b"99999999",
                b"nan ",
            ]
        )
    )
    return content[:place] + new + content[place + len(new) :]


def _inserted(draw, content):
    place = _place(draw, content)
    new = draw(
        st.one_of(
            st.binary(min_size=1, max_size=9),
            st.sampled_from([b"\0", b"\xff\xfe", b"\r", b"\n\n", b'"', b"[", b"{", b",", MARK]),
        )
    )
    return content[:place] + new + content[place:]


def _repeated(draw, content):
    first, last = sorted((_place(draw, content), _place(draw, content)))
    return content[:last] + content[first:]


def _left_out(draw, content):
    first, last = sorted((_place(draw, content), _place(draw, content)))
    return content[:first] + content[last:]


SPOILERS = [
    _cut,
    _flipped,
    _overwritten,
    _inserted,
    _repeated,
    _left_out,
    lambda draw, content: b"",
    lambda draw, content: MARK + content,
    lambda draw, content: content.replace(b"\n", b"\r\n"),
    lambda draw, content: content.decode("latin-1").encode("utf-16"),
    lambda draw, content: draw(st.binary(max_size=64)),
]


def refusal(call):
    """What a reader refuses a file with; empty where it reads it."""
    try:
        call()
    except InputError as fault:
        reported = str(fault)
    else:
        return ""
    assert reported.strip()
    return reported


def read_or_refused(call, name):
    """The one line with which a reader refuses a file, which it names; empty where it reads it."""
    line = refusal(call)
    assert not line or (str(name) in line and len(line.splitlines()) == 1), line
    return line


@contextlib.contextmanager
def replaced(path, content):
    """A file with another content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.write_bytes(before)


def ended(*arguments, lines=1):
    """The status and the complaint of a command, which may succeed or refuse."""
    out, err = io.StringIO(), io.StringIO()
    nothing = io.TextIOWrapper(io.BytesIO())  # what an option's "-" reads
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch("sys.stdin", nothing),
    ):
        status = run([str(one) for one in arguments])
    reported = err.getvalue().splitlines()
    assert status in (0, 2), (status, reported)
    if status == 2:
        reported = [line for line in reported if line.startswith("multidiff: ")]
        assert len(reported) == lines if lines else reported, err.getvalue()
    return status, "\n".join(reported)


def left_behind(folder):
    """Files that were to be renamed when they were whole."""
    return [path for path in folder.rglob("*") if ".tmp" in path.name]
