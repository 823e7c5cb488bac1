"""The tests of `benchmarks.exactness` on the official PyTorch modules.

    uv run -m benchmarks.peers --torch          # once
    uv run -m benchmarks.exactness_peers --mgno MgNO --json out.json

neuraloperator 2.0.0 (FNO, U-NO and its spectral layer) and, with a checkout of
github.com/xlliu2017/MgNO (3a68a90), MgNO with circular padding; initial weights, inputs
and errors as in `benchmarks.exactness_cases`, no coordinates. The rows of our models
stand beside them for the same grids.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import exactness_cases as cases
from benchmarks import peers, timing

TOP = 3  # largest frequency of the inputs
EVEN, ODD, FINEST = (16, 32, 64), (17, 33, 65), 128  # points per axis
SHIFTS = (1, 4, 8)  # cells
MODES = (6, 6)  # of the layer, below Nyquist on all grids below
GRIDS = ((16, 16), (32, 32), (15, 15), (85, 85), (33, 48))
CHANGES = (((32, 32), (64, 64)), ((32, 32), (16, 16)), ((33, 33), (48, 48)))
U_NO = {
    "in_channels": 1, "out_channels": 1, "hidden_channels": 16, "n_layers": 5,
    "lifting_channels": 32, "projection_channels": 32, "positional_embedding": None,
    "uno_out_channels": [16, 24, 24, 24, 16], "channel_mlp_skip": "linear",
    "uno_n_modes": [[17, 17], [13, 13], [7, 7], [13, 13], [17, 17]],
    "uno_scalings": [[1, 1], [0.5, 0.5], [1, 1], [2, 2], [1, 1]],
}  # fmt: skip
F_NO = {
    "in_channels": 1, "out_channels": 1, "hidden_channels": 32, "n_modes": (17, 17),
    "positional_embedding": None,
}  # fmt: skip
MG_NO = {
    "num_channel_u": 8, "num_channel_f": 1, "num_classes": 1, "num_layer": 2,
    "num_iteration": [[1, 0], [1, 0], [2, 0]], "padding_mode": "circular",
}  # fmt: skip


class TorchModule:
    """An official module in a process of its own, f(u, out_grid) of NumPy arrays.

    Args:
        case: name in `torch_worker.MODULES`.
        settings: arguments of the official class.
        folder: checkout of the released code, if the case needs one.
    """

    def __init__(self, case: str, settings: dict, folder: pathlib.Path | None = None):
        self._process = peers.PeerProcess(worker="torch_worker")
        self._scratch = tempfile.TemporaryDirectory()
        folder = folder and str(folder.resolve())
        self._process.ask(do="build", case=case, folder=folder, settings=settings)

    def __call__(
        self, u: np.ndarray, out_grid: Sequence[int] | None = None
    ) -> np.ndarray:
        """Maps u [batch, *grid, channels] in float32; the result in float64."""
        x, y = (str(pathlib.Path(self._scratch.name) / f"{k}.npy") for k in "xy")
        np.save(x, u.astype(np.float32))
        out_grid = out_grid if out_grid is None else list(out_grid)
        self._process.ask(do="apply", x=x, y=y, out_grid=out_grid)
        return np.load(y).astype(np.float64)

    def close(self) -> None:
        """Ends the process."""
        self._process.close()
        self._scratch.cleanup()


def networks(mgno: pathlib.Path | None) -> dict[str, tuple[Callable, Callable]]:
    """Official modules and ours of the same kind, by the name of the former."""
    found = {
        "neuraloperator 2.0.0 FNO": (TorchModule("fno_neuralop", F_NO), "FNO"),
        "neuraloperator 2.0.0 U-NO": (TorchModule("uno_neuralop", U_NO), "U-NO"),
    }
    if mgno is not None:
        module = TorchModule("mgno_darcy", MG_NO, mgno)
        found["MgNO 3a68a90, circular"] = (module, "MgNO, periodic")
    ours = {row: cases.MODELS[row] for _, row in found.values()}
    return {
        name: (module, cases.Model(cases.SIZES[ours[row]["name"]] | ours[row]))
        for name, (module, row) in found.items()
    }


def network_rows(mgno: pathlib.Path | None) -> list[dict]:
    """Refinement on even and on odd grids, and shifts, of all networks."""
    rows = []
    for name, pair in networks(mgno).items():
        for method, model in zip((name, f"ours beside {name}"), pair, strict=True):
            row = {"method": method}
            for parity, grids in (("even", EVEN), ("odd", ODD)):
                if parity == "odd" and "MgNO" in name:
                    continue  # its prolongations double the points
                row[f"refinement_{parity}"] = cases.refinement_errors(
                    model, grids, finest=FINEST, top=TOP
                )
            row["shifts"] = [cases.shift_error(model, 32, c, top=TOP) for c in SHIFTS]
            rows.append(row)
            for key in ("refinement_even", "refinement_odd", "shifts"):
                _print(f"{method}, {key.replace('_', ', ')}", row.get(key, ()))
        pair[0].close()
    return rows


def layer_rows() -> list[dict]:
    """Spectral layers with identity weights, on one grid and from one to another."""
    m = 2 * MODES[0] + 1
    theirs = TorchModule("layer_neuralop", {"n_modes": (m, m)})
    layers = {"neuraloperator 2.0.0": theirs, "ours": cases.identity_layer(MODES)}
    pairs = [*((grid, grid) for grid in GRIDS), *CHANGES]
    rows = []
    for name, layer in layers.items():
        errors = [cases.identity_error(layer, a, MODES, b) for a, b in pairs]
        rows.append({"method": name, "grids": pairs, "errors": errors})
        _print(f"identity weights, {name}", errors)
    theirs.close()
    return rows


def _print(name: str, errors: Sequence[float]) -> None:
    if len(errors):
        print(f"{name:<66}" + "".join(f"{e:>9.0e}" for e in errors), flush=True)


def main() -> None:
    """Measures, prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mgno", type=pathlib.Path, help="checkout of MgNO")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args()
    print(f"refinement: {EVEN} and {ODD} points per axis against {FINEST}")
    print(f"shifts: by {SHIFTS} cells of 32 x 32 points")
    network = network_rows(options.mgno)
    print(f"identity weights: {GRIDS}, then from and to {CHANGES}")
    layer = layer_rows()
    timing.write_json(
        options.json, title="exactness of peers", rows=network, layers=layer
    )


if __name__ == "__main__":
    main()
