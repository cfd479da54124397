"""Simulation models of the ECP5 primitives that yosys leaves empty, as far as this project uses them.

Block RAM after FPGA-TN-02204 (ECP5 memory usage guide), DSP after FPGA-TN-02205 (sysDSP), as yosys maps to them: no pipeline
registers, no cascades; and with the output registers of block RAM that hw/memory/stmoe_sram.v asks for. What a model does not do,
it refuses at the start of a simulation.
"""

#: Words of 18 bits in a block RAM, and rows of 320 bits in its initial contents: 16 words, 20 bits apart.
BLOCK_WORDS, INIT_ROWS = 1024, 64


def _bits(name: str, width: int) -> str:
    """Ports as yosys names them, the highest bit first."""
    return ", ".join(f"{name}{i}" for i in reversed(range(width)))


def _refuse(condition: str, what: str) -> str:
    return f'    if ({condition}) begin $display("%m: {what}: not modelled"); $finish; end\n'


def _block_ram() -> str:
    ports = []
    for side in "AB":
        ports += [f"input {_bits(f'DI{side}', 18)}", f"input {_bits(f'AD{side}', 14)}"]
        ports += [f"input CE{side}, OCE{side}, CLK{side}, WE{side}, RST{side}", f"input {_bits(f'CS{side}', 3)}"]
        ports.append(f"output {_bits(f'DO{side}', 18)}")
    rows = [f"INITVAL_{row:02X}" for row in range(INIT_ROWS)]
    texts = {
        "REGMODE": "NOREG",
        "CSDECODE": "0b000",
        "WRITEMODE": "NORMAL",
    }
    parameters = [f'{name}_{side} = "{value}"' for name, value in texts.items() for side in "AB"]
    parameters += [f'CLK{side}MUX = "CLK{side}"' for side in "AB"]
    parameters += ['RESETMODE = "SYNC"', 'ASYNC_RESET_RELEASE = "SYNC"', 'GSR = "ENABLED"', 'INIT_DATA = "STATIC"']
    parameters += [f"DATA_WIDTH_{side} = 18" for side in "AB"] + [f"{row} = 320'd0" for row in rows]
    initial = "".join(
        f"    for (i = 0; i < 16; i = i + 1) memory[{16 * row} + i] = {name}[20*i +: 18];\n"
        for row, name in enumerate(rows)
    )
    refused = "".join(
        [
            _refuse('CLKAMUX != "CLKA" || CLKBMUX != "CLKB"', "inverted clocks"),
            _refuse('CSDECODE_A != "0b000" || CSDECODE_B != "0b000"', "chip select"),
        ]
    )
    sides = "".join(_block_ram_side(side) for side in "AB")
    return f"""module DP16KD #(
    parameter {", parameter ".join(parameters)}
) (
    {", ".join(ports)}
);
  // Words of 18 bits: two bytes of 9. A port of at most 4 bits leaves the ninth of each byte alone.
  reg [17:0] memory [0:{BLOCK_WORDS - 1}];
  integer i;
  initial begin
{refused}{initial}  end
{sides}endmodule
"""


def _block_ram_side(side: str) -> str:
    """One port. 36 bits wide, it writes with the data of both sides (A the low half) and four byte enables in its lowest address."""
    out = "DATA_WIDTH_B == 36 ? oB[17:0] : oA[17:0]" if side == "A" else "DATA_WIDTH_B == 36 ? oB[35:18] : oB[17:0]"
    return f"""
  wire [17:0] d{side} = {{{_bits(f"DI{side}", 18)}}};
  wire [13:0] a{side} = {{{_bits(f"AD{side}", 14)}}};
  wire [35:0] wide{side} = {{{_bits("DIB", 18)}, {_bits("DIA", 18)}}};
  reg [35:0] q{side} = 36'd0, kept{side} = 36'd0;
  wire [35:0] o{side} = REGMODE_{side} == "OUTREG" ? kept{side} : q{side};
  wire [17:0] old{side} = memory[a{side}[13:4]];
  wire [35:0] pair{side} = {{memory[{{a{side}[13:5], 1'b1}}], memory[{{a{side}[13:5], 1'b0}}]}};
  reg [17:0] read{side};
  always @* begin
    read{side} = 18'd0;
    case (DATA_WIDTH_{side})
      18: read{side} = old{side};
      9: read{side}[8:0] = a{side}[3] ? old{side}[17:9] : old{side}[8:0];
      4: read{side}[3:0] = old{side}[(a{side}[3] ? 9 : 0) + 4 * a{side}[2] +: 4];
      2: read{side}[1:0] = old{side}[(a{side}[3] ? 9 : 0) + 2 * a{side}[2:1] +: 2];
      default: read{side}[0] = old{side}[(a{side}[3] ? 9 : 0) + a{side}[2:0]];
    endcase
  end
  always @(posedge CLK{side}) begin
    if (CE{side}) begin
      if (WE{side}) begin
        case (DATA_WIDTH_{side})
          36: begin
            if (a{side}[0]) memory[{{a{side}[13:5], 1'b0}}][8:0] <= wide{side}[8:0];
            if (a{side}[1]) memory[{{a{side}[13:5], 1'b0}}][17:9] <= wide{side}[17:9];
            if (a{side}[2]) memory[{{a{side}[13:5], 1'b1}}][8:0] <= wide{side}[26:18];
            if (a{side}[3]) memory[{{a{side}[13:5], 1'b1}}][17:9] <= wide{side}[35:27];
          end
          18: begin
            if (a{side}[0]) memory[a{side}[13:4]][8:0] <= d{side}[8:0];
            if (a{side}[1]) memory[a{side}[13:4]][17:9] <= d{side}[17:9];
          end
          9: memory[a{side}[13:4]][(a{side}[3] ? 9 : 0) +: 9] <= d{side}[8:0];
          4: memory[a{side}[13:4]][(a{side}[3] ? 9 : 0) + 4 * a{side}[2] +: 4] <= d{side}[3:0];
          2: memory[a{side}[13:4]][(a{side}[3] ? 9 : 0) + 2 * a{side}[2:1] +: 2] <= d{side}[1:0];
          default: memory[a{side}[13:4]][(a{side}[3] ? 9 : 0) + a{side}[2:0]] <= d{side}[0];
        endcase
      end
      if (!WE{side} || WRITEMODE_{side} == "READBEFOREWRITE") q{side} <= DATA_WIDTH_{side} == 36 ? pair{side} : {{18'd0, read{side}}};
      else if (WRITEMODE_{side} == "WRITETHROUGH") q{side} <= {{18'd0, d{side}}};
    end
{_refuse(f'RST{side} && RESETMODE != "SYNC"', "asynchronous reset")}    if (OCE{side}) kept{side} <= q{side};
    if (RST{side}) begin
      q{side} <= 36'd0;
      kept{side} <= 36'd0;
    end
  end
  // 36 bits are read by port B, and leave by both sides' outputs.
  assign {{{_bits(f"DO{side}", 18)}}} = {out};
"""


def _multiplier() -> str:
    words = {"A": 18, "B": 18, "C": 18, "SRIA": 18, "SRIB": 18}
    outs = {"SROA": 18, "SROB": 18, "ROA": 18, "ROB": 18, "ROC": 18, "P": 36}
    registers = ("INPUTA", "INPUTB", "INPUTC", "PIPELINE", "OUTPUT")
    parameters = [
        f'REG_{r}_CLK = "NONE", parameter REG_{r}_CE = "CE0", parameter REG_{r}_RST = "RST0"' for r in registers
    ]
    parameters += [f'CLK{i}_DIV = "ENABLED"' for i in range(4)]
    parameters += ['HIGHSPEED_CLK = "NONE"', 'GSR = "ENABLED"', 'CAS_MATCH_REG = "FALSE"', 'SOURCEB_MODE = "B_SHIFT"']
    parameters += ['MULT_BYPASS = "DISABLED"', 'RESETMODE = "SYNC"']
    ports = [f"input {_bits(name, width)}" for name, width in words.items()]
    ports += ["input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB", *(f"input {_bits(n, 4)}" for n in ("CLK", "CE", "RST"))]
    ports += [f"output {_bits(name, width)}" for name, width in outs.items()]
    ports.append("output SIGNEDP")
    registered = " || ".join(f'REG_{r}_CLK != "NONE"' for r in registers)
    return f"""module MULT18X18D #(
    parameter {", parameter ".join(parameters)}
) (
    {", ".join(ports)}
);
  initial begin
{_refuse(registered, "registers")}  end
  wire signed [18:0] a = {{SIGNEDA & A17, {_bits("A", 18)}}};
  wire signed [18:0] b = {{SIGNEDB & B17, {_bits("B", 18)}}};
  wire signed [37:0] p = a * b;
  assign {{{_bits("P", 36)}}} = p[35:0];
  assign SIGNEDP = SIGNEDA | SIGNEDB;
endmodule
"""


def models() -> str:
    """Verilog of the models."""
    return f"`timescale 1ns / 1ps\n{_block_ram()}\n{_multiplier()}"
