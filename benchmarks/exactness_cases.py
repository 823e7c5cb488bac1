"""What an operator must satisfy on grids, as numbers: models, controls and errors.

A model is a function x [batch, *grid, channels] -> y on the same grid, with random
weights of the size of initial ones. NumPy draws them: JAX compiles a draw for every
shape, which takes longer than all the rest. Controls are maps that are wrong in a known
way, as released ones are: a test that they pass proves nothing.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx

from operators import models
from operators.layers.resampling import fourier_matrix
from operators.layers.spectral import SpectralConvolution

# hparams of `models.create` by the name of the row.
MODELS: dict[str, dict[str, Any]] = {
    "FNO": {"name": "fno", "coordinates": "none"},
    "FNO, periodic coordinates": {"name": "fno", "coordinates": "periodic"},
    "FNO, grid coordinates": {"name": "fno", "coordinates": "grid"},
    "U-NO": {"name": "uno", "coordinates": "none"},
    "U-NO, grid coordinates": {"name": "uno", "coordinates": "grid"},
    "MgNO, periodic": {
        "name": "mgno", "boundary": "periodic", "prolongation": "wrap",
        "sizes": "crop",
    },
    "MgNO, periodic as released": {
        "name": "mgno", "boundary": "periodic", "prolongation": "official",
        "sizes": "crop",
    },
    "LSM, patches of the domain": {"name": "lsm", "coordinates": "none"},
    "LSM, patches of pixels": {
        "name": "lsm", "coordinates": "none", "patch_size": (4, 4),
    },
    "U-Net": {"name": "unet", "coordinates": "none"},
}  # fmt: skip
SIZES = {
    "fno": {"modes": (8, 8), "channels": 32},
    "uno": {
        "modes": ((8, 8), (6, 6), (3, 3), (6, 6), (8, 8)),
        "layer_channels": (16, 24, 24, 24, 16),
        "channels": 16,
        "lifting_channels": 32,
        "projection_channels": 32,
    },
    "mgno": {"channels": 8, "num_layers": 2, "cycle": ((1, 0), (1, 0), (2, 0))},
    "lsm": {"channels": 8, "num_scales": 3, "patches_per_axis": 4, "norm": "none"},
    "unet": {"channels": 8, "num_scales": 3, "norm": "none"},
}


def random_weights(state: nnx.State, *, seed: int = 0) -> nnx.State:
    """Fills the parameters: complex ones N(0, 1 / (in + out)), kernels by their fan-in.

    Vectors called bias get U[-0.1, 0.1], all others stay ones (scales and gates).
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = str(path)
        if "'real'" in name or "'imag'" in name:
            value = rng.normal(size=leaf.shape) / np.sqrt(sum(leaf.shape[-2:]))
        elif leaf.ndim > 1:
            value = rng.uniform(-1, 1, leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        elif "bias" in name:
            value = rng.uniform(-0.1, 0.1, leaf.shape)
        else:
            value = np.ones(leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    return jax.tree.map_with_path(draw, state)


class Model:
    """A model with random weights, compiled once per grid.

    Args:
        hparams: `name` and keyword arguments of `models.create`, one channel in and
            one out; models that are built for a grid are rebuilt with the same
            weights.
        seed: of the weights.
    """

    def __init__(self, hparams: dict[str, Any], *, seed: int = 0):
        self._hparams = {"in_channels": 1, "out_channels": 1} | hparams
        self._seed = seed
        self._grid_bound = "grid" in models.hyperparameters(hparams["name"])
        self._compiled = {}

    def _compile(self, grid: tuple[int, ...]) -> Callable:
        hparams = self._hparams | ({"grid": grid} if self._grid_bound else {})
        model = nnx.eval_shape(lambda: models.create(rngs=nnx.Rngs(0), **hparams))
        model.eval()
        graph, parameters, rest = nnx.split(model, nnx.Param, ...)
        parameters = random_weights(parameters, seed=self._seed)

        @jax.jit
        def apply(parameters, x):
            return nnx.merge(graph, parameters, rest)(x)

        return functools.partial(apply, parameters)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Maps x [batch, *grid, 1] in float32; the result in float64."""
        grid = x.shape[1:-1]
        if grid not in self._compiled:
            self._compiled[grid] = self._compile(grid)
        return np.asarray(self._compiled[grid](jnp.asarray(x, jnp.float32)), np.float64)


def plain_convolutions(x: np.ndarray, *, num_layers: int = 3, width: int = 8):
    """A network of periodic 3 x 3 convolutions and GELU; its kernels are pixels."""
    rng = np.random.default_rng(0)
    channels = (x.shape[-1], *(width,) * (num_layers - 1), 1)
    for layer, (c, d) in enumerate(itertools.pairwise(channels)):
        kernel = rng.normal(size=(3, 3, c, d)) / np.sqrt(9 * c)
        x = sum(
            np.roll(x, (1 - i, 1 - j), (1, 2)) @ kernel[i, j]
            for i, j in itertools.product(range(3), repeat=2)
        )
        if layer < num_layers - 1:
            x = x * scipy.special.ndtr(x)  # GELU
    return x


def band_limited(
    grid: Sequence[int], *, top: int = 6, cells: float = 0.0, seed: int = 0
) -> np.ndarray:
    """One random field of all |k_j| <= top on a grid, [1, *grid, 1].

    The points of axis 1 are moved by this many cells of the grid.
    """
    rng = np.random.default_rng(seed)
    k = np.arange(-top, top + 1)
    field = rng.normal(size=(2, *(len(k),) * len(grid)))
    field = (field[0] + 1j * field[1]) / len(k) ** (len(grid) / 2)
    for axis, n in enumerate(grid):
        # Each product takes the first axis and appends that of the points.
        points = (np.arange(n) + (cells if axis == 0 else 0)) / n
        field = np.tensordot(field, np.exp(2j * np.pi * np.outer(k, points)), (0, 0))
    return field.real[None, ..., None]


def at_points_of(y: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Trigonometric interpolation of periodic y [1, *fine, c] at coarser points.

    No content is removed: y is refined to multiples of `grid` and then sampled.
    """
    for axis, n in enumerate(grid, start=1):
        stride = -(-y.shape[axis] // n)
        if n * stride != y.shape[axis]:
            matrix = fourier_matrix(y.shape[axis], n * stride)
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
        y = np.take(y, np.arange(n) * stride, axis)
    return y


def relative(y: np.ndarray, expected: np.ndarray) -> float:
    """Euclidean norm of the error over that of the expected field without its mean.

    Biases of random networks can make the mean much larger than the field around it.
    """
    return float(
        np.linalg.norm(y - expected) / np.linalg.norm(expected - expected.mean())
    )


def refinement_errors(
    model: Callable, grids: Sequence[int], *, finest: int = 256, top: int = 6
) -> list[float]:
    """Errors on n x n points against the output on the finest grid, same weights."""
    reference = model(band_limited((finest, finest), top=top))
    return [
        relative(model(band_limited((n, n), top=top)), at_points_of(reference, (n, n)))
        for n in grids
    ]


def observed_orders(errors: Sequence[float]) -> list[float]:
    """log2 of the ratios of errors on grids that are refined twice at a time."""
    return [float(np.log2(a / b)) for a, b in itertools.pairwise(errors)]


def shift_error(model: Callable, n: int, cells: float, *, top: int = 6) -> float:
    """How far the model on n x n points is from commuting with a shift along axis 1.

    A shift by whole cells moves the output. One by quarters of cells is compared with
    the output on the grid that is four times finer, at the points in question.
    """
    moved = model(band_limited((n, n), top=top, cells=cells))
    if cells == int(cells):
        still = model(band_limited((n, n), top=top))
        return relative(moved, np.roll(still, -int(cells), 1))
    fine = model(band_limited((4 * n, 4 * n), top=top))
    return relative(moved, np.roll(fine, -round(4 * cells), 1)[:, ::4, ::4])


def identity_layer(
    modes: Sequence[int],
    transform: str = "auto",
    *,
    real: np.ndarray | float = 1.0,
    imag: np.ndarray | float = 0.0,
) -> Callable:
    """Our spectral layer with these weights, f(u, out_grid) of NumPy arrays.

    `real` and `imag` hold one number per mode, or one for all.
    """
    layer = nnx.eval_shape(
        lambda: SpectralConvolution(
            1, 1, modes=modes, layout="symmetric", transform=transform, rngs=nnx.Rngs(0)
        )
    )

    def fill(path, leaf):
        value = real if "'real'" in str(path) else imag
        value = np.broadcast_to(value, leaf.shape[:-2])
        return jnp.asarray(value.reshape(leaf.shape), leaf.dtype)

    graph, weights, rest = nnx.split(layer, nnx.Param, ...)
    weights = jax.tree.map_with_path(fill, weights)

    def apply(u, out_grid):
        u = jnp.asarray(u, jnp.float32)
        return np.asarray(_apply_layer(graph, weights, rest, u, tuple(out_grid)))

    return apply


@functools.partial(jax.jit, static_argnums=(0, 4))
def _apply_layer(graph, weights, rest, u, out_grid):
    return nnx.merge(graph, weights, rest)(u, out_grid)


def projection(u: np.ndarray, modes: Sequence[int], out_grid: Sequence[int]):
    """What identity weights must return: |k_j| <= modes_j below both Nyquists."""
    for axis, (m, out) in enumerate(zip(modes, out_grid, strict=True), start=1):
        n = u.shape[axis]
        k = np.arange(-m, m + 1)
        k = k[2 * np.abs(k) < min(n, out)]
        there = np.exp(-2j * np.pi * np.outer(k, np.arange(n)) / n) / n
        back = np.exp(2j * np.pi * np.outer(np.arange(out), k) / out)
        u = np.moveaxis(np.tensordot((back @ there).real, u, (1, axis)), 0, axis)
    return u


def linear_shift_error(layer: Callable, grid: Sequence[int], cells: float) -> float:
    """The same for a linear layer f(u, out_grid) and any shift, on one grid.

    Both fields are moved through the phases of their Fourier coefficients, so all that
    u holds has to lie below Nyquist.
    """
    n, top = grid[0], (min(grid) - 1) // 2
    u = band_limited(grid, top=top)
    k = np.rint(np.fft.fftfreq(n) * n).reshape(1, -1, 1, 1)
    phases = np.exp(2j * np.pi * k * cells / n)
    out = np.fft.ifft(np.fft.fft(layer(u, grid), axis=1) * phases, axis=1).real
    return relative(layer(band_limited(grid, top=top, cells=cells), grid), out)


def _masked_spectrum(u: np.ndarray, modes: Sequence[int]) -> np.ndarray:
    """Half spectrum of u [batch, n1, n2, 1], frequencies above `modes` set to 0."""
    n1, n2 = u.shape[1:3]
    k1, k2 = np.rint(np.fft.fftfreq(n1) * n1), np.arange(n2 // 2 + 1)
    kept = (np.abs(k1) <= modes[0])[:, None] & (k2 <= modes[1])
    kept &= ((2 * np.abs(k1) < n1)[:, None]) & (2 * k2 < n2)
    return np.fft.rfftn(u, axes=(1, 2), norm="forward") * kept[None, ..., None]


def shifted_wrongly(u: np.ndarray, out_grid: Sequence[int], modes: Sequence[int]):
    """Control: undoes `fftshift` by `fftshift`, which is wrong on odd axes.

    As neuraloperator up to 2.0.0. No change of grid.
    """
    spectrum = np.fft.fftshift(_masked_spectrum(u, modes), axes=1)
    spectrum = np.fft.fftshift(spectrum, axes=1)
    return np.fft.irfftn(spectrum, s=tuple(out_grid), axes=(1, 2), norm="forward")


def padded_at_the_end(u: np.ndarray, out_grid: Sequence[int], modes: Sequence[int]):
    """Control: changes the grid by cutting or padding the spectrum at its end.

    As all versions of neuraloperator in two and more dimensions: negative frequencies
    stand at the end of the array, and arrive at other frequencies.
    """
    spectrum = _masked_spectrum(u, modes)
    return np.fft.irfftn(spectrum, s=tuple(out_grid), axes=(1, 2), norm="forward")


def control(name: str, modes: Sequence[int]) -> Callable:
    """A control layer as f(u, out_grid)."""
    layers = {"fftshift": shifted_wrongly, "end": padded_at_the_end}
    return functools.partial(layers[name], modes=modes)


def identity_error(
    layer: Callable,
    grid: Sequence[int],
    modes: Sequence[int],
    out_grid: Sequence[int] | None = None,
) -> float:
    """Largest error of a layer with identity weights on white noise, relative."""
    out_grid = grid if out_grid is None else out_grid
    u = np.random.default_rng(0).normal(size=(1, *grid, 1))
    expected = projection(u, modes, out_grid)
    return float(np.abs(layer(u, out_grid) - expected).max() / np.abs(expected).max())
