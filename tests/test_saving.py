"""Saving a file: the old one or the new one, whole, whatever happens; permissions, links, races, full disks."""

import contextlib
import errno
import os
import stat
import threading

import numpy as np
import pytest

from localconv import layers
from localconv.layers.files import atomic

pytest.importorskip("h5py")
only_posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and FIFOs are POSIX's")


@pytest.fixture(params=["npz", "h5"])
def path(request, tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / f"w.{request.param}"


def model(fill, size=30):
    made = layers.Sequential([layers.Dense(size, name="a", input_shape=(size,)), layers.Dense(size, name="b")])
    made.set_weights([np.full(w.shape, fill) for w in made.weights])
    return made


def saved(path, size=30):
    """What all weights in a whole file are."""
    made = model(0, size)
    made.load_weights(path)
    (value,) = np.unique(np.concatenate([w.ravel() for w in made.get_weights()]))
    return value


def names(path):
    return sorted(other.name for other in path.parent.iterdir())


# --- one of several
# -----------------------------------------------------------------------------------------------------


def in_threads(*calls):
    """Runs calls at once; what each raised, or None."""
    start, raised = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number, call):
        start.wait()
        try:
            call()
        except Exception as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that somebody has open: PermissionError")
def test_threads_that_save_to_one_file(path):
    """Models of different sizes, and a thread that reads: every file that anybody sees is one of the two."""
    made = model(1, 30), model(2, 60)
    whole = []
    for one in made:
        one.save_weights(path)
        whole.append(path.read_bytes())

    def read():
        for _ in range(200):
            assert path.read_bytes() in whole

    def save(which):
        for _ in range(20):
            which.save_weights(path)

    assert in_threads(lambda: save(made[0]), lambda: save(made[1]), read) == [None, None, None]
    assert path.read_bytes() in whole
    assert names(path) == [path.name]


def test_one_of_several_gets_a_new_name(path):
    for _ in range(10):
        made = [model(fill) for fill in range(1, 5)]
        raised = in_threads(*[lambda one=one: one.save_weights(path, overwrite=False) for one in made])
        (winner,) = [number for number, error in enumerate(raised) if error is None]
        assert all(type(error) is FileExistsError for error in raised if error is not None), raised
        assert saved(path) == winner + 1
        assert names(path) == [path.name]
        path.unlink()


@only_posix
def test_one_of_several_where_there_are_no_hard_links(path, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", link)
    test_one_of_several_gets_a_new_name(path)


@only_posix
def test_a_name_that_is_taken_meanwhile(path, monkeypatch):
    """Between the first look and the last step."""
    link = os.link

    def late(*arguments, **options):
        path.write_bytes(b"somebody's")
        return link(*arguments, **options)

    monkeypatch.setattr(atomic.os, "link", late)
    with pytest.raises(FileExistsError, match="overwrite"):
        model(1).save_weights(path, overwrite=False)
    assert path.read_bytes() == b"somebody's"
    assert names(path) == [path.name]


# --- what can go wrong
# -------------------------------------------------------------------------------------------------------


def test_whatever_fails_the_old_file_stays(path, monkeypatch):
    """Every system call that is made on the way raises once."""
    made = model(2)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    model(1).save_weights(path)
    for name in ("open", "fsync", "replace", *(["fchmod"] if os.name == "posix" else [])):
        path.chmod(0o640)  # not what a new file is made with
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, name, fail)
            with pytest.raises(OSError, match="No space"):
                made.save_weights(path)
        assert saved(path) == 1, name
        assert names(path) == [path.name], name


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from localconv import layers

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
small = layers.Sequential([layers.Dense(3, input_shape=(3,))])
large = layers.Sequential([layers.Dense(300, input_shape=(300,))])
small.save_weights(path)
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    large.save_weights(path)
except OSError as error:
    alone = sorted(other.name for other in path.parent.iterdir()) == [path.name]
    print(type(error).__name__, path.read_bytes() == before, alone)
"""


@only_posix
@pytest.mark.parametrize("limit", [0, 10_000, 200_000, 361_000])
def test_full_disk(path, limit, python):
    """A file that may not grow above a limit, which is nowhere near, near and just before its end."""
    assert python(FULL_DISK, path, limit) == "OSError True True\n"


@only_posix
def test_interrupted(path, monkeypatch):
    model(1).save_weights(path)

    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                model(2).save_weights(path)
        assert saved(path) == 1
        assert names(path) == [path.name]


def test_model_that_cannot_be_written(path):
    """Refused before there is a file, or while it is written: nothing is left."""
    twice = layers.Sequential([layers.Dense(2, name="d", input_shape=(2,))])
    twice.layers[0].bias.name = twice.layers[0].kernel.name
    nested = layers.Sequential([layers.Dense(2, name="a", input_shape=(2,)), layers.Dense(2, name="a/b")])
    nested.layers[0].kernel.name, nested.layers[1].kernel.name = "b/c", "c"
    for name in ("nul\0", "x" * 70_000):
        with pytest.raises(ValueError, match="names of layers and weights must"):
            layers.Sequential([layers.Dense(2, name=name, input_shape=(2,))]).save_weights(path)
    with pytest.raises(ValueError, match="different names"):
        twice.save_weights(path)
    with pytest.raises(ValueError, match=r"different names|layer 'a/b' cannot be saved"):
        nested.save_weights(path)
    assert names(path) == []


# --- what the target is
# --------------------------------------------------------------------------------------------------------


@only_posix
def test_permissions(path):
    before = os.umask(0o027)
    try:
        model(1).save_weights(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, "a new file has what the umask leaves"
        for mode in (0o600, 0o664, 0o400):
            path.chmod(mode)
            model(2).save_weights(path)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert saved(path) == 2
    finally:
        os.umask(before)


@only_posix
def test_nobody_may_read_a_private_file_while_it_is_written(path, monkeypatch):
    model(1).save_weights(path)
    path.chmod(0o600)
    seen, fsync = [], os.fsync
    monkeypatch.setattr(
        atomic.os, "fsync", lambda descriptor: (seen.append(os.fstat(descriptor).st_mode), fsync(descriptor))
    )
    monkeypatch.setattr(atomic.os, "fchmod", lambda *_: pytest.fail("it was another before"))
    model(2).save_weights(path)
    assert stat.S_IMODE(seen[0]) == 0o600


@only_posix
def test_symbolic_links_stay(path, tmp_path):
    """In a chain, relative and absolute, to a file and to nowhere yet: what they point to is written."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / f"real{path.suffix}"
    middle = tmp_path / f"middle{path.suffix}"
    middle.symlink_to(target)
    path.symlink_to(os.path.join("..", middle.name))
    for fill in (1, 2):
        model(fill).save_weights(path)
        assert path.is_symlink()
        assert middle.is_symlink()
        assert not target.is_symlink()
        assert saved(target) == saved(path) == fill
        assert names(target) == [target.name]
    assert names(path) == [path.name]


@only_posix
@pytest.mark.parametrize("there", [True, False])
def test_symbolic_links_are_names_too(path, there):
    """What may not be overwritten is the name, whatever it points to."""
    target = path.with_name("target")
    if there:
        target.write_bytes(b"")
    path.symlink_to(target)
    with pytest.raises(FileExistsError, match="overwrite"):
        model(1).save_weights(path, overwrite=False)
    assert path.is_symlink()
    assert target.exists() == there
    assert len(names(path)) == 1 + there


@only_posix
def test_planted_links_are_not_followed(path, monkeypatch):
    """The old scheme's names, and the very name that is going to be taken."""
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    path.with_name(f"{path.name}.{os.getpid()}.partial").symlink_to(victim)
    model(1).save_weights(path)
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: "foreseen")
    path.with_name(".foreseen.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        model(2).save_weights(path)
    assert victim.read_bytes() == b"precious"
    assert path.with_name(".foreseen.partial").is_symlink(), "what was planted is not ours to remove"
    assert saved(path) == 1


def test_target_that_is_a_directory(path):
    path.mkdir()
    for overwrite, error in ((True, ValueError), (False, FileExistsError)):
        with pytest.raises(error, match="filepath"):
            model(1).save_weights(path, overwrite=overwrite)
    assert path.is_dir()
    assert names(path) == [path.name]


@only_posix
def test_target_that_is_a_fifo(path):
    """Neither written to, which would wait for a reader, nor replaced; nor read from."""
    os.mkfifo(path)
    with pytest.raises(ValueError, match="filepath must be a file or a new name"):
        model(1).save_weights(path)
    with pytest.raises(ValueError, match="not a regular file"):
        model(1).load_weights(path)
    assert stat.S_ISFIFO(path.stat().st_mode)


@only_posix
def test_links_in_a_circle(path):
    path.symlink_to(path)
    with pytest.raises(OSError, match=r"symbolic link|too many levels"):
        model(1).save_weights(path)
    assert names(path) == [path.name]


@pytest.mark.parametrize("save", ["save", "save_weights"])
def test_arguments_are_checked(save, tmp_path):
    for path in (None, 3, b"w.h5", ["w.h5"]):
        with pytest.raises(TypeError, match=r"filepath must be a str or an os\.PathLike of one, got "):
            getattr(model(1), save)(path)
    for overwrite in ("no", 1, None):
        with pytest.raises(TypeError, match=f"overwrite must be True or False, got {overwrite!r}"):
            getattr(model(1), save)(tmp_path / "w.h5", overwrite)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("save", ["save", "save_weights"])
def test_no_such_folder(save, overwrite, path, monkeypatch):
    """The error names the path as it was given, not the temporary file's."""
    monkeypatch.chdir(path.parent)
    path.with_name("file").write_bytes(b"")
    if save == "save" and path.suffix == ".npz":
        path = path.with_suffix(".keras")
    for folder, kind in (("none", FileNotFoundError), ("file", NotADirectoryError)):
        given = os.path.join(folder, path.name)
        with pytest.raises(kind if os.name == "posix" else OSError) as caught:
            getattr(model(1), save)(given, overwrite)
        assert caught.value.filename == given
        assert str(caught.value).endswith(f": {given!r}")
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_errors_of_renaming_name_the_path(overwrite, path, monkeypatch):
    def refuse(old, new, **options):
        raise OSError(errno.EIO, "input/output error", old, None, new)

    for name in ("replace", "link", "rename"):
        monkeypatch.setattr(atomic.os, name, refuse)
    with pytest.raises(OSError, match="input/output error") as caught:
        model(1).save_weights(path, overwrite)
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert str(caught.value).endswith(f"input/output error: {str(path)!r}")
    assert names(path) == []


@only_posix  # Windows limits whole paths
def test_names_of_any_length(path):
    """The temporary file's name does not follow from the file's."""
    long = path.with_name("x" * (255 - len(path.suffix)) + path.suffix)
    model(1).save_weights(long)
    assert saved(long) == 1


def test_relative_paths(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    model(1).save_weights(path.name)
    assert saved(path) == 1


@only_posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do everything")
def test_folders_with_some_permissions(path):
    """One that may be written but not read is enough;
    one that may not be written is an error that leaves all as it was.
    """
    folder = path.parent
    folder.chmod(0o300)
    try:
        model(1).save_weights(path)
        folder.chmod(0o500)
        with pytest.raises(PermissionError):
            model(2).save_weights(path)
    finally:
        folder.chmod(0o700)
    assert saved(path) == 1
    assert names(path) == [path.name]


@only_posix
@pytest.mark.parametrize(("error", "raises"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_folders_that_cannot_be_synchronized(path, monkeypatch, error, raises):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) if raises else contextlib.nullcontext():
        model(1).save_weights(path)
    assert saved(path) == 1


@only_posix
def test_file_and_folder_are_written_to_the_disk(path, monkeypatch):
    """The file before its name is changed, the folder afterwards."""
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: (steps.append(stat.S_IFMT(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(atomic.os, "replace", lambda *names: (steps.append("replace"), replace(*names)))
    model(1).save_weights(path)
    assert steps == [stat.S_IFREG, "replace", stat.S_IFDIR]


def test_as_on_windows(path, monkeypatch):
    """Where there is neither fchmod nor a folder that can be opened, and rename does not replace."""

    def rename(source, target, rename=os.rename, there=os.path.lexists):
        if there(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists")
        rename(source, target)

    monkeypatch.setattr(atomic, "POSIX", False)
    monkeypatch.setattr(atomic.os, "rename", rename)
    for name in ("fchmod", "link"):
        monkeypatch.delattr(atomic.os, name, raising=False)
    model(1).save_weights(path, overwrite=False)
    model(2).save_weights(path)
    for look in (os.path.lexists, lambda _: False):  # the second: it was not there yet
        monkeypatch.setattr(atomic.os.path, "lexists", look)
        with pytest.raises(FileExistsError, match="overwrite"):
            model(3).save_weights(path, overwrite=False)
    assert saved(path) == 2
    assert names(path) == [path.name]


@only_posix
def test_what_follows_a_reservation_that_fails(path, monkeypatch):
    """Without hard links the name is reserved by an empty file; if the file cannot be renamed to it, that goes too."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", refuse)
    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(OSError, match="not permitted"):
        model(1).save_weights(path, overwrite=False)
    assert names(path) == []
