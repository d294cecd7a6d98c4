"""`python -m stripe_feed` is the command `stripe-feed`."""

from .cli.main import main

main()
