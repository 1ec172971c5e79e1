"""What all packages share: errors, files, schemas, records, progress, locks, tracking."""
