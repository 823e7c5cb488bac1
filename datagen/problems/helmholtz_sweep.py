"""Time-harmonic waves over a band of frequencies, one random medium per sample."""

import dataclasses
from collections import OrderedDict

import numpy as np
import scipy.sparse as sp

from datagen.problems.base import FieldSpec, Sample
from datagen.problems.helmholtz import PEAK, Helmholtz, helmholtz_operator
from solvers.sequence import LinearSystem

MAX_CACHED_MEDIA = 4


@dataclasses.dataclass(frozen=True)
class HelmholtzSweep(Helmholtz):
    """`Helmholtz` at several frequencies: -Delta u - (s k(x))^2 u = f, du/dn = i s k u.

    A sample is one medium; its systems are the frequency factors s, equally spaced from
    1 - delta / 2 to 1 + delta / 2 and solved in that order. The stored wave number is
    that of s = 1. Equation, discretisation and limits otherwise as in `Helmholtz`.

    Every system of a sample comes with the same preconditioning matrix: the sample's
    own medium at s = 1, its squared wave number times 1 + damping i. With damping 0
    one factorisation nearly solves the whole of a narrow band.

    Attributes:
        delta: width of the band relative to its middle, 0 < delta < 1.
        num_frequencies: frequencies, both ends included, at least 2.
        steps: [num_frequencies] the factors s; coordinates of the stored solutions.
        step_name: what the steps are.

    Raises:
        ValueError: if a setting is unknown or out of range.
    """

    eta: float = 0.1
    delta: float = 0.02
    num_frequencies: int = 20

    name = "helmholtz_sweep"
    step_name = "frequency"

    def __post_init__(self):
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; expected 0 < delta < 1")
        if int(self.num_frequencies) != self.num_frequencies or not (
            self.num_frequencies >= 2
        ):
            raise ValueError(
                f"num_frequencies is {self.num_frequencies!r}; expected a whole number "
                "of at least 2"
            )
        super().__post_init__()
        # Media are few at a time but their systems many: one matrix serves them all.
        object.__setattr__(self, "_media", OrderedDict())

    def _largest_wave_number(self) -> float:
        return self.mean_wave_number * (1 + PEAK * self.eta) * (1 + self.delta / 2)

    @property
    def num_systems(self) -> int:
        """Frequencies per sample."""
        return int(self.num_frequencies)

    @property
    def steps(self) -> np.ndarray:
        """Frequency factors s, [num_systems]."""
        return np.linspace(1 - self.delta / 2, 1 + self.delta / 2, self.num_systems)

    @property
    def equation(self) -> str:
        """Equation, boundary condition and discretisation in one line."""
        single = super().equation.replace("k(x)^2", "(s k(x))^2")
        return (
            single.replace("i k u", "i s k u") + f"; {self.num_systems} frequency "
            f"factors s from {self.steps[0]:g} to {self.steps[-1]:g}"
        )

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Wave number at s = 1, source if it varies, parts of u at every frequency."""
        wave_number, *others = super().fields
        description = "Wave number k at the middle frequency."
        return (dataclasses.replace(wave_number, description=description), *others)

    @property
    def scalars(self) -> dict[str, float]:
        """Parameters shared by all samples."""
        return super().scalars | {"delta": float(self.delta)}

    def system(
        self, sample: Sample, step: int = 0, previous: np.ndarray | None = None
    ) -> LinearSystem:
        """Complex symmetric system of one frequency, u at all nodes, [n, n].

        Raises:
            ValueError: if the wave number has another shape or is not positive, or for
                a step that does not exist.
        """
        if not 0 <= step < self.num_systems:
            raise ValueError(
                f"step is {step}; expected 0 to {self.num_systems - 1}, one per "
                "frequency"
            )
        k = self._checked(sample["wave_number"])
        operator = helmholtz_operator(self.steps[step] * k, self._grid.spacing)
        return LinearSystem(operator, self._rhs(sample), self.mid_frequency_matrix(k))

    def mid_frequency_matrix(self, k: np.ndarray) -> sp.csr_array:
        """Shifted Laplacian of the medium k at s = 1.

        The same object for the same array, so that its factors are shared by all
        frequencies.
        """
        found = self._media.get(id(k))
        if found is None:  # the array is kept too: its id is not given to another one
            matrix = helmholtz_operator(k, self._grid.spacing, self.damping).to_csr()
            found = self._media[id(k)] = (k, matrix)
            while len(self._media) > MAX_CACHED_MEDIA:
                self._media.popitem(last=False)
        return found[1]
