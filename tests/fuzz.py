"""Random calls of the whole functional interface: right ones in strange clothes, and wrong ones.

A call must return what the twin computes, or raise ValueError, TypeError or MemoryError; no argument may change. Anything else is a
finding, printed with the seed that repeats it:

    python tests/fuzz.py --seconds 600
    python tests/fuzz.py --seed 1234 --rounds 1
"""

import argparse
import itertools
import random
import sys
import time

import numpy as np
import oracle
from oracle import Case, Gradient

import localconv
from localconv import _core, dispatch, grad

FUNCTIONS = ("local_conv1d", "local_conv2d", "conv1d", "conv2d")
REFUSALS = (ValueError, TypeError, MemoryError)
MEMORY_LIMIT = 6 * 2**30
# Sizes that no array here has: an argument with one is refused, or has no effect on how much there is to compute.
FAR = (2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)
NUMBERS = (0, -1, -(2**63), 1, 2, 3, 7, *FAR)
ODD = (None, True, 1.0, 2.5, float("nan"), "3", b"3", "", "valid", [], (), {}, {1, 2}, object(), np.int8(2), np.float64(1), np.array(3), 1j)


class Subclass(np.ndarray):
    """An array that is not quite NumPy's."""


class Finding(Exception):
    """A call did what no call may do."""


def draw_case(rng):
    """A small right geometry, its values integers that every sum holds exactly."""
    function = rng.choice(FUNCTIONS)
    rank, local = int(function[-2]), function.startswith("local")
    kernel = tuple(rng.randint(1, 4) for _ in range(rank))
    strides = tuple(rng.randint(1, 4) for _ in range(rank))
    dilation = tuple(rng.randint(1, 3) for _ in range(rank))
    if not local and max(strides) > 1:
        dilation = (1,) * rank
    names = ["valid", "same", "causal"][: 4 - rank]
    padding = rng.choice([*names, tuple((rng.randint(0, 5), rng.randint(0, 5)) for _ in range(rank))])
    groups = rng.choice([1, 1, 2])
    return Case(
        function,
        tuple((k - 1) * d + 1 + rng.randint(0, 6) for k, d in zip(kernel, dilation, strict=True)),
        kernel,
        batch=rng.choice([1, 2, 5, 17]),
        channels=groups * rng.randint(1, 4),
        filters=groups * rng.choice([1, 3, 8, 17]),
        strides=strides,
        dilation_rate=dilation,
        groups=groups,
        padding=padding,
        data_format=rng.choice(oracle.FORMATS),
        dtype=rng.choice(["float32", "float64"]),
        seed=rng.randrange(2**32),
    )


def draw_call(rng):
    """(what it is called, the module that has it, the twin's, arguments by name, the expected result)"""
    case = draw_case(rng)
    options = case.options()
    inputs, kernel, _ = case.arrays()
    x = "inputs" if case.local else "x"
    kind = rng.choice(["forward", "input", "kernel", "transpose"])
    if kind == "forward":
        return case.function, localconv, {x: inputs, "kernel": kernel} | options, case.run(oracle, (inputs, kernel, None))
    gradient = Gradient(case, "kernel" if kind == "kernel" else "input")
    first, grad_output = gradient.arrays()
    expected = gradient.run(oracle, (first, grad_output))
    if kind == "kernel":
        arguments = {x: first, "kernel_shape": gradient.shape, "grad_output": grad_output}
        return gradient.function, grad, arguments | options, expected
    if kind == "input":
        return gradient.function, grad, {"input_shape": gradient.shape, "kernel": first, "grad_output": grad_output} | options, expected
    arguments = {x: grad_output, "kernel": first} | options | {"output_shape": gradient.shape}
    return f"{case.function}_transpose", localconv, arguments, expected


# --------------------------------------------------------------------------------------------------------------- the same value, dressed


def dress(rng, array):
    """An array of the same values and another form."""
    padded = np.full((2 * array.shape[0] + 1, *array.shape[1:]), np.nan, array.dtype)
    padded[1::2] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)
    shifted = raw[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    forms = {
        "as it is": array,
        "every other": padded[1::2],
        "backwards": array[::-1].copy()[::-1],
        "transposed": np.ascontiguousarray(array.T).T,
        "misaligned": shifted,
        "byte-swapped": array.astype(array.dtype.newbyteorder()),
        "read-only": frozen,
        "list": array.tolist() if array.dtype == np.float64 else array,
        "subclass": array.view(Subclass),
    }
    return rng.choice(list(forms.values()))


# ---------------------------------------------------------------------------------------------------------------------------- wrong ones


def spoil(rng, name, value):
    """A value for an argument that is probably wrong."""
    if isinstance(value, np.ndarray):
        endless = np.lib.stride_tricks.as_strided(value, (2**40, *value.shape[1:]), (0, *value.strides[1:]))
        others = [value.astype(kind) for kind in (np.float16, np.int64, complex, object, np.longdouble)]
        others += [value[0], value[None], value[:0], value[..., :-1], value[..., :1], value.T, value.ravel(), endless]
        others += [np.broadcast_to(value[:1], value.shape), np.ma.masked_array(value), np.zeros((0,) * value.ndim, value.dtype)]
        return rng.choice([*others, np.float32(3), None, "x", [[1.0], [1.0, 2.0]], {}])
    if rng.random() < 0.4:
        return rng.choice(ODD)
    if isinstance(value, tuple) and value and rng.random() < 0.8:
        parts = list(value)
        if name == "padding":
            return tuple(rng.choice([pair, (rng.choice(NUMBERS), 0), (0, rng.choice(FAR)), (rng.randint(0, 30), 1), 3]) for pair in parts)
        place = rng.randrange(len(parts))
        parts[place] = rng.choice([*NUMBERS, *ODD])
        return rng.choice([tuple(parts), parts, parts[:-1], [*parts, 1]])
    return rng.choice(NUMBERS)


# ------------------------------------------------------------------------------------------------------------------------------ one round


def bits(arguments):
    return [np.asarray(v).tobytes() for v in arguments.values() if isinstance(v, np.ndarray) and v.size < 10**6 and v.dtype != object]


def one_round(seed):
    """One call; raises Finding."""
    rng = random.Random(seed)
    name, module, arguments, expected = draw_call(rng)
    _core.set_isa(rng.choice(_core.available_isas()))
    localconv.set_num_threads(rng.choice([1, 2]))
    wrong = {}
    if rng.random() < 0.6:
        for key in rng.sample(list(arguments), rng.choice([1, 1, 2])):
            wrong[key] = spoil(rng, key, arguments[key])
        if "kernel" in name.split("_")[-1] and rng.random() < 0.2:
            wrong["accumulate"] = rng.choice(ODD)
        if rng.random() < 0.2:
            wrong["out"] = rng.choice([*ODD, np.zeros(expected.shape, np.float32), np.zeros(3), np.zeros(expected.shape, int)])
    dressed = {key: dress(rng, v) if isinstance(v, np.ndarray) else v for key, v in arguments.items()}
    given = dressed | wrong
    before = bits({k: v for k, v in given.items() if k != "out"})
    force = {"conv": rng.choice([None, None, "direct", "im2col"]), "gradient": rng.choice([None, None, *dispatch.GRADIENT_STRATEGIES])}
    try:
        with dispatch.forced(**force):
            result = getattr(module, name)(**given)
    except REFUSALS as error:
        if not wrong:
            raise Finding(f"seed {seed}: {name} refused a right call: {error!r}") from error
        return "refused"
    except BaseException as error:
        raise Finding(f"seed {seed}: {name} raised {error!r}") from error
    finally:
        if before != bits({k: v for k, v in given.items() if k != "out"}):
            raise Finding(f"seed {seed}: {name} changed an argument")
    check(seed, name, given if wrong else arguments, result, None if wrong else expected)
    return "checked"


def check(seed, name, given, result, expected):
    """The result of an accepted call is what the twin says of the same arguments, brought to their plain form."""
    plain = {key: value for key, value in given.items() if key not in ("out", "accumulate")}
    if name.endswith("_transpose") and plain["output_shape"][0] is None:
        plain["output_shape"] = (len(plain.get("x", plain.get("inputs"))), *plain["output_shape"][1:])
    if expected is None:
        try:
            with np.errstate(all="ignore"):
                expected = getattr(oracle, name)(**{key: simple(key, value) for key, value in plain.items()})
        except MemoryError:
            return  # an empty batch with a kernel that claims to be endless: the twin looks at all of it
        except BaseException as error:
            raise Finding(f"seed {seed}: {name} took {describe(plain)}, of which the twin says {error!r}") from error
    if result.shape != expected.shape or not np.array_equal(result, expected.astype(result.dtype), equal_nan=True):
        raise Finding(f"seed {seed}: {name}: wrong result of {describe(plain)}")


def simple(key, value):
    """An accepted argument as the twin takes it: plain tuples of ints, and the defaults spelled out."""
    if key == "data_format":
        return localconv.image_data_format() if value is None else value
    if key in ("kernel_size", "strides", "dilation_rate", "input_shape", "kernel_shape", "groups", "output_shape"):
        if value is None:
            return None
        return int(value) if np.ndim(value) == 0 else tuple(int(part) for part in value)
    if key == "padding" and not isinstance(value, str):
        return tuple(tuple(int(part) for part in pair) for pair in value)
    return np.asarray(value) if isinstance(value, list) else value


def describe(arguments):
    return {key: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else value for key, value in arguments.items()}


def run(first_seed, rounds=None, seconds=None):
    """Rounds until one of the limits; returns how many calls were checked and refused, and the findings."""
    counts, findings, end = {"checked": 0, "refused": 0}, [], time.monotonic() + (seconds or 0)
    for seed in itertools.count(first_seed):
        if (rounds is not None and seed >= first_seed + rounds) or (seconds is not None and time.monotonic() > end):
            return counts, findings
        try:
            counts[one_round(seed)] += 1
        except Finding as finding:
            findings.append(str(finding))
    return counts, findings


def limit_memory():
    """What should be refused must not fill the machine; Windows has no such limit."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**48))
    options = parser.parse_args()
    limit_memory()
    if options.rounds is None and options.seconds is None:
        options.seconds = 600
    counts, findings = run(options.seed, options.rounds, options.seconds)
    print("\n".join(findings))
    print(f"from seed {options.seed}: {counts['checked']} results checked, {counts['refused']} calls refused, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
