// Every model of an IO cell of an ECP5, for test_models.py: prints what comes out. Cell names are macros, so that a planted bug can
// take the place of one.
`timescale 1ps / 1ps

module cells_tb #(
    parameter NAME = "cells"
);
  reg clk = 0;
  integer cycle = 0, trial, away;
  always #5000 clk = ~clk;

  // Double data rate, and the registers that delay its output enable as much.
  reg d0 = 0, d1 = 0;
  wire q, one, two, enable;
  `ODDRX1F ddr (.SCLK(clk), .RST(1'b0), .D0(d0), .D1(d1), .Q(q));
  `FD1S3AX first (.CK(clk), .D(d0), .Q(one));
  `FD1S3AX second (.CK(clk), .D(one), .Q(two));
  `OFS1P3DX third (.SCLK(clk), .SP(1'b1), .CD(1'b0), .D(two), .Q(enable));
  always @(posedge clk) begin
    #1000 $display("%0s ddr %0d %b %b %b %b", NAME, cycle, d0, d1, q, enable);
    {d1, d0} = $urandom;
    cycle = cycle + 1;
  end
  always @(negedge clk) #1000 $display("%0s low %0d %b", NAME, cycle, q);

  // An input that changes `away` picoseconds from a clock edge, and the register after it.
  reg d = 0, sample = 0;
  wire taken;
  `IFS1P3DX in (.SCLK(sample), .SP(1'b1), .CD(1'b0), .D(d), .Q(taken));
  initial
    for (trial = 0; trial < 64; trial = trial + 1)
      for (away = -510; away <= 510; away = away + 20) begin
        if (away < 0) begin
          #(2000 + away) d = ~d;
          #(-away) sample = 1;
          #(1000);
        end else begin
          #2000 sample = 1;
          #(away) d = ~d;
          #(1000 - away);
        end
        $display("%0s ifs %0d %b %b", NAME, away, d, taken);
        sample = 0;
      end

  // Pads.
  reg i = 0, t = 0, outside = 0, outside_drives = 0;
  wire in_pad, out_pad, both_pad, both_in;
  assign both_pad = outside_drives ? outside : 1'bz;
  `IB ib (.I(i), .O(in_pad));
  `OBZ obz (.I(i), .T(t), .O(out_pad));
  `BB bb (.I(i), .T(t), .B(both_pad), .O(both_in));
  integer k;
  initial
    for (k = 0; k < 8; k = k + 1) begin
      {outside, t, i} = k[2:0];
      outside_drives = t;
      #100 $display("%0s pad %b %b %b %b %b %b", NAME, i, t, outside, in_pad, out_pad, both_in);
    end
endmodule
