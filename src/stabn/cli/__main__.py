"""`python -m stabn.cli VERB`, for torchrun and for machines without the script on their path."""

from stabn.cli.main import main

if __name__ == "__main__":
    main()
