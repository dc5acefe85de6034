"""``python -m benchmarks [part ...]``: run parts by name and print a table of each.

The keyword arguments of a part's ``measure``, such as sizes, become options of the program when
that part is named.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from dataclasses import asdict
from types import ModuleType
from typing import Any

from benchmarks.timing import HEADING, Row, machine
from multidiff.utils.report import table

# Name -> module, imported on demand.
COMPONENTS = {
    "startup": "startup",
    "cold-start": "cold_start",
    "reverse-loop": "reverse_loop",
    "synth": "synth",
    "speak": "speak",
    "wavegrad-step": "wavegrad_step",
    "unet-step": "unet_step",
    "image-loop": "picture_loop",
    "decode-memory": "decode_memory",
    "load-memory": "load_memory",
    "digits-budget": "digits_budget",
    "text-step": "text_step",
    "text-loop": "text_loop",
    "edit-step": "edit_step",
    "token-digits": "token_digits",
    "network-share": "network_share",
    "training-share": "training_share",
    "mel-guard": "mel_guard",
    "forecast": "forecast",
    "precision": "precision",
    "referee": "referee",
    "data": "data",
    "bulk": "bulk",
    "serve": "serve",
}


def main() -> None:
    """Run the program."""
    named = {word: _module(word) for word in sys.argv[1:] if word in COMPONENTS}
    options = _parser(named).parse_args()
    found = machine()
    if not options.json:
        packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
        print(f"{found['cpu']}, {found['cores']} cores, load {found['load']}; {packages}")
    rows: list[Row] = []
    for name in options.parts or COMPONENTS:
        part = _module(name)
        given = {key: getattr(options, key) for key in _sizes(part) if hasattr(options, key)}
        fresh = part.measure(options.threads, options.rounds, **given)
        rows += fresh
        if not options.json:
            print("", *table([HEADING, *(row.cells() for row in fresh)]), sep="\n", flush=True)
    if options.json:
        print(json.dumps({"machine": found, "rows": [asdict(row) for row in rows]}))


def _parser(named: dict[str, ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory against other implementations.",
        epilog="The ratio is to the system whose ratio is 1; low is good for times (s, RTF), "
        "memory and distances, high for rates per second. A part's own options are "
        "shown if it is named before --help.",
    )
    offer = f"of {', '.join(COMPONENTS)}; or all"
    parser.add_argument("parts", nargs="*", metavar="part", type=_part, help=offer)
    parser.add_argument("--threads", type=_count, default=2, help="number of CPU threads (2)")
    parser.add_argument("--rounds", type=_count, default=7, help="the median is over these (7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    known: set[str] = set()
    for name, part in named.items():
        group = parser.add_argument_group(f"options of {name}")
        for key, default in _sizes(part).items():
            if key in known:  # two parts share it
                continue
            known.add(key)
            option, kind = "--" + key.replace("_", "-"), type(default)
            reported = f"({default})" if default else None
            group.add_argument(option, type=kind, default=argparse.SUPPRESS, help=reported)
    return parser


def _sizes(part: ModuleType) -> dict[str, Any]:
    """Return a part's keyword arguments and their defaults."""
    parameters = inspect.signature(part.measure).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{COMPONENTS[name]}")


def _part(name: str) -> str:
    if name not in COMPONENTS:
        raise argparse.ArgumentTypeError(f"no part {name}: expected one of {', '.join(COMPONENTS)}")
    return name


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return int(text)


if __name__ == "__main__":
    main()
