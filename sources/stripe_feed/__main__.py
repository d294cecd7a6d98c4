"""`python -m stripe_feed` is the command `stripe-feed`."""

from .cli import main

main()
