#!/bin/sh
# All bounds of docs/results/dark-matter.md, one after the other; those that are there stay. About an hour of a core.
set -e
cd "$(dirname "$0")/../../.."
fine="--set image.0.pixel_scale_arcsec=0.1 --set image.0.size_px=56"
bright="--set published.source_brightness_njy=[2.8,3.6] --set published.lens_brightness_njy=[4.8,4.8]"
bound() {
    name=$1; shift
    [ -e "benchmarks/results/dark_matter_bound_$name.json" ] ||
        python -m benchmarks.studies.dark_matter.bound "$@" --name "$name" --n 40 --draws 160 > /dev/null
}
f="$fine --set image.0.supersampling=3 $bright"
bound model-f model-f $f
bound substructure-1 substructure-1 $fine --set image.0.supersampling=4 --set image.0.psf_sampling=2
bound deeplense-1 deeplense-1 $fine --set image.0.supersampling=2 --set image.0.psf_sampling=2 --set 'published.source_brightness_njy=[0.2,0.2]'
bound model-j model-j $f
bound model-f-radius model-f $f --set published.fraction_of=radius
bound model-f-given-up model-f $f --set 'published.substructure_mass="given up"' --set published.vortex_start=middle --set 'published.shear_angle_rad=[0.0,6.2832]' --set 'published.source_angle_rad=[0.0,6.2832]' --set 'published.lens_angle_rad=[0.0,6.2832]'
bound deeplense-2-right deeplense-2 --set published.noise=right --set published.subhalo_slope=-1.9 --set published.distances=angular --set 'published.substructure_mass="given up"'
bound deeplense-2-noise deeplense-2 --set published.noise=right
