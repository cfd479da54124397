// A small engine with the ports of stmoe_engine, 16-byte bus: the fixture of the back-end's tests.
//
// A message of kind 1 names an address in its bytes 8..11; the stub reads 64 bytes there and answers with a header (the same,
// kind 0x81) and the XOR of the message's last beat and the four beats; bit 6 of the address is the read's id. Kind 2 first writes the message's last beat to that address,
// four times. Kind 3 is swallowed. An AXI error makes byte 15 of the answer's header 0xEE.
// Registers: 0x000 ID, 0x090 irq enable (bit 0), 0x094 irq status (write 1 to clear), 0x800/0x804 cycles, 0x808 idle cycles.

module \stmoe_engine.counters (input clk, input rst, input idle, output [63:0] cycles, output [63:0] idle_cycles);
    reg [63:0] cycles_total, idle_total;
    reg idle_increment;
    assign cycles = cycles_total;
    assign idle_cycles = idle_total;
    always @(posedge clk) begin
        idle_increment <= idle;
        cycles_total <= cycles_total + 64'd1;
        if (idle_increment) idle_total <= idle_total + 64'd1;
        if (rst) begin
            cycles_total <= 64'd0;
            idle_total <= 64'd0;
            idle_increment <= 1'b0;
        end
    end
endmodule

module stmoe_engine (
    input aclk, input aresetn,
    output reg [31:0] m_axi_araddr, output [7:0] m_axi_arlen, output [2:0] m_axi_arsize, output [1:0] m_axi_arburst,
    output m_axi_arid, output m_axi_arvalid, input m_axi_arready,
    input [127:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast, input m_axi_rid, input m_axi_rvalid,
    output m_axi_rready,
    output [31:0] m_axi_awaddr, output [7:0] m_axi_awlen, output [2:0] m_axi_awsize, output [1:0] m_axi_awburst,
    output m_axi_awid, output m_axi_awvalid, input m_axi_awready,
    output [127:0] m_axi_wdata, output [15:0] m_axi_wstrb, output m_axi_wlast, output m_axi_wvalid, input m_axi_wready,
    input [1:0] m_axi_bresp, input m_axi_bid, input m_axi_bvalid, output m_axi_bready,
    input [11:0] s_axil_awaddr, input s_axil_awvalid, output s_axil_awready,
    input [31:0] s_axil_wdata, input [3:0] s_axil_wstrb, input s_axil_wvalid, output s_axil_wready,
    output [1:0] s_axil_bresp, output reg s_axil_bvalid, input s_axil_bready,
    input [11:0] s_axil_araddr, input s_axil_arvalid, output s_axil_arready,
    output reg [31:0] s_axil_rdata, output [1:0] s_axil_rresp, output reg s_axil_rvalid, input s_axil_rready,
    input [127:0] s_axis_tdata, input s_axis_tvalid, output s_axis_tready, input s_axis_tlast,
    output [127:0] m_axis_tdata, output m_axis_tvalid, input m_axis_tready, output m_axis_tlast,
    output irq, output quiescent
);
    localparam IDLE = 3'd0, BODY = 3'd1, AW = 3'd2, W = 3'd3, B = 3'd4, AR = 3'd5, R = 3'd6, ANSWER = 3'd7;
    reg [2:0] state;
    reg [127:0] head, value;
    reg [1:0] beat;
    reg irq_enable, irq_pending, quiet;
    wire [63:0] cycles, idle_cycles;
    wire rst = !aresetn;

    \stmoe_engine.counters counters (
        .clk(aclk), .rst(rst), .idle(state == IDLE), .cycles(cycles), .idle_cycles(idle_cycles));

    assign s_axis_tready = state == IDLE || state == BODY;
    assign m_axi_arvalid = state == AR;
    assign {m_axi_arlen, m_axi_arsize, m_axi_arburst, m_axi_arid} = {8'd3, 3'd4, 2'd1, head[70]};
    assign m_axi_rready = state == R;
    assign m_axi_awvalid = state == AW;
    assign m_axi_awaddr = head[95:64];
    assign {m_axi_awlen, m_axi_awsize, m_axi_awburst, m_axi_awid} = {8'd3, 3'd4, 2'd1, 1'd0};
    assign m_axi_wdata = value;
    assign m_axi_wstrb = 16'hffff;
    assign m_axi_wlast = beat == 2'd3;
    assign m_axi_wvalid = state == W;
    assign m_axi_bready = state == B;
    assign m_axis_tvalid = state == ANSWER;
    assign m_axis_tlast = beat[0];
    assign m_axis_tdata = beat[0] ? value : {head[127:8], 8'h81};
    assign irq = irq_pending && irq_enable;
    assign quiescent = quiet;

    always @(posedge aclk) begin
        quiet <= state == IDLE && !s_axis_tvalid;
        case (state)
            IDLE: if (s_axis_tvalid) begin
                head <= s_axis_tdata;
                state <= s_axis_tlast ? IDLE : BODY;
            end
            BODY: if (s_axis_tvalid) begin
                value <= s_axis_tdata;
                beat <= 2'd0;
                m_axi_araddr <= head[95:64];
                if (s_axis_tlast) state <= head[7:0] == 8'd1 ? AR : head[7:0] == 8'd2 ? AW : IDLE;
            end
            AW: if (m_axi_awready) state <= W;
            W: if (m_axi_wready) begin
                beat <= beat + 2'd1;
                if (m_axi_wlast) state <= B;
            end
            B: if (m_axi_bvalid) state <= AR;
            AR: if (m_axi_arready) state <= R;
            R: if (m_axi_rvalid) begin
                value <= value ^ m_axi_rdata;
                if (m_axi_rresp != 2'd0) head[127:120] <= 8'hee;
                if (m_axi_rlast) state <= ANSWER;
            end
            ANSWER: if (m_axis_tready) begin
                beat[0] <= !beat[0];
                if (beat[0]) begin
                    state <= IDLE;
                    irq_pending <= 1'b1;
                end
            end
        endcase
        if (s_axil_awvalid && s_axil_awready) begin
            s_axil_bvalid <= 1'b1;
            if (s_axil_awaddr == 12'h090) irq_enable <= s_axil_wdata[0];
            if (s_axil_awaddr == 12'h094 && s_axil_wdata[0]) irq_pending <= 1'b0;
        end else if (s_axil_bready) s_axil_bvalid <= 1'b0;
        if (s_axil_arvalid && s_axil_arready) begin
            s_axil_rvalid <= 1'b1;
            case (s_axil_araddr)
                12'h000: s_axil_rdata <= 32'h4f4d5453;
                12'h094: s_axil_rdata <= {31'd0, irq_pending};
                12'h800: s_axil_rdata <= cycles[31:0];
                12'h804: s_axil_rdata <= cycles[63:32];
                12'h808: s_axil_rdata <= idle_cycles[31:0];
                default: s_axil_rdata <= 32'd0;
            endcase
        end else if (s_axil_rready) s_axil_rvalid <= 1'b0;
        if (rst) begin
            state <= IDLE;
            {irq_enable, irq_pending, quiet, s_axil_bvalid, s_axil_rvalid} <= 5'd0;
        end
    end

    assign s_axil_awready = s_axil_awvalid && s_axil_wvalid && !s_axil_bvalid;
    assign s_axil_wready = s_axil_awready;
    assign s_axil_arready = !s_axil_rvalid;
    assign s_axil_bresp = s_axil_awaddr[11] ? 2'd2 : 2'd0;
    assign s_axil_rresp = 2'd0;
endmodule
