"""Random one-token changes of the kernels and of what feeds them, each built and tested.

Those that no test notices are printed. A copy of the sources in build/mutants is changed, never the sources.

`make mutants` installs what it needs. One mutant of a seed again, whose tree then stays in build/mutants:

    make mutants SEED=1234 MUTANTS_FLAGS="--repeat 17"

A survivor is a gap in the tests, or changes nothing that a test may ask for (speed, a bound with room to spare): a
reader decides.
"""

import argparse
import collections
import contextlib
import difflib
import fnmatch
import glob
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mutations import all_mutations, in_random_order

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "mutants"

# What is changed.
FILES = [
    "include/localconv/**/*.h",
    "src/localconv/_core.pyx",
    "src/localconv/core/geometry.py",
    "src/localconv/core/windows.py",
    "src/localconv/core/arguments.py",
    "src/localconv/core/spec.py",
    "src/localconv/core/policy.py",
]
# What a tree is made of.
PARTS = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "src", "include", "tests"]

# The fastest tests that notice much come first, those of layers last. Left out: what reads only documents, and these
# tools' own tests.
QUICK = ["golden", "golden_gradients", "isa", "machine", "policy", "arguments", "arguments_grad", "im2col"]
QUICK += ["properties", "local", "grad_local", "conv", "grad_conv"]
LEFT_OUT = ["documents", "makefile", "mutants"]

# Optimized for debugging: compiled twice as fast as -O1, and the tests take only a third longer.
OPTIMIZE = "-Og"
# What newer compilers refuse anyway.
ERRORS = [
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
    "-Werror=implicit-function-declaration",
    "-Wfatal-errors",
]
COMPILE = ["-std=c11", OPTIMIZE, *ERRORS]
# As in the Makefile, but for line numbers.
SANITIZE = [
    *("-std=c11", OPTIMIZE, "-fsanitize=address,undefined", "-fno-sanitize=null,object-size,pointer-overflow"),
    *("-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
]

# Seconds of a processor, so that a busy machine ends nothing; what only waits ends after more time of the clock. A test
# that takes longer hangs: the slowest takes ten seconds.
BUILD_LIMIT, KERNEL_LIMIT, TEST_LIMIT, SUITE_LIMIT = 300, 120, 600, 2400
BUSY = 10
OUT_OF_TIME = -getattr(signal, "SIGXCPU", 0) or None
# Bytes of address space: a mutant may allocate without end.
MEMORY_LIMIT = 8 * 2**30

NOT_COUNTED = ("not built", "same code", "unfinished")


class Verdict(Exception):
    """How a mutant ended, before its last test."""


@dataclass
class Result:
    number: int
    mutation: object
    verdict: str
    seconds: float


@dataclass
class Bench:
    """What all mutants share: the sources' texts, the end of the time, options, the unchanged module, and what was
    found so far.
    """

    texts: dict
    end: float
    c_test: bool = True
    quick: bool = False
    keep: bool = False
    reference: bytes = b""
    results: list = field(default_factory=list)
    running: set = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def counted(self):
        return sum(not result.verdict.startswith(NOT_COUNTED) for result in self.results)

    def out_of_time(self):
        return time.monotonic() >= self.end

    def stop(self):
        """Ends the time now, and what runs."""
        self.end = 0
        for process in list(self.running):
            end_group(process)


def end_group(process):
    """Ends a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # nothing left, as it should be
        os.killpg(process.pid, signal.SIGKILL)


class Tree:
    """A copy of the sources with an interpreter of its own, which imports from there."""

    def __init__(self, bench, path):
        self.bench, self.path = bench, path
        self.output = ""

    def make(self, source):
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(source, self.path, ignore=shutil.ignore_patterns("venv", ".hypothesis"))
        venv.create(self.path / "venv", symlinks=os.name != "nt")
        site = sysconfig.get_path(
            "purelib", vars={"base": str(self.path / "venv"), "platbase": str(self.path / "venv")}
        )
        (Path(site) / "mutant.pth").write_text(f"{self.path / 'src'}\n{sysconfig.get_path('purelib')}\n")
        self.python = self.path / "venv" / Path(sysconfig.get_path("scripts")).name / "python"

    def run(self, command, limit, limited=True):
        """The exit status of a command in the tree, None if it took too long; its output is kept.

        All that it started ends with it. `limit`: seconds of a processor, and `BUSY` times as many of the clock.
        """
        limits = [f"ulimit -S -t {limit}"] if os.name == "posix" else []
        if limited and sys.platform == "linux":
            limits.append(f"ulimit -v {MEMORY_LIMIT // 1024}")
        if limits:
            command = ["sh", "-c", " && ".join([*limits, 'exec "$@"']), "sh", *command]
        with open(self.path / "output.txt", "w+", encoding="utf-8", errors="replace") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.path,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.bench.running.add(process)
            try:
                status = process.wait(max(0, min(limit * BUSY, self.bench.end - time.monotonic())))
                status = None if status == OUT_OF_TIME else status
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end_group(process)
                process.wait()
                self.bench.running.remove(process)
                output.seek(0)
                self.output = output.read()
        if self.bench.out_of_time():
            raise Verdict("unfinished")
        return status

    def environment(self):
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LOCALCONV_", "OMP_NUM", "PYTEST_"))
        }
        sanitizer = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096:hard_rss_limit_mb=8192"
        return plain | {
            "LOCALCONV_CFLAGS": OPTIMIZE,
            "HYPOTHESIS_PROFILE": "ci",
            "KERAS_HOME": str(self.path),
            "ASAN_OPTIONS": sanitizer,
        }

    # The stages: each returns, or raises what became of the mutant.

    def compile_kernel_test(self, flags):
        sources = ["tests/c/kernel_test.c", *map(str, sorted(self.path.glob("src/kernels/*.c")))]
        command = [os.environ.get("CC", "cc"), *flags, "-Iinclude", *sources, "-o", "kernel_test", "-lm"]
        if self.run(command, BUILD_LIMIT) != 0:
            raise Verdict("not built")

    def kernel_test(self, rounds, sanitized=False):
        status = self.run([self.path / "kernel_test", str(rounds)], KERNEL_LIMIT, limited=not sanitized)
        if status != 0:
            how = "timeout in" if status is None else "crash in" if status < 0 else "caught by"
            raise Verdict(f"{how} kernel_test.c{', sanitized' if sanitized else ''}")

    def build(self):
        if self.run([self.python, "setup.py", "-q", "build_ext", "--inplace"], BUILD_LIMIT) != 0:
            raise Verdict("not built")
        if self.module().read_bytes() == self.bench.reference:
            raise Verdict("same code")

    def module(self):
        return next((self.path / "src" / "localconv").glob("_core*.so"))

    def pytest(self, names):
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not big and not memory", "--tb=short"]
        hang = ["-o", f"faulthandler_timeout={TEST_LIMIT}", "-o", "faulthandler_exit_on_timeout=true"]
        status = self.run(
            [self.python, "-m", "pytest", *options, *hang, *(f"tests/test_{name}.py" for name in names)], SUITE_LIMIT
        )
        if status == 0:
            return
        failed = re.search(r"^(?:FAILED|ERROR) tests/(test_\w+\.py)", self.output, re.MULTILINE)
        named = re.findall(r"\btest_\w+\.py", self.output) or ["the tests' import"]
        if failed:
            raise Verdict(f"caught by {failed[1]}")
        hung = status is None or "Timeout (" in self.output
        raise Verdict(f"{'timeout in' if hung else 'crash in' if status < 0 else 'caught by'} {named[-1]}")

    def check(self, kind):
        """All stages of a change in a header (.h), in Cython (.pyx) or in Python (.py), the likeliest to notice and
        fastest first.
        """
        c_test = kind == ".h" and self.bench.c_test
        if c_test:
            self.compile_kernel_test(COMPILE)
            self.kernel_test(60)
        if kind != ".py":
            self.build()
        self.pytest(QUICK)
        if c_test:
            self.compile_kernel_test(SANITIZE)
            self.kernel_test(20, sanitized=True)
        if self.bench.quick:
            return
        others = {path.stem.removeprefix("test_") for path in (self.path / "tests").glob("test_*.py")}
        self.pytest(sorted(others - {*QUICK, *LEFT_OUT}, key=lambda name: (name.startswith("layers"), name)))


def read_texts():
    texts = {}
    for pattern in FILES:
        paths = sorted(glob.glob(pattern, root_dir=ROOT, recursive=True))
        if not paths:
            raise SystemExit(f"no file is called {pattern}: FILES in {Path(__file__).name} is out of date")
        texts |= {path.replace(os.sep, "/"): (ROOT / path).read_text(encoding="utf-8") for path in paths}
    return texts


def make_pristine(bench, check):
    """The unchanged tree, built, from which mutants are copied.

    With `check` every test must pass there: else mutants mean nothing.
    """
    tree, source, began = Tree(bench, FOLDER / "unchanged"), FOLDER / "source", time.monotonic()
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for part in map(ROOT.joinpath, PARTS):
        if part.is_dir():
            shutil.copytree(part, source / part.name, ignore=shutil.ignore_patterns("*.so", "_core.c", "__pycache__"))
        else:
            shutil.copy2(part, source)
    tree.make(source)
    shutil.rmtree(source)
    try:
        tree.build()
        if check:
            tree.check(".h")
    except Verdict as verdict:
        raise SystemExit(f"the unchanged tree: {verdict}\n{tree.output}") from None
    bench.reference = tree.module().read_bytes()
    print(f"the unchanged tree {'passes' if check else 'is built'}: {time.monotonic() - began:.0f} s", flush=True)
    return tree


def try_mutant(bench, number, mutation, pristine):
    tree, began = Tree(bench, FOLDER / str(number)), time.monotonic()
    text = bench.texts[mutation.path]
    changed = mutation.apply(text)
    try:
        if mutation.path.endswith(".py"):
            compile(changed, mutation.path, "exec")
        tree.make(pristine.path)
        (tree.path / mutation.path).write_text(changed, encoding="utf-8")
        tree.check(Path(mutation.path).suffix)
        verdict = "SURVIVED"
    except SyntaxError:
        verdict = "not built"
    except Verdict as reason:
        verdict = str(reason)
    if bench.keep:
        print(tree.output)
        print(f"the tree: {tree.path}")
    else:
        shutil.rmtree(tree.path, ignore_errors=True)
    return Result(number, mutation, verdict, time.monotonic() - began)


def changed_lines(bench, mutation):
    """The first line that differs, before and after."""
    text, number = bench.texts[mutation.path], mutation.line(bench.texts[mutation.path])
    before, after = (version.splitlines()[number - 1].strip() for version in (text, mutation.apply(text)))
    return f"{mutation.path}:{number} `{before} -> {after}`"


def report(bench, result):
    with bench.lock:
        bench.results.append(result)
        print(
            f"{result.number} {changed_lines(bench, result.mutation)} {result.verdict}, {result.seconds:.0f} s",
            flush=True,
        )


def run(bench, pristine, count, jobs, mutations):
    """Mutants until enough have counted, the time is over, someone interrupts, or there are no more."""
    numbered = enumerate(mutations)

    def work():
        while True:
            with bench.lock:
                number, mutation = next(numbered, (None, None))
                if mutation is None or bench.counted() >= count or bench.out_of_time():
                    return
            report(bench, try_mutant(bench, number, mutation, pristine))

    with ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(work) for _ in range(jobs)]
        try:
            for worker in workers:
                worker.result()
        except KeyboardInterrupt:
            bench.stop()


def summarize(bench, seed):
    """Prints verdicts and survivors' differences; returns how many survived."""
    survivors = sorted(
        (result for result in bench.results if result.verdict == "SURVIVED"), key=lambda result: result.number
    )
    for result in survivors:
        text = bench.texts[result.mutation.path]
        changed = result.mutation.apply(text)
        print(f"\nsurvivor {result.number}")
        name = result.mutation.path
        print("".join(difflib.unified_diff(text.splitlines(True), changed.splitlines(True), name, name)), end="")
    print(f"\nseed {seed}: {bench.counted()} mutants, {len(survivors)} survived")
    for verdict, number in collections.Counter(result.verdict for result in bench.results).most_common():
        print(f"{number:5} {verdict}{' (not counted)' if verdict.startswith(NOT_COUNTED) else ''}")
    return len(survivors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="mutants that are built and tested")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for all of them")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--files", default="*", metavar="PATTERN", help="of those in FILES, only these")
    parser.add_argument("--no-c-test", action="store_true", help="ask what the Python tests notice by themselves")
    parser.add_argument(
        "--quick", action="store_true", help="without most of the slow tests, which may notice survivors"
    )
    parser.add_argument(
        "--repeat", type=int, metavar="N", help="only mutant N of that seed (and those files); keep its tree"
    )
    options = parser.parse_args()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the first too: tests of interrupts fail where it is ignored, as for a shell's jobs
        signal.signal(number, signal.default_int_handler)
    texts = read_texts()
    chosen = [mutation for mutation in all_mutations(texts) if fnmatch.fnmatch(mutation.path, options.files)]
    mutations = in_random_order(chosen, random.Random(options.seed))
    bench = Bench(
        texts, time.monotonic() + options.seconds, not options.no_c_test, options.quick, keep=options.repeat is not None
    )
    print(f"seed {options.seed}, files {options.files}: {len(chosen)} changes to draw from", flush=True)
    pristine = make_pristine(bench, check=options.repeat is None)
    if options.repeat is None:
        run(bench, pristine, options.count, options.jobs, mutations)
    else:
        mutation = next(mutation for number, mutation in enumerate(mutations) if number == options.repeat)
        report(bench, try_mutant(bench, options.repeat, mutation, pristine))
    return 1 if summarize(bench, options.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
