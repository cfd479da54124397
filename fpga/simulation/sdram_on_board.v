// An SDRAM chip on a board: the chip of fpga/sdram/sdram_chip.v behind what clock, pads and traces take, with what a datasheet says of a
// data pin within a cycle. For simulators with delays.
//
// Clock and pins reach the chip OUT picoseconds after they leave the FPGA; what it reads is back BACK picoseconds after it left the
// chip. From HOLD to ACCESS after the chip's clock edge a data pin has some value, at random (tOH, tAC). Inputs must be
// stable from SETUP before that edge to HELD after it (tIS, tIH): `unsafe` counts where they are not, `setup` and `held` are the least
// seen since `clear` was high; nothing is looked at while CKE is low.
//
// Plusargs, picoseconds: +sdram_out=, +sdram_back=, +sdram_access= (less than a period), +sdram_hold= (less than that).

`timescale 1ps / 1ps
`default_nettype none

module sdram_on_board #(
    parameter SETUP = 2000,
    parameter HELD = 1000
) (
    input wire clk,
    input wire cke,
    input wire cs_n,
    input wire ras_n,
    input wire cas_n,
    input wire we_n,
    input wire [1:0] ba,
    input wire [12:0] a,
    input wire [1:0] dqm,
    input wire [15:0] dq_i,
    input wire dq_i_oe,
    output wire [15:0] dq_o,
    output wire dq_o_oe,
    input wire clear,
    output wire [4:0] violation,
    output reg [31:0] unsafe,
    output reg [31:0] setup,
    output reg [31:0] held
);
  localparam LONG = 1000000, WIDTH = 39;
  integer out = 1500, back = 1500, access = 6000, hold = 2500;
  initial begin
    if ($value$plusargs("sdram_out=%d", out) == 0) out = 1500;
    if ($value$plusargs("sdram_back=%d", back) == 0) back = 1500;
    if ($value$plusargs("sdram_access=%d", access) == 0) access = 6000;
    if ($value$plusargs("sdram_hold=%d", hold) == 0) hold = 2500;
  end

  // What is not driven does not count.
  wire [WIDTH-1:0] pins = {dq_i & {16{dq_i_oe}}, dq_i_oe, dqm, a, ba, we_n, cas_n, ras_n, cs_n, cke};
  wire [WIDTH-1:0] there;
  wire clk_there;
  transport #(.WIDTH(WIDTH)) pins_out (.in(pins), .delay(out), .out(there));
  transport clk_out (.in(clk), .delay(out), .out(clk_there));

  wire [15:0] chip_o;
  wire chip_oe;
  sdram_chip #(
`include "chip_parameters.vh"
  ) chip (
      .clk(clk_there),
      .cke(there[0]),
      .cs_n(there[1]),
      .ras_n(there[2]),
      .cas_n(there[3]),
      .we_n(there[4]),
      .ba(there[6:5]),
      .a(there[19:7]),
      .dqm(there[21:20]),
      .dq_i_oe(there[22]),
      .dq_i(there[38:23]),
      .dq_o(chip_o),
      .dq_o_oe(chip_oe),
      .violation(violation)
  );

  // Into the chip.
  reg signed [63:0] changed = -LONG, clocked = -LONG;
  initial begin
    unsafe = 0;
    setup = LONG;
    held = LONG;
  end
  always @(clear) begin
    setup = LONG;
    held = LONG;
  end
  always @(posedge clk_there) begin
    if (there[0] && !clear) begin
      if ($time - changed < {32'd0, setup}) setup = 32'($time - changed);
      if ($time - changed < SETUP) unsafe = unsafe + 1;
    end
    clocked = $time;
  end
  always @(there) begin
    if (there[0] && !clear) begin
      if ($time - clocked < {32'd0, held}) held = 32'($time - clocked);
      if ($time - clocked < HELD) unsafe = unsafe + 1;
    end
    changed = $time;
  end

  // Out of it: driven from `hold` on, and no longer than `access` after the edge that ends it.
  reg [15:0] leaving = 0;
  reg leaving_oe = 0;
  always @(posedge clk_there) begin
    #(hold);
    leaving <= $urandom;
    leaving_oe <= leaving_oe | chip_oe;
    #(access - hold);
    leaving <= chip_o;
    leaving_oe <= chip_oe;
  end
  transport #(.WIDTH(17)) data_back (.in({leaving_oe, leaving}), .delay(back), .out({dq_o_oe, dq_o}));
endmodule

`default_nettype wire
