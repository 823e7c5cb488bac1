"""Worker processes: the same bytes, and an end in bounded time whatever happens."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import generation
from datagen import cli, progress, workers
from datagen.cli import main
from datagen.plan import PlanError, load_plan
from datagen.run import RunError
from tests.datagen.conftest import NUM_FILES, file_hashes

# Speaks like datagen.worker, but starts in no time and makes nothing.
STAND_IN = """
import json, os, signal, sys, time
{setup}
print(json.dumps({{"ready": True}}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    {task}
    record = {{"shard": task["shard"], "attempts": task["attempt"]}}
    print(json.dumps({{"shard": record, "made": True}}), flush=True)
"""


class Display:
    """Remembers what it was told."""

    def __init__(self):
        self.made, self.sentences = {}, []

    def sample(self, report):
        pass

    def shard(self, record, made):
        self.made[record["shard"]] = record["attempts"]

    def lost(self, reports, sentence):
        self.sentences.append(sentence)


@pytest.fixture
def work(finished, monkeypatch):
    """Runs the shards of the tiny set in two stand-ins; returns the display."""
    started, start = [], workers.Worker.__init__

    def remember(self, root):
        start(self, root)
        started.append(self.process)

    monkeypatch.setattr(workers.Worker, "__init__", remember)

    def work(setup="", task="pass", poll=lambda: None, message=""):
        script = STAND_IN.format(setup=setup, task=task)
        monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-S", "-c", script))
        plan, display = load_plan(finished), Display()
        farm = workers.Farm(plan, list(plan.shards), 2, display)
        if message:
            with pytest.raises(RunError, match=message):
                farm.work(poll)
        else:
            farm.work(poll)
        assert all(process.poll() is not None for process in started)
        return display

    return work


def test_every_shard_is_handed_out_once(work):
    display = work()
    assert sorted(display.made) == sorted(
        ["train-00000", "train-00001", "valid-00000", "test-00000"]
    )
    assert set(display.made.values()) == {1}
    assert display.sentences == []


def test_a_poison_shard_comes_last_and_is_named_with_its_cause(work):
    task = """if task["shard"] == "train-00000":
        print("what it said", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)"""
    display = work(
        task=task,
        message="train-00000 could not be made in 3 attempts: its worker was killed "
        "by SIGSEGV: what it said while solving sample 0$",
    )
    assert sorted(display.made) == ["test-00000", "train-00001", "valid-00000"]
    assert [re.search("attempt . of 3", s)[0][8] for s in display.sentences] == [*"123"]


def test_a_worker_that_dies_once_costs_one_attempt(work):
    task = """if task["shard"] == "valid-00000" and task["attempt"] == 1:
        sys.exit(9)"""
    display = work(task=task)
    assert len(display.made) == NUM_FILES
    assert display.made["valid-00000"] == 2
    assert "ended with code 9" in display.sentences[0]


def test_what_a_worker_says_ends_the_run(work):
    task = """if task["shard"] == "train-00001":
        print(json.dumps({"error": "the disk is full"}), flush=True)
        sys.exit(1)
    time.sleep(60 * (task["shard"] == "train-00000"))"""
    start = time.monotonic()
    work(task=task, message="^the disk is full$")
    assert time.monotonic() - start < 30  # of 60 s


def test_workers_that_cannot_start_are_not_tried_for_ever(work):
    work(
        setup="raise SystemExit('no library')",
        message="cannot be started: the last one ended with code 1: no library",
    )


def test_a_worker_that_does_not_listen_is_killed(work, monkeypatch):
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.2)
    begun = time.monotonic()

    def poll():
        if time.monotonic() > begun + 0.5:
            raise RunError("enough")

    setup = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    work(setup=setup, task="time.sleep(60)", poll=poll, message="enough")
    assert time.monotonic() - begun < 30  # of 60 s


def test_a_killed_worker_is_replaced_and_the_bytes_are_those_of_one_process(
    config_file, finished, tmp_path, monkeypatch, capsys
):
    root, started, start = tmp_path / "set", [], workers.Worker.__init__

    def remember(self, folder):
        start(self, folder)
        started.append(self)

    def kill_one(self, report, tell=progress.Progress.sample):
        if not any(worker.process.returncode for worker in started):
            victim = next(w for w in started if w.shard and w.shard.id == report.shard)
            victim.process.kill()
            victim.process.wait()
        tell(self, report)

    monkeypatch.setattr(workers.Worker, "__init__", remember)
    monkeypatch.setattr(progress.Progress, "sample", kill_one)
    command = ["generate", "--config", config_file, "--out", str(root)]
    assert main([*command, "--workers", "2"]) == 0
    assert file_hashes(root) == file_hashes(finished)
    assert len(started) == 3
    output = capsys.readouterr().out
    assert "was killed by SIGKILL" in output
    assert f"11/11 samples, {NUM_FILES}/{NUM_FILES} shards" in output
    records = [json.loads(path.read_text()) for path in root.glob("ledger/*.json")]
    assert max(record["attempts"] for record in records) <= 2
    assert {record["workers"] for record in records if not record["adopted"]} == {2}


def test_a_signal_ends_all_workers_and_the_run_goes_on_later(
    config_file, finished, tmp_path, monkeypatch, capsys
):
    root, told = tmp_path / "set", progress.Progress.sample

    def interrupt(self, report):
        told(self, report)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress.Progress, "sample", interrupt)
    command = ["generate", "--config", config_file, "--out", str(root)]
    assert main([*command, "--workers", "2"]) == cli.AGAIN == 75
    assert "interrupted by SIGTERM" in capsys.readouterr().err
    with pytest.raises(ChildProcessError):  # none is left
        os.waitpid(-1, os.WNOHANG)
    monkeypatch.undo()
    assert main(command) == 0
    assert file_hashes(root) == file_hashes(finished)


def test_the_number_of_workers_is_checked(monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    assert workers.number("auto") == 2
    assert workers.number("3") == 3
    for text in ("0", "-1", "two", "1.5", "9", ""):
        with pytest.raises(PlanError, match=r"--workers is .*'auto' or 1 to 8"):
            workers.number(text)


def test_the_time_told_beforehand_counts_workers_and_cores(finished, monkeypatch):
    shards = load_plan(finished).shards  # of 4, 2, 2 and 3 samples
    monkeypatch.setattr(progress, "usable_cores", lambda: 2)
    assert progress.makespan(shards, 2.0, 1) == 22.0
    assert progress.makespan(shards, 2.0, 2) == 14.0  # 4 + 2 beside 2 + 3, or so
    assert progress.makespan(shards, 2.0, 4) == 16.0  # four of them on two cores


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes_at_a_known_cost(tmp_path):
    command = ["--config", "configs/data/darcy_smooth.py:quick", "--num", "40"]
    command += ["--tmp", str(tmp_path), "--workers", "1", "2", "3"]
    rows = generation.main(command)  # compares the bytes
    assert [row["workers"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["samples"] == 40
        assert row["true_residual_max"] <= 1e-8
        assert row["ms_solving"] > 0
        assert row["ms_making"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_runs_with_workers_in_one_folder_are_harmless(
    config_file, finished, tmp_path
):
    command = [sys.executable, "-m", "datagen", "generate", "--config", config_file]
    command += ["--out", str(tmp_path / "both"), "--workers", "2"]
    runs = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in runs] == [0, 0]
    assert file_hashes(tmp_path / "both") == file_hashes(finished)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_named(config_file, tmp_path, capsys):
    command = ["--config", config_file, "--out", str(tmp_path)]
    assert main(["plan", *command]) == 0
    (tmp_path / "data").write_text("in the way")
    capsys.readouterr()
    assert main(["run", *command, "--workers", "2"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "cannot write" in error


@pytest.mark.slow
def test_workers_leave_when_their_parent_is_killed(config_file, tmp_path):
    command = [sys.executable, "-m", "datagen", "generate", "--config"]
    command += [f"{config_file}:long", "--out", str(tmp_path), "--workers", "2"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    children = f"/proc/{parent.pid}/task/{parent.pid}/children"
    while not (tmp_path / "ledger").exists():
        time.sleep(0.05)
    with open(children) as file:
        pids = [int(pid) for pid in file.read().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}/fd/0") for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
