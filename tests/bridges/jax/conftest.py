"""Fixtures of the JAX bridge's tests: nothing here runs where JAX is not installed."""

import pytest

jax = pytest.importorskip("jax", reason="localconv.jax needs JAX: pip install 'localconv[jax]'")


@pytest.fixture
def x64():
    """float64 in JAX, for one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def programs_forgotten():
    """Every test begins with no compiled program and no plan: it sees what it makes itself."""
    from localconv import _xla

    yield
    jax.clear_caches()
    _xla.forget()
