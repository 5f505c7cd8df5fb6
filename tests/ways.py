"""The package's algorithms as tests force them. Every list follows from the package's own table.

A way is a tuple of algorithms for `settings.forced`, at most one for each operation but where the first cannot do all.
"""

from itertools import zip_longest

from localconv.core.settings import ALGORITHMS, COLUMNS


def of(operation):
    """The compiled algorithms of an operation that take any geometry.

    Local_dot and conv_winograd take some, and have tests of their own.
    """
    return [name for name in ALGORITHMS.get(operation, ()) if name not in ("local_dot", "conv_winograd", COLUMNS)]


def together(*operations):
    """Ways in which every algorithm of every operation occurs; an operation with fewer repeats its first."""
    lists = [names for names in map(of, operations) if names]
    return [tuple(name or names[0] for name, names in zip(way, lists, strict=True)) for way in zip_longest(*lists)]


FORWARD = {
    "local": together("local_forward"),
    "conv": [*together("conv_forward"), (COLUMNS,)],
    "filter": together("filter_forward"),
}
GRADIENTS = {
    "local": together("local_grad_input", "local_grad_kernel"),
    "conv": [*together("conv_grad_input", "conv_grad_kernel"), (COLUMNS,)],
    "filter": together("filter_grad_input", "filter_grad_kernel"),
}
ALL = {
    "local": together("local_forward", "local_grad_input", "local_grad_kernel"),
    "conv": [*together("conv_forward", "conv_grad_input", "conv_grad_kernel"), (COLUMNS,)],
    "filter": together("filter_forward", "filter_grad_input", "filter_grad_kernel"),
}


# Where results in the lanes cannot be (strides along the width, windows moved inside), those that take any geometry do.
ANY_FILTER = ("filter_channels", "filter_input_channels", "filter_dots")
for ways in (FORWARD, GRADIENTS, ALL):
    ways["filter"] = [(*way, *(name for name in ANY_FILTER if name not in way)) for way in ways["filter"]]


def name(way):
    """What pytest shows: the algorithms that are tried first."""
    return "+".join(way[:3])
