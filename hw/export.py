"""Verilog for synthesis: plain port names, a file list, the register header, and a JSON of ports and parameters.

The output is a function of the configuration alone: the same bytes from run to run (verif/unit/test_export.py).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from amaranth import ClockDomain, Elaboratable, Module, Signal, Value
from amaranth.back import verilog
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

import stmoe
from stmoe.model.config import EngineConfig
from stmoe.model.register_files import c_header, python_constants
from stmoe.model.shape import ModelShape

#: Member of the engine's signature → prefix of its ports (or the port's name, for a member that is a single signal).
ENGINE_PORTS = {
    "axi": "m_axi_",
    "axil": "s_axil_",
    "i_axis": "s_axis_t",
    "o_axis": "m_axis_t",
    "irq": "irq",
    "quiescent": "quiescent",
}

SRAM_FILE = "stmoe_sram.v"


class ExportPlatform:
    """Tells ``Sram`` to become an instance of the Verilog module."""

    sram_instance = True


def plain_ports(component: wiring.Component, prefixes: Mapping[str, str]) -> dict[str, tuple[wiring.Flow, Value]]:
    """Port name → (flow, value) of every signal of ``component``.

    A leaf ``member.….leaf`` is called ``prefixes[member] + leaf``; the fields of a struct (a stream's payload) stand for its leaf;
    a member that is itself a leaf is called ``prefixes[member]``. So ``axi.ar.arvalid`` becomes ``m_axi_arvalid``, and
    ``i_axis.payload.last`` becomes ``s_axis_tlast``. The member ``reset`` of a component that has the domain's as well is left out: it
    stays low. A member without a prefix, and a name met twice, raise ``ValueError``.
    """
    ports: dict[str, tuple[wiring.Flow, Value]] = {}
    for path, member, value in component.signature.flatten(component):
        if path == ("reset",):
            continue
        if path[0] not in prefixes:
            raise ValueError(f"member {path[0]!r} has no port prefix: known are {', '.join(prefixes)}")
        prefix = prefixes[str(path[0])]
        leaf = "" if len(path) == 1 else str(path[-1])
        leaves = {leaf: value}
        if isinstance(value, data.View) and isinstance(value.shape(), data.StructLayout):
            leaves = {field: value[field] for field in value.shape().members}
        for name, part in leaves.items():
            if prefix + name in ports:
                raise ValueError(f"two ports would be called {prefix + name!r}")
            ports[prefix + name] = (member.flow, Value.cast(part))
    return ports


class PlainTop(Elaboratable):
    """``component`` behind ports with plain names, clocked by ``aclk`` and reset, synchronously, by ``aresetn`` = 0.

    Parameters
    ----------
    component : what to wrap; its domain is ``sync``.
    prefixes : see ``plain_ports``.
    """

    def __init__(self, component: wiring.Component, prefixes: Mapping[str, str]):
        self.component = component
        self.inner = plain_ports(component, prefixes)
        self.aclk = Signal()
        self.aresetn = Signal()
        self.outer = {name: Signal(value.shape(), name=name) for name, (_, value) in self.inner.items()}

    @property
    def ports(self) -> list[Signal]:
        """Clock, reset, and the rest in the order of the signature."""
        return [self.aclk, self.aresetn, *self.outer.values()]

    def describe(self) -> list[dict[str, str | int]]:
        """Name, direction and width of every port."""
        described: list[dict[str, str | int]] = [
            {"name": name, "direction": "input", "width": 1} for name in ("aclk", "aresetn")
        ]
        for name, (flow, value) in self.inner.items():
            direction = "input" if flow is In else "output"
            described.append({"name": name, "direction": direction, "width": len(value)})
        return described

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain()
        domain.clk = self.aclk
        domain.rst = reset = Signal()
        m.d.comb += reset.eq(~self.aresetn)
        m.submodules.engine = self.component
        for name, (flow, value) in self.inner.items():
            outer = self.outer[name]
            m.d.comb += value.eq(outer) if flow is In else outer.eq(value)
        return m


def to_verilog(top: PlainTop, name: str) -> str:
    """The Verilog of ``top`` as module ``name``, without traces of the sources' paths."""
    text = verilog.convert(
        top,
        name=name,
        platform=ExportPlatform(),
        ports=top.ports,
        emit_src=False,
        strip_internal_attrs=True,
    )
    return "".join(_awaken(module) for module in re.split(r"(?<=^endmodule\n)", text, flags=re.MULTILINE))


def _awaken(module: str) -> str:
    """Let every ``always @*`` run once at the start, in simulators that wait for a change.

    Yosys' combinational blocks read a dummy for that reason, but a variable that has its initial value from its declaration never
    changes: Icarus and others leave what depends on it at x until something else does. So the dummy does change, where a tool
    simulates by events. And blocks of one statement, which drive some bits of a variable, do not read it: let these, too.
    """
    dummy = re.search(r"^  reg (\\\S+dump_module\S+ ) = 0;$\n", module, re.MULTILINE)
    if dummy is None:
        return module
    start = (
        "`ifndef VERILATOR\n`ifndef SYNTHESIS\n  // synthesis translate_off\n"
        f"  initial {dummy[1]}<= 1;\n  // synthesis translate_on\n`endif\n`endif\n"
    )
    module = module[: dummy.end()] + start + module[dummy.end() :]
    wake = f"  always @* begin\n    if ({dummy[1]}) begin end\n"
    return re.sub(
        r"^  always @\*\n(    [^;]+ = [^;]+;\n)",
        lambda found: f"{wake}{found[1]}  end\n",
        module,
        flags=re.M,
    )


def export(
    component: wiring.Component,
    name: str,
    out_dir: Path,
    config: EngineConfig,
    *,
    prefixes: Mapping[str, str] = ENGINE_PORTS,
    shape: ModelShape | None = None,
) -> list[Path]:
    """Write ``component`` as module ``name`` and what goes with it to ``out_dir``; returns the paths written.

    Files: ``NAME.v``, ``stmoe_sram.v``, ``NAME.f`` (file list), ``NAME.json`` (ports and parameters), ``stmoe_regs.h`` and
    ``stmoe_regs.py``. Everything is made before the first file is written.
    """
    top = PlainTop(component, prefixes)
    sources = [SRAM_FILE, f"{name}.v"]
    description = {
        "name": name,
        "generator": f"stmoe {stmoe.__version__}",
        "sources": sources,
        "ports": top.describe(),
        "parameters": dataclasses.asdict(config),
        "model": None if shape is None else dataclasses.asdict(shape),
    }
    texts = {
        f"{name}.v": to_verilog(top, name),
        SRAM_FILE: (Path(__file__).parent / "memory" / SRAM_FILE).read_text(),
        f"{name}.f": "".join(f"{source}\n" for source in sources),
        f"{name}.json": json.dumps(description, indent=2) + "\n",
        "stmoe_regs.h": c_header(config),
        "stmoe_regs.py": python_constants(config),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (out_dir / file).write_text(text)
    return [out_dir / file for file in texts]
