"""Writes what the Swift tests compare with: python -m ling_tiny.fixtures --text FOLDER --output FOLDER

greedy.json: 20 prompts from evenly spaced places of the validation novel, 64 greedy tokens each, with logprobs in fp32.
excerpt.txt, perplexity.json: some pages from the middle of that novel and the model's perplexity on them.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import text
from .checkpoint import load
from .data import encode
from .evaluate import CONTEXT, STRIDE, score
from .greedy import continuations, evenly_spaced
from .train import HOME

EXCERPT_CHARACTERS = 6000


def excerpt(novel: str) -> str:
    """Whole lines from the middle."""
    start = novel.index("\n", len(novel) // 2) + 1
    return novel[start : novel.index("\n", start + EXCERPT_CHARACTERS) + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=HOME)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(args.model), Tokenizer.from_file(str(args.model / "tokenizer.json"))
    novel = text.read(args.text, text.VALIDATION)

    results = continuations(model, evenly_spaced(encode(tokenizer, novel), 20), 64)
    lines = ",\n".join(json.dumps({**r, "logprobs": [round(p, 6) for p in r["logprobs"]]}) for r in results)
    (args.output / "greedy.json").write_text(f"[\n{lines}\n]\n")

    pages = excerpt(novel)
    (args.output / "excerpt.txt").write_text(pages)
    tokens = encode(tokenizer, pages)
    total, _ = score(model, tokens)
    measured = {
        "perplexity_per_token": math.exp(total / (len(tokens) - 1)), "tokens": len(tokens) - 1,
        "context": CONTEXT, "stride": STRIDE,
    }  # fmt: skip
    (args.output / "perplexity.json").write_text(json.dumps(measured, indent=1) + "\n")
    print(f"smallest gap between the two best logits {min(r['margin'] for r in results):.2e}; excerpt: {measured}")


if __name__ == "__main__":
    main()
