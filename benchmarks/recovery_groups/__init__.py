"""Groups of nodes that train the recovery job, for measuring how they get over the loss of some."""
