"""Images through a trained network and the CRF: read, predict, refine, then measure."""
