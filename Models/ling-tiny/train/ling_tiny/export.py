"""Exports a run's best weights in the published format: python -m ling_tiny.export --run FOLDER [--model FOLDER]"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .checkpoint import export
from .model import LingModel, ModelConfig
from .train import HOME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=HOME, help="folder with config.json; gets model.safetensors")
    args = parser.parse_args()
    model = LingModel(ModelConfig.read(args.model / "config.json"))
    model.load_state_dict(torch.load(args.run / "best.pt", weights_only=True))
    export(model, args.model / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    end, turn_end = (tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|role_end|>"))
    generation = {
        "bos_token_id": tokenizer.token_to_id("<|startoftext|>"), "eos_token_id": [end, turn_end],
        "pad_token_id": end, "do_sample": True, "temperature": 0.8, "top_p": 0.95,
    }  # fmt: skip
    (args.model / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    size = (args.model / "model.safetensors").stat().st_size
    print(f"model.safetensors: {sum(p.numel() for p in model.parameters())} parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
