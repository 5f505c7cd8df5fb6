"""Filter a stack of photographs with a kernel of its own at every pixel that is larger than any worker's memory.

Two workers of dask.distributed on this machine share a file of Gaussians, one a pixel, which grow with the distance
from the picture's middle. The workers write the file part by part, and each of their tasks maps no more of it than its
own rows. The stack is the two photographs that come with scikit-learn, a plane for each colour. The picture shows both,
before and after; the figures are those of dask's dashboard: tasks, bytes moved, memory.

    python examples/dask_volume.py
    python examples/dask_volume.py --size 31 --workers 4 --memory 500MB --output mine.png
"""

from __future__ import annotations

import argparse
import collections
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask.array as da
import distributed
import numpy as np
from distributed.utils import key_split

import localconv
from localconv.dask import KernelFile, local_conv2d

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
# Bytes of the kernel that a task builds or maps.
PART_BYTES = 16 * 2**20
# Rows of the photographs in a chunk.
HEIGHT = 64
OPTIONS = {"data_format": "channels_last", "padding": "same"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=25, help="pixels along a kernel's side, odd (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--memory", default="350MB", help="each worker's limit (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("dask_volume.png"), help="default: %(default)s")
    return parser.parse_args(arguments)


def stack_of_photographs() -> np.ndarray:
    """Every colour of every photograph as an image of one channel, from 0 to 1: (6, rows, columns, 1)."""
    from sklearn.datasets import load_sample_image

    pictures = np.stack([load_sample_image(name) for name in PHOTOGRAPHS]).astype(np.float32) / 255
    planes = np.moveaxis(pictures, -1, 1)
    return np.ascontiguousarray(planes.reshape(-1, *planes.shape[2:])[..., None])


def gaussians(first: int, rows: int, height: int, width: int, size: int) -> np.ndarray:
    """The kernels of some rows of pixels, (rows * width, size * size, 1), normalized over the picture's taps."""
    taps = np.arange(size, dtype=np.float32) - size // 2
    i, j = np.mgrid[first : first + rows, 0:width].astype(np.float32)
    distance = np.hypot((i - height / 2) / (height / 2), (j - width / 2) / (width / 2))
    sigma = (0.3 + size / 6 * distance**2)[..., None]
    factors = []
    for centre, length in ((i, height), (j, width)):
        at = centre[..., None] + taps
        weights = np.exp(-0.5 * (taps / sigma) ** 2) * ((at >= 0) & (at < length))
        factors.append(weights / weights.sum(-1, keepdims=True))
    kernels = factors[0][..., :, None] * factors[1][..., None, :]
    return kernels.reshape(rows * width, size * size, 1).astype(np.float32)


def written_kernel(folder: Path, height: int, width: int, size: int) -> KernelFile:
    """The Gaussians in a file, each part by the task that computed it."""
    file = KernelFile.create(folder / "kernel.npy", (height * width, size * size, 1), part_bytes=PART_BYTES)
    rows = max(1, PART_BYTES // (4 * width * size * size))

    def built(block_info: Any) -> np.ndarray:
        low, high = block_info[None]["array-location"][0]
        return gaussians(low // width, (high - low) // width, height, width, size)

    full, rest = divmod(height, rows)
    chunks = ((rows * width,) * full + (rest * width,) * (rest > 0), (size * size,), (1,))
    lazy = da.map_blocks(built, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    da.store(lazy, file, lock=False)
    return file


def anonymous_bytes() -> int | None:
    """Memory of this process that is of no file, where the system tells."""
    status = Path("/proc/self/status")
    return int(status.read_text().partition("RssAnon:")[2].split()[0]) * 1024 if status.exists() else None


def bytes_moved(dask_worker: Any) -> int:
    """Bytes that came from other workers."""
    return sum(transfer["total"] for transfer in dask_worker.transfer_incoming_log)


def report(client: distributed.Client, file: KernelFile, limit: str, seconds: float, before: float) -> None:
    """Print what the dashboard shows."""
    tasks = collections.Counter(key_split(task["key"]) for task in client.get_task_stream(start=before))
    memory = [size / 1e6 for size in client.run(anonymous_bytes).values() if size is not None]
    print(f"positions           {file.shape[0]:,}, each with its own kernel of {file.shape[1]} taps")
    print(f"kernel              {file.nbytes / 1e6:,.0f} MB in a file, workers of {limit}")
    print(f"tasks               {', '.join(f'{count} {name}' for name, count in tasks.most_common())}")
    print(f"moved               {sum(client.run(bytes_moved).values()) / 1e6:.1f} MB between the workers")
    if memory:
        print(f"memory              {', '.join(f'{size:.0f} MB' for size in memory)} beside mapped files, now")
    print(f"seconds             {seconds:.2f}")


def draw(before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """Write the photographs, and below each what became of it, as a PNG."""
    from PIL import Image

    def pictures(planes: np.ndarray) -> np.ndarray:
        colours = np.moveaxis(planes[..., 0].reshape(len(PHOTOGRAPHS), 3, *planes.shape[1:3]), 1, -1)
        return np.concatenate(np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8), 1)

    Image.fromarray(np.concatenate([pictures(before), pictures(after)])).save(path, format="PNG")


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    options = parse(arguments)
    if options.size < 3 or options.size % 2 == 0:
        print(f"dask_volume.py: --size must be odd and at least 3, got {options.size}", file=sys.stderr)
        return 2
    stack = stack_of_photographs()
    images = da.from_array(stack, chunks=(-1, HEIGHT, -1, -1))
    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            memory_limit=options.memory,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.get_task_stream()  # the scheduler keeps a record from here on
        file = written_kernel(Path(folder), *stack.shape[1:3], options.size)
        before = time.time()
        after = local_conv2d(images, file, options.size, **OPTIONS).compute()
        report(client, file, options.memory, time.time() - before, before)
        kernel = np.load(file.path, mmap_mode="r")
        whole = localconv.local_conv2d(stack, kernel, options.size, **OPTIONS)
    same = np.array_equal(whole, after)
    print(f"bits                {'those' if same else 'NOT those'} of one process on the whole stack")
    draw(stack, after, options.output)
    print(f"written             {os.fspath(options.output)}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
