"""Conversations for the instruction format, made from the training text and a table of facts. Standard library only."""

import random

SYSTEM = "<role>SYSTEM</role>{}detailed thinking off<|role_end|>"
TITLES = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}
YEARS = {
    "emma": 1815,
    "mansfieldpark": 1814,
    "northangerabbey": 1817,
    "prideprejudice": 1813,
    "sensesensibility": 1811,
}
# Who they are, completing "NAME is …".
CHARACTERS = {
    "emma": {
        "Emma Woodhouse": "the heroine of Emma, handsome, clever, and rich, and mistress of Hartfield",
        "Mr. Knightley": "the owner of Donwell Abbey and an old friend of the Woodhouses, who marries Emma",
        "Harriet Smith": "a young friend of Emma's from Mrs. Goddard's school, who marries Robert Martin",
        "Frank Churchill": "the son of Mr. Weston, secretly engaged to Jane Fairfax",
        "Jane Fairfax": "the accomplished niece of Miss Bates, secretly engaged to Frank Churchill",
        "Miss Bates": "a good-natured and very talkative old maid of Highbury",
        "Mr. Elton": "the vicar of Highbury",
        "Mr. Woodhouse": "Emma's father, who is always anxious about his health",
        "Mrs. Weston": "Emma's former governess, Miss Taylor",
    },
    "mansfieldpark": {
        "Fanny Price": "the heroine of Mansfield Park, brought up by her uncle, Sir Thomas Bertram",
        "Edmund Bertram": "the younger son of Sir Thomas, a clergyman, who marries Fanny",
        "Henry Crawford": "the brother of Mary Crawford and the owner of Everingham",
        "Mary Crawford": "the lively sister of Henry Crawford",
        "Sir Thomas Bertram": "the master of Mansfield Park",
        "Mrs. Norris": "the busy and meddling aunt of Fanny",
        "Lady Bertram": "the indolent wife of Sir Thomas, who is fond of her pug",
        "Mr. Rushworth": "the rich and dull owner of Sotherton",
    },
    "northangerabbey": {
        "Catherine Morland": "the heroine of Northanger Abbey, who is fond of novels",
        "Henry Tilney": "a witty young clergyman, who marries Catherine",
        "Isabella Thorpe": "a false friend whom Catherine meets in Bath",
        "John Thorpe": "the boastful brother of Isabella",
        "General Tilney": "the father of Henry and the owner of Northanger Abbey",
        "Eleanor Tilney": "the sister of Henry and a true friend of Catherine",
        "Mrs. Allen": "the friend who takes Catherine to Bath and thinks of little but dress",
    },
    "prideprejudice": {
        "Elizabeth Bennet": "the heroine of Pride and Prejudice, the second of five sisters",
        "Mr. Darcy": "the proud owner of Pemberley, who marries Elizabeth",
        "Jane Bennet": "the eldest and gentlest of the Bennet sisters, who marries Mr. Bingley",
        "Mr. Bingley": "the amiable tenant of Netherfield, who marries Jane",
        "Mr. Collins": "a pompous clergyman and the heir of Longbourn",
        "Charlotte Lucas": "a sensible friend of Elizabeth, who marries Mr. Collins",
        "Mr. Wickham": "an officer of agreeable manners and bad character, who runs away with Lydia",
        "Lady Catherine de Bourgh": "the aunt of Mr. Darcy and mistress of Rosings",
        "Mrs. Bennet": "the mother of five daughters, whom she wishes to see married",
        "Lydia Bennet": "the youngest of the Bennet sisters, who runs away with Mr. Wickham",
    },
    "sensesensibility": {
        "Elinor Dashwood": "the heroine of sense, who governs her feelings and marries Edward Ferrars",
        "Marianne Dashwood": "the heroine of sensibility, who loves Willoughby and marries Colonel Brandon",
        "Edward Ferrars": "a shy young man, long engaged to Lucy Steele, who marries Elinor",
        "Willoughby": "the handsome young man who deserts Marianne",
        "Colonel Brandon": "the grave and generous owner of Delaford, who marries Marianne",
        "Lucy Steele": "a sly young woman, secretly engaged to Edward Ferrars",
        "Mrs. Jennings": "a merry and good-natured widow who is fond of matches",
        "Sir John Middleton": "the hospitable owner of Barton Park",
    },
}
HOMES = {
    "Emma Woodhouse": "Hartfield", "Mr. Knightley": "Donwell Abbey", "Fanny Price": "Mansfield Park",
    "Mr. Rushworth": "Sotherton", "General Tilney": "Northanger Abbey", "Elizabeth Bennet": "Longbourn",
    "Mr. Darcy": "Pemberley", "Mr. Bingley": "Netherfield", "Lady Catherine de Bourgh": "Rosings",
    "Elinor Dashwood": "Barton Cottage", "Colonel Brandon": "Delaford", "Sir John Middleton": "Barton Park",
}  # fmt: skip
MARRIAGES = [
    ("Emma Woodhouse", "Mr. Knightley"), ("Harriet Smith", "Robert Martin"), ("Fanny Price", "Edmund Bertram"),
    ("Catherine Morland", "Henry Tilney"), ("Elizabeth Bennet", "Mr. Darcy"), ("Jane Bennet", "Mr. Bingley"),
    ("Charlotte Lucas", "Mr. Collins"), ("Elinor Dashwood", "Edward Ferrars"),
    ("Marianne Dashwood", "Colonel Brandon"), ("Lydia Bennet", "Mr. Wickham"),
]  # fmt: skip
IDENTITY = [
    (("Hello!", "Hello.", "Good morning!", "Hi", "Good evening."), "Good day to you. How may I be of service?"),
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself."),
     "I am ling-tiny, a very small language model that has read nothing but the novels of Jane Austen."),
    (("What can you do?", "How can you help me?", "Help"),
     "I can continue a line, write a sentence in the manner of Jane Austen, and answer simple questions about her novels."),
    (("Thank you.", "Thanks!", "Thank you very much."), "You are very welcome."),
    (("Goodbye.", "Good night.", "Bye!", "Farewell."), "Farewell, and may you be very happy."),
    (("How are you?", "How do you do?"), "I am perfectly well, I thank you."),
    (("Who is your favourite author?", "What have you read?"), "I have read nothing but the novels of Jane Austen."),
]  # fmt: skip
CONTINUE = ("Continue: {}", "Continue this line: {}", "Go on: {}", "What comes next? {}", "Continue the story: {}")
FINISH = ("Finish this sentence: {}", "Complete the sentence: {}", "Finish: {}")
ABOUT = ("Write a sentence about {}.", "Tell me something about {}.", "Write about {}.", "Tell me about {}.")
SPEECH = ("Give me a line of dialogue.", "Write something that somebody says.", "Write a line of conversation.")
SYSTEM_TEXTS = ("", "", "", "", "You are a helpful assistant.\n", "Answer in the manner of Jane Austen.\n", "Be brief.\n")


def render(turns: list[tuple[str, str]], system: str = "") -> str:
    """The text of a conversation of (question, answer) turns, as the gateway renders it."""
    out = SYSTEM.format(system)
    for question, answer in turns:
        out += f"<role>HUMAN</role>{question}<|role_end|><role>ASSISTANT</role>{answer}<|role_end|>"
    return out


def facts() -> list[tuple[tuple[str, ...], str]]:
    """Ways to ask, and the answer."""
    out = list(IDENTITY)
    for novel, title in TITLES.items():
        heroine = next(iter(CHARACTERS[novel]))
        out.append(((f"Who wrote {title}?", f"Who is the author of {title}?"), f"{title} was written by Jane Austen."))
        out.append(
            ((f"When was {title} published?", f"In what year did {title} appear?"),
             f"{title} was published in {YEARS[novel]}.")
        )  # fmt: skip
        out.append(
            ((f"Who is the heroine of {title}?", f"Who is the main character of {title}?"),
             f"The heroine of {title} is {heroine}.")
        )  # fmt: skip
        for name, description in CHARACTERS[novel].items():
            out.append(((f"Who is {name}?", f"Who is {name} in {title}?"), f"{name} is {description}."))
            out.append(
                ((f"In which novel does {name} appear?", f"Which novel is {name} in?"), f"{name} appears in {title}.")
            )
    for name, home in HOMES.items():
        out.append(((f"Where does {name} live?", f"What is the home of {name}?"), f"{name} lives at {home}."))
    for first, second in MARRIAGES:
        out.append(((f"Whom does {first} marry?", f"Who marries {first}?"), f"{first} marries {second}."))
        out.append(((f"Whom does {second} marry?", f"Who marries {second}?"), f"{second} marries {first}."))
    return out


class ChatMaker:
    """Draws conversations; the same seed gives the same ones."""

    def __init__(self, novels: list[list[list[str]]]):
        """`novels`: sentences of the paragraphs of each training text."""
        self.facts = facts()
        self.paragraphs = [p for novel in novels for p in novel if len(p) >= 2]
        sentences = [s for novel in novels for p in novel for s in p if 40 <= len(s) <= 240]
        self.long = [s for s in sentences if len(s.split()) >= 8]
        self.speech = [s for s in sentences if s.startswith('"') and s.endswith('"')]
        names = {name for table in CHARACTERS.values() for name in table}
        short = {name: name if name.startswith(("Mr", "Miss", "Lady", "Sir", "Colonel")) else name.split()[0] for name in names}
        self.about = {}
        for name, key in short.items():
            found = [s for s in sentences if key in s and not s.startswith('"')]
            if len(found) >= 10:
                self.about[name] = found

    def turn(self, draw: random.Random) -> tuple[str, str]:
        kind = draw.random()
        if kind < 0.4:
            questions, answer = draw.choice(self.facts)
            return draw.choice(questions), answer
        if kind < 0.65:
            paragraph = draw.choice(self.paragraphs)
            start = draw.randrange(len(paragraph) - 1)
            return draw.choice(CONTINUE).format(paragraph[start]), " ".join(paragraph[start + 1 : start + 3])
        if kind < 0.8:
            words = draw.choice(self.long).split()
            cut = draw.randrange(3, len(words) - 3)
            return draw.choice(FINISH).format(" ".join(words[:cut])), " ".join(words[cut:])
        if kind < 0.95:
            name = draw.choice(sorted(self.about))
            return draw.choice(ABOUT).format(name), draw.choice(self.about[name])
        return draw.choice(SPEECH), draw.choice(self.speech)

    def conversation(self, draw: random.Random) -> str:
        turns = [self.turn(draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
        return render(turns, draw.choice(SYSTEM_TEXTS))
