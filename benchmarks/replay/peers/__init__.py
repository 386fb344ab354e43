"""Other people's searches, each in one file with a function `new` that makes it."""
