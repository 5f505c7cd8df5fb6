"""Repair a Linux wheel: ``python tools/repair_wheel.py WHEEL FOLDER``.

auditwheel gives the libraries that it puts into a wheel names of their own, so that no two wheels share one. Of GNU's
OpenMP runtime there should be one copy in a process: two make threads that wait in one take the processors from the
other (src/localconv/torch/runtime.py has figures). PyTorch's wheels carry it as libgomp.so.1, and the loader takes a
library that is there already for every other of that name. So does this wheel: whoever is imported first serves both.

auditwheel writes a software bill of materials (PEP 770) of libraries that it puts in itself; here it is asked for that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from auditwheel.sboms import create_sbom_for_wheel

RUNTIME = "libgomp.so.1"
FOLDER = "localconv.libs"


def run(*command: str | Path) -> str:
    """What a command prints; the script ends where it fails."""
    done = subprocess.run([str(word) for word in command], check=False, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed with status {done.returncode}")
    return done.stdout


def runtime_of(module: Path) -> Path | None:
    """The file of the runtime that an extension module is loaded with here; None: it needs none."""
    for line in run("ldd", module).splitlines():
        name, _, place = line.strip().partition(" => ")
        if name == RUNTIME:
            return Path(place.rpartition(" (")[0]).resolve(strict=True)
    return None


def describe(folder: Path, wheel: Path, source: Path) -> None:
    """Write which package of this system the runtime is of into an unpacked wheel, as auditwheel would."""
    bill = create_sbom_for_wheel(wheel.name, [source])
    if bill is None:
        raise SystemExit(f"no package of this system has {source}, so nothing says which version the wheel would carry")
    (information,) = folder.glob("*.dist-info")
    (information / "sboms").mkdir()
    (information / "sboms" / "auditwheel.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


def insert(folder: Path) -> Path | None:
    """Put the runtime into an unpacked wheel, where its modules find it. Where it came from; None: they need none."""
    needed: Path | None = None
    for module in sorted((folder / "localconv").rglob("*.so")):
        source = runtime_of(module)
        if source is None:
            continue
        needed = source
        (folder / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(source, folder / FOLDER / RUNTIME)
        up = "/".join([".."] * len(module.parent.relative_to(folder).parts))
        run("patchelf", "--set-rpath", f"$ORIGIN/{up}/{FOLDER}", module)
    return needed


def main() -> None:
    """Insert the runtime and leave the rest to auditwheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(sys.executable, "-m", "wheel", "unpack", "--dest", work / "unpacked", options.wheel)
        (unpacked,) = (work / "unpacked").iterdir()
        wheel, excluded = options.wheel, []
        source = insert(unpacked)
        if source is not None:
            describe(unpacked, wheel, source)
            run(sys.executable, "-m", "wheel", "pack", "--dest-dir", work, unpacked)
            (wheel,) = work.glob("*.whl")
            excluded = ["--exclude", RUNTIME]
        run("auditwheel", "repair", *excluded, "--wheel-dir", options.folder, wheel)


if __name__ == "__main__":
    main()
