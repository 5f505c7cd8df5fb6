"""Kernels in files: what may be one, and that tasks take no more than their rows."""

import contextlib
import dataclasses
import os
import pickle
import random
import warnings

import dask
import dask.array as da
import dask_cases
import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import Case, Gradient

import localconv
import localconv.dask as ld
from localconv.dask import KernelFile

CASE = Case("local_conv2d", (9, 7), (3, 2), 4, 4, 6, strides=(2, 1), padding=((7, 1), (0, 3)), groups=2, exact=False)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPE = CASE.shapes()[1]
# One row of the output.
ROW = SHAPE[0] // CASE.out[0] * SHAPE[1] * SHAPE[2]
ENDINGS = ["npy", "zarr"]


@pytest.fixture(params=ENDINGS)
def ending(request):
    if request.param == "zarr":
        pytest.importorskip("zarr", reason="Zarr arrays need zarr: pip install zarr")
    return request.param


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr", reason="Zarr arrays need zarr: pip install zarr")


def save(path, array):
    """The array in a .npy file, or a Zarr array whose chunks are no bands."""
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        import zarr

        target = zarr.open_array(
            str(path), mode="w", shape=array.shape, chunks=(5, *array.shape[1:]), dtype=array.dtype
        )
        target[...] = array


def check_both(kernel, plain, x=None):
    """The forward pass and the gradient for the input, of a kernel in a file, and what one call makes of it plain."""
    x = CASE.arrays()[0] if x is None else x
    gradient = Gradient(CASE, "input").arrays()[1].astype(x.dtype)
    options = CASE.options()
    result = ld.local_conv2d(da.from_array(x, chunks=(3, 4, 5, 3)), kernel, **options)
    oracle.assert_same_bits(result.compute(), localconv.local_conv2d(x, plain, **options))
    rows = max(1, kernel.part_bytes // (kernel.nbytes // CASE.out[0]))
    assert result.chunks[1] == (rows,) * (CASE.out[0] // rows) + (CASE.out[0] % rows,) * (CASE.out[0] % rows > 0)
    found = ld.grad.local_conv2d_input(x.shape, kernel, da.from_array(gradient, chunks=(2, 3, 4, 5)), **options)
    wide = plain.dequantize() if isinstance(plain, localconv.QuantizedKernel) else plain.astype(x.dtype)
    Gradient(CASE, "input").check(found.compute(), (wide, gradient))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_kernels_of_every_type(tmp_path, ending, dtype, rows):
    kernel = CASE.arrays()[1].astype(dtype)
    save(tmp_path / f"k.{ending}", kernel)
    file = KernelFile(tmp_path / f"k.{ending}", part_bytes=rows * ROW * kernel.itemsize)
    assert (file.shape, file.ndim, file.nbytes) == (kernel.shape, 3, kernel.nbytes)
    assert file.dtype.newbyteorder("=") == kernel.dtype.newbyteorder("=")  # Zarr gives back the native one
    check_both(file, kernel, CASE.arrays()[0].astype("float64" if dtype == "float64" else "float32"))


def test_bfloat16(tmp_path, ending):
    """In a file that has no name for it."""
    kernel = CASE.arrays()[1].astype(BFLOAT16)
    save(tmp_path / f"k.{ending}", kernel if ending == "npy" else kernel.view(np.uint16))
    if ending == "npy":
        with pytest.raises(TypeError, match=r"kernel of .* or int8, got \|V2: with dtype=ml_dtypes.bfloat16 it may be"):
            KernelFile(tmp_path / "k.npy")
    file = KernelFile(tmp_path / f"k.{ending}", dtype=BFLOAT16, part_bytes=4 * ROW)
    assert file.dtype == BFLOAT16
    check_both(file, kernel)
    np.testing.assert_array_equal(da.from_array(file, chunks=(7, -1, -1)).compute(), kernel)


def test_int8(tmp_path, ending):
    small = localconv.quantize(CASE.arrays()[1])
    save(tmp_path / f"k.{ending}", small.values)
    save(tmp_path / f"s.{ending}", small.scales)
    file = KernelFile(tmp_path / f"k.{ending}", scales=tmp_path / f"s.{ending}", part_bytes=2 * ROW)
    assert file.nbytes == small.nbytes
    check_both(file, small)
    with pytest.raises(TypeError, match="a kernel of int8 needs its scales, got scales=None"):
        KernelFile(tmp_path / f"k.{ending}")
    save(tmp_path / f"t.{ending}", small.scales[:-1])
    with pytest.raises(ValueError, match=r"^scales must hold float32 of shape .* for a kernel of int8 of shape"):
        KernelFile(tmp_path / f"k.{ending}", scales=tmp_path / f"t.{ending}")
    save(tmp_path / f"f.{ending}", CASE.arrays()[1])
    with pytest.raises(TypeError, match="scales belong to a kernel of int8, got one of float32"):
        KernelFile(tmp_path / f"f.{ending}", scales=tmp_path / f"s.{ending}")


@pytest.mark.parametrize("function", dask_cases.FUNCTIONS)
def test_every_rank(tmp_path, function):
    rng = random.Random(function)
    case = dataclasses.replace(dask_cases.operations.draw_case(rng, function), exact=False, bias="full")
    drawn = dask_cases.in_chunks(rng, case)
    x, kernel, bias, _ = drawn.arrays()
    np.save(tmp_path / "k.npy", kernel)
    result = getattr(ld, function)(drawn.x, KernelFile(tmp_path / "k.npy", part_bytes=1), bias=bias, **case.options())
    oracle.assert_same_bits(result.compute(), case.run(localconv, (x, kernel, bias)))


def test_a_map_is_read_in_place(tmp_path):
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    rows = KernelFile(tmp_path / "k.npy").rows(2, 5)
    while rows.base is not None and not isinstance(rows, np.memmap):
        rows = rows.base
    assert isinstance(rows, np.memmap)


def test_files_travel_as_their_paths(tmp_path):
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    file = KernelFile(tmp_path / "k.npy", part_bytes=1000)
    message = pickle.dumps(file)
    assert len(message) < 1000
    again = pickle.loads(message)
    assert (again.path, again.shape, again.part_bytes, repr(again)) == (file.path, file.shape, 1000, repr(file))
    np.testing.assert_array_equal(again.rows(0, 3), CASE.arrays()[1][:3])


def test_a_name_of_its_own_for_every_result(tmp_path):
    """What was computed of a file is not what a scheduler may give for what is in it now."""
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    file, x = KernelFile(tmp_path / "k.npy"), da.from_array(CASE.arrays()[0])
    assert ld.local_conv2d(x, file, **CASE.options()).name != ld.local_conv2d(x, file, **CASE.options()).name


def fortran(path):
    np.save(path, np.asfortranarray(np.ones(SHAPE, np.float32)))


def archive(path):
    with path.open("wb") as file:
        np.savez(file, kernel=np.ones(SHAPE))


def cut_short(path):
    np.save(path, np.ones(SHAPE))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("write", "error", "words"),
    [
        (fortran, ValueError, r"k\.npy must be in C order, got Fortran order: np.save"),
        (archive, ValueError, r"k\.npy must be a .npy file, or a Zarr array, got an archive"),
        (cut_short, ValueError, r"k\.npy must be a whole .npy file of numbers"),
        (lambda path: path.write_bytes(b""), ValueError, r"k\.npy must be a whole .npy file"),
        (lambda path: path.write_bytes(b"text, and no array"), ValueError, r"k\.npy must be a whole .npy file"),
        (lambda path: np.save(path, np.array([{}])), ValueError, r"k\.npy must be a whole .npy file"),
        (lambda path: np.save(path, np.ones((3, 4))), ValueError, r"kernel of 3 axes.*got shape \(3, 4\)"),
        (lambda path: np.save(path, np.ones(SHAPE, int)), TypeError, "kernel of float16.* or int8, got int64"),
        (lambda path: None, FileNotFoundError, r"k\.npy"),
    ],
)
def test_what_is_no_kernel(tmp_path, write, error, words):
    write(tmp_path / "k.npy")
    with pytest.raises(error, match=words):
        KernelFile(tmp_path / "k.npy")


DAMAGES = {
    "an open bracket": (b"(4, 3, 2)", b"(4, 3, 2 "),
    "an open brace": (b"}", b" "),
    "an open string": (b"'shape'", b"'shape "),
    "no numbers": (b"(4, 3, 2)", b"(0x, 3, )"),
    "a negative length": (b"(4, 3, 2)", b"(-4, 3,2)"),
    "a length of nine digits": (b"(4, 3, 2), }      ", b"(999999999, 3, 2),}"[:18]),
    "a length beyond any": (b"(4, 3, 2), }" + b" " * 40, b"(" + b"9" * 41 + b", 3, 2), }"[:10]),
    "deep nesting": (b"(4, 3, 2), }" + b" " * 40, b"(" * 52),
    "another key": (b"'shape'", b"'shope'"),
    "no dtype": (b"<f4", b"<q7"),
    "another magic": (b"\x93NUMPY", b"PK\x03\x04ab"),
    "another version": (b"\x01\x00v", b"\x09\x00v"),
}


@pytest.mark.parametrize("of", ["kernel", "scales"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_headers(tmp_path, damage, of):
    """Whatever NumPy's parser, or Python's, raises of one, it is a ValueError that names the file."""
    old, new = DAMAGES[damage]
    values, file = np.ones((4, 3, 2), np.float32), tmp_path / "damaged.npy"
    if of == "scales":
        old, new = (part.replace(b"(4, 3, 2), }", b"(4, 2), }   ") for part in (old, new))
        old, new = (part.replace(b"(4, 3, 2)", b"(4, 2), }") for part in (old, new))
        values = values[:, 0]
        np.save(tmp_path / "kernel.npy", np.ones((4, 3, 2), np.int8))
    np.save(file, values)
    content = file.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=r"damaged\.npy must be a (whole )?\.npy file"):
        KernelFile(file) if of == "kernel" else KernelFile(tmp_path / "kernel.npy", scales=file)


def test_mutated_headers(tmp_path):
    """Bytes of a header at random: a kernel, or one of the errors that say so."""
    rng, file = np.random.default_rng(0), tmp_path / "damaged.npy"
    np.save(file, np.ones((4, 3, 2), np.float32))
    content = file.read_bytes()
    pieces = b"( ) { } [ ] ' \" , - 0 9 \\ # L ( \xff \n \0".split(b" ")
    for _ in range(500):
        data = bytearray(content)
        for at in rng.integers(0, 128, rng.integers(1, 5)):
            data[at : at + 1] = pieces[rng.integers(len(pieces))] if rng.random() < 0.7 else rng.bytes(1)
        file.write_bytes(data)
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")  # of headers that Python 2 might have written
            try:
                assert KernelFile(file).ndim == 3
            except TypeError as error:
                assert str(error).startswith("path must be of a kernel of")  # noqa: PT017  # or none at all


def test_a_file_cut_short_is_not_filled_up(tmp_path):
    """Storing into it is refused, and leaves it as it is."""
    file = tmp_path / "kernel.npy"
    np.save(file, np.ones((4, 3, 2), np.float32))
    kernel = KernelFile(file)
    file.write_bytes(file.read_bytes()[:-8])
    size = file.stat().st_size
    with pytest.raises(ValueError, match=r"must be a whole \.npy file"):
        kernel[0:1] = np.ones((1, 3, 2), np.float32)
    assert file.stat().st_size == size


def test_wrong_arguments(tmp_path):
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    with pytest.raises(TypeError, match=r"^path must be a path, got int"):
        KernelFile(3)
    with pytest.raises(ValueError, match=r"^part_bytes must be at least 1, got 0"):
        KernelFile(tmp_path / "k.npy", part_bytes=0)
    with pytest.raises(TypeError, match=r"^dtype must be that of the file, float32, or .*got float64"):
        KernelFile(tmp_path / "k.npy", dtype="float64")
    file = KernelFile(tmp_path / "k.npy")
    with pytest.raises(ValueError, match=r"^kernel must have shape"):
        ld.local_conv2d(da.ones((1, 9, 7, 4)), file, **(CASE.options() | {"padding": "valid", "output_shape": None}))


def test_zarr_is_asked_for_where_it_is_needed(python, tmp_path):
    (tmp_path / "k.zarr").mkdir()
    code = (
        "import sys; sys.modules['zarr'] = None\nimport localconv.dask\n"
        "try: localconv.dask.KernelFile('k.zarr')\nexcept ImportError as error: print(error)"
    )
    assert "needs zarr" in python(code)
    assert "pip install zarr" in python(code)


@pytest.mark.parametrize("change", [cut_short, lambda path: np.save(path, np.ones((3, 2, 1), np.float32)), fortran])
def test_a_file_that_changed(tmp_path, change):
    """Found by the task: the file was right when the graph was built."""
    np.save(tmp_path / "k.npy", CASE.arrays()[1])
    result = ld.local_conv2d(da.from_array(CASE.arrays()[0]), KernelFile(tmp_path / "k.npy"), **CASE.options())
    change(tmp_path / "k.npy")
    with pytest.raises(ValueError, match=r"k\.npy (has changed: it held float32 of shape .*, now|must be)"):
        result.compute()


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", BFLOAT16], ids=str)
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_gradients_are_stored_part_by_part(tmp_path, ending, dtype, scheduler):
    drawn = dask_cases.in_chunks(random.Random(8), CASE)
    gradient = drawn.gradient.rechunk({1: 2, 3: -1})
    result = ld.grad.local_conv2d_kernel(drawn.x, SHAPE, gradient, **CASE.options())
    assert len(result.chunks[0]) > 1
    positions = {"positions": result.chunks[0][0]} if ending == "zarr" else {}
    file = KernelFile.create(tmp_path / f"g.{ending}", SHAPE, dtype, **positions)
    np.testing.assert_array_equal(file[...], np.zeros(SHAPE))
    with dask.config.set(scheduler=scheduler):
        da.store(result, file, lock=False)
    assert file[...].dtype == dtype
    np.testing.assert_array_equal(file[...], result.compute().astype(dtype))


def test_what_is_created_opens_again(tmp_path, ending):
    file = KernelFile.create(tmp_path / f"k.{ending}", SHAPE, BFLOAT16, part_bytes=77)
    assert (file.shape, file.dtype, file.part_bytes) == (SHAPE, BFLOAT16, 77)
    assert KernelFile(file.path, dtype=BFLOAT16).shape == SHAPE


def test_zarr_takes_whole_chunks_only(tmp_path, zarr):
    """Two tasks that write to one chunk could each lose what the other wrote."""
    file = KernelFile.create(tmp_path / "g.zarr", (10, 6, 4), positions=4)
    for chunks in ((5, -1, -1), (4, 3, -1), (4, -1, 2)):
        with pytest.raises(ValueError, match=r"g\.zarr has chunks of \(4, 6, 4\), of which only whole ones.*rechunk"):
            da.store(da.ones((10, 6, 4), chunks=chunks), file)
    da.store(da.ones((10, 6, 4), chunks=(8, -1, -1)), file)
    assert (file[...] == 1).all()
    assert zarr.open_array(file.path, mode="r").chunks == (4, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("k.txt", SHAPE), ValueError, r"path must end in .npy or .zarr, got .*k\.txt"),
        (("there.npy", SHAPE), FileExistsError, r"path must name nothing that exists, got .*there\.npy"),
        (("k.npy", (3, 4)), ValueError, r"shape must be 3 ints, got \(3, 4\)"),
        (("k.npy", (3, 4, 0)), ValueError, "shape must be at least 1"),
        (("k.npy", 3), TypeError, "shape must be a sequence of 3 ints"),
        (("k.npy", SHAPE, "int8"), TypeError, "dtype must be one of floats to be stored into"),
        (("k.npy", SHAPE, "int32"), TypeError, "kernel of float16.*got int32"),
    ],
)
def test_what_cannot_be_created(tmp_path, arguments, error, words):
    (tmp_path / "there.npy").write_bytes(b"mine")
    with pytest.raises(error, match=words):
        KernelFile.create(tmp_path / arguments[0], *arguments[1:])
    assert (tmp_path / "there.npy").read_bytes() == b"mine"
    assert not (tmp_path / "k.npy").exists()


def test_positions_are_of_zarr_arrays(tmp_path):
    with pytest.raises(ValueError, match=r"positions are of the chunks of a Zarr array, got 4 for a \.npy file"):
        KernelFile.create(tmp_path / "k.npy", SHAPE, positions=4)


# --- what a file is stored into with ----------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    return KernelFile.create(tmp_path / "kernel.npy", (6, 4, 3))


@pytest.mark.parametrize(
    "value",
    [np.ones((6, 4, 3), int), np.ones((6, 4, 3), complex), np.ma.ones((6, 4, 3)), np.full((6, 4, 3), "a")],
    ids=["int", "complex", "masked", "str"],
)
def test_only_floats_are_stored(made, value):
    with pytest.raises(TypeError, match="what is stored"):
        made[:] = value
    assert not made[:].any()


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        (slice(None), (12, 4, 3)),
        (slice(6, 12), (6, 4, 3)),
        (slice(6, 12), (1, 4, 3)),
        ((slice(None), slice(0, 8)), (6, 8, 3)),
        (slice(0, 6, 2), (3, 4, 3)),
        ((slice(None),) * 4, (6, 4, 3)),
        (0, (4, 3)),
    ],
)
def test_only_slices_of_the_file_are_stored_into(made, index, shape):
    with pytest.raises(ValueError, match=r"kernel\.npy"):
        made[index] = np.ones(shape, np.float32)
    assert not made[:].any()


def test_more_than_a_file_holds_is_not_stored(made):
    more = da.ones((7, 4, 3), chunks=((3, 3, 1), 4, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"kernel\.npy"):
        da.store(more, made, lock=False, scheduler="sync")


def test_ellipsis(made):
    made[...] = np.ones((6, 4, 3), np.float32)
    assert (made[:] == 1).all()


def test_int8_is_not_stored_into(tmp_path):
    small = localconv.quantize(np.ones((6, 4, 3), np.float32))
    np.save(tmp_path / "values.npy", small.values)
    np.save(tmp_path / "scales.npy", small.scales.astype(">f4"))
    file = KernelFile(tmp_path / "values.npy", scales=tmp_path / "scales.npy")
    with pytest.raises(TypeError, match="int8"):
        file[:] = np.ones((6, 4, 3), np.float32)
    np.testing.assert_array_equal(file.rows(0, 6).dequantize(), small.dequantize())


def test_shards_are_stored_whole(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    if not hasattr(zarr, "create_array"):
        pytest.skip("this zarr has no shards")
    zarr.create_array(tmp_path / "s.zarr", shape=(12, 4, 3), dtype="f4", chunks=(2, 4, 3), shards=(6, 4, 3))
    file = KernelFile(tmp_path / "s.zarr")
    with pytest.raises(ValueError, match=r"\(6, 4, 3\)"):
        file[2:4] = np.ones((2, 4, 3), np.float32)
    file[6:] = np.ones((6, 4, 3), np.float32)
    assert (file[:].sum(axis=(1, 2)) == [0] * 6 + [12] * 6).all()


@pytest.mark.parametrize(
    "more", [{"part_bytes": 0}, {"part_bytes": "1"}, {"dtype": "no type"}, {"dtype": np.int8}], ids=str
)
@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_nothing_is_left_of_what_was_refused(tmp_path, name, more):
    with pytest.raises((TypeError, ValueError)):
        KernelFile.create(tmp_path / name, (6, 4, 3), **more)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve a file's bytes")
def test_no_room(tmp_path):
    with pytest.raises(OSError, match="can be made") as found:
        KernelFile.create(tmp_path / "a.npy", (2**20, 2**10, 2**20))
    assert found.value.filename == str(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("first", "last"), [(-5, 3), (4, 99), (5, 3), (3, 3)])
def test_positions_that_there_are(made, first, last):
    with pytest.raises(ValueError, match="positions must be among the 6"):
        made.rows(first, last)


def test_no_array_of_numpy(made):
    with pytest.raises(TypeError, match=r"\.rows"):
        np.asarray(made)
    with pytest.raises(TypeError, match=r"localconv\.dask"):
        localconv.local_conv1d(np.ones((1, 8, 4), np.float32), made, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "kernel.npy")
    with pytest.raises(ValueError, match="something else"):
        KernelFile(tmp_path / "kernel.npy")


@pytest.mark.parametrize("content", ["", "{", '{"zarr_format": 3, "node_type": "group"}', '{"zarr_format": 3}'])
def test_folders_that_are_no_zarr_array(tmp_path, content):
    pytest.importorskip("zarr", reason="zarr is not installed")
    if content:
        (tmp_path / "zarr.json").write_text(content, encoding="utf-8")
    with pytest.raises((FileNotFoundError, ValueError), match=tmp_path.name):
        KernelFile(tmp_path)


def test_advice_of_other_functions_is_not_passed_on(tmp_path):
    (tmp_path / "text.npy").write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match=r"whole \.npy file") as found:
        KernelFile(tmp_path / "text.npy")
    assert "allow_pickle" not in str(found.value)


@pytest.mark.parametrize("value", ["k.npy", np.ones((6, 4, 3), np.float32), localconv.quantize(np.ones((6, 4, 3)))])
def test_kernels_that_are_neither(value):
    with pytest.raises(TypeError, match=r"kernel must be a dask array or a KernelFile, got .*: "):
        ld.local_conv1d(da.ones((1, 8, 4), dtype=np.float32), value, 3)
