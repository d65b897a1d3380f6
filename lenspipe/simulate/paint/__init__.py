"""
Painting on real pixels: arcs and non-lenses around real galaxies, one stamp or a whole tile at a time.

`paint_arcs` and `paint_tile` add arcs of drawn lenses, `paint_non_lens` any kind of `lenspipe.simulate.negatives`;
`search_tile`, `tile_hosts` and `sky_hosts` find galaxies and empty places of a tile to paint on; `draw_view` shows a
host as if further away; `make_scenes` makes training stamps of all of it.
"""

from lenspipe.simulate.paint.arcs import paint_arcs, paint_tile
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.lookalikes import paint_non_lens
from lenspipe.simulate.paint.scene import ScenePlan, make_scene, make_scenes
from lenspipe.simulate.paint.tiles import HostCuts, TileSources, search_tile, sky_hosts, tile_hosts

__all__ = [
    "Host",
    "HostCuts",
    "ScenePlan",
    "TileSources",
    "draw_view",
    "make_scene",
    "make_scenes",
    "paint_arcs",
    "paint_non_lens",
    "paint_tile",
    "search_tile",
    "sky_hosts",
    "tile_hosts",
]
