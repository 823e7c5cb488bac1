"""Steps flows with jax-cfd or torch-cfd; runs in their environments, not in ours.

Reads one JSON request a line from standard input and answers each with one line:

    {"do": "build", "peer": "jax_cfd" or "torch_cfd", "field": vorticity.npy [n, n],
     "dtype": "float32" or "float64", "viscosity": nu, "dt": dt} -> {}
    {"do": "time", "num": steps} -> {"seconds", "seconds_wall"}, processor and wall time
        of that many steps from the field
    {"do": "run", "num": steps, "out": vorticity.npy} -> {}

Both peers step the vorticity on (0, 2 pi)^2 by Crank-Nicolson and the low-storage
Runge-Kutta method of Carpenter and Kennedy with their 2/3 filter. jax-cfd is compiled
as a whole; torch-cfd runs as released, without gradients.
"""

import json
import os
import sys
import time

import numpy as np

DOMAIN = ((0.0, 2 * np.pi),) * 2


class JaxCfd:
    """Steps with jax-cfd in one compiled loop."""

    def __init__(self, field, viscosity, dt):
        import jax

        jax.config.update("jax_enable_x64", field.dtype == np.float64)
        jax.clear_caches()
        from jax_cfd.base import grids
        from jax_cfd.spectral import equations, time_stepping

        self.jax = jax
        grid = grids.Grid(field.shape, domain=DOMAIN)
        equation = equations.NavierStokes2D(viscosity, grid, smooth=True)
        step = time_stepping.crank_nicolson_rk4(equation, dt)
        self.state = jax.numpy.fft.rfftn(jax.numpy.asarray(field))
        self.shape = field.shape
        self.loop = jax.jit(
            lambda state, num: jax.lax.fori_loop(0, num, lambda _, s: step(s), state)
        )

    def run(self, num):
        """The state after so many steps."""
        return self.loop(self.state, num).block_until_ready()

    def field(self, state):
        """Vorticity [n, n] of a state."""
        return np.asarray(self.jax.numpy.fft.irfftn(state, s=self.shape))


class TorchCfd:
    """Steps with torch-cfd."""

    def __init__(self, field, viscosity, dt):
        import torch
        from torch_cfd import grids, spectral

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        # Its constants are made in the default precision.
        torch.set_default_dtype(getattr(torch, str(field.dtype)))
        self.torch = torch
        grid = grids.Grid(field.shape, domain=DOMAIN)
        self.equation = spectral.NavierStokes2DSpectral(
            viscosity, grid, smooth=True, step_fn=spectral.RK4CrankNicolsonStepper()
        )
        self.state = torch.fft.rfft2(torch.from_numpy(field))
        self.shape, self.dt = field.shape, dt

    def run(self, num):
        """The state after so many steps."""
        with self.torch.no_grad():
            return self.equation(self.state, self.dt, num)[0]

    def field(self, state):
        """Vorticity [n, n] of a state."""
        return self.torch.fft.irfft2(state, s=self.shape).numpy()


PEERS = {"jax_cfd": JaxCfd, "torch_cfd": TorchCfd}


class Worker:
    """Answers requests; holds one flow."""

    def answer(self, do, **request):
        """Calls the method that a request names."""
        known = {"build": self.build, "time": self.time, "run": self.run}
        if do not in known:
            raise ValueError(f"cannot do {do!r}; known: {', '.join(known)}")
        return known[do](**request)

    def build(self, peer, field, dtype, viscosity, dt):
        """Makes the flow anew."""
        self.flow = PEERS[peer](np.load(field).astype(dtype), viscosity, dt)
        return {}

    def time(self, num):
        """Processor and wall time of steps."""
        start, clock = time.perf_counter(), time.process_time()
        self.flow.run(num)
        seconds = time.process_time() - clock
        return {"seconds": seconds, "seconds_wall": time.perf_counter() - start}

    def run(self, num, out):
        """Steps and writes the field."""
        np.save(out, self.flow.field(self.flow.run(num)))
        return {}


def main():
    """Answers line by line until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not get among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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
