// An SDR SDRAM chip for simulation: 16 data pins, four banks, clocked on the rising edge. It stores, answers, and checks every rule of
// the datasheet that a controller can break; the rules are explained in docs/sdram.md and numbered as in fpga/sdram/chip_model.py, its twin.
// Parameters come from SdramChip.verilog_parameters(); times in picoseconds.
//
// The data pins are split: dq_i with dq_i_oe is what the controller drives, dq_o with dq_o_oe what the chip drives.
// memory[row, bank, column] may be written from outside before the first clock; with SdramController word i lies at AXI address 2 i.
// Simplified: CKE low means "before power-up" (contents are kept); no auto precharge, burst terminate, full-page or interleaved bursts.

`default_nettype none

module sdram_chip #(
    parameter ROW_BITS = 13,
    parameter COLUMN_BITS = 9,
    parameter CLOCK_HZ = 100000000,
    parameter T_RCD = 20000,
    parameter T_RP = 20000,
    parameter T_RAS = 42000,
    parameter T_RC = 63000,
    parameter T_RFC = 63000,
    parameter T_RRD = 14000,
    parameter T_MRD = 15000,
    parameter T_WR = 14000,
    parameter T_CK2 = 10000,
    parameter CLOCKS_RRD = 1,
    parameter CLOCKS_MRD = 2,
    parameter CLOCKS_WR = 2,
    parameter REFRESH_US = 64000,
    parameter REFRESH_COUNT = 8192,
    parameter T_INIT = 200000000,
    parameter INIT_REFRESHES = 8,
    parameter FATAL = 1,     // $error at the first violation
    parameter INIT_FILE = "" // for $readmemh
) (
    input wire clk,
    input wire cke,
    input wire cs_n,
    input wire ras_n,
    input wire cas_n,
    input wire we_n,
    input wire [1:0] ba,
    input wire [12:0] a,
    input wire [1:0] dqm,
    input wire [15:0] dq_i,
    input wire dq_i_oe,
    output wire [15:0] dq_o,
    output wire dq_o_oe,
    output reg [4:0] violation // the first one since the beginning
);
  localparam [4:0] R_RCD = 1, R_RP = 2, R_RAS = 3, R_RC = 4, R_RRD = 5, R_RFC = 6, R_MRD = 7, R_WR = 8, R_REFRESH = 9;
  localparam [4:0] R_INIT = 10, R_BANK_OPEN = 11, R_BANK_CLOSED = 12, R_MODE = 13, R_CAS_LATENCY = 14, R_CONTENTION = 15;
  localparam [4:0] R_NOT_DRIVEN = 16, R_UNSUPPORTED = 17;

  localparam [2:0] MODE_REGISTER_SET = 0, REFRESH = 1, PRECHARGE = 2, ACTIVE = 3, WRITE = 4, READ = 5, NOP = 7;

  // Cycles, rounded up.
  localparam [63:0] HZ = CLOCK_HZ, PER_SECOND = 64'd1000000000000, UP = PER_SECOND - 1;
  localparam [63:0] C_RCD = (HZ * T_RCD + UP) / PER_SECOND, C_RP = (HZ * T_RP + UP) / PER_SECOND;
  localparam [63:0] C_RAS = (HZ * T_RAS + UP) / PER_SECOND, C_RC = (HZ * T_RC + UP) / PER_SECOND;
  localparam [63:0] C_RFC = (HZ * T_RFC + UP) / PER_SECOND, C_INIT = (HZ * T_INIT + UP) / PER_SECOND;
  localparam [63:0] N_RRD = (HZ * T_RRD + UP) / PER_SECOND, C_RRD = N_RRD > CLOCKS_RRD ? N_RRD : CLOCKS_RRD;
  localparam [63:0] N_MRD = (HZ * T_MRD + UP) / PER_SECOND, C_MRD = N_MRD > CLOCKS_MRD ? N_MRD : CLOCKS_MRD;
  localparam [63:0] N_WR = (HZ * T_WR + UP) / PER_SECOND, C_WR = N_WR > CLOCKS_WR ? N_WR : CLOCKS_WR;
  localparam FASTEST_CAS = HZ * T_CK2 <= PER_SECOND ? 2 : 3;
  // Nine refreshes owed are one more than may be postponed.
  localparam signed [31:0] TOO_MANY = 9, AHEAD = 8;
  localparam [63:0] DUE_STEP = 64'd1000000 * REFRESH_COUNT, DUE_AT = HZ * REFRESH_US;

  reg [15:0] memory [0:(1 << (ROW_BITS + 2 + COLUMN_BITS)) - 1]  /*verilator public_flat_rw*/;

  // A time long past, so that nothing is too soon.
  localparam [63:0] LONG = 64'd1 << 40;
  reg [63:0] now = LONG;
  reg [63:0] since = LONG;  // CKE low
  reg [63:0] t_active [0:3];
  reg [63:0] t_precharge [0:3];
  reg [63:0] t_written [0:3];
  reg [63:0] t_any_active = 0, t_refresh = 0, t_mode = 0;
  reg [3:0] is_open = 0;
  reg [12:0] row [0:3];
  reg precharged = 0, usable = 0;
  reg [31:0] refreshes = 0;
  reg [63:0] due_phase = 0;
  reg signed [31:0] owed = 0;
  reg [2:0] latency = 0;
  reg [3:0] words = 1;

  reg burst = 0, burst_write = 0;
  reg [1:0] burst_bank = 0;
  reg [ROW_BITS+1+COLUMN_BITS:0] place = 0;
  reg [3:0] done = 0;
  reg [ROW_BITS+1+COLUMN_BITS:0] word = 0;

  reg [15:0] fetched = 0, stage1 = 0, stage2 = 0, out = 0;
  reg fetching = 0, valid1 = 0, valid2 = 0, out_valid = 0, out_before = 0, driving = 0;
  reg [1:0] masked = 0;
  integer i;

  assign dq_o = out;
  assign dq_o_oe = out_valid;

  initial begin
    violation = 0;
    for (i = 0; i < 4; i = i + 1) begin
      t_active[i] = 0;
      t_precharge[i] = 0;
      t_written[i] = 0;
      row[i] = 0;
    end
    if (INIT_FILE != "") $readmemh(INIT_FILE, memory);
  end

  task fail(input [4:0] rule, input [12*8-1:0] name);
    begin
      if (violation == 0) begin
        violation = rule;
        $display("sdram_chip: %0s broken in cycle %0d", name, now - LONG);
        if (FATAL != 0) $error("sdram_chip: timing violation");
      end
    end
  endtask

  task close(input integer bank);
    begin
      if (burst && burst_bank == bank[1:0]) burst = 0;
      if (is_open[bank]) begin
        if (now - t_active[bank] < C_RAS) fail(R_RAS, "T_RAS");
        if (now - t_written[bank] < C_WR) fail(R_WR, "T_WR");
        is_open[bank] = 0;
        t_precharge[bank] = now;
      end
    end
  endtask

  task all_closed;
    begin
      if (!precharged) fail(R_INIT, "INIT");
      for (i = 0; i < 4; i = i + 1) begin
        if (is_open[i]) fail(R_BANK_OPEN, "BANK_OPEN");
        if (now - t_precharge[i] < C_RP) fail(R_RP, "T_RP");
        if (now - t_active[i] < C_RC) fail(R_RC, "T_RC");
      end
    end
  endtask

  task execute(input [2:0] command);
    begin
      if (now - since < C_INIT) fail(R_INIT, "INIT");
      if (now - t_refresh < C_RFC) fail(R_RFC, "T_RFC");
      if (now - t_mode < C_MRD) fail(R_MRD, "T_MRD");
      case (command)
        PRECHARGE: begin
          for (i = 0; i < 4; i = i + 1) if (a[10] || ba == i[1:0]) close(i);
          if (a[10]) precharged = 1;
        end
        REFRESH: begin
          all_closed;
          t_refresh = now;
          refreshes = refreshes + 1;
          owed = owed - 1;
        end
        MODE_REGISTER_SET: begin
          all_closed;
          if (ba != 0 || a[12:7] != 0 || a[3] || a[2:0] > 3 || (a[6:4] != 2 && a[6:4] != 3)) fail(R_MODE, "MODE");
          else if (a[6:4] < FASTEST_CAS) fail(R_CAS_LATENCY, "CAS_LATENCY");
          latency = a[6:4];
          words = 4'd1 << a[1:0];
          t_mode = now;
        end
        ACTIVE: begin
          if (!usable) fail(R_INIT, "INIT");
          if (is_open[ba]) fail(R_BANK_OPEN, "BANK_OPEN");
          if (now - t_precharge[ba] < C_RP) fail(R_RP, "T_RP");
          if (now - t_active[ba] < C_RC) fail(R_RC, "T_RC");
          if (now - t_any_active < C_RRD) fail(R_RRD, "T_RRD");
          is_open[ba] = 1;
          row[ba] = a;
          t_active[ba] = now;
          t_any_active = now;
        end
        READ, WRITE: begin
          if (!is_open[ba]) fail(R_BANK_CLOSED, "BANK_CLOSED");
          else begin
            if (a[10]) fail(R_UNSUPPORTED, "UNSUPPORTED");
            if (now - t_active[ba] < C_RCD) fail(R_RCD, "T_RCD");
          end
          burst = 1;
          burst_write = command == WRITE;
          burst_bank = ba;
          place = {row[ba][ROW_BITS-1:0], ba, a[COLUMN_BITS-1:0]};
          done = 0;
        end
        default: fail(R_UNSUPPORTED, "UNSUPPORTED");
      endcase
      if (!usable && latency != 0 && refreshes >= INIT_REFRESHES) begin
        usable = 1;
        owed = 0;
        due_phase = 0;
      end
    end
  endtask

  always @(posedge clk) begin
    now = now + 1;
    fetching = 0;
    if (!cke) begin
      since = now;
      is_open = 0;
      precharged = 0;
      usable = 0;
      refreshes = 0;
      latency = 0;
      burst = 0;
      valid1 = 0;
      valid2 = 0;
      out_before = 0;
      out_valid <= 0;
    end else begin
      if (usable) begin
        due_phase = due_phase + DUE_STEP;
        if (due_phase >= DUE_AT) begin
          due_phase = due_phase - DUE_AT;
          owed = owed + 1;
        end
      end
      if (!cs_n && {ras_n, cas_n, we_n} != NOP) execute({ras_n, cas_n, we_n});
      if (usable) begin
        if (owed >= TOO_MANY) fail(R_REFRESH, "REFRESH");
        if (owed < -AHEAD) owed = -AHEAD;
      end
      // Both drive, or the chip did until a cycle ago.
      if (dq_i_oe && (out_valid || out_before)) fail(R_CONTENTION, "CONTENTION");
      if (burst) begin
        word = place;
        word[2:0] = (place[2:0] & ~(words[2:0] - 3'd1)) | ((place[2:0] + done[2:0]) & (words[2:0] - 3'd1));
        if (burst_write) begin
          if (!dq_i_oe && dqm != 3) fail(R_NOT_DRIVEN, "NOT_DRIVEN");
          if (!dqm[0]) memory[word][7:0] = dq_i[7:0];
          if (!dqm[1]) memory[word][15:8] = dq_i[15:8];
          t_written[burst_bank] = now;
        end else begin
          fetching = 1;
          fetched = memory[word];
        end
        done = done + 1;
        if (done == words) burst = 0;
      end
      out_before = out_valid;
      // DQM takes two edges to switch the outputs off.
      driving = (latency == 3 ? valid2 : valid1) && masked != 3;
      out <= latency == 3 ? stage2 : stage1;
      out_valid <= driving;
      stage2 = stage1;
      valid2 = valid1;
      stage1 = fetched;
      valid1 = fetching;
      masked = dqm;
    end
  end
endmodule

`default_nettype wire
