// The DDR3 memory under test (module ddr3_memory) and its chip at the DFI, for the compiled simulation of ../sdram/bench.cpp, which knows
// its top as sdram_system. The backdoor writes the chip's memory, a word a clock.

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
  wire [1:0] reset_n, cke, odt, ras_n, cas_n, we_n, wrdata_en, rddata_en, burst;
  wire [5:0] bank;
  wire [29:0] address;
  wire [127:0] wrdata, rddata;
  wire [15:0] wrdata_mask;
  wire rddata_valid;
  wire [2:0] delay0, delay1;
  wire [1:0] slip0, slip1;

  ddr3_memory memory (
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
      .ready(),
      .failed(),
      .dfi_p0_address(address[14:0]),
      .dfi_p0_bank(bank[2:0]),
      .dfi_p0_cas_n(cas_n[0]),
      .dfi_p0_cs_n(),
      .dfi_p0_ras_n(ras_n[0]),
      .dfi_p0_we_n(we_n[0]),
      .dfi_p0_cke(cke[0]),
      .dfi_p0_odt(odt[0]),
      .dfi_p0_reset_n(reset_n[0]),
      .dfi_p0_wrdata(wrdata[63:0]),
      .dfi_p0_wrdata_en(wrdata_en[0]),
      .dfi_p0_wrdata_mask(wrdata_mask[7:0]),
      .dfi_p0_rddata_en(rddata_en[0]),
      .dfi_p0_rddata(rddata[63:0]),
      .dfi_p0_rddata_valid(rddata_valid),
      .dfi_p1_address(address[29:15]),
      .dfi_p1_bank(bank[5:3]),
      .dfi_p1_cas_n(cas_n[1]),
      .dfi_p1_cs_n(),
      .dfi_p1_ras_n(ras_n[1]),
      .dfi_p1_we_n(we_n[1]),
      .dfi_p1_cke(cke[1]),
      .dfi_p1_odt(odt[1]),
      .dfi_p1_reset_n(reset_n[1]),
      .dfi_p1_wrdata(wrdata[127:64]),
      .dfi_p1_wrdata_en(wrdata_en[1]),
      .dfi_p1_wrdata_mask(wrdata_mask[15:8]),
      .dfi_p1_rddata_en(rddata_en[1]),
      .dfi_p1_rddata(rddata[127:64]),
      .dfi_p1_rddata_valid(rddata_valid),
      .dfi_delay0(delay0),
      .dfi_delay1(delay1),
      .dfi_slip0(slip0),
      .dfi_slip1(slip1),
      .dfi_burst(burst)
  );

  // The parameters are in the generated file chip_parameters.vh.
  ddr3_chip #(
`include "chip_parameters.vh"
  ) chip (
      .clk(aclk),
      .reset_n(reset_n),
      .cke(cke),
      .odt(odt),
      .ras_n(ras_n),
      .cas_n(cas_n),
      .we_n(we_n),
      .bank(bank),
      .address(address),
      .wrdata_en(wrdata_en),
      .wrdata(wrdata),
      .wrdata_mask(wrdata_mask),
      .rddata_en(rddata_en),
      .rddata(rddata),
      .rddata_valid(rddata_valid),
      .delay0(delay0),
      .delay1(delay1),
      .slip0(slip0),
      .slip1(slip1),
      .burst(burst),
      .violation(violation)
  );

  always @(posedge aclk) if (backdoor_write) chip.memory[backdoor_address[WORD_BITS-1:0]] = backdoor_data;

  // A READ counts before what goes on in the other phase.
  wire [2:0] first = {ras_n[0], cas_n[0], we_n[0]}, second = {ras_n[1], cas_n[1], we_n[1]};
  assign command = first == 3'b101 || second == 3'b101 ? 3'b101 : first == 3'b111 ? second : first;
endmodule

`default_nettype wire
