"""Reading, writing and drawing records: rows of files, dialogues from and to files, a dialogue as text and HTML."""
