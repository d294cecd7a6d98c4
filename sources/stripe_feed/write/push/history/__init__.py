"""What pushes did: the states of their runs, and the tables in the destination that record them."""
