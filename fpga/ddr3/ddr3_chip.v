// A DDR3 chip with 16 data pins for simulation, at the DFI: two clocks of the chip a cycle, phase 0 first. It stores, answers, and checks
// every rule of JESD79-3 named below; the rules are explained in docs/ddr3.md and numbered as in fpga/ddr3/chip_model.py, its twin.
// Parameters come from Ddr3Chip.verilog_parameters(); times in picoseconds.
//
// Of the PHY it has the latencies of LiteDRAM's for the ECP5, and its read path as far as levelling sees it: a byte lane reads right at one
// slip and with delays FIRST to LAST; at another slip its bytes come words early or late; at another delay the burst is not seen.
// memory[row, bank, column] may be written from outside at any time. CS# is not looked at (the ECPIX-5 has it tied low).

`default_nettype none

module ddr3_chip #(
    parameter ROW_BITS = 11,
    parameter CLOCK_HZ = 150000000, // of the chip
    parameter T_RCD = 15000,
    parameter T_RP = 15000,
    parameter T_RAS = 37500,
    parameter T_RC = 52500,
    parameter T_RFC = 260000,
    parameter T_RRD = 10000,
    parameter T_FAW = 50000,
    parameter T_WR = 15000,
    parameter T_WTR = 7500,
    parameter T_RTP = 7500,
    parameter T_MOD = 15000,
    parameter T_ZQ_INIT = 640000,
    parameter T_ZQ_SHORT = 80000,
    parameter T_XPR_MORE = 10000,
    parameter T_RESET = 200000000,
    parameter T_CKE_LOW = 500000000,
    parameter CLOCKS_RRD = 4,
    parameter CLOCKS_WTR = 4,
    parameter CLOCKS_RTP = 4,
    parameter CLOCKS_CCD = 4,
    parameter CLOCKS_MRD = 4,
    parameter CLOCKS_MOD = 12,
    parameter CLOCKS_ZQ_INIT = 512,
    parameter CLOCKS_ZQ_SHORT = 64,
    parameter CLOCKS_DLL = 512,
    parameter CLOCKS_XPR = 5,
    parameter REFRESH_US = 64000,
    parameter REFRESH_COUNT = 8192,
    parameter CAS_LATENCY = 6,
    parameter CAS_WRITE_LATENCY = 5,
    parameter READ_CYCLES = 13,
    parameter WRITE_CYCLES = 3,
    parameter SLIP0 = 2, parameter FIRST0 = 1, parameter LAST0 = 4,
    parameter SLIP1 = 1, parameter FIRST1 = 3, parameter LAST1 = 7
) (
    input wire clk,
    // Phase 1 in the upper half of each.
    input wire [1:0] reset_n,
    input wire [1:0] cke,
    input wire [1:0] odt,
    input wire [1:0] ras_n,
    input wire [1:0] cas_n,
    input wire [1:0] we_n,
    input wire [5:0] bank,
    input wire [29:0] address,
    input wire [1:0] wrdata_en,
    input wire [127:0] wrdata,
    input wire [15:0] wrdata_mask,
    input wire [1:0] rddata_en,
    output reg [127:0] rddata,
    output reg rddata_valid,
    input wire [2:0] delay0,
    input wire [2:0] delay1,
    input wire [1:0] slip0,
    input wire [1:0] slip1,
    output reg [1:0] burst,    // seen by each lane
    output reg [4:0] violation // the first one since the beginning
);
  localparam [4:0] R_RCD = 1, R_RP = 2, R_RAS = 3, R_RC = 4, R_RRD = 5, R_FAW = 6, R_RFC = 7, R_MRD = 8, R_MOD = 9, R_WR = 10;
  localparam [4:0] R_WTR = 11, R_RTP = 12, R_CCD = 13, R_ZQ = 14, R_DLLK = 15, R_XPR = 16, R_REFRESH = 17, R_RESET = 18;
  localparam [4:0] R_INIT = 19, R_ODT = 20, R_BANK_OPEN = 21, R_BANK_CLOSED = 22, R_MODE = 23, R_DATA = 24, R_RTW = 25;
  localparam [4:0] R_UNSUPPORTED = 26;

  localparam [2:0] MODE_REGISTER_SET = 0, REFRESH = 1, PRECHARGE = 2, ACTIVE = 3, WRITE = 4, READ = 5, ZQ_CALIBRATION = 6, NOP = 7;

  // Clocks, rounded up.
  localparam [63:0] HZ = CLOCK_HZ, PER_SECOND = 64'd1000000000000, UP = PER_SECOND - 1;
  localparam [63:0] C_RCD = (HZ * T_RCD + UP) / PER_SECOND, C_RP = (HZ * T_RP + UP) / PER_SECOND;
  localparam [63:0] C_RAS = (HZ * T_RAS + UP) / PER_SECOND, C_RC = (HZ * T_RC + UP) / PER_SECOND;
  localparam [63:0] C_RFC = (HZ * T_RFC + UP) / PER_SECOND, C_FAW = (HZ * T_FAW + UP) / PER_SECOND;
  localparam [63:0] C_WR = (HZ * T_WR + UP) / PER_SECOND, C_RESET = (HZ * T_RESET + UP) / PER_SECOND;
  localparam [63:0] C_CKE_LOW = (HZ * T_CKE_LOW + UP) / PER_SECOND;
  localparam [63:0] N_RRD = (HZ * T_RRD + UP) / PER_SECOND, C_RRD = N_RRD > CLOCKS_RRD ? N_RRD : CLOCKS_RRD;
  localparam [63:0] N_WTR = (HZ * T_WTR + UP) / PER_SECOND, C_WTR = N_WTR > CLOCKS_WTR ? N_WTR : CLOCKS_WTR;
  localparam [63:0] N_RTP = (HZ * T_RTP + UP) / PER_SECOND, C_RTP = N_RTP > CLOCKS_RTP ? N_RTP : CLOCKS_RTP;
  localparam [63:0] N_MOD = (HZ * T_MOD + UP) / PER_SECOND, C_MOD = N_MOD > CLOCKS_MOD ? N_MOD : CLOCKS_MOD;
  localparam [63:0] N_XPR = (HZ * (T_RFC + T_XPR_MORE) + UP) / PER_SECOND, C_XPR = N_XPR > CLOCKS_XPR ? N_XPR : CLOCKS_XPR;
  localparam [63:0] N_ZQ_INIT = (HZ * T_ZQ_INIT + UP) / PER_SECOND, C_ZQ_INIT = N_ZQ_INIT > CLOCKS_ZQ_INIT ? N_ZQ_INIT : CLOCKS_ZQ_INIT;
  localparam [63:0] N_ZQ_SHORT = (HZ * T_ZQ_SHORT + UP) / PER_SECOND;
  localparam [63:0] C_ZQ_SHORT = N_ZQ_SHORT > CLOCKS_ZQ_SHORT ? N_ZQ_SHORT : CLOCKS_ZQ_SHORT;
  localparam [63:0] C_RTW = CAS_LATENCY + CLOCKS_CCD + 2 - CAS_WRITE_LATENCY;
  // Nine refreshes owed are one more than may be postponed.
  localparam signed [31:0] TOO_MANY = 9, AHEAD = 8;
  localparam [63:0] DUE_STEP = 64'd1000000 * REFRESH_COUNT, DUE_AT = HZ * REFRESH_US;
  localparam PLACE_BITS = ROW_BITS + 3 + 10;

  reg [15:0] memory [0:(1 << PLACE_BITS) - 1]  /*verilator public_flat_rw*/;

  // A time long past, so that nothing is too soon.
  localparam [63:0] LONG = 64'd1 << 40;
  reg [63:0] now = LONG;
  reg powered = 0, in_reset = 0, was_cke = 0, was_odt = 0, usable = 0, calibrated = 0, zq_long = 0;
  reg [63:0] t_reset = 0, t_out = 0, t_cke = 0, t_refresh = 0, t_mode = 0, t_zq = 0, t_dll = 0, t_read = 0, t_write = 0;
  reg [63:0] t_active [0:7];
  reg [63:0] t_closing [0:7];
  reg [63:0] t_bank_read [0:7];
  reg [63:0] t_written [0:7];
  reg [63:0] t_actives [0:3];
  reg [63:0] written_last = 0, end_of_burst = 0, ready = 0, t_ras_over = 0;
  reg [15:0] row [0:7];
  reg [7:0] is_open = 0;
  reg [3:0] modes = 0;
  reg [63:0] recovery = 5;
  reg [63:0] due_phase = 0;
  reg signed [31:0] owed = 0;

  // Of the clock that is being looked at.
  reg [2:0] command, ba;
  reg [14:0] a;
  reg was_read, was_written;
  reg [PLACE_BITS-1:0] place;

  // Bursts on their way.
  reg [127:0] read_data [0:READ_CYCLES-1];
  reg [READ_CYCLES-1:0] read_valid = 0;
  reg [1:0] read_seen [0:READ_CYCLES-1];
  reg [PLACE_BITS-1:0] write_place [0:WRITE_CYCLES-1];
  reg [WRITE_CYCLES-1:0] write_valid = 0;
  reg reading, writing, enabled;
  reg [PLACE_BITS-1:0] read_from, write_to;
  reg [127:0] words;
  reg [1:0] seen;
  integer i, p;

  initial begin
    violation = 0;
    rddata = 0;
    rddata_valid = 0;
    burst = 0;
    for (i = 0; i < READ_CYCLES; i = i + 1) begin
      read_data[i] = 0;
      read_seen[i] = 0;
    end
    for (i = 0; i < WRITE_CYCLES; i = i + 1) write_place[i] = 0;
    forget;
  end

  task forget;
    begin
      for (i = 0; i < 8; i = i + 1) begin
        t_active[i] = 0;
        t_closing[i] = 0;
        t_bank_read[i] = 0;
        t_written[i] = 0;
        row[i] = 0;
      end
      for (i = 0; i < 4; i = i + 1) t_actives[i] = 0;
      t_refresh = 0;
      t_mode = 0;
      t_zq = 0;
      t_dll = 0;
      t_read = 0;
      t_write = 0;
      written_last = 0;
      is_open = 0;
      modes = 0;
      zq_long = 0;
      calibrated = 0;
      usable = 0;
      was_odt = 0;
      owed = 0;
      due_phase = 0;
      recovery = 5;
    end
  endtask

  task fail(input [4:0] rule, input [12*8-1:0] name);
    begin
      if (violation == 0) begin
        violation = rule;
        $display("ddr3_chip: %0s broken in clock %0d", name, now - LONG);
      end
    end
  endtask

  // Whether less than CLOCKS have passed since AT, which may lie ahead.
  function soon(input [63:0] at, input [63:0] clocks);
    soon = now < at + clocks;
  endfunction

  task use_chip;
    begin
      if (modes != 4'b1111 || !calibrated) fail(R_INIT, "INIT");
      if (!usable) begin
        usable = 1;
        owed = 0;
        due_phase = 0;
      end
    end
  endtask

  task all_closed;
    begin
      for (i = 0; i < 8; i = i + 1) begin
        if (is_open[i]) fail(R_BANK_OPEN, "BANK_OPEN");
        if (soon(t_closing[i], C_RP)) fail(R_RP, "T_RP");
        if (soon(t_active[i], C_RC)) fail(R_RC, "T_RC");
      end
    end
  endtask

  task set_mode;
    begin
      if (ba > 3) fail(R_MODE, "MODE");
      else begin
        if (!usable && modes != (ba == 2 ? 4'b0000 : ba == 3 ? 4'b0100 : ba == 1 ? 4'b1100 : 4'b1110)) fail(R_INIT, "INIT");
        if (a[14:13] != 0) fail(R_MODE, "MODE");
        case (ba[1:0])
          0: begin
            if ({a[6:4], a[2]} != 2 * (CAS_LATENCY - 4)) fail(R_MODE, "MODE");
            if (a[3] || a[1:0] != 0 || a[12]) fail(R_MODE, "MODE");
            case (a[11:9])
              0: recovery = 16;
              1, 2, 3, 4: recovery = {61'd0, a[11:9]} + 4;
              default: recovery = {60'd0, a[11:9], 1'b0};
            endcase
            if (a[8]) t_dll = now;
            else if (t_dll == 0) fail(R_MODE, "MODE");
          end
          1: if ((a & 15'h1099) != 0) fail(R_MODE, "MODE");
          2: if (a[5:3] != CAS_WRITE_LATENCY - 5) fail(R_MODE, "MODE");
          default: if (a != 0) fail(R_MODE, "MODE");
        endcase
        modes[ba[1:0]] = 1;
      end
      t_mode = now;
    end
  endtask

  task close(input integer number);
    begin
      if (is_open[number]) begin
        if (soon(t_active[number], C_RAS)) fail(R_RAS, "T_RAS");
        if (soon(t_written[number], C_WR)) fail(R_WR, "T_WR");
        if (soon(t_bank_read[number], C_RTP)) fail(R_RTP, "T_RTP");
        is_open[number] = 0;
        t_closing[number] = now;
      end
    end
  endtask

  task access;
    begin
      if (!is_open[ba]) fail(R_BANK_CLOSED, "BANK_CLOSED");
      if (soon(t_active[ba], C_RCD)) fail(R_RCD, "T_RCD");
      if (a[2:0] != 0) fail(R_UNSUPPORTED, "UNSUPPORTED");
      place = {row[ba][ROW_BITS-1:0], ba, a[9:0]};
      end_of_burst = now + CAS_WRITE_LATENCY + 4;
      if (command == READ) begin
        if (soon(t_dll, CLOCKS_DLL)) fail(R_DLLK, "T_DLLK");
        if (soon(t_read, CLOCKS_CCD)) fail(R_CCD, "T_CCD");
        if (soon(written_last, C_WTR)) fail(R_WTR, "T_WTR");
        t_read = now;
        t_bank_read[ba] = now;
        was_read = 1;
        ready = now + C_RTP;
      end else begin
        if (soon(t_write, CLOCKS_CCD)) fail(R_CCD, "T_CCD");
        if (soon(t_read, C_RTW)) fail(R_RTW, "T_RTW");
        t_write = now;
        t_written[ba] = end_of_burst;
        written_last = end_of_burst;
        was_written = 1;
        ready = end_of_burst + recovery;
      end
      if (a[10]) begin
        // Auto precharge: when tRAS is over, and the access allows it.
        is_open[ba] = 0;
        t_ras_over = t_active[ba] + C_RAS;
        t_closing[ba] = t_ras_over > ready ? t_ras_over : ready;
      end
    end
  endtask

  task execute;
    begin
      if (soon(t_cke, C_XPR)) fail(R_XPR, "T_XPR");
      if (soon(t_refresh, C_RFC)) fail(R_RFC, "T_RFC");
      if (command == MODE_REGISTER_SET) begin
        if (soon(t_mode, CLOCKS_MRD)) fail(R_MRD, "T_MRD");
      end else if (soon(t_mode, C_MOD)) fail(R_MOD, "T_MOD");
      if (soon(t_zq, zq_long ? C_ZQ_INIT : C_ZQ_SHORT)) fail(R_ZQ, "T_ZQ");
      case (command)
        PRECHARGE: for (i = 0; i < 8; i = i + 1) if (a[10] || ba == i[2:0]) close(i);
        REFRESH: begin
          use_chip;
          all_closed;
          t_refresh = now;
          owed = owed - 1;
        end
        MODE_REGISTER_SET: begin
          all_closed;
          set_mode;
        end
        ZQ_CALIBRATION: begin
          all_closed;
          if (a[10] && modes != 4'b1111) fail(R_INIT, "INIT");
          if (!a[10]) use_chip;
          if (a[10]) calibrated = 1;
          t_zq = now;
          zq_long = a[10];
        end
        ACTIVE: begin
          use_chip;
          if (is_open[ba]) fail(R_BANK_OPEN, "BANK_OPEN");
          if (soon(t_closing[ba], C_RP)) fail(R_RP, "T_RP");
          if (soon(t_active[ba], C_RC)) fail(R_RC, "T_RC");
          if (soon(t_actives[3], C_RRD)) fail(R_RRD, "T_RRD");
          if (soon(t_actives[0], C_FAW)) fail(R_FAW, "T_FAW");
          is_open[ba] = 1;
          row[ba] = {1'b0, a};
          t_active[ba] = now;
          for (i = 0; i < 3; i = i + 1) t_actives[i] = t_actives[i+1];
          t_actives[3] = now;
        end
        default: begin
          use_chip;
          access;
        end
      endcase
    end
  endtask

  // One clock of the chip.
  task step(input reset_pin, input cke_pin, input odt_pin, input read_enable, input write_enable);
    begin
      now = now + 1;
      was_read = 0;
      was_written = 0;
      if (!reset_pin) begin
        if (!in_reset) begin
          in_reset = 1;
          powered = 1;
          t_reset = now;
          forget;
        end
        if (cke_pin) fail(R_RESET, "RESET");
        was_cke = 0;
      end else if (powered) begin
        if (in_reset) begin
          if (soon(t_reset, C_RESET)) fail(R_RESET, "RESET");
          in_reset = 0;
          t_out = now;
        end
        if (!cke_pin) begin
          if (was_cke) fail(R_UNSUPPORTED, "UNSUPPORTED");
        end else begin
          if (!was_cke) begin
            if (soon(t_out, C_CKE_LOW)) fail(R_RESET, "RESET");
            was_cke = 1;
            t_cke = now;
            was_odt = odt_pin;
          end
          if (odt_pin != was_odt || (odt_pin && !usable)) begin
            if (!calibrated || soon(t_zq, CLOCKS_ZQ_INIT)) fail(R_ODT, "ODT");
            was_odt = odt_pin;
          end
          if (usable) begin
            due_phase = due_phase + DUE_STEP;
            if (due_phase >= DUE_AT) begin
              due_phase = due_phase - DUE_AT;
              owed = owed + 1;
            end
          end
          if (read_enable != (command == READ) || write_enable != (command == WRITE)) fail(R_DATA, "DATA");
          if (command != NOP) execute;
          if (usable) begin
            if (owed >= TOO_MANY) fail(R_REFRESH, "REFRESH");
            if (owed < -AHEAD) owed = -AHEAD;
          end
        end
      end
    end
  endtask

  // What the PHY makes of lane bytes at its delay and slip.
  task look(input integer lane, input [2:0] delay, input [1:0] slip, input integer first, input integer last, input integer own);
    reg [127:0] stream;
    begin
      for (i = 0; i < 8; i = i + 1) stream[8*(i+4) +: 8] = memory[read_from + i[PLACE_BITS-1:0]][8*lane +: 8];
      // What lies beyond the burst on either side is not the burst's.
      stream[31:0] = 32'h11111111;
      stream[127:96] = 32'heeeeeeee;
      seen[lane] = delay >= first && delay <= last;
      for (i = 0; i < 8; i = i + 1)
        words[16*i + 8*lane +: 8] = seen[lane] ? stream[8*(i + 4 + slip - own) +: 8] : ~stream[8*(i+4) +: 8];
    end
  endtask

  always @(posedge clk) begin
    reading = 0;
    writing = 0;
    for (p = 0; p < 2; p = p + 1) begin
      command = {ras_n[p], cas_n[p], we_n[p]};
      ba = bank[3*p +: 3];
      a = address[15*p +: 15];
      step(reset_n[p], cke[p], odt[p], rddata_en[p], wrdata_en[p]);
      if (was_read) begin
        reading = 1;
        read_from = place;
      end
      if (was_written) begin
        writing = 1;
        write_to = place;
      end
    end
    // The burst that is written now.
    if (write_valid[WRITE_CYCLES-1])
      for (i = 0; i < 8; i = i + 1) begin
        if (!wrdata_mask[2*i]) memory[write_place[WRITE_CYCLES-1] + i[PLACE_BITS-1:0]][7:0] = wrdata[16*i +: 8];
        if (!wrdata_mask[2*i+1]) memory[write_place[WRITE_CYCLES-1] + i[PLACE_BITS-1:0]][15:8] = wrdata[16*i+8 +: 8];
      end
    for (i = WRITE_CYCLES - 1; i > 0; i = i - 1) write_place[i] = write_place[i-1];
    write_place[0] = write_to;
    write_valid = {write_valid[WRITE_CYCLES-2:0], writing};
    words = 0;
    seen = 0;
    if (reading) begin
      look(0, delay0, slip0, FIRST0, LAST0, SLIP0);
      look(1, delay1, slip1, FIRST1, LAST1, SLIP1);
    end
    rddata <= read_data[READ_CYCLES-2];
    rddata_valid <= read_valid[READ_CYCLES-2];
    burst <= read_seen[READ_CYCLES-2];
    for (i = READ_CYCLES - 1; i > 0; i = i - 1) begin
      read_data[i] = read_data[i-1];
      read_seen[i] = read_seen[i-1];
    end
    read_data[0] = words;
    read_seen[0] = seen;
    // The PHY says when data come by its own delay line, not by what the chip does.
    enabled = |rddata_en;
    read_valid = {read_valid[READ_CYCLES-2:0], enabled};
  end
endmodule

`default_nettype wire
