"""From a few latent frames to output at any times, one complex number per mode."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import spectral
from operators.layers.divergence import leray_projection
from operators.layers.precision import at_least_float32, check_floating
from operators.layers.spectral_weights import ComplexArray


class SpectralOutput(nnx.Module):
    """Spectral convolution in space and time with a spectral bias, Q of the SFNO.

    The last frame that is given and the L latent frames stand at times 0, s, ..., L s
    with s = window / L, after L + 1 frames of zeros; the period is 2 (L + 1) s. Of the
    Fourier series in space and time the low modes c are multiplied, d = W c + delta b,
    and the series with coefficients d is evaluated at the output times by a small
    matrix: values at a time do not depend on which other times are asked for. Its value
    at time 0 is taken away, so that the output starts at the last frame, and its
    constant part, which would vanish with that, grows like t / window. The layer is
    affine in its parameters, `weights` [k1, k2, k3, in, out] and `bias` [k1, k2, k3,
    out], each with `real` and `imag`; on k3 = 0 only the Hermitian part of d counts.

    Args:
        channels: channels of input and output.
        modes: per axis, in the counting of `layout`; the last one is that of time.
        latent_steps: L.
        window: latest time of the output, in frames, that of training.
        delta: factor of the bias.
        layout: "below" keeps |k1| < m1, |k2| < m2 and 0 <= k3 < m3, "li2021" also -m1
            and -m2, as released code does; see `mode_frequencies`.
        resampled: spreads the output times over the period as the released code does: n
            times are the last n of n + L + 2 points, whatever they are.
        backward: transforms without and with 1 / number of points, instead of the other
            way round: with `resampled` amplitudes depend on the number of times, and
            those of the bias on the number of points.
        divergence_free: removes the divergence of two channels, see `leray_projection`.
        lengths: the two sides of the periodic domain, for the divergence.
        param_dtype: dtype of the parameters.
        rngs: random streams; draws from `params`: weights from U[0, 1) / (2 in out) in
            both parts, the bias is zero.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Cao, Brarda, Li, Xi (2025), Spectral-Refiner, arXiv:2405.17211, released code;
        the explicit times are ours.
    """

    def __init__(
        self,
        channels: int,
        *,
        modes: Sequence[int],
        latent_steps: int,
        window: float,
        delta: float = 0.1,
        layout: str = "below",
        resampled: bool = False,
        backward: bool = False,
        divergence_free: bool = False,
        lengths: Sequence[float] = (1.0, 1.0),
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        if backward and not resampled:
            raise ValueError("fft_norm 'backward' is for compat=True; take 'forward'")
        if divergence_free and channels != 2:
            raise ValueError(
                f"divergence_free needs 2 channels, the velocity, got {channels}"
            )
        _check_lengths(lengths)
        if latent_steps + 1 < modes[2]:
            raise ValueError(
                f"{latent_steps + 1} frames have no {modes[2]} modes in time; take "
                "more latent_steps or fewer modes"
            )
        self.channels, self.modes, self.layout = channels, tuple(modes), layout
        self.latent_steps, self.window, self.delta = latent_steps, window, delta
        self.resampled, self.backward = resampled, backward
        self.divergence_free, self.lengths = divergence_free, tuple(lengths)
        sizes = tuple(map(len, self.frequencies))
        options = {"param_dtype": param_dtype, "rngs": rngs}
        bound = 0.5 / channels**2
        shape = (*sizes, channels, channels)
        self.weights = ComplexArray(shape, None, bound=bound, **options)
        self.bias = ComplexArray((*sizes, channels), 0.0, **options)

    @property
    def frequencies(self) -> tuple[np.ndarray, ...]:
        """Integer frequencies for which parameters are stored, per axis."""
        return spectral.mode_frequencies(self.modes, self.layout)

    def __call__(self, v: jax.Array, last_frame: jax.Array, times) -> jax.Array:
        """Increments over the last frame.

        Args:
            v: [batch, n1, n2, latent_steps, channels].
            last_frame: [batch, n1, n2, channels], at time 0.
            times: [T] in frames, see `check_times`.

        Returns:
            [batch, n1, n2, T, channels].

        Raises:
            ValueError: if a shape does not fit.
            TypeError: if v holds no floating-point numbers.
        """
        check_floating("v", v)
        expected = (*v.shape[:3], self.latent_steps, self.channels)
        if v.shape != expected or last_frame.shape != (*v.shape[:3], self.channels):
            raise ValueError(
                f"v must be [batch, n1, n2, {self.latent_steps}, {self.channels}] and "
                f"last_frame [batch, n1, n2, {self.channels}], got {v.shape} and "
                f"{last_frame.shape}"
            )
        frames = jnp.concatenate([last_frame[:, :, :, None].astype(v.dtype), v], 3)
        spectrum, frequencies, block = self.analyse(frames)
        spectrum = self.multiply(spectrum, block, v.shape[1:3], len(times))
        return self.synthesise(spectrum, frequencies, v.shape[1:3], times)

    def analyse(self, frames: jax.Array):
        """Fourier coefficients of the frames, forward-normalised.

        Args:
            frames: [batch, n1, n2, latent_steps + 1, channels], the last given one
                first.

        Returns:
            Complex [batch, k1, k2, k3, channels], the frequencies per axis that the
            grid resolves, and their slices of the parameters.
        """
        grid = frames.shape[1:3]
        kept = spectral.resolved(
            self.frequencies[:2], grid, grid, nyquist=self.resampled
        )
        block = (*(slice(i[0], i[-1] + 1) for i in kept), slice(None))
        k1, k2, k3 = (k[s] for k, s in zip(self.frequencies, block, strict=True))
        num = self.latent_steps + 1
        angle = np.outer(np.arange(num, 2 * num), k3) % (2 * num) * (np.pi / num)
        frames = at_least_float32(frames)
        waves = [np.cos(angle) / (2 * num), -np.sin(angle) / (2 * num)]
        spectrum = jax.lax.complex(*(_over_time(frames, wave) for wave in waves))
        spectrum = jnp.fft.fft2(spectrum, axes=(1, 2), norm="forward")
        n1, n2 = grid
        spectrum = jnp.take(jnp.take(spectrum, k1 % n1, axis=1), k2 % n2, axis=2)
        return spectrum, (k1, k2, k3), block

    def multiply(self, spectrum, block, grid, num_times) -> jax.Array:
        """Coefficients of the output, d = W c + delta b, from those of the frames.

        Args:
            spectrum: complex [batch, k1, k2, k3, channels] of `analyse`.
            block: the slices of `analyse`.
            grid: points per axis in space, for the released scaling.
            num_times: number of output times, for the released scaling.

        Returns:
            Complex [batch, k1, k2, k3, channels].
        """
        dtype = spectrum.real.dtype
        weights, bias = (p.get(dtype)[block] for p in (self.weights, self.bias))
        spectrum = jnp.sum(spectrum[..., None] * weights[None], -2)
        if self.backward:
            points = num_times + self.latent_steps + 2
            spectrum = spectrum * ((2 * self.latent_steps + 2) / points)
            bias = bias / (grid[0] * grid[1] * points)
        spectrum = spectrum + self.delta * bias[None]
        if self.divergence_free:
            k1, k2 = (
                k[s] for k, s in zip(self.frequencies[:2], block[:2], strict=True)
            )
            spectrum = leray_projection(spectrum, (k1, k2), self.lengths)
        return spectrum

    def synthesise(self, spectrum, frequencies, grid, times) -> jax.Array:
        """The real field [batch, n1, n2, T, channels] with these coefficients."""
        n1, n2 = grid
        full = jnp.zeros((len(spectrum), n1, n2, *spectrum.shape[3:]), spectrum.dtype)
        rows = np.ix_(frequencies[0] % n1, frequencies[1] % n2)
        full = full.at[(slice(None), *rows)].set(spectrum)
        full = jnp.fft.ifft2(full, axes=(1, 2), norm="forward")
        cosines, sines = self.waves(times)
        return _over_time(full.real, cosines) - _over_time(full.imag, sines)

    def waves(self, times):
        """Factors [k3, T] of the modes in time, for the two parts of d.

        The output sums, over k3, Re d times the first less Im d times the second:
        cosines and sines, doubled for k3 > 0; unless `resampled`, less their values at
        time 0, and times / window for k3 = 0.
        """
        k3, num = self.frequencies[2], self.latent_steps + 1
        xp = np if isinstance(times, np.ndarray) else jnp
        if self.resampled:
            points = len(times) + num + 1
            turns = np.arange(num + 1, points) / points
        else:
            turns = 0.5 + times * (self.latent_steps / (self.window * 2 * num))
        angle = 2 * np.pi * xp.mod(k3[:, None] * turns[None], 1)
        cosines, sines = xp.cos(angle), xp.sin(angle)
        if not self.resampled:  # at time 0, half a period on, cos is 1, -1, 1, ...
            at_start = np.where(k3 % 2 == 0, 1.0, -1.0)[:, None]
            ramp = xp.where(k3[:, None] == 0, (times / self.window)[None], 0.0)
            cosines = cosines - at_start + ramp
        twice = np.where(k3 == 0, 1, 2)[:, None]
        return twice * cosines, twice * sines

    def with_modes(self, modes: Sequence[int], *, param_dtype=None) -> "SpectralOutput":
        """The same map with more modes, whose weights and biases are zero.

        Args:
            modes: as at construction, none smaller than now.
            param_dtype: dtype of the parameters; None keeps it.

        Raises:
            ValueError: if a number of modes is smaller than now.
        """
        if min(np.subtract(modes, self.modes)) < 0:
            raise ValueError(
                f"modes must be at least {self.modes}, got {tuple(modes)}: the map "
                "would change"
            )
        dtype = param_dtype or self.weights.real.dtype
        wider = SpectralOutput(
            self.channels,
            modes=modes,
            latent_steps=self.latent_steps,
            window=self.window,
            delta=self.delta,
            layout=self.layout,
            resampled=self.resampled,
            backward=self.backward,
            divergence_free=self.divergence_free,
            lengths=self.lengths,
            param_dtype=dtype,
            rngs=nnx.Rngs(0),
        )
        pairs = zip(wider.frequencies, self.frequencies, strict=True)
        block = tuple(
            slice(int(own[0] - new[0]), int(own[-1] - new[0]) + 1) for new, own in pairs
        )
        for name in ("weights", "bias"):
            for part in ("real", "imag"):
                new = getattr(getattr(wider, name), part)
                own = getattr(getattr(self, name), part)[...].astype(dtype)
                new[...] = jnp.zeros(new.shape, dtype).at[block].set(own)
        return wider


def check_times(times, window: float) -> np.ndarray | jax.Array:
    """Returns output times [T] as an array, all but traced ones as constants.

    Raises:
        ValueError: unless they are one line of positive numbers up to `window`; of
            traced times only the shape is known.
    """
    traced = isinstance(times, jax.core.Tracer)
    times = times if traced else np.asarray(times, float)
    if times.ndim != 1 or not times.size:
        raise ValueError(
            f"times must have shape [T], a line of numbers, got shape {times.shape}"
        )
    if traced:
        return times
    if not (times.min() > 0 and times.max() <= window * (1 + 1e-9)):
        raise ValueError(
            f"times must be positive and at most {window}, the number of output frames "
            f"of training, got {times.min()} to {times.max()}; for later ones apply "
            "the model to its own output"
        )
    return times


def _check_lengths(lengths: Sequence[float]) -> None:
    if len(lengths) != 2 or not min(lengths) > 0:
        raise ValueError(
            "lengths must be the two sides of the domain, positive numbers, got "
            f"{tuple(lengths)}"
        )


def _over_time(frames: jax.Array, matrix) -> jax.Array:
    """Product of frames [batch, n1, n2, t, c] and a real matrix [t, s] in time."""
    matrix = jnp.asarray(matrix, frames.dtype)
    return jnp.einsum(
        "bxytc,ts->bxysc", frames, matrix, precision=jax.lax.Precision.HIGHEST
    )
