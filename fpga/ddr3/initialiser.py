"""Brings the DDR3 chip up by LiteDRAM's registers, in place of a processor: power-up, mode registers, calibration, read levelling."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.ddr3.registers import ADDRESS_BITS, CsrBus
from stmoe.fpga.ddr3.sequence import DELAYS, LANES, SLIPS, Kind, Plan

#: Bits of a rest.
REST_BITS = 16


class LaneStatus(wiring.Signature):
    """What is known of a byte lane: its longest row of good delays, and the slip and delay it was given."""

    def __init__(self):
        super().__init__({"window": Out(range(DELAYS + 1)), "slip": Out(range(SLIPS)), "delay": Out(range(DELAYS))})


class StepRom(wiring.Component):
    """The steps of a plan, one after the other, a segment's last one marked. Combinational.

    Parameters
    ----------
    plan : the steps.

    Members
    -------
    index : In, of a step; ``where`` has the first of each segment.
    kind, address, data, rest, last : Out, the step.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.where: dict[str, int] = {}
        self.steps = []
        for name, steps in plan.segments.items():
            self.where[name] = len(self.steps)
            self.steps += [(step, step is steps[-1]) for step in steps]
        for step, _ in self.steps:
            if step.rest >> REST_BITS:
                raise ValueError(f"a rest of {step.rest} cycles: must lie below {1 << REST_BITS}")
        super().__init__(
            {
                "index": In(range(len(self.steps))),
                "kind": Out(Kind),
                "address": Out(ADDRESS_BITS),
                "data": Out(32),
                "rest": Out(REST_BITS),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.index):
            for number, (step, last) in enumerate(self.steps):
                with m.Case(number):
                    m.d.comb += [
                        self.kind.eq(step.kind),
                        self.address.eq(step.address),
                        self.data.eq(step.data),
                        self.rest.eq(step.rest),
                        self.last.eq(last),
                    ]
        return m


class Initialiser(wiring.Component):
    """Plays ``sequence.initialise`` once after each reset.

    Latency: a write and its rest take ``3 + rest`` cycles, a read 5; between two segments are one to four more. The bus has no
    handshake, so nothing can hold it up. Reset begins anew, wherever it was.

    Parameters
    ----------
    plan : the steps.

    Members
    -------
    bus : LiteDRAM's registers.
    ready : the controller has the chip; stays.
    failed : no lane setting reads right; stays, and the chip is left to itself.
    lanes : what was found, while and after it is.
    """

    def __init__(self, plan: Plan):
        self.rom = StepRom(plan)
        super().__init__(
            {
                "bus": Out(CsrBus()),
                "ready": Out(1),
                "failed": Out(1),
                "lanes": Out(LaneStatus()).array(LANES),
            }
        )

    def elaborate(self, platform):
        """States: FETCH, REST, ANSWER play a segment; the rest say which comes next."""
        m = Module()
        m.submodules.rom = rom = self.rom
        bus = self.bus
        index = Signal.like(rom.index)
        step = {name: Signal.like(getattr(rom, name)) for name in ("kind", "address", "data", "rest", "last")}
        left = Signal(REST_BITS)
        good = Signal(LANES)
        delay, slip, lane = Signal(range(DELAYS)), Signal(range(SLIPS)), Signal(range(LANES))
        steps = Signal(range(max(DELAYS, SLIPS)))  # of the lane, still to make
        runs = [Signal(range(DELAYS + 1), name=f"run_{number}") for number in range(LANES)]
        after = Signal(range(len(AFTER)))
        chosen = Array(Cat(status.slip, status.delay) for status in self.lanes)[lane]
        m.d.comb += rom.index.eq(index)
        m.d.sync += [bus.write.eq(0), bus.read.eq(0)]

        def play(segment: str, then: str):
            m.d.sync += [index.eq(rom.where[segment]), after.eq(AFTER.index(then)), good.eq((1 << LANES) - 1)]
            m.next = "FETCH"

        with m.FSM():
            with m.State("START"):
                play("start", "WRITE")
            with m.State("FETCH"):
                m.d.sync += [signal.eq(getattr(rom, name)) for name, signal in step.items()]
                m.d.sync += index.eq(index + 1)
                m.next = "ACCESS"
            with m.State("ACCESS"):
                reads = (step["kind"] == Kind.CHECK) | (step["kind"] == Kind.SEEN)
                m.d.sync += [
                    bus.address.eq(step["address"]),
                    bus.data.eq(Mux(step["kind"] == Kind.LANE, Const(1, 32) << lane, step["data"])),
                    bus.write.eq(~reads),
                    bus.read.eq(reads),
                    left.eq(Mux(reads, 2, step["rest"])),
                ]
                m.next = "REST"
            with m.State("REST"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    # A read: its answer stands since this cycle.
                    with m.If(step["kind"] == Kind.CHECK):
                        wrong = bus.answer ^ step["data"]
                        for number in range(LANES):
                            with m.If((wrong & (0x00FF00FF << 8 * number)) != 0):
                                m.d.sync += good[number].eq(0)
                    with m.If(step["kind"] == Kind.SEEN):
                        m.d.sync += good.eq(good & bus.answer)
                    m.next = "FETCH"
                    with m.If(step["last"]):
                        with m.Switch(after):
                            for number, name in enumerate(AFTER):
                                with m.Case(number):
                                    m.next = name
            with m.State("WRITE"):
                play("write", "FIRST")
            with m.State("FIRST"):
                play("first", "POINT")
            with m.State("POINT"):
                play("test", "RECORD")
            with m.State("RECORD"):
                for number, status in enumerate(self.lanes):
                    run = runs[number]
                    length = Signal.like(run, name=f"length_{number}")
                    m.d.comb += length.eq(Mux(delay == 0, 0, run) + 1)
                    m.d.sync += run.eq(Mux(good[number], length, 0))
                    with m.If(good[number] & (length > status.window)):
                        m.d.sync += [
                            status.window.eq(length),
                            status.slip.eq(slip),
                            status.delay.eq(delay - length[1:]),
                        ]
                play("delay", "NEXT")
            with m.State("NEXT"):
                m.d.sync += delay.eq(delay + 1)
                m.next = "POINT"
                with m.If(delay == DELAYS - 1):
                    play("slip", "SLIPPED")
            with m.State("SLIPPED"):
                m.d.sync += slip.eq(slip + 1)
                m.next = "POINT"
                with m.If(slip == SLIPS - 1):
                    m.next = "LANE"
            with m.State("LANE"):
                m.d.sync += steps.eq(chosen[:2])
                play("lane", "SLIP_LANE")
            with m.State("SLIP_LANE"):
                m.d.sync += steps.eq(steps - 1)
                play("lane_slip", "SLIP_LANE")
                with m.If(steps == 0):
                    m.d.sync += steps.eq(chosen[2:])
                    m.next = "DELAY_LANE"
            with m.State("DELAY_LANE"):
                m.d.sync += steps.eq(steps - 1)
                play("lane_delay", "DELAY_LANE")
                with m.If(steps == 0):
                    m.d.sync += lane.eq(lane + 1)
                    m.next = "LANE"
                    with m.If(lane == LANES - 1):
                        m.next = "LANES"
            with m.State("LANES"):
                play("lanes", "LAST")
            with m.State("LAST"):
                play("test", "VERDICT")
            with m.State("VERDICT"):
                found = Cat(status.window != 0 for status in self.lanes)
                with m.If((good & found) == (1 << LANES) - 1):
                    play("finish", "READY")
                with m.Else():
                    m.next = "FAILED"
            with m.State("READY"):
                m.d.comb += self.ready.eq(1)
            with m.State("FAILED"):
                m.d.comb += self.failed.eq(1)
        return m


#: States in which the player can go on after a segment.
AFTER = (
    "WRITE",
    "FIRST",
    "POINT",
    "RECORD",
    "NEXT",
    "SLIPPED",
    "SLIP_LANE",
    "DELAY_LANE",
    "LAST",
    "VERDICT",
    "READY",
)
