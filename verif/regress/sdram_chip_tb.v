// Steps the SDRAM chip through the pin values of a file, as sdram_chip.cpp does, for event-driven simulators.
// Plusargs: +in=FILE, a record a line in hexadecimal; +out=FILE, a line "dq driven violation" for each.
`timescale 1ns / 1ps

module sdram_chip_tb;
  reg clk = 0;
  reg [31:0] pins = 32'h1e, dq = 0;
  wire [15:0] dq_o;
  wire driven;
  wire [4:0] violation;
  reg [8*256-1:0] name;
  integer in, out, got;

  sdram_chip #(
`include "chip_parameters.vh"
  ) chip (
      .clk(clk),
      .cke(pins[0]),
      .cs_n(pins[1]),
      .ras_n(pins[2]),
      .cas_n(pins[3]),
      .we_n(pins[4]),
      .ba(pins[6:5]),
      .a(pins[19:7]),
      .dqm(pins[21:20]),
      .dq_i(dq[15:0]),
      .dq_i_oe(pins[22]),
      .dq_o(dq_o),
      .dq_o_oe(driven),
      .violation(violation)
  );

  integer i;
  initial begin
    // An unwritten memory is x here and 0 in the other models.
    for (i = 0; i < (1 << 14); i = i + 1) chip.memory[i] = 0;
    if (!$value$plusargs("in=%s", name)) $finish;
    in = $fopen(name, "r");
    if (!$value$plusargs("out=%s", name)) $finish;
    out = $fopen(name, "w");
    got = $fscanf(in, "%h %h\n", pins, dq);
    while (got == 2) begin
      #5 clk = 1;
      #5 $fwrite(out, "%0d %0d %0d\n", dq_o, driven, violation);
      clk = 0;
      got = $fscanf(in, "%h %h\n", pins, dq);
    end
    $fclose(out);
    $finish;
  end
endmodule
