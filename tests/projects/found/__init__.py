"""A package whose tasks a project finds by itself."""
