"""Fixtures of the tests of `localconv.torch`."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def compiled_here(tmp_path_factory):
    """PyTorch keeps compiled programs on the disk, by what they compute forward: a backward pass found there may call
    the operators as they were in another version.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        yield


@pytest.fixture(params=["compiled", "torch", "bands"])
def formulation(request, monkeypatch):
    """Localconv's kernels, PyTorch's operations as other devices use them, or these with every position on its own."""
    if request.param == "compiled":
        yield
        return
    from localconv.core import formulation
    from localconv.torch import fallback

    if request.param == "bands":
        monkeypatch.setattr(formulation, "MEMORY", 1)
    with fallback.forced():
        yield
