"""What a run says: events on disk, lines on a terminal, and a page."""
