"""The state folder: whether it can hold a store, its lock, and its ballast. Touches that folder and /proc alone."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from failover.errors import StoreFull, StoreUnusable

BALLAST = "ballast"
BALLAST_BYTES = 1 << 20  # a handover's commits grow the files by less than a tenth of this
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MAKE_ROOM = "make room on that file system; the daemon goes on by itself then"

# Locks and durability are weak or far away there, and their clients may live on several hosts.
_NETWORK = (
    "9p afs beegfs ceph cifs coda davfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb3 smbfs "
    "fuse.beegfs fuse.ceph fuse.ceph-fuse fuse.curlftpfs fuse.davfs fuse.davfs2 fuse.gcsfuse fuse.glusterfs "
    "fuse.goofys fuse.juicefs fuse.mfs fuse.rclone fuse.s3fs fuse.seaweedfs fuse.smbnetfs fuse.sshfs"
)
NETWORK = frozenset(_NETWORK.split())


def prepare(folder: Path) -> None:
    """Make the folder (mode 0700) if it is missing, and see that it is one and writable. Raises StoreUnusable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(f"{folder}: not writable for user id {os.geteuid()}", _own(folder))


def writable(path: Path) -> None:
    """See that the file may be written: SQLite itself would open it for reading without a word."""
    if path.is_file() and not os.access(path, os.W_OK):
        raise StoreUnusable(f"{path}: not writable for user id {os.geteuid()}", _own(path))


def unusable(path: Path, error: OSError) -> StoreUnusable | StoreFull:
    """The system's error about a path of the state folder, as one of ours."""
    if error.errno in NO_ROOM:
        return StoreFull(f"{path}: no room ({error.strerror})", MAKE_ROOM)
    return StoreUnusable(f"{path}: {error.strerror}", _own(path))


def _own(path: Path) -> str:
    return f"let the daemon's user own and write it (chown -R USER {path}), or set another folder under `state:`"


def network_file_system(folder: Path) -> str | None:
    """The folder's file system type if it is a network one, else None; also None where /proc does not tell."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        finally:
            os.close(descriptor)
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    kind = file_system(mounts, info)
    return kind if kind in NETWORK else None


def file_system(mountinfo: str, fdinfo: str) -> str | None:
    """The file system type of an open file, from /proc/self/mountinfo and its /proc/self/fdinfo (proc(5))."""
    ids = [line.split()[1] for line in fdinfo.splitlines() if line.startswith("mnt_id:")]
    for line in mountinfo.splitlines():
        words = line.split()
        if ids and words and words[0] == ids[0] and "-" in words:
            return words[words.index("-") + 1]
    return None


class FolderLock:
    """An flock on the folder itself, so that nobody can delete what is locked. Children do not inherit it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take the lock if it is free, without waiting; whether we have it now. Raises StoreUnusable."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unusable(self._folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise unusable(self._folder, error) from error
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock up. Not an error when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def keep_ballast(folder: Path) -> None:
    """See that the folder holds a file whose room can be given up in need. Raises StoreFull, StoreUnusable."""
    path = folder / BALLAST
    try:
        if path.exists() and path.stat().st_size == BALLAST_BYTES:
            return
        _fill(path)
    except OSError as error:
        drop_ballast(folder)
        raise unusable(path, error) from error


def _fill(path: Path) -> None:
    # Random bytes, really written: a compressing file system would keep no room for zeros or for a promise.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(os.urandom(BALLAST_BYTES))
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_ballast(folder: Path) -> bool:
    """Give the ballast's room up; whether there was any."""
    try:
        (folder / BALLAST).unlink()
    except OSError:
        return False
    return True
