"""What every stream test bench of the Amaranth simulator uses: send, receive, simulate.

``send`` and ``receive`` are awaited inside a testbench; idle cycles and backpressure are drawn from the generator given,
so that a failing run is repeated by its seed.
"""

import random
from collections.abc import Iterable

from amaranth.sim import Simulator

from stmoe.verif.waves import recorded

CLOCK_PERIOD = 1e-6


async def send(ctx, stream, items: Iterable, rng: random.Random, idle: float = 0.3) -> None:
    """Put ``items`` on ``stream``, before each one idling a cycle at a time with probability ``idle``."""
    for item in items:
        while rng.random() < idle:
            await ctx.tick()
        ctx.set(stream.payload, item)
        ctx.set(stream.valid, 1)
        await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)


async def receive(ctx, stream, n: int, rng: random.Random, stall: float = 0.3) -> list:
    """Take ``n`` payloads from ``stream``, before each one refusing a cycle at a time with probability ``stall``."""
    taken = []
    for _ in range(n):
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(stream.ready, 1)
        (payload,) = await ctx.tick().sample(stream.payload).until(stream.valid)
        ctx.set(stream.ready, 0)
        taken.append(payload)
    return taken


def simulate(dut, *testbenches, background: Iterable = (), timeout_cycles: int = 100_000) -> None:
    """Run ``dut`` until every testbench has returned; ``TimeoutError`` after ``timeout_cycles``.

    ``background`` testbenches (slaves, monitors) run along and need not return.
    """

    async def watchdog(ctx):
        await ctx.delay(timeout_cycles * CLOCK_PERIOD)
        raise TimeoutError(f"not finished after {timeout_cycles} cycles")

    simulator = Simulator(dut)
    simulator.add_clock(CLOCK_PERIOD)
    for testbench in testbenches:
        simulator.add_testbench(_closing_quietly(testbench))
    for testbench in (watchdog, *background):
        simulator.add_testbench(_closing_quietly(testbench), background=True)
    with recorded(simulator):
        simulator.run()


def _closing_quietly(testbench):
    """``testbench``, closed without an error when another one has failed.

    Amaranth's ``until`` and ``repeat`` answer ``close()`` with ``RuntimeError: aclose(): asynchronous generator is already
    running``, which pytest then reports on top of, or in place of, the failure itself.
    """

    async def wrapped(ctx):
        try:
            await testbench(ctx)
        except RuntimeError as error:
            if isinstance(error.__context__, GeneratorExit):
                raise error.__context__ from None
            raise

    return wrapped
