"""Puts what a demo printed into the README, between its marks, and draws the picture of one of its dialogues.

labelgen demo > demo.txt
python docs/restate.py demo.txt runs/demo

The README's sentence below the block says what the model got wrong in the dialogue SHOWN: read it again afterwards.
"""

import re
import sys
from pathlib import Path

import picture

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- demo -->", "<!-- end of demo -->"
SHOWN = "simulated:test/0/0000007"  # in the README, up to TURNS turns
DRAWN = "simulated:test/0/0000004"  # in the picture
TURNS = 3
ROWS = (  # of the table
    *("metric", "goal_segmentation/boundary_f1", "goal_evaluation/failure_f1", "goal_evaluation/failure_f1_given_goals"),
    *("intent/accuracy", "slot/span_f1", "defect/f1"),
)


def excerpt(printed: str) -> str:
    """The headings, the rows of the table that ROWS names, and the first turns of the dialogue SHOWN."""
    lines = printed.splitlines()
    kept: list[str] = []
    for line in lines:
        row = re.match(r"[┃│] (\S+) .*[┃│]$", line)
        if re.match(r"[1-5]\. .* ─+$", line) or (row and row[1] in ROWS):
            kept.append(line)
    start = next(k for k, line in enumerate(lines) if line.startswith(f"{SHOWN} "))
    turns = [k for k, line in enumerate(lines[start:], start) if re.match(r"[╭┃┊ ]+ {3}\d+ · ", line)]
    return "\n".join([*kept, *lines[start + 1 : turns[TURNS]], "..."])


def main(printed: str, run: str) -> None:
    """Rewrites README.md and docs/picture.png."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(START)
    after = rest.partition(END)[2]
    block = f"{START}\n\n```text\n{excerpt(Path(printed).read_text('utf-8'))}\n```\n\n{END}"
    readme.write_text(before + block + after, "utf-8")
    picture.main(f"{run}/labelled", DRAWN, str(ROOT / "docs" / "picture.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
