"""Seconds per whole training step: our models against the official PyTorch modules.

    uv run -m benchmarks.peers --torch     # once
    uv run -m benchmarks.training_step --quick
    uv run -m benchmarks.training_step --json out.json --mgno MgNO --lsm LSM --fno FNO
    uv run -m benchmarks.training_step --case sfno --sfno torch-cfd

A step is forward, sum of relative L2 errors, gradients and Adam with coupled decay, in
float32, on one core. Both sides have the same shapes, batch and numbers: ours gets the
official module's initial weights, and a row is accepted only if the losses of the first
three steps agree. Steps are taken in turn, and `seconds` is the smallest of `--num`.
Ours is the step that train.py compiles, with the micro-batch that is fastest in a few
steps that do not count (--quick: whole batches). The official modules run as released
(`torch`), and with --compile also through torch.compile. The folders are checkouts of
the released code, see `benchmarks.torch_worker`; cases without their checkout are named
and left out.
"""

import argparse
import dataclasses
import importlib
import pathlib
import tempfile
import time

from benchmarks import peers, timing

TOLERANCES = (1e-5, 1e-3, 1e-3)  # relative, on the losses of the first three steps
MICRO_BATCHES = (1, 2)
COLUMNS = (("case", 20), ("method", 15), ("grid", 12), ("batch", 6))


@dataclasses.dataclass(frozen=True)
class Case:
    """One model with the same settings on both sides.

    Attributes:
        hparams: for `operators.models.create`.
        settings: for the official class.
        importer: module of `operators.importers`.
        grid: points per axis.
        batch: samples per step.
        checkout: option that names the official code; "" for installed packages.
    """

    hparams: dict
    settings: dict
    importer: str
    grid: tuple[int, ...]
    batch: int
    checkout: str = ""


def cases(quick: bool) -> dict[str, Case]:
    """The official configurations by name, or small ones that run in seconds."""
    modes, width = (12, 32) if not quick else (4, 8)
    one = {"in_channels": 1, "out_channels": 1}
    found = {
        "fno_neuralop": Case(
            {"name": "fno", "layout": "neuralop", "modes": (modes, modes)}
            | {**one, "channels": width},
            {"n_modes": (modes, modes), "hidden_channels": width, **one},
            "neuralop",
            (32, 32) if quick else (64, 64),
            8,
        ),
        "fno_li2021": Case(
            {"name": "fno", "architecture": "li2021", "layout": "li2021", **one}
            | {"endpoint": True, "modes": (modes, modes), "channels": width}
            | {"domain_padding": 10 / 30 if quick else 10 / 84},  # 9 points
            {"positional": (modes, modes, width)},
            "li2021",
            (31, 31) if quick else (85, 85),
            8,
            "fno",
        ),
    }
    return found | _mgno(quick) | _lsm(quick) | _sfno(quick)


def _mgno(quick):
    width = 4 if quick else 24
    levels = [[1, 0]] * 2 + [[2, 0]] if quick else [[1, 0]] * 5 + [[2, 0]]
    plain = {"name": "mgno", "in_channels": 1, "out_channels": 1}
    official = {"num_channel_f": 1, "num_classes": 1}
    found = {
        "mgno_darcy": Case(
            plain | {"channels": width, "num_layers": 4, "cycle": levels}
            | {"grid": (16, 16) if quick else (64, 64)},
            official | {"num_layer": 4, "num_channel_u": width}
            | {"num_iteration": levels},
            "mgno", (16, 16) if quick else (64, 64), 8, "mgno",
        )
    }  # fmt: skip
    if quick:  # the grids of the others are fixed by their norms
        return found
    flow = [[1, 0]] * 3 + [[2, 0]] * 2
    found["mgno_navier_stokes"] = Case(
        plain | {"channels": 32, "num_layers": 5, "cycle": flow, "grid": (64, 64)}
        | {"boundary": "periodic", "use_bias": True, "norm": "prolongation"}
        | {"skip": "none", "residual": True},
        official | {"num_layer": 5, "num_channel_u": 32, "num_iteration": flow}
        | {"bias": True},
        "mgno", (64, 64), 8, "mgno",
    )  # fmt: skip
    found["mgno_helmholtz"] = Case(
        plain | {"channels": 20, "num_layers": 4, "grid": (101, 101)}
        | {"cycle": [[1, 0]] * 4 + [[2, 0]], "widening": (1, 2, 3, 4, 5)}
        | {"boundary": "reflect", "use_bias": True, "norm": "cycle"}
        | {"skip": "none", "head": "cycle"},
        official | {"num_layer": 4, "num_channel_u": 20}
        | {"num_iteration": [1, 1, 1, 1, 2]},
        "mgno", (101, 101), 4, "mgno",
    )  # fmt: skip
    return found


def _lsm(quick):
    width, n = (8, 32) if quick else (64, 85)
    patch, padding = -(-n // 16), -n % 16
    plain = {"name": "lsm", "in_channels": 1, "channels": width}
    official = {"in_dim": 1, "d_model": width, "num_basis": 12, "num_token": 4}
    return {
        "lsm": Case(
            plain | {"out_channels": 1, "patch_size": (patch, patch)},
            official | {"out_dim": 1, "patch_size": f"{patch},{patch}"}
            | {"padding": f"{padding},{padding}"},
            "lsm", (n, n), 4, "lsm",
        )
    }  # fmt: skip


def _sfno(quick):
    width, modes, n = (6, (4, 4, 3), 16) if quick else (20, (12, 12, 5), 64)
    frames = 40
    return {
        "sfno": Case(
            {"name": "sfno", "in_channels": 1, "out_channels": 1, "width": width}
            | {"modes": modes, "out_steps": frames, "compat": True},
            {f"modes_{axis}": m for axis, m in zip("xyt", modes, strict=True)}
            | {"width": width, "output_steps": frames},
            "sfno", (n, n, 10), 4, "sfno",
        )
    }  # fmt: skip


class Ours:
    """Our training step on the numbers of an official module.

    Args:
        case: what is trained.
        arrays: x and y.
        state: file of the official module's state dict.
        sizes: micro-batches to try besides whole batches.
    """

    def __init__(self, case: Case, arrays: dict, state: pathlib.Path, sizes: tuple):
        import jax
        import jax.numpy as jnp
        import numpy as np
        from flax import nnx

        from operators import models
        from operators.importers.assignment import read_state
        from operators.training import normalizers, optimizers, sharding
        from operators.training.state import Arrays

        importer = importlib.import_module(f"operators.importers.{case.importer}")
        model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **case.hparams))
        self._model = importer.load(model, read_state(state))
        self._optimizer = optimizers.create(
            {"name": "adam", "b1": (0.9, 0.9), "b2": 0.999, "weight_decay": 1e-4},
            {"name": "constant", "per": "step", "peak": 1e-3},
            num_epochs=1,
            steps_per_epoch=1,
        )
        self._mesh = sharding.data_mesh(1, case.batch)
        x, y = (jnp.asarray(arrays[k]) for k in "xy")
        identity = normalizers.fit("none", np.asarray(arrays["y"]))
        self._arguments = (Arrays(x, y, identity), np.arange(case.batch))
        learns = bool(jax.tree.leaves(nnx.state(self._model, nnx.BatchStat)))
        sizes = [m for m in sizes if case.batch % m == 0 and not learns]
        self.micro_batch = 0
        if sizes:
            seconds = {size: self._try(size) for size in (0, *sizes)}
            self.micro_batch = min(seconds, key=seconds.get)
        self._start(self.micro_batch)

    def _start(self, micro_batch: int) -> None:
        """Compiles the step and starts from the official numbers."""
        import jax
        import jax.numpy as jnp

        from operators.training import losses
        from operators.training import state as training

        graph, current = training.create_state(self._model, self._optimizer, self._mesh)
        # A step uses its state up; the model must keep its numbers.
        self._state = jax.tree.map(jnp.copy, current)
        split = {"micro_batch": micro_batch} if micro_batch else {}
        self._step = training.make_train_step(
            graph, self._optimizer, losses.relative_l2, self._mesh, **split
        )

    def _try(self, micro_batch: int) -> float:
        self._start(micro_batch)
        return min(self.step(i)["seconds"] for i in range(4))

    def step(self, item: int) -> dict:
        """One step; the loss is that before it."""
        import jax

        start = time.perf_counter()
        done = self._step(self._state, *self._arguments)
        self._state, metrics = jax.block_until_ready(done)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "loss": float(metrics["loss"])}


def measure(name: str, case: Case, options) -> list[dict]:
    """Rows of one case."""
    import numpy as np

    rng = np.random.default_rng(0)
    channels = [case.hparams[f"{side}_channels"] for side in ("in", "out")]
    # The SFNO has a number of frames of its own in the output.
    out_grid = (*case.grid[:-1], case.hparams.get("out_steps", case.grid[-1]))
    grids = (case.grid, out_grid)
    shapes = [(case.batch, *g, c) for g, c in zip(grids, channels, strict=True)]
    arrays = {
        k: rng.normal(size=s).astype(np.float32)
        for k, s in zip("xy", shapes, strict=True)
    }
    folder = getattr(options, case.checkout) if case.checkout else None
    processes = {}
    with tempfile.TemporaryDirectory() as scratch:
        path, state = (pathlib.Path(scratch) / f"{k}.npz" for k in ("arrays", "state"))
        np.savez(path, **arrays)
        for method in ("torch", "torch_compile")[: 1 + options.compile]:
            processes[method] = peers.PeerProcess(worker="torch_worker")
            built = processes[method].ask(
                do="build", case=name, folder=folder and str(folder.resolve()),
                settings=case.settings, arrays=str(path), state=str(state),
                compile=method == "torch_compile",
            )  # fmt: skip
        ours = Ours(case, arrays, state, () if options.quick else MICRO_BATCHES)
    methods = {"ours": ours.step} | {
        method: lambda item, process=process: process.ask(do="step")
        for method, process in processes.items()
    }
    runs = timing.interleave(methods, num=max(options.num, len(TOLERANCES) - 1))
    for process in processes.values():
        process.close()
    rows = [
        {
            "case": name,
            "method": method,
            "model": case.hparams["name"],
            "grid": list(case.grid),
            "batch": case.batch,
            "parameters": built["parameters"],
            "micro_batch": ours.micro_batch if method == "ours" else 0,
            "seconds": min(run["seconds"] for run in done[1:]),
            **_agreement(done, runs["torch"]),
        }
        for method, done in runs.items()
    ]
    return timing.add_ratios(rows, peers=set(processes))


def _agreement(runs: list[dict], reference: list[dict]) -> dict:
    """How far the losses are apart, and whether that is rounding."""
    differences = [
        abs(a["loss"] - b["loss"]) / abs(b["loss"])
        for a, b in zip(runs, reference, strict=True)
    ][: len(TOLERANCES)]
    fine = all(d < t for d, t in zip(differences, TOLERANCES, strict=True))
    return {
        "first_loss": runs[0]["loss"],
        "loss_difference": max(differences),
        "accepted": fine,
    }


def main(argv: list[str] | None = None) -> list[dict]:
    """Measures the cases, prints the table and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models and grids")
    parser.add_argument("--case", action="append", help="only this; may be repeated")
    parser.add_argument("--num", type=int, default=10, help="timed steps per method")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    for name in ("mgno", "lsm", "fno", "sfno"):
        parser.add_argument(f"--{name}", type=pathlib.Path, help="checkout")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    known = cases(options.quick)
    for name in options.case or ():
        if name not in known:
            parser.error(f"unknown case {name!r}; known: {', '.join(known)}")
    timing.pin_one_core()
    rows = []
    print("".join(f"{name:<{width}}" for name, width in COLUMNS), end="")
    print(f"{'seconds':>10}{'ratio':>8}{'losses differ':>15}  micro-batch")
    for name in options.case or known:
        case = known[name]
        if case.checkout and getattr(options, case.checkout) is None:
            print(f"{name}: left out, needs --{case.checkout} CHECKOUT")
            continue
        try:
            new = measure(name, case, options)
        except RuntimeError as error:  # said by the worker: a wrong checkout, say
            print(f"{name}: left out, {error}")
            continue
        for row in new:
            _print(row)
        rows += new
    machine = timing.hardware()
    print(f"{machine['cpu']}, {machine['cores_used']} core, {machine['date']}")
    timing.write_json(options.json, title="whole training steps", rows=rows)
    return rows


def _print(row: dict) -> None:
    cells = row | {"grid": "x".join(map(str, row["grid"]))}
    print("".join(f"{cells[name]!s:<{width}}" for name, width in COLUMNS), end="")
    accepted = "" if row["accepted"] else " !"
    print(
        f"{row['seconds']:>10.4f}{row['ratio_to_best_peer']:>8.2f}"
        f"{row['loss_difference']:>15.1e}{accepted}  {row['micro_batch'] or 'all'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
