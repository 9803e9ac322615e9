"""The losses of the golden record, to 1e-6: a change of structure changes no number."""

import json

import golden_cover
import numpy as np
import pytest

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    golden_cover.write_datasets(folder)
    return folder


def recorded():
    """The choices of each training and its losses."""
    for choice, losses in json.loads(golden_cover.RECORD.read_text(encoding="utf-8")):
        choice = {name: tuple(value) if isinstance(value, list) else value for name, value in choice.items()}
        yield pytest.param(choice, losses, id=golden_cover.name_of(choice))


@pytest.mark.parametrize(("choice", "losses"), list(recorded()))
def test_losses_are_those_of_the_record(datasets, choice, losses):
    found = golden_cover.losses(golden_cover.settings_of(choice), datasets)
    np.testing.assert_allclose(found, losses, rtol=1e-6, atol=1e-6)
