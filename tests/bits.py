"""Digests of some thousand results, to show that a change of the code changes no bit of them.

Every operation, data format, kind of padding, batch size and element type, on every instruction set, with one and two
threads, by nothing but the public interface: any two versions that are installed somewhere can be compared.

    python tests/bits.py record before.json
    python tests/bits.py record after.json      # with another version on the path
    python tests/bits.py compare before.json after.json
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys

ISAS = ("avx512", "avx2", "neon", "wasm128", "scalar")
THREADS = (1, 2)
CASES = 400


def draw(rng, number):
    """One convolution as plain arguments; the first cases go through every function, format and type in turn."""
    functions = list(
        itertools.product(("local", "conv"), (1, 2), ("channels_last", "channels_first"), ("float32", "float64"))
    )
    family, rank, data_format, dtype = functions[number % len(functions)]
    large = rng.random() < 0.3
    kernel = tuple(rng.randint(1, 5) for _ in range(rank))
    strides = tuple(rng.choice([1, 1, 2, 3]) for _ in range(rank))
    dilation = tuple(rng.choice([1, 1, 2]) for _ in range(rank))
    if family == "conv" and max(strides) > 1:
        dilation = (1,) * rank
    names = ["valid", "same", "causal"] if rank == 1 else ["valid", "same"]
    groups = rng.choice([1, 1, 1, 2, 3])
    return {
        "family": family,
        "rank": rank,
        "data_format": data_format,
        "dtype": dtype,
        "kernel": kernel,
        "strides": strides,
        "dilation": dilation,
        "groups": groups,
        "seed": number,
        "padding": rng.choice([*names, tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(rank))]),
        "spatial": tuple(
            (k - 1) * d + rng.randint(1, 40 if large else 12) for k, d in zip(kernel, dilation, strict=True)
        ),
        "batch": rng.choice([1, 2, 3, 5, 8, 16, 17, 33, 70]),
        "channels": groups * rng.choice([1, 2, 3, 8, 17]),
        "filters": groups * rng.choice([1, 2, 3, 8, 17, 40, 65]),
        "bias": rng.choice([True, False]),
    }


def results(case):
    """(name, array) of every operation on one case."""
    import numpy as np

    import localconv
    from localconv import grad

    rng = np.random.default_rng(case["seed"])
    last, rank = case["data_format"] == "channels_last", case["rank"]

    def values(*shape):
        return rng.standard_normal(shape).astype(case["dtype"])

    def image(spatial, channels):
        return (case["batch"], *spatial, channels) if last else (case["batch"], channels, *spatial)

    x = values(*image(case["spatial"], case["channels"]))
    common = {
        "strides": case["strides"],
        "padding": case["padding"],
        "dilation_rate": case["dilation"],
        "data_format": case["data_format"],
    }
    columns = localconv.im2col(x, case["kernel"], **common)
    yield "im2col", columns
    yield "col2im", localconv.col2im(columns, x.shape, case["kernel"], **common)
    local = case["family"] == "local"
    name = f"{'local_' if local else ''}conv{rank}d"
    function = getattr(localconv, name)
    options = common | {"groups": case["groups"]}
    if local:
        options["kernel_size"] = case["kernel"]
        if rank == 2:
            options["output_shape"] = None
        kernel = values(
            positions(case), int(np.prod(case["kernel"])) * case["channels"] // case["groups"], case["filters"]
        )
    else:
        kernel = values(*case["kernel"], case["channels"] // case["groups"], case["filters"])
    bias = values(case["filters"]) if case["bias"] else None
    y = function(x, kernel, bias=bias, **options)
    yield name, y
    g = values(*y.shape)
    yield f"{name}_input", getattr(grad, f"{name}_input")(x.shape, kernel, g, **options)
    yield f"{name}_kernel", getattr(grad, f"{name}_kernel")(x, kernel.shape, g, **options)
    total = values(*kernel.shape)
    yield (
        f"{name}_kernel, accumulated",
        getattr(grad, f"{name}_kernel")(x, kernel.shape, g, **options, out=total, accumulate=True),
    )


def draw_filters(rng, number):
    """One local filter, as `draw` draws a convolution."""
    kinds = list(itertools.product((1, 2), ("channels_last", "channels_first"), ("float32", "float64"), (False, True)))
    rank, data_format, dtype, inside = kinds[number % len(kinds)]
    large = rng.random() < 0.3
    kernel = tuple(rng.choice([1, 2, 3, 5, 7, 9]) for _ in range(rank))
    dilation = tuple(rng.choice([1, 1, 2]) for _ in range(rank))
    groups = rng.choice([1, 1, 2, 4])
    pairs = tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(rank))
    return {
        "rank": rank,
        "seed": number,
        "dtype": dtype,
        "batch": rng.choice([1, 1, 2, 3]),
        "channels": groups * rng.choice([1, 2, 3, 4, 8, 16, 17, 40, 64]),
        "spatial": tuple(k * d + rng.randint(0, 40 if large else 12) for k, d in zip(kernel, dilation, strict=True)),
        "one": rng.random() < 0.2,
        "half": rng.random() < 0.2,
        "options": {
            "kernel_size": kernel,
            "strides": (1,) * rank if inside else tuple(rng.choice([1, 1, 2, 3]) for _ in range(rank)),
            "padding": "inside" if inside else rng.choice(["valid", "same", pairs]),
            "dilation_rate": dilation,
            "groups": groups,
            "data_format": data_format,
        },
    }


def filter_results(case):
    """(name, array) of every function of local filters on one case; none of a version that has none."""
    import numpy as np

    import localconv
    from localconv import grad

    name = f"local_filter{case['rank']}d"
    if not hasattr(localconv, name):
        return
    rng, options, dtype = np.random.default_rng(case["seed"]), case["options"], case["dtype"]
    axes = (*case["spatial"], case["channels"])
    axes = axes if options["data_format"] == "channels_last" else (axes[-1], *axes[:-1])

    def values(shape, kind=dtype):
        return rng.standard_normal(shape).astype(kind)

    x = values((case["batch"], *axes))
    taps, output = options["groups"] * int(np.prod(options["kernel_size"])), output_of_filters(case)
    of_image = (*output, taps) if options["data_format"] == "channels_last" else (taps, *output)
    w = values(
        (1 if case["one"] else case["batch"], *of_image), "float16" if case["half"] and dtype == "float32" else dtype
    )
    y = getattr(localconv, name)(x, w, **options)
    yield name, y
    g = values(y.shape)
    yield f"{name}_input", getattr(grad, f"{name}_input")(x.shape, w, g, **options)
    yield f"{name}_filters", getattr(grad, f"{name}_filters")(x, w.shape, g, **options)
    total = values(w.shape)
    yield (
        f"{name}_filters, accumulated",
        getattr(grad, f"{name}_filters")(x, w.shape, g, **options, out=total, accumulate=True),
    )


def output_of_filters(case):
    """Output sizes of a local filter."""
    sizes, options = [], case["options"]
    for axis in range(case["rank"]):
        n, s = case["spatial"][axis], options["strides"][axis]
        reach = (options["kernel_size"][axis] - 1) * options["dilation_rate"][axis] + 1
        padding = options["padding"]
        if padding in ("same", "inside"):
            sizes.append(-(-n // s))
        else:
            before, after = (0, 0) if padding == "valid" else padding[axis]
            sizes.append((n + before + after - reach) // s + 1)
    return tuple(sizes)


def positions(case):
    """Output positions of a locally connected convolution."""
    count = 1
    for axis in range(case["rank"]):
        n, s, reach = (
            case["spatial"][axis],
            case["strides"][axis],
            (case["kernel"][axis] - 1) * case["dilation"][axis] + 1,
        )
        if case["padding"] == "same":
            count *= -(-n // s)
        else:
            before, after = {"valid": (0, 0), "causal": (reach - 1, 0)}.get(case["padding"]) or case["padding"][axis]
            count *= (n + before + after - reach) // s + 1
    return count


def digests(cases):
    """The digest of every result, under its number and name; run in a process of its own for each instruction set."""
    found = {}
    for number in range(cases):
        case = draw(random.Random(number), number)
        for name, array in results(case):
            found[f"{number} {name}"] = digest(array)
    for number in range(cases // 2):
        for name, array in filter_results(draw_filters(random.Random(f"filters {number}"), number)):
            found[f"{number} {name}"] = digest(array)
    return found


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def record(path, cases):
    """Writes the digests of the version that this Python imports."""
    found = {}
    for isa, threads in itertools.product(ISAS, THREADS):
        environment = os.environ | {
            "LOCALCONV_ISA": isa,
            "LOCALCONV_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        run = subprocess.run(
            [sys.executable, __file__, "digests", str(cases)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode and "cannot run here" in run.stderr:
            print(f"{isa}: not on this machine")
            continue
        if run.returncode:
            raise SystemExit(run.stderr)
        found |= {f"{isa} {threads} {key}": value for key, value in json.loads(run.stdout).items()}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=0)
    print(f"{len(found)} results in {path}")


def compare(first, second):
    """Prints what differs; returns how much."""
    with open(first, encoding="utf-8") as one, open(second, encoding="utf-8") as other:
        before, after = json.load(one), json.load(other)
    different = [key for key in before if before[key] != after.get(key)]
    print("\n".join(different[:40]))
    print(f"{len(before)} results, {len(different)} differ")
    return len(different)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["record", "compare", "digests"])
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--cases", type=int, default=CASES)
    options = parser.parse_args()
    if options.what == "digests":
        print(json.dumps(digests(int(options.arguments[0]))))
        return 0
    if options.what == "record":
        record(options.arguments[0], options.cases)
        return 0
    return min(1, compare(*options.arguments))


if __name__ == "__main__":
    sys.exit(main())
