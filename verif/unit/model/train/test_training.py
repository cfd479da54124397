"""The torch side, on a tiny model: hand-written gradients, optimiser, schedule, export and resumption. Needs the `train` extra."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")

from stmoe.model.reference import Reference  # noqa: E402
from stmoe.model.train import train as training  # noqa: E402
from stmoe.model.train.export import export  # noqa: E402
from stmoe.model.train.network import ExpertMix, Model, Shape, TiedHeadLoss  # noqa: E402
from stmoe.model.train.optimizer import orthogonalise  # noqa: E402

TINY = Shape(
    vocab_size=48,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=8,
    max_position_embeddings=64,
)


def doubles(*shape: int):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_the_expert_mix_has_the_gradients_of_the_formula() -> None:
    torch.manual_seed(0)
    ids = torch.stack([torch.randperm(5)[:2] for _ in range(9)])
    x, share, gate_up, down = doubles(9, 6), doubles(9, 2), doubles(5, 8, 6), doubles(5, 6, 4)
    expected = torch.zeros(9, 6, dtype=torch.float64)
    for n in range(9):
        for j, e in enumerate(ids[n].tolist()):
            gate, up = (gate_up[e] @ x[n]).chunk(2)
            expected[n] += share[n, j] * (down[e] @ (torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(ExpertMix.apply(x, share, ids, gate_up, down), expected)
    assert torch.autograd.gradcheck(lambda *a: ExpertMix.apply(a[0], a[1], ids, *a[2:]), (x, share, gate_up, down))


def test_the_chunked_loss_is_the_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TiedHeadLoss, "CHUNK", 4)
    hidden, embedding, targets = doubles(10, 6), doubles(12, 6), torch.randint(0, 12, (10,))
    expected = torch.nn.functional.cross_entropy(hidden @ embedding.t(), targets)
    torch.testing.assert_close(TiedHeadLoss.apply(hidden, embedding, targets), expected)
    assert torch.autograd.gradcheck(lambda h, e: TiedHeadLoss.apply(h, e, targets), (hidden, embedding))


@pytest.mark.parametrize("shape", [(3, 8, 12), (3, 12, 8), (10, 10)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    assert training.rate(0.0) > 0
    assert training.rate(0.005) == pytest.approx(0.5)
    assert training.rate(0.2) == 1
    assert training.rate(0.65) == pytest.approx(0.5)
    assert training.rate(1.0) == 0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a state folder with tokens, for a run of four sequences of 16 tokens a step."""
    for name, value in {"LENGTH": 16, "SEQUENCES": 4, "CODE_SEQUENCES": 2}.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "Shape", lambda **sizes: Shape(**sizes) if sizes else TINY)
    monkeypatch.setattr(training, "Watch", lambda state: type("NoWatch", (), {"measure": lambda self, model: {}})())
    (tmp_path / "tokens").mkdir()
    rng = np.random.default_rng(0)
    for kind in ("code", "prose"):
        np.save(tmp_path / "tokens" / f"{kind}.npy", rng.integers(0, 48, 3000).astype(np.uint16))
    return tmp_path


def losses(state: Path) -> list[float]:
    lines = [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_resumed_run_is_the_run_that_was_never_stopped(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training.Run(state, tokens=64 * 40, deadline=None).train(1e9, 1e9)
    whole, final = losses(state), training.load_model(state).embedding.detach().clone()
    (state / "checkpoint.pt").unlink()
    (state / "log.jsonl").unlink()

    run = training.Run(state, tokens=64 * 40, deadline=None)
    steps = iter(range(25))
    real = run.train_step

    def failing(ids, scale):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return real(ids, scale)

    monkeypatch.setattr(run, "train_step", failing)
    # Every step saves, so the run resumes after the last whole one.
    with pytest.raises(KeyboardInterrupt):
        run.train(1e9, 0)
    training.Run(state, tokens=64 * 40, deadline=None).train(1e9, 1e9)
    assert losses(state) == whole
    torch.testing.assert_close(training.load_model(state).embedding, final)
    assert not (state / "checkpoint.partial").exists()


def test_a_deadline_ends_a_run_that_its_tokens_would_not(state: Path) -> None:
    run = training.Run(state, tokens=1e12, deadline=None)
    run.deadline = run.began + 1.5
    run.train(1e9, 1e9)
    assert 0 < run.tokens < 1e9


def test_the_export_computes_what_was_trained(state: Path) -> None:
    training.Run(state, tokens=64 * 3, deadline=None).train(1e9, 1e9)
    (state / "tokenizer.json").write_text("{}")
    export(state, state / "out")
    model: Model = training.load_model(state)
    ids = np.random.default_rng(4).integers(0, 48, 30)
    with torch.no_grad():
        expected = (model.half().float()(torch.from_numpy(ids)[None]) @ model.embedding.t())[0].numpy()
    np.testing.assert_allclose(Reference.load(state / "out").forward(ids), expected, atol=1e-4)
