"""What the process around the calls may be: many calls, many threads, many shapes, little memory, forks."""

import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import localconv
import localconv.jax as lj
from localconv import _core, _xla
from localconv.core import settings


def conv(x, kernel):
    return lj.local_conv1d(x, kernel, 3, 1, "channels_last")


def arrays(steps=9, batch=2):
    rng = np.random.default_rng(steps)
    return rng.standard_normal((batch, steps, 3)).astype("f"), rng.standard_normal((steps - 2, 9, 4)).astype("f")


GROWTH = """
import resource
import jax, jax.numpy as jnp
import localconv.jax as lj
x, kernel = jnp.ones((2, 9, 3)), jnp.ones((7, 9, 4))
step = jax.jit(jax.value_and_grad(lambda kernel: (lj.local_conv1d(x, kernel, 3, 1, "channels_last") ** 2).sum()))
def run(times):
    for _ in range(times):
        result = step(kernel)
    jax.block_until_ready(result)
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = run(10_000)
print(run(100_000) - before)
"""


@pytest.mark.memory
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the memory in use is read from /proc")
def test_no_growth_over_100000_calls(python):
    """A leak of 64 bytes a call would be 6.4 MB."""
    assert int(python(GROWTH, timeout=600)) < 4 * 2**20


END = """
import sys
import numpy as np
import jax
import localconv.jax as lj
x, kernel = np.ones((32, 200, 32), np.float32), np.ones((198, 96, 32), np.float32)
step = jax.jit(lambda kernel: (lj.local_conv1d(x, kernel, 3, 1, "channels_last") ** 2).sum())
for _ in range(int(sys.argv[1])):
    step(kernel)
result = step(kernel)
print("the end", flush=True)
"""


@pytest.mark.parametrize("before", [0, 3])
def test_a_process_that_ends_while_its_programs_run(python, before):
    """Their threads, for which JAX waits with the GIL, do not wait for the GIL to make a plan."""
    for _ in range(3):
        assert python(END, before) == "the end\n"


EFFECT = """
import numpy as np
import jax
import localconv.jax as lj
x, kernel = np.ones((2, 9, 3), np.float32), np.ones((7, 9, 4), np.float32)

@jax.jit
def shown(kernel):
    jax.debug.print("{}", lj.local_conv1d(x, kernel, 3, 1, "channels_last").sum())

shown(kernel)
"""


def test_effects_come_before_the_end(python):
    assert float(python(EFFECT)) == 2 * 7 * 9 * 4


FORK = """
import os, signal, warnings
import numpy as np
warnings.simplefilter("ignore")  # JAX warns of any fork, as its own threads are not in the child
import jax, localconv
import localconv.jax as lj
from localconv import _core
localconv.set_num_threads(2)
rng = np.random.default_rng(0)
x, kernel = rng.standard_normal((32, 200, 32), np.float32), rng.standard_normal((198, 96, 32), np.float32)
step = jax.jit(jax.value_and_grad(lambda kernel: (lj.local_conv1d(x, kernel, 3, 1, "channels_last") ** 2).sum()))
before = jax.block_until_ready(jax.tree.leaves(step(kernel)))
threads = _core.last_run()["threads"]
expected = localconv.local_conv1d(x, kernel, 3, 1, "channels_last")
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that hangs ends all the same
    status = 1
    try:
        found = localconv.local_conv1d(x, kernel, 3, 1, "channels_last")
        status = 0 if np.array_equal(found, expected) and _core.last_run()["threads"] == 1 else 2
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
same = all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(step(kernel)), strict=True))
print(threads, status, same)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
def test_fork_after_a_call(python):
    """Programs of JAX are not for the child, which has none of its threads; the functions for NumPy are, and the parent
    goes on.
    """
    threads, status, same = python(FORK, OMP_NUM_THREADS="2").split()
    assert (status, same) == ("0", "True")
    assert int(threads) == min(2, os.cpu_count())


def test_a_plan_is_made_once():
    x, kernel = arrays()
    jitted = jax.jit(conv)
    for _ in range(3):
        jitted(x, kernel).block_until_ready()
    assert _xla.kept()[0] == 1
    with settings.forced("local_rows"):
        jitted(x, kernel).block_until_ready()
    jitted(x, kernel).block_until_ready()
    assert _xla.kept()[0] == 2
    _xla.forget()
    assert _xla.kept()[0] == 0
    assert _xla.kept()[2] == 0


def test_the_table_is_bounded():
    """Three times as many keys as it has slots: every call is right, the newest plan is found again."""
    lj.register()
    x, kernel = map(jnp.asarray, arrays())
    jitted, expected, made = jax.jit(conv), conv(x, kernel), []

    def make(operation, dtype, number, *rest):
        made.append(number)
        return lj.platforms.make_plan(operation, dtype, 0, *rest)

    _, slots, _ = _xla.kept()
    _xla.use_maker(make)
    try:
        for number in range(1000, 1000 + 3 * slots):
            _core.use_settings(number)
            assert np.array_equal(jitted(x, kernel), expected)
        jitted(x, kernel).block_until_ready()
        assert made == list(range(1000, 1000 + 3 * slots))
        assert slots // 2 < _xla.kept()[0] <= slots
        assert _xla.kept()[2] <= _xla.KEPT_BYTES
    finally:
        _core.use_settings(0)
        settings._use(settings.current())
        _xla.use_maker(lj.platforms.make_plan)


def test_more_geometries_than_the_table_holds():
    """All results right, in the first round and when the first plans have gone; the table keeps to its bounds."""
    _, slots, _ = _xla.kept()
    batches, rng = 64, np.random.default_rng(0)
    lengths = range(3, 3 + slots // batches + 4)

    # A program has a call for every size of the batch: compiling one for each geometry takes XLA minutes.
    @jax.jit
    def outputs(x, kernel):
        return [conv(x[:batch], kernel) for batch in range(1, batches + 1)]

    def whole(shape):
        return rng.integers(-8, 9, shape).astype("f")

    given = [(whole((batches, n, 1)), whole((n - 2, 3, 2))) for n in lengths]
    assert len(lengths) * batches > slots
    for x, kernel in [*given, *given[:3]]:
        expected = localconv.local_conv1d(x, kernel, 3, 1, "channels_last")
        for batch, found in enumerate(outputs(x, kernel), 1):
            np.testing.assert_array_equal(found, expected[:batch])
    plans, _, size = _xla.kept()
    assert slots // 2 < plans <= slots
    assert 0 < size <= _xla.KEPT_BYTES


def test_threads_do_not_change_bits():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((8, 66, 32)).astype("f"), rng.standard_normal((64, 96, 32)).astype("f")
    step = jax.jit(jax.value_and_grad(lambda x, kernel: (conv(x, kernel) ** 2).sum(), (0, 1)))
    results = []
    for threads in (1, 2, 3):
        localconv.set_num_threads(threads)
        results.append(jax.block_until_ready(jax.tree.leaves(step(x, kernel))))
        assert _core.last_run()["threads"] <= threads
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_concurrent_calls():
    """Threads that run programs of several shapes at once, while the settings change: every result right."""
    shapes = range(5, 13)
    jitted = jax.jit(conv)
    expected = {n: localconv.local_conv1d(*arrays(n), 3, 1, "channels_last") for n in shapes}
    wrong = []

    def run(first):
        for turn in range(60):
            n = 5 + (first + turn) % 8
            if not np.array_equal(jitted(*arrays(n)), expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        _xla.forget()
        localconv.set_num_threads(1)
        localconv.set_num_threads(None)
    assert not wrong


ENVIRONMENT = """
import jax, jax.numpy as jnp, localconv.jax as lj
try:
    lj.local_conv1d(jnp.ones((1, 5, 2)), jnp.ones((3, 6, 4)), 3, 1, "channels_last").block_until_ready()
except Exception as error:
    print(type(error).__name__, "LOCALCONV_NUM_THREADS must be an integer" in str(error))
"""


def test_wrong_number_of_threads(python):
    """As NumPy's calls do, the first call says what is wrong with the environment."""
    name, said = python(ENVIRONMENT, LOCALCONV_NUM_THREADS="many").split()
    assert (name, said) in (("JaxRuntimeError", "True"), ("XlaRuntimeError", "True"))


def test_no_memory(monkeypatch):
    """A plan that cannot be had for want of memory is XLA's RESOURCE_EXHAUSTED."""

    def refuse(*_):
        raise MemoryError("no memory to plan local_rows")

    lj.register()
    _xla.use_maker(refuse)
    try:
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"RESOURCE_EXHAUSTED.*no memory to plan"):
            jax.jit(conv)(*arrays(11)).block_until_ready()
    finally:
        _xla.use_maker(lj.platforms.make_plan)
    np.testing.assert_array_equal(
        jax.jit(conv)(*arrays(11)), localconv.local_conv1d(*arrays(11), 3, 1, "channels_last")
    )
