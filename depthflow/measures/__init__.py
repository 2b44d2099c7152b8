"""The questions that are answered from states alone; nothing here knows of torch."""
