"""What is wrong in the copy: found, and mended."""
