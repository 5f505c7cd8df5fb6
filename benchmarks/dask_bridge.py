"""Measure localconv.dask: what chunks cost in memory, and a kernel in a file that no worker could hold.

    python benchmarks/dask_bridge.py
    python benchmarks/dask_bridge.py --quick           # a first look, not figures to quote
    python benchmarks/dask_bridge.py --folder /scratch # where the kernel's file goes: 2.6 GB

In memory: the threaded scheduler on chunks of a kernel of 394 MB, and one call of localconv on the whole arrays, in
turns; what counts is the median of the ratio within a round. A kernel's gradient is left in its chunks.

In a file: a cluster of two workers on this machine, each limited to a memory of which the kernel is two and a half
times as large; bytes moved between them, and the most anonymous memory that each had, as /proc tells (Linux). One
process maps the same file and is measured beside it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np

import localconv
import localconv.dask as ld
from localconv.dask import KernelFile

OPTIONS = {"kernel_size": 5, "data_format": "channels_last"}
BATCH, CHANNELS, FILTERS = 8, 16, 16
# The input's side in memory, and rows of the output in a chunk of the kernel: 98 MB, about what dask makes by itself.
SIDE, HEIGHT = 128, 31
# Of the kernel in a file: 500 MB a worker, and 2.5 times as many bytes.
LIMIT, LARGE_SIDE, PART_BYTES = 500 * 10**6, 226, 64 * 2**20


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for the kernel's file (default: one for temporary files)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not figures to quote")
    return parser.parse_args(arguments)


def shapes(side: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Of the input, the kernel and the output."""
    out = side - OPTIONS["kernel_size"] + 1
    kernel = (out * out, OPTIONS["kernel_size"] ** 2 * CHANNELS, FILTERS)
    return (BATCH, side, side, CHANNELS), kernel, (BATCH, out, out, FILTERS)


def in_turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and of the second's over the first's in a round."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        calls = list(zip(times, (first, second), strict=True))
        for kept, call in calls[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
            del result
            if number:  # the first round finds everything cold
                kept.append(seconds)
    return median(times[0]), median(times[1]), median(b / a for a, b in zip(*times, strict=True))


def in_memory(rounds: int) -> None:
    """Print what chunks cost beside one call."""
    rng = np.random.default_rng(0)
    x, kernel, gradient = (rng.standard_normal(shape, np.float32) for shape in shapes(SIDE))
    width = gradient.shape[2]
    dx, dg = (da.from_array(array, chunks=(-1, HEIGHT, -1, -1)) for array in (x, gradient))
    dk = da.from_array(kernel, chunks=(HEIGHT * width, -1, -1))
    calls = {
        "forward": (
            lambda: localconv.local_conv2d(x, kernel, **OPTIONS),
            lambda: ld.local_conv2d(dx, dk, **OPTIONS).compute(),
        ),
        "for the input": (
            lambda: localconv.grad.local_conv2d_input(x.shape, kernel, gradient, **OPTIONS),
            lambda: ld.grad.local_conv2d_input(x.shape, dk, dg, **OPTIONS).compute(),
        ),
        "for the kernel": (
            lambda: localconv.grad.local_conv2d_kernel(x, kernel.shape, gradient, **OPTIONS),
            lambda: ld.grad.local_conv2d_kernel(dx, kernel.shape, dg, **OPTIONS).persist(),
        ),
    }
    print(f"in memory: a kernel of {kernel.nbytes / 1e6:.0f} MB in {dk.npartitions} chunks, {BATCH} images")
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(calls["forward"][0](), calls["forward"][1]())
        for name, (whole, chunks) in calls.items():
            one, many, ratio = in_turns(whole, chunks, rounds)
            print(
                f"  {name:15} one call {one * 1e3:7.1f} ms, chunks {many * 1e3:7.1f} ms, ratio {ratio:.2f}", flush=True
            )


class AnonymousMemory(threading.Thread):
    """The most that each of some processes had of memory that is of no file."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.most, self._ended = dict.fromkeys(pids, 0), threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            for pid in self.most:
                kilobytes = int(Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()[0])
                self.most[pid] = max(self.most[pid], kilobytes * 1024)

    def end(self) -> int:
        """The most of all."""
        self._ended.set()
        self.join()
        return max(self.most.values())


def bytes_moved(dask_worker: Any) -> int:
    """Bytes that came from other workers."""
    return sum(transfer["total"] for transfer in dask_worker.transfer_incoming_log)


@contextmanager
def cluster() -> Iterator[distributed.Client]:
    """Two workers of one thread and the limit each."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


def random_kernel(path: Path) -> KernelFile:
    """A kernel in a file, written a few positions at a time."""
    _, shape, _ = shapes(LARGE_SIDE)
    file, rng = KernelFile.create(path, shape, part_bytes=PART_BYTES), np.random.default_rng(1)
    for first in range(0, shape[0], 1024):
        count = min(1024, shape[0] - first)
        file[first : first + count] = rng.standard_normal((count, *shape[1:]), np.float32)
    return file


def random_rows(shape: tuple[int, ...], height: int) -> da.Array:
    """Random images in chunks of rows, in the workers' memory."""
    made = da.random.default_rng(2).standard_normal(shape, chunks=(-1, height, -1, -1)).astype(np.float32).persist()
    distributed.wait(made)
    return made


def by_one_process(x: np.ndarray, file: KernelFile, gradient: np.ndarray, path: Path) -> dict[str, Callable[[], Any]]:
    """The three operations on maps of the whole files."""
    kernel = np.load(file.path, mmap_mode="r")
    target = np.load(path, mmap_mode="r+")
    return {
        "forward": lambda: localconv.local_conv2d(x, kernel, **OPTIONS),
        "for the input": lambda: localconv.grad.local_conv2d_input(x.shape, kernel, gradient, **OPTIONS),
        "for the kernel": lambda: localconv.grad.local_conv2d_kernel(x, file.shape, gradient, out=target, **OPTIONS),
    }


def in_a_file(folder: Path, rounds: int) -> None:
    """Print the times of a kernel that is larger than the workers' memory, and what the workers did."""
    file, stored = (
        random_kernel(folder / "kernel.npy"),
        KernelFile.create(folder / "gradient.npy", shapes(LARGE_SIDE)[1]),
    )
    height = PART_BYTES // (file.nbytes // shapes(LARGE_SIDE)[2][1])
    print(f"in a file: a kernel of {file.nbytes / 1e6:.0f} MB, workers of {LIMIT / 1e6:.0f} MB")
    with cluster() as client:
        dx, dg = (random_rows(shapes(LARGE_SIDE)[part], height) for part in (0, 2))
        plain = by_one_process(dx.compute(), file, dg.compute(), folder / "gradient.npy")
        lazy = {
            "forward": lambda: ld.local_conv2d(dx, file, **OPTIONS),
            "for the input": lambda: ld.grad.local_conv2d_input(dx.shape, file, dg, **OPTIONS),
            "for the kernel": lambda: da.store(
                ld.grad.local_conv2d_kernel(dx, file.shape, dg, **OPTIONS), stored, lock=False, compute=False
            ),
        }
        for name, build in lazy.items():
            pids = list(client.run(os.getpid).values())
            watch, before = AnonymousMemory(pids), sum(client.run(bytes_moved).values())
            watch.start()
            tasks = len(build().__dask_graph__())
            one, many, ratio = in_turns(plain[name], partial(result_of, client, build), rounds)
            moved = (sum(client.run(bytes_moved).values()) - before) / (rounds + 1)
            print(
                f"  {name:15} one process {one:6.2f} s, two workers {many:6.2f} s, ratio {ratio:.2f}; {tasks} tasks, "
                f"{moved / 1e6:.1f} MB moved, {watch.end() / 1e6:.0f} MB anonymous at most",
                flush=True,
            )


def result_of(client: distributed.Client, build: Callable[[], Any]) -> Any:
    """The result here; of what is stored, None."""
    return client.compute(build()).result()


def main(arguments: list[str] | None = None) -> int:
    """Run both; return the exit status."""
    options = parse(arguments)
    load = os.getloadavg()[0]
    print(f"load of the last minute {load:.1f}, {os.cpu_count()} processors")
    in_memory(5 if options.quick else 21)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        in_a_file(Path(folder), 1 if options.quick else 7)
    return 0


if __name__ == "__main__":
    sys.exit(main())
