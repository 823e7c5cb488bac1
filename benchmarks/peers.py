"""Other people's solvers and models for the benchmarks, in environments of their own.

    uv run -m benchmarks.peers            # solvers
    uv run -m benchmarks.peers --torch    # PyTorch and neuraloperator

build `.venv-peers` and `.venv-torch` beside this folder from wheels with pinned
versions. What has no wheel for this machine is named and left out; the benchmarks run
without it. `PeerProcess` talks to `benchmarks/peer_worker.py`, or to
`benchmarks/torch_worker.py`, which run there. Models that are in no package (MgNO, LSM,
the FNO of 2021) are read from checkouts of their repositories, see `torch_worker`.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
TORCH_FOLDER = ROOT / ".venv-torch"
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


def main(argv: list[str] | None = None) -> list[str]:
    """Builds the environment; returns the names of the packages that it has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", action="store_true", help="build .venv-torch")
    options = parser.parse_args(argv)
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not on the path; it builds the environment")
    if options.torch:
        return _build_torch(uv)
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
    _run(uv, "venv", "--clear", "--quiet", "--python", TORCH_PYTHON, TORCH_FOLDER)
    wheels = os.environ.get("PIP_FIND_LINKS")  # pip's own setting; uv has another name
    options = ("--find-links", wheels) if wheels else ()
    for packages in (TORCH, NEURALOPERATOR_NEEDS, ("--no-deps", NEURALOPERATOR)):
        try:
            _install(uv, (*options, *packages), TORCH_FOLDER)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1]
            raise SystemExit(
                f"cannot install {', '.join(packages)}: {reason}"
            ) from None
        print(f"installed {', '.join(packages)}")
    print(f"{TORCH_FOLDER} holds torch, neuraloperator")
    return ["torch", "neuraloperator"]


def _install(uv, packages, folder=FOLDER):
    python = folder / "bin" / "python"
    where = ("pip", "install", "--quiet", "--python", python)
    _run(uv, *where, "--only-binary", ":all:", *packages)


def _run(*command):
    subprocess.run(
        list(map(str, command)), check=True, text=True, stderr=subprocess.PIPE
    )


class PeerProcess:
    """A process in a peers' environment that solves systems or trains on request.

    It inherits core and threads of this one. Requests and answers are JSON lines, see
    `benchmarks.peer_worker` and `benchmarks.torch_worker`.

    Args:
        python: interpreter of the environment; None: that of `.venv-peers`, or of
            `.venv-torch` for the torch worker.
        worker: "peer_worker" or "torch_worker".

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
            option = " --torch" if is_torch else ""
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
