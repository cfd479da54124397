"""Bad memory, bad settings, bad messages: an error, never a hang or a wrong answer (verif/cocotb_tb/bad_input.py)."""

import pytest


@pytest.mark.parametrize(
    "name",
    [
        *("crc", "slverr", "error_in_a_prefetch", "read_outside_the_window", "a_locked_window_stays"),
        *("illegal_settings", "start_before_configuration", "start_while_running_or_halted", "messages", "states"),
        *("bad_message_while_prefetching", "stop_at_any_time"),
    ],
)
def test_engine_reports_and_recovers_from(regression, name):
    regression.run("bad_input", rf"{name}(/|$)")
