"""`python -m pipelines` is `segfoundry`."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
