"""Tests of the network and its loop; skipped where PyTorch is not installed."""

import json
import sys
import tempfile
import unittest
from dataclasses import asdict, replace
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME / "train"))

try:
    import safetensors  # noqa: F401
    import torch

    from ling_tiny import checkpoint, model, optimizer
except ImportError:
    torch = None


@unittest.skipUnless(torch, "needs torch and safetensors")
class ModelTests(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(5)
        full = model.ModelConfig.read(HOME / "config.json")
        self.config = replace(full, vocab_size=64, hidden_size=32, intermediate_size=48, head_dim=16,
                              qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=12, kv_lora_rank=16, q_lora_rank=24,
                              moe_intermediate_size=16, moe_shared_expert_intermediate_size=16)  # fmt: skip
        self.network = model.LingModel(self.config)
        self.network.initialize(0.2)
        self.network.eval()

    def test_chunks_equal_the_recurrence(self):
        layer = self.network.layers[1].attention
        q, k, v = torch.randn(3, 2, 4, 150, 16, dtype=torch.float64)
        state, wanted = torch.zeros(2, 4, 16, 16, dtype=torch.float64), []
        decay = layer.decay.double().exp()[:, None, None]
        for t in range(150):
            state = decay * state + k[:, :, t, :, None] * v[:, :, t, None, :]
            wanted.append((q[:, :, t, None] @ state)[:, :, 0])
        difference = layer.double().recurrence(q, k, v) - torch.stack(wanted, 2)
        self.assertLess(difference.abs().max().item(), 1e-4)

    def test_experts_equal_one_token_at_a_time(self):
        layer = self.network.layers[2].mlp
        x = torch.randn(1, 9, 32)
        experts, weights = layer.route(x[0])
        for token in range(9):
            wanted = layer.shared(x[0, token])
            for e, w in zip(experts[token], weights[token]):
                wanted = wanted + w * model.swiglu(x[0, token], layer.gate_up[e].flatten(0, 1), layer.down[e])
            self.assertTrue(torch.allclose(layer(x)[0, token], wanted, atol=1e-5))

    def test_later_tokens_do_not_change_earlier_logits(self):
        ids = torch.randint(64, (1, 130))
        changed = ids.clone()
        changed[0, 100:] = (changed[0, 100:] + 1) % 64
        difference = (self.network(ids) - self.network(changed))[0, :100]
        self.assertLess(difference.abs().max().item(), 1e-4)

    def test_an_export_reads_back_rounded(self):
        with tempfile.TemporaryDirectory() as folder:
            raw = json.loads((HOME / "config.json").read_text()) | asdict(self.config)
            (Path(folder) / "config.json").write_text(json.dumps(raw))
            checkpoint.export(self.network, Path(folder) / "model.safetensors")
            again = checkpoint.load(Path(folder))
        checkpoint.round_weights(self.network)
        ids = torch.randint(64, (1, 20))
        self.assertTrue(torch.equal(again(ids), self.network(ids)))

    def test_the_bias_moves_against_the_load(self):
        layer = self.network.layers[2].mlp
        layer.load.copy_(torch.arange(16.0))
        layer.update_bias(0.5)
        self.assertEqual(layer.expert_bias.tolist(), [0.5] * 8 + [-0.5] * 8)

    def test_muon_updates_are_nearly_orthogonal(self):
        for shape in ((3, 24, 40), (40, 24)):
            update = optimizer.orthogonalize(torch.randn(shape))
            values = torch.linalg.svdvals(update)
            self.assertLess(values.max().item(), 1.4)
            self.assertGreater(values.min().item(), 0.4)


if __name__ == "__main__":
    unittest.main()
