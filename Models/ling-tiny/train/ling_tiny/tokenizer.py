"""Trains the byte-level BPE tokenizer: python -m ling_tiny.tokenizer TEXT_FOLDER OUTPUT_FOLDER

4,096 entries in all, the Ling split pattern, and the special tokens of the chat format at the end of the table.
"""

import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .text import training_texts

ENTRIES = 4096
PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|role_end|>"]
ADDED = [
    "<role>", "</role>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
]  # fmt: skip


def train(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    if tokenizer.get_vocab_size() != ENTRIES:
        raise ValueError(f"the text gives {tokenizer.get_vocab_size()} entries, not {ENTRIES}")
    return tokenizer


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    tokenizer = train(training_texts(Path(sys.argv[1])))
    tokenizer.save(str(Path(sys.argv[2]) / "tokenizer.json"))
    print({token: tokenizer.token_to_id(token) for token in SPECIAL + ADDED})
    return 0


if __name__ == "__main__":
    sys.exit(main())
