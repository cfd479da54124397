"""Verilog of the engine, written the way a simulator runs fastest. Same registers, same values, same cycles.

Two things cost a Verilated engine half of its time, and both are in the style, not in the design: inputs that change between edges
make everything that hangs on them be evaluated again (for a reset that is the next state of every register), and Amaranth
writes every register as a combinational process and a register behind it, so that each is computed, stored and copied every cycle.
"""

import re
from collections import Counter

_PORT = re.compile(r"\b(input|output)\s+(?:reg\s+|wire\s+)?(\[\d+:0\])?\s*(\w+)")
#: Inputs that the driver may also change within a cycle: what Python sends is offered at once.
_LOADED = re.compile(r"s_axi[ls]_")

_NAME = r"(?:\\\S+ |[A-Za-z_]\w*)"
_NEXT = r"\\\$\d+ "
_REGISTER = re.compile(rf"^  always @\(posedge (\w+)\)\n    ({_NAME}) ?<= ({_NEXT});\n", re.MULTILINE)
_PROCESS = re.compile(
    r"^  always @\* begin\n    if \(\\\$auto\S+ \) begin end\n(.*?)^  end\n", re.MULTILINE | re.DOTALL
)
_ASSIGNMENT = re.compile(rf"^( *)({_NAME})( ?\[[^\]]*\])? ?= ", re.MULTILINE)
_ANY_NEXT = re.compile(_NEXT)


def bench(name: str, top: str, text: str) -> str:
    """A module ``name`` around module ``top`` of ``text`` that takes every input over at the rising edge of ``aclk``.

    ``s_axil`` and ``s_axis`` are taken over at a rising edge of ``load``, too. ``ValueError`` when there is no module ``top``.
    """
    module = re.search(rf"^module {top}\b.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    if module is None:
        raise ValueError(f"no module {top}")
    ports = _PORT.findall(module[0])
    inputs = {port: width for direction, width, port in ports if direction == "input" and port != "aclk"}
    connections = (f".{port}({port}{'_now' if port in inputs else ''})" for _, _, port in ports)
    lines = [
        f"module {name} (",
        ",\n".join(f"  {direction} wire {width} {port}" for direction, width, port in (*ports, ("input", "", "load"))),
        ");",
        *(f"  reg {width} {port}_now;" for port, width in inputs.items()),
        "  always @(posedge aclk) begin",
        *(f"    {port}_now <= {port};" for port in inputs if not _LOADED.match(port)),
        "  end",
        "  always @(posedge aclk or posedge load) begin",
        *(f"    {port}_now <= {port};" for port in inputs if _LOADED.match(port)),
        "  end",
        f"  {top} {top} (",
        "    " + ",\n    ".join(connections),
        "  );",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def merge_registers(text: str) -> str:
    """Every register of Amaranth's Verilog with the process of its next state made one clocked process.

    What is not of that form, hand-written Verilog above all, stays as it is.
    """
    return "".join(_merge_module(module) for module in re.split(r"(?<=^endmodule\n)", text, flags=re.MULTILINE))


def _merge_module(module: str) -> str:
    uses = Counter(_ANY_NEXT.findall(module))
    registers = {found[3]: (found[1], found[2]) for found in _REGISTER.finditer(module)}
    merged: set[str] = set()

    def merge(process: re.Match) -> str:
        body = process[1]
        assigned = _ASSIGNMENT.findall(body)
        targets = {target for _, target, _ in assigned}
        if len(targets) != 1:
            return process[0]
        (following,) = targets
        # Nothing else may read the next state: it is declared, assigned here, and copied by the register.
        if following not in registers or uses[following] != len(assigned) + 2:
            return process[0]
        clock, register = registers[following]
        merged.add(following)
        body = body.replace(f"    {following} = {register};\n", "", 1)
        body = _ASSIGNMENT.sub(lambda found: f"{found[1]}{register}{found[3] or ''} <= ", body)
        return f"  always @(posedge {clock}) begin\n{body}  end\n"

    text = _PROCESS.sub(merge, module)
    return _REGISTER.sub(lambda found: "" if found[3] in merged else found[0], text)
