"""Measures the exported model on the validation novel and draws the pictures of the model card.

python -m ling_tiny.evaluate --text FOLDER [--run FOLDER] [--model FOLDER]

Everything is computed in fp32 from the exported BF16 weights. Perplexity: windows of 512 tokens every 256, each scoring the
tokens that no earlier window scored, as `ironling perplexity` does; the 5-gram model sees the same tokens. Writes
evaluation.json, loss.png and expert-load.png next to the weights.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from . import text
from .checkpoint import load
from .data import encode
from .greedy import continuations
from .model import LingModel
from .ngram import NGramModel
from .train import HOME

CONTEXT, STRIDE = 512, 256


@torch.no_grad()
def score(model: LingModel, tokens: list[int]) -> tuple[float, dict[str, float]]:
    """Sum of -ln p over all tokens but the first, and how often the MTP layer agrees with the text and the main model."""
    total, scored, start = 0.0, 1, 0
    agreed = hit = counted = 0
    while scored < len(tokens):
        window = torch.tensor([tokens[start : start + CONTEXT]])
        hidden = model.hidden(window)
        logits = model.logits(hidden)[0]
        first = scored - start
        targets = window[0, first:]
        total += F.cross_entropy(logits[first - 1 : -1].double(), targets, reduction="sum").item()
        ahead = model.logits(model.mtp_hidden(hidden[:, :-1], window[:, 1:]))[0].argmax(-1)
        places = slice(max(0, first - 2), -1)
        agreed += (ahead[places] == logits[1:].argmax(-1)[places]).sum().item()
        hit += (ahead[places] == window[0, 2:][max(0, first - 2) :]).sum().item()
        counted += len(ahead[places])
        scored, start = start + window.shape[1], start + STRIDE
    return total, {"agrees_with_main_model": agreed / counted, "agrees_with_text": hit / counted, "positions": counted}


@torch.no_grad()
def mtp_acceptance(model: LingModel, tokens: list[int], prompts: int, count: int = 64, length: int = 64) -> dict:
    """Top-1 acceptance over the main model's greedy output from evenly spaced prompts."""
    starts = range(0, len(tokens) - length, (len(tokens) - length) // prompts)
    accepted = drafted = 0
    for result in continuations(model, [tokens[s : s + length] for s in starts][:prompts], count):
        ids = torch.tensor([result["prompt"] + result["tokens"]])
        hidden = model.hidden(ids)
        draft = model.logits(model.mtp_hidden(hidden[:, :-1], ids[:, 1:]))[0].argmax(-1)
        # Position t, with token t + 1 known, drafts token t + 2; the first draft is for the second generated token.
        first = length - 1
        accepted += (draft[first:-1] == ids[0, first + 2 :]).sum().item()
        drafted += len(draft[first:-1])
    return {"accepted": accepted, "drafted": drafted, "rate": accepted / drafted, "prompts": prompts, "tokens": count}


def loads(model: LingModel) -> dict[str, list[float]]:
    """Tokens each expert got since the counters were cleared, as multiples of the layer's mean."""
    return {name: (router.load / router.load.mean()).tolist() for name, router in model.routers().items()}


def perplexities(total: float, tokens: int, size: int) -> dict[str, float]:
    return {"per_token": math.exp(total / tokens), "per_byte": math.exp(total / size), "bits_per_byte": total / size / math.log(2)}


def parameters(model: LingModel) -> dict[str, int]:
    """All, and those a token meets without MTP: the embedding counts one row."""
    config = model.config
    total = sum(p.numel() for p in model.parameters())
    mtp = sum(p.numel() for p in model.mtp.parameters()) if model.mtp else 0
    experts = sum(r.gate_up.numel() + r.down.numel() for name, r in model.routers().items() if not name.startswith("mtp"))
    idle = experts * (config.num_experts - config.num_experts_per_tok) // config.num_experts
    active = total - mtp - idle - model.word_embeddings.numel() + config.hidden_size
    return {"total": total, "active": active, "mtp": mtp}


def draw_loss(log: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), dpi=110)
    steps = [entry["step"] for entry in log if "loss" in entry]
    for key, label in (("loss", "next token, training batch"), ("mtp_loss", "MTP layer, training batch")):
        axis.plot(steps, smooth([entry[key] for entry in log if "loss" in entry]), label=label, linewidth=1.2)
    held = [entry for entry in log if "selection_loss" in entry]
    axis.plot([e["step"] for e in held], [e["selection_loss"] for e in held], "o-", markersize=3, label="held-back chapters")
    axis.set(xlabel="step", ylabel="loss (nats per token)", title="ling-tiny: training")
    axis.set_ylim(2.4, 7)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def smooth(values: list[float], weight: float = 0.8) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else weight * out[-1] + (1 - weight) * value)
    return out


def draw_loads(table: dict[str, list[float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), dpi=110, width_ratios=(1.4, 1))
    names = [name.replace("layers.", "layer ").replace(".mlp", "").replace("mtp.block", "MTP layer") for name in table]
    image = left.imshow(list(table.values()), aspect="auto", cmap="viridis", vmin=0)
    left.set(xlabel="expert", title="load by expert (1 = mean)", yticks=range(len(names)), yticklabels=names)
    figure.colorbar(image, ax=left)
    values = [value for row in table.values() for value in row]
    right.hist(values, bins=24, range=(0, max(2.4, max(values))), color="#31688e")
    right.axvline(0.2, color="#b00", linestyle="--", linewidth=1, label="0.2 × mean")
    right.set(xlabel="load / mean load of the layer", ylabel="experts", title="how many experts have which load")
    right.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=HOME)
    parser.add_argument("--run", type=Path, help="folder with log.jsonl, for the loss curves")
    parser.add_argument("--prompts", type=int, default=40, help="greedy continuations for the MTP acceptance")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    content = text.read(args.text, text.VALIDATION)
    tokens = encode(tokenizer, content)
    size = len(content.encode()) - len(tokenizer.decode(tokens[:1], skip_special_tokens=False).encode())
    end = [tokenizer.token_to_id("<|endoftext|>")]
    training = [encode(tokenizer, t) + end for t in text.training_texts(args.text)]

    model = load(args.model)
    total, teacher_forced = score(model, tokens)
    table = loads(model)
    baseline = NGramModel(training, model.config.vocab_size).negative_log_likelihood(tokens)
    shares = [value for row in table.values() for value in row]
    result = {
        "text": f"{text.VALIDATION}.txt", "tokens": len(tokens) - 1, "bytes": size, "parameters": parameters(model),
        "model": perplexities(total, len(tokens) - 1, size),
        "five_gram": perplexities(baseline, len(tokens) - 1, size),
        "mtp_greedy": mtp_acceptance(model, tokens, args.prompts), "mtp_teacher_forced": teacher_forced,
        "expert_load": {"least": min(shares), "most": max(shares), "layers": table},
    }  # fmt: skip
    (args.model / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({**result, "expert_load": {"least": min(shares), "most": max(shares)}}, indent=1))
    draw_loads(table, args.model / "expert-load.png")
    if args.run:
        draw_loss([json.loads(line) for line in (args.run / "log.jsonl").read_text().splitlines()], args.model / "loss.png")


if __name__ == "__main__":
    main()
