"""Other tools' views of a search."""
