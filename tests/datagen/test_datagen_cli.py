"""Commands, exit codes, and one line for every mistake of a user."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from datagen import chain, cli
from datagen.cli import main
from datagen.storage import commit
from datagen.storage.read import open_dataset
from tests.datagen.conftest import NUM_FILES, file_hashes

DATAGEN = (sys.executable, "-m", "datagen")


def check_refused(arguments, words, capsys, code=2):
    capsys.readouterr()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.solver.metod=direct"], ["metod", "did you mean method?"]),
        (["--config.sede=1"], ["no key 'sede'", "did you mean seed?"]),
        (["--config.seed=1.5"], ["expected int"]),
        (["--config.solver.method=mg_pgc"], ["unknown method 'mg_pgc'", "mg_pcg"]),
        (["--config.problem.n=2"], ["config.problem", "at least"]),
        (["--config.solver.accept_rtol=1e-9"], ["expected rtol <= accept_rtol"]),
        (["--config.splits.train=0"], ["config.splits.train"]),
        (["--config.storage.dtype=half"], ["config.storage.dtype", "float32"]),
        (["--config.seed=-1"], ["config.seed", "at least 0"]),
        (["--conifg", "x"], ["unknown argument '--conifg'"]),
    ],
)
def test_a_mistake_in_the_config_is_one_line(
    arguments, words, config_file, tmp_path, capsys
):
    command = ["generate", "--config", config_file, "--out", str(tmp_path / "x")]
    check_refused([*command, *arguments], words, capsys)
    assert not (tmp_path / "x").exists()


def test_a_wrong_name_of_a_config_is_one_line(config_file, tmp_path, capsys):
    out = ["--out", str(tmp_path / "x")]
    for config, words in (
        (config_file + ":tiny", ["unknown variant 'tiny'", "known: full"]),
        (config_file.replace("tiny.py", "tyni.py"), ["no file", "did you mean"]),
    ):
        check_refused(["generate", "--config", config, *out], words, capsys)
    check_refused(["run", *out], ["holds no plan", "datagen plan"], capsys)
    check_refused(["generate"], ["--config"], capsys)


def test_a_problem_without_promise_of_spd_matrices_refuses_cg(tmp_path, capsys):
    config = pathlib.Path(__file__).parents[2] / "configs/data/darcy_smooth.py"
    command = ["plan", "--config", f"{config}:quick", "--out", str(tmp_path / "x")]
    command += ["--config.problem.mode=fno_compat"]
    command += ["--config.problem.face_mean=arithmetic"]
    words = ["mg_pcg needs symmetric positive definite", "method=direct"]
    check_refused([*command, "--config.solver.method=mg_pcg"], words, capsys)
    assert main(command) == 0
    assert "method direct; ordering none" in capsys.readouterr().out


def test_another_config_in_the_same_folder_is_refused(copied, config_file, capsys):
    command = ["--config", config_file, "--out", str(copied), "--config.seed=6"]
    words = ["of another config", "config.seed is 5 there and 6", "choose another"]
    for name in ("generate", "plan", "run", "status", "verify"):
        check_refused([name, *command], words, capsys)


def test_folders_that_cannot_be_used_are_refused(config_file, tmp_path, capsys):
    command = ["generate", "--config", config_file, "--out"]
    file = tmp_path / "file"
    file.write_text("text")
    check_refused([*command, str(file / "x")], [str(file), "choose"], capsys)
    check_refused([*command, str(file)], ["choose"], capsys)
    check_refused([*command, str(tmp_path)], ["holds other files"], capsys)
    check_refused([*command, "/proc/x"], ["/proc/x", "choose"], capsys)


def test_stages_one_by_one_equal_generate(config_file, finished, tmp_path, capsys):
    root = tmp_path / "stages"
    out = ["--out", str(root)]
    assert main(["plan", "--config", config_file, *out]) == 0
    check_refused(["finalize", *out], ["4 of 4 shards are missing"], capsys, code=1)
    assert main(["status", *out]) == 0
    assert "0 of 11" in capsys.readouterr().out
    assert main(["run", *out]) == 0
    output = capsys.readouterr().out
    for word in (
        "11 samples (6 train, 2 valid, 3 test)",
        "grid 9 x 9",
        "MB",
        "ms each",
    ):
        assert word in output
    assert f"11/11 samples, {NUM_FILES}/{NUM_FILES} shards" in output
    assert "true residual <=" in output
    assert main(["finalize", *out]) == 0
    assert main(["verify", *out]) == 0
    assert file_hashes(root) == file_hashes(finished)
    first = open_dataset(root).manifest_sha256
    assert first == open_dataset(finished).manifest_sha256
    assert main(["finalize", *out]) == 0  # again: nothing changes
    capsys.readouterr()
    assert main(["status", *out]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_finished_set_says_so(finished, config_file, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")}
    command = ["generate", "--config", config_file, "--out", str(finished)]
    assert main(command) == 0
    assert "was finished before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")}


def test_bytes_do_not_depend_on_what_was_made_before(copied, finished):
    for name in ("train-00001", "test-00000"):  # the middle and the end, alone
        (copied / "ledger" / f"{name}.json").unlink()
        split, number = name.split("-")
        (copied / f"data/{split}/tiny-{number}.hdf5").unlink()
    assert main(["generate", "--out", str(copied)]) == 0
    assert file_hashes(copied) == file_hashes(finished)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_the_run_goes_on_later(
    number, config_file, finished, tmp_path, monkeypatch, capsys
):
    root, written, write = tmp_path / "full", [], commit.write

    def write_some(path, content, kind):
        written.append(path)
        if len(written) > 6:
            raise OSError(number, os.strerror(number))
        write(path, content, kind)

    monkeypatch.setattr(commit, "write", write_some)
    command = ["generate", "--config", config_file, "--out", str(root)]
    words = [os.strerror(number), "make room and run the same command again"]
    check_refused(command, words, capsys, code=1)
    assert len(written) == 7  # no second try
    committed = {k: v for k, v in file_hashes(finished).items() if (root / k).exists()}
    assert len(committed) >= 3
    monkeypatch.setattr(commit, "write", write)
    assert main(command) == 0
    assert file_hashes(root) == file_hashes(finished)


@pytest.mark.slow
def test_a_small_file_system_fills_up(config_file, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    command = [*DATAGEN, "generate", "--config", f"{config_file}:long"]
    command += ["--out", str(disk / "set")]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert subprocess.run(command, check=False).returncode == 0
        assert (
            subprocess.run(
                ["sha256sum", "-c", "--quiet", "checksums.sha256"],
                cwd=disk / "set",
                check=False,
            ).returncode
            == 0
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_checksums_can_be_checked_with_sha256sum(finished):
    result = subprocess.run(
        ["sha256sum", "-c", "checksums.sha256"],
        cwd=finished,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(result.stdout.splitlines()) == NUM_FILES + 5


def test_a_signal_between_samples_leaves_with_75(
    config_file, finished, tmp_path, monkeypatch, capsys
):
    root, solved, ladder_solve = tmp_path / "stopped", [], chain.Ladder.solve

    def solve(self, rng):
        solved.append(None)
        if len(solved) == 9:  # two are timed, six in train, the first in valid
            os.kill(os.getpid(), signal.SIGTERM)
        return ladder_solve(self, rng)

    command = ["generate", "--config", config_file, "--out", str(root)]
    monkeypatch.setattr(chain.Ladder, "solve", solve)
    assert main(command) == cli.AGAIN == 75
    error = capsys.readouterr().err
    assert "interrupted by SIGTERM" in error
    assert "run the same command again" in error
    assert len(solved) == 9  # the unfinished shard is dropped
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main(command) == 0
    assert file_hashes(root) == file_hashes(finished)


STUCK = """
import sys, time
from datagen import cli, run
run.time_sample = lambda *_: (print("solving", flush=True), time.sleep(600))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_signal_ends_a_solve_that_would_take_long(config_file, tmp_path):
    command = [sys.executable, "-c", STUCK, "generate", "--config", config_file]
    command += ["--out", str(tmp_path / "x")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "solving\n"
        process.send_signal(signal.SIGTERM)
        try:
            error = process.communicate(timeout=60)[1]  # of 600 s
        finally:
            process.kill()
    assert process.returncode == 75
    assert "run the same command again" in error


@pytest.mark.slow
def test_a_signal_ends_a_run_whose_terminal_is_gone(config_file, tmp_path):
    command = [sys.executable, "-c", STUCK, "generate", "--config", config_file]
    command += ["--out", str(tmp_path / "x")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "solving\n"
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 75
        finally:
            process.kill()


def test_preview_makes_a_picture_and_no_data_set(config_file, tmp_path, capsys):
    root = tmp_path / "set"
    command = ["--config", config_file, "--out", str(root)]
    assert main(["preview", *command, "--num", "2"]) == 0
    assert (root / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert main(["generate", *command]) == 0  # the picture is not in the way
    check_refused(["preview", *command, "--num", "99"], ["--num is 99"], capsys)


def test_list_and_help_name_what_there_is(capsys):
    assert main(["--list"]) == 0
    output = capsys.readouterr().out
    for word in ("darcy", "direct", "mg_pcg", "configs/data/darcy_smooth.py"):
        assert word in output
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    for word in (*cli.COMMANDS, "75", "--config"):
        assert word in output


def test_the_entry_point_runs_in_double_precision_on_any_number_of_threads(tmp_path):
    """The default method, as users call it; two thread settings, equal bytes."""
    command = [*DATAGEN, "generate", "--config", "configs/data/darcy_smooth.py:quick"]
    command += ["--config.splits.train=5", "--config.splits.test=0"]
    command += ["--config.splits.valid=0"]
    hashes = []
    for threads in ("1", "2"):
        root = tmp_path / threads
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        cores = set(list(os.sched_getaffinity(0))[: int(threads)])
        pinned = f"import os, sys; os.sched_setaffinity(0, {cores}); "
        pinned += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        subprocess.run(
            [sys.executable, "-c", pinned, *command[1:], "--out", str(root)],
            cwd=pathlib.Path(__file__).parents[2],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        hashes.append(file_hashes(root))
        assert open_dataset(root).manifest["true_residual"]["max"] < 1e-8
    assert hashes[0] == hashes[1]
