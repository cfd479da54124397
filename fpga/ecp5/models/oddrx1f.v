// Simulation model of ODDRX1F, an output at double data rate of an ECP5, after FPGA-TN-02035 (ECP5 and ECP5-5G High-Speed I/O
// Interface): D0 and D1 are taken over at a rising edge of SCLK; Q is D0 while SCLK is high, and D1 while it is low.
//
// What is taken over at one edge begins to leave two edges later: Amaranth delays the output enable by two registers for that.

`timescale 1ps / 1ps
`default_nettype none

module ODDRX1F (
    input wire SCLK,
    input wire RST,
    input wire D0,
    input wire D1,
    output wire Q
);
  reg [1:0] first = 0, second = 0;
  reg rising = 0, waiting = 0, falling = 0;

  always @(posedge SCLK or posedge RST)
    if (RST) {first, second, rising, waiting} <= 0;
    else begin
      first <= {D1, D0};
      second <= first;
      rising <= second[0];
      waiting <= second[1];
    end

  // Half a period later, so that it does not change while it leaves.
  always @(negedge SCLK or posedge RST)
    if (RST) falling <= 0;
    else falling <= waiting;

  assign Q = SCLK ? rising : falling;
endmodule

`default_nettype wire
