"""What a run leaves to look at: figures and a page."""
