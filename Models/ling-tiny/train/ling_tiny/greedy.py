"""Greedy continuations with logprobs."""

import torch

from .model import LingModel


@torch.no_grad()
def continuations(model: LingModel, prompts: list[list[int]], count: int) -> list[dict]:
    """For each prompt: its ids, the greedy tokens, their logprobs, and the smallest gap between the two best logits."""
    out = []
    for prompt in prompts:
        ids, logprobs, margin = list(prompt), [], float("inf")
        for _ in range(count):
            logits = model.logits(model.hidden(torch.tensor([ids]))[:, -1])[0]
            best = logits.topk(2).values
            margin = min(margin, (best[0] - best[1]).item())
            token = int(logits.argmax())
            ids.append(token)
            logprobs.append(torch.log_softmax(logits.double(), -1)[token].item())
        out.append({"prompt": prompt, "tokens": ids[len(prompt) :], "logprobs": logprobs, "margin": margin})
    return out


def evenly_spaced(tokens: list[int], count: int) -> list[list[int]]:
    """Prompts of 16, 24, 32 … tokens that start at evenly spaced places."""
    gap = len(tokens) // count
    return [tokens[n * gap : n * gap + 16 + 8 * n] for n in range(count)]
