"""ST-MoE's predictor over whole traces against the twin that the RTL equals, routing by routing, tables included."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config as numba_config

from stmoe.model.policy import Policy
from stmoe.model.predictor import st_moe_stream
from stmoe.model.predictor.interface import NOBODY
from stmoe.model.predictor.st_moe import LITERAL, LITERAL_ENTRIES, StMoe, tuned
from stmoe.model.presets import preset
from stmoe.verif.unit.mutant import planted
from stmoe.verif.unit.predictor.streams import random_stream

LAYERS, EXPERTS, TOP_K = 4, 8, 2
CONFIG = replace(preset("test")[0], cct_ways=4, cct_counter_bits=4, layers_max=LAYERS, experts_max=EXPERTS)
RULES = {
    "literal": LITERAL,
    "entries": LITERAL_ENTRIES,
    "ht": LITERAL.under(Policy.HT),
    "cct": LITERAL.under(Policy.CCT),
    "tuned": tuned(TOP_K),
    "ranked": replace(tuned(TOP_K), threshold=1),
    "saturating": replace(LITERAL, history_weight=200, threshold=250, step_up=15, counter_max=15),
}


def equal(module, params, seed):
    """Whether ``module`` predicts what the twin predicts, and learns what it learns."""
    stream = random_stream(seed, tokens=60, layers=LAYERS, experts=EXPERTS, top_k=TOP_K)
    batch = module.StMoeStream(params, LAYERS, EXPERTS, TOP_K, CONFIG.cct_ways)
    ranked = batch.rank(stream, EXPERTS)
    twin = StMoe(CONFIG, params, LAYERS, EXPERTS)
    sequence = token = -1
    same = True
    predicted = []
    for t in range(len(stream.adjacent)):
        sequence, token = (sequence, token + 1) if stream.adjacent[t] else (sequence + 1, 0)
        for layer in range(LAYERS):
            if (layer, stream.adjacent[t]) == (0, False):
                predicted = []
            named = [(int(e), int(s)) for e, s in zip(ranked.experts[t, layer], ranked.scores[t, layer], strict=True)]
            expected = sorted(predicted, key=lambda item: (-item[1], item[0]))
            same &= [item for item in named if item[0] != NOBODY] == expected
            predicted = twin.observe(layer, sequence, token, stream.experts[t, layer].tolist())
    for layer in range(LAYERS - 1):
        for expert in range(EXPERTS):
            row = twin.rows[(layer << twin.expert_bits) + expert]
            entries = zip(batch.successors[layer, expert], batch.confidences[layer, expert], strict=True)
            same &= [e for e in row if e[1]] == [(int(e), int(c)) for e, c in entries if c]
    return same


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1 << 20))
def test_every_prediction_and_every_entry_is_the_twins(name, seed):
    assert equal(st_moe_stream, RULES[name], seed)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if t and adjacent[t]:", "if t:"),
        ("while way < len(successors) and confidences[way]:", "while way < len(successors):"),
        ("        held[successors[way]] = True\n", ""),
    ],
    ids=["history across a break", "dead entries stay dead", "an expert twice in a row"],
)
def test_the_comparison_catches_a_bug(right, wrong, monkeypatch):
    monkeypatch.setattr(numba_config, "DISABLE_JIT", True)
    mutant = planted(st_moe_stream, right, wrong)
    assert not all(equal(mutant, LITERAL, seed) for seed in range(3))


def test_table_bits_are_those_of_the_tables_that_count():
    def bits(params):
        return st_moe_stream.StMoeStream(params, LAYERS, EXPERTS, TOP_K, 4).table_bits

    history, correlation = 4 * 2 * 3, 3 * 8 * 4 * (3 + 2)
    assert bits(LITERAL) == history + correlation
    assert bits(LITERAL.under(Policy.HT)) == history
    assert bits(LITERAL.under(Policy.CCT)) == correlation
