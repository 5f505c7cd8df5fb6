"""Fixtures of the dask bridge's tests: nothing here runs where dask is not installed."""

import pytest

dask = pytest.importorskip("dask", reason="localconv.dask needs dask: pip install 'localconv[dask]'")
pytest.importorskip("dask.array", reason="localconv.dask needs dask.array: pip install 'localconv[dask]'")


@pytest.fixture(autouse=True)
def one_task_after_the_other():
    """Tests name the scheduler that they are about."""
    with dask.config.set(scheduler="synchronous"):
        yield
