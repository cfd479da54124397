"""The simulator's way to write Verilog: registers merged with their processes, inputs taken over at the edge."""

from stmoe.sim.clocked import bench, merge_registers

MODULE = """module top(clk, en, d, q, other);
  reg [3:0] \\$1 ;
  reg [3:0] \\$2 ;
  always @(posedge clk)
    q <= \\$1 ;
  always @(posedge clk)
    \\flags.a  <= \\$2 ;
  always @* begin
    if (\\$auto$verilog_backend.cc:2355:dump_module$32 ) begin end
    \\$1  = q;
    if (en) begin
      \\$1 [1:0] = d;
    end
  end
  always @* begin
    if (\\$auto$verilog_backend.cc:2355:dump_module$32 ) begin end
    \\$2  = \\flags.a ;
    if (en) begin
      \\$2  = 4'h0;
    end
  end
READ
endmodule
"""


def test_a_register_and_its_process_become_one_and_hold_without_being_assigned():
    merged = merge_registers(MODULE.replace("READ\n", ""))
    assert "always @*" not in merged
    assert "  always @(posedge clk) begin\n    if (en) begin\n      q[1:0] <= d;\n    end\n  end\n" in merged.replace(
        " [", "["
    )
    assert "    if (en) begin\n      \\flags.a  <= 4'h0;\n    end\n" in merged
    assert merged.count("posedge") == 2


def test_a_next_state_that_is_read_elsewhere_stays():
    text = MODULE.replace("READ", "  assign other = \\$1 ;")
    merged = merge_registers(text)
    assert "    q <= \\$1 ;\n" in merged
    assert merged.count("always @*") == 1


def test_hand_written_verilog_stays_as_it_is():
    text = "module m(input c, input d, output reg q);\n  always @(posedge c)\n    q <= d;\nendmodule\n"
    assert merge_registers(text) == text


def test_the_bench_takes_every_input_over_at_the_edge_and_the_python_side_also_at_load():
    text = "module e(input aclk, input aresetn, input [7:0] m_axi_rdata, input s_axis_tvalid, output irq);\nendmodule\n"
    made = bench("b", "e", text)
    assert ".m_axi_rdata(m_axi_rdata_now)" in made
    assert ".aresetn(aresetn_now)" in made
    assert ".s_axis_tvalid(s_axis_tvalid_now)" in made
    at_edge, at_load = made.split("always @(posedge aclk or posedge load)")
    assert "m_axi_rdata_now <= m_axi_rdata;" in at_edge
    assert "s_axis_tvalid_now <= s_axis_tvalid;" in at_load
    assert "aclk_now" not in made
