"""What `preprocessing.build` does one after the other: cases, refusals, what is written."""
