"""What every room may use and that knows nothing of this project's subject."""
