"""Builds the extension modules. Everything else about the package is in pyproject.toml.

Environment: LOCALCONV_OPENMP=off builds without threads; =require makes a missing OpenMP an error instead of a loud
warning. LOCALCONV_CFLAGS: further compiler and linker flags, for sanitizers and coverage. LOCALCONV_CLANG_CL=1 compiles
with clang-cl on Windows: MSVC has no pragma that unrolls the loops over register tiles, and its kernels are many times
slower.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

ROOT = Path(__file__).parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Systems by the ID or ID_LIKE of /etc/os-release, or by sys.platform: their names, and what gives a C compiler and
# Python's headers there.
INSTALL = {
    "debian": ("Debian, Ubuntu", "apt-get install build-essential", f"apt-get install {PYTHON}-dev"),
    "fedora": ("Fedora, Red Hat", "dnf install gcc", f"dnf install {PYTHON}-devel"),
    "alpine": ("Alpine", "apk add build-base", "apk add python3-dev"),
    "darwin": ("macOS", "xcode-select --install", "install Python anew, from python.org or Homebrew"),
    "win32": (
        "Windows",
        "https://visualstudio.microsoft.com/visual-cpp-build-tools/",
        "install Python anew, from python.org",
    ),
    "conda": ("conda", "conda install -c conda-forge c-compiler", "conda install --force-reinstall python"),
}
COMPILER, HEADERS = 1, 2
STANDARD_HEADER = "#include <stdlib.h>\nint answer(void) { return EXIT_SUCCESS; }\n"
PYTHON_HEADER = "#include <Python.h>\n"
PROBE = """
#include <omp.h>
int main(void) { int n = 0;
#pragma omp parallel reduction(+ : n)
    n += 1;
    return n < 1 || omp_get_max_threads() < 1; }
"""
MISSING = """
********************************************************************************
localconv: this compiler has no working OpenMP. The build goes on WITHOUT THREADS:
every call will run on one core. On macOS install libomp (`brew install libomp`),
on Linux the compiler's OpenMP runtime (libgomp or libomp), and build again.
********************************************************************************
"""


def stop(problem, *needed):
    """End the build with what is missing, and what to do about it on this system,
    or on all of them if this one is not known.
    """
    if Path(sys.base_prefix, "conda-meta").is_dir():
        systems = ["conda"]
    elif sys.platform == "linux":
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {}
        systems = [release.get("ID"), *release.get("ID_LIKE", "").split()]
    else:
        systems = [sys.platform]
    known = [INSTALL[system] for system in systems if system in INSTALL][:1] or INSTALL.values()
    remedies = [f"    {row[0] + ':':17}{', '.join(row[what] for what in needed)}" for row in known]
    stars = "*" * 80
    raise SystemExit("\n".join(["", stars, f"localconv: {problem}", *remedies, stars]))


def openmp_flags(msvc, clang_cl):
    """Candidate (compiler, linker) flags, the likeliest first."""
    if clang_cl:
        return [(["/openmp"], [str(Path(clang_cl).parents[1] / "lib" / "libomp.lib")])]
    if msvc:
        return [(["/openmp"], [])]
    candidates = [(["-fopenmp"], ["-fopenmp"])]
    if sys.platform == "darwin":
        prefixes = [os.environ["LIBOMP_PREFIX"]] if "LIBOMP_PREFIX" in os.environ else []
        if shutil.which("brew"):
            found = subprocess.run(["brew", "--prefix", "libomp"], capture_output=True, text=True, check=False)
            prefixes += [found.stdout.strip()] if found.returncode == 0 else []
        candidates += [
            (["-Xpreprocessor", "-fopenmp", f"-I{p}/include"], [f"-L{p}/lib", "-lomp", f"-Wl,-rpath,{p}/lib"])
            for p in prefixes
        ]
    return candidates


def make_incremental(compiler, msvc):
    """Let a compiler translate the sources of an extension side by side, and only those whose object is older than the
    source, one of the headers that it read then, or was made by another command.
    """
    compile_one = compiler.compile

    def up_to_date(source, target, command):
        try:
            made = target.stat().st_mtime
            headers = target.with_suffix(".d").read_text().replace("\\\n", " ").partition(":")[2].split()
            written = target.with_suffix(".command").read_text() == command
            return written and all(Path(file).stat().st_mtime < made for file in [source, *headers])
        except OSError:
            return False

    def compile_all(sources, output_dir=None, **options):
        # Only GCC's and Clang's -MMD tells the headers. Names of objects are those of the compiler's own scheme.
        more = [] if msvc else ["-MMD"]
        options["extra_postargs"] = [*(options.pop("extra_postargs", None) or []), *more]
        targets = compiler.object_filenames(sources, output_dir=output_dir or "")
        command = repr((getattr(compiler, "compiler_so", None), options))
        stale = [
            (source, target)
            for source, target in zip(sources, map(Path, targets), strict=True)
            if not up_to_date(source, target, command)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            work = [pool.submit(compile_one, [source], output_dir=output_dir, **options) for source, _ in stale]
        for done in work:
            done.result()
        for _, target in stale:
            target.with_suffix(".command").write_text(command)
        return targets

    compiler.compile = compile_all


class BuildExt(build_ext):
    """Adds the compiler's own flags, and those of its OpenMP if a probe compiles and links with them."""

    def finalize_options(self):
        if self.editable_mode:
            # Setuptools gives an editable build a folder for objects that it removes: all were compiled each time.
            usual = build(self.distribution)
            usual.ensure_finalized()
            self.build_temp = usual.build_temp
        super().finalize_options()

    def build_extensions(self):
        self.check_compiler()
        msvc = self.compiler.compiler_type == "msvc"
        compile_args = ["/O2", "/std:c11"] if msvc else ["-O2", "-g0", "-std=c11"]
        link_args = []
        more, link_more = self.find_openmp(msvc, self.use_clang_cl(msvc))
        extra = os.environ.get("LOCALCONV_CFLAGS", "").split()
        for extension in self.extensions:
            extension.extra_compile_args = compile_args + more + extra
            extension.extra_link_args = link_args + link_more + extra
        make_incremental(self.compiler, msvc)
        super().build_extensions()

    def check_compiler(self):
        """Stop at once if there is no C compiler, or no Python.h for it."""
        if not self.builds(STANDARD_HEADER):
            command = getattr(self.compiler, "compiler", ["cl"])[0]
            origin = ", from the variable CC," if "CC" in os.environ else ""
            state = "does not work" if shutil.which(command) else "is not on this system"
            headers = [] if Path(sysconfig.get_path("include"), "Python.h").exists() else [HEADERS]
            stop(f"a C compiler is needed to build it, and {command!r}{origin} {state}.", COMPILER, *headers)
        if not self.builds(PYTHON_HEADER):
            stop(f"the headers of {PYTHON} (Python.h) are needed to build it, and not on this system.", HEADERS)

    def use_clang_cl(self, msvc):
        """The path of clang-cl, now the compiler, if it was asked for."""
        if os.environ.get("LOCALCONV_CLANG_CL") != "1":
            return None
        path = shutil.which("clang-cl")
        if not msvc or path is None:
            raise SystemExit("LOCALCONV_CLANG_CL=1 needs Windows, Microsoft's build tools and clang-cl on the PATH")
        self.compiler.initialize()
        self.compiler.cc = path
        return path

    def find_openmp(self, msvc, clang_cl):
        wanted = os.environ.get("LOCALCONV_OPENMP", "auto")
        if wanted not in ("auto", "off", "require"):
            raise SystemExit(f"LOCALCONV_OPENMP must be auto, off or require, got {wanted!r}")
        if wanted != "off":
            for compile_args, link_args in openmp_flags(msvc, clang_cl):
                if self.builds(PROBE, compile_args, link_args):
                    return compile_args, link_args
        if wanted == "require":
            raise SystemExit(MISSING)
        print(
            MISSING if wanted == "auto" else "localconv: building without OpenMP, as asked", file=sys.stderr, flush=True
        )
        return [], []

    def builds(self, source, compile_args=(), link_args=None):
        """Whether the compiler takes a source, and links a program of it if there are flags for that."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.c"
            path.write_text(source)
            try:
                objects = self.compiler.compile([str(path)], output_dir=folder, extra_postargs=list(compile_args))
                if link_args is not None:
                    self.compiler.link_executable(objects, str(Path(folder) / "probe"), extra_postargs=link_args)
            except (CompileError, LinkError, PlatformError):
                return False
        return True


class Build(build):
    """Compiles first: a missing compiler is reported before everything else."""

    sub_commands = sorted(build.sub_commands, key=lambda command: command[0] != "build_ext")


# Coverage of the .pyx needs line tracing compiled in; LOCALCONV_TRACE=1 does it.
TRACE = {"linetrace": True} if os.environ.get("LOCALCONV_TRACE") == "1" else {}

# One wheel for every CPython from 3.11 on (CONTRIBUTING.md has the figures). A free-threaded CPython has no stable ABI.
ABI3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED") and not TRACE


def extension(name, sources=()):
    """One of the package's extension modules, by its name, and C sources beside its own."""
    return Extension(
        f"localconv.{name}",
        [f"src/localconv/{name}.pyx", *sources],
        include_dirs=["include"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
        py_limited_api=ABI3,
        depends=[str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("include/**/*.h"))],
    )


# The core has all kernels, each instance in a file of its own; a bridge's own module only calls them.
KERNELS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("src/kernels/*.c"))

setup(
    ext_modules=cythonize(
        [extension("_core", KERNELS), extension("_xla")], compiler_directives=TRACE, show_all_warnings=True
    ),
    cmdclass={"build": Build, "build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
