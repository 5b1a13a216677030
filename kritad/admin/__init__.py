"""Views of the cluster for those who look after it."""
