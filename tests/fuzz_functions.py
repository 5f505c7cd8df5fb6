"""Rounds of the fuzzer over the functional interface."""

import numpy as np
import oracle
import ways
from fuzz_values import NUMBERS, ODD, REFUSALS, Finding, bits, describe, dress, spoil
from operations import FORWARD
from oracle import Case, Gradient

import localconv
from localconv import _core, grad, settings


def draw_case(rng):
    """A small right geometry, its values integers that every sum holds exactly."""
    function = rng.choice(list(FORWARD))
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
        bias=rng.choice([None, "filters", "full" if local else None]),
        dtype=rng.choice(["float32", "float64"]),
        seed=rng.randrange(2**32),
    )


def draw_call(rng):
    """(what it is called, the module that has it, the twin's, arguments by name, the expected result)"""
    with np.errstate(invalid="ignore"):
        return draw_call_of(rng, draw_case(rng))


def draw_call_of(rng, case):
    """A call of a case; its data may hold NaN and inf, which come out just where a sum holds them."""
    options = case.options()
    inputs, kernel, bias = sprinkled(rng, case.arrays())
    x = "inputs" if case.local else "x"
    kind = rng.choice(["forward", "input", "kernel", "transpose", "columns"])
    if kind == "columns":
        return draw_columns(rng, case, inputs)
    if kind == "forward":
        arguments = {x: inputs, "kernel": kernel, "bias": bias} | options
        return case.function, localconv, arguments, case.run(oracle, (inputs, kernel, bias))
    gradient = Gradient(case, "kernel" if kind == "kernel" else "input")
    first, grad_output = sprinkled(rng, gradient.arrays())
    expected = gradient.run(oracle, (first, grad_output))
    if kind == "kernel":
        arguments = {x: first, "kernel_shape": gradient.shape, "grad_output": grad_output}
        return gradient.function, grad, arguments | options, expected
    if kind == "input":
        return (
            gradient.function,
            grad,
            {"input_shape": gradient.shape, "kernel": first, "grad_output": grad_output} | options,
            expected,
        )
    arguments = {x: grad_output, "kernel": first} | options | {"output_shape": gradient.shape}
    return f"{case.function}_transpose", localconv, arguments, expected


def sprinkled(rng, arrays):
    """The arrays as they are, or with a few values that are not finite in some of them."""
    if rng.random() < 0.7:
        return arrays
    given = [array if array is None or rng.random() < 0.5 else array.copy() for array in arrays]
    for array, original in zip(given, arrays, strict=True):
        if array is not original:
            for _ in range(rng.randint(1, 3)):
                array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return given


def draw_columns(rng, case, inputs):
    """im2col, or col2im of as many rows as that has."""
    options = {
        name: getattr(case, name) for name in ("kernel_size", "strides", "padding", "dilation_rate", "data_format")
    }
    columns = oracle.im2col(inputs, **options)
    if rng.random() < 0.5:
        return "im2col", localconv, {"x": inputs} | options, columns
    columns = np.random.default_rng(case.seed).integers(-8, 9, columns.shape).astype(case.dtype)
    arguments = {"cols": columns, "input_shape": inputs.shape} | options
    return "col2im", localconv, arguments, oracle.col2im(**arguments)


# ------------------------------------------------------------------------------------------------------------ one round


def call_round(rng, seed):
    """One call of a function."""
    name, module, arguments, expected = draw_call(rng)
    settings.set_isa(rng.choice(_core.available_isas()))
    localconv.set_num_threads(rng.choice([1, 2]))
    wrong = {}
    if rng.random() < 0.6:
        for key in rng.sample(list(arguments), rng.choice([1, 1, 2])):
            wrong[key] = spoil(rng, key, arguments[key])
        if "kernel" in name.split("_")[-1] and rng.random() < 0.2:
            wrong["accumulate"] = rng.choice(ODD)
        if rng.random() < 0.2:
            wrong["out"] = rng.choice(
                [*ODD, np.zeros(expected.shape, np.float32), np.zeros(3), np.zeros(expected.shape, int)]
            )
    dressed = {key: dress(rng, v) if isinstance(v, np.ndarray) else v for key, v in arguments.items()}
    given = dressed | wrong
    before = bits({k: v for k, v in given.items() if k != "out"})
    force = [name for family in ways.ALL for name in rng.choice([(), rng.choice(ways.ALL[family])])]
    try:
        with settings.forced(*force):
            result = getattr(module, name)(**given)
    except REFUSALS as error:
        if not wrong:
            raise Finding(f"seed {seed}: {name} refused a right call: {error!r}") from error
        return "refused"
    except Exception as error:
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
        except Exception as error:
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


def settings_round(rng, seed):
    """A setting is what it was set to, or refused and as it was."""
    setter, getter, right = rng.choice(
        [
            (localconv.set_floatx, localconv.floatx, ["float32", "float64"]),
            (localconv.set_image_data_format, localconv.image_data_format, list(oracle.FORMATS)),
            (localconv.set_num_threads, localconv.get_num_threads, [1, 1000, None]),
            (settings.set_isa, settings.get_isa, _core.available_isas()),
        ]
    )
    before, value = getter(), rng.choice([*right, *right, *ODD, *NUMBERS])
    try:
        setter(value)
    except REFUSALS as error:
        if any(value is accepted for accepted in right) or getter() != before:
            raise Finding(f"seed {seed}: {setter.__name__}({value!r}): {error!r}") from error
        return "refused"
    except Exception as error:
        raise Finding(f"seed {seed}: {setter.__name__}({value!r}) raised {error!r}") from error
    if isinstance(value, str) and getter() != value:
        raise Finding(f"seed {seed}: {setter.__name__}({value!r}) was accepted, and {getter()!r} is set")
    setter(None if setter is localconv.set_num_threads else before)
    return "checked"
