"""A function of local filters by `formulation`, over whatever namespace of array functions."""

from localconv.core import formulation
from localconv.core.spec import filter_spec
from localconv.core.windows import Convolution


def by_tap_of(case):
    """What the formulation makes of a FilterCase before it sees arrays."""
    spec = filter_spec(
        case.rank, case.kernel_size, case.strides, case.padding, case.data_format, case.dilation_rate, case.groups
    )
    return formulation.filters_by_tap(Convolution(spec, case.spatial, case.channels, case.channels))


def formulated(xp, case, arrays, by_tap=None, **options):
    """The result of a FilterCase; arrays: by the names of its arguments, of the namespace's own type."""
    given = {name: arrays[argument] for argument, name in case.role.arrays.items()}
    by_tap = by_tap or by_tap_of(case)
    if case.role.makes == "output":
        return formulation.filter_forward(xp, by_tap, given["inputs"], given["filters"], **options)
    if case.role.makes == "inputs":
        return formulation.filter_grad_input(xp, by_tap, given["filters"], given["output"], **options)
    one = case.shapes()["filters"][0] != case.batch
    return formulation.filter_grad_kernel(xp, by_tap, given["inputs"], given["output"], one, **options)


def wild_where_absent(case, arrays, value):
    """The same arrays, with this value in all filters that meet no pixel, if the case takes filters."""
    filters = [argument for argument, name in case.role.arrays.items() if name == "filters"]
    wild = {name: array.copy() for name, array in arrays.items()}
    for argument in filters:
        wild[argument][~case.present()] = value
    return wild
