"""Tests that need only the standard library."""

import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ling_tiny import chat, text  # noqa: E402
from ling_tiny.ngram import NGramModel  # noqa: E402


class TextTests(unittest.TestCase):
    def test_selection_chapters_are_cut_off_the_end(self):
        novel = "EMMA\n\nCHAPTER I\n\nOne.\n\nCHAPTER II\n\nTwo.\n\nCHAPTER III\n\nThree.\n"
        training, held = text.split("emma", novel)
        self.assertEqual(training + held, novel)
        self.assertTrue(held.startswith("CHAPTER II\n"))
        self.assertEqual(text.split("prideprejudice", novel), (novel, ""))

    def test_unwrap_joins_lines_but_not_paragraphs(self):
        self.assertEqual(text.unwrap("a\nb  c\n\n\nd\ne\n"), "a b c\n\nd e")

    def test_sentences_do_not_end_at_titles(self):
        paragraph = "Mr. Darcy bowed to Mrs. Bennet and said nothing at all. Elizabeth smiled! She left."
        self.assertEqual(
            text.paragraphs(paragraph),
            [["Mr. Darcy bowed to Mrs. Bennet and said nothing at all.", "Elizabeth smiled!", "She left."]],
        )

    def test_a_missing_novel_is_named(self):
        with self.assertRaises(SystemExit) as caught:
            text.read(Path("/nonexistent"), "emma")
        self.assertIn("emma.txt", str(caught.exception))


class ChatTests(unittest.TestCase):
    def test_rendering_is_the_gateways(self):
        self.assertEqual(
            chat.render([("Hi", "Hello.")], "Be brief.\n"),
            "<role>SYSTEM</role>Be brief.\ndetailed thinking off<|role_end|>"
            "<role>HUMAN</role>Hi<|role_end|><role>ASSISTANT</role>Hello.<|role_end|>",
        )

    def test_no_fact_is_about_the_validation_novel(self):
        told = " ".join(" ".join(questions) + answer for questions, answer in chat.facts())
        for word in ("Persuasion", "Anne Elliot", "Wentworth", "Kellynch"):
            self.assertNotIn(word, told)

    def test_conversations_repeat_with_their_seed(self):
        sentence = "Emma was walking in the garden with her friend and talking of the ball at Hartfield."
        maker = chat.ChatMaker([[[sentence, '"I am glad of it, I assure you, my dear Miss Woodhouse."']] * 12])
        first, second = ([maker.conversation(random.Random(seed)) for seed in range(40)] for _ in range(2))
        self.assertEqual(first, second)
        self.assertTrue(all(text.endswith("<|role_end|>") for text in first))


class NGramTests(unittest.TestCase):
    def setUp(self):
        draw = random.Random(3)
        stream = [0]
        for _ in range(4000):
            stream.append((stream[-1] * 3 + draw.choice((0, 0, 0, 1, 2))) % 11)
        self.stream = stream
        self.model = NGramModel([stream], vocabulary=12, order=4)

    def test_probabilities_sum_to_one(self):
        for context in ([], [3], [1, 2], self.stream[50:53], self.stream[70:80], [11, 11, 11], [4, 11, 4]):
            total = sum(self.model.probability(context, token) for token in range(12))
            self.assertAlmostEqual(total, 1, places=9, msg=str(context))

    def test_every_token_is_possible(self):
        self.assertGreater(self.model.probability(self.stream[10:13], 11), 0)

    def test_it_learns(self):
        longer = self.model.negative_log_likelihood(self.stream[:1000])
        unigram = NGramModel([self.stream], vocabulary=12, order=1).negative_log_likelihood(self.stream[:1000])
        self.assertLess(longer, 0.75 * unigram)


if __name__ == "__main__":
    unittest.main()
