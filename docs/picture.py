"""Makes docs/picture.png: a dialogue of the demo with the labels that the demo's model gave it, as `labelgen.show` draws it in a notebook.

labelgen demo
python docs/picture.py runs/demo/labelled simulated:test/0/0000004 docs/picture.png

Needs Chromium (`apt-get install chromium`) and Pillow. The dialogue is one of those that the demo prints at its end.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageChops

from labelgen.io.files import read
from labelgen.io.render import to_html

WIDTH, HEIGHT, SCALE, MARGIN = 720, 1600, 2, 14  # CSS pixels, but for the scale
PAGE = '<!doctype html><meta charset="utf-8"><body style="margin:{margin}px;background:#fff;color:#1f2328">{body}</body>'
FONT = ("system-ui,sans-serif", "'DejaVu Sans',sans-serif")


def screenshot(html: str, output: Path) -> None:
    """The page as PNG, cut to what is on it."""
    with TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(html, "utf-8")
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={SCALE}"]
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", *size, f"--screenshot={output}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    image = Image.open(output).convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    assert box, "the page is empty"
    margin = MARGIN * SCALE
    image = image.crop((0, 0, min(image.width, box[2] + margin), min(image.height, box[3] + margin)))
    image.quantize(128, dither=Image.Dither.NONE).save(output, optimize=True)


def main(labelled: str, name: str, output: str) -> None:
    """Draws the dialogue `name` of the folder `labelled`."""
    (dialogue,) = [dialogue for dialogue in read(labelled) if dialogue.id == name]
    screenshot(PAGE.format(margin=MARGIN, body=to_html(dialogue).replace(*FONT)), Path(output).resolve())


if __name__ == "__main__":
    main(*sys.argv[1:])
