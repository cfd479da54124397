// Simulation models of the registers of an ECP5's IO cells, and of the plain one that Amaranth puts before an output enable, after the
// primitives' description (FPGA Libraries Reference Guide) and FPGA-TN-02032 (sysI/O): all of them begin at 0 when the FPGA is
// configured, and none has another reset here (CD is 0).
//
// IFS1P3DX looks at when its input changes: within SETUP before the clock's edge or HOLD after it, either value is taken, at random.
// SETUP and HOLD are assumed, half a nanosecond each: the data sheet gives them only for a clock from a pin.

`timescale 1ps / 1ps
`default_nettype none

module IFS1P3DX #(
    parameter SETUP = 500,
    parameter HOLD = 500
) (
    input wire D,
    input wire SP,
    input wire SCLK,
    input wire CD,
    output reg Q
);
  localparam LONG = 1000000;
  reg signed [63:0] changed = -LONG, taken = -LONG;
  initial Q = 0;

  always @(posedge SCLK or posedge CD)
    if (CD) Q <= 0;
    else if (SP) begin
      taken = $time;
      Q <= $time - changed < SETUP ? $urandom : D;
    end

  always @(D) begin
    changed = $time;
    if ($time - taken < HOLD) Q <= $urandom;
  end
endmodule

module OFS1P3DX (
    input wire D,
    input wire SP,
    input wire SCLK,
    input wire CD,
    output reg Q
);
  initial Q = 0;
  always @(posedge SCLK or posedge CD)
    if (CD) Q <= 0;
    else if (SP) Q <= D;
endmodule

module FD1S3AX (
    input wire D,
    input wire CK,
    output reg Q
);
  initial Q = 0;
  always @(posedge CK) Q <= D;
endmodule

`default_nettype wire
