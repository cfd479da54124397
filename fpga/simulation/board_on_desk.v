// The whole ULX3S for simulators with delays: the FPGA's top (module top: PLL, IO cells, core), the oscillator and the SDRAM chip. What
// comes out are pins: serial line, button, lamps; and what the chip has to say of them.

`timescale 1ps / 1ps
`default_nettype none

module board_on_desk (
    input wire oscillator_on,
    input wire fire,
    input wire rx,
    output wire tx,
    output wire [7:0] leds,
    input wire clear,
    output wire locked,
    output wire cke,
    output wire sdram_clk,
    output wire [4:0] violation,
    output wire [31:0] unsafe,
    output wire [31:0] setup,
    output wire [31:0] held
);
  // 25 MHz.
  reg clk25 = 0;
  always #20000 clk25 = ~clk25 & oscillator_on;

  wire cs_n, ras_n, cas_n, we_n, chip_oe;
  wire [1:0] ba, dqm;
  wire [12:0] a;
  wire [15:0] dq, chip_o, t, o;
  assign dq = chip_oe ? chip_o : 16'bz;

  top top (
      .clk25_0__io(clk25),
      .button_fire_0__io(fire),
      .uart_0__rx__io(rx),
      .uart_0__tx__io(tx),
      .led_0__io(leds[0]),
      .led_1__io(leds[1]),
      .led_2__io(leds[2]),
      .led_3__io(leds[3]),
      .led_4__io(leds[4]),
      .led_5__io(leds[5]),
      .led_6__io(leds[6]),
      .led_7__io(leds[7]),
      .sdram_0__clk__io(sdram_clk),
      .sdram_0__clk_en__io(cke),
      .sdram_0__cs__io(cs_n),
      .sdram_0__ras__io(ras_n),
      .sdram_0__cas__io(cas_n),
      .sdram_0__we__io(we_n),
      .sdram_0__ba__io(ba),
      .sdram_0__a__io(a),
      .sdram_0__dqm__io(dqm),
      .sdram_0__dq__io(dq)
  );

  // Which side drives a wire cannot be seen on the wire: the drivers of the pads are asked.
`define PAD(N) \
  assign t[N] = top.sdram_dq.\buf .buf``N.T; \
  assign o[N] = top.sdram_dq.\buf .buf``N.I;
  `PAD(0) `PAD(1) `PAD(2) `PAD(3) `PAD(4) `PAD(5) `PAD(6) `PAD(7)
  `PAD(8) `PAD(9) `PAD(10) `PAD(11) `PAD(12) `PAD(13) `PAD(14) `PAD(15)
  assign locked = top.pll.pll.LOCK;

  sdram_on_board sdram (
      .clk(sdram_clk),
      .cke(cke),
      .cs_n(cs_n),
      .ras_n(ras_n),
      .cas_n(cas_n),
      .we_n(we_n),
      .ba(ba),
      .a(a),
      .dqm(dqm),
      .dq_i(o),
      .dq_i_oe(~t[0]),
      .dq_o(chip_o),
      .dq_o_oe(chip_oe),
      .clear(clear),
      .violation(violation),
      .unsafe(unsafe),
      .setup(setup),
      .held(held)
  );
endmodule

`default_nettype wire
