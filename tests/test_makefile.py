"""The Makefile stays short and named: lines, targets, the list at its head, and what documents say of them."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import quick

import localconv

ROOT = Path(__file__).parent.parent
MAKEFILE = ROOT / "Makefile"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "benchmarks" / "README.md", *sorted((ROOT / ".github").rglob("*.*")), ROOT / ".ci" / "run"]

if not MAKEFILE.exists():
    pytest.skip("tests of a checkout; this is not one", allow_module_level=True)

TEXT = MAKEFILE.read_text(encoding="utf-8")
HEAD = TEXT.partition("\n\n")[0]
PHONY = set(re.search(r"^\.PHONY:((?:.*\\\n)*.*)", TEXT, re.MULTILINE)[1].replace("\\\n", " ").split())
TARGETS = set(re.findall(r"^([a-z0-9_.-]+):", TEXT, re.MULTILINE)) - {".PHONY", ".DELETE_ON_ERROR"}
# `make NAME`, also in a table or a block, and further names of the same command.
COMMAND = re.compile(r"(?:^(?:    )?|`|run: )make ((?:[a-z0-9_.-]+ ?)+)(?=[`\n#]|  )", re.MULTILINE)


def named(text):
    """The targets that a text tells its reader to make."""
    return {name for words in COMMAND.findall(text) for name in words.split()}


def lines(text):
    return [(number, line) for number, line in enumerate(text.expandtabs(8).splitlines(), 1) if len(line) > 120]


@pytest.mark.parametrize("path", [MAKEFILE, *sorted((ROOT / "tools").glob("*"))], ids=lambda path: path.name)
def test_lines_fit(path):
    if path.is_file():
        assert lines(path.read_text(encoding="utf-8")) == []


def test_no_recipe_is_a_program():
    """Loops and conditions are in tools/, where linters and readers look for them."""
    assert re.findall(r"^\t.*\b(?:for|while|if)\b.*(?:;|\\)$", TEXT, re.MULTILINE) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_targets_that_a_page_names_exist(page):
    assert sorted(named(page.read_text(encoding="utf-8")) - TARGETS) == []


def test_targets_are_listed():
    """At the Makefile's head, which is what make help prints, and in CONTRIBUTING.md with the time of each."""
    assert sorted(PHONY - TARGETS) == []
    words = set(re.findall(r"[a-z][a-z0-9_.-]*[a-z0-9]", HEAD))
    assert sorted(TARGETS - words) == []
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## A tour")[0]
    assert sorted(TARGETS - named(section)) == []
    assert re.match(r"# .*\n\n## Your first change\n", section)


def test_help_prints_the_list():
    try:
        done = subprocess.run(
            ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("needs make")
    assert done.stdout == re.sub(r"^# ", "", HEAD, flags=re.MULTILINE) + "\n"


def test_scripts_exist():
    assert {name for name in re.findall(r"\btools/[\w.]+", TEXT) if not (ROOT / name).exists()} == set()


def test_every_package_is_installed():
    """The source tree is where tests find the package: what a copy of it would lack shows here."""
    source = ROOT / "src" / "localconv"
    if not source.exists():
        pytest.skip("needs the sources")
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {".".join(path.parent.relative_to(source.parent).parts) for path in source.rglob("__init__.py")}
    assert set(setuptools["packages"]) == packages
    assert localconv.__name__ in packages


def test_tests_called_slow_exist():
    """One that is renamed would come back into the minute of make test-quick."""
    folder = Path(__file__).parent
    assert [name for name in quick.FILES if not (folder / name).exists()] == []
    for name in [*quick.TESTS, *quick.COSTLY]:
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (folder / file).read_text(encoding="utf-8"), re.MULTILINE), name
