"""What several kinds of tests build on."""
