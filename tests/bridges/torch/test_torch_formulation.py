"""Filters that come with the data by PyTorch's operations, as other devices than the processor compute them."""

import dataclasses
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="localconv.torch needs PyTorch: make test-bridges installs it")

from formulated import by_tap_of, formulated, wild_where_absent  # noqa: E402
from operations import draw_filter_case  # noqa: E402
from oracle import FILTER_ROLES, FilterCase  # noqa: E402

from localconv.torch import fallback  # noqa: E402

CPU = fallback._arrays(torch.device("cpu"))


@pytest.mark.parametrize("kind", FILTER_ROLES)
@pytest.mark.parametrize("number", range(12))
def test_values(kind, number):
    """Also where filters that meet no pixel hold NaN."""
    rng = random.Random(f"{kind} {number}")
    case = draw_filter_case(rng, kind, rng.randint(1, 3))
    arrays = wild_where_absent(case, case.arrays(), np.nan)
    case.check(formulated(CPU, case, {name: torch.from_numpy(array) for name, array in arrays.items()}).numpy())


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("kind", FILTER_ROLES)
def test_tensors_of_either_memory_format(kind, data_format):
    case = FilterCase(kind, (6, 7), (3, 2), 2, 6, groups=2, padding="same", data_format=data_format)
    tensors = {name: torch.from_numpy(array) for name, array in case.arrays().items()}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = {name: tensor.contiguous(memory_format=memory_format) for name, tensor in tensors.items()}
        case.check(formulated(CPU, case, given).numpy())


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("padding", ["same", "inside", ((3, 1), (0, 4))], ids=str)
@pytest.mark.parametrize("kind", FILTER_ROLES)
def test_transforms(kind, padding):
    """A batch of examples, derivatives in both directions, and one program for every batch."""
    case = FilterCase(kind, (6, 7), (3, 2), 2, 4, dilation_rate=2, padding=padding, dtype="float64")
    first, second = (torch.from_numpy(array) for array in case.arrays().values())
    names = list(case.arrays())

    def call(*arrays):
        return formulated(CPU, case, dict(zip(names, arrays, strict=True)))

    expected = call(first, second)
    mapped = torch.func.vmap(call, (0, None))(torch.stack([first, 2 * first]), second)
    torch.testing.assert_close(mapped[1], 2 * expected, rtol=0, atol=0)
    _, moved = torch.func.jvp(call, (first, second), (first, second))
    torch.testing.assert_close(moved, 2 * expected, rtol=0, atol=0)
    small = [torch.randn_like(array[:1], requires_grad=True) for array in (first, second)]
    assert torch.autograd.gradcheck(call, small, fast_mode=True)


@pytest.mark.parametrize("kind", ["local_filter", "local_filter_input", "local_filter_filters"])
def test_programs_of_any_batch(kind):
    """Compiled once, with no break, for batches that it has not seen."""
    case = FilterCase(kind, (7,), (3,), 2, 4, padding="inside", data_format="channels_first")
    names, by_tap = list(case.arrays()), by_tap_of(case)
    torch._dynamo.reset()  # of the programs of other kinds
    compiled = torch.compile(
        lambda *arrays: formulated(CPU, case, dict(zip(names, arrays, strict=True)), by_tap),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (2, 3, 5):
            other = dataclasses.replace(case, batch=batch)
            other.check(compiled(*(torch.from_numpy(array) for array in other.arrays().values())).numpy())
