"""Geometries that the JAX bridge's tests go over."""

from oracle import Case

CASES = [
    Case("local_conv1d", (9,), (3,), exact=False),
    Case(
        "local_conv1d",
        (9,),
        (4,),
        strides=2,
        padding="same",
        groups=3,
        filters=6,
        data_format="channels_first",
        exact=False,
    ),
    Case("local_conv1d", (8,), (2,), dilation_rate=3, padding="causal", bias="full", exact=False),
    Case("local_conv1d", (8,), (3,), padding=((9, 4),), bias="filters", data_format="channels_first", exact=False),
    Case("local_conv2d", (6, 5), (3, 2), strides=(1, 2), bias="filters", exact=False),
    Case(
        "local_conv2d",
        (6, 5),
        (3, 2),
        strides=(2, 1),
        padding="same",
        data_format="channels_first",
        bias="full",
        exact=False,
    ),
    Case(
        "local_conv2d", (7, 6), (2, 2), dilation_rate=(2, 3), padding=((1, 2), (0, 3)), groups=3, filters=3, exact=False
    ),
    Case("local_conv2d", (4, 4), (1, 1), channels=1, filters=1, batch=1, exact=False),
    Case("local_conv3d", (4, 3, 4), (2, 2, 3), strides=(2, 1, 1), padding="same", bias="full", exact=False),
    Case(
        "local_conv3d",
        (5, 3, 3),
        (2, 1, 2),
        dilation_rate=(2, 1, 1),
        padding=((1, 0), (0, 1), (0, 0)),
        groups=3,
        filters=3,
        data_format="channels_first",
        exact=False,
    ),
]


def name_of(case):
    """What a test's id says of a case."""
    return f"{case.function}-{'x'.join(map(str, case.spatial))}-{case.data_format}-g{case.groups}-{case.padding}"
