"""One run: build, train, score, record."""
