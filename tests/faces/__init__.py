"""What users see: HTTP, page, command line, metrics, test helpers, demo."""
