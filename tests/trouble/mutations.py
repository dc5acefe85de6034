"""What happens to files: bytes flipped, cut and spliced; values of JSON and YAML changed."""

import copy
import json

BYTES = (
    b"\xff" * 8,
    b"\0" * 8,
    b"\xff\xff\xff\x7f",
    b"\xff" * 7 + b"\x7f",
    b"\0\0\0\x80",
    b"99999999",
    b"nan ",
    b"-1",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b'"',
    b"[",
    b"{",
    b",",
    b"\r\n",
    b"&a *a ",
    b"!!int x",
)
VALUES = (
    *(None, True, False, 0, -1, 1, -3, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**30)),
    *(0.5, 1e-320, 1e308, float("inf"), float("nan"), "", " ", "x" * 5000, "\x1b[2J\x07"),
    *("\u202egpj", "../../x", "/etc/passwd", "a/b", "3", "on", [], {}, [[]], [None], {"a": 1}),
    *({"use": "Trainer"}, [1, "a", None], "\ud800", "starter:", "meta", "\0"),
)
NAMES = ("a\x1b[31mb", "a\nb", "a\u202eb", "a b", "-a", "é", "\udcff", "a\rb", "a%sb")


def _where(random, content):
    """A place in the bytes, the beginning more often, where headers are."""
    last = max(len(content) - 1, 0)
    return random.randint(0, min(last, 64)) if random.random() < 0.5 else random.randint(0, last)


def _flipped(random, content):
    found = bytearray(content)
    for _ in range(random.randint(1, 8) if found else 0):
        found[_where(random, content)] ^= 1 << random.randint(0, 7)
    return bytes(found)


def _overwritten(random, content):
    where, new = _where(random, content), random.choice(BYTES)
    return content[:where] + new + content[where + len(new) :]


def _inserted(random, content):
    where = _where(random, content)
    new = random.choice((random.choice(BYTES), random.randbytes(random.randint(1, 9))))
    return content[:where] + new + content[where:]


def _spliced(random, content):
    first, last = sorted((_where(random, content), _where(random, content)))
    return (
        content[:last] + content[first:]
        if random.random() < 0.5
        else content[:first] + content[last:]
    )


def _nested(random, content):
    where, count = _where(random, content), random.choice((50, 2000, 100_000))
    opening = random.choice((b"[", b"{", b'{"a":', b"- ", b"(", b"? "))
    return content[:where] + opening * count + content[where:]


def in_bytes(random, content):
    """Bytes that something happened to, once or twice; to some only one byte, anywhere."""
    if content and random.random() < 0.3:
        found = bytearray(content)
        found[random.randrange(len(found))] = random.randrange(256)
        return bytes(found)
    for _ in range(random.randint(1, 2)):
        way = random.choices(
            (_flipped, _overwritten, _inserted, _spliced, _nested, None), (4, 3, 2, 3, 1, 1)
        )[0]
        content = content[: _where(random, content)] if way is None else way(random, content)
    return content


def in_values(random, tree):
    """A tree of lists and mappings in which one to three values are others."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.randint(1, 3)):
        tree = _changed(random, tree)
    return tree


def _changed(random, tree):
    if not isinstance(tree, list | dict) or not tree or random.random() < 0.1:
        return copy.deepcopy(random.choice(VALUES))
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = random.choice(keys)
    way = random.random()
    if way < 0.1:
        del tree[key]
    elif way < 0.2 and isinstance(tree, dict):
        tree[random.choice(("x", "\x1b[31m", "", "use", "1"))] = tree.pop(key)
    else:
        tree[key] = _changed(random, tree[key])
    return tree


def as_json(tree):
    """A tree as JSON, with what Python alone writes, such as NaN."""
    return json.dumps(tree).encode("utf-8", "surrogatepass")
