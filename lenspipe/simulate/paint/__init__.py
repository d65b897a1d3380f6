"""
Painting on real pixels: arcs and look-alikes around real galaxies, one stamp or a whole tile at a time.

`paint_arcs` and `paint_tile` add arcs of drawn lenses; `search_tile` and `tile_hosts` find the galaxies of a tile to
paint on; `draw_view` shows a host as if further away; `make_scenes` makes training stamps of all of it.
"""

from lenspipe.simulate.paint.arcs import paint_arcs, paint_tile
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.scene import make_scene, make_scenes
from lenspipe.simulate.paint.tiles import HostCuts, TileSources, search_tile, tile_hosts

__all__ = [
    "Host",
    "HostCuts",
    "TileSources",
    "draw_view",
    "make_scene",
    "make_scenes",
    "paint_arcs",
    "paint_tile",
    "search_tile",
    "tile_hosts",
]
