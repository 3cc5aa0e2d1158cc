"""The group of processes: what is engaged, and what all agree on."""
