"""Published weights in and out, under their original names."""
