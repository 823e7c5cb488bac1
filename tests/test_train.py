"""train.py from the command line: data, training, resuming, errors, several devices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import operators
import train
from configs import loading
from operators.training import evaluate, workdir
from tests.conftest import QUICK, run_quick

ROOT = Path(__file__).parent.parent


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def final_hash(folder):
    record = (folder / "checkpoints" / "latest" / "COMMITTED.json").read_text()
    return json.loads(record)["tree_sha256"]


def one_line_error(capsys, *arguments):
    """Calls train.main, expects exit code 2 and one line on stderr; returns it."""
    assert train.main(list(arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_a_quick_run_leaves_errors_logs_checkpoints_and_pictures(finished):
    report = json.loads((finished / "evaluation.json").read_text())
    assert report["model"] == "mgno"
    for name in ("relative_l2", "relative_h1", "relative_h1_spectral"):
        assert {"mean", "std", "quantiles", "per_sample"} == set(report[name])
        assert len(report[name]["per_sample"]) == 8
    assert report["relative_l2"]["mean"] < 0.5
    records = workdir.read_metrics(finished)
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    assert records[-1]["loss"] < records[0]["loss"]
    for key in ("learning_rate", "b1", "gradient_norm", "samples_per_second"):
        assert np.isfinite(records[-1][key])
    for picture in ("samples.png", "curves.png"):
        assert (finished / picture).stat().st_size > 10_000
    assert list((finished / "tensorboard").glob("events*"))
    assert train.tuning.load(finished, 1) == train.tuning.Tuning(train.tuning.Choice())


def test_evaluate_repeats_the_reported_errors(finished, at_home, capsys):
    before = json.loads((finished / "evaluation.json").read_text())
    assert evaluate.main(["--workdir", str(finished)]) == 0
    assert "relative_l2" in capsys.readouterr().out
    after = json.loads((finished / "evaluation.json").read_text())
    assert after == before


def test_a_loaded_operator_maps_physical_fields(finished, at_home):
    operator = operators.load(finished)
    x = np.where(np.random.default_rng(0).random((3, 33, 33, 1)) > 0.5, 12.0, 3.0)
    y = operator(x, batch_size=2)
    assert y.shape == (3, 33, 33, 1)
    np.testing.assert_allclose(y, operator(x, batch_size=3), rtol=1e-4, atol=1e-7)
    assert operator(x[:, ::2, ::2]).shape == (3, 17, 17, 1)
    for bad in (x[..., 0], np.concatenate([x, x], axis=-1), x[:0]):
        with pytest.raises(ValueError, match="num, n1, n2, in_channels"):
            operator(bad)


@pytest.mark.usefixtures("at_home")
def test_a_finished_run_says_so(finished, capsys):
    before = final_hash(finished)
    assert train.main(["--config", QUICK, "--workdir", str(finished)]) == 0
    assert "is finished" in "".join(capsys.readouterr())
    assert final_hash(finished) == before


@pytest.mark.parametrize("stops", [(9,), pytest.param((5, 9), marks=pytest.mark.slow)])
def test_stopping_after_any_step_and_going_on_changes_nothing(
    finished, at_home, tmp_path, stops
):
    class StopAfter:
        def __init__(self, polls):
            self.left = polls

        @property
        def requested(self):
            self.left -= 1
            return "SIGTERM" if self.left < 0 else ""

    config = loading.load(QUICK)
    folder = tmp_path / "run"
    for polls in stops:  # polled some times per step: stops within both epochs
        with pytest.raises(train.StoppedError, match="saved step"):
            train.train_and_evaluate(config, folder, stop=StopAfter(polls))
    train.train_and_evaluate(config, folder, stop=StopAfter(10**9))
    assert final_hash(folder) == final_hash(finished)
    steps = [r["step"] for r in workdir.read_metrics(folder)]
    assert steps == [r["step"] for r in workdir.read_metrics(finished)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_arrays(home, tmp_path, number):
    longer = "--config.num_epochs=12"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_quick(home, whole, longer)
    command = [sys.executable, str(ROOT / "train.py"), "--config", QUICK, longer]
    process = subprocess.Popen([*command, "--workdir", str(killed)], cwd=home)
    committed = killed / "checkpoints" / "latest" / "COMMITTED.json"
    deadline = time.monotonic() + 120
    while not (committed.exists() and json.loads(committed.read_text())["step"] >= 6):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75)
    run_quick(home, killed, longer)
    assert final_hash(killed) == final_hash(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "micro_batch"), [(8, 0), (2, 2)])
def test_several_devices_give_the_losses_of_one(
    finished, home, tmp_path, devices, micro_batch
):
    parts = f"--config.micro_batch={micro_batch}"
    run_quick(home, tmp_path / "run", parts, JAX_NUM_CPU_DEVICES=str(devices))
    several, one = (workdir.read_metrics(f) for f in (tmp_path / "run", finished))
    for a, b in zip(several, one, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-5)
        assert a["valid_relative_l2"] == pytest.approx(b["valid_relative_l2"], rel=1e-3)


@pytest.mark.slow
def test_devices_must_share_the_batch(home, tmp_path):
    output = run_quick(
        home,
        tmp_path / "run",
        "--config.batch_size=12",
        expect=2,
        JAX_NUM_CPU_DEVICES="8",
    )
    assert "config.batch_size is 12" in output
    assert "Traceback" not in output


def own_data(folder, *, n=16, poison=None):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 24, n, n)).astype(np.float32)
    if poison is not None:
        y[poison] = 1e30  # finite, as the reader demands; its square is not
    np.savez(folder / "mine.npz", x=x, y=y)
    own = ("--config.data.config=", f"--config.data.path={folder / 'mine.npz'}")
    splits = ("num_train=16", "num_valid=4", "num_test=4")
    return (*own, *(f"--config.data.{s}" for s in splits))


@pytest.mark.slow
def test_ones_own_npz_trains(at_home, tmp_path, capsys):
    arguments = ["--config", QUICK, "--workdir", str(tmp_path / "run")]
    grid = "--config.model.grid=(16, 16)"
    assert train.main([*arguments, *own_data(tmp_path), grid]) == 0
    assert "relative_l2" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_names_step_and_samples(at_home, tmp_path, capsys):
    arguments = ["--config", QUICK, "--workdir", str(tmp_path / "run")]
    own = own_data(tmp_path, poison=5)
    plain = ("--config.normalizers.output=none", "--config.normalizers.input=none")
    grid = "--config.model.grid=(16, 16)"
    assert train.main([*arguments, *own, *plain, grid]) == 1
    error = capsys.readouterr().err
    assert "of epoch 1" in error
    samples = json.loads(error[error.index("samples [") + 8 :].split("]")[0] + "]")
    assert 5 in samples
    assert len(samples) == 8
    assert not (tmp_path / "run" / "checkpoints" / "latest" / "COMMITTED.json").exists()


def test_mistakes_are_one_line_that_says_what_to_do(at_home, tmp_path, capsys):
    quick = ("--config", QUICK)
    folder = ("--workdir", str(tmp_path / "run"))

    def error(*arguments):
        return one_line_error(capsys, *quick, *folder, *arguments)

    assert "did you mean batch_size" in error("--config.batchsize=3")
    assert "33" in error("--config.model.grid=(64, 64)")
    assert "config.batch_size is 49" in error("--config.batch_size=49")
    missing = ("--config.data.config=", "--config.data.path=nowhere")
    assert "nowhere" in error(*missing)
    assert "known" in error("--config.loss.name=h2")
    assert "--config.loss=" in error("--config.loss.name=relative_l2")
    assert "every" in error("--config.schedule.name=step_decay")
    assert "num_epochs is 0" in error("--config.num_epochs=0")
    assert "expected int" in error("--config.num_epochs=None")
    for split in ("train", "valid", "test"):
        assert f"num_{split} is 0" in error(f"--config.data.num_{split}=0")
    assert "in test, 9 were asked" in error("--config.data.num_test=9")
    assert "num_devices is -1" in error("--config.num_devices=-1")
    assert "lacks 'per'" in error("--config.schedule={'name': 'constant'}")
    assert "b1" in error("--config.optimizer.b1=(0.9,)")
    assert "stride" in error("--config.data.stride=33")
    assert "known" in error("--config.model.name=mgnoo")
    assert "channels" in error("--config.model.chanels=3")
    assert "in_channels=1" in error("--config.model.in_channels=2")
    (tmp_path / "file").write_text("")
    error = one_line_error(capsys, *quick, "--workdir", str(tmp_path / "file" / "run"))
    assert "file" in error


def test_a_run_of_another_config_is_not_continued(finished, at_home, capsys):
    arguments = ("--config", QUICK, "--workdir", str(finished))
    error = one_line_error(capsys, *arguments, "--config.seed=1")
    assert "seed: 0 -> 1" in error
    assert "--workdir" in error


def test_a_refused_run_leaves_the_folder_as_it_was(finished, at_home, tmp_path, capsys):
    files = ("config.json", "normalizers.npz", "metrics.jsonl", "evaluation.json")
    before = [(finished / name).read_bytes() for name in files]
    own = own_data(tmp_path, n=33)
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    config = json.loads((copy / "config.json").read_text())
    config["data"] |= {"config": "", "num_train": 16, "num_valid": 4, "num_test": 4}
    (copy / "config.json").write_text(json.dumps(config))
    changed = (copy / "config.json").read_bytes()
    error = one_line_error(capsys, "--config", QUICK, "--workdir", str(copy), *own)
    assert "trained on other data" in error
    assert (copy / "config.json").read_bytes() == changed
    assert [(copy / name).read_bytes() for name in files[1:]] == before[1:]


def test_a_folder_in_use_is_refused(at_home, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with workdir.Lock(folder):
        error = one_line_error(capsys, "--config", QUICK, "--workdir", str(folder))
    assert "in use by another process" in error


def test_a_damaged_data_set_is_refused(home, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(home)
    broken = tmp_path / "broken"
    shutil.copytree(home / "data" / "darcy_smooth_quick", broken)
    shard = sorted((broken / "data" / "train").glob("*.hdf5"))[0]
    shard.chmod(0o644)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    own = ("--config.data.config=", f"--config.data.path={broken}")
    workdir = ("--workdir", str(tmp_path / "run"))
    error = one_line_error(capsys, "--config", QUICK, *workdir, *own)
    assert shard.name in error


def test_evaluate_and_load_explain_what_is_missing(tmp_path, capsys):
    assert evaluate.main(["--workdir", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="best"):
        operators.load(tmp_path, checkpoint="newest")


def test_list_shows_configs_and_models(at_home, capsys):
    assert train.main(["--list"]) == 0
    output = capsys.readouterr().out
    assert "configs/mgno_darcy.py" in output
    assert "fno" in output


def test_the_paper_run_announces_its_duration_and_the_smaller_variant(
    at_home, tmp_path, capsys, monkeypatch
):
    config = loading.load(QUICK)
    run = train.Run(config, train.sharding.data_mesh(0, config.batch_size))
    tuned = train.tuning.Tuning(train.tuning.Choice())
    monkeypatch.setattr(train.tuning, "measure", lambda *a: (tuned, 1e4))
    assert run.measure_steps("configs/mgno_darcy.py") is tuned
    output = capsys.readouterr().out
    assert "days" in output or "h on this CPU" in output
    assert "configs/mgno_darcy.py:small" in output


@pytest.mark.usefixtures("at_home")
def test_a_continued_run_keeps_the_form_of_its_steps(tmp_path, monkeypatch):
    config = loading.load(QUICK)
    stored = train.tuning.Tuning(train.tuning.Choice(micro_batch=2))
    used = []
    monkeypatch.setattr(train.Run, "measure_steps", lambda *a: "measured again")
    monkeypatch.setattr(train.Run, "use", lambda run, tuned: used.append(tuned))
    monkeypatch.setattr(train.data, "generate", lambda *a: False)  # ends here
    workdir.record_config(tmp_path, config)
    for devices, asked in ((1, 0), (1, 4), (4, 0)):
        train.tuning.save(tmp_path, stored, devices)
        config.micro_batch = asked
        with pytest.raises(train.StoppedError):
            train.train_and_evaluate(config, tmp_path, stop=None)
    given = train.tuning.Tuning(train.tuning.Choice(micro_batch=4))
    assert used == [stored, given, "measured again"]


def test_a_signal_sets_the_flag_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with train.interruption.StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.requested == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
