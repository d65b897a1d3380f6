"""What a denoiser does to fluxes, detections and finders. The page: `docs/results/denoiser.md`."""
