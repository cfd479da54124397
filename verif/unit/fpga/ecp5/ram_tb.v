// A memory as any tool takes it and as the ECP5's block RAM, on the same traffic, for test_ram.py: compared, wrong, words other than 0.
module ram_tb #(
    parameter WIDTH = 20,
    parameter DEPTH = 64,
    parameter ADDR_BITS = 6
) (
    input wire clk
);
  reg we = 0, re = 0;
  reg [ADDR_BITS-1:0] wa = 0, ra = 0;
  reg [WIDTH-1:0] d = 0;
  wire [WIDTH-1:0] plain, ecp5;
  integer cycle = 0, compared = 0, wrong = 0, told = 0, i;
  plain_sram #(.WIDTH(WIDTH), .DEPTH(DEPTH), .GRANULARITY(WIDTH), .ADDR_BITS(ADDR_BITS), .OUTPUT_REGISTER(1)) a
    (.clk(clk), .write_en(we), .write_addr(wa), .write_data(d), .read_en(re), .read_addr(ra), .read_data(plain));
  stmoe_sram #(.WIDTH(WIDTH), .DEPTH(DEPTH), .GRANULARITY(WIDTH), .ADDR_BITS(ADDR_BITS), .OUTPUT_REGISTER(1)) b
    (.clk(clk), .write_en(we), .write_addr(wa), .write_data(d), .read_en(re), .read_addr(ra), .read_data(ecp5));
  always @(negedge clk) begin
    if (cycle > DEPTH + 10) begin
      compared = compared + 1;
      if (plain !== ecp5) wrong = wrong + 1;
      if (plain != 0) told = told + 1;
    end
    // First every word is written; then both ends more often than the rest, and never what is read in that cycle.
    we = cycle < DEPTH || $urandom % 2 == 0;
    wa = cycle < DEPTH ? cycle : $urandom % 4 == 0 ? DEPTH - 1 : $urandom % DEPTH;
    for (i = 0; i < WIDTH; i = i + 1) d[i] = $urandom % 2;
    ra = $urandom % 4 == 0 ? DEPTH - 1 : $urandom % 4 == 0 ? 0 : $urandom % DEPTH;
    re = cycle > DEPTH + 2 && ra != wa && $urandom % 2 == 0;
    cycle = cycle + 1;
    if (cycle == 2 * DEPTH + 2000) $display("%0d %0d %0d %0d", DEPTH, compared, wrong, told);
  end
endmodule

module rams_tb;
  reg clk = 0;
  always #5 clk = ~clk;
  ram_tb little (.clk(clk));
  ram_tb #(.WIDTH(128), .DEPTH(518), .ADDR_BITS(10)) wide (.clk(clk));
  ram_tb #(.WIDTH(128), .DEPTH(2048), .ADDR_BITS(11)) deep (.clk(clk));
  ram_tb #(.WIDTH(7), .DEPTH(1025), .ADDR_BITS(11)) narrow (.clk(clk));
  initial #90000 $finish;
endmodule
