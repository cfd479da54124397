"""Silu against model/numerics.py."""

from stmoe.hw.compute import silu as block
from stmoe.hw.compute.silu import SILU_LATENCY, Silu
from stmoe.model.numerics import silu, silu_table
from stmoe.verif.unit.bench import simulate

#: Around zero, around the end of the table, the ends of the range, and every 37th value between.
VALUES = [*range(-40, 41), *range(8150, 8230), *range(-8230, -8150), -32768, -32767, 32767, *range(-32768, 32768, 37)]


def _run(values: list[int]) -> list[int]:
    dut, results = Silu(), []

    async def bench(ctx):
        for cycle in range(len(values) + SILU_LATENCY):
            ctx.set(dut.value, values[min(cycle, len(values) - 1)])
            if cycle >= SILU_LATENCY:
                results.append(ctx.get(dut.silu))
                assert ctx.get(dut.same) == values[cycle - SILU_LATENCY]
            await ctx.tick()

    simulate(dut, bench)
    return results


def test_equals_the_specification_once_a_cycle():
    assert _run(VALUES) == silu(VALUES).tolist()


def test_one_wrong_table_entry_is_caught(monkeypatch):
    table = silu_table()
    table[700] += 1
    monkeypatch.setattr(block, "silu_table", lambda: table)
    values = list(range(5590, 5610))
    assert _run(values) != silu(values).tolist()
