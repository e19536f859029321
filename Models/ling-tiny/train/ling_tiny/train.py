"""Trains ling-tiny: python -m ling_tiny.train --text FOLDER --run FOLDER

Two worker processes of one thread each share the parameters and split every batch: they meet twice per step instead of at
every matrix product, which keeps the throughput up when the cores are busy. Checkpoints every few minutes; started again with
the same --run it continues. The rate warms up, stays, and falls linearly to nearly zero over the last part of --steps; a file
RUN/wind-down with a number N lets it fall from where it is and ends the run after N more steps.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from .checkpoint import round_weights
from .data import TrainingData, selection_windows
from .model import LingModel, ModelConfig
from .optimizer import Optimizer

PROCESSES = multiprocessing.get_context("fork")
HOME = Path(__file__).resolve().parents[2]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with the novels")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--model", type=Path, default=HOME, help="folder with config.json and tokenizer.json")
    parser.add_argument("--steps", type=int, default=1832)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay-steps", type=int, default=600, help="last steps, in which the rate falls")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4, help="windows per worker and step")
    parser.add_argument("--length", type=int, default=512, help="tokens per window")
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--chat-share", type=float, default=0.10, help="windows of conversations before the rate falls")
    parser.add_argument("--late-chat-share", type=float, default=0.20, help="the same while it falls")
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--mtp-weight", type=float, default=0.3)
    parser.add_argument("--bias-rate", type=float, default=2e-3, help="step of the load-balancing bias")
    parser.add_argument("--evaluate-every", type=int, default=100)
    parser.add_argument("--checkpoint-seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Shared:
    """What the workers share: flat parameters, a gradient and a few numbers per worker."""

    def __init__(self, model: LingModel, workers: int):
        named = list(model.named_parameters())
        size = sum(p.numel() for _, p in named)
        self.parameters = torch.empty(size).share_memory_()
        self.gradients = [torch.zeros(size).share_memory_() for _ in range(workers)]
        routers = len(model.routers())
        self.loads = torch.zeros(workers, routers, model.config.num_experts).share_memory_()
        self.sums = torch.zeros(workers, 4, dtype=torch.float64).share_memory_()
        self.control = torch.zeros(3, dtype=torch.int64).share_memory_()  # decay start, last step, checkpoint now
        self.barrier = PROCESSES.Barrier(workers)
        offset = 0
        self.places = {}
        for name, p in named:
            self.places[name] = (offset, p.shape)
            offset += p.numel()

    def adopt(self, model: LingModel) -> None:
        """Makes the model's parameters views of the shared ones, keeping their values."""
        for name, p in model.named_parameters():
            view = self.view(self.parameters, name)
            view.copy_(p.data)
            p.data = view

    def view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        offset, shape = self.places[name]
        return flat[offset : offset + shape.numel()].view(shape)


class Worker:
    def __init__(self, rank: int, model: LingModel, shared: Shared, args: argparse.Namespace):
        torch.set_num_threads(1)
        self.rank, self.model, self.shared, self.args = rank, model, shared, args
        tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        self.data = TrainingData(args.text, tokenizer, args.seed)
        self.windows = selection_windows(args.text, tokenizer, args.length)[rank :: args.workers]
        self.routers = list(model.routers().values())
        for name, p in model.named_parameters():
            p.grad = shared.view(shared.gradients[rank], name)
        sizes = sorted(model.named_parameters(), key=lambda item: -item[1].numel())
        owned = {name: p for index, (name, p) in enumerate(sizes) if index % args.workers == rank}
        self.optimizer = Optimizer(owned, args.muon_rate, args.adam_rate, args.weight_decay)
        self.step = 0
        self.best = float("inf")

    # Files

    def state_path(self) -> Path:
        return self.args.run / f"state-{self.rank}.pt"

    def restore(self) -> None:
        if not self.state_path().exists():
            return
        saved = torch.load(self.state_path(), weights_only=True)
        self.step, self.best = saved["step"], saved["best"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.model.load_state_dict(saved["model"])
        self.shared.control.copy_(saved["control"])
        if self.rank == 0:
            self.forget_later_lines()

    def forget_later_lines(self) -> None:
        """Drops what was logged after the checkpoint and will be done again."""
        path = self.args.run / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("".join(line + "\n" for line in lines if json.loads(line)["step"] <= self.step))

    def check_that_all_are_at_the_same_step(self) -> None:
        self.shared.sums[self.rank, 0] = self.step
        self.shared.barrier.wait(600)
        if (self.shared.sums[:, 0] != self.step).any():
            raise SystemExit(f"{self.args.run}: the workers' checkpoints are of different steps")
        self.shared.barrier.wait(600)

    def save(self) -> None:
        saved = {
            "step": self.step, "best": self.best, "optimizer": self.optimizer.state_dict(),
            "model": self.model.state_dict(), "control": self.shared.control,
        }  # fmt: skip
        temporary = self.state_path().with_suffix(".new")
        torch.save(saved, temporary)
        self.shared.barrier.wait(600)
        os.replace(temporary, self.state_path())

    def log(self, **values: object) -> None:
        line = json.dumps({"step": self.step, **values})
        with (self.args.run / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    # Work

    def losses(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Next-token loss and, on half of the rows, the MTP layer's loss."""
        model, half = self.model, max(1, batch.shape[0] // 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.hidden(batch[:, :-2])
            main = F.cross_entropy(model.logits(hidden).flatten(0, 1), batch[:, 1:-1].flatten())
            ahead = model.mtp_hidden(hidden[:half], batch[:half, 1:-1])
            mtp = F.cross_entropy(model.logits(ahead).flatten(0, 1), batch[:half, 2:].flatten())
        return main, mtp

    def fall(self) -> float:
        """1 until the rate begins to fall, then linearly to 0 at the last step."""
        start, last = self.shared.control[:2].tolist()
        return 1.0 if self.step < start else max(0.0, (last - self.step) / max(1, last - start))

    def schedule(self) -> float:
        return min(1.0, (self.step + 1) / self.args.warmup) * (0.02 + 0.98 * self.fall())

    def train_step(self) -> None:
        args, shared = self.args, self.shared
        torch.manual_seed(hash((args.seed, self.step, self.rank)))
        shared.gradients[self.rank].zero_()
        chat_share = args.chat_share if self.step < shared.control[0] else args.late_chat_share
        main, mtp = self.losses(self.data.batch(self.step, self.rank, args.rows, args.length + 2, chat_share))
        (main + args.mtp_weight * mtp).backward()
        for index, router in enumerate(self.routers):
            shared.loads[self.rank, index] = router.load
        shared.sums[self.rank, :2] = torch.stack([main.detach(), mtp.detach()]).double()
        shared.barrier.wait(600)
        self.apply(self.schedule())
        shared.barrier.wait(600)
        self.step += 1

    def apply(self, scale: float) -> None:
        shared, workers = self.shared, self.args.workers
        gradients = {
            name: sum(shared.view(flat, name) for flat in shared.gradients) / workers for name in self.optimizer.owned
        }
        self.optimizer.step(gradients, scale)
        for index, router in enumerate(self.routers):
            router.load.copy_(shared.loads[:, index].sum(0))
            router.update_bias(self.args.bias_rate * min(1.0, 2 * scale))

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss per token on the held-back chapters with BF16-rounded weights."""
        shared = self.shared
        rounded = LingModel(self.model.config)
        rounded.load_state_dict(self.model.state_dict())
        round_weights(rounded)
        rounded.eval()
        total, count = 0.0, 0
        for batch in self.windows.split(4):
            loss = F.cross_entropy(rounded(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            total, count = total + loss.item(), count + batch[:, 1:].numel()
        shared.sums[self.rank, 2:] = torch.tensor([total, count], dtype=torch.float64)
        shared.barrier.wait(600)
        result = (shared.sums[:, 2].sum() / shared.sums[:, 3].sum()).item()
        shared.barrier.wait(600)
        return result

    def run(self) -> None:
        args, shared = self.args, self.shared
        self.restore()
        self.check_that_all_are_at_the_same_step()
        saved = began = time.monotonic()
        first = self.step
        while self.step < shared.control[1]:
            self.train_step()
            if self.rank == 0:
                self.report(began, first)
                shared.control[2] = time.monotonic() - saved > args.checkpoint_seconds
                self.obey()
            shared.barrier.wait(600)
            if self.step % args.evaluate_every == 0 or self.step >= shared.control[1]:
                loss = self.evaluate()
                improved, self.best = loss < self.best, min(loss, self.best)
                if self.rank == 0:
                    self.log(selection_loss=round(loss, 4))
                    if improved:
                        torch.save(self.model.state_dict(), args.run / "best.pt")
            if shared.control[2]:
                saved = time.monotonic()
                self.save()
        self.save()

    def report(self, began: float, first: int) -> None:
        if self.step % 10:
            return
        loads = self.shared.loads.sum(0)
        speed = (self.step - first) * self.args.workers * self.args.rows * self.args.length / (time.monotonic() - began)
        main, mtp = self.shared.sums[:, :2].mean(0).tolist()
        shares = loads / loads.mean(1, keepdim=True)
        self.log(
            loss=round(main, 4), mtp_loss=round(mtp, 4), rate=round(self.schedule(), 4), tokens_per_second=round(speed),
            least_load=round(shares.min().item(), 2), most_load=round(shares.max().item(), 2),
        )  # fmt: skip

    def obey(self) -> None:
        """Lets the rate fall from where it is to zero within the steps that RUN/wind-down names."""
        order = self.args.run / "wind-down"
        if order.exists():
            steps, factor = int(order.read_text()), max(self.fall(), 0.01)
            self.shared.control[1] = self.step + steps
            self.shared.control[0] = self.step + steps - round(steps / factor)
            order.unlink()


def work(rank: int, model: LingModel, shared: Shared, args: argparse.Namespace) -> None:
    Worker(rank, model, shared, args).run()


def main() -> None:
    args = options()
    args.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = LingModel(ModelConfig.read(args.model / "config.json"), args.dropout)
    model.initialize()
    shared = Shared(model, args.workers)
    shared.adopt(model)
    shared.control.copy_(torch.tensor([args.steps - args.decay_steps, args.steps, 0]))
    workers = [PROCESSES.Process(target=work, args=(rank, model, shared, args)) for rank in range(args.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed")


if __name__ == "__main__":
    main()
