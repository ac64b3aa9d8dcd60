"""keshi erases a person's data, or stops its use, in every system a company runs, and proves it."""
