"""What is finished, how it is known again, and where it lies."""
