"""Other people's solvers and models for the benchmarks, in environments of their own.

    uv run -m benchmarks.peers            # solvers
    uv run -m benchmarks.peers --torch    # PyTorch and neuraloperator
    uv run -m benchmarks.peers --flows    # jax-cfd and torch-cfd

build `.venv-peers`, `.venv-torch`, or `.venv-jaxcfd` and `.venv-torchcfd`, beside this
folder from wheels with pinned versions. What has no wheel for this machine is named and
left out; the benchmarks run without it. `PeerProcess` talks to
`benchmarks/peer_worker.py`, `benchmarks/torch_worker.py` or
`benchmarks/flow_worker.py`, which run there. Models that are in no package (MgNO, LSM,
the FNO of 2021) are read from checkouts of their repositories, see `torch_worker`.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
TORCH_FOLDER = ROOT / ".venv-torch"
FLOW_FOLDERS = {
    "jax_cfd": ROOT / ".venv-jaxcfd",
    "torch_cfd": ROOT / ".venv-torchcfd",
}
BASE = ("numpy==2.5.5", "scipy==1.18.1")
# pyamg: algebraic multigrid; cvxopt: CHOLMOD with AMD; pypardiso: PARDISO of MKL.
PACKAGES = {
    "pyamg": ("pyamg==5.4.1",),
    "cvxopt": ("cvxopt==1.3.3",),
    "pypardiso": ("pypardiso==0.4.7", "mkl==2026.2.0"),
}
# Looked for and not found as a wheel: hypre (in no package), scikit-sparse (its source
# needs SuiteSparse); cvxopt stands for the latter, PETSc's GAMG for the former.
WITHOUT_WHEEL = ("hypre", "scikit-sparse")
TORCH_PYTHON = "3.11"
TORCH = ("torch==2.13.0", "numpy==2.4.6")
# neuraloperator, and of what it asks for only what importing its models needs.
NEURALOPERATOR = "neuraloperator==2.0.0"
NEURALOPERATOR_NEEDS = (
    "h5py==3.16.0",
    "matplotlib==3.11.2",
    "opt-einsum==3.4.0",
    "requests==2.34.2",
    "ruamel-yaml==0.19.1",
    "scipy==1.17.1",
    "tensorly==0.10.0",
    "tensorly-torch==0.5.0",
    "zencfg==1.0.0",
)
# Of what torch-cfd asks for only what importing its spectral solver needs.
TORCH_CFD = "torch-cfd==0.2.6"
TORCH_CFD_NEEDS = (
    "dill==0.4.1",
    "einops==0.8.2",
    "matplotlib==3.11.2",
    "tqdm==4.70.1",
    "xarray==2026.9.0",
)
JAX_CFD = "jax-cfd==0.2.1"
JAX_CFD_NEEDS = ("tree-math==0.2.1",)


def main(argv: list[str] | None = None) -> list[str]:
    """Builds the environment; returns the names of the packages that it has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", action="store_true", help="build .venv-torch")
    parser.add_argument(
        "--flows", action="store_true", help="build .venv-jaxcfd and .venv-torchcfd"
    )
    options = parser.parse_args(argv)
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not on the path; it builds the environment")
    if options.torch:
        return _build_torch(uv)
    if options.flows:
        return _build_flows(uv)
    # The interpreter behind our own environment; uv must not download one.
    base = getattr(sys, "_base_executable", sys.executable)
    _run(uv, "venv", "--clear", "--quiet", "--python", base, FOLDER)
    _install(uv, BASE)
    found = []
    for name, packages in PACKAGES.items():
        try:
            _install(uv, packages)
        except subprocess.CalledProcessError as error:
            print(f"skipping {name}: {error.stderr.strip().splitlines()[-1]}")
        else:
            found.append(name)
            print(f"installed {', '.join(packages)}")
    print(f"no wheel exists for {', '.join(WITHOUT_WHEEL)}")
    print(f"{FOLDER} holds {', '.join(found) or 'no peers'}")
    return found


def _build_torch(uv) -> list[str]:
    groups = (TORCH, NEURALOPERATOR_NEEDS, ("--no-deps", NEURALOPERATOR))
    _build(uv, TORCH_FOLDER, TORCH_PYTHON, groups)
    print(f"{TORCH_FOLDER} holds torch, neuraloperator")
    return ["torch", "neuraloperator"]


def _build_flows(uv) -> list[str]:
    """Two environments; jax-cfd runs on the JAX of our own."""
    jax = tuple(f"{p}=={importlib.metadata.version(p)}" for p in ("jax", "jaxlib"))
    base = getattr(sys, "_base_executable", sys.executable)
    groups = ((*BASE, *jax), JAX_CFD_NEEDS, ("--no-deps", JAX_CFD))
    _build(uv, FLOW_FOLDERS["jax_cfd"], base, groups)
    groups = (TORCH, TORCH_CFD_NEEDS, ("--no-deps", TORCH_CFD))
    _build(uv, FLOW_FOLDERS["torch_cfd"], TORCH_PYTHON, groups)
    for name, folder in FLOW_FOLDERS.items():
        print(f"{folder} holds {name}")
    return list(FLOW_FOLDERS)


def _build(uv, folder, python, groups):
    """A new environment from groups of packages, each with its options of pip."""
    _run(uv, "venv", "--clear", "--quiet", "--python", python, folder)
    wheels = os.environ.get("PIP_FIND_LINKS")  # pip's own setting; uv has another name
    options = ("--find-links", wheels) if wheels else ()
    for packages in groups:
        try:
            _install(uv, (*options, *packages), folder)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1]
            raise SystemExit(
                f"cannot install {', '.join(packages)}: {reason}"
            ) from None
        print(f"installed {', '.join(packages)}")


def _install(uv, packages, folder=FOLDER):
    python = folder / "bin" / "python"
    where = ("pip", "install", "--quiet", "--python", python)
    _run(uv, *where, "--only-binary", ":all:", *packages)


def _run(*command):
    subprocess.run(
        list(map(str, command)), check=True, text=True, stderr=subprocess.PIPE
    )


class PeerProcess:
    """A process in a peers' environment: solves systems, trains or steps on request.

    It inherits core and threads of this one. Requests and answers are JSON lines, see
    `benchmarks.peer_worker`, `benchmarks.torch_worker` and `benchmarks.flow_worker`.

    Args:
        python: interpreter of the environment; None: that of `.venv-peers`, or of
            `.venv-torch` for the torch worker.
        worker: "peer_worker", "torch_worker" or "flow_worker"; the last takes the
            interpreter of one of `FLOW_FOLDERS`.

    Raises:
        FileNotFoundError: if there is no such environment.
    """

    def __init__(
        self, python: str | os.PathLike | None = None, worker: str = "peer_worker"
    ):
        is_torch = worker == "torch_worker"
        folder = TORCH_FOLDER if is_torch else FOLDER
        python = pathlib.Path(python or folder / "bin" / "python")
        if not python.exists():
            options = {"torch_worker": " --torch", "flow_worker": " --flows"}
            option = options.get(worker, "")
            raise FileNotFoundError(
                f"{python} does not exist; build it with "
                f"`uv run -m benchmarks.peers{option}`"
            )
        self._process = subprocess.Popen(
            [python, pathlib.Path(__file__).with_name(f"{worker}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        """Sends one request and waits for the answer.

        Raises:
            RuntimeError: if the process has ended or the request failed; the message
                says why.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the peers' process ended with exit code {code}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


if __name__ == "__main__":
    main()
