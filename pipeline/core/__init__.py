"""What happens to a document, without Beam: task, keep rule, duplicates, records of tasks."""
