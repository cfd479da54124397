// A delay that lets every change through, however short: what wires do, and what Verilator's `<= #` does not, once a change comes while
// another is on its way. At most 63 changes at a time; `delay` in picoseconds, fixed.

`timescale 1ps / 1ps
`default_nettype none

module transport #(
    parameter WIDTH = 1
) (
    input wire [WIDTH-1:0] in,
    input wire [31:0] delay,
    output reg [WIDTH-1:0] out
);
  reg [WIDTH-1:0] values [0:63];
  reg [63:0] due [0:63];
  reg [5:0] put = 0, take = 0;
  initial out = 0;

  always @(in) begin
    values[put] = in;
    due[put] = $time + {32'd0, delay};
    put = put + 1;
  end

  always begin
    wait (put != take);
    if (due[take] > $time) #(due[take] - $time);
    out = values[take];
    take = take + 1;
  end
endmodule

`default_nettype wire
