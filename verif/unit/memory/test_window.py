"""Window: inclusive bounds, wrap, lock, empty after reset."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth.sim import Simulator

from stmoe.hw.memory.window import Window


def test_only_ranges_wholly_inside_pass_and_a_locked_window_does_not_move():
    dut = Window(16)

    def inside(ctx, first, last):
        ctx.set(dut.first, first)
        ctx.set(dut.last, last)
        return ctx.get(dut.inside)

    async def bench(ctx):
        for first in (0, 0x1234, 0xFFFF):
            assert not inside(ctx, first, first)  # before any bounds are given
        ctx.set(dut.bounds.base, 0x1000)
        ctx.set(dut.bounds.limit, 0x1FFF)
        await ctx.tick()
        ctx.set(dut.bounds.lock, 1)
        for _ in range(2):
            assert inside(ctx, 0x1000, 0x1FFF)
            assert inside(ctx, 0x1000, 0x1000)
            assert inside(ctx, 0x1FFF, 0x1FFF)
            assert not inside(ctx, 0x0FFF, 0x1000)
            assert not inside(ctx, 0x1FFF, 0x2000)
            assert not inside(ctx, 0x1FFF, 0x1000)
            ctx.set(dut.bounds.base, 0)
            ctx.set(dut.bounds.limit, 0xFFFF)
            await ctx.tick().repeat(2)
        ctx.set(dut.bounds.lock, 0)
        await ctx.tick()
        assert inside(ctx, 0, 0xFFFF)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
