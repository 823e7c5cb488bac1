"""The commit protocol: a file appears under its name whole, checked and synced, or not.

Every file that matters goes through `commit`: written under a temporary name on the
same file system, synced, read back and checked, then published in one step. A process
that dies anywhere leaves the old state or the new one, and at most a temporary file,
which `clean_staging` removes. Publishing twice is harmless: the bytes are a function of
the plan.

`DATAGEN_FAULT=<kind>:<step>` ends the process at once after that step of the commit of
that kind of file ("shard:write"; steps in `STEPS`); the tests kill every step this way.
"""

import errno
import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Checked = TypeVar("Checked")

STEPS = ("begin", "torn", "write", "sync", "check", "chmod", "publish", "sync_folders")
LEASE_SECONDS = 600  # age from which a temporary file of another host is abandoned
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
TRANSIENT = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT)
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)
MAX_ATTEMPTS = 5
MAX_BACKOFF_SECONDS = 30.0
FAULT_EXIT_CODE = 99


class CommitError(OSError):
    """A file could not be committed: which one, why, and what to do."""


def fault_point(name: str) -> None:
    """Ends the process at once if `DATAGEN_FAULT` names this point."""
    if os.environ.get("DATAGEN_FAULT") == name:
        os._exit(FAULT_EXIT_CODE)


def commit(
    final: Path,
    content: bytes,
    *,
    staging: Path,
    kind: str,
    check: Callable[[Path], Checked] | None = None,
    exclusive: bool = False,
) -> Checked | None:
    """Publishes `content` as the read-only file `final`.

    Input/output errors that may pass are retried, at most `MAX_ATTEMPTS` times; a full
    disk is not.

    Args:
        final: the file's name; its folder is made if missing.
        content: the bytes.
        staging: folder of temporary files, on the file system of `final`.
        kind: names the commit for `DATAGEN_FAULT`.
        check: reads the temporary file back and raises if it is not as it should be;
            None compares the bytes.
        exclusive: the first commit wins, instead of replacing what is there.

    Returns:
        What `check` returned.

    Raises:
        FileExistsError: if `exclusive` and `final` exists.
        CommitError: if the disk is full or keeps failing.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            return _attempt(final, content, staging, kind, check, exclusive, attempt)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno in TRANSIENT and attempt + 1 < MAX_ATTEMPTS:
                time.sleep(min(MAX_BACKOFF_SECONDS, 0.5 * 4**attempt))
                continue
            raise CommitError(_cause(error, final, len(content))) from error
    raise AssertionError("the loop returns or raises")


def _cause(error: OSError, final: Path, num_bytes: int) -> str:
    reason = (
        f"cannot write {final} ({num_bytes / 1e6:.1f} MB): {error.strerror or error}"
    )
    if error.errno in DISK_FULL:
        advice = "make room and run the same command again"
    else:
        advice = "see to that and run the same command again"
    return f"{reason}; what was committed before is intact: {advice}"


def _attempt(final, content, staging, kind, check, exclusive, attempt):
    staging.mkdir(parents=True, exist_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    # Never ends in .hdf5: foreign readers collect those, dot-files included.
    owner = f"{socket.gethostname()}.{os.getpid()}.{attempt}"
    temporary = staging / f"{final.name}.{owner}.tmp"
    fault_point(f"{kind}:begin")
    try:
        write(temporary, content, kind)
        fault_point(f"{kind}:write")
        sync(temporary)
        fault_point(f"{kind}:sync")
        checked = (check or _same_bytes(content))(temporary)
        fault_point(f"{kind}:check")
        temporary.chmod(0o444)
        fault_point(f"{kind}:chmod")
        publish_new(temporary, final) if exclusive else os.replace(temporary, final)
        fault_point(f"{kind}:publish")
    finally:
        temporary.unlink(missing_ok=True)
    sync(final.parent)
    sync(staging)
    fault_point(f"{kind}:sync_folders")
    return checked


def write(path: Path, content: bytes, kind: str) -> None:
    """Writes a temporary file, in two parts so that a fault can leave a torn one."""
    half = len(content) // 2
    with path.open("wb", buffering=0) as file:
        for part in (memoryview(content)[:half], memoryview(content)[half:]):
            while part:
                part = part[file.write(part) :]
            fault_point(f"{kind}:torn")


def sync(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_new(temporary: Path, final: Path) -> None:
    """Gives the file its name unless the name is taken.

    Raises:
        FileExistsError: if it is.
    """
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Not atomic: a crash here leaves a torn record, which readers take for none.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        with os.fdopen(os.open(final, flags, 0o444), "wb") as file:
            file.write(temporary.read_bytes())
            file.flush()
            os.fsync(file.fileno())


def _same_bytes(content: bytes) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if path.read_bytes() != content:
            raise OSError(errno.EIO, "the bytes read back differ from those written")

    return check


def sha256(path: Path) -> str:
    """Hash of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clean_staging(staging: Path) -> int:
    """Removes what dead processes left, and returns how many files that were.

    Abandoned are files of processes of this host that do not run any more, and files of
    other hosts older than the lease. Ages are measured against a fresh file of the same
    file system, so that skewed clocks do not matter.
    """
    if not staging.is_dir():
        return 0
    probe = staging / f"probe.{socket.gethostname()}.{os.getpid()}.0.tmp"
    probe.touch()
    now, removed = probe.stat().st_mtime, 0
    for path in staging.iterdir():
        try:
            if path == probe or not _abandoned(path, now):
                continue
            path.unlink()
            removed += 1
        except FileNotFoundError:
            continue  # its owner was faster
    probe.unlink(missing_ok=True)
    return removed


def _abandoned(path: Path, now: float) -> bool:
    *host, pid, _, _ = path.name.rsplit(".", 3)
    if host and host[0].endswith(socket.gethostname()) and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return now - path.stat().st_mtime > LEASE_SECONDS
