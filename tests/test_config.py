"""Settings: keras.json, the default data format, floatx, and what the package says of itself."""

import json
import os
import platform
import sys

import numpy as np
import pytest
from oracle import FORMATS

import localconv

# Prints the format and, a line each, the warnings of two questions.
ASK = """
import warnings
import localconv
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    formats = localconv.image_data_format(), localconv.image_data_format()
assert formats[0] == formats[1]
print(formats[0])
for warning in caught:
    print(warning.category.__name__, str(warning.message).replace("\\n", " "))
"""


@pytest.fixture
def keras_json(tmp_path):
    """Writes the keras.json that the `python` fixture's processes see."""

    def write(content):
        path = tmp_path / "keras" / "keras.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


@pytest.mark.parametrize("data_format", FORMATS)
def test_keras_json(python, keras_json, data_format):
    keras_json({"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow", "image_data_format": data_format})
    assert python(ASK) == f"{data_format}\n"


def test_keras_json_decides_for_every_function(python, keras_json):
    keras_json({"image_data_format": "channels_first"})
    code = """
import numpy as np
import localconv as lc
x, y = np.ones((1, 2, 9), "f4"), np.ones((1, 2, 9, 8), "f4")
print(lc.local_conv1d(x, np.ones((7, 6, 5), "f4"), 3, 1).shape)
print(lc.local_conv2d(y, np.ones((42, 18, 5), "f4"), 3, 1, None).shape)
print(lc.conv1d(x, np.ones((3, 2, 5), "f4")).shape)
print(lc.conv2d(y, np.ones((3, 3, 2, 5), "f4")).shape)
print(lc.col2im(lc.im2col(y, 3), y.shape, 3)[0, :, 0, 0])
"""
    assert python(code).splitlines() == ["(1, 5, 7)", "(1, 5, 7, 6)", "(1, 5, 7)", "(1, 5, 7, 6)", "[1. 1.]"]


def test_no_keras_json(python, tmp_path):
    """Nothing is said, and nothing is written: the file is Keras's."""
    assert python(ASK) == "channels_last\n"
    assert not (tmp_path / "keras").exists()


def test_keras_json_without_a_format(python, keras_json):
    keras_json({"floatx": "float32"})
    assert python(ASK) == "channels_last\n"


def test_keras_json_in_the_home_directory(python, tmp_path):
    """~/.keras/keras.json, where KERAS_HOME is not set."""
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text('{"image_data_format": "channels_first"}')
    code = 'import os\ndel os.environ["KERAS_HOME"]\n' + ASK
    assert python(code, HOME=str(home), USERPROFILE=str(home)) == "channels_first\n"


def refused_briefly(answer, path):
    """channels_last, and one warning that names the file and what is wrong with it."""
    first, *warnings = answer.splitlines()
    assert first == "channels_last"
    assert len(warnings) == 1
    start, end = f"UserWarning {path}: ", "; localconv goes on with its defaults"
    assert warnings[0].startswith(start)
    assert warnings[0].endswith(end)
    assert 10 < len(warnings[0]) - len(start) - len(end) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"image_data_format": "channels_first"',
        b"\xff\xfe\x00broken",
        ["channels_first"],
        "channels_first",
        None,
        {"image_data_format": "channels_middle"},
        {"image_data_format": "Channels_First"},
        {"image_data_format": None},
        {"image_data_format": 1},
        {"image_data_format": ["channels_first"]},
        b"[" * 200_000,
        b'{"image_data_format": ' * 40_000,
        b'{"image_data_format": "channels_first"}' + b" " * 2**20,
        b'{"image_data_format": ' + b"9" * 5000 + b"}",
        {"image_data_format": "x" * 500_000},
        b'{"floatx": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
    ids=lambda content: str(content)[:40],
)
def test_broken_keras_json(python, keras_json, content):
    """One warning that names the file, then channels_last."""
    path = keras_json(content)
    refused_briefly(python(ASK), path)


def test_wrong_format_in_keras_json_is_named(python, keras_json):
    keras_json({"image_data_format": "channels_middle"})
    warning = python(ASK)
    assert "image_data_format" in warning
    assert "channels_middle" in warning


def directory(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


def unreadable(path):
    path.write_bytes(b"{}")
    path.chmod(0)


@pytest.mark.parametrize(
    "place",
    [
        directory,
        pytest.param(
            pipe,
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes among its files"),
        ),
        pytest.param(
            loop, marks=pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
        ),
        pytest.param(
            unreadable,
            marks=pytest.mark.skipif(
                not hasattr(os, "geteuid") or os.geteuid() == 0,
                reason="nothing is unreadable for this user, or by chmod on this system",
            ),
        ),
    ],
)
def test_keras_json_that_is_none(python, tmp_path, place):
    """One warning that names the file, and no waiting; then channels_last."""
    path = tmp_path / "keras" / "keras.json"
    path.parent.mkdir()
    place(path)
    refused_briefly(python(ASK, timeout=30), path)


def endless(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.memory
@pytest.mark.skipif(
    sys.platform != "linux", reason="the limit on memory, without which a fault would fill the machine's, is Linux's"
)
@pytest.mark.parametrize("place", [endless, sparse])
def test_keras_json_that_does_not_end(python, tmp_path, place):
    path = tmp_path / "keras" / "keras.json"
    path.parent.mkdir()
    place(path)
    refused_briefly(python("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n" + ASK), path)


def test_keras_json_in_a_file(python, tmp_path):
    """KERAS_HOME that is no directory is as wrong as a file that is none."""
    (tmp_path / "keras").write_bytes(b"{}")
    refused_briefly(python(ASK), tmp_path / "keras" / "keras.json")


@pytest.mark.parametrize("home", ["", "~", "no/such/place", "x" * 300, "a\nb"])
def test_no_file_where_the_home_says(python, home):
    """Strange places hold no file; nothing else is wrong with them but a name that no system takes."""
    found = python('import os\ndel os.environ["KERAS_HOME"]\n' + ASK, HOME=home, USERPROFILE=home).splitlines()
    assert found[0] == "channels_last"
    assert all("UserWarning" in warning and "keras.json" in warning for warning in found[1:])


def test_keras_json_is_read_at_the_first_need_only(python, keras_json):
    """Not at import, nor where every call tells its format."""
    keras_json(b"{")
    code = """
import warnings
warnings.simplefilter("error")
import numpy as np
import localconv
localconv.conv1d(np.ones((1, 9, 2)), np.ones((3, 2, 5)), data_format="channels_last")
try:
    localconv.conv1d(np.ones((1, 9, 2)), np.ones((3, 2, 5)))
except UserWarning:
    print("read now")
"""
    assert python(code) == "read now\n"


def test_set_image_data_format():
    for data_format in FORMATS:
        localconv.set_image_data_format(data_format)
        assert localconv.image_data_format() == data_format


def test_set_image_data_format_goes_before_the_file(python, keras_json):
    keras_json({"image_data_format": "channels_first"})
    code = """
import localconv
localconv.set_image_data_format("channels_last")
print(localconv.image_data_format())
"""
    assert python(code) == "channels_last\n"


def test_floatx(python):
    assert python("import localconv; print(localconv.floatx())") == "float32\n"
    for name in ("float64", "float32"):
        localconv.set_floatx(name)
        assert localconv.floatx() == name


def test_floatx_converts_no_data():
    """It is for what makes arrays; functions of arrays follow the arrays."""
    localconv.set_floatx("float64")
    assert localconv.conv1d(np.ones((1, 9, 2), "f4"), np.ones((3, 2, 5), "f4")).dtype == "float32"
    localconv.set_floatx("float32")
    assert localconv.conv1d(np.ones((1, 9, 2)), np.ones((3, 2, 5))).dtype == "float64"


def test_show_config(capsys, python):
    localconv.show_config()
    shown = capsys.readouterr().out
    wanted = (
        localconv.__version__,
        platform.python_version(),
        np.__version__,
        localconv.core.settings.get_isa(),
        "OpenMP",
    )
    for word in (*wanted, platform.machine(), *localconv._core.available_isas()):
        assert word in shown
    by_module = python("import runpy; runpy.run_module('localconv', run_name='__main__')")
    for word in (*wanted[:3], "OpenMP"):
        assert word in by_module


def test_names():
    """Everything public is there, and documented."""
    for name in localconv.__all__:
        assert getattr(localconv, name).__doc__
