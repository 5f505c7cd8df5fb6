"""Settings as Keras has them, and its file of them: image_data_format and floatx. And one that Keras has not."""

from __future__ import annotations

import json
import os
import reprlib
import stat
import warnings

from .settings import allow_winograd, current

CHANNELS_LAST = "channels_last"
CHANNELS_FIRST = "channels_first"
DATA_FORMATS = (CHANNELS_LAST, CHANNELS_FIRST)
FLOATS = ("float32", "float64")

# Of keras.json; the file that Keras writes has four lines.
LARGEST_FILE = 2**20

# Read from Keras's file when first asked for; None: not yet.
_image_data_format: str | None = None
_floatx: str | None = None


def image_data_format() -> str:
    """Return the data format that ``data_format=None`` stands for.

    Returns
    -------
    str
        ``'channels_last'`` or ``'channels_first'``: what `set_image_data_format` set, else ``image_data_format`` in
        ``$KERAS_HOME/keras.json`` or ``~/.keras/keras.json``, else ``'channels_last'``.

    Examples
    --------
    >>> import localconv
    >>> localconv.set_image_data_format('channels_last')
    >>> localconv.image_data_format()
    'channels_last'
    """
    if _image_data_format is None:
        _read_keras_file()
    assert _image_data_format is not None
    return _image_data_format


def set_image_data_format(data_format: str) -> None:
    """Set the data format that ``data_format=None`` stands for.

    Parameters
    ----------
    data_format : {'channels_last', 'channels_first'}
        Whether the channels of an image are its last axis or come in front of its spatial axes.

    Raises
    ------
    ValueError
        If `data_format` is neither.
    """
    global _image_data_format
    if data_format not in DATA_FORMATS:
        raise ValueError(f"data_format must be one of {DATA_FORMATS}, got {data_format!r}")
    _image_data_format = data_format


def floatx() -> str:
    """Return the default dtype of the arrays that localconv makes by itself, the weights of layers for one.

    The functions do not need it: their result is float32 if all arrays are, else float64.

    Returns
    -------
    str
        ``'float32'`` or ``'float64'``: what `set_floatx` set, else ``floatx`` in Keras's ``keras.json``, else
        ``'float32'``.

    Examples
    --------
    >>> import localconv
    >>> localconv.set_floatx('float32')
    >>> localconv.floatx()
    'float32'
    """
    if _floatx is None:
        _read_keras_file()
    assert _floatx is not None
    return _floatx


def set_floatx(dtype: str) -> None:
    """Set the dtype that `floatx` returns.

    Parameters
    ----------
    dtype : {'float32', 'float64'}
        What weights have from now on where nothing else is said.

    Raises
    ------
    ValueError
        If `dtype` is neither.
    """
    global _floatx
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {FLOATS}, got {dtype!r}")
    _floatx = dtype


def winograd() -> bool:
    """Return whether shared convolution may be computed by Winograd's algorithm: what `set_winograd` set, else False.

    Returns
    -------
    bool

    Examples
    --------
    >>> import localconv
    >>> localconv.winograd()
    False
    """
    return current().winograd


def set_winograd(allowed: bool) -> None:
    """Set whether shared convolution may be computed by Winograd's algorithm, which needs fewer multiplications.

    Parameters
    ----------
    allowed : bool
        Of the calls that follow, in all threads.

    Raises
    ------
    TypeError
        If `allowed` is not a bool.

    Notes
    -----
    F(2, 3) along the last two spatial axes [1]_: four outputs of a 3 x 3 kernel by 16 products for each channel and
    filter instead of 36, two of a kernel of three taps by 4 instead of 6. It computes the results of `conv1d` with
    three taps, and of `conv2d` and `conv3d` with 3 x 3 (1 x 3 x 3) and 1 x 3 taps, where the axes of three taps have
    strides and dilation of 1, arrays are channels_last, a group has 16 channels and 16 filters or more (with 3 x 3 taps
    some thousand channels at most), and there are 256 output positions or more in all images; those of layers too.
    Gradients, kernels of fewer bytes and everything else are computed as ever. A call holds a kernel of 16/9 (4/3) of
    the bytes that the packed kernel has otherwise.

    Results are rounded otherwise. Without it, an output's error is bounded by the sum of ``|kernel| * |x|`` over its
    window; with it, by 16 times (4 times for three taps) the sum over the channels of ``|kernel|`` times the largest
    ``|x|`` of 4 x 4 pixels around, of which the window is a part. With normally distributed data the largest errors
    were 0.3 to 0.8 times as large as without it, since sums are shorter; they are larger where neighbours differ by
    orders of magnitude, and where weights are subnormal, since they are halved twice. An infinity comes out as NaN, in
    the outputs that hold it; a NaN in the kernel spoils its filter at the padding too; and sums that are a quarter of
    the dtype's largest number may overflow.

    References
    ----------
    .. [1] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> import localconv
    >>> x, kernel = np.ones((1, 32, 32, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    >>> localconv.set_winograd(True)
    >>> localconv.conv2d(x, kernel)[0, 0, 0, 0]
    np.float32(144.0)
    >>> localconv.set_winograd(False)
    """
    if not isinstance(allowed, bool):
        raise TypeError(f"allowed must be True or False, got {reprlib.repr(allowed)}")
    allow_winograd(allowed)


def _read_keras_file() -> None:
    """Fill the settings that nobody has set from keras.json; a broken file is a warning, and counts as absent."""
    global _image_data_format, _floatx
    settings = _keras_settings()
    if _image_data_format is None:
        _image_data_format = settings.get("image_data_format", CHANNELS_LAST)
    if _floatx is None:
        _floatx = settings.get("floatx", FLOATS[0])


def _keras_settings() -> dict[str, str]:
    """The settings in keras.json that are understood here."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    path = os.path.join(home, "keras.json")
    try:
        content = json.loads(_text(path))
    except FileNotFoundError:
        return {}
    # A RecursionError is what many nested brackets give.
    except (OSError, ValueError, RecursionError) as error:
        _warn(path, f"it cannot be read ({error})")
        return {}
    if not isinstance(content, dict):
        _warn(path, f"it holds a {type(content).__name__}, not an object")
        return {}
    settings = {}
    for key, accepted in (("image_data_format", DATA_FORMATS), ("floatx", FLOATS)):
        if key not in content:
            continue
        if content[key] in accepted:
            settings[key] = content[key]
        else:
            _warn(path, f"{key} is {reprlib.repr(content[key])}, not one of {accepted}")
    return settings


def _text(path: str) -> str:
    """The text of a regular file.

    OSError for anything else that may be in its place: a pipe could wait, a device never end.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(f"it is larger than {LARGEST_FILE} bytes")
    return content.decode("utf-8")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _warn(path: str, problem: str) -> None:
    warnings.warn(f"{path}: {problem}; localconv goes on with its defaults", UserWarning, stacklevel=5)
