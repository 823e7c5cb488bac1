"""SFNO: frames of a flow to later frames, in one Fourier neural operator."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from operators.layers import activations
from operators.layers.normalization import GroupNorm
from operators.layers.pointwise import ChannelMLP, Pointwise, in_pieces
from operators.layers.precision import check_floating
from operators.layers.space_time import SpaceTimeEncoding
from operators.layers.spectral import SpectralConvolution
from operators.layers.spectral_output import SpectralOutput, check_times

FFT_NORMS = ("auto", "forward", "backward")


class SFNO(nnx.Module):
    """Spatiotemporal FNO: any number of input frames to output at any times.

    Frames are values of a periodic field at times ..., -1, 0 in units of the distance
    between two of them; output frame j stands at time j. The input passes through a
    fixed encoding of space and time, a norm over each sample, a spectral convolution
    that turns its frames into `latent_steps`, spectral layers v -> act(F(K v) + C v)
    with pointwise maps F (two layers) and C, and one map of the channels to the latent
    field (`latent`). `output`, one more spectral convolution of few parameters, makes
    increments over the last frame of it (`head`).

    Args:
        in_channels: channels of the input, 1 for vorticity, 2 for velocity.
        out_channels: channels of the output, the first ones of the input.
        width: channels of the hidden fields.
        modes: Fourier modes |k1| < m1, |k2| < m2 and 0 <= k3 < m3 (time); with `compat`
            also -m1 and -m2.
        num_layers: spectral convolutions but that of the output.
        latent_steps: frames of the hidden fields.
        out_steps: frames of the output, and the window of time that the model knows.
        beta: growth of the waves of the encoding per 100 frames, that of the energy.
        delta: factor of the bias of the output.
        activation: name of the activation.
        expansion: hidden channels of F over channels.
        lift_activation: whether the first layer has an activation and F two layers.
        coordinates: "grid", "periodic" or "none" (translations of the input translate
            the output), see `SpaceTimeEncoding`.
        spatial_features: encodes by products of waves in space and time, half as many
            as modes per axis, and a learned map of them.
        divergence_free: output without divergence, for 2 channels; its increments are
            projected.
        lengths: the two sides of the domain, for the divergence.
        compat: the released model: coordinates from 0 to 1 with both ends, modes that
            include the Nyquist frequency, an output series resampled over the padded
            axis of time, and its norm of the transforms.
        fft_norm: "forward", "backward" (only with `compat`: amplitudes depend on the
            numbers of frames and points) or "auto": that of the released model for
            `compat`, else "forward".
        transform: "auto", "dft" or "fft", the same map; see `SpectralConvolution`.
        precision: of the products, see `operators.layers.precision.einsum`.
        param_dtype: dtype of the parameters; the model computes in its input's dtype.
        rngs: random streams; draws from `params`.

    Raises:
        ValueError: if an argument does not fit.

    References:
        Cao, Brarda, Li, Xi (2025), Spectral-Refiner, arXiv:2405.17211; released code
        475c738, fno/sfno.py.
    """

    num_axes = 3
    continues_input = True  # the output starts at the last frame of the input

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 20,
        modes: Sequence[int] = (12, 12, 5),
        num_layers: int = 4,
        latent_steps: int = 10,
        out_steps: int = 10,
        beta: float = -0.01,
        delta: float = 0.1,
        activation: str = "relu",
        expansion: int = 4,
        lift_activation: bool = True,
        coordinates: str = "grid",
        spatial_features: bool = False,
        divergence_free: bool = False,
        lengths: Sequence[float] = (1.0, 1.0),
        compat: bool = False,
        fft_norm: str = "auto",
        transform: str = "auto",
        precision: str = "full",
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check(in_channels, out_channels, modes, latent_steps, fft_norm)
        backward = fft_norm == "backward" or (fft_norm == "auto" and compat)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.latent_steps, self.out_steps = latent_steps, out_steps
        # The spectrum of released layers is not divided by the number of frames.
        self.backward = backward
        self.act, self.hidden = activations.get(activation), expansion * width
        plain = {"param_dtype": param_dtype, "rngs": rngs}
        options = {"precision": precision, **plain}
        layout = "li2021" if compat else "below"

        def create_spectral():
            return SpectralConvolution(
                width,
                width,
                modes=modes,
                layout=layout,
                bound=0.5 / width**2,
                transform=transform,
                nyquist=compat,
                **options,
            )

        def create_mlp():
            return ChannelMLP(
                width, expansion * width, width, activation=activation, **options
            )

        self.encoding = SpaceTimeEncoding(
            width,
            in_channels=in_channels,
            beta=beta,
            coordinates=coordinates,
            endpoint=compat,
            features=tuple(max(m // 2, 1) for m in modes) if spatial_features else (),
            **plain,
        )
        self.norm = GroupNorm(width, epsilon=1e-7, **plain)
        self.projection = Pointwise(width, width, **options)
        self.lifting = create_spectral()
        self.lift_activation = lift_activation
        self.lifting_map = (
            create_mlp() if lift_activation else Pointwise(width, width, **options)
        )
        self.blocks = nnx.List(
            SpaceTimeBlock(
                create_spectral(),
                create_mlp(),
                Pointwise(width, width, **options),
                activation,
                self.hidden,
            )
            for _ in range(num_layers - 1)
        )
        self.reduction = Pointwise(width, out_channels, **options)
        self.output = SpectralOutput(
            out_channels,
            modes=modes,
            latent_steps=latent_steps,
            window=out_steps,
            delta=delta,
            layout=layout,
            resampled=compat,
            backward=backward,
            divergence_free=divergence_free,
            lengths=lengths,
            **plain,
        )

    def __call__(
        self, x: jax.Array, times=None, *, out_steps: int | None = None
    ) -> jax.Array:
        """Maps frames x [batch, n1, n2, time, in_channels] to later ones.

        Args:
            x: frames at times ..., -1, 0, as many as one likes.
            times: [T] of the output, in frames: any positive numbers up to the
                `out_steps` of the model; None: 1, 2, ..., `out_steps`. A released model
                (`compat`) makes 1, 2, ..., T only, as many as one likes.
            out_steps: number of output frames instead of times; None: as the model.

        Returns:
            [batch, n1, n2, T, out_channels].

        Raises:
            ValueError: if an argument has the wrong shape or values.
            TypeError: if x holds no floating-point numbers.
        """
        times = self.times(times, out_steps)
        return self.head(self.latent(x), x[:, :, :, -1, : self.out_channels], times)

    def latent(self, x: jax.Array) -> jax.Array:
        """The field that the output operator reads, all but `output` of the model.

        Args:
            x: [batch, n1, n2, time, in_channels].

        Returns:
            [batch, n1, n2, latent_steps, out_channels].

        Raises:
            ValueError: if x has the wrong shape.
            TypeError: if x holds no floating-point numbers.
        """
        self._check_input(x)
        v = self._encode(x)
        grid = (*x.shape[1:3], self.latent_steps)
        w = self.lifting(v, grid)
        if self.backward:
            w = w * (x.shape[3] / self.latent_steps)
        last = jnp.broadcast_to(v[:, :, :, -1:], w.shape)
        v = in_pieces(self._lift, self.hidden, w, last)
        for block in self.blocks:
            v = block(v)
        return self.reduction(v)

    def _encode(self, x: jax.Array) -> jax.Array:
        """The projection of the norm of the encoding, all affine for one sample.

        The encoding of one channel is a sum of functions of one axis each, and so is
        its projection: the field of all channels before the norm is never formed.
        """
        if not self.encoding.separable:
            return self.projection(self.norm(self.encoding(x)))
        parts = self.encoding.parts(x.shape[1:4])
        mean, variance = _moments(x, parts)
        factor = jax.lax.rsqrt(variance + self.norm.epsilon)  # [batch, 1, 1, 1, 1]
        scale, shift = (
            p[...].astype(x.dtype) for p in (self.norm.scale, self.norm.bias)
        )
        kernel = self.projection.kernel[...].astype(x.dtype)
        scaled = scale[:, None] * kernel
        bias = shift @ kernel + self.projection.bias[...].astype(x.dtype)
        own = [self._project(part, scaled) for part in parts]
        waves = (own[0] + own[1] + own[2])[None]
        ones = (1, 1, 1, 1, -1)
        field = (x - mean) * scaled.sum(0).reshape(ones) + waves
        return field * factor + bias.reshape(ones)

    def _project(self, part, kernel):
        part = jnp.asarray(part, kernel.dtype)
        return jnp.einsum("xytc,cd->xytd", part, kernel, precision="highest")

    def _lift(self, w: jax.Array, last: jax.Array) -> jax.Array:
        v = last + self.lifting_map(w)
        return self.act(v) if self.lift_activation else v

    def head(self, v: jax.Array, last_frame: jax.Array, times=None) -> jax.Array:
        """The output from the latent field, affine in the parameters of `output`.

        Args:
            v: [batch, n1, n2, latent_steps, out_channels] of `latent`.
            last_frame: [batch, n1, n2, out_channels], the input at time 0.
            times: [T] as for calling the model.

        Returns:
            [batch, n1, n2, T, out_channels].

        Raises:
            ValueError: if an argument has the wrong shape or values.
        """
        increments = self.output(v, last_frame, self.times(times))
        return last_frame[:, :, :, None] + increments

    def times(self, times=None, out_steps: int | None = None):
        """Output times [T] in frames, see `__call__`.

        Raises:
            ValueError: if they do not fit.
        """
        if times is not None and out_steps is not None:
            raise ValueError("give times or out_steps, not both")
        if times is None:
            num = self.out_steps if out_steps is None else out_steps
            times = np.arange(1.0, _check_count("out_steps", num) + 1)
        if not self.output.resampled:
            return check_times(times, self.out_steps)
        times = check_times(times, np.inf)
        counted = np.arange(1.0, len(times) + 1)
        if isinstance(times, np.ndarray) and not np.array_equal(times, counted):
            raise ValueError(
                f"times are {times.tolist()}, but a released model (compat=True) makes "
                "frames 1, 2, ..., T only: give out_steps, or train with compat=False"
            )
        return times

    def _check_input(self, x: jax.Array):
        check_floating("x", x)
        if x.ndim != 5 or x.shape[-1] != self.in_channels or x.size == 0:
            raise ValueError(
                f"x must have shape [batch, n1, n2, time, {self.in_channels}], got "
                f"{x.shape}"
            )


class SpaceTimeBlock(nnx.Module):
    """One layer of `SFNO`, v -> act(F(K v) + C v).

    Args:
        spectral: K.
        mlp: F.
        skip: C.
        activation: name of the activation.
        hidden: hidden channels of F.
    """

    def __init__(self, spectral, mlp, skip, activation: str, hidden: int):
        self.spectral, self.mlp, self.skip = spectral, mlp, skip
        self.act, self.hidden = activations.get(activation), hidden

    def __call__(self, v: jax.Array) -> jax.Array:
        """Maps v [batch, n1, n2, time, channels] to the same shape."""
        return in_pieces(self._pointwise, self.hidden, self.spectral(v), v)

    def _pointwise(self, z: jax.Array, v: jax.Array) -> jax.Array:
        return self.act(self.mlp(z) + self.skip(v))


def _moments(x: jax.Array, parts: Sequence[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Mean and variance per sample of x [batch, n1, n2, time, 1] plus the parts.

    Over space, time and channels; each part varies along one of the first and along
    the channels. From centred values, so that no digits are lost.
    """
    axes = (1, 2, 3, 4)
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    # Of the parts: their mean per channel, and what varies along their axis.
    channels = sum(part.mean((0, 1, 2)) for part in parts)
    along = [part - part.mean((0, 1, 2)) for part in parts]
    fixed = channels.var() + sum(np.mean(a**2) for a in along)
    common = [jnp.asarray(a.mean(-1, keepdims=True), x.dtype) for a in along]
    joint = centred * (common[0] + common[1] + common[2])[None]
    variance = jnp.square(centred).mean(axes, keepdims=True) + fixed
    variance = variance + 2 * joint.mean(axes, keepdims=True)
    return mean + channels.mean(), variance


def _check_count(name: str, value) -> int:
    """Returns a positive whole number, of Python or NumPy, as an int."""
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    return count


def _check(in_channels, out_channels, modes, latent_steps, fft_norm):
    if fft_norm not in FFT_NORMS:
        raise ValueError(f"fft_norm is {fft_norm!r}; known: {', '.join(FFT_NORMS)}")
    if len(modes) != 3 or min(modes) < 1:
        raise ValueError(
            f"modes must hold three positive numbers, two in space and one in time, "
            f"got {tuple(modes)}"
        )
    if out_channels > in_channels:
        raise ValueError(
            f"out_channels must be at most in_channels, {in_channels}, since outputs "
            f"are increments over the last frame, got {out_channels}"
        )
    if 2 * (modes[2] - 1) >= latent_steps:
        raise ValueError(
            f"{latent_steps} latent_steps resolve at most {(latent_steps + 1) // 2} "
            f"modes in time, got {modes[2]}"
        )
