"""From float weights to the integers of docs/numerics.md: int8 experts, an int16 router, and the scales between them.

Gate, up and down have a scale per hidden unit, from its largest weight: clipping rows for a lower squared error changed nothing
that could be measured (docs/numerics.md §3). The expert's static scale S of h8 is the one at which the expert's output is
nearest to float's on the calibration tokens routed to it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmoe.model.moe import QuantisedExpert, QuantisedLayer, QuantisedModel, check_layer
from stmoe.model.numerics import (
    GATE_FRAC,
    HIDDEN_FRAC,
    LOGIT_FRAC,
    ROUTER_SHIFT_MAX,
    Y_FRAC,
    Ints,
    encode_scale,
    quantise_activations,
)
from stmoe.model.reference import Positions, Reference
from stmoe.model.shape import ModelShape

Floats = NDArray[np.floating]

#: Multiples of the largest scaled hidden value in calibration that are tried as the point where h8 saturates. Above 1 because a
#: sample of tokens does not show the largest of all.
HIDDEN_CLIPS = np.geomspace(1.5, 0.25, 13)
#: S of an expert whose hidden values are all zero: any that (mo, so) can hold.
DEAD_SCALE = 2.0**-8
#: An expert chosen by fewer calibration tokens than this borrows those that came nearest to choosing it; more than the most
#: are not needed.
FEWEST_TOKENS = 64
MOST_TOKENS = 512


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """The float weights of one MoE layer: router [E, d]; gate and up [E', f, d], down [E', d, f], shared experts last."""

    router: Floats
    gate: Floats
    up: Floats
    down: Floats


def quantise_model(shape: ModelShape, layers: Sequence[FloatLayer], calibration: Sequence[Floats]) -> QuantisedModel:
    """Quantise ``layers``; ``calibration`` holds the inputs [N, d] of each layer's MoE (after the norm).

    Raises ``ValueError`` naming layer, expert and field for weights that the integer layer cannot hold.
    """
    if not len(layers) == len(calibration) == shape.layers:
        raise ValueError(f"{len(layers)} layers and {len(calibration)} calibration arrays for {shape.layers} layers")
    return QuantisedModel(
        shape, tuple(quantise_layer(shape, i, *pair) for i, pair in enumerate(zip(layers, calibration, strict=True)))
    )


def quantise_folder(folder: Path) -> QuantisedModel:
    """Quantise the model in ``folder``, calibrated on the tokens [N, T] of its calibration.npz."""
    reference = Reference.load(folder)
    try:
        with np.load(folder / "calibration.npz") as file:
            sequences = file["tokens"].astype(np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'calibration.npz'}: {error}") from error
    return quantise_reference(reference, sequences)


def quantise_reference(reference: Reference, sequences: Ints) -> QuantisedModel:
    """Quantise a float model, calibrated on token ``sequences`` [N, T]."""
    config = reference.config
    shape = ModelShape(
        experts=config.experts,
        top_k=config.top_k,
        layers=config.layers,
        d_model=config.hidden,
        d_ff=config.intermediate,
        renormalise=config.renormalise,
    )
    layers = [FloatLayer(layer.router, layer.gate, layer.up, layer.down) for layer in reference.layers]
    return quantise_model(shape, layers, moe_inputs(reference, sequences))


def moe_inputs(reference: Reference, sequences: Ints) -> list[Floats]:
    """What each layer's MoE is given on token ``sequences``, [tokens, d] a layer."""
    seen: list[list[Floats]] = [[] for _ in reference.layers]

    def listening(index: int, x: NDArray[np.float32], positions: Positions) -> NDArray[np.float32]:
        seen[index].append(x)
        return reference.float_moe(index, x, positions)

    listener = copy.copy(reference)
    listener.moe = listening
    for tokens in sequences:
        listener.hidden(tokens)
    return [np.concatenate(x) for x in seen]


def quantise_layer(shape: ModelShape, index: int, layer: FloatLayer, x: Floats) -> QuantisedLayer:
    """Quantise layer ``index`` with its calibration inputs ``x`` [N, d]."""
    _check_floats(shape, index, layer, x)
    router, mr, sr = quantise_router(index, layer.router)
    logits = x @ layer.router.T
    experts = []
    for e in range(shape.experts_total):
        tokens = calibration_tokens(shape, logits, e)
        try:
            experts.append(quantise_expert(layer.gate[e], layer.up[e], layer.down[e], x[tokens]))
        except ValueError as error:
            raise ValueError(f"layer {index}, expert {e}, {error}") from error
    quantised = QuantisedLayer(router, mr, sr, tuple(experts))
    check_layer(shape, index, quantised)
    return quantised


def calibration_tokens(shape: ModelShape, logits: Floats, e: int) -> Ints:
    """The tokens that calibrate expert ``e``: those routed to it, or those nearest to it if they are few."""
    if e >= shape.experts:
        chosen = np.arange(len(logits))
    else:
        margin = logits[:, e] - np.partition(logits, -shape.top_k, axis=1)[:, -shape.top_k]
        chosen = np.flatnonzero(margin >= 0)
        if len(chosen) < FEWEST_TOKENS:
            return np.argsort(-margin, kind="stable")[:FEWEST_TOKENS]
    return chosen[:: -(-len(chosen) // MOST_TOKENS)]


def quantise_router(index: int, router: Floats) -> tuple[NDArray[np.int16], int, int]:
    """int16 weights and the one scale (mr, sr) of layer ``index``."""
    peak = float(np.max(np.abs(router)))
    scale = peak / 32767 if peak else 1.0
    try:
        mr, sr = encode_scale(scale * 2**LOGIT_FRAC, high=ROUTER_SHIFT_MAX)
    except ValueError as error:
        raise ValueError(f"layer {index}, router: {error}") from error
    return np.rint(router / scale).astype(np.int16), mr, sr


def quantise_expert(gate: Floats, up: Floats, down: Floats, x: Floats) -> QuantisedExpert:
    """One expert from gate and up [f, d], down [d, f], and its calibration inputs ``x`` [N, d]."""
    Wg, scale_g = quantise_rows(gate)
    Wu, scale_u = quantise_rows(up)
    q, scale_d = quantise_rows(down.T)
    mg, sg = _encode("gate scale", scale_g * 2.0 ** (8 + GATE_FRAC))
    mu, su = _encode("up scale", scale_u * 2.0 ** (8 + GATE_FRAC))
    g = x @ gate.T
    hidden = g / (1 + np.exp(np.clip(-g, None, 80))) * (x @ up.T)
    S = hidden_scale(hidden, scale_d, q, hidden @ down.T)
    mh, sh = _encode("hidden scale", scale_d / (S * 2.0**HIDDEN_FRAC))
    mo, so = _encode("output scale", np.array([S * 2.0**Y_FRAC]))
    return QuantisedExpert(Wg, Wu, np.ascontiguousarray(q.T), mg, sg, mu, su, mh, sh, int(mo[0]), int(so[0]))


def quantise_rows(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """int8 rows and the scale of each, from its largest magnitude."""
    scales = np.max(np.abs(rows), axis=1) / 127
    return _round127(rows / np.where(scales == 0, 1.0, scales)[:, None]).astype(np.int8), scales


def hidden_scale(hidden: Floats, scale_d: Floats, q: NDArray[np.int8], target: Floats) -> float:
    """The static scale S of h8 for which ``S·(h8 @ q)`` is nearest to ``target`` on the calibration tokens."""
    v = hidden * scale_d
    peak = float(np.max(np.abs(v), initial=0.0)) / 127
    if peak == 0.0:
        return DEAD_SCALE
    candidates = (peak * HIDDEN_CLIPS).astype(np.float32)[:, None, None]
    h8 = _round127(v.astype(np.float32) / candidates)
    # One product for all candidates: a BLAS with threads takes longer to start than to multiply something this small.
    sums = (h8.reshape(-1, len(q)) @ q.astype(np.float32)).reshape(len(candidates), *target.shape)
    errors = np.sum((sums * candidates - target.astype(np.float32)) ** 2, axis=(1, 2), dtype=np.float64)
    return float(candidates[np.argmin(errors), 0, 0])


def random_model(shape: ModelShape, seed: int) -> QuantisedModel:
    """A small random model with trained-like magnitudes, for tests of hardware.

    Scales vary from unit to unit and expert to expert, some hidden values saturate, and some experts share their router row
    with the one before, so that ties occur.
    """
    rng = np.random.default_rng(seed)
    d, f, total = shape.d_model, shape.d_ff, shape.experts_total
    layers, calibration = [], []
    for _ in range(shape.layers):
        spread = rng.lognormal(0.0, 0.3, (3, total, f, 1))
        router = rng.normal(0, 1.5 / d**0.5, (shape.experts, d))
        twins = np.flatnonzero(rng.random(shape.experts - 1) < 0.15)
        router[twins + 1] = router[twins]
        layers.append(
            FloatLayer(
                router=router,
                gate=rng.normal(0, 1.5 / d**0.5, (total, f, d)) * spread[0],
                up=rng.normal(0, 1.0 / d**0.5, (total, f, d)) * spread[1],
                down=(rng.normal(0, 1.0 / f**0.5, (total, f, d)) * spread[2]).transpose(0, 2, 1),
            )
        )
        # Half the magnitude of random_activations: what is calibrated on less than it meets saturates now and then.
        calibration.append(rng.normal(0, 0.5, (FEWEST_TOKENS, d)))
    return quantise_model(shape, layers, calibration)


def random_activations(rng: np.random.Generator, d_model: int) -> tuple[Ints, int]:
    """(x16 [d], exponent) of a random token of about unit variance, as a norm leaves it."""
    return quantise_activations(rng.normal(0, rng.choice([0.25, 1.0, 1.0, 2.0]), d_model))


def _round127(a: Floats) -> Floats:
    return np.clip(np.rint(a), -127, 127)


def _encode(field: str, scales: Floats) -> tuple[Ints, Ints]:
    try:
        pairs = np.array([encode_scale(float(s)) for s in scales], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    return pairs[:, 0], pairs[:, 1]


def _check_floats(shape: ModelShape, index: int, layer: FloatLayer, x: Floats) -> None:
    d, f, total = shape.d_model, shape.d_ff, shape.experts_total
    expected = {"router": (shape.experts, d), "gate": (total, f, d), "up": (total, f, d), "down": (total, d, f)}
    for name, dims in expected.items():
        values = getattr(layer, name)
        if values.shape != dims:
            raise ValueError(f"layer {index}, {name}: shape {values.shape}, expected {dims}")
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"layer {index}, expert {bad[0][0]}, {name}: not finite")
    if x.ndim != 2 or x.shape[1] != d or len(x) == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"layer {index}, calibration: must be finite and [tokens, {d}], found shape {x.shape}")
