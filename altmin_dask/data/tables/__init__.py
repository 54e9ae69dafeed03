"""Tables that nobody prepared: what their columns hold is found over all rows, and each becomes numbers."""
