"""The changes that mutants.py tries are changes of one token each, and the same ones again for the same seed.

Nothing changes what is not code.
"""

import ast
import random
from pathlib import Path

import pytest
from mutations import all_mutations, c_tokens, in_random_order, python_tokens

C = """\
/* A comment: a + b == 1, and "first < last". */
#include "localconv/first.h"
#define LC_TWICE(a) \\
    ((a) + (a))
typedef struct lc_box {
    ptrdiff_t from[3], extent[3];
    int rows, lanes;
} lc_box;

static int find(const lc_box *b, int first, int last) { /* first + 1 */
    const char *text = "first + 1";
    if (first < last && !b->rows) return -1;
    for (int i = first; i < last; ++i) total += b->from[0] * 2 - lc_min(b->extent[1], lc_ceil_div(first, last));
    t->prefetch = first + 1;
    return b->rows ? first : last;
}
"""
CYTHON = '''\
"""A docstring: a + b == 1."""
from first import last

cdef extern from "first.h":
    int lc_first(int a, int b)

cdef int find(const char *text, int first, int last) noexcept:
    return <int> text[first + 1] if first < last and not last == 3 else lc_ceil_div(first, last)
'''
PYTHON = '''\
"""A docstring: a + b == 1."""
from first import last

LIMIT = 3 * 2**20


def find(first: int = 0, last: tuple[int, ...] | None = None) -> int:  # first + 1
    for i in range(first, last):
        if i % 2 != -1 or not f"{first + 1}":
            break
        total = find(first, last=last) - min(first, i) // 3
    return total
'''
TEXTS = {"box.h": C, "find.pyx": CYTHON, "find.py": PYTHON}
MUTATIONS = all_mutations(TEXTS)
# No comment, string or directive, no import, no declaration of what C has, nothing about prefetching, no tuned number
# and no annotation.
UNCHANGED = {
    "box.h": [
        'A comment: a + b == 1, and "first < last".',
        '#include "localconv/first.h"',
        "#define LC_TWICE(a)",
        "/* first + 1 */",
        '"first + 1"',
        "t->prefetch = first + 1;",
    ],
    "find.pyx": [
        "A docstring: a + b == 1.",
        "from first import last",
        'cdef extern from "first.h":\n    int lc_first(int a, int b)',
    ],
    "find.py": [
        "A docstring: a + b == 1.",
        "from first import last",
        "# first + 1",
        'f"{first + 1}"',
        "LIMIT = 3 * 2**20",
        ": int =",
        ": tuple[int, ...] | None =",
        "-> int:",
    ],
}


def tokens(path, text):
    return [token.text for token in (c_tokens(text) if path.endswith(".h") else python_tokens(text))]


def after(path, line):
    """What becomes of one line."""
    changed = [mutation.apply(TEXTS[path]) for mutation in MUTATIONS if mutation.path == path]
    number = next(number for number, text in enumerate(TEXTS[path].splitlines()) if text.strip() == line)
    return {text.splitlines()[number].strip() for text in changed} - {line}


@pytest.mark.parametrize("path", TEXTS)
def test_one_token_changes(path):
    """But for the brackets of a negated condition, and of a quotient in place of lc_ceil_div."""
    mine = [mutation for mutation in MUTATIONS if mutation.path == path]
    old = tokens(path, TEXTS[path])
    assert {mutation.kind for mutation in mine} == {"operator", "constant", "condition", "name", "drop"}
    for mutation in mine:
        new = tokens(path, mutation.apply(TEXTS[path]))
        assert new != old
        if len(mutation.edits) == 1:
            same = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
            rest = max(len(old), len(new)) - same - 1
            assert rest == 0 or old[-rest:] == new[-rest:] or mutation.kind == "drop"


@pytest.mark.parametrize("path", TEXTS)
def test_only_code_changes(path):
    for mutation in MUTATIONS:
        if mutation.path == path:
            changed = mutation.apply(TEXTS[path])
            assert [text for text in UNCHANGED[path] if text not in changed] == []


@pytest.mark.parametrize(
    ("path", "line", "old", "new"),
    [
        ("box.h", "((a) + (a))", "+", {"-"}),
        ("box.h", "if (first < last && !b->rows) return -1;", "<", {"<="}),
        ("box.h", "if (first < last && !b->rows) return -1;", "&&", {"||"}),
        ("box.h", "if (first < last && !b->rows) return -1;", "!", {""}),
        (
            "box.h",
            "if (first < last && !b->rows) return -1;",
            "(first < last && !b->rows)",
            {"(!(first < last && !b->rows))"},
        ),
        ("box.h", "if (first < last && !b->rows) return -1;", "first", {"last"}),
        ("box.h", "if (first < last && !b->rows) return -1;", "rows", {"lanes"}),
        ("box.h", "if (first < last && !b->rows) return -1;", "-1", {"1", "-0", "-2"}),
        ("box.h", "return b->rows ? first : last;", "b->rows ?", {"!b->rows ?", "b->lanes ?"}),
        ("find.py", "break", "break", {"continue", "pass"}),
        ("find.py", "for i in range(first, last):", "first", {"last"}),
        ("find.py", "total = find(first, last=last) - min(first, i) // 3", "// 3", {"* 3", "// 4"}),
        (
            "find.py",
            "total = find(first, last=last) - min(first, i) // 3",
            "min(first, i)",
            {"max(first, i)", "min(first)"},
        ),
    ],
)
def test_changes_of_a_line(path, line, old, new):
    assert {line.replace(old, one) for one in new} <= after(path, line)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("box.h", "lc_ceil_div(first, last));", "((first) / ( last)));"),
        ("find.pyx", "lc_ceil_div(first, last)\n", "((first) // ( last))\n"),
    ],
)
def test_quotients_rounded_down(path, old, new):
    assert TEXTS[path].replace(old, new) in [
        mutation.apply(TEXTS[path]) for mutation in MUTATIONS if mutation.path == path
    ]


def test_python_stays_python():
    """A changed name or operator still parses; so does a dropped argument."""
    for mutation in MUTATIONS:
        if mutation.path == "find.py":
            ast.parse(mutation.apply(PYTHON))


def test_every_change_comes_once():
    orders = [list(in_random_order(MUTATIONS, random.Random(seed))) for seed in (1, 2)]
    assert orders[0] != orders[1]
    for order in orders:
        assert len(order) == len(set(order)) == len(MUTATIONS)
        assert set(order) == set(MUTATIONS)


def test_a_seed_repeats(python):
    """In another process too, where sets have another order."""
    code = "import random, test_mutants as t; print(list(t.in_random_order(t.MUTATIONS, random.Random(1))))"
    path = str(Path(__file__).parent)
    assert python(code, PYTHONPATH=path, PYTHONHASHSEED="1") == python(code, PYTHONPATH=path, PYTHONHASHSEED="2")
