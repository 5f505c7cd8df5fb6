"""Settings as Keras has them, and its file of them: image_data_format and floatx."""

from __future__ import annotations

import json
import os
import reprlib
import stat
import warnings

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

    Raises
    ------
    ValueError
        If `dtype` is neither.
    """
    global _floatx
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {FLOATS}, got {dtype!r}")
    _floatx = dtype


def _read_keras_file() -> None:
    """Fill the settings that nobody has set from keras.json; a broken file is a warning, and counts as absent."""
    global _image_data_format, _floatx
    found = _keras_settings()
    if _image_data_format is None:
        _image_data_format = found.get("image_data_format", CHANNELS_LAST)
    if _floatx is None:
        _floatx = found.get("floatx", FLOATS[0])


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
    found = {}
    for key, accepted in (("image_data_format", DATA_FORMATS), ("floatx", FLOATS)):
        if key not in content:
            continue
        if content[key] in accepted:
            found[key] = content[key]
        else:
            _warn(path, f"{key} is {reprlib.repr(content[key])}, not one of {accepted}")
    return found


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
