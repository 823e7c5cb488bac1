"""What a residual says about the error, and the error in L^2 itself.

For a trajectory w~ with residual R, true solution w, velocities u~ and u, and the error
e = w~ - w, which vanishes at the last known frame,

    R = D e - nu Lap e + (u~ - u) . grad w~,    D e = e_t + u . grad e + mu e,

without any linearisation, mu the drag. The flow is divergence free, so that the cross
terms are integrals over time, and in the H^-1 norm of mean-free fields

    ||D e - nu Lap e||^2
        = ||D e||^2 + nu^2 ||e||_{H^1}^2 + nu ||e(T)||^2 / T + 2 nu mu ||e||^2

(means over time). The right-hand side is the square of the norm that `graph_norm`
computes. The last part of R is at most ||w~||_max ||e||_{H^-1}, a reaction: R and the
error in this norm differ by a factor that depends on how far the flow turns during the
trajectory, not on the viscosity nor on how rough the error is. Without u . grad e in
D e (`derivative="plain"`) it would also depend on how many of its own wave lengths an
error is carried.

No constant leads from R to the L^2 norm: `propagate` solves the linearised equation for
the error with R as its source.

References:
    Verfuerth (2005), Robust a posteriori error estimates for nonstationary
    convection-diffusion equations, SIAM J. Numer. Anal. 43, for the norm.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from operators.training import sobolev
from operators.training.refinement import residuals

DERIVATIVES = ("material", "plain")


def graph_norm(defect, frames, truth, *, derivative: str = "material") -> jax.Array:
    """The norm of the error that the residual of a trajectory estimates.

    The root of mean ||D e||_{H^-1}^2 + nu^2 mean ||e||_{H^1}^2 + nu ||e(T)||^2 / T
    + 2 nu mu mean ||e||^2, with D e from frame to frame: the error at a frame minus the
    one before, carried along and damped by the true flow, over their distance in time.

    Args:
        defect: `residuals.Defect` of the frames, for its equation, times and substeps.
        frames: [..., T + 1, n1, n2] the last known frame and the predicted ones.
        truth: the exact trajectory, same shape; its first frame is that of `frames`.
        derivative: "material" or "plain": without the carrying.

    Returns:
        One number per trajectory, to be compared with `defect.norm(defect(frames))`.

    Raises:
        ValueError: for an unknown derivative, or shapes that differ.
    """
    if derivative not in DERIVATIVES:
        raise ValueError(f"derivative is {derivative!r}; known: {list(DERIVATIVES)}")
    if frames.shape != truth.shape:
        raise ValueError(
            f"frames and truth must have one shape, but have {frames.shape} and "
            f"{truth.shape}"
        )
    error = frames - truth
    carried = error[..., :-1, :, :]
    if derivative == "material":
        carried = carry(defect, carried, truth[..., :-1, :, :])
    drag = defect.equation.drag
    kept = np.exp(-drag * defect.spacings)
    carried = residuals.per_frame(kept, carried) * carried
    rate = error[..., 1:, :, :] - carried
    rate = rate / residuals.per_frame(defect.spacings, rate)
    viscosity = defect.equation.viscosity
    lengths = defect.equation.grid.lengths
    diffusion = viscosity * defect.norm(error[..., 1:, :, :], order=1)
    damping = 2 * viscosity * drag * defect.norm(error[..., 1:, :, :], order=0) ** 2
    final = sobolev.squared_sobolev_norm(error[..., -1, :, :], order=0, lengths=lengths)
    duration = float(np.sum(defect.spacings))
    return jnp.sqrt(
        defect.norm(rate) ** 2 + diffusion**2 + damping + viscosity / duration * final
    )


def carry(defect, fields, truth) -> jax.Array:
    """Carries fields passively along the flow, from each frame to the time of the next.

    Solves e_t + u . grad e = 0 together with the equation of the flow by the classical
    Runge-Kutta method with the substeps of the defect.

    Args:
        defect: `residuals.Defect`.
        fields: [..., T, n1, n2] at the times of all frames but the last.
        truth: [..., T, n1, n2] vorticity of the flow at these times.
    """
    equation = defect.equation

    def rates(flow, field):
        u, v = equation.velocity(flow)
        return residuals.right_hand_side(equation, flow), -_divergence(
            equation, u * field, v * field
        )

    h = residuals.per_frame(defect.spacings / defect.substeps, fields)

    def step(state, _):
        slopes = [rates(*state)]
        for part in (0.5, 0.5, 1.0):
            ahead = (x + part * h * k for x, k in zip(state, slopes[-1], strict=True))
            slopes.append(rates(*ahead))
        combined = (a + 2 * (b + c) + d for a, b, c, d in zip(*slopes, strict=True))
        ahead = (x + h / 6 * k for x, k in zip(state, combined, strict=True))
        return tuple(ahead), None

    return jax.lax.scan(step, (truth, fields), length=defect.substeps)[0][1]


def propagate(defect, frames, fields) -> jax.Array:
    """The error of a trajectory to first order: its residual, carried by the flow.

    e_m = J_m e_{m-1} + (t_m - t_{m-1}) r_m from e_0 = 0, with J_m the derivative of the
    march from frame m - 1 to m at the predicted frame. Up to squares of the error,
    frames[m] - e_m solves the equation: one Newton step, marched through time one frame
    after the other, at two to three times the cost of solving anew with the same
    steps. An estimate needs few digits: a defect with fewer substeps than that of the
    fields carries well enough.

    Args:
        defect: `residuals.Defect` of the frames.
        frames: [..., T + 1, n1, n2] the last known frame and the predicted ones.
        fields: [..., T, n1, n2], `defect(frames)`.

    Returns:
        [..., T, n1, n2] estimated errors of the predicted frames.
    """
    sources = residuals.per_frame(defect.spacings, fields) * fields
    before = jnp.moveaxis(frames[..., :-1, :, :], -3, 0)
    sources = jnp.moveaxis(sources, -3, 0)
    error, errors, first = jnp.zeros_like(before[0]), [], 0
    for spacing, count in _runs(defect.spacings):
        advance = functools.partial(_advance, defect.marcher(spacing))
        part = slice(first, first + count)
        error, done = jax.lax.scan(advance, error, (before[part], sources[part]))
        errors.append(done)
        first += count
    return jnp.moveaxis(jnp.concatenate(errors), 0, -3)


def _advance(march, error, now):
    frame, source = now
    error = jax.jvp(march, (frame,), (error,))[1] + source
    return error, error


def _runs(spacings):
    """(spacing, how often in a row) of the spacings of the times."""
    groups = residuals.equal_spacings(spacings)
    label = {m: group[0] for group in groups for m in group}
    for first, run in itertools.groupby(range(len(spacings)), label.get):
        yield spacings[first], len(list(run))


def _divergence(equation, flux1, flux2):
    """Divergence of a flux [..., n1, n2], cut off at the modes of the equation."""
    grid = equation.grid
    k1, k2 = grid.angular_wavenumbers
    spectrum = _spread(k1, flux1) * grid.transform(flux1)
    spectrum = spectrum + _spread(k2, flux2) * grid.transform(flux2)
    divergence = grid.inverse(1j * spectrum)
    return equation.to_field(equation.to_state(divergence))


def _spread(k, field):
    return k.astype(field.dtype).reshape((1,) * (field.ndim - 2) + k.shape)
