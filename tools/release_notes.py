"""Print what CHANGELOG.md says of a version, as the notes of its release: ``python tools/release_notes.py VERSION``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def notes(text: str, version: str) -> str:
    """The section of a version in a changelog, without its heading. Lines are joined: GitHub keeps breaks."""
    section = re.search(rf"^## \[{re.escape(version)}\].*\n((?:(?!## ).*\n?)*)", text, re.MULTILINE)
    if section is None or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md must have a section [{version}] with text in it")
    return re.sub(r"\n +(?! *- )", " ", section[1].strip()) + "\n"


def main() -> None:
    """Print the notes."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("version")
    print(notes(CHANGELOG.read_text(encoding="utf-8"), parser.parse_args().version), end="")


if __name__ == "__main__":
    main()
