"""Plain files: private scratch folders that clean up after the dead, and durable publishing.

Nothing here ever touches a live database.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import DiskFullError, InputError, RefusedError, translated
from .sqlite import SIDECAR_SUFFIXES, sidecar

_LOCK_SUFFIX = ".lock"


def create_private_folder(path: Path) -> Path:
    """Create ``path`` and its missing parents as mode 0700; an existing folder is left as it is."""
    missing = [each for each in path.parents if not each.exists()]
    for each in (*reversed(missing), path):  # mkdir(parents=True) would give the parents the usual mode
        each.mkdir(mode=0o700, exist_ok=True)
    return path


def create_private_file(path: Path) -> int:
    """Create ``path`` exclusively with mode 0600 and return its descriptor.

    Raises:
        FileExistsError: something is there already, a dangling link included.
    """
    return _create_private(path, None)


def _create_private(name: str | Path, folder: int | None) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Make everything written to the file system of an open folder durable, in one go.

    Raises:
        OSError: the disk failed (Linux 5.8 and later say so).
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        os.sync()
    elif library.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def file_lock(path: Path, *, blocking: bool = True, shared: bool = False) -> Iterator[bool]:
    """Hold a lock on a lock file, exclusive or shared with others; yields whether it was got.

    The kernel frees it when the process ends, however it ends.
    """
    create_private_folder(path.parent)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if _is_at(descriptor, path):
                yield True
                return
            # A sweeper removed the file between the opening and the locking: lock the new one.
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def scratch_folder(root: Path, token: str) -> Iterator[Path]:
    """A private folder for one piece of work, removed on every way out.

    A lock file beside it is held meanwhile, so that :func:`sweep_scratch` knows the living from
    the dead, also after ``kill -9`` and when a process id is used again.
    """
    create_private_folder(root)
    folder = root / token
    lock = root / (token + _LOCK_SUFFIX)
    with file_lock(lock):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove_scratch(folder, lock)


def is_scratch_in_use(root: Path, token: str) -> bool:
    """Whether the process that owns this scratch folder still lives."""
    lock = root / (token + _LOCK_SUFFIX)
    if not lock.exists():
        return False
    with file_lock(lock, blocking=False) as is_ours:
        return not is_ours


def sweep_scratch(root: Path) -> list[str]:
    """Remove the scratch folders of dead processes; returns their tokens."""
    swept: list[str] = []
    if not root.is_dir():
        return swept
    for lock in root.glob("*" + _LOCK_SUFFIX):
        token = lock.name.removesuffix(_LOCK_SUFFIX)
        with file_lock(lock, blocking=False) as is_ours:
            if is_ours and _remove_scratch(root / token, lock):
                swept.append(token)
    return swept


def _remove_scratch(folder: Path, lock: Path) -> bool:
    """Remove a scratch folder whose lock this process holds; what cannot be removed now is left to a sweep.

    The sweep finds a folder by its lock file, so that goes last, and only when the folder is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        return False
    with suppress(OSError):
        lock.unlink(missing_ok=True)
    return True


def require_free_space(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Refuse early when ``folder``'s file system cannot hold ``needed_bytes`` more.

    Raises:
        DiskFullError: with both figures.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"There is not enough free disk space for {purpose}: {needed_bytes:,} bytes are needed, "
            f"{free_bytes:,} are free.",
            f"Free {needed_bytes - free_bytes:,} bytes on the disk of {folder}, or use a folder on another disk.",
        )


def refuse_existing(target: Path) -> None:
    """Refuse a target that exists, or that SQLite would take for a part of another, or another for a part of it.

    Raises:
        RefusedError: nothing was changed.
    """
    if os.path.lexists(target):
        raise RefusedError(f"{target} exists already; it was not touched.", "Choose a new file name.")
    owner = _database_of_sidecar(target)
    if owner is not None:
        raise RefusedError(
            f"{target.name} is the name of a file that SQLite keeps beside {owner}, and deletes.",
            "Choose another name.",
        )
    for suffix in SIDECAR_SUFFIXES:
        if os.path.lexists(sidecar(target, suffix)):
            raise RefusedError(
                f"{sidecar(target, suffix)} exists; SQLite would replay it into the new file.",
                "Move that left-over file away, or choose another name.",
            )


def _database_of_sidecar(path: Path) -> Path | None:
    """The existing file that SQLite would take ``path`` for a part of."""
    for suffix in SIDECAR_SUFFIXES:
        owner = path.with_name(path.name.removesuffix(suffix) or path.name)
        if owner != path and os.path.lexists(owner):
            return owner
    return None


def remove_if_there(path: Path) -> None:
    """Remove a private file; one that is gone is fine, also on a disk that fails.

    Raises:
        OSError: it is still there.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if os.path.lexists(path):
            raise


def publish_new_file(temporary: Path, target: Path, *, folder: int | None = None) -> None:
    """Give a complete, synced file its final name, durably, never over an existing one.

    Both are on one file system. The link is atomic: the target is whole or absent. ``folder`` is an open
    descriptor of the target's folder: it is written to then, whatever has taken the place of its path.

    Raises:
        RefusedError: the target exists. DiskFullError, BackupError: from the disk; the target is
            taken back, since its name may not be durable.
    """
    name = _Name(target, folder)
    with translated(f"publishing {target.name}"):
        if not _link_new(temporary, name):
            _rename_new(temporary, name)
        with _taken_back_on_error(name):
            temporary.unlink(missing_ok=True)
            name.sync()


def publish_linked_file(source: Path, target: Path, *, folder: int | None = None) -> bool:
    """:func:`publish_new_file` that leaves ``source`` where it is, as another name of the same file.

    False when the file system has no hard links; nothing was done then.
    """
    name = _Name(target, folder)
    with translated(f"publishing {target.name}"):
        if not _link_new(source, name):
            return False
        with _taken_back_on_error(name):
            name.sync()
    return True


@dataclass(frozen=True)
class _Name:
    """A name to be given: a path, or the last part of one in an open folder."""

    path: Path
    folder: int | None

    @property
    def last(self) -> str | Path:
        return self.path if self.folder is None else self.path.name

    def sync(self) -> None:
        if self.folder is None:
            sync_folder(self.path.parent)
        else:
            os.fsync(self.folder)

    def remove(self) -> None:
        os.unlink(self.last, dir_fd=self.folder)

    def is_taken(self) -> RefusedError:
        return RefusedError(f"{self.path} exists already; it was not touched.", "Choose a new file name.")


def _link_new(source: Path, name: _Name) -> bool:
    """Link a file to a new name; False where that cannot be: no hard links, or another mount of the same disk."""
    try:
        os.link(source, name.last, dst_dir_fd=name.folder, follow_symlinks=False)
    except FileExistsError as exc:
        raise name.is_taken() from exc
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        return False
    return True


@contextmanager
def _taken_back_on_error(name: _Name) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            name.remove()
        raise


def _rename_new(temporary: Path, name: _Name) -> None:
    try:
        os.close(_create_private(name.last, name.folder))  # reserves the name
    except FileExistsError as exc:
        raise name.is_taken() from exc
    try:
        os.replace(temporary, name.last, dst_dir_fd=name.folder)
    except OSError:
        with suppress(OSError):
            name.remove()
        raise


def write_synced(path: Path, content: bytes) -> None:
    """Create the private file ``path`` with ``content``, durable when this returns.

    Raises:
        DiskFullError, BackupError: from the disk; nothing is left behind.
    """
    with translated(f"writing {path.name}"):
        descriptor = create_private_file(path)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def replace_synced(path: Path, content: bytes) -> None:
    """Make ``content`` the private file ``path``, durably: readers see the old or the new one, whole.

    Raises:
        DiskFullError, BackupError: from the disk; the old file stands and no other is left behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    write_synced(draft, content)
    with translated(f"writing {path.name}"):
        try:
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The content of a small plain file; a FIFO or a device is never waited for.

    Raises:
        NotFoundError: it is not there. InputError: it is no plain file, or larger than
            ``limit_bytes``. BackupError: from the disk.
    """
    with translated(f"reading {path.name}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path.name} is not a plain file.", "Give the path of a file.")
            content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise InputError(f"{path.name} is larger than {limit_bytes:,} bytes.", "It cannot be what was asked for.")
    return content
