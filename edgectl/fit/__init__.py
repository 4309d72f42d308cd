"""What fits where: every rung of a ladder weighed for one device, several models on it together, and fleets of them."""
