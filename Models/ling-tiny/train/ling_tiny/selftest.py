"""Compares this model code with golden checkpoints: python -m ling_tiny.selftest FOLDER…"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from .checkpoint import load

TOLERANCE = 1e-4


def largest_difference(folder: Path) -> float:
    """Largest |logit difference| over the golden prompts of a folder."""
    model, golden = load(folder), load_file(folder / "golden.safetensors")
    worst = 0.0
    with torch.no_grad():
        for key in golden:
            if not key.endswith(".ids"):
                continue
            ids = golden[key].long()[None]
            worst = max(worst, (model(ids)[0] - golden[key.replace(".ids", ".logits")]).abs().max().item())
            wanted = golden.get(key.replace(".ids", ".mtp_logits"))
            if wanted is not None:
                shifted = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], 1)
                logits = model.logits(model.mtp_hidden(model.hidden(ids), shifted))[0]
                worst = max(worst, (logits - wanted)[:-1].abs().max().item())
    return worst


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    failed = False
    for folder in map(Path, sys.argv[1:]):
        difference = largest_difference(folder)
        failed |= not difference <= TOLERANCE
        print(f"{folder.name}: max |difference| {difference:.2e} ({'ok' if difference <= TOLERANCE else 'FAILED'})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
