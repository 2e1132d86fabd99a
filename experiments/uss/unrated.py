"""SGD's train dialogues that no session of USS repeats -> a file of records, to adapt an encoder without seeing the test data.

python experiments/uss/unrated.py FOLDER_OF_USS FOLDER_OF_SGD unrated.jsonl
"""

from __future__ import annotations

import sys

from labelgen.corpora.sgd import SGD
from labelgen.corpora.uss import USS
from labelgen.io import files


def main(uss: str, sgd: str, output: str) -> None:
    rated = {dialogue.metadata["sgd"] for dialogue in USS(uss, "SGD", sgd=sgd).read() if "sgd" in dialogue.metadata}
    count = files.write((dialogue for dialogue in SGD(sgd).read() if dialogue.id not in rated), output)
    print(f"{count} dialogues; {len(rated)} are rated in USS and left out")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
