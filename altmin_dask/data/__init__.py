"""Where samples come from, and the sample stores that they become."""
