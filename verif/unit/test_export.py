"""Exported Verilog: the same bytes from run to run, plain ports, lint, and no sources' paths."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.export import export, plain_ports
from stmoe.model.presets import preset
from stmoe.model.registers import register_map
from stmoe.sim.lint import lint

ROOT = Path(__file__).parents[2]


def write(path: Path, hash_seed: str) -> Path:
    """Export in an interpreter of its own, with its own order of sets."""
    command = [sys.executable, "-m", "stmoe.verif.unit.exported", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("export"), hash_seed="1")


def test_two_runs_with_different_hash_seeds_write_the_same_bytes(tmp_path, folder):
    again = write(tmp_path / "again", hash_seed="2")
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(file.name for file in again.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_the_ports_of_the_verilog_are_those_of_the_json_with_plain_names(folder):
    described = json.loads((folder / "exported.json").read_text())["ports"]
    text = (folder / "exported.v").read_text()
    module = text[text.index("module exported(") : text.index("endmodule")]
    found = {
        (name, direction, int(msb or 0) + 1)
        for direction, msb, name in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", module, re.MULTILINE)
    }
    assert found == {(p["name"], p["direction"], p["width"]) for p in described}
    names = {name for name, _, _ in found}
    assert {"aclk", "aresetn", "irq", "s_axil_awaddr", "s_axil_rready", "s_axis_tdata", "m_axis_tlast"} <= names


def test_the_file_list_names_files_that_are_there_and_memories_are_instances(folder):
    names = (folder / "exported.f").read_text().split()
    assert names == ["stmoe_sram.v", "exported.v"]
    assert all((folder / name).is_file() for name in names)
    assert "stmoe_sram #(" in (folder / "exported.v").read_text()


def test_no_path_of_the_sources_is_in_the_output(folder):
    for file in folder.iterdir():
        assert str(ROOT) not in file.read_text()
        assert ".py:" not in file.read_text()


def test_lint_is_clean_and_catches_a_planted_width_error(folder, tmp_path):
    assert lint(folder, "exported") == ""
    for file in folder.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    text = (tmp_path / "exported.v").read_text()
    (tmp_path / "exported.v").write_text(text.replace("assign m_axis_tlast =", "assign m_axis_tlast = 2'd1 +", 1))
    assert "WIDTHTRUNC" in lint(tmp_path, "exported")


def test_the_c_header_compiles_and_holds_every_offset(folder, tmp_path):
    registers = register_map(preset("test")[0])
    checks = "".join(f'_Static_assert(STMOE_{r.name} == {r.offset}u, "{r.name}");\n' for r in registers)
    source = tmp_path / "check.c"
    source.write_text(f'#include "stmoe_regs.h"\n{checks}')
    command = ["gcc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", f"-I{folder}", str(source)]
    subprocess.run(command, check=True)


def test_the_python_constants_hold_every_offset_and_field(folder):
    constants: dict[str, int] = {}
    exec((folder / "stmoe_regs.py").read_text(), constants)
    for register in register_map(preset("test")[0]):
        assert constants[register.name] == register.offset
    assert constants["CONTROL_STOP_MASK"] == 2
    assert constants["STATUS_ERROR_LSB"] == 4


class TwoAlike(wiring.Component):
    def __init__(self):
        inner = wiring.Signature({"x": Out(1)})
        super().__init__({"a": Out(wiring.Signature({"p": Out(inner), "q": Out(inner)})), "b": In(1)})


def test_a_name_met_twice_and_a_member_without_prefix_are_refused():
    with pytest.raises(ValueError, match="two ports would be called 'a_x'"):
        plain_ports(TwoAlike(), {"a": "a_", "b": "b"})
    with pytest.raises(ValueError, match="member 'b' has no port prefix"):
        plain_ports(wiring.PureInterface(wiring.Signature({"b": In(1)}), path=()), {"a": "a_"})


class PartlyConstant(wiring.Component):
    """A struct of which some bits are computed and some never change."""

    def __init__(self):
        parts = data.StructLayout({"kind": 2, "value": 2})
        super().__init__({"a": In(2), "b": Out(parts)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.a[0]):
            m.d.comb += self.b.value.eq(self.a)
        return m


def test_constant_bits_of_a_variable_are_driven_from_the_start(tmp_path):
    export(PartlyConstant(), "partly", tmp_path, preset("test")[0], prefixes={"a": "a", "b": "b_"})
    text = (tmp_path / "partly.v").read_text()
    assert re.search(r"always @\* begin\n    if \(\\\S+ \) begin end\n    \S+\[1:0\] = 2'h0;\n  end", text)
    assert lint(tmp_path, "partly") == ""
