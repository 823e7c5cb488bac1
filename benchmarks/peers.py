"""Other people's solvers for the benchmarks, in an environment of their own.

    uv run -m benchmarks.peers

builds `.venv-peers` beside this folder from binary wheels with pinned versions. What
has no wheel for this machine is named and left out; the benchmarks run without it.
`PeerProcess` talks to `benchmarks/peer_worker.py`, which runs there.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / ".venv-peers"
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


def main(argv: list[str] | None = None) -> list[str]:
    """Builds the environment; returns the names of the packages that it has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not on the path; it builds the environment")
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


def _install(uv, packages):
    python = FOLDER / "bin" / "python"
    where = ("pip", "install", "--quiet", "--python", python)
    _run(uv, *where, "--only-binary", ":all:", *packages)


def _run(*command):
    subprocess.run(
        list(map(str, command)), check=True, text=True, stderr=subprocess.PIPE
    )


class PeerProcess:
    """A process in the peers' environment that solves systems on request.

    It inherits core and threads of this one. Requests and answers are JSON lines, see
    `benchmarks.peer_worker`.

    Args:
        python: interpreter of the environment; None: that of `.venv-peers`.

    Raises:
        FileNotFoundError: if there is no such environment.
    """

    def __init__(self, python: str | os.PathLike | None = None):
        python = pathlib.Path(python or FOLDER / "bin" / "python")
        if not python.exists():
            raise FileNotFoundError(
                f"{python} does not exist; build it with `uv run -m benchmarks.peers`"
            )
        worker = pathlib.Path(__file__).with_name("peer_worker.py")
        self._process = subprocess.Popen(
            [python, worker],
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
