"""What a user sees: tables, the live view, plain lines."""
