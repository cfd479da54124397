"""Routing logs as other tools write them, made of a trace: what the importers' tests read."""

import base64
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save as save_safetensors

from stmoe.sim.traces.importing import Given
from stmoe.sim.traces.trace import Trace

GIVEN = Given(experts=8, top_k=2, layers=[1, 2, 3])


@dataclass(frozen=True)
class Log:
    """A format: the file's name, what writes it, and what of a trace survives."""

    format: str
    file: str
    write: Callable[[Trace], bytes]
    keeps: frozenset[str]
    given: Given = GIVEN


def records(trace: Trace):
    """(token, sequence, layer's number, experts, weights) of every token and layer."""
    assert trace.weights is not None
    for t in range(len(trace)):
        for i, layer in enumerate(trace.meta["layers"]):
            yield t, int(trace.seq_id[t]), layer, trace.experts[t, i].tolist(), trace.weights[t, i].tolist()


def vllm(trace: Trace) -> bytes:
    head = {"type": "meta", "model_id": "made", "layers_logged": trace.meta["layers"], "top_k": trace.top_k}
    rows = [
        {
            "type": "route",
            "req_id": f"r{sequence}",
            "token_idx": int(trace.position[t]),
            "layer": layer,
            "topk_ids": ids,
            "topk_weights": weights,
        }
        for t, sequence, layer, ids, weights in records(trace)
    ]
    return "".join(json.dumps(row) + "\n" for row in (head, *rows)).encode()


def bigmoeonedge(trace: Trace) -> bytes:
    lines = ["# route_trace v1", "# model=/x/made.gguf arch=a n_layer=4 n_expert=8 n_expert_used=2"]
    lines.append("# layer=0 expert_bytes=0 dense_bytes=7")
    lines += [f"# layer={layer} expert_bytes=100 dense_bytes=7" for layer in trace.meta["layers"]]
    lines.append("turn,phase,step,layer,slot,expert,weight,residency,expert_bytes")
    for t, sequence, layer, ids, weights in records(trace):
        for slot, (expert, weight) in enumerate(zip(ids, weights, strict=True)):
            # A sequence a turn: the context begins anew, so `step` falls back.
            lines.append(f"{sequence},{trace.phase[t]},{trace.position[t]},{layer},{slot},{expert},{weight!r},0,100")
    return ("\n".join(lines) + "\n").encode()


def per_prompt(trace: Trace) -> bytes:
    assert trace.token_id is not None
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["Layer ID", "Batch Number", "Token", "Activated Expert IDs"])
    for i, layer in enumerate(trace.meta["layers"]):
        for t in range(len(trace)):
            writer.writerow([layer, trace.seq_id[t], f"tok,{trace.token_id[t]}", trace.experts[t, i].tolist()])
    return text.getvalue().encode()


def router_data(trace: Trace) -> bytes:
    assert trace.token_id is not None
    lines = []
    for begin, end in trace.sequences():
        tokens = {t: {} for t in range(begin, end)}
        for t, _, layer, ids, weights in records(trace):
            if t in tokens:
                tokens[t][f"layer_{layer}"] = {"selected_experts": ids, "selected_probs": weights}
        text = [f"tok{i}" for i in trace.token_id[begin:end].tolist()]
        data = [{f"token_{int(trace.position[t])}": layers} for t, layers in tokens.items()]
        lines.append(json.dumps({"full_text": text, "generated_only": text, "router_data": data}))
    return "\n".join(lines).encode()


def logits_of(trace: Trace) -> np.ndarray:
    """Logits [L, T, E] whose k largest are the trace's experts in order."""
    logits = np.full((trace.n_layers, len(trace), trace.n_experts), -5.0, np.float32)
    for rank in range(trace.top_k):
        ids = trace.experts[:, :, rank].T.astype(np.int64)[..., None]
        np.put_along_axis(logits, ids, np.float32(3 - rank), axis=2)
    return logits


def _token_rows(trace: Trace) -> np.ndarray:
    assert trace.token_id is not None
    return trace.token_id.reshape(len(list(trace.sequences())), -1).astype(np.int64)


def logits_json(trace: Trace) -> bytes:
    lists = {"router_logits": logits_of(trace).tolist(), "input_ids": _token_rows(trace).tolist()}
    return json.dumps(lists).encode()


def logits_npz(trace: Trace) -> bytes:
    stream = io.BytesIO()
    layers = {f"router_logits.{n}": a for n, a in zip(trace.meta["layers"], logits_of(trace), strict=True)}
    np.savez(stream, **layers, input_ids=_token_rows(trace))
    return stream.getvalue()


def logits_safetensors(trace: Trace) -> bytes:
    return save_safetensors({"router_logits": logits_of(trace), "input_ids": _token_rows(trace)})


def sglang_dump(trace: Trace) -> dict:
    """The object of a recorder: the prompts together, then a pass a token, then the same for the next."""
    assert trace.token_id is not None
    passes = []
    for begin, end in trace.sequences():
        tokens = np.arange(begin, end)
        prompt = int((trace.phase[begin:end] == 0).sum())
        passes += [(1, tokens[:prompt]), *((2, tokens[i : i + 1]) for i in range(prompt, len(tokens)))]
    return {"records": [forward_pass(trace, mode, rows) for mode, rows in passes], "last_physical_to_logical_map": _MAP}


#: Ten physical experts of eight, in four layers of which the first has no experts.
_MAP = [[*range(8), 0, 3]] * 4


def forward_pass(trace: Trace, mode: int, rows: np.ndarray) -> dict:
    """One record: a prefill (mode 1) or a decode (2) of these rows of the trace."""
    assert trace.token_id is not None
    ids = np.full((4, len(rows), 8), -1)
    ids[1:, :, :2] = trace.experts[rows].transpose(1, 0, 2)
    # Replicas: every other token goes to the copies.
    ids[:, ::2] = np.where(ids[:, ::2] == 0, 8, np.where(ids[:, ::2] == 3, 9, ids[:, ::2]))
    return {
        "forward_pass_id": 0,
        "forward_mode": mode,
        "input_ids": trace.token_id[rows].tolist(),
        "positions": trace.position[rows].tolist(),
        "extend_seq_lens": [len(rows)] if mode == 1 else None,
        "topk_ids_of_layer": ids.tolist(),
    }


def sglang(trace: Trace) -> bytes:
    return json.dumps(sglang_dump(trace)).encode()


def sglang_responses(trace: Trace) -> bytes:
    lines = [
        {"text": "…", "meta_info": {"routed_experts": base64.b64encode(trace.experts[b:e].astype("<i4")).decode()}}
        for b, e in trace.sequences()
    ]
    return "\n".join(json.dumps(line) for line in lines).encode()


ALWAYS = frozenset({"experts", "seq_id", "position"})
LOGS = {
    "vllm": Log("vllm", "made.jsonl", vllm, ALWAYS | {"weights"}),
    "bigmoeonedge": Log("bigmoeonedge", "made.csv", bigmoeonedge, ALWAYS | {"weights", "phase"}),
    "per-prompt": Log("per-prompt", "made.csv", per_prompt, ALWAYS),
    "router_data": Log("huggingface", "made.json", router_data, ALWAYS | {"weights"}),
    "logits json": Log("huggingface", "made.json", logits_json, ALWAYS | {"token_id"}),
    "logits npz": Log("huggingface", "made.npz", logits_npz, ALWAYS | {"token_id"}),
    "logits safetensors": Log("huggingface", "made.safetensors", logits_safetensors, ALWAYS | {"token_id"}),
    "sglang": Log("sglang", "made.json", sglang, ALWAYS | {"phase", "token_id"}),
    "sglang responses": Log("sglang", "made.json", sglang_responses, ALWAYS),
}
