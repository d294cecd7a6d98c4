"""Money that adds up: charges and what follows from them, down to the payouts."""
