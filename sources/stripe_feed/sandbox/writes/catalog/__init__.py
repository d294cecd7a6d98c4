"""Products, prices, plans and coupons."""
