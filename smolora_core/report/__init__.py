"""What a run says: events on disk and lines on a terminal."""
