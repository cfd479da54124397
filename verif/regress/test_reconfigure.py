"""One build runs several models, one after the other (verif/cocotb_tb/reconfigure.py)."""

import pytest


@pytest.mark.parametrize(
    "name",
    ["models_back_to_back", "settings_written_while_running_wait_for_the_next_start", "aresetn_while_working"],
)
def test_one_build_serves(regression, name):
    regression.run("reconfigure", f"{name}$")
