"""The base of all errors that a user can mend."""


class UserError(Exception):
    """Something that the user gave cannot be used. The message is one line that says what to do about it."""
