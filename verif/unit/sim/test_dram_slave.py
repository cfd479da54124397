"""The stub engine with the memory model under cocotb and compiled: the same answers in the same cycles."""

import json
import os
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from cocotb_tools.runner import get_runner

from stmoe.sim.build import BuildOptions, build_engine
from stmoe.sim.dram.points import POINTS
from stmoe.sim.engine import Engine
from stmoe.sim.toolchain import find_verilator

ROOT = Path(__file__).resolve().parents[3]
STUB = Path(__file__).resolve().parent / "stub_engine.v"
SIZE = 1 << 15


def under_cocotb(work: dict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    tool = find_verilator()
    for name in ("PATH", "VERILATOR_ROOT"):
        if name in tool.env:
            monkeypatch.setenv(name, tool.env[name])
    # The pip wheel's makefile needs what sim/build.py gives it; variables in MAKEFLAGS count as given on the command line.
    monkeypatch.setenv("MAKEFLAGS", "CXX=g++ LINK=g++ AR=ar CFG_CXXFLAGS_PCH_I=-include CFG_GCH_IF_CLANG=")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    work |= {"out": str(folder / "out.json")}
    (folder / "work.json").write_text(json.dumps(work))
    runner = get_runner("verilator")
    runner.build(sources=[STUB], hdl_toplevel="stmoe_engine", build_dir=folder / "sim", build_args=["-Wno-fatal"])
    runner.test(
        hdl_toplevel="stmoe_engine",
        test_module="stmoe.verif.unit.sim.cocotb_stub",
        build_dir=folder / "sim",
        test_dir=folder,
        extra_env={"STMOE_WORK": str(folder / "work.json")},
    )
    return json.loads((folder / "out.json").read_text())


@pytest.mark.slow
def test_cocotb_and_the_compiled_engine_agree_cycle_for_cycle(tmp_path, monkeypatch):
    rng = random.Random(int(os.environ.get("STMOE_SEED", "1")))
    memory = np.random.default_rng(5).integers(0, 256, SIZE, dtype=np.uint8)
    messages = [
        struct.pack("<BBbBIII", rng.choice([1, 2]), 0, 0, 0, 0, 64 * rng.randrange(SIZE // 64), 0) + rng.randbytes(16)
        for _ in range(300)
    ]
    work = {"point": "demo", "memory": memory.tolist(), "messages": [m.hex() for m in messages]}
    theirs = under_cocotb(work, tmp_path, monkeypatch)
    build = build_engine([STUB], BuildOptions(), ROOT / "build" / "native")
    ours = []
    with Engine(build, POINTS["demo"], memory) as engine:
        for message in messages:
            engine.send(message)
            answer = engine.result()
            ours.append([answer.message.hex(), answer.first_cycle, answer.last_cycle])
        assert engine.memory_statistics.refreshes > 0
    assert theirs["answers"] == ours
    assert theirs["memory"] == memory.tolist()
