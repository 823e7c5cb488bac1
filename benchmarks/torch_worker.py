"""Trains the official PyTorch modules; runs in `.venv-torch`, not in our environment.

Reads one JSON request a line from standard input and answers each with one line:

    {"do": "build", "case": "lsm", "folder": checkout or null, "settings": {...},
     "arrays": "arrays.npz", "state": "state.npz", "compile": false}
        -> {"parameters"}; reads x and y [batch, *grid, channels] from `arrays`, writes
        the state dict to `state`
    {"do": "step"} -> {"seconds", "loss"}; one training step: forward, the sum of
        relative L2 errors, backward, Adam with coupled decay; loss is the mean error
    {"do": "apply", "x": "x.npy", "y": "y.npy", "out_grid": [n1, ...] or null} -> {};
        the module in evaluation mode, with another output grid where it takes one

`classes` reads the modules out of released scripts. The checkouts are those of
github.com/xlliu2017/MgNO (3a68a90), thuml/Latent-Spectral-Models (d5a0b40),
zongyi-li/fourier_neural_operator (fd7b0ded) and scaomath/torch-cfd (475c738).
"""

import ast
import contextlib
import json
import os
import pathlib
import sys
import time
import types

import numpy as np
import torch

IMPORTED = (
    "__future__", "abc", "copy", "functools", "math", "numpy", "operator", "torch",
    "typing",
)  # fmt: skip
# Case -> (checkout, file, class), the checkout None for installed packages.
MODULES = {
    "fno_neuralop": (None, None, "FNO"),
    "uno_neuralop": (None, None, "UNO"),
    "layer_neuralop": (None, None, "SpectralConv"),
    "fno_li2021": ("fno", "fourier_2d.py", "FNO2d"),
    "mgno_darcy": ("mgno", "models.py", "MgNO_DC"),
    "mgno_navier_stokes": ("mgno", "models.py", "MgNO_NS"),
    "mgno_helmholtz": ("mgno", "models.py", "MgNO_helm"),
    "lsm": ("lsm", "models/LSM_2D.py", "Model"),
    "lsm_3d": ("lsm", "models/LSM_3D.py", "Model"),
    "sfno": ("sfno", "fno/sfno.py", "SFNO"),
}
CHANNELS_LAST = ("fno_li2021", "lsm", "lsm_3d")
# What the SFNO takes from einops, which is not installed.
EINOPS = {
    "rearrange": lambda z, pattern: z[:, None],  # b x y t -> b 1 x y t
    "repeat": lambda z, pattern, d: z[:, None].expand(-1, d, -1, -1, -1),
}


def classes(path: pathlib.Path, known: dict | None = None) -> types.SimpleNamespace:
    """Classes and functions of a script, without running what it does besides.

    Args:
        path: the script.
        known: names that it takes from elsewhere.
    """
    tree = ast.parse(path.read_text())
    kept = []
    for node in tree.body:
        names = [getattr(node, "module", None) or ""]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.Import | ast.ImportFrom):
            if all(name.split(".")[0] in IMPORTED for name in names):
                kept.append(node)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            kept.append(node)
    for node in ast.walk(tree):  # the released modules insist on a GPU
        if isinstance(node, ast.Constant) and node.value == "cuda":
            node.value = "cpu"
    torch.Tensor.cuda = lambda self: self
    names = dict(known or {})
    exec(compile(ast.Module(kept, []), str(path), "exec"), names)
    return types.SimpleNamespace(**names)


def build(case: str, folder: str | None, settings: dict) -> torch.nn.Module:
    """The official module of a case.

    Raises:
        ValueError: for an unknown case.
    """
    if case not in MODULES:
        raise ValueError(f"unknown case {case!r}; known: {', '.join(MODULES)}")
    checkout, file, name = MODULES[case]
    if checkout is None:
        from neuralop import models

        if name == "SpectralConv":
            return _identity_layer(settings)
        with contextlib.redirect_stdout(None):  # UNO prints
            return getattr(models, name)(**settings)
    known = {}
    if checkout == "sfno":
        convolutions = {"conv_dict": {3: torch.nn.Conv3d}}
        base = classes(pathlib.Path(folder) / "fno" / "base.py", convolutions)
        known = EINOPS | vars(base)
    cls = getattr(classes(pathlib.Path(folder) / file, known), name)
    if checkout == "lsm":
        return cls(types.SimpleNamespace(**settings))
    if checkout == "fno":
        return cls(*settings["positional"])
    return cls(**settings)


def _identity_layer(settings):
    """The spectral layer of neuraloperator, one channel, all weights 1."""
    from neuralop.layers.spectral_convolution import SpectralConv

    layer = SpectralConv(1, 1, bias=False, **settings)
    with torch.no_grad():
        layer.weight.tensor.fill_(1)
    return layer


class Worker:
    """Answers requests; holds one module and its optimiser."""

    def answer(self, do, **request):
        """Calls the method that a request names."""
        known = {"build": self.build, "step": self.step, "apply": self.apply}
        if do not in known:
            raise ValueError(f"cannot do {do!r}; known: {', '.join(known)}")
        return known[do](**request)

    def build(self, case, folder, settings, arrays=None, state=None, compile=False):
        """Makes module, data and optimiser anew."""
        torch.manual_seed(0)
        self.module = build(case, folder, settings)
        self.last, self.frames = case in CHANNELS_LAST, case == "sfno"
        if state is not None:
            tensors = self.module.state_dict()
            names = [k for k, v in tensors.items() if isinstance(v, torch.Tensor)]
            np.savez(state, **{k: tensors[k].numpy() for k in names})
        if arrays is not None:
            with np.load(arrays) as file:
                self.x, self.y = (torch.from_numpy(file[k]) for k in "xy")
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=1e-3, weight_decay=1e-4
        )
        self.called = torch.compile(self.module) if compile else self.module
        own = self.module.parameters()
        return {"parameters": sum(p.numel() * (1 + p.is_complex()) for p in own)}

    def step(self):
        """One step of training on the whole batch."""
        self.module.train()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        error = (self.forward(self.x) - self.y).flatten(1)
        norms = self.y.flatten(1).norm(dim=1)
        loss = (error.norm(dim=1) / norms).sum()
        loss.backward()
        self.optimizer.step()
        mean = loss.item() / len(self.x)  # waits
        return {"seconds": time.perf_counter() - start, "loss": mean}

    def apply(self, x, y, out_grid=None):
        """Writes the module's output on an input [batch, *grid, channels]."""
        self.module.eval()
        options = {} if out_grid is None else {"output_shape": tuple(out_grid)}
        with torch.no_grad():
            np.save(y, self.forward(torch.from_numpy(np.load(x)), **options).numpy())
        return {}

    def forward(self, x, **options):
        """The module on [batch, *grid, channels]."""
        if self.frames:
            return self.called(x[..., 0], **options)[..., None]
        if self.last:
            return self.called(x, **options)
        return self.called(x.movedim(-1, 1), **options).movedim(1, -1)


def main():
    """Answers line by line until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not get among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(**json.loads(line))
        except Exception as error:  # one bad request must not end the benchmark
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
