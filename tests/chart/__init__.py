"""The chart in `helm/keshi` and the images it runs, held against the code."""
