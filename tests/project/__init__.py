"""The project itself: docs, structure, packaging."""
