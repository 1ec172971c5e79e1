"""Shared helpers: errors, files, schemas, records, progress, locks and experiment tracking."""
