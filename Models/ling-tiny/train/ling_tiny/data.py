"""Batches of token windows. Every batch follows from (seed, step) alone, so that a run can be restarted anywhere."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import text
from .chat import ChatMaker

UNWRAPPED_SHARE = 0.30


def encode(tokenizer: Tokenizer, content: str) -> list[int]:
    return tokenizer.encode(content, add_special_tokens=False).ids


class TrainingData:
    def __init__(self, folder: Path, tokenizer: Tokenizer, seed: int):
        self.tokenizer, self.seed = tokenizer, seed
        texts = text.training_texts(folder)
        end = [tokenizer.token_to_id("<|endoftext|>")]
        self.raw = torch.tensor([i for t in texts for i in encode(tokenizer, t) + end])
        self.unwrapped = torch.tensor([i for t in texts for i in encode(tokenizer, text.unwrap(t)) + end])
        self.chat = ChatMaker([text.paragraphs(t) for t in texts])

    def row(self, draw: random.Random, length: int, chat_share: float) -> Tensor:
        kind = draw.random()
        if kind < chat_share:
            ids: list[int] = []
            while len(ids) < length:
                ids += encode(self.tokenizer, self.chat.conversation(draw))
            return torch.tensor(ids[:length])
        stream = self.unwrapped if kind < chat_share + UNWRAPPED_SHARE else self.raw
        start = draw.randrange(len(stream) - length)
        return stream[start : start + length]

    def batch(self, step: int, worker: int, rows: int, length: int, chat_share: float) -> Tensor:
        draw = random.Random(f"{self.seed}/{step}/{worker}")
        return torch.stack([self.row(draw, length, chat_share) for _ in range(rows)])


def selection_windows(folder: Path, tokenizer: Tokenizer, length: int) -> Tensor:
    """The held-back chapters as windows [N, length + 1] that overlap by one token."""
    ids = torch.tensor([i for t in text.selection_texts(folder) for i in encode(tokenizer, t)])
    count = (len(ids) - 1) // length
    return torch.stack([ids[n * length : (n + 1) * length + 1] for n in range(count)])
