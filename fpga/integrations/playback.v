// Plays a recorded run to the engine, in any Verilog simulator, and compares every beat that comes back.
//
// `python -m stmoe.fpga.integrations.playback --preset test --out DIR` writes what is read here: playback.vh (sizes),
// memory.hex (model image), registers.hex (offset and value of every register write), messages.hex (beats to the engine, with
// TLAST on top), answers.hex (beats that must come back). Nothing is checked for x by `!=`, which no x ever fails: `!==`.

`timescale 1ns / 1ps
`default_nettype none
`include "playback.vh"
`ifndef ENGINE
`define ENGINE stmoe_engine  // or what wraps it, with the same ports
`endif

module playback;
    localparam BUS = `BUS_BYTES * 8;
    localparam LATENCY = 12;  // cycles from an address to its first beat

    reg aclk = 0;
    reg aresetn = 0;
    always #5 aclk = ~aclk;

    reg [BUS-1:0] memory [0:`MEMORY_WORDS-1];
    reg [63:0] registers [0:`REGISTERS-1];
    reg [BUS+3:0] messages [0:`MESSAGE_BEATS-1];
    reg [BUS+3:0] answers [0:`ANSWER_BEATS-1];

    // Registers.
    reg [11:0] awaddr = 0, araddr = 0;
    reg awvalid = 0, wvalid = 0, arvalid = 0;
    reg [31:0] wdata = 0;
    wire awready, wready, bvalid, arready, rvalid_lite;
    wire [1:0] bresp, rresp_lite;
    wire [31:0] rdata_lite;

    // Streams.
    integer sent = 0, received = 0;
    reg playing = 0;
    wire s_tready, m_tvalid, m_tlast;
    wire [BUS-1:0] m_tdata;
    wire s_tvalid = playing && sent < `MESSAGE_BEATS;
    wire [BUS+3:0] beat = messages[sent < `MESSAGE_BEATS ? sent : 0];

    // Memory: one burst after the other, in order, a beat a cycle.
    wire [`ADDR_BITS-1:0] m_araddr;
    wire [7:0] m_arlen;
    wire m_arvalid, m_rready, m_awvalid;
    reg [`ADDR_BITS-1:0] queue_address [0:63];
    reg [7:0] queue_length [0:63];
    reg [5:0] head = 0, tail = 0;
    reg [7:0] wait_left = LATENCY, beat_number = 0;
    wire queued = head != tail;
    wire m_arready = (tail + 6'd1) != head;
    wire m_rvalid = queued && wait_left == 0;
    wire [`ADDR_BITS-1:0] word = queue_address[head] / `BUS_BYTES + beat_number;
    wire m_rlast = beat_number == queue_length[head];

    `ENGINE engine (
        .aclk(aclk), .aresetn(aresetn),
        .s_axil_awaddr(awaddr), .s_axil_awvalid(awvalid), .s_axil_awready(awready),
        .s_axil_wdata(wdata), .s_axil_wstrb(4'hf), .s_axil_wvalid(wvalid), .s_axil_wready(wready),
        .s_axil_bresp(bresp), .s_axil_bvalid(bvalid), .s_axil_bready(1'b1),
        .s_axil_araddr(araddr), .s_axil_arvalid(arvalid), .s_axil_arready(arready),
        .s_axil_rdata(rdata_lite), .s_axil_rresp(rresp_lite), .s_axil_rvalid(rvalid_lite), .s_axil_rready(1'b1),
        .s_axis_tdata(beat[BUS-1:0]), .s_axis_tlast(beat[BUS]), .s_axis_tvalid(s_tvalid), .s_axis_tready(s_tready),
        .m_axis_tdata(m_tdata), .m_axis_tlast(m_tlast), .m_axis_tvalid(m_tvalid), .m_axis_tready(1'b1),
        .m_axi_araddr(m_araddr), .m_axi_arlen(m_arlen), .m_axi_arvalid(m_arvalid), .m_axi_arready(m_arready),
        .m_axi_rid(1'b0), .m_axi_rdata(memory[word < `MEMORY_WORDS ? word : 0]), .m_axi_rresp(2'd0), .m_axi_rlast(m_rlast),
        .m_axi_rvalid(m_rvalid), .m_axi_rready(m_rready),
        // Nothing is written: no tables are saved.
        .m_axi_awvalid(m_awvalid), .m_axi_awready(1'b0), .m_axi_wready(1'b0), .m_axi_bid(1'b0), .m_axi_bvalid(1'b0), .m_axi_bresp(2'd0)
    );

    task fail(input [8*40-1:0] what, input integer where);
        begin
            $display("FAIL: %0s at %0d", what, where);
            $finish_and_return(1);
        end
    endtask

    always @(posedge aclk) if (aresetn) begin
        if (m_arvalid && m_arready) begin
            queue_address[tail] <= m_araddr;
            queue_length[tail] <= m_arlen;
            tail <= tail + 6'd1;
        end
        if (queued && wait_left != 0) wait_left <= wait_left - 8'd1;
        if (m_rvalid && m_rready) begin
            beat_number <= beat_number + 8'd1;
            if (m_rlast) begin
                head <= head + 6'd1;
                beat_number <= 0;
            end
        end
        if (!queued) wait_left <= LATENCY;
        if (m_awvalid !== 1'b0) fail("a write to memory", sent);
        if (s_tvalid && s_tready) sent <= sent + 1;
        if (m_tvalid === 1'bx) fail("m_axis_tvalid is x, beat", received);
        if (m_tvalid) begin
            if (received >= `ANSWER_BEATS) fail("more answers than expected", received);
            if ({m_tlast, m_tdata} !== answers[received][BUS:0]) begin
                $display("expected %h, got %h", answers[received][BUS:0], {m_tlast, m_tdata});
                fail("wrong answer in beat", received);
            end
            received <= received + 1;
        end
    end

    task write_register(input [11:0] address, input [31:0] value);
        begin
            @(negedge aclk);
            awaddr = address; wdata = value; awvalid = 1; wvalid = 1;
            while (awvalid || wvalid) begin
                @(posedge aclk);
                if (awready && wready) begin #1 awvalid = 0; wvalid = 0; end
                else if (awready) begin #1 awvalid = 0; end
                else if (wready) begin #1 wvalid = 0; end
            end
            while (bvalid !== 1'b1) @(posedge aclk);
            if (bresp !== 2'd0) fail("a register refused a write, offset", address);
            @(negedge aclk);
        end
    endtask

    task read_register(input [11:0] address, output [31:0] value);
        begin
            @(negedge aclk);
            araddr = address; arvalid = 1;
            @(posedge aclk);
            while (arready !== 1'b1) @(posedge aclk);
            #1 arvalid = 0;
            while (rvalid_lite !== 1'b1) @(negedge aclk);
            value = rdata_lite;
            @(negedge aclk);
        end
    endtask

    integer i;
    reg [31:0] value;
    initial begin
        $readmemh("memory.hex", memory);
        $readmemh("registers.hex", registers);
        $readmemh("messages.hex", messages);
        $readmemh("answers.hex", answers);
        repeat (8) @(posedge aclk);
        #1 aresetn = 1;
        read_register(`ID_OFFSET, value);
        if (value !== `ID_VALUE) fail("wrong ID", value);
        for (i = 0; i < `REGISTERS; i = i + 1) write_register(registers[i][43:32], registers[i][31:0]);
        repeat (16) @(posedge aclk);
        playing = 1;
        for (i = 0; i < `CYCLES && received < `ANSWER_BEATS; i = i + 1) @(posedge aclk);
        if (received < `ANSWER_BEATS) fail("no more answers after beat", received);
        $display("PASS: %0d beats equal, %0d cycles", received, i);
        $finish;
    end
endmodule

`default_nettype wire
