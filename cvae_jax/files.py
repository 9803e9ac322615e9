"""Files and folders that appear whole or not at all, and locks that the system releases when their process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from cvae_jax.errors import LockedError

try:
    import fcntl
except ImportError:  # Only POSIX systems have it.
    fcntl = None

# No other program's files begin like this, so that a sweep removes none of them.
_REMOVALS = 20
_UNFINISHED = ".cvae_jax-unfinished-"
_SECONDS_WITHOUT_LOCKS = 24 * 3600.0


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: never half a file.

    Content and name reach the disk before this returns. Temporary files that killed processes left in the folder are
    removed.

    Args:
      path: the file; its folder is made if need be.
      write: fills the file it is called with, whose name has the suffix of `path`.

    Raises:
      OSError: if there is no room, or no permission; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    temporary, handle = _reserve(
        lambda: tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED, suffix=path.suffix)
    )
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """A new folder that becomes `path` when the block ends, and is removed when it fails.

    Args:
      path: must not exist; its parent is made if need be.

    Yields:
      A folder beside `path`.

    Raises:
      OSError: if `path` has come to exist, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)

    def make() -> tuple[int, str]:
        name = tempfile.mkdtemp(dir=path.parent, prefix=_UNFINISHED)
        return os.open(name, os.O_RDONLY), name

    temporary, handle = _reserve(make)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _to_disk(file)
        temporary.chmod(0o777 & ~_umask())
        os.rename(temporary, path)
        _to_disk(path.parent)
    finally:
        # A thread of a library may write into the folder while it is removed.
        for _ in range(_REMOVALS):
            shutil.rmtree(temporary, ignore_errors=True)
            if not temporary.exists():
                break
            time.sleep(0.1)
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that ended before they could rename it left in a folder.

    What is being written is locked. Where there are no locks, a day without a change tells what is abandoned.
    """
    for temporary in folder.glob(f"{_UNFINISHED}*"):
        # It may be renamed meanwhile, or be another user's.
        with contextlib.suppress(OSError):
            is_folder = temporary.is_dir()
            handle = os.open(temporary, os.O_RDONLY if is_folder else os.O_RDWR)
            try:
                if _is_abandoned(handle):
                    shutil.rmtree(temporary) if is_folder else temporary.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def locked(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock, a file that other processes cannot lock until this one leaves the block or ends in any way.

    Args:
      path: the file. It is removed at the end; what a killed process leaves is no obstacle.
      holder: who holds it, for the others.

    Raises:
      LockedError: if another process holds it.
      OSError: if the file cannot be written.

    Warns:
      UserWarning: where the system, or the file system, has no locks: nothing is held then.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(handle):
                text = os.read(handle, 1000).decode(errors="replace")
                os.close(handle)
                raise LockedError(text)
        except OSError as error:
            warnings.warn(
                f"{path} cannot be locked ({error.strerror}): nothing keeps a second process away",
                stacklevel=3,
            )
        # Another process may have removed the file between its opening and its lock.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            break
        os.close(handle)
    try:
        os.truncate(handle, 0)
        os.write(handle, holder.encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock an open file until it is closed, unless another process has locked it.

    Raises:
      OSError: where there are no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no file locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_abandoned(handle: int) -> bool:
    try:
        return _try_lock(handle)
    except OSError:
        return time.time() - os.fstat(handle).st_mtime > _SECONDS_WITHOUT_LOCKS


def _reserve(make: Callable[[], tuple[int, str]]) -> tuple[Path, int]:
    """Make a temporary file or folder and lock it: its path and its open handle.

    A sweep of another process may come between the two; then another one is made.
    """
    while True:
        handle, name = make()
        try:
            ours = _try_lock(handle)
        except OSError:
            ours = True
        if ours and os.path.exists(name):
            return Path(name), handle
        os.close(handle)


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot do this for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def cache_dir() -> Path:
    """The folder of packed datasets and compiled programs, below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cvae_jax"
