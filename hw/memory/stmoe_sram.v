// The on-chip memory of stmoe: one write port, one read port, one clock (contract: hw/memory/sram.py).
//
// Behavioural and parametric: simulators run it as it is, FPGA tools infer block RAM from it (synchronous read with an
// enable, lane-wise write enables, no reset, no initial contents). Small ones are asked to become LUT RAM: what is read is
// in a flip-flop then, and the logic behind it has more than half of a 10 ns cycle that an ECP5's block RAM takes for itself.
// Define STMOE_NO_LUT_RAM where there is none (iCE40).
//
// With OUTPUT_REGISTER read_data comes a cycle later, from a register behind the memory. Define STMOE_ECP5 to have that register
// inside the ECP5's block RAM (FPGA-TN-02204), where its data are out after 1.0 ns in place of 5.8; synthesis does not put it there.
//
// To use a macro, leave this file out and give a module of the same name, parameters and ports that instantiates it, by
// WIDTH x DEPTH and OUTPUT_REGISTER. To black-box it in yosys, read the design without this file and add `hierarchy` with a
// `(* blackbox *)` declaration of these ports, or `blackbox stmoe_sram` after reading it. A macro may return anything for
// a read of the word being written in the same cycle: the engine never relies on it. It must hold read_data while
// read_en is low.

`default_nettype none

module stmoe_sram #(
    parameter WIDTH = 64,
    parameter DEPTH = 512,
    parameter GRANULARITY = WIDTH,  // bits that one bit of write_en covers; divides WIDTH
    parameter ADDR_BITS = 9,
    parameter OUTPUT_REGISTER = 0
) (
    input  wire                         clk,
    input  wire [WIDTH/GRANULARITY-1:0] write_en,
    input  wire [ADDR_BITS-1:0]         write_addr,
    input  wire [WIDTH-1:0]             write_data,
    input  wire                         read_en,
    input  wire [ADDR_BITS-1:0]         read_addr,
    output wire [WIDTH-1:0]             read_data
);

    localparam LANES = WIDTH / GRANULARITY;

`ifdef STMOE_ECP5
    // Block RAMs of 2048 x 9 or 1024 x 18, side by side.
    localparam COLUMN = DEPTH <= 1024 ? 18 : 9;
    localparam COLUMNS = (WIDTH + COLUMN - 1) / COLUMN;
    genvar column;
    if (OUTPUT_REGISTER != 0 && LANES == 1 && DEPTH <= 2048) begin : ecp5
        wire [COLUMNS*COLUMN-1:0] data_in, data_out;
        assign data_in = write_data;
        assign read_data = data_out[WIDTH-1:0];
        for (column = 0; column < COLUMNS; column = column + 1) begin : columns
            stmoe_ecp5_column #(.WIDTH(COLUMN)) ram (
                .clk(clk),
                .write_en(write_en[0]),
                .write_addr({{(11 - ADDR_BITS){1'b0}}, write_addr}),
                .write_data(data_in[COLUMN*column +: COLUMN]),
                .read_en(read_en),
                .read_addr({{(11 - ADDR_BITS){1'b0}}, read_addr}),
                .read_data(data_out[COLUMN*column +: COLUMN])
            );
        end
    end else begin : inferred
`endif

    // Without no_rw_check yosys adds a bypass, for a read of the word being written to return what was there before.
    // Small is counted in units of 16 words of 4 bits; deep ones need a choice among many. For synthesis only: Icarus takes no expression here.
`ifdef SYNTHESIS
`ifdef STMOE_NO_LUT_RAM
    (* no_rw_check *)
`else
    (* no_rw_check,
       ram_style = DEPTH <= 512 && ((DEPTH + 15) / 16) * ((WIDTH + 3) / 4) <= 160 ? "distributed" : "auto" *)
`endif
`endif
    reg [WIDTH-1:0] memory [0:DEPTH-1];
    reg [WIDTH-1:0] word;

    integer lane;

    always @(posedge clk) begin
        for (lane = 0; lane < LANES; lane = lane + 1)
            if (write_en[lane])
                memory[write_addr][lane*GRANULARITY +: GRANULARITY] <= write_data[lane*GRANULARITY +: GRANULARITY];
    end

    always @(posedge clk) begin
        if (read_en)
            word <= memory[read_addr];
    end

    if (OUTPUT_REGISTER != 0) begin : behind
        reg there;
        reg [WIDTH-1:0] kept;
        always @(posedge clk) begin
            there <= read_en;
            if (there)
                kept <= word;
        end
        assign read_data = kept;
    end else begin : direct
        assign read_data = word;
    end
`ifdef STMOE_ECP5
    end
`endif

endmodule

`ifdef STMOE_ECP5
// A block RAM with the register of its read port: port A writes, port B reads.
module stmoe_ecp5_column #(
    parameter WIDTH = 9
) (
    input  wire             clk,
    input  wire             write_en,
    input  wire [10:0]      write_addr,
    input  wire [WIDTH-1:0] write_data,
    input  wire             read_en,
    input  wire [10:0]      read_addr,
    output wire [WIDTH-1:0] read_data
);
    // 18 bits wide, the lowest two address bits enable the bytes.
    wire [13:0] a = WIDTH == 9 ? {write_addr, 3'b000} : {write_addr[9:0], 4'b0011};
    wire [13:0] b = WIDTH == 9 ? {read_addr, 3'b000} : {read_addr[9:0], 4'b0000};
    wire [17:0] in = {{(18 - WIDTH){1'b0}}, write_data};
    wire [17:0] out;
    assign read_data = out[WIDTH-1:0];

    DP16KD #(
        .DATA_WIDTH_A(WIDTH), .DATA_WIDTH_B(WIDTH),
        .REGMODE_A("NOREG"), .REGMODE_B("OUTREG"),
        .WRITEMODE_A("READBEFOREWRITE"), .WRITEMODE_B("READBEFOREWRITE"),
        .CLKAMUX("CLKA"), .CLKBMUX("CLKB"), .CSDECODE_A("0b000"), .CSDECODE_B("0b000"), .GSR("DISABLED")
    ) ram (
        .CLKA(clk), .CEA(1'b1), .OCEA(1'b1), .WEA(write_en), .RSTA(1'b0), .CSA2(1'b0), .CSA1(1'b0), .CSA0(1'b0),
        .CLKB(clk), .CEB(read_en), .OCEB(1'b1), .WEB(1'b0), .RSTB(1'b0), .CSB2(1'b0), .CSB1(1'b0), .CSB0(1'b0),
        .ADA13(a[13]), .ADA12(a[12]), .ADA11(a[11]), .ADA10(a[10]), .ADA9(a[9]), .ADA8(a[8]), .ADA7(a[7]),
        .ADA6(a[6]), .ADA5(a[5]), .ADA4(a[4]), .ADA3(a[3]), .ADA2(a[2]), .ADA1(a[1]), .ADA0(a[0]),
        .ADB13(b[13]), .ADB12(b[12]), .ADB11(b[11]), .ADB10(b[10]), .ADB9(b[9]), .ADB8(b[8]), .ADB7(b[7]),
        .ADB6(b[6]), .ADB5(b[5]), .ADB4(b[4]), .ADB3(b[3]), .ADB2(b[2]), .ADB1(b[1]), .ADB0(b[0]),
        .DIA17(in[17]), .DIA16(in[16]), .DIA15(in[15]), .DIA14(in[14]), .DIA13(in[13]), .DIA12(in[12]),
        .DIA11(in[11]), .DIA10(in[10]), .DIA9(in[9]), .DIA8(in[8]), .DIA7(in[7]), .DIA6(in[6]),
        .DIA5(in[5]), .DIA4(in[4]), .DIA3(in[3]), .DIA2(in[2]), .DIA1(in[1]), .DIA0(in[0]),
        .DOB17(out[17]), .DOB16(out[16]), .DOB15(out[15]), .DOB14(out[14]), .DOB13(out[13]), .DOB12(out[12]),
        .DOB11(out[11]), .DOB10(out[10]), .DOB9(out[9]), .DOB8(out[8]), .DOB7(out[7]), .DOB6(out[6]),
        .DOB5(out[5]), .DOB4(out[4]), .DOB3(out[3]), .DOB2(out[2]), .DOB1(out[1]), .DOB0(out[0])
    );
endmodule
`endif

`default_nettype wire
