"""The commit protocol: errors of the file system, twins and leftovers."""

import errno
import json
import os
import socket
import time

import pytest

from datagen.storage import commit, ledger
from datagen.storage.read import DatasetError


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_committed_file_is_whole_read_only_and_leaves_nothing_behind(tmp_path):
    final = tmp_path / "data/train/x.hdf5"
    staging = tmp_path / "staging"
    seen = []

    def check(path):
        seen.append((path.name, path.read_bytes(), final.exists()))
        return "checked"

    result = commit.commit(final, b"abc", staging=staging, kind="shard", check=check)
    assert result == "checked"
    assert final.read_bytes() == b"abc"
    assert final.stat().st_mode & 0o777 == 0o444
    assert files(tmp_path) == ["x.hdf5"]
    [(name, content, existed)] = seen
    assert name.endswith(".tmp")  # foreign readers collect *.hdf5
    assert (content, existed) == (b"abc", False)


def test_a_failed_check_commits_nothing(tmp_path):
    def check(path):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        commit.commit(
            tmp_path / "x", b"a", staging=tmp_path / "s", kind="shard", check=check
        )
    assert files(tmp_path) == []


def test_the_content_is_synced_before_it_gets_its_name_and_the_folders_after(
    tmp_path, monkeypatch
):
    events, sync, replace = [], commit.sync, os.replace
    monkeypatch.setattr(commit, "sync", lambda p: (events.append(p.name), sync(p)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append("replace"), replace(a, b))
    )
    commit.commit(tmp_path / "d/x", b"a", staging=tmp_path / "s", kind="shard")
    assert events[0].startswith("x.")
    assert events[1:] == ["replace", "d", "s"]


def test_the_first_of_two_exclusive_commits_stays(tmp_path):
    arguments = {"staging": tmp_path / "s", "kind": "ledger", "exclusive": True}
    commit.commit(tmp_path / "x", b"first", **arguments)
    with pytest.raises(FileExistsError):
        commit.commit(tmp_path / "x", b"second", **arguments)
    assert (tmp_path / "x").read_bytes() == b"first"
    assert files(tmp_path) == ["x"]


def test_exclusive_commits_work_where_links_do_not(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    test_the_first_of_two_exclusive_commits_stays(tmp_path)


def failing(monkeypatch, number, times):
    """Makes the first `times` writes fail; returns the list of attempts."""
    attempts, write = [], commit.write

    def fail(path, content, kind):
        attempts.append(path)
        if len(attempts) <= times:
            raise OSError(number, os.strerror(number))
        write(path, content, kind)

    monkeypatch.setattr(commit, "write", fail)
    monkeypatch.setattr(time, "sleep", lambda seconds: attempts.append(seconds))
    return attempts


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_commit_at_once(tmp_path, monkeypatch, number):
    attempts = failing(monkeypatch, number, times=99)
    with pytest.raises(commit.CommitError, match="make room and run the same command"):
        commit.commit(tmp_path / "x", b"a", staging=tmp_path / "s", kind="shard")
    assert len(attempts) == 1
    assert files(tmp_path) == []


def test_passing_errors_are_retried_a_few_times(tmp_path, monkeypatch):
    attempts = failing(monkeypatch, errno.EIO, times=2)
    commit.commit(tmp_path / "x", b"a", staging=tmp_path / "s", kind="shard")
    assert (tmp_path / "x").read_bytes() == b"a"
    attempts = failing(monkeypatch, errno.EIO, times=99)
    with pytest.raises(commit.CommitError, match="Input/output error"):
        commit.commit(tmp_path / "x", b"a", staging=tmp_path / "s", kind="shard")
    waits = [entry for entry in attempts if isinstance(entry, float)]
    assert len(attempts) - len(waits) == commit.MAX_ATTEMPTS
    assert max(waits) <= commit.MAX_BACKOFF_SECONDS


def test_staging_is_cleaned_of_the_dead_only(tmp_path):
    host = socket.gethostname()
    dead = 2**22 + 1  # above the largest process id
    keep = [f"a.{host}.{os.getpid()}.0.tmp", "b.elsewhere.1.0.tmp"]
    drop = [f"a.{host}.{dead}.0.tmp", "c.elsewhere.1.0.tmp"]
    for name in (*keep, *drop):
        (tmp_path / name).touch()
    old = time.time() - commit.LEASE_SECONDS - 60
    os.utime(tmp_path / drop[1], (old, old))
    assert commit.clean_staging(tmp_path) == 2
    assert files(tmp_path) == sorted(keep)
    assert commit.clean_staging(tmp_path / "none") == 0


def test_a_late_twin_is_compared(copied):
    record = json.loads((copied / "ledger/valid-00000.json").read_text())
    ledger.write(copied, record | {"host": "another"})  # equal content: nothing happens
    kept = json.loads((copied / "ledger/valid-00000.json").read_text())
    assert kept == record
    with pytest.raises(DatasetError, match="different content for valid-00000"):
        ledger.write(copied, record | {"content_sha256": "0" * 64})


def test_a_record_of_another_plan_is_refused(copied):
    with pytest.raises(DatasetError, match="of another plan"):
        ledger.load(copied, "valid-00000", "0" * 64)
