"""Rounds of the fuzzer over the functional interface."""

import numpy as np
import oracle
import stored
import ways
from fuzz_values import NUMBERS, ODD, REFUSALS, Finding, bits, describe, dress, spoil
from operations import OPERATIONS

import localconv
from localconv import QuantizedKernel, _core
from localconv.core import settings


def draw_call(rng):
    """(an operation, arguments by name, the expected result)

    The arrays may be of any dtypes, and the kernel quantized. Some of the data may be NaN or inf, which come out just
    where a sum holds them.
    """
    operation = rng.choice(list(OPERATIONS.values()))
    arguments = operation.draw(rng)
    if rng.random() < 0.5:
        arguments = stored.redrawn(rng, arguments)
    if rng.random() < 0.3:
        arguments = {key: sprinkled(rng, value) for key, value in arguments.items()}
    with np.errstate(invalid="ignore"):
        return operation, arguments, getattr(oracle, operation.name)(**stored.all_widened(arguments))


def sprinkled(rng, value):
    """An array with a few values that are not finite, or, as often, as it is; anything else as it is."""
    if not isinstance(value, np.ndarray) or rng.random() < 0.5:
        return value
    value = value.copy()
    for _ in range(rng.randint(1, 3)):
        value.flat[rng.randrange(value.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return value


# ------------------------------------------------------------------------------------------------------------ one round


def call_round(rng, seed):
    """One call of a function."""
    operation, arguments, expected = draw_call(rng)
    name = operation.name
    settings.set_isa(rng.choice(_core.available_isas()))
    localconv.set_num_threads(rng.choice([1, 2]))
    wrong = {}
    if rng.random() < 0.6:
        for key in rng.sample(list(arguments), rng.choice([1, 1, 2])):
            wrong[key] = spoil(rng, key, arguments[key])
        if operation.accumulates and rng.random() < 0.2:
            wrong["accumulate"] = rng.choice(ODD)
        if rng.random() < 0.2:
            wrong["out"] = rng.choice(
                [*ODD, np.zeros(3), *(np.zeros(expected.shape, kind) for kind in (np.float32, np.float16, int))]
            )
    dressed = {k: dress(rng, v) if isinstance(v, np.ndarray | QuantizedKernel) else v for k, v in arguments.items()}
    given = dressed | wrong
    before = bits({k: v for k, v in given.items() if k != "out"})
    force = [name for family in ways.ALL for name in rng.choice([(), rng.choice(ways.ALL[family])])]
    try:
        with settings.forced(*force), np.errstate(all="raise"):
            result = getattr(operation.module, name)(**given)
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
    with np.errstate(all="ignore"):  # what is past the largest number, and NaN, in 16 bits
        rounded = stored.widened(expected.astype(result.dtype))
    if result.shape != expected.shape or not np.array_equal(stored.widened(result), rounded, equal_nan=True):
        raise Finding(f"seed {seed}: {name}: wrong result of {describe(plain)}")


def simple(key, value):
    """An accepted argument as the twin takes it: plain tuples of ints, and the defaults spelled out."""
    if key == "data_format":
        return localconv.image_data_format() if value is None else value
    if key.endswith("_shape") or key in ("kernel_size", "strides", "dilation_rate", "groups"):
        if value is None:
            return None
        return int(value) if np.ndim(value) == 0 else tuple(int(part) for part in value)
    if key == "padding" and not isinstance(value, str):
        return tuple(tuple(int(part) for part in pair) for pair in value)
    return np.asarray(value) if isinstance(value, list) else stored.widened(value)


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
