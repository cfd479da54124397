"""The shape of a model, which is written to registers at run time (docs/registers.md)."""

from dataclasses import dataclass

MAX_LAYERS = 256
MAX_EXPERTS = 4096


def require(condition: bool, message: str) -> None:
    """``ValueError`` with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The shape of one MoE model, as the engine sees it: its MoE layers only.

    Attributes
    ----------
    experts : routed experts in a layer (E).
    top_k : experts chosen for a token (k).
    layers : MoE layers (L).
    d_model : width of the activations (d).
    d_ff : hidden units of one expert.
    shared_experts : experts every token passes through with weight 1; they are numbered E, E+1, ….
    renormalise : softmax over the top-k (True) or over all E (False).
    routed_scale : factor on the routed weights after the softmax (DeepSeek's ``routed_scaling_factor``), below 16.
    """

    experts: int
    top_k: int
    layers: int
    d_model: int
    d_ff: int
    shared_experts: int = 0
    renormalise: bool = True
    routed_scale: float = 1.0

    def __post_init__(self):
        for name in ("experts", "top_k", "layers", "d_model", "d_ff"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, f"{name} = {value!r}: must be an integer of at least 1")
        require(self.shared_experts >= 0, f"shared_experts = {self.shared_experts}: must not be negative")
        require(self.top_k <= self.experts, f"top_k = {self.top_k} > experts = {self.experts}")
        require(self.layers <= MAX_LAYERS, f"layers = {self.layers}: at most {MAX_LAYERS}")
        require(self.experts_total <= MAX_EXPERTS, f"experts = {self.experts_total}: at most {MAX_EXPERTS}")
        require(0 < self.routed_scale < 16, f"routed_scale = {self.routed_scale}: must lie between 0 and 16")

    @property
    def experts_total(self) -> int:
        """Routed and shared experts of a layer."""
        return self.experts + self.shared_experts

    @property
    def slots(self) -> int:
        """Experts executed for one token in one layer: top-k and the shared ones."""
        return self.top_k + self.shared_experts
