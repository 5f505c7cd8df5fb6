"""Measure kernel banks, a few filters spread over many positions, against what computes the same without them.

    python benchmarks/banks.py                # everything; some six minutes
    python benchmarks/banks.py --only grid    # one of the cases: psf, grid, low-rank, fft
    python benchmarks/banks.py --quick        # fewer rounds: a first look, not figures to quote

- psf: 1000 x 1000 pixels, a weighted sum of nine filters of 25 x 25 at each. The base is `conv2d` to nine filters: the
  products that cannot be avoided, without the weights. And the memory that both directions take.
- grid: 512 x 512 pixels, 8 x 8 filters of 15 x 15 on a grid, against PyLops' NonStationaryConvolve2D (engine "numba")
  and Fourier transforms.
- low-rank: a training step of a layer of rank 4, against PyTorch's autograd through `conv2d` to all filters and einsum.
- fft: from which filter size on Fourier transforms win, for both kinds of banks and two sizes of pictures.

"forward" gathers (`local_conv2d`); "adjoint" scatters (`grad.local_conv2d_input`, which is `local_conv2d_transpose`).
Results are compared first. Contenders take turns in blocks. The median and the fastest block of each are printed, and
two ratios, above 1 where the bank is faster: the median over the rounds of its time by the bank's within a round, and
that of the fastest blocks, which others' work disturbs least. PyLops, Numba, SciPy and PyTorch are left out where they
are not installed.
"""

from __future__ import annotations

import argparse
import os
import sys

from compare import available_cpus, instruction_set, limit_threads, processor

CASES = ("psf", "grid", "low-rank", "fft")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_cpus(), help="(default: %(default)s)")
    parser.add_argument("--only", choices=CASES, help="one of the cases")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look, not figures to quote")
    return parser.parse_args(arguments)


def load() -> str:
    """How much others use the machine, where the system tells."""
    return f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load not known"


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; return the exit status."""
    options = parse(arguments)
    limit_threads(options.threads)  # before NumPy, whose BLAS listens only while it is being loaded
    import bank_cases
    from timing import ResultsDiffer

    import localconv

    localconv.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} threads, {instruction_set()}, {load()}")
    try:
        for name in CASES if options.only is None else (options.only,):
            case = bank_cases.CASES[name]
            print(f"{name}: {case.__doc__}")
            case(options.quick)
    except ResultsDiffer as error:
        print(f"banks.py: {error}", file=sys.stderr)
        return 1
    print(load())
    return 0


if __name__ == "__main__":
    sys.exit(main())
