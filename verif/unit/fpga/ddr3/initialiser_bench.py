"""The initialiser, or its twin, before the injector's model and a chip."""

import dataclasses
from collections.abc import Sequence

from stmoe.fpga.ddr3.chip import MT41K256M16, Ddr3Chip, ModeRegisters
from stmoe.fpga.ddr3.chip_model import Ddr3Model
from stmoe.fpga.ddr3.initialiser import Initialiser
from stmoe.fpga.ddr3.injector_model import Eye, InjectorModel
from stmoe.fpga.ddr3.sequence import LANES, Lane, Outcome, Plan, initialise
from stmoe.verif.unit.bench import simulate

CLOCK_HZ = 75_000_000
#: The chip, with short pauses at power-up.
SHORT = dataclasses.replace(MT41K256M16, t_reset=1, t_cke_low=2)
EYES = (Eye(2, 1, 4), Eye(1, 3, 7))


def plan_for(chip: Ddr3Chip = SHORT) -> Plan:
    return Plan(chip, ModeRegisters(), CLOCK_HZ)


def model_of(chip: Ddr3Chip = SHORT, eyes: Sequence[Eye] = EYES) -> InjectorModel:
    return InjectorModel(Ddr3Model(chip, 2 * CLOCK_HZ), eyes)


def play(plan: Plan, model: InjectorModel) -> Outcome:
    return initialise(plan, model)


def play_gates(plan: Plan, model: InjectorModel, reset_at: int | None = None) -> Outcome:
    """The RTL's; with ``reset_at``, reset in that cycle for a cycle."""
    from amaranth import ResetInserter, Signal

    inner, reset = Initialiser(plan), Signal()
    dut = ResetInserter(reset)(inner)
    found: list[Outcome] = []

    async def bench(ctx):
        bus = inner.bus
        model.rest(1)
        while not (ctx.get(inner.ready) or ctx.get(inner.failed)):
            ctx.set(reset, model.cycle == reset_at)
            *_, write, read, address, data = await ctx.tick().sample(bus.write, bus.read, bus.address, bus.data)
            if write:
                model.write(address, data)
            else:
                if read:
                    model.log.append((model.cycle, "read", address, model.peek(address)))
                model.rest(1)
            ctx.set(bus.answer, model.peek(address))
        lanes = [
            Lane(*(ctx.get(getattr(inner.lanes[number], name)) for name in ("window", "slip", "delay")))
            for number in range(LANES)
        ]
        found.append(Outcome(bool(ctx.get(inner.ready)), tuple(lanes)))
        # It stays so.
        for _ in range(20):
            await ctx.tick()
        assert ctx.get(inner.ready) == found[0].ready
        assert ctx.get(inner.failed) != found[0].ready
        assert not ctx.get(bus.write)

    simulate(dut, bench)
    return found[0]
