"""The Bailing MoE V2.5 decoder (Ling-2.5/2.6) for training on a CPU.

Written from the repository's description of the model. Parameters that belong together are stored stacked (all experts of a
layer, gate and up projection, q/k/v), so that one batched product serves them; `checkpoint.py` maps them to published names.
"""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_NORM_EPSILON = 1e-6
CHUNK = 64
ROWS = 64


@dataclass(frozen=True)
class ModelConfig:
    """The fields of config.json that shape the network."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    partial_rotary_factor: float
    rope_theta: float
    rms_norm_eps: float
    layer_group_size: int
    group_norm_size: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    first_k_dense_replace: int
    num_experts: int
    num_experts_per_tok: int
    num_shared_experts: int
    moe_intermediate_size: int
    moe_shared_expert_intermediate_size: int
    n_group: int
    topk_group: int
    routed_scaling_factor: float
    num_nextn_predict_layers: int

    @classmethod
    def read(cls, path: Path) -> "ModelConfig":
        raw = json.loads(Path(path).read_text())
        if raw["architectures"] != ["BailingMoeV2_5ForCausalLM"]:
            raise ValueError(f"architectures is {raw['architectures']}, not BailingMoeV2_5ForCausalLM")
        if raw.get("rope_scaling"):
            raise ValueError("rope_scaling is not implemented in the training code")
        return cls(**{field.name: raw[field.name] for field in fields(cls)})

    def is_full_attention(self, layer: int) -> bool:
        size = self.layer_group_size
        return (layer + 1) % size == 0 or layer >= self.num_hidden_layers // size * size


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, epsilon)


class RMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.epsilon)


class Rotary(nn.Module):
    """Cosines and sines of the first `length` positions; both layer kinds share the table."""

    def __init__(self, width: int, theta: float, length: int = 4096):
        super().__init__()
        frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies.float()
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def rotate(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Rotates pairs (a, b), shaped [..., T, width/2]."""
        cos, sin = self.cos[: a.shape[-2]].to(a.dtype), self.sin[: a.shape[-2]].to(a.dtype)
        return a * cos - b * sin, b * cos + a * sin

    def halves(self, x: Tensor) -> Tensor:
        """Pairs (j, j + width/2) of the leading dimensions; the rest passes."""
        half = self.cos.shape[-1]
        a, b = self.rotate(x[..., :half], x[..., half : 2 * half])
        return torch.cat([a, b, x[..., 2 * half :]], -1)

    def pairs(self, x: Tensor) -> Tensor:
        """Pairs (2j, 2j+1)."""
        a, b = self.rotate(x[..., 0::2], x[..., 1::2])
        return torch.stack([a, b], -1).flatten(-2)


def slopes(heads: int) -> list[float]:
    """The base decay of each head (spec 5.1)."""
    if heads & (heads - 1) == 0:
        return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
    power = 1 << (heads.bit_length() - 1)
    return slopes(power) + slopes(2 * power)[0::2][: heads - power]


def layer_decay(config: ModelConfig, layer: int) -> list[float]:
    """Log decay per head, the publisher's convention ("camp A")."""
    factor = 1 - (layer - 1) / (config.num_hidden_layers - 1) + 1e-5
    return [-slope * factor for slope in slopes(config.num_attention_heads)]


class LinearAttention(nn.Module):
    """Simple gated linear attention with a fixed decay per head, computed in chunks."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.heads, self.width = config.num_attention_heads, config.head_dim
        inner = self.heads * self.width
        self.groups, self.epsilon = config.group_norm_size, config.rms_norm_eps
        self.qkv = nn.Parameter(torch.empty(3, inner, config.hidden_size))
        self.query_layernorm = RMSNorm(self.width, config.rms_norm_eps)
        self.key_layernorm = RMSNorm(self.width, config.rms_norm_eps)
        self.g_proj = nn.Parameter(torch.empty(inner, config.hidden_size))
        self.g_norm = nn.Parameter(torch.ones(inner))
        self.dense = nn.Parameter(torch.empty(config.hidden_size, inner))
        decay = torch.tensor(layer_decay(config, layer), dtype=torch.float64)
        self.register_buffer("decay", decay.float(), persistent=False)
        steps = torch.arange(CHUNK, dtype=torch.float64)
        gap = steps[:, None] - steps
        intra = torch.where(gap >= 0, torch.exp(decay[:, None, None] * gap.clamp(min=0)), 0.0)
        self.register_buffer("intra", intra.float()[:, None], persistent=False)  # [H, 1, C, C]
        from_state = torch.exp(decay[:, None] * (steps + 1))
        to_state = torch.exp(decay[:, None] * (CHUNK - 1 - steps))
        self.register_buffer("from_state", from_state.float()[:, None, :, None], persistent=False)
        self.register_buffer("to_state", to_state.float()[:, None, :, None], persistent=False)

    def forward(self, u: Tensor, rotary: Rotary) -> Tensor:
        batch, length, _ = u.shape
        q, k, v = F.linear(u, self.qkv.flatten(0, 1)).view(batch, length, 3, self.heads, self.width).unbind(2)
        q = rotary.halves(self.query_layernorm(q).transpose(1, 2)) * self.width**-0.5
        k = rotary.halves(self.key_layernorm(k).transpose(1, 2))
        y = self.recurrence(q, k, v.transpose(1, 2)).transpose(1, 2).reshape(batch, length, self.groups, -1)
        y = F.rms_norm(y, (y.shape[-1],), None, self.epsilon).flatten(2) * self.g_norm
        return F.linear(y * torch.sigmoid(F.linear(u, self.g_proj)), self.dense)

    def recurrence(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """S_t = exp(g) S_{t-1} + k_t v_t'; o_t = S_t' q_t, for [B, H, T, D] inputs."""
        length = q.shape[2]
        missing = -length % CHUNK
        if missing:
            q, k, v = (F.pad(x, (0, 0, 0, missing)) for x in (q, k, v))
        q, k, v = (x.unflatten(2, (-1, CHUNK)) for x in (q, k, v))  # [B, H, N, C, D]
        chunks = q.shape[2]
        out = torch.matmul(torch.matmul(q, k.transpose(-1, -2)) * self.intra, v)
        if chunks > 1:
            added = torch.matmul((k * self.to_state).transpose(-1, -2), v)  # [B, H, N, D, D]
            gap = torch.arange(chunks)[:, None] - torch.arange(chunks) - 1
            carry = torch.exp(self.decay[:, None, None] * (CHUNK * gap.clamp(min=0))) * (gap >= 0)
            state = torch.matmul(carry.to(added.dtype), added.flatten(-2)).view_as(added)
            out = out + torch.matmul(q * self.from_state, state)
        return out.flatten(2, 3)[:, :, :length]


class LatentAttention(nn.Module):
    """Multi-head latent attention, the naive form."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        heads, nope, rope = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
        if config.q_lora_rank:
            self.q_a_proj = nn.Parameter(torch.empty(config.q_lora_rank, config.hidden_size))
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPSILON)
            self.q_b_proj = nn.Parameter(torch.empty(heads * (nope + rope), config.q_lora_rank))
        else:
            self.q_proj = nn.Parameter(torch.empty(heads * (nope + rope), config.hidden_size))
        self.kv_a_proj_with_mqa = nn.Parameter(torch.empty(config.kv_lora_rank + rope, config.hidden_size))
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, LATENT_NORM_EPSILON)
        self.kv_b_proj = nn.Parameter(torch.empty(heads * (nope + config.v_head_dim), config.kv_lora_rank))
        self.dense = nn.Parameter(torch.empty(config.hidden_size, heads * config.v_head_dim))

    def forward(self, u: Tensor, rotary: Rotary) -> Tensor:
        config = self.config
        batch, length, _ = u.shape
        nope, rope = config.qk_nope_head_dim, config.qk_rope_head_dim
        if config.q_lora_rank:
            q = F.linear(self.q_a_layernorm(F.linear(u, self.q_a_proj)), self.q_b_proj)
        else:
            q = F.linear(u, self.q_proj)
        q = q.view(batch, length, -1, nope + rope).transpose(1, 2)
        latent, k_rope = F.linear(u, self.kv_a_proj_with_mqa).split([config.kv_lora_rank, rope], -1)
        kv = F.linear(self.kv_a_layernorm(latent), self.kv_b_proj)
        k, v = kv.view(batch, length, -1, nope + config.v_head_dim).transpose(1, 2).split([nope, config.v_head_dim], -1)
        q = torch.cat([q[..., :nope], rotary.pairs(q[..., nope:])], -1)
        k_rope = rotary.pairs(k_rope[:, None]).expand(-1, q.shape[1], -1, -1)
        k = torch.cat([k, k_rope], -1)
        scores = torch.matmul(q * (nope + rope) ** -0.5, k.transpose(-1, -2))
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        y = torch.matmul(scores.masked_fill(future, -math.inf).softmax(-1), v)
        return F.linear(y.transpose(1, 2).reshape(batch, length, -1), self.dense)


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, down)


class DenseMLP(nn.Module):
    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(2, width, hidden))
        self.down = nn.Parameter(torch.empty(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x, self.gate_up.flatten(0, 1), self.down)


class MoE(nn.Module):
    """Sigmoid router limited to groups, routed experts and a shared one."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width = config.moe_intermediate_size
        self.gate = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        self.gate_up = nn.Parameter(torch.empty(config.num_experts, 2, width, config.hidden_size))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden_size, width))
        self.shared = DenseMLP(
            config.hidden_size, config.num_shared_experts * config.moe_shared_expert_intermediate_size
        )
        self.register_buffer("load", torch.zeros(config.num_experts), persistent=False)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Experts [T, K] and their weights for tokens [T, h]."""
        config = self.config
        with torch.autocast("cpu", enabled=False):
            scores = torch.sigmoid(F.linear(x.to(self.gate.dtype), self.gate))
        with torch.no_grad():
            choice = scores + self.expert_bias
            if config.n_group > 1:
                grouped = choice.view(-1, config.n_group, config.num_experts // config.n_group)
                kept = grouped.topk(2, -1).values.sum(-1).topk(config.topk_group, -1).indices
                dropped = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(1, kept, False)
                choice = grouped.masked_fill(dropped[..., None], -math.inf).flatten(1)
            experts = choice.topk(config.num_experts_per_tok, -1).indices
        weights = scores.gather(1, experts)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * config.routed_scaling_factor
        return experts, weights

    def forward(self, x: Tensor) -> Tensor:
        shape, x = x.shape, x.flatten(0, -2)
        experts, weights = self.route(x)
        chosen = experts.flatten()
        counts = torch.bincount(chosen, minlength=self.config.num_experts)
        self.load += counts
        order = chosen.argsort()
        rows = order // self.config.num_experts_per_tok
        # Each expert's rows begin at a multiple of ROWS: few distinct shapes, so the kernels of products are reused.
        room = (counts + ROWS - 1) // ROWS * ROWS
        gap = (room - counts).cumsum(0) - (room - counts)
        places = torch.arange(len(order)) + gap.index_select(0, chosen.index_select(0, order))
        packed = x.new_zeros(int(room.sum()), x.shape[1]).index_copy(0, places, x.index_select(0, rows))
        gate_up, down = self.gate_up.flatten(1, 2).unbind(0), self.down.unbind(0)
        outputs = torch.cat([swiglu(*piece) for piece in zip(packed.split(room.tolist()), gate_up, down)])
        outputs = outputs.index_select(0, places)
        outputs = outputs * weights.flatten().index_select(0, order)[:, None].to(outputs.dtype)
        return (torch.zeros_like(x, dtype=outputs.dtype).index_add(0, rows, outputs) + self.shared(x)).view(shape)

    @torch.no_grad()
    def update_bias(self, rate: float) -> None:
        """Auxiliary-loss-free balancing: experts with less than the mean load become easier to choose."""
        self.expert_bias += rate * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class PooledDropout(nn.Module):
    """Dropout whose masks are slices of one random pool: far cheaper on a CPU than fresh random numbers."""

    POOL = 1 << 23

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability
        self.pool: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if self.pool is None:
            self.pool = (torch.rand(self.POOL) >= self.probability).float() / (1 - self.probability)
        start = int(torch.randint(self.POOL - x.numel(), ()))
        return x * self.pool[start : start + x.numel()].view_as(x)


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int, dropout: PooledDropout):
        super().__init__()
        full = layer >= config.num_hidden_layers or config.is_full_attention(layer)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = LatentAttention(config) if full else LinearAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        dense = layer < config.first_k_dense_replace
        self.mlp = DenseMLP(config.hidden_size, config.intermediate_size) if dense else MoE(config)
        self.dropout = dropout

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = x + self.dropout(self.attention(self.input_layernorm(x), rotary))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class NextTokenLayer(nn.Module):
    """The MTP layer: predicts the token after next from the final hidden state and the next token's embedding."""

    def __init__(self, config: ModelConfig, dropout: PooledDropout):
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Parameter(torch.empty(config.hidden_size, 2 * config.hidden_size))
        self.block = Block(config, config.num_hidden_layers, dropout)
        self.final_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embedded: Tensor, hidden: Tensor, rotary: Rotary) -> Tensor:
        x = F.linear(torch.cat([self.enorm(embedded), self.hnorm(hidden)], -1), self.eh_proj)
        return self.final_layernorm(self.block(x, rotary))


class LingModel(nn.Module):
    def __init__(self, config: ModelConfig, dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.dropout = PooledDropout(dropout)
        self.layers = nn.ModuleList(Block(config, i, self.dropout) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mtp = NextTokenLayer(config, self.dropout) if config.num_nextn_predict_layers else None
        self.lm_head = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.rotary = Rotary(config.qk_rope_head_dim, config.rope_theta)

    def initialize(self, deviation: float = 0.02) -> None:
        """Normal weights; projections back into the residual stream are smaller."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            inward = name.endswith(("attention.dense", "down"))
            scale = deviation / math.sqrt(2 * self.config.num_hidden_layers) if inward else deviation
            nn.init.normal_(parameter, std=scale)

    def hidden(self, ids: Tensor) -> Tensor:
        """States after the final norm, [B, T, h]."""
        x = self.dropout(F.embedding(ids, self.word_embeddings))
        for layer in self.layers:
            x = layer(x, self.rotary)
        return self.norm(x)

    def mtp_hidden(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """States of the MTP layer at positions whose next tokens are `next_ids`."""
        return self.mtp(self.dropout(F.embedding(next_ids, self.word_embeddings)), hidden, self.rotary)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in at least fp32, whatever autocast makes of the product."""
        logits = F.linear(hidden, self.lm_head)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))

    def routers(self) -> dict[str, MoE]:
        return {name: module for name, module in self.named_modules() if isinstance(module, MoE)}
