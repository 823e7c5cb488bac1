"""Checkpoints: latest and best, verified on reading, never trusted by name alone."""

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every file at INFO


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints of one run in `<workdir>/<name>`.

    Attributes:
        folder: where they lie, one subfolder per step.
        keep: how many of the newest to keep; None keeps all.
        read_only: never write, move or delete anything.
    """

    folder: Path
    keep: int | None = None
    read_only: bool = False

    def __post_init__(self):
        self.folder = Path(self.folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep,
            enable_async_checkpointing=False,
            create=not self.read_only,
            read_only=self.read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state, info: dict) -> None:
        """Writes the state; returns once it is on disk and its hash committed.

        Args:
            state: pytree of arrays with an integer leaf `state.step`.
            info: JSON-able facts stored beside it (metrics, hashes, versions).
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        # Left by a run that got further before it was killed, then went on from here.
        for stale in self._manager.all_steps():
            if stale > step:
                self._manager.delete(stale)
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                info=ocp.args.JsonSave({**info, "tree_sha256": tree_hash(state)}),
            ),
        )
        if not saved:
            raise OSError(f"the checkpoint of step {step} was not written")
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
        committed = {"step": step, "tree_sha256": tree_hash(state)}
        temporary = self.folder / "COMMITTED.tmp"
        temporary.write_text(json.dumps(committed))
        temporary.replace(self.folder / "COMMITTED.json")

    def restore(self, template) -> tuple[object, dict] | None:
        """Loads the newest checkpoint that is whole.

        Damaged ones newer than it are moved to `damaged_<name>/` beside the folder,
        with a warning; without a whole one nothing is touched.

        Args:
            template: a state of the same structure, dtypes and shardings.

        Returns:
            (state, info), or None where there is no checkpoint at all.

        Raises:
            ValueError: if there are checkpoints, but none can be read.
        """
        failures = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                loaded = self._load(step, template)
            # orbax and tensorstore raise many types for a damaged file
            except Exception as error:
                failures[step] = str(error).strip().splitlines()[0][:200]
                continue
            for damaged, reason in failures.items():
                place = self.folder / str(damaged)
                logging.warning("checkpoint %s is damaged: %s", place, reason)
                if not self.read_only:
                    self._move_away(damaged)
            return loaded
        if failures:
            raise ValueError(
                f"no checkpoint in {self.folder} can be read (step {max(failures)}: "
                f"{failures[max(failures)]}): start again with another --workdir"
            )
        return None

    def _load(self, step: int, template):
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
            template,
        )
        loaded = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), info=ocp.args.JsonRestore()
            ),
        )
        if tree_hash(loaded.state) != loaded.info["tree_sha256"]:
            raise ValueError("its arrays do not have the hash recorded with them")
        return loaded.state, dict(loaded.info)

    def _move_away(self, step: int) -> None:
        damaged = self.folder.parent / f"damaged_{self.folder.name}"
        damaged.mkdir(exist_ok=True)
        shutil.rmtree(damaged / str(step), ignore_errors=True)
        (self.folder / str(step)).rename(damaged / str(step))
        self._manager.reload()


def tree_hash(tree) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        head = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(head.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
