"""Seconds per step of two-dimensional flows beside jax-cfd and torch-cfd.

    uv run -m benchmarks.peers --flows     # once
    uv run -m benchmarks.navier_stokes --json out.json [--quick]
    uv run -m benchmarks.navier_stokes --part counts --part mcwilliams --json out.json

Part `steps`: the same field, grid, precision, step size and scheme (CN-RK4 of Carpenter
and Kennedy with the 2/3 rule) on one core, taken in turn; a row is accepted if the
fields after the same steps agree.

`seconds` is processor time, the smallest of all turns: with one core and nothing to
wait for it is what the clock shows on an idle machine (`seconds_wall`), but does not
count what other processes take.

Part `counts`: steps, real FFTs and seconds until the reference flow (nu = 0.01, t = 1)
has a relative error of 1e-8, for every scheme; jax-cfd takes as many as `cn_rk4`.
`ffts_of_cn_rk4` is how many times as many our `cn_rk4` needs.

Part `mcwilliams`: one trajectory of decaying turbulence (256 x 256, nu = 1e-3, float64)
to t = 9.945, 100 frames from t = 4.5 on. The published recipe takes 1e-3 steps of
CN-RK4; `seconds_set` is the time of all 1152 trajectories, that many times the steps of
one times the measured seconds per step. `error` is the worst of the frames, relative to
a fifth of the step.
"""

import argparse
import functools
import pathlib
import tempfile
import time

from benchmarks import timing

CORE = timing.pin_one_core()  # before JAX starts its threads

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import peers  # noqa: E402
from datagen import initial_fields  # noqa: E402
from solvers import spectral  # noqa: E402

PARTS = ("steps", "counts", "mcwilliams")
LENGTHS = (2 * np.pi, 2 * np.pi)
VISCOSITY = 0.01
# The peers' 2/3 masks are not symmetric, ours is: what differs is what their outermost
# rows hold, below these relative differences on a resolved flow.
TOLERANCES = {"float32": 1e-5, "float64": 1e-11}
PEER_TRANSFORMS = 5 * 5  # five stages with four inverse and one forward real FFT
TARGET = 1e-8
SCHEMES = ("cn_rk4", "if_rk4", "etdrk4", "if_rk5", "if_rk8")
TRAJECTORIES, FRAME_SPACING, FIRST_FRAME, FRAMES = 1152, 0.055, 4.5, 100


def reference_field(n: int) -> np.ndarray:
    """The vorticity of a smooth flow of three waves, [n, n]."""
    x, y = spectral.PeriodicGrid((n, n), LENGTHS).mesh()
    waves = np.cos(x) * np.cos(2 * y), np.sin(2 * x + y), np.cos(3 * y - x) / 2
    return sum(waves)


class Flow:
    """Our solver with the requests of `benchmarks.flow_worker`."""

    def __init__(self, field, dtype, viscosity, dt, scheme="cn_rk4"):
        grid = spectral.PeriodicGrid(field.shape, LENGTHS)
        equation = spectral.NavierStokes2d(grid, viscosity=viscosity).astype(dtype)
        step = spectral.stepper(scheme)(equation, dt, np.dtype(dtype))
        self.equation = equation
        self.state = equation.to_state(jnp.asarray(field, dtype))
        self.loop = jax.jit(
            lambda u, num: jax.lax.fori_loop(0, num, lambda i, u: step(u, i * dt), u)
        )

    def time(self, num):
        """Processor and wall time of steps."""
        start, clock = time.perf_counter(), time.process_time()
        self.loop(self.state, num).block_until_ready()
        return time.process_time() - clock, time.perf_counter() - start

    def field(self, num):
        """The vorticity after so many steps."""
        return np.asarray(self.equation.to_field(self.loop(self.state, num)))


class PeerFlow:
    """A peer in its own process, with the methods of `Flow`."""

    def __init__(self, process, peer, folder):
        self.process, self.peer, self.folder = process, peer, pathlib.Path(folder)

    def build(self, field, dtype, viscosity, dt):
        """Makes the flow anew."""
        path = self.folder / "field.npy"
        np.save(path, field)
        request = {"dtype": dtype, "viscosity": viscosity, "dt": dt}
        self.process.ask(do="build", peer=self.peer, field=str(path), **request)
        return self

    def time(self, num):
        """Processor and wall time of steps."""
        answer = self.process.ask(do="time", num=num)
        return answer["seconds"], answer["seconds_wall"]

    def field(self, num):
        """The vorticity after so many steps."""
        path = self.folder / "out.npy"
        self.process.ask(do="run", num=num, out=str(path))
        return np.load(path)


def start_peers(folder) -> dict[str, PeerFlow]:
    """The peers that are installed."""
    found = {}
    for peer, environment in peers.FLOW_FOLDERS.items():
        try:
            python = environment / "bin" / "python"
            process = peers.PeerProcess(python, worker="flow_worker")
        except FileNotFoundError as error:
            print(f"without {peer}: {error}")
        else:
            found[peer] = PeerFlow(process, peer, folder)
    return found


def measure_steps(flows: dict, num: int, turns: int) -> dict[str, dict]:
    """Seconds per step by name: all take `num` steps in turn, `turns` times."""
    for flow in flows.values():
        flow.time(num)  # compiles
    seconds = {name: [] for name in flows}
    for _ in range(turns):
        for name, flow in flows.items():
            seconds[name].append(np.divide(flow.time(num), num))
    return {
        name: {
            "seconds": float(np.min(values, axis=0)[0]),
            "seconds_median": float(np.median(values, axis=0)[0]),
            "seconds_wall": float(np.min(values, axis=0)[1]),
        }
        for name, values in seconds.items()
    }


def relative_difference(a, b) -> float:
    """||a - b|| / ||b|| in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def run_steps(found, sizes, turns) -> list[dict]:
    """Rows of part `steps`."""
    rows, dt = [], 5e-3
    for n in sizes:
        field = reference_field(n)
        num = max(1, 512 // n)
        for dtype, tolerance in TOLERANCES.items():
            arguments = field, dtype, VISCOSITY, dt
            ours = {"cn_rk4": Flow(*arguments)}
            flows = ours | {name: p.build(*arguments) for name, p in found.items()}
            seconds = measure_steps(flows, num, turns)
            expected = Flow(field, "float64", VISCOSITY, dt).field(20)
            group = []
            for name, flow in flows.items():
                difference = relative_difference(flow.field(20), expected)
                group.append(
                    {"part": "steps", "method": name, "n": n, "dtype": dtype}
                    | seconds[name]
                    | {"difference": difference, "accepted": difference <= tolerance}
                    | {"turns": turns}
                )
            rows += timing.add_ratios(group, peers=set(found))
            for row in rows[-len(group) :]:
                print(
                    f"{n:>5} {dtype} {row['method']:<10} "
                    f"{1e6 * row['seconds']:9.0f} us/step  median "
                    f"{1e6 * row['seconds_median']:9.0f}  ratio to best peer "
                    f"{row['ratio_to_best_peer']:5.2f}  difference "
                    f"{row['difference']:.1e}",
                    flush=True,
                )
    return rows


def fewest_steps(error_of, target: float) -> int:
    """Smallest number of steps with error_of(steps) <= target, by bisection."""
    low, high = 0, 1
    while not error_of(high) <= target:
        low, high = high, 2 * high
        if high > 10**4:
            raise ValueError(f"no number of steps up to {low} reaches {target}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error_of(middle) <= target else (middle, high)
    return high


@functools.partial(jax.jit, static_argnames="scheme")
def _march(equation, state, dt, num, scheme):
    """As `Flow.field`, but compiled once for all step sizes."""
    step = spectral.stepper(scheme)(equation, dt, state.real.dtype)
    return jax.lax.fori_loop(0, num, lambda i, u: step(u, i * dt), state)


def run_counts(found, n, turns) -> list[dict]:
    """Rows of part `counts`."""
    field = reference_field(n)
    exact = Flow(field, "float64", VISCOSITY, 1 / 32, "if_rk8").field(32)

    grid = spectral.PeriodicGrid((n, n), LENGTHS)
    equation = spectral.NavierStokes2d(grid, viscosity=VISCOSITY)

    def error(scheme, steps):
        state = _march(equation, equation.to_state(field), 1 / steps, steps, scheme)
        return relative_difference(equation.to_field(state), exact)

    def ours(scheme):
        return lambda dt: Flow(field, "float64", VISCOSITY, dt, scheme)

    makers = {scheme: ours(scheme) for scheme in SCHEMES}
    if "jax_cfd" in found:  # takes the steps of the same scheme, cn_rk4
        build = found["jax_cfd"].build
        makers["jax_cfd"] = lambda dt: build(field, "float64", VISCOSITY, dt)
    rows = []
    for name, make in makers.items():
        steps, per_step = (rows[0]["steps"] if rows else 0), PEER_TRANSFORMS
        if name != "jax_cfd":
            steps = fewest_steps(functools.partial(error, name), TARGET)
            per_step = spectral.transforms_per_step(name, equation)
        flow = make(1 / steps)
        flow.time(steps)
        row = {
            "part": "counts",
            "method": name,
            "n": n,
            "dtype": "float64",
            "steps": steps,
            "ffts": steps * per_step,
            "error": relative_difference(flow.field(steps), exact),
            "seconds": min(flow.time(steps)[0] for _ in range(turns)),
        }
        row["ffts_of_cn_rk4"] = (rows[0] if rows else row)["ffts"] / row["ffts"]
        rows.append(row)
        print(
            f"{name:<10} {steps:>5} steps {row['ffts']:>6} FFTs  error "
            f"{row['error']:.1e}  {row['seconds']:8.4f} s",
            flush=True,
        )
    return rows


def turbulence(n: int, *, seed: int = 1127825) -> np.ndarray:
    """One initial field of the McWilliams set, [n, n]."""
    law = initial_fields.McWilliamsField((n - 1) // 3, LENGTHS)
    coefficients = law.draw(np.random.default_rng(seed))
    return initial_fields.fourier_series(coefficients, (n, n))


def run_mcwilliams(found, n, per_frame, frames, turns) -> list[dict]:
    """Rows of part `mcwilliams`: ours with `per_frame` steps of `if_rk8` per frame."""
    field, viscosity, recipe = turbulence(n), 1e-3, 1e-3
    grid = spectral.PeriodicGrid((n, n), LENGTHS)
    equation = spectral.NavierStokes2d(grid, viscosity=viscosity)
    times = FIRST_FRAME + FRAME_SPACING * np.arange(frames)
    solve = functools.partial(
        spectral.rollout, equation, jnp.asarray(field), times, scheme="if_rk8"
    )
    dt = FRAME_SPACING / per_frame * (1 + 1e-9)
    ours, exact = solve(dt=dt), np.asarray(solve(dt=dt / 5).fields)
    differences = np.asarray(ours.fields) - exact
    errors = np.linalg.norm(differences, axis=(1, 2)) / np.linalg.norm(
        exact, axis=(1, 2)
    )
    flows = {
        name: peer.build(field, "float64", viscosity, recipe)
        for name, peer in found.items()
    }
    flows["cn_rk4"] = Flow(field, "float64", viscosity, recipe)
    flows["if_rk8"] = Flow(field, "float64", viscosity, dt, "if_rk8")
    seconds = measure_steps(flows, 2, turns)
    steps = dict.fromkeys(flows, round(times[-1] / recipe)) | {"if_rk8": ours.steps}
    rows = []
    for name, values in seconds.items():
        row = {"part": "mcwilliams", "method": name, "n": n, "dtype": "float64"}
        row |= values | {"steps": steps[name]}
        row["seconds_set"] = TRAJECTORIES * steps[name] * row["seconds"]
        if name == "if_rk8":
            row |= {"error": float(errors.max()), "max_cfl": float(ours.max_cfl)}
        rows.append(row)
    for row in rows:
        row["ratio_to_if_rk8"] = row["seconds_set"] / rows[-1]["seconds_set"]
        print(
            f"{row['method']:<10} {row['steps']:>6} steps "
            f"{row['seconds_set'] / 3600:8.2f} h for {TRAJECTORIES} trajectories, "
            f"{row['ratio_to_if_rk8']:6.1f} times if_rk8"
            + (f", error {row['error']:.1e}" if "error" in row else ""),
            flush=True,
        )
    return rows


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", help="file for the rows")
    parser.add_argument("--quick", action="store_true", help="small and few")
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    parser.add_argument("--turns", type=int, help="timed turns per row")
    options = parser.parse_args()
    timing.switch_on_float64()
    quick, parts = options.quick, options.part or PARTS
    turns = options.turns or (3 if quick else 60)
    rows = []
    print(f"core {CORE}, {timing.hardware()['cpu']}")
    with tempfile.TemporaryDirectory() as folder:
        found = start_peers(folder)
        try:
            if "steps" in parts:
                rows += run_steps(found, (64,) if quick else (128, 256), turns)
            if "counts" in parts:
                rows += run_counts(found, 48 if quick else 96, min(turns, 10))
            if "mcwilliams" in parts:
                size = (32, 1, 2) if quick else (256, 2, FRAMES)
                rows += run_mcwilliams(found, *size, min(turns, 20))
        finally:
            for peer in found.values():
                peer.process.close()
    timing.write_json(options.json, title="Navier-Stokes steps", rows=rows, core=CORE)


if __name__ == "__main__":
    main()
