"""Networks: the protocol that all of them follow, trunks, heads, whole networks and their weights."""
