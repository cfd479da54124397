"""One Verilator build for all, a folder and a seed for each test."""

import os
import re

import pytest

from stmoe.model.presets import preset
from stmoe.verif.cocotb_tb.build import CACHE, Regression, cocotb_engine


@pytest.fixture(scope="session")
def cocotb_build():
    return cocotb_engine(preset("test")[0])


@pytest.fixture
def regression(cocotb_build, request) -> Regression:
    """Runs cocotb tests; ``STMOE_SEED`` chooses the seed."""
    folder = CACHE / "run" / re.sub(r"\W+", "_", request.node.name)
    return Regression(cocotb_build, folder, int(os.environ.get("STMOE_SEED", "1")), request.node.nodeid)
