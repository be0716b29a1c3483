"""The key tables, one file a family."""
