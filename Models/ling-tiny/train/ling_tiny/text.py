"""The novels: reading, the split into training, selection and validation text, and unwrapping of lines. Standard library only."""

import re
from pathlib import Path

TRAINING = ("emma", "mansfieldpark", "northangerabbey", "prideprejudice", "sensesensibility")
VALIDATION = "persuasion"
# The last chapters of these choose the checkpoint; they are never trained on.
SELECTION = {"emma": 2, "sensesensibility": 2}
HEADING = re.compile(r"^chapter\s+\w+\s*$", re.IGNORECASE | re.MULTILINE)
SENTENCE_END = re.compile(r"(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)(?<=[.!?])(?:[\"'])?\s+(?=[\"'_A-Z])")


def read(folder: Path, name: str) -> str:
    path = Path(folder) / f"{name}.txt"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SystemExit(
            f"{path} is missing: give the folder with the six novels as {name}.txt etc. (README.md says where to get them)"
        ) from None


def split(name: str, text: str) -> tuple[str, str]:
    """Training part and selection part of a novel."""
    chapters = SELECTION.get(name)
    if not chapters:
        return text, ""
    start = [match.start() for match in HEADING.finditer(text)][-chapters]
    return text[:start], text[start:]


def training_texts(folder: Path) -> list[str]:
    return [split(name, read(folder, name))[0] for name in TRAINING]


def selection_texts(folder: Path) -> list[str]:
    return [split(name, read(folder, name))[1] for name in SELECTION]


def unwrap(text: str) -> str:
    """Joins the lines of each paragraph, so that line breaks mean something."""
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def paragraphs(text: str) -> list[list[str]]:
    """Sentences of each paragraph of prose (headings left out)."""
    out = []
    for paragraph in unwrap(text).split("\n\n"):
        if len(paragraph) < 60 or HEADING.match(paragraph):
            continue
        marked = SENTENCE_END.sub(lambda match: match.group().rstrip() + "\x00", paragraph)
        out.append([sentence for sentence in marked.split("\x00") if sentence])
    return out
