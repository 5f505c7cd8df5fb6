"""The schedulers of one machine: threads, processes, progress bars, and clusters of dask.distributed."""

import collections
import contextlib
import logging
import os
import random
import signal
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import dask_cases
import numpy as np
import oracle
import pytest
from oracle import Case, Gradient

import localconv
import localconv.dask as ld
from localconv.dask import KernelFile, tasks

distributed = pytest.importorskip("distributed", reason="clusters need dask.distributed: pip install 'localconv[dask]'")

CASE = Case("local_conv2d", (24, 9), (3, 2), 6, 4, 8, padding="same", exact=False)
OPTIONS = CASE.options()
# No test waits for a cluster longer than this.
SECONDS = 90


def all_three(drawn, kernel=None):
    """The convolution and its gradients."""
    kernel = drawn.kernel if kernel is None else kernel
    return (
        ld.local_conv2d(drawn.x, kernel, **OPTIONS),
        ld.grad.local_conv2d_input(drawn.x.shape, kernel, drawn.gradient, **OPTIONS),
        ld.grad.local_conv2d_kernel(drawn.x, drawn.kernel.shape, drawn.gradient, **OPTIONS),
    )


def check(values):
    x, kernel, _ = CASE.arrays()
    oracle.assert_same_bits(values[0], CASE.run(localconv, (x, kernel, None)))
    Gradient(CASE, "input").check(values[1])
    Gradient(CASE, "kernel").check(values[2])


@pytest.fixture
def drawn():
    return dask_cases.in_chunks(random.Random(11), CASE)


@contextlib.contextmanager
def cluster_of(processes=True, workers=2, **options):
    """A client of a cluster on this machine: no fixed ports, and nothing is left of it."""
    settings = {
        "distributed.comm.timeouts.connect": "30s",
        "distributed.worker.daemon": True,
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers, processes=processes, dashboard_address=":0", silence_logs=logging.CRITICAL, **options
        ) as cluster,
        distributed.Client(cluster, timeout="30s") as client,
    ):
        client.wait_for_workers(workers, timeout=SECONDS)
        with dask.config.set(scheduler=None):
            yield client


@pytest.fixture(scope="module")
def client():
    with cluster_of(threads_per_worker=2) as client:
        yield client


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_schedulers_of_dask_itself(drawn, scheduler):
    check(dask.compute(*all_three(drawn), scheduler=scheduler, num_workers=2))


@pytest.mark.parametrize("of", ["array", "file"])
def test_a_cluster(client, drawn, tmp_path, of):
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    file = KernelFile(tmp_path / "k.npy", part_bytes=2**12) if of == "file" else None
    futures = client.compute(all_three(drawn, file))
    check(client.gather(futures))


# -------------------------------------------------------------------------------------------------------------- threads


def shares():
    return tasks._context().threads


def test_a_task_alone_has_all_threads():
    assert shares() == localconv.get_num_threads()


def test_workers_share_the_threads_of_their_process():
    """Two tasks at once in a process of two threads have one each."""
    with cluster_of(processes=False, workers=1, threads_per_worker=2) as client:
        share = client.submit(shares, pure=False).result(timeout=SECONDS)
    assert share == max(1, localconv.get_num_threads() // 2)


def test_the_limit_of_a_worker_is_obeyed(client):
    """dask's nannies set OMP_NUM_THREADS."""
    client.run(localconv.set_num_threads, None)
    assert set(client.run(os.environ.get, "OMP_NUM_THREADS").values()) == {"1"}
    assert set(client.run(localconv.get_num_threads).values()) == {1}
    assert client.submit(shares, pure=False).result(timeout=SECONDS) == 1


# ------------------------------------------------------------------------------------------------------- lost workers


def slowly(block, folder):
    """The block, after a while and a sign that it was asked for."""
    (Path(folder) / str(time.monotonic_ns())).touch()
    time.sleep(0.1)
    return block


@pytest.mark.parametrize("of", ["array", "file"])
def test_a_lost_worker_is_survived(drawn, tmp_path, of):
    """One of two is killed midway: the other one and its successor do its work again, and everything is whole."""
    signs = tmp_path / "signs"
    signs.mkdir()
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    x = da.from_array(CASE.arrays()[0], chunks=(1, 4, -1, -1)).map_blocks(slowly, folder=str(signs), dtype=np.float32)
    kernel = KernelFile(tmp_path / "k.npy", part_bytes=2**12) if of == "file" else drawn.kernel
    stored = KernelFile.create(tmp_path / "g.npy", drawn.kernel.shape)
    forward = ld.local_conv2d(x, kernel, **OPTIONS)
    of_kernel = ld.grad.local_conv2d_kernel(x, drawn.kernel.shape, drawn.gradient, **OPTIONS)
    with cluster_of(threads_per_worker=1) as client:
        victim = next(iter(client.run(os.getpid).values()))
        writing = client.compute(da.store(of_kernel, stored, lock=False, compute=False))
        future = client.compute(forward)
        patience = time.monotonic() + SECONDS
        while len(list(signs.iterdir())) < 12:
            assert time.monotonic() < patience, "no task ran"
            time.sleep(0.01)
        assert not future.done()
        os.kill(victim, signal.SIGKILL)
        value = future.result(timeout=SECONDS)
        writing.result(timeout=SECONDS)
    # What the lost worker had done was asked for again.
    assert len(list(signs.iterdir())) > x.npartitions
    oracle.assert_same_bits(value, CASE.run(localconv, (CASE.arrays()[0], CASE.arrays()[1], None)))
    Gradient(CASE, "kernel").check(stored[...])


# ------------------------------------------------------------------------------------- larger than a worker's memory

# A worker alone, with dask and NumPy imported, has some 100 MB.
LIMIT = 400 * 2**20
LARGE = Case("local_conv2d", (256, 254), (3, 3), 2, 8, 60, padding=((1, 1), (0, 0)), exact=False)


class AnonymousMemory(threading.Thread):
    """The most that each of some processes had of memory that is of no file."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.most, self._ended = dict.fromkeys(pids, 0), threading.Event()

    def run(self):
        while not self._ended.wait(0.01):
            for pid in self.most:
                status = Path(f"/proc/{pid}/status").read_text()
                kilobytes = int(status.partition("RssAnon:")[2].split()[0])
                self.most[pid] = max(self.most[pid], kilobytes * 1024)

    def __enter__(self):
        self.start()
        return self.most

    def __exit__(self, *_):
        self._ended.set()
        self.join()


def bytes_moved(dask_worker):
    """Bytes that came from other workers, by the first word of their keys."""
    found = collections.Counter()
    for transfer in dask_worker.transfer_incoming_log:
        for key, size in transfer["keys"].items():
            found[distributed.utils.key_split(key)] += size
    return dict(found)


@pytest.fixture(scope="module")
def large_kernel(tmp_path_factory):
    """A kernel of two and a half times a worker's limit, in a file."""
    positions, depth, filters = LARGE.shapes()[1]
    file = KernelFile.create(tmp_path_factory.mktemp("large") / "k.npy", (positions, depth, filters), part_bytes=2**24)
    written = np.load(file.path, mmap_mode="r+")
    rng = np.random.default_rng(0)
    block = rng.standard_normal((1024, depth, filters), np.float32)
    for first in range(0, positions, len(block)):
        written[first : first + len(block)] = block[: positions - first] * np.float32(1 + first / positions)
    assert file.nbytes >= 2.5 * LIMIT
    yield file
    os.unlink(file.path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is told by Linux's /proc")
def test_a_training_step_over_a_kernel_larger_than_the_workers(large_kernel, tmp_path):
    """Forward, both gradients and new weights, in less anonymous memory than 200 MB a worker; and they are right."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(LARGE.shapes()[0], np.float32)
    options = LARGE.options()
    dx = da.from_array(x, chunks=(1, 64, -1, -1))
    new = KernelFile.create(tmp_path / "new.npy", large_kernel.shape)
    with cluster_of(threads_per_worker=1, memory_limit=LIMIT) as client:
        with AnonymousMemory(client.run(os.getpid).values()) as most:
            y = ld.local_conv2d(dx, large_kernel, **options)
            of_input = ld.grad.local_conv2d_input(x.shape, large_kernel, y, **options)
            of_kernel = ld.grad.local_conv2d_kernel(dx, large_kernel.shape, y, **options)
            weights = large_kernel.array(of_kernel.chunks) - np.float32(0.01) * of_kernel
            stored = da.store(weights, new, lock=False, compute=False)
            futures = client.compute([y, of_input, stored])
            value, found, _ = (future.result(timeout=SECONDS) for future in futures)
            moved = client.run(bytes_moved)
        # Of the kernel and its gradient nothing: what moves has the input's size, or the output's. What a task that
        # stores a part returns is a few bytes; its name may have those of tasks that were fused with it.
        parts = {name for sizes in moved.values() for name, size in sizes.items() if size > 2**16}
        assert parts <= {
            "local_conv2d",
            "local_conv2d_rows",
            "local_conv2d_input",
            "local_conv2d_input_band",
            "local_conv2d_input_rows",
            "local_conv2d_kernel_rows",
            "array",
        }
        assert sum(sum(of.values()) for of in moved.values()) < 4 * (value.nbytes + x.nbytes)
        assert len(most) == 2
        assert max(most.values()) < 200e6, most
    kernel = np.load(large_kernel.path, mmap_mode="r")
    plain = localconv.local_conv2d(x, kernel, **options)
    oracle.assert_same_bits(value, plain)
    bound = localconv.grad.local_conv2d_input(x.shape, abs(kernel), abs(plain), **options)
    expected = localconv.grad.local_conv2d_input(x.shape, kernel, plain, **options)
    # Each of two sums is within its own rounding of the exact one.
    limit = 2 * oracle.tolerance(bound.astype(np.float64), 9 * LARGE.filters + 1, np.float32)
    assert (abs(found.astype(np.float64) - expected) <= limit).all()
    expected = localconv.grad.local_conv2d_kernel(x, kernel.shape, plain, **options)
    bound = localconv.grad.local_conv2d_kernel(abs(x), kernel.shape, abs(plain), **options)
    for rows in (slice(0, 300), slice(30000, 30300), slice(-300, None)):
        step = kernel[rows].astype(np.float64) - 0.01 * expected[rows].astype(np.float64)
        limit = oracle.tolerance(0.01 * bound[rows].astype(np.float64) + abs(kernel[rows]), 8, np.float32)
        assert (abs(new[rows] - step) <= limit).all()
    os.unlink(new.path)
