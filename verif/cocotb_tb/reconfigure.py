"""One build, several models: everything changes by register between a stop and a start (run by verif/regress/test_reconfigure.py)."""

import cocotb

from stmoe.model.policy import Policy
from stmoe.model.quantize import random_model
from stmoe.model.shape import ModelShape
from stmoe.sim.session import Setting
from stmoe.verif.cocotb_tb.bench import SEED, TB

#: They differ in experts, k, layers, d, d_ff, shared experts and softmax.
MODELS = (
    ModelShape(experts=8, top_k=2, layers=3, d_model=32, d_ff=16),
    ModelShape(experts=5, top_k=3, layers=2, d_model=48, d_ff=24, shared_experts=1, renormalise=False),
    ModelShape(experts=7, top_k=1, layers=4, d_model=64, d_ff=8),
)


@cocotb.test()
async def models_back_to_back(dut):
    """Each model runs, is stopped in the midst of prefetching, and makes room for the next at the same addresses."""
    tb = TB(dut)
    await tb.begin()
    for round_number, shape in enumerate((*MODELS, MODELS[0])):
        policy = (Policy.ST_MOE, Policy.CCT, Policy.LRU, Policy.ST_MOE)[round_number]
        await tb.configure(random_model(shape, SEED + round_number), Setting(policy=policy))
        await tb.command(clear_counters=1)
        await tb.start()
        for token in range(3):
            for layer in range(shape.layers):
                await tb.layer(layer, 0, token)
        counters = await tb.counters()
        assert counters["token_layers"] == 3 * shape.layers
        # Nothing of the model before is resident.
        assert counters["expert_hits"] <= 2 * shape.slots * shape.layers
        await tb.stop()
    await tb.finish()


@cocotb.test()
async def settings_written_while_running_wait_for_the_next_start(dut):
    tb = TB(dut)
    await tb.begin()
    model = random_model(MODELS[0], SEED)
    await tb.configure(model, Setting(policy=Policy.LRU))
    await tb.start()
    await tb.layer(0, 0, 0)
    await tb.write_all({"MODEL_TOP_K": 1, "MODEL_D": 64, "POLICY": 9, "IMAGE_ID": 5})
    await tb.layer(1, 0, 0)
    await tb.finish()


@cocotb.test()
async def aresetn_while_working(dut):
    """A reset in the midst of a layer: registers at their reset values, and a run from the start works."""
    tb = TB(dut)
    await tb.begin()
    model = random_model(MODELS[0], SEED)
    for cycles in (30, 300, 500):
        await tb.configure(model, Setting(policy=Policy.ST_MOE))
        await tb.start()
        await tb.layer(0, 0, 0)
        await tb.send(tb.message(1, 0, 0))
        await tb.cycles(cycles)
        await tb.reset()
        assert await tb.read("MODEL_EXPERTS") == 0
        assert not (await tb.status())["running"]
    await tb.configure(model, Setting(policy=Policy.ST_MOE))
    await tb.start()
    await tb.layer(0, 0, 0)
    await tb.finish()
