"""What happens in an account: its founding, daily activity, edge cases."""
