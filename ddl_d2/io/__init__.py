"""Where bytes from outside are opened (images, videos, weights), and how files are written."""
