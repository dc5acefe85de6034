"""``python -m benchmarks [part ...]``: run parts by name, print a table of each."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict

from benchmarks.timing import HEADING, Row, machine
from multidiff.report import table

# Name -> module, imported when asked for.
PARTS = {
    "startup": "startup",
    "reverse-loop": "reverse_loop",
    "synth": "synth",
    "wavegrad-step": "wavegrad_step",
}


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed, beside what else does the same work.",
        epilog="The ratio is to the system whose ratio is 1; low is good for times (s, RTF), "
        "high for sound trained on in a second.",
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (2)")
    parser.add_argument("--rounds", type=int, default=7, help="the median is over these (7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    wrong = [name for name in options.parts if name not in PARTS]
    if wrong:
        parser.error(f"no part {', '.join(wrong)}: there are {', '.join(PARTS)}")
    if options.threads < 1 or options.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    found = machine()
    if not options.json:
        packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
        print(f"{found['cpu']}, {found['cores']} cores, load {found['load']}; {packages}")
    rows: list[Row] = []
    for name in options.parts or PARTS:
        part = importlib.import_module(f"benchmarks.{PARTS[name]}")
        fresh = part.measure(options.threads, options.rounds)
        rows += fresh
        if not options.json:
            print("", *table([HEADING, *(row.cells() for row in fresh)]), sep="\n", flush=True)
    if options.json:
        print(json.dumps({"machine": found, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
