"""What is told of one sample as it is made: to the display, and between processes."""

import dataclasses
import re

from datagen.ladder import Solved

BYPASS_NOTE = re.compile("recycling bypassed|(space|pool) dropped|solved (cold|plain)")


@dataclasses.dataclass(frozen=True)
class SampleReport:
    """One sample after the ladder, in numbers and words that JSON takes.

    Attributes:
        shard: id of its shard.
        sample_id: its id.
        accepted: whether the sample may be used.
        true_residual: recomputed, the largest of all systems; NaN without a solution.
        recycled: whether vectors were recycled in any of its systems.
        bypass: why they were not, "" if nothing says so.
        failures: one sentence per rung that failed.
    """

    shard: str
    sample_id: int
    accepted: bool
    true_residual: float
    recycled: bool = False
    bypass: str = ""
    failures: tuple[str, ...] = ()

    @classmethod
    def of(cls, shard: str, sample_id: int, solved: Solved) -> "SampleReport":
        """Takes what matters from a solved sample."""
        notes = [note for record in solved.records for note in record.fallbacks]
        notes = [note for note in notes if BYPASS_NOTE.match(note)]
        return cls(
            shard,
            sample_id,
            solved.accepted,
            solved.true_residual,
            any(record.recycle_dim for record in solved.records),
            notes[-1] if notes else "",
            solved.failures,
        )
