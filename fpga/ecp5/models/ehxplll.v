// Simulation model of EHXPLLL, the PLL of an ECP5, after FPGA-TN-02200 (ECP5 and ECP5-5G sysCLOCK PLL/DLL Design and Usage Guide):
// f(VCO) = f(CLKI) / CLKI_DIV * CLKFB_DIV * CLKOP_DIV with feedback by CLKOP; an output is f(VCO) / DIV, and lags what its divider
// would give by CPHASE - (DIV - 1) periods of the VCO and FPHASE eighths of one. Limits: FPGA-DS-02012, sysCLOCK PLL timing.
//
// The period of CLKI is measured, nothing is taken from a parameter. CLKOP follows CLKI edge by edge. LOCK rises when CLKI has been
// steady, and CLKFB what it must be, for LOCK_CYCLES periods (the data sheet allows 15 ms: too long to simulate), and falls when CLKI
// stops or changes by more than 1%. Without a steady CLKI the VCO runs free, at its lowest frequency: outputs go on, at a wrong rate.
//
// Simplified: no jitter, duty cycle 50%, the clock tree between CLKOP and CLKFB takes no time. Refused at the start: other feedback
// paths, dynamic phase, reset and standby by pin, CLKOS2 and CLKOS3 (they have no ports here), frequencies out of range.
// +clkos_degrees=N takes the place of CLKOS_CPHASE and CLKOS_FPHASE: a lag behind CLKOP, for sweeps in one build.

`timescale 1ps / 1ps
`default_nettype none

module EHXPLLL #(
    parameter CLKI_DIV = 1,
    parameter CLKFB_DIV = 1,
    parameter CLKOP_ENABLE = "ENABLED",
    parameter CLKOP_DIV = 8,
    parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0,
    parameter CLKOS_ENABLE = "DISABLED",
    parameter CLKOS_DIV = 8,
    parameter CLKOS_CPHASE = 0,
    parameter CLKOS_FPHASE = 0,
    parameter FEEDBK_PATH = "CLKOP",
    parameter DPHASE_SOURCE = "DISABLED",
    parameter PLLRST_ENA = "DISABLED",
    parameter STDBY_ENABLE = "DISABLED",
    parameter INTFB_WAKE = "DISABLED",
    parameter OUTDIVIDER_MUXA = "DIVA",
    parameter OUTDIVIDER_MUXB = "DIVB",
    parameter LOCK_CYCLES = 32  // of this model only
) (
    input wire CLKI,
    input wire CLKFB,
    input wire PHASESEL1,
    input wire PHASESEL0,
    input wire PHASEDIR,
    input wire PHASESTEP,
    input wire PHASELOADREG,
    input wire STDBY,
    input wire PLLWAKESYNC,
    input wire RST,
    input wire ENCLKOP,
    input wire ENCLKOS,
    output wire CLKOP,
    output wire CLKOS,
    output reg LOCK
);
  // Picoseconds.
  localparam real VCO_LONGEST = 2500.0, VCO_SHORTEST = 1250.0, DETECTOR_LONGEST = 320000.0;
  // Shares of a period.
  localparam real TOLERANCE = 0.01;

  real edge_in = 0, period = 0, edge_fb = 0, period_fb = 0;
  real vco = VCO_LONGEST, origin = 0, lag = 0;
  real half_op, half_os, step, now, detector;
  integer steady = 0, divided = 0, degrees = 0;
  reg by_degrees = 0, op = 0, os = 0;

  assign CLKOP = op & (CLKOP_ENABLE == "ENABLED" || ENCLKOP);
  assign CLKOS = os & (CLKOS_ENABLE == "ENABLED" || ENCLKOS);

  task refuse(input [8*40-1:0] what);
    begin
      $display("%m: %0s: not modelled", what);
      $finish;
    end
  endtask

  initial begin
    LOCK = 0;
    by_degrees = $value$plusargs("clkos_degrees=%d", degrees) != 0;
    if (FEEDBK_PATH != "CLKOP") refuse("another feedback path than CLKOP");
    if (DPHASE_SOURCE != "DISABLED") refuse("dynamic phase");
    if (PLLRST_ENA != "DISABLED" || STDBY_ENABLE != "DISABLED") refuse("reset and standby by pin");
    if (INTFB_WAKE != "DISABLED") refuse("internal feedback at wake-up");
    if (OUTDIVIDER_MUXA != "DIVA" || OUTDIVIDER_MUXB != "DIVB") refuse("undivided outputs");
  end

  function real off(input real a, input real b);
    off = a > b ? a - b : b - a;
  endfunction

  task lose;
    begin
      LOCK = 0;
      steady = 0;
      divided = 0;
      vco = VCO_LONGEST;
    end
  endtask

  always @(posedge CLKFB) begin
    period_fb = $realtime - edge_fb;
    edge_fb = $realtime;
  end

  always @(posedge CLKI) begin
    now = $realtime;
    if (off(now - edge_in, period) > TOLERANCE * period) lose;
    else steady = steady + 1;
    period = now - edge_in;
    edge_in = now;
    divided = divided == CLKI_DIV - 1 ? 0 : divided + 1;
    if (steady > 1 && divided == 0) begin
      detector = period * CLKI_DIV;
      vco = detector / (CLKFB_DIV * CLKOP_DIV);
      if (detector > DETECTOR_LONGEST) refuse("a phase detector this slow");
      if (vco < VCO_SHORTEST - 1 || vco > VCO_LONGEST + 1) refuse("this frequency of the VCO");
      origin = now;
      // Two edges of CLKI and CLKFB may fall together, so the last period counts, not their number.
      if (now - edge_fb > 2 * detector || off(period_fb * CLKFB_DIV, detector) > TOLERANCE * detector) begin
        LOCK = 0;
        steady = 2;
      end else if (steady >= LOCK_CYCLES) LOCK = 1;
    end
  end

  // A clock that has stopped has no edge that could tell.
  always begin
    #(period > 0 ? period : 1000000.0);
    if (steady != 0 && $realtime - edge_in > 1.5 * period) lose;
  end

  // The next edge is the next multiple of half a period after `origin`, where the levels are known: so it never drifts, and when
  // the frequency changes, it comes early or late, but never twice.
  initial
    forever begin
      half_op = vco * CLKOP_DIV / 2;
      step = $floor(($realtime - origin) / half_op + 0.5) + 1;
      #(origin + step * half_op - $realtime);
      op = step - 2 * $floor(step / 2) == 0;
    end

  real step_os;
  initial
    forever begin
      half_os = vco * CLKOS_DIV / 2;
      if (by_degrees) lag = degrees * 2 * half_os / 360.0;
      else
        lag = vco * ((CLKOS_CPHASE - (CLKOS_DIV - 1) + CLKOS_FPHASE / 8.0)
            - (CLKOP_CPHASE - (CLKOP_DIV - 1) + CLKOP_FPHASE / 8.0));
      step_os = $floor(($realtime - origin - lag) / half_os + 0.5) + 1;
      #(origin + lag + step_os * half_os - $realtime);
      os = step_os - 2 * $floor(step_os / 2) == 0;
    end
endmodule

`default_nettype wire
