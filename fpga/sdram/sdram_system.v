// The controller under test (module sdram_controller) and its chip, for the compiled simulation of bench.cpp.
// The backdoor writes the chip's memory, a word a clock, while the controller is in reset.

`default_nettype none

module sdram_system #(
    parameter BUS_BYTES = 16,
    parameter WORD_BITS = 24
) (
    input wire aclk,
    input wire aresetn,
    input wire [31:0] s_axi_araddr,
    input wire [7:0] s_axi_arlen,
    input wire [2:0] s_axi_arsize,
    input wire [1:0] s_axi_arburst,
    input wire s_axi_arvalid,
    output wire s_axi_arready,
    output wire [8*BUS_BYTES-1:0] s_axi_rdata,
    output wire [1:0] s_axi_rresp,
    output wire s_axi_rlast,
    output wire s_axi_rvalid,
    input wire s_axi_rready,
    input wire [31:0] s_axi_awaddr,
    input wire [7:0] s_axi_awlen,
    input wire [2:0] s_axi_awsize,
    input wire [1:0] s_axi_awburst,
    input wire s_axi_awvalid,
    output wire s_axi_awready,
    input wire [8*BUS_BYTES-1:0] s_axi_wdata,
    input wire [BUS_BYTES-1:0] s_axi_wstrb,
    input wire s_axi_wlast,
    input wire s_axi_wvalid,
    output wire s_axi_wready,
    output wire [1:0] s_axi_bresp,
    output wire s_axi_bvalid,
    input wire s_axi_bready,
    input wire backdoor_write,
    input wire [31:0] backdoor_address,
    input wire [15:0] backdoor_data,
    output wire [2:0] command,
    output wire [4:0] violation
);
  wire cke, cs_n, ras_n, cas_n, we_n, dq_oe, chip_oe;
  wire [1:0] ba, dqm;
  wire [12:0] a;
  wire [15:0] dq_o, chip_o;

  sdram_controller controller (
      .aclk(aclk),
      .aresetn(aresetn),
      .s_axi_arid(1'b0),
      .s_axi_araddr(s_axi_araddr),
      .s_axi_arlen(s_axi_arlen),
      .s_axi_arsize(s_axi_arsize),
      .s_axi_arburst(s_axi_arburst),
      .s_axi_arcache(4'b0011),
      .s_axi_arprot(3'b000),
      .s_axi_arvalid(s_axi_arvalid),
      .s_axi_arready(s_axi_arready),
      .s_axi_rid(),
      .s_axi_rdata(s_axi_rdata),
      .s_axi_rresp(s_axi_rresp),
      .s_axi_rlast(s_axi_rlast),
      .s_axi_rvalid(s_axi_rvalid),
      .s_axi_rready(s_axi_rready),
      .s_axi_awid(1'b0),
      .s_axi_awaddr(s_axi_awaddr),
      .s_axi_awlen(s_axi_awlen),
      .s_axi_awsize(s_axi_awsize),
      .s_axi_awburst(s_axi_awburst),
      .s_axi_awcache(4'b0011),
      .s_axi_awprot(3'b000),
      .s_axi_awvalid(s_axi_awvalid),
      .s_axi_awready(s_axi_awready),
      .s_axi_wdata(s_axi_wdata),
      .s_axi_wstrb(s_axi_wstrb),
      .s_axi_wlast(s_axi_wlast),
      .s_axi_wvalid(s_axi_wvalid),
      .s_axi_wready(s_axi_wready),
      .s_axi_bid(),
      .s_axi_bresp(s_axi_bresp),
      .s_axi_bvalid(s_axi_bvalid),
      .s_axi_bready(s_axi_bready),
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
      .sdram_dq_i(chip_o)
  );

  // The parameters are those of sdram_chip; build with -G or edit the defaults through the generated file chip_parameters.vh.
  sdram_chip #(
`include "chip_parameters.vh"
  ) chip (
      .clk(aclk),
      .cke(cke),
      .cs_n(cs_n),
      .ras_n(ras_n),
      .cas_n(cas_n),
      .we_n(we_n),
      .ba(ba),
      .a(a),
      .dqm(dqm),
      .dq_i(dq_o),
      .dq_i_oe(dq_oe),
      .dq_o(chip_o),
      .dq_o_oe(chip_oe),
      .violation(violation)
  );

  always @(posedge aclk) if (backdoor_write) chip.memory[backdoor_address[WORD_BITS-1:0]] = backdoor_data;

  assign command = cs_n ? 3'b111 : {ras_n, cas_n, we_n};
endmodule

`default_nettype wire
