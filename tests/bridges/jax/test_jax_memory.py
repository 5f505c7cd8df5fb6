"""What XLA allocates for the formulation beside operands and result, by its own account."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from localconv.core import formulation
from localconv.core.spec import local_spec
from localconv.jax import platforms
from localconv.jax.window import window_of


def allocated(operation, spec, examples):
    """MiB of the program of a convolution whose windows have 78 MiB, and its kernel 20."""
    spatial = (44, 44) if spec.padding == "valid" else (40, 40)

    def images(spatial, channels):
        shape = (channels, *spatial) if spec.channels_first else (*spatial, channels)
        return jax.ShapeDtypeStruct((*([examples] if examples > 1 else []), 16 // examples, *shape), jnp.float32)

    x, kernel, y = images(spatial, 32), jax.ShapeDtypeStruct((1600, 800, 4), jnp.float32), images((40, 40), 4)
    operands = {"local_forward": (x, kernel), "local_grad_input": (kernel, y), "local_grad_kernel": (x, y)}[operation]
    options = {"spatial": spatial} if operation == "local_grad_input" else {}
    run = jax.jit(partial(platforms._by_jnp, operation, window=window_of(spec, spatial), **options))
    return run.lower(*operands).compile().memory_analysis().temp_size_in_bytes / 2**20


@pytest.mark.parametrize(
    ("padding", "data_format", "examples"),
    [("valid", "channels_last", 1), ("same", "channels_first", 1), ("valid", "channels_first", 4)],
)
@pytest.mark.parametrize("operation", ["local_forward", "local_grad_input", "local_grad_kernel"])
def test_windows_are_bounded(monkeypatch, operation, padding, data_format, examples):
    """Also of examples, which are computed at once."""
    spec = local_spec(2, 5, 1, padding, data_format, 1, 1)
    for memory in (4, 16, 2**20):
        monkeypatch.setattr(formulation, "MEMORY", memory * 2**20)
        mib = allocated(operation, spec, examples)
        assert mib < memory if memory < 2**20 else mib > 70
