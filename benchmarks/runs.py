"""Compare two runs of compare.py, by the files compare.json that they wrote.

    python benchmarks/runs.py OLD.json NEW.json

A line for every shape that is in both: localconv's speed over the best peer and its share of the limit, before and
after, and how its share changed. Times of two runs are not compared: the machine may have been another one. Lines are
sorted by the change, losses first.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any


def rows_of(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rows of a run by family, work and name."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {(row["family"], row["work"], row["name"]): row for row in rows}


def change(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How many times nearer to the limit; without limits, how many times faster over the best peer."""
    for figure in ("reached", "speed"):
        if figure in old and figure in new:
            return new[figure] / old[figure]
    return math.nan


def pair(row: dict[str, Any], other: dict[str, Any], figure: str, form: str) -> str:
    """A figure of both runs."""
    return " ".join(format(r[figure], form) if figure in r else "-".rjust(6) for r in (row, other))


def main() -> int:
    """Print a line for every shape, and the geometric means of the changes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    old, new = rows_of(options.old), rows_of(options.new)
    both = sorted((key for key in old if key in new), key=lambda key: (key[:2], change(old[key], new[key])))
    if not both:
        print("runs.py: no shape is in both runs", file=sys.stderr)
        return 2
    kinds: dict[tuple[str, str], list[float]] = {}
    print(f"{'shape':60} {'speed':>13} {'of the limit':>13}  change")
    for key in both:
        changed = change(old[key], new[key])
        kinds.setdefault(key[:2], []).append(changed)
        speeds, shares = pair(old[key], new[key], "speed", "6.2f"), pair(old[key], new[key], "reached", "6.0%")
        print(f"{', '.join((key[0], key[2], key[1])):60.60} {speeds} {shares}  {changed:.3f}x")
    for kind, changes in kinds.items():
        known = [math.log(c) for c in changes if not math.isnan(c)]
        if known:
            print(f"{', '.join(kind)}: geometric mean {math.exp(sum(known) / len(known)):.3f}x of {len(known)} shapes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
