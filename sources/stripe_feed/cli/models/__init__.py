"""The commands `stripe-feed models …`."""
