"""Muon for matrices, AdamW for the rest, each parameter updated by the worker that owns it."""

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration toward the nearest semi-orthogonal matrix, batched over leading dimensions.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Optimizer:
    """`owned` are the parameters this worker updates; states exist for these only."""

    def __init__(self, owned: dict[str, nn.Parameter], muon_rate: float, adam_rate: float, weight_decay: float):
        self.owned = owned
        self.muon_rate, self.adam_rate, self.weight_decay = muon_rate, adam_rate, weight_decay
        self.state = {
            name: [torch.zeros_like(p)] if self.uses_muon(name, p) else [torch.zeros_like(p), torch.zeros_like(p)]
            for name, p in owned.items()
        }
        self.count = 0

    @staticmethod
    def uses_muon(name: str, parameter: Tensor) -> bool:
        return parameter.dim() >= 2 and not name.endswith(("word_embeddings", "lm_head", ".gate"))

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor], scale: float) -> None:
        """One update; `scale` is the schedule's factor on both rates."""
        self.count += 1
        for name, parameter in self.owned.items():
            gradient, state = gradients[name], self.state[name]
            if self.uses_muon(name, parameter):
                rate = self.muon_rate * scale
                state[0].lerp_(gradient, 0.05)
                update = orthogonalize(gradient.lerp(state[0], 0.95))
                update *= 0.2 * max(parameter.shape[-2:]) ** 0.5
            else:
                rate = self.adam_rate * scale
                state[0].lerp_(gradient, 0.1)
                state[1].lerp_(gradient.square(), 0.05)
                mean, square = state[0] / (1 - 0.9**self.count), state[1] / (1 - 0.95**self.count)
                update = mean / (square.sqrt() + 1e-8)
            if parameter.dim() >= 2:
                parameter.mul_(1 - rate * self.weight_decay)
            parameter.add_(update, alpha=-rate)

    def state_dict(self) -> dict:
        return {"count": self.count, "state": self.state}

    def load_state_dict(self, saved: dict) -> None:
        self.count = saved["count"]
        for name, tensors in self.state.items():
            for mine, stored in zip(tensors, saved["state"][name]):
                mine.copy_(stored)
