"""One-token changes of C, Cython and Python source: what mutants.py builds and tests."""

import ast
import bisect
import builtins
import io
import itertools
import keyword
import re
import tokenize
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    kind: str  # name, number or operator
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Mutation:
    """A change of one file.

    `edits`: (start, end, text that comes there), in order; one, or two and more that only put brackets around.
    """

    path: str
    kind: str
    edits: tuple[tuple[int, int, str], ...]

    def apply(self, text):
        for start, end, new in reversed(self.edits):
            text = text[:start] + new + text[end:]
        return text

    def line(self, text):
        """The number of the first line that changes."""
        return text.count("\n", 0, self.edits[0][0]) + 1


# How often each kind is drawn: there are far more names than conditions.
WEIGHTS = {"operator": 4, "constant": 3, "condition": 2, "name": 4, "drop": 1}

# Lines that say what is fetched into the cache ahead of its use, and nothing else: results do not depend on them.
PREFETCHING = re.compile(
    r"prefetch(_step)? = |LC_PREFETCH_L1\(|\bahead \+?= |\.share = |LC_STEP_LINES|return \(const char \*\)"
)

# Tuned numbers, of which any is right: lines of a Python module's constants.
TUNED = re.compile(r"[A-Z][A-Z_]+ = (int\()?\d")

# Operators with a space on either side: one without is a pointer, a sign, a cast or the like.
BINARY = {
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "%": ("/",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "<": ("<=",),
    "<=": ("<",),
    ">": (">=",),
    ">=": (">",),
    "==": ("!=",),
    "!=": ("==",),
    "&&": ("||",),
    "||": ("&&",),
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "*=": ("=",),
    "|=": ("&=", "="),
    "&=": ("|=", "="),
    "/": ("*",),
    "//": ("*",),
    "//=": ("=",),
}
STEPS = {"++": ("--",), "--": ("++",)}
WORDS = {
    "and": ("or",),
    "or": ("and",),
    "True": ("False",),
    "False": ("True",),
    "any": ("all",),
    "all": ("any",),
    "ceil": ("int",),
}
JUMPS = {"break": "continue", "continue": "break"}

# Parts of names that stand for two of a kind: where the other name exists too, they are exchanged.
PAIRS = [
    ("min", "max"),
    ("rows", "lanes"),
    ("row", "lane"),
    ("input", "output"),
    ("first", "last"),
    ("lo", "hi"),
    ("from", "to"),
    ("start", "end"),
    ("before", "after"),
    ("filters", "channels"),
    ("filter", "channel"),
    ("strides", "dilation"),
    ("positions", "taps"),
    ("position", "tap"),
    ("chunk", "tile"),
    ("panel", "group"),
    ("panels", "tiles"),
    ("unpacklo", "unpackhi"),
    ("stride", "step"),
    ("batch", "channel"),
]
OTHER_WORDS = defaultdict(list)
for _a, _b in PAIRS:
    OTHER_WORDS[_a].append(_b)
    OTHER_WORDS[_b].append(_a)

# Names that only their exchange in PAIRS may change: another of the same line in their place would not compile.
C_RESERVED = re.compile(
    r"(?:LC_|lc_|_mm|__)\w*|\w+_t|T|REAL|SUFFIX|"
    r"(?:void|char|int|unsigned|long|float|double|const|static|inline|struct|enum|typedef|sizeof|return|if|else|for|"
    r"while|do|switch|case|default|break|continue|goto|volatile|NULL)"
)
CYTHON_WORDS = {
    "cdef",
    "cpdef",
    "ctypedef",
    "const",
    "void",
    "char",
    "bint",
    "double",
    "long",
    "ptrdiff_t",
    "uintptr_t",
    "size_t",
    "struct",
    "enum",
    "noexcept",
    "nogil",
    "gil",
    "inline",
    "prange",
    "sizeof",
    "self",
    "NULL",
    "real",
}
PYTHON_RESERVED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *CYTHON_WORDS}

# What is never changed is `skip`: comments, strings, and of directives all but the bodies of macros.
C_LEXEME = re.compile(
    r"""(?P<skip> /\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | \\\n
          | ^[ \t]*\#[ \t]*define[ \t]+\w+(?:\([^)\n]*\))? | ^[ \t]*\#(?:\\\n|[^\n])* )
      | (?P<number> \d[\w.]* )
      | (?P<name> [A-Za-z_]\w* )
      | (?P<operator> -> | \+\+ | -- | <<= | >>= | [-+*/%&|^<>=!]= | && | \|\| | << | >> | \#\# | \S )""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
# Cython's declarations of what C defines are no code of their own, and imported names are no siblings.
UNCHANGED_PYTHON = re.compile(
    r"^cdef extern .*\n(?:[ \t]+.*\n|\n)*|^[ \t]*(?:from [\w.]+ )?c?import (?:\([^)]*\)|.*)", re.MULTILINE
)
# Members that one declaration declares are siblings.
DECLARATION = re.compile(r"^[ \t]+(?:const )?\w+ ((?:\*?\w+(?:\[\d\])?, )+\*?\w+(?:\[\d\])?);", re.MULTILINE)


def c_tokens(text):
    return [Token(m.lastgroup, m.group(), m.start(), m.end()) for m in C_LEXEME.finditer(text) if m.lastgroup != "skip"]


def line_starts(text):
    return list(itertools.accumulate((len(line) for line in text.splitlines(keepends=True)), initial=0))


def python_tokens(text):
    """Of Python and Cython, without f-strings (which only newer versions of Python take apart)."""
    kinds = {tokenize.NAME: "name", tokenize.NUMBER: "number", tokenize.OP: "operator"}
    starts = line_starts(text)
    inside, result = 0, []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        inside += name.endswith("STRING_START") - name.endswith("STRING_END")
        if not inside and token.type in kinds:
            start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
            result.append(Token(kinds[token.type], token.string, start, end))
    return result


def unchanged_ranges(path, text):
    """Stretches of Python or Cython that are never changed."""
    ranges = [m.span() for m in UNCHANGED_PYTHON.finditer(text)]
    if path.endswith(".py"):  # annotations are for type checkers
        starts = line_starts(text)
        nodes = [getattr(node, name, None) for node in ast.walk(ast.parse(text)) for name in ("annotation", "returns")]
        ranges += [
            (starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset)
            for node in nodes
            if node
        ]
    return ranges


class Source:
    """One file's tokens, and the changes that they allow.

    `names`: all there are; `siblings`: those declared together.
    """

    def __init__(self, path, text, names, siblings):
        self.path, self.text, self.names, self.siblings = path, text, names, siblings
        self.c = path.endswith((".h", ".c"))
        self.tokens = c_tokens(text) if self.c else python_tokens(text)
        self.lines, starts = text.splitlines(), line_starts(text)
        self.line_of = [bisect.bisect_right(starts, token.start) - 1 for token in self.tokens]
        self.on_line = defaultdict(list)
        for i, line in enumerate(self.line_of):
            self.on_line[line].append(i)

    def mutations(self):
        unchanged = [] if self.c else unchanged_ranges(self.path, self.text)
        found = {}
        for i, token in enumerate(self.tokens):
            if any(start <= token.start < end for start, end in unchanged) or PREFETCHING.search(self.line(i)):
                continue
            if not self.c and TUNED.match(self.line(i)):
                continue
            for kind, edits in self.changes(i):
                mutation = Mutation(self.path, kind, tuple(edits))
                if mutation.apply(self.text) != self.text:
                    found[mutation] = None
        return list(found)

    def line(self, i):
        return self.lines[self.line_of[i]]

    def text_at(self, i):
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def changes(self, i):
        """(kind, edits) of every change of token i."""
        token = self.tokens[i]
        here = (token.start, token.end)
        if token.kind == "number":
            yield from (("constant", [(*here, new)]) for new in self.constants(token.text))
        elif token.kind == "operator":
            yield from (("operator", [(*here, new)]) for new in self.operators(i))
        else:
            yield from (("operator", [(*here, new)]) for new in ({} if self.c else WORDS).get(token.text, ()))
            yield from (("name", [(*here, new)]) for new in self.renamings(i))
            yield from self.floors(i)
        yield from (("condition", edits) for edits in self.negations(i))
        yield from (("drop", edits) for edits in self.drops(i))

    def constants(self, text):
        """n as n + 1, and 1 as 0."""
        number = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[1-9]\d*|0)([uUlL]*)", text)
        if number is None:
            return
        value = int(number[1], 0)
        yield (hex(value + 1) if "x" in text.lower() else str(value + 1)) + number[2]
        if value == 1:
            yield "0" + number[2]

    def operators(self, i):
        token = self.tokens[i]
        spaced = self.text[token.start - 1].isspace() and self.text[token.end : token.end + 1].isspace()
        if spaced:
            division = "/" if self.c else "//"
            yield from (division if new == "/" else new for new in BINARY.get(token.text, ()))
        if self.c:
            yield from STEPS.get(token.text, ())

    def renamings(self, i):
        """Names that stand for something of the same kind: the other of a pair, or a sibling of the same line or
        declaration.
        """
        name, kind, around = self.text_at(i), self.name_kind(i), (self.text_at(i - 1), self.text_at(i + 1))
        if "##" in around or (not self.c and self.is_declared(i)):
            return []
        words = name.split("_")
        options = {
            "_".join([*words[:k], other, *words[k + 1 :]])
            for k, word in enumerate(words)
            for other in OTHER_WORDS[word]
        }
        options = {option for option in options & self.names if self.c or option not in keyword.kwlist}
        if kind in ("member", "plain", "word") and not self.is_reserved(name):
            on_line = [
                k
                for k in self.on_line[self.line_of[i]]
                if (self.name_kind(k), self.taken_of(k)) == (kind, self.taken_of(i))
            ]
            options |= {self.text_at(k) for k in on_line if not self.is_reserved(self.text_at(k))}
            options |= self.siblings[name] if kind == "member" else set()
        return sorted(options - {name})

    def name_kind(self, i):
        """What may stand in a name's place.

        A 'member', a 'word' of the instruction sets' vocabulary, a 'plain' name.
        """
        if i >= len(self.tokens) or self.tokens[i].kind != "name":
            return None
        if self.text_at(i - 2) == "LC_NAME":
            return "word"
        if self.text_at(i + 1) == "(":
            return "call"
        return "member" if self.text_at(i - 1) in (".", "->") else "plain"

    def taken_of(self, i):
        """How a name is used: an element or a member taken of it, or itself."""
        after = self.text_at(i + 1)
        return after if after in ("[", ".", "->") else ""

    def is_reserved(self, name):
        return C_RESERVED.fullmatch(name) is not None if self.c else name in PYTHON_RESERVED

    def is_declared(self, i):
        """Whether a Python name is that of a definition, a parameter or a keyword argument."""
        after = self.text[self.tokens[i].end : self.tokens[i].end + 2]
        return self.line(i).lstrip().startswith(("def ", "class ")) or (after[:1] == "=" and after != "==")

    def floors(self, i):
        """lc_ceil_div(a, b) as a / b."""
        if self.text_at(i) != "lc_ceil_div" or (close := self.closing(i + 1)) is None:
            return
        commas = [k for k in range(i + 2, close) if self.text_at(k) == "," and self.depth(i + 1, k) == 1]
        if len(commas) == 1 and self.text_at(i - 1) != "ptrdiff_t":  # else its definition
            name, opened, comma, closed = (self.tokens[k] for k in (i, i + 1, commas[0], close))
            division = ") / (" if self.c else ") // ("
            yield (
                "operator",
                [(name.start, opened.end, "(("), (comma.start, comma.end, division), (closed.start, closed.end, "))")],
            )

    def closing(self, i):
        """The bracket that closes the one that token i opens."""
        return next(
            (k for k in range(i + 1, len(self.tokens)) if self.text_at(i) in "([{" and self.depth(i, k + 1) == 0), None
        )

    def depth(self, start, end):
        """Brackets open after tokens start .. end-1."""
        texts = [token.text for token in self.tokens[start:end] if token.kind == "operator"]
        return sum(text in "([{" for text in texts) - sum(text in ")]}" for text in texts)

    def negations(self, i):
        """A condition negated, or a negation left out."""
        token, after = self.tokens[i], self.text_at(i + 1)
        if token.text == "!":
            yield [(token.start, token.end, "")]
        elif token.text == "not" and not self.c and (after != "None" or self.text_at(i - 1) == "is"):
            yield [(token.start, token.end + 1, "")]
        elif token.text in ("if", "elif", "while") and not self.c and after != "not":
            yield [(token.end, token.end, " not")]
        elif token.text in ("if", "while") and self.c and after == "(":
            opened, closed = self.tokens[i + 1], self.tokens[self.closing(i + 1)]
            yield [(opened.end, opened.end, "!("), (closed.start, closed.start, ")")]
        elif token.text == "?" and self.c and (start := self.operand_before(i)) is not None:
            yield [(start, start, "!")]

    def operand_before(self, i):
        """Where the operand that ends before token i starts: a name and the members and elements taken of it."""
        k = i - 1
        while k > 0 and self.tokens[k].kind == "name" and self.text_at(k - 1) in (".", "->"):
            k -= 2
        known = self.tokens[k].kind == "name" and self.text_at(k - 1) in ("(", ",", "=", ":", "&&", "||", "?", "return")
        return self.tokens[k].start if known else None

    def is_sign(self, i):
        token, before = self.tokens[i], self.tokens[i - 1]
        follows = not self.text[token.end : token.end + 1].isspace()
        return follows and before.text not in ")]" and (before.kind == "operator" or before.text == "return")

    def drops(self, i):
        """A sign, a jump or, in Python, an argument left out; a jump exchanged for the other one."""
        token, before, after = self.tokens[i], self.text_at(i - 1), self.text_at(i + 1)
        if token.text == "-" and self.is_sign(i):
            yield [(token.start, token.end, "")]
        elif token.text in JUMPS:
            yield [(token.start, token.end, JUMPS[token.text])]
            yield [(token.start, token.end, "" if self.c else "pass")]
        elif not self.c and token.kind == "name" and before == "," and after in (",", ")") and not self.is_declared(i):
            yield [(self.tokens[i - 1].start, token.end, "")]


def all_mutations(texts):
    """The changes of all files of a dict from paths to texts."""
    names, siblings = {"min", "max"}, defaultdict(set)
    for path, text in texts.items():
        c = path.endswith(".h")
        names |= {token.text for token in (c_tokens(text) if c else python_tokens(text)) if token.kind == "name"}
        for declared in DECLARATION.findall(text) if c else ():
            together = set(re.findall(r"[A-Za-z_]\w*", declared))
            for name in together:
                siblings[name] |= together
    return [mutation for path, text in texts.items() for mutation in Source(path, text, names, siblings).mutations()]


def in_random_order(mutations, rng):
    """Kinds as WEIGHTS says; of a kind every place once, with one of its changes, before any place comes again."""
    queues = {}
    for kind in WEIGHTS:
        places = defaultdict(list)
        for mutation in mutations:
            if mutation.kind == kind:
                places[mutation.path, mutation.edits[0][0]].append(mutation)
        for changes in places.values():
            rng.shuffle(changes)
        rounds = itertools.zip_longest(*places.values())
        queues[kind] = [m for one in rounds for m in rng.sample(one, len(one)) if m is not None][::-1]
    while any(queues.values()):
        kinds = [kind for kind, queue in queues.items() if queue]
        yield queues[rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]].pop()
