"""The baseline: an interpolated n-gram model with modified Kneser-Ney smoothing. Standard library only.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1998), section 3.
"""

import math
from collections import Counter, defaultdict


class NGramModel:
    """Token ids are below `vocabulary`; an n-gram is one integer with its last token in the lowest digits."""

    def __init__(self, streams: list[list[int]], vocabulary: int, order: int = 5):
        self.vocabulary, self.order = vocabulary, order
        counts: Counter[int] = Counter()
        for stream in streams:
            for end in range(order, len(stream) + 1):
                counts[self.key(stream[end - order : end])] += 1
        self.counts: list[dict[int, int]] = [{} for _ in range(order + 1)]
        self.counts[order] = counts
        for n in range(order - 1, 0, -1):
            # How many different tokens came before: the count that Kneser-Ney gives the shorter ones.
            self.counts[n] = Counter(key % vocabulary**n for key in self.counts[n + 1])
        self.discounts = [self.discount(table) for table in self.counts]
        self.contexts = [self.context_table(n) for n in range(order + 1)]

    def key(self, tokens: list[int]) -> int:
        key = 0
        for token in tokens:
            key = key * self.vocabulary + token
        return key

    @staticmethod
    def discount(table: dict[int, int]) -> tuple[float, float, float, float]:
        """What is taken from counts of 0, 1, 2 and more."""
        n = Counter(min(count, 5) for count in table.values())
        if not (n[1] and n[2] and n[3] and n[4]):
            return 0.0, 0.5, 0.5, 0.5
        y = n[1] / (n[1] + 2 * n[2])
        return 0.0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], max(0.0, 3 - 4 * y * n[4] / n[3])

    def context_table(self, n: int) -> dict[int, tuple[int, float]]:
        """For each context of n-grams: the sum of their counts and of what is taken from them."""
        sums: dict[int, list[float]] = defaultdict(lambda: [0, 0.0])
        for key, count in self.counts[n].items():
            entry = sums[key // self.vocabulary]
            entry[0] += count
            entry[1] += self.discounts[n][min(count, 3)]
        return {context: (int(total), taken) for context, (total, taken) in sums.items()}

    def probability(self, context: list[int], token: int) -> float:
        """P(token | the last order - 1 tokens of context)."""
        result = 1 / self.vocabulary
        for n in range(1, min(self.order, len(context) + 1) + 1):
            prefix = self.key(context[len(context) - n + 1 :])
            total, taken = self.contexts[n].get(prefix, (0, 0.0))
            if not total:
                continue
            count = self.counts[n].get(prefix * self.vocabulary + token, 0)
            result = (count - self.discounts[n][min(count, 3)] + taken * result) / total
        return result

    def negative_log_likelihood(self, tokens: list[int]) -> float:
        """Sum of -ln P over all tokens but the first."""
        width = self.order - 1
        return -sum(
            math.log(self.probability(tokens[max(0, i - width) : i], tokens[i])) for i in range(1, len(tokens))
        )
