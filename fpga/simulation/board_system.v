// A board for simulation: its core (module board_core), the registers of its IO cells, and the SDRAM chip. One clock: the chip samples
// what left the IO cells with the edge before, and what it drives is sampled by them at the next.

`default_nettype none

module board_system (
    input wire aclk,
    input wire aresetn,
    input wire rx,
    output wire tx,
    output wire [7:0] leds,
    output wire [4:0] violation
);
  wire cke, cs_n, ras_n, cas_n, we_n, dq_oe;
  wire [1:0] ba, dqm;
  wire [12:0] a;
  wire [15:0] dq_o, chip_o;
  wire chip_oe;

  // IO cells.
  reg q_cke = 0, q_cs_n = 1, q_ras_n = 1, q_cas_n = 1, q_we_n = 1, q_dq_oe = 0;
  reg [1:0] q_ba = 0, q_dqm = 3;
  reg [12:0] q_a = 0;
  reg [15:0] q_dq_o = 0, q_dq_i = 0;
  always @(posedge aclk) begin
    {q_cke, q_cs_n, q_ras_n, q_cas_n, q_we_n, q_dq_oe} <= {cke, cs_n, ras_n, cas_n, we_n, dq_oe};
    {q_ba, q_dqm, q_a, q_dq_o} <= {ba, dqm, a, dq_o};
    q_dq_i <= chip_oe ? chip_o : q_dq_o;
  end

  board_core core (
      .aclk(aclk),
      .aresetn(aresetn),
      .rx(rx),
      .tx(tx),
      .leds(leds),
      .sdram_cke(cke),
      .sdram_cs_n(cs_n),
      .sdram_ras_n(ras_n),
      .sdram_cas_n(cas_n),
      .sdram_we_n(we_n),
      .sdram_ba(ba),
      .sdram_a(a),
      .sdram_dqm(dqm),
      .sdram_dq_o(dq_o),
      .sdram_dq_oe(dq_oe),
      .sdram_dq_i(q_dq_i)
  );

  sdram_chip #(
`include "chip_parameters.vh"
  ) chip (
      .clk(aclk),
      .cke(q_cke),
      .cs_n(q_cs_n),
      .ras_n(q_ras_n),
      .cas_n(q_cas_n),
      .we_n(q_we_n),
      .ba(q_ba),
      .a(q_a),
      .dqm(q_dqm),
      .dq_i(q_dq_o),
      .dq_i_oe(q_dq_oe),
      .dq_o(chip_o),
      .dq_o_oe(chip_oe),
      .violation(violation)
  );
endmodule

`default_nettype wire
