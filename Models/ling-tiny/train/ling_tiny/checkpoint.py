"""Between the training parameters and the published tensor names."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .model import LingModel, ModelConfig

SPLIT = ("gate_proj", "up_proj")


def _published(model: LingModel) -> dict[str, torch.Tensor]:
    """Published name to a view of the parameter, so that the same table loads and exports."""
    out: dict[str, torch.Tensor] = {
        "model.word_embeddings.weight": model.word_embeddings,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.lm_head,
    }
    blocks = list(enumerate(model.layers))
    if model.mtp:
        last = len(model.layers)
        prefix = f"model.layers.{last}"
        for name in ("enorm", "hnorm", "final_layernorm"):
            out[f"{prefix}.{name}.weight"] = getattr(model.mtp, name).weight
        out[f"{prefix}.eh_proj.weight"] = model.mtp.eh_proj
        blocks.append((last, model.mtp.block))
    for index, block in blocks:
        prefix = f"model.layers.{index}"
        out[f"{prefix}.input_layernorm.weight"] = block.input_layernorm.weight
        out[f"{prefix}.post_attention_layernorm.weight"] = block.post_attention_layernorm.weight
        for name, parameter in block.attention.named_parameters():
            if name == "qkv":
                out[f"{prefix}.attention.query_key_value.weight"] = parameter.flatten(0, 1)
            else:
                out[f"{prefix}.attention.{name.removesuffix('.weight')}.weight"] = parameter
        _publish_mlp(out, f"{prefix}.mlp", block.mlp)
    return out


def _publish_mlp(out: dict[str, torch.Tensor], prefix: str, mlp: torch.nn.Module) -> None:
    if hasattr(mlp, "gate"):
        out[f"{prefix}.gate.weight"] = mlp.gate
        out[f"{prefix}.gate.expert_bias"] = mlp.expert_bias
        for expert in range(mlp.gate_up.shape[0]):
            for part, name in enumerate(SPLIT):
                out[f"{prefix}.experts.{expert}.{name}.weight"] = mlp.gate_up[expert, part]
            out[f"{prefix}.experts.{expert}.down_proj.weight"] = mlp.down[expert]
        prefix, mlp = f"{prefix}.shared_experts", mlp.shared
    for part, name in enumerate(SPLIT):
        out[f"{prefix}.{name}.weight"] = mlp.gate_up[part]
    out[f"{prefix}.down_proj.weight"] = mlp.down


@torch.no_grad()
def export(model: LingModel, path: Path) -> None:
    """Writes BF16 weights; expert biases stay FP32."""
    tensors = {
        name: tensor.detach().to(torch.float32 if name.endswith("expert_bias") else torch.bfloat16).contiguous().clone()
        for name, tensor in _published(model).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


@torch.no_grad()
def load(folder: Path, dtype: torch.dtype = torch.float32) -> LingModel:
    """The model of a checkpoint folder, computed in `dtype`; every tensor must be known and none missing."""
    model = LingModel(ModelConfig.read(Path(folder) / "config.json"))
    stored = load_file(Path(folder) / "model.safetensors")
    targets = _published(model)
    if stored.keys() != targets.keys():
        raise ValueError(f"tensors differ from what config.json asks for: {sorted(stored.keys() ^ targets.keys())[:8]}")
    for name, target in targets.items():
        target.copy_(stored[name].view_as(target))
    return model.to(dtype).eval()


@torch.no_grad()
def round_weights(model: LingModel) -> None:
    """Rounds every exported weight to BF16 in place."""
    for name, tensor in _published(model).items():
        if not name.endswith("expert_bias"):
            tensor.copy_(tensor.to(torch.bfloat16))
