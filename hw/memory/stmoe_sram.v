// The on-chip memory of stmoe: one write port, one read port, one clock (contract: hw/memory/sram.py).
//
// Behavioural and parametric: simulators run it as it is, FPGA tools infer block RAM from it (synchronous read with an
// enable, lane-wise write enables, no reset, no initial contents). Small ones are asked to become LUT RAM: what is read is
// in a flip-flop then, and the logic behind it has more than half of a 10 ns cycle that an ECP5's block RAM takes for itself.
// Define STMOE_NO_LUT_RAM where there is none (iCE40).
//
// To use a macro, leave this file out and give a module of the same name, parameters and ports that instantiates it, by
// WIDTH x DEPTH. To black-box it in yosys, read the design without this file and add `hierarchy` with a
// `(* blackbox *)` declaration of these ports, or `blackbox stmoe_sram` after reading it. A macro may return anything for
// a read of the word being written in the same cycle: the engine never relies on it. It must hold read_data while
// read_en is low.

`default_nettype none

module stmoe_sram #(
    parameter WIDTH = 64,
    parameter DEPTH = 512,
    parameter GRANULARITY = WIDTH,  // bits that one bit of write_en covers; divides WIDTH
    parameter ADDR_BITS = 9
) (
    input  wire                         clk,
    input  wire [WIDTH/GRANULARITY-1:0] write_en,
    input  wire [ADDR_BITS-1:0]         write_addr,
    input  wire [WIDTH-1:0]             write_data,
    input  wire                         read_en,
    input  wire [ADDR_BITS-1:0]         read_addr,
    output reg  [WIDTH-1:0]             read_data
);

    localparam LANES = WIDTH / GRANULARITY;

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

    integer lane;

    always @(posedge clk) begin
        for (lane = 0; lane < LANES; lane = lane + 1)
            if (write_en[lane])
                memory[write_addr][lane*GRANULARITY +: GRANULARITY] <= write_data[lane*GRANULARITY +: GRANULARITY];
    end

    always @(posedge clk) begin
        if (read_en)
            read_data <= memory[read_addr];
    end

endmodule

`default_nettype wire
