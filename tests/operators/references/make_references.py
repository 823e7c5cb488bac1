"""Makes the reference files beside it from the official PyTorch modules.

    .venv-torch/bin/python -m tests.operators.references.make_references \\
        --mgno MgNO --lsm Latent-Spectral-Models --fno fourier_neural_operator \\
        --sfno torch-cfd

`.venv-torch` comes from `uv run -m benchmarks.peers --torch`. The four folders are
checkouts of github.com/xlliu2017/MgNO (3a68a90), thuml/Latent-Spectral-Models
(d5a0b40), zongyi-li/fourier_neural_operator (fd7b0ded, of August 2021) and
scaomath/torch-cfd (475c738). The tests read only the files; this script never runs in
them.
"""

import argparse
import contextlib
import io
import json
import pathlib
import types

import numpy as np
import torch

from benchmarks.torch_worker import build, classes
from tests.operators.references import filling

HERE = pathlib.Path(__file__).parent
# Tokens of LSM start so much alike that what reads them would hardly matter.
WIDE = {"latent": 2.0, "weights": 0.5}


def describe(prefix: str, module: torch.nn.Module, gain: float = 1.0) -> list:
    """Rows [name, shape, low, high, dtype]; ranges `gain` times those at the start."""
    rows = []
    for name, value in module.state_dict().items():
        if name == "_metadata":  # the peer's own constructor arguments
            continue
        dtype = str(value.dtype).removeprefix("torch.")
        if not dtype.startswith(("float", "complex")):
            low, high = 7, 7
        else:
            parts = torch.view_as_real(value) if value.is_complex() else value
            low, high = (float(f"{gain * v:.3g}") for v in (parts.min(), parts.max()))
            if (bound := WIDE.get(name.split(".")[-1])) is not None:
                low, high = -bound, bound
            elif parts.min() == parts.max():  # scales, shifts, statistics at the start
                low, high = low - 0.5, low + 0.5
        rows.append([prefix + name, list(value.shape), low, high, dtype])
    return rows


def load(prefix: str, module: torch.nn.Module, rows: list) -> None:
    """Fills the module by the rows, in place."""
    arrays = {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in filling.state(rows).items()
        if name.startswith(prefix)
    }
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for name, value in arrays.items():
            own[name].copy_(value)


def fields(shape: tuple[int, ...]) -> np.ndarray:
    """An input in [-1, 1) with 8 bits a number, which compresses well."""
    values = filling.fill("input", shape, -1.0, 1.0, "float32")
    return np.floor(values * 128).astype(np.float32) / 128


def save(name, source, arguments, rows, x, y) -> None:
    """Writes one reference file."""
    facts = {"source": source, "arguments": arguments}
    path = HERE / f"{name}.npz"
    text = json.dumps(facts | {"state": rows})
    y = y.astype(np.float32)
    np.savez_compressed(path, facts=np.array(text), input=x, output=y)
    size = path.stat().st_size / 1024
    print(f"{name:<32}{size:6.1f} KiB, output {np.mean(y):.2g} +- {np.std(y):.2g}")


def first(x, module):
    """Channels first."""
    return module(x.movedim(-1, 1)).movedim(1, -1)


def record(name, source, module, arguments, shape, *, call=None, gain=1.0, double=True):
    """Fills a module, runs it in evaluation mode and saves."""
    rows = describe("", module, gain)
    load("", module, rows)
    module.eval()
    x = fields(shape)
    inputs = torch.from_numpy(x)
    if double:
        module, inputs = module.double(), inputs.double()
    with torch.no_grad():
        y = (call or first)(inputs, module).numpy()
    save(name, source, arguments, rows, x, y)


def neuralop() -> None:
    """FNO of neuraloperator 2.0.0, in float32: it cannot compute in float64."""
    from neuralop.models import FNO

    base = {"in_channels": 2, "out_channels": 3, "hidden_channels": 5, "n_layers": 2}
    gates = {"fno_skip": "soft-gating", "channel_mlp_skip": "identity"}
    plain = {"fno_skip": "identity", "channel_mlp_skip": "linear"}
    cases = {
        "1d": ((7,), (16,), {}),
        "2d": ((6, 5), (16, 12), {}),
        "3d": ((4, 3, 4), (8, 6, 10), {}),
        "group": ((6, 4), (16, 12), {"norm": "group_norm", "domain_padding": 0.25}),
        "instance": ((6, 4), (16, 12), {"norm": "instance_norm", **plain}),
        "gates": ((6, 4), (16, 12), gates),
        "tucker": ((6, 4), (16, 12), {"factorization": "tucker", "rank": 0.5}),
        "cp": ((6, 4), (16, 12), {"factorization": "cp", "rank": 0.5}),
        "separable": ((6, 4), (16, 12), {"separable": True}),
        "batch": ((6, 4), (16, 12), {"norm": "batch_norm"}),
    }
    for name, (modes, grid, options) in cases.items():
        module = FNO(n_modes=modes, **base, **options)
        record(
            f"neuralop_{name}",
            "neuraloperator 2.0.0, neuralop.models.FNO",
            module,
            base | {"n_modes": modes} | options,
            (2, *grid, 2),
            # Factors multiply each other, so that their gain is taken many times.
            gain=1.4 if "factorization" in options else 2.0,
            double=False,
        )


def li2021(folder: pathlib.Path) -> None:
    """FNO of 2021, in float32: its spectra are complex64."""
    cases = (
        ("1d", "fourier_1d.py", "FNO1d", (3,), (13,)),
        ("2d", "fourier_2d.py", "FNO2d", (3, 4), (18, 18)),  # 9 cells of padding
    )
    for name, file, cls, modes, grid in cases:
        module = getattr(classes(folder / file), cls)(*modes, 4)
        record(
            f"li2021_{name}",
            f"zongyi-li/fourier_neural_operator fd7b0ded, {file}, {cls}",
            module,
            [*modes, 4],
            (2, *grid, 1),
            call=lambda x, module: module(x),
            gain=4.0,
            double=False,
        )


def mgno(folder: pathlib.Path) -> None:
    """The four models that the README of MgNO trains."""
    code = classes(folder / "models.py")
    base = {"num_channel_u": 3, "num_channel_f": 2, "num_classes": 1}
    post, smooth = [[1, 0], [1, 1], [2, 0]], [[1, 0]] * 5 + [[2, 0]]
    navier, helm = [[1, 0], [2, 1], [2, 0]], [1, 1, 1, 1, 2]
    one = {"num_channel_u": 2, "num_channel_f": 1, "num_classes": 1}
    cases = {
        "darcy": ("MgNO_DC", {**base, "num_layer": 2, "num_iteration": post},
                  (2, 16, 12, 2)),
        "darcy_smooth": ("MgNO_DC_smooth", {**base, "num_layer": 1,
                         "num_iteration": smooth}, (1, 51, 51, 2)),
        "navier_stokes": ("MgNO_NS", {**one, "num_layer": 2, "num_iteration": navier,
                          "bias": True}, (1, 64, 64, 1)),
        "navier_stokes_head": ("MgNO_NS", {**one, "num_layer": 1, "bias": True,
                               "num_iteration": navier, "mlp_hidden_dim": 5},
                               (1, 64, 64, 1)),
        "helmholtz": ("MgNO_helm", {**one, "num_layer": 2, "num_iteration": helm},
                      (1, 101, 101, 1)),
    }  # fmt: skip
    for name, (cls, arguments, shape) in cases.items():
        source = f"xlliu2017/MgNO 3a68a90, models.py, {cls}"
        module = getattr(code, cls)(**arguments)
        record(f"mgno_{name}", source, module, arguments, shape)


def lsm(folder: pathlib.Path) -> None:
    """LSM on 2-D and 3-D grids and on points, batch norm with running averages."""
    base = {"d_model": 8, "num_basis": 3, "num_token": 2}
    for axes, shape, patch, padding in (
        (2, (1, 21, 27, 2), (2, 2), (5, 11)),  # the last axis first
        (3, (1, 13, 15, 30, 1), (1, 1, 2), (2, 1, 3)),
    ):
        arguments = base | {"in_dim": shape[-1], "out_dim": 2}
        arguments["patch_size"] = ",".join(map(str, patch))
        arguments["padding"] = ",".join(map(str, padding))
        code = classes(folder / "models" / f"LSM_{axes}D.py")
        module = code.Model(types.SimpleNamespace(**arguments))
        _exact_basis(module)
        record(
            f"lsm_{axes}d",
            f"thuml/Latent-Spectral-Models d5a0b40, LSM_{axes}D.py",
            module,
            arguments,
            shape,
            call=lambda x, module: module(x),
            gain=1.7,
        )
    irregular(folder, base)


def _exact_basis(module):
    """The frequencies k / M are float32 attributes, no buffers: float64 has others."""
    for part in module.modules():
        if hasattr(part, "modes_list"):
            part.modes_list = torch.arange(part.num_basis) / float(part.num_basis)
            part.modes_list = part.modes_list.double()


def irregular(folder: pathlib.Path, base: dict) -> None:
    """The variant on points, with and without a shape code."""
    code = classes(folder / "models" / "LSM_Irregular_Geo.py")
    arguments = base | {"in_dim": 2, "out_dim": 2, "patch_size": "1,1", "padding": "0"}
    sizes = {"modes1": 3, "modes2": 3, "s1": 16, "s2": 16}
    model = code.Model(types.SimpleNamespace(**arguments), **sizes)
    iphi = code.IPHI()
    rows = describe("model.", model) + describe("iphi.", iphi)
    load("model.", model, rows)
    load("iphi.", iphi, rows)
    _exact_basis(model.eval())
    model, iphi = model.double(), iphi.double()
    for spectral in (model.fftproject_in, model.fftproject_out):
        for parameter in spectral.parameters():  # `double` leaves complex ones alone
            parameter.data = parameter.data.to(torch.complex128)
    grid = model.get_grid
    model.get_grid = lambda shape, device: grid(shape, device).double()
    # Plain attributes again: phases of 128 pi x need more than float32.
    iphi.B = np.pi * 2.0 ** torch.arange(8, dtype=torch.float64).reshape(1, 1, 1, 8)
    iphi.center = torch.full((1, 1, 2), 1e-4, dtype=torch.float64)
    x = fields((1, 37, 2))
    shape_code = filling.fill("code", (1, 42), 0.1, 0.4, "float32")
    for name, given in (("", None), ("_code", torch.from_numpy(shape_code).double())):
        with torch.no_grad():
            y = model(torch.from_numpy(x).double(), code=given, iphi=iphi).numpy()
        save(
            f"lsm_irregular{name}",
            "thuml/Latent-Spectral-Models d5a0b40, LSM_Irregular_Geo.py",
            arguments | sizes | {"code": shape_code.tolist() if name else None},
            rows,
            x,
            y,
        )


def sfno(folder: pathlib.Path) -> None:
    """SFNO with other numbers of frames in and out, the variants, an even grid edge."""
    sizes = {"modes_x": 3, "modes_y": 4, "modes_t": 3, "width": 6}
    plain = sizes | {"num_spectral_layers": 3, "latent_steps": 5, "beta": 0.5}
    cases = {
        "sfno": (plain | {"activation": "GELU"}, (10, 9, 7), 12),
        # -4 is the Nyquist frequency of the second axis.
        "sfno_nyquist": (plain, (6, 8, 5), 5),
        "sfno_features": (
            plain | {"spatial_random_feats": True, "lift_activation": False},
            (9, 12, 6), 4,
        ),
    }  # fmt: skip
    for name, (arguments, grid, out_steps) in cases.items():

        def call(x, module, out_steps=out_steps):
            return module(x[..., 0], out_steps=out_steps)[..., None]

        record(
            name,
            "scaomath/torch-cfd 475c738, fno/sfno.py",
            build("sfno", str(folder), arguments),
            arguments | {"out_steps": out_steps},
            (2, *grid, 1),
            call=call,
        )


def main() -> None:
    """Makes what the given folders allow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("mgno", "lsm", "fno", "sfno"):
        parser.add_argument(f"--{name}", type=pathlib.Path, help="checkout")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        neuralop()
    print(printed.getvalue(), end="")
    for make, folder in (
        (li2021, options.fno),
        (mgno, options.mgno),
        (lsm, options.lsm),
        (sfno, options.sfno),
    ):
        if folder is not None:
            make(folder)


if __name__ == "__main__":
    main()
