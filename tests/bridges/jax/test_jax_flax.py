"""The page for flax's users with flax itself: layers of linen, and modules of nnx."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import localconv.jax as lj
from localconv.convert import convert

linen = pytest.importorskip("flax.linen", reason="needs flax: make test-bridges installs it")

PAGE = Path(__file__).parents[3] / "docs" / "coming-from-jax.md"
FUNCTIONS = {1: lj.local_conv1d, 2: lj.local_conv2d, 3: lj.local_conv3d}
LAYERS = {
    "1d": ((11,), {"kernel_size": (3,), "padding": "VALID"}),
    "causal": ((9,), {"kernel_size": (3,), "padding": "CAUSAL"}),
    "2d": ((7, 6), {"kernel_size": (3, 2), "strides": (2, 1), "padding": "VALID"}),
    "pairs": ((7, 6), {"kernel_size": (3, 2), "padding": ((1, 2), (0, 1)), "kernel_dilation": (1, 2)}),
    "no bias": ((5, 6), {"kernel_size": (2, 2), "padding": "VALID", "use_bias": False}),
    "3d": ((4, 5, 3), {"kernel_size": (2, 3, 1), "padding": "VALID", "strides": (1, 2, 1)}),
}


def rows_of(kernel):
    """`convert` from "flax" to "rows" for arrays that are traced; 3 channels."""
    stored = kernel.reshape(-1, 3, kernel.shape[-2] // 3, kernel.shape[-1])
    return stored.swapaxes(1, 2).reshape(len(stored), *kernel.shape[-2:])


@pytest.mark.parametrize("name", LAYERS)
def test_linen(name):
    """The layer's output, in 1D its gradients too, from its own parameters, which come back as they were."""
    spatial, options = LAYERS[name]
    size, padding = options["kernel_size"], options["padding"]
    layer = linen.ConvLocal(4, precision=jax.lax.Precision.HIGHEST, bias_init=linen.initializers.normal(), **options)
    x = jax.random.normal(jax.random.key(1), (2, *spatial, 3))
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    window = {
        "kernel_size": size,
        "strides": options.get("strides", 1),
        "padding": padding.lower() if isinstance(padding, str) else padding,
        "dilation_rate": options.get("kernel_dilation", 1),
        "data_format": "channels_last",
    }

    @jax.jit
    def theirs(params, x):
        return layer.apply({"params": params}, x)

    @jax.jit
    def ours(params, x):
        return FUNCTIONS[len(size)](x, rows_of(params["kernel"]), bias=params.get("bias"), **window)

    kernel = convert(params["kernel"], "flax", "rows", size)
    np.testing.assert_array_equal(kernel, rows_of(params["kernel"]))
    back = convert(kernel, "rows", "flax", size, output_size=params["kernel"].shape[: len(size)])
    np.testing.assert_array_equal(back, params["kernel"])
    bound = theirs(jax.tree.map(jnp.abs, params), jnp.abs(x))
    limit = 2 * (kernel.shape[1] + 2) * np.finfo(np.float32).eps * bound
    assert (jnp.abs(ours(params, x) - theirs(params, x)) <= limit).all()
    if len(size) > 1:
        return  # XLA takes ten seconds to compile the derivatives of the other formulation
    gradients = [
        jax.jit(jax.grad(lambda *given, of=of: jnp.sin(of(*given)).sum(), (0, 1)))(params, x) for of in (ours, theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients)


@pytest.mark.skipif(not PAGE.exists(), reason="a test of a checkout; this is not one")
def test_the_programs_of_the_page():
    """In one namespace, in their order: what needs flax comes behind what does not."""
    text = PAGE.read_text(encoding="utf-8")
    plain = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    of_flax = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(of_flax) == 2
    names = {}
    for block in [plain[0], *of_flax]:
        exec(block, names)
