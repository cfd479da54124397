// Simulation models of an ECP5's pads, after FPGA-TN-02032 (ECP5 and ECP5-5G sysI/O Usage Guide): IB in, OBZ out, BB both; T = 1
// switches the driver off. They take no time: what clock, pads and traces take together is given where the chip is connected
// (fpga/simulation/sdram_on_board.v).

`timescale 1ps / 1ps
`default_nettype none

module IB (
    input wire I,
    output wire O
);
  assign O = I;
endmodule

module OBZ (
    input wire I,
    input wire T,
    output wire O
);
  assign O = T ? 1'bz : I;
endmodule

module BB (
    input wire I,
    input wire T,
    output wire O,
    inout wire B
);
  assign B = T ? 1'bz : I;
  assign O = B;
endmodule

`default_nettype wire
