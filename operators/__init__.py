"""Neural operators: layers, models and their training."""


def load(workdir, *, checkpoint: str = "best"):
    """Opens a trained run as a callable model; see `operators.training.runs.load`."""
    from operators.training.runs import load as load_run

    return load_run(workdir, checkpoint=checkpoint)
