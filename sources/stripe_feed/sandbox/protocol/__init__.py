"""How requests and answers look, and what can go wrong with them."""
