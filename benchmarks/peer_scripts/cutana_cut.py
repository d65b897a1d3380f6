"""Cut stamps with Cutana: TILE POSITIONS SIZE OUT, in an environment that has it."""

import sys
from pathlib import Path

import pandas as pd
from cutana import StreamingOrchestrator, get_default_config

if __name__ == "__main__":
    tile, positions, size, out = sys.argv[1:]
    here = Path(out)
    here.mkdir()
    rows = pd.read_csv(positions).rename(columns={"ra": "RA", "dec": "Dec"})
    rows["SourceID"] = [f"p{k}" for k in range(len(rows))]
    rows["diameter_pixel"] = int(size)
    rows["fits_file_paths"] = f"['{tile}']"
    rows.to_parquet(here / "sources.parquet")
    config = get_default_config()
    config.source_catalogue, config.output_dir = str(here / "sources.parquet"), str(here / "cut")
    config.target_resolution, config.output_format, config.data_type = int(size), "zarr", "float32"
    name = Path(tile).stem
    config.selected_extensions = [{"name": name, "ext": "CompImageHDU"}]
    config.fits_extensions, config.channel_weights = [1], {f"{name}_1": [1.0]}
    config.apply_flux_conversion, config.normalisation_method, config.max_workers = False, "none", 1
    config.skip_catalogue_validation = True
    config.loadbalancer.main_process_memory_reserve_gb = 0.5
    config.loadbalancer.skip_memory_calibration_wait = True
    streaming = StreamingOrchestrator(config)
    streaming.init_streaming(batch_size=len(rows), write_to_disk=True)
    for _ in range(streaming.get_batch_count()):
        streaming.next_batch()
    streaming.cleanup()
    if not any((here / "cut").rglob("zarr.json")) and not any((here / "cut").rglob(".z*")):
        sys.exit("nothing was written")
