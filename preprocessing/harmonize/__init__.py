"""From pixels as read to pixels and masks as the contract says: geometry, intensity, labels, slices."""
