"""Files: finding them, reading their rows, reading and writing dialogues, and rendering a dialogue."""
