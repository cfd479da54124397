"""The whole engine is bit-exact under every policy, with stalls everywhere (verif/cocotb_tb/execution.py)."""

import pytest


@pytest.mark.parametrize(
    "name",
    [
        *("none", "lru", "ht", "cct", "st_moe", "st_moe_tuned", "stp", "lru_serial", "lru_split"),
        *("st_moe_split", "st_moe_budget", "none_serial_split"),
    ],
)
def test_results_are_exact_under_policy(regression, name):
    regression.run("execution", rf"policy/name={name}$")


def test_results_are_exact_and_nothing_misses_with_an_oracle_s_hints(regression):
    regression.run("execution", r"right_hints$")


def test_results_are_exact_with_garbage_for_hints(regression):
    regression.run("execution", r"garbage_hints")


def test_hints_have_no_effect_under_other_policies(regression):
    regression.run("execution", r"hints_without_the_oracle")


@pytest.mark.parametrize("name", ["shared", "all_experts_softmax", "routed_scale", "largest", "smallest", "one_layer"])
def test_results_are_exact_for_model(regression, name):
    regression.run("execution", rf"variant/name={name}$")


def test_results_are_exact_with_routing_from_outside(regression):
    regression.run("execution", r"routing_from_outside$")


def test_results_are_exact_whatever_words_are_announced(regression):
    regression.run("execution", r"words_of_any_kind$")


@pytest.mark.parametrize("name", ["early_gate", "default_vectors", "late_ranker"])
def test_results_are_exact_whatever_states_are_sent(regression, name):
    regression.run("execution", rf"states_of_any_kind/name={name}/")


def test_states_have_no_effect_under_other_policies(regression):
    regression.run("execution", r"states_without_a_policy")


def test_results_are_exact_without_stalls_and_with_heavy_ones(regression):
    regression.run("execution", r"(without|heavy)_stalls$")


@pytest.mark.parametrize("name", ["none", "lru"])
def test_counters_are_what_the_ports_and_the_golden_buffer_say(regression, name):
    regression.run("execution", rf"counters_seen_from_outside/name={name}$")
