"""Official configurations: each has its exact count. Nothing is allocated."""

import pytest

from operators import models
from operators.models import presets
from operators.models.__main__ import count, parameter_table


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_preset_has_exactly_the_official_number_of_parameters(name):
    preset = presets.PRESETS[name]
    assert count(parameter_table(preset.hparams)) == preset.parameters


def test_presets_are_sorted_named_after_their_model_and_say_where_they_come_from():
    assert list(presets.PRESETS) == sorted(presets.PRESETS)
    known = sorted(models.names(), key=len, reverse=True)
    for name, preset in presets.PRESETS.items():
        model = preset.hparams["name"]
        longest = next(m for m in known if name.startswith(f"{m}_"))
        assert longest == model, f"{name} builds {model}"
        assert preset.source, name


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"known: .*fno_darcy"):
        presets.get("fno_darc")
