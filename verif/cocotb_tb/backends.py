"""The scenario on the cycle-exact cocotb bench; writes what it saw (see verif/regress/test_backends.py)."""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge

from stmoe.verif.cocotb_tb.backend import CocotbEngine
from stmoe.verif.cocotb_tb.scenario import CONFIG, MEMORY_BYTES, memory_point, play


@cocotb.test()
async def scenario(dut):
    engine = CocotbEngine(dut, memory_point(), np.zeros(MEMORY_BYTES, np.uint8), CONFIG)
    engine.start()
    seen = await bridge(play)(engine, os.environ["STMOE_POLICY"], int(os.environ["STMOE_SEED"]))
    engine.observer.read_checker.finish()
    Path(os.environ["STMOE_OUT"]).write_text(json.dumps(seen))
