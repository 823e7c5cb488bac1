"""Settings and data that cannot fit together, told before any work is done."""


def positive_counts(config) -> None:
    """Raises a ValueError for a count that must be at least one and is not."""
    counts = {
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        "data.stride": config.data.stride,
        "eval.every_epochs": config.eval.every_epochs,
        "eval.batch_size": config.eval.batch_size,
        "log.every_steps": config.log.every_steps,
        "checkpoint.every_epochs": config.checkpoint.every_epochs,
        "checkpoint.keep": config.checkpoint.keep,
    }
    for key, count in counts.items():
        if count < 1:
            raise ValueError(f"config.{key} is {count}; expected at least 1")


def channels(model, samples) -> None:
    """Raises a ValueError where data and model have different channel counts."""
    for key, fields in (("in_channels", samples.x), ("out_channels", samples.y)):
        if fields.shape[-1] != model[key]:
            raise ValueError(
                f"the data have {fields.shape[-1]} {key.replace('_', ' ')}, the model "
                f"{model[key]}: set --config.model.{key}={fields.shape[-1]}"
            )
