"""The shared command port: every requester gets the answer to its own question."""

import random

import pytest

from stmoe.hw.buffer.port import CommandPort
from stmoe.model.presets import PRESETS
from stmoe.verif.unit.bench import receive, send, simulate

CONFIG = PRESETS["test"][0]


def run(rng, dut=None):
    """Each side asks 20 times; the manager's answer carries the expert asked about."""
    dut = dut or CommandPort(CONFIG)
    answers = {"sequencer": [], "demand": []}
    asked = {name: [rng.randrange(8) for _ in range(20)] for name in answers}

    def requester(name):
        async def ask(ctx):
            for expert in asked[name]:
                await send(ctx, getattr(dut, f"i_{name}"), [{"ref": {"expert": expert}}], rng)
                (answer,) = await receive(ctx, getattr(dut, f"o_{name}"), 1, rng)
                answers[name].append(answer.frame)

        return ask

    async def manager(ctx):
        for _ in range(40):
            (command,) = await receive(ctx, dut.o_command, 1, rng)
            await ctx.tick().repeat(rng.randrange(1, 4))
            await send(ctx, dut.i_response, [{"ok": 1, "frame": command.ref.expert}], rng)

    simulate(dut, requester("sequencer"), requester("demand"), manager, timeout_cycles=3000)
    return answers, asked


@pytest.mark.parametrize("seed", range(3))
def test_responses_go_to_who_asked(seed):
    answers, asked = run(random.Random(seed))
    assert answers == asked


def test_a_port_that_answers_the_wrong_side_is_caught():
    class Mutant(CommandPort):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += [self.o_sequencer.valid.eq(self.i_response.valid), self.o_demand.valid.eq(0)]
            return m

    with pytest.raises(TimeoutError):
        run(random.Random(0), dut=Mutant(CONFIG))
