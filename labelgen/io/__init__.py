"""Files: which ones a path names, their rows, dialogues from and to them, and how a dialogue is shown."""
