// Sprite sheets: loaded when a stamp of theirs is seen, decoded once, stretched to any taste.
"use strict";

LENSPIPE.Stamps = class {
  constructor(meta, onSheet) {
    this.meta = meta;
    this.onSheet = onSheet;
    this.sheets = new Map();       // number -> {state, pixels}; the least lately used are let go
    this.brightness = 0;
    this.softening = 0;
    this.linear = meta.gains.map(gain => {
      const table = new Float32Array(256);
      for (let code = 0; code < 256; code++) table[code] = gain * 2 * Math.sinh(code / 255 * meta.range + meta.floor);
      return table;                // surface brightness in units of the sky noise of the middle channel
    });
  }

  get perSheet() { return this.meta.per_side ** 2; }

  want(number) {
    const known = this.sheets.get(number);
    if (known) {
      this.sheets.delete(number);
      this.sheets.set(number, known);
      return known.pixels;
    }
    this.sheets.set(number, {pixels: null});
    const script = document.createElement("script");
    script.src = "sheets/sheet-" + String(number).padStart(4, "0") + ".js";
    script.onload = () => script.remove();
    script.onerror = () => LENSPIPE.say("A file of stamps is missing: " + script.src.split("/").pop());
    document.head.append(script);
    return null;
  }

  loaded(number, url) {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = image.width;
      canvas.height = image.height;
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.drawImage(image, 0, 0);
      this.sheets.set(number, {pixels: context.getImageData(0, 0, image.width, image.height)});
      const full = [...this.sheets].filter(([, sheet]) => sheet.pixels).map(([n]) => n);
      for (const old of full.slice(0, Math.max(0, full.length - LENSPIPE.Stamps.KEPT))) this.sheets.delete(old);
      this.onSheet(number);
    };
    image.src = url;
  }

  // Draws the stamp of a row into a canvas of stamp_px pixels; false while its sheet is on the way.
  draw(row, canvas) {
    const pixels = this.want(Math.floor(row / this.perSheet));
    if (!pixels) return false;
    const side = this.meta.stamp_px, place = row % this.perSheet;
    const x0 = (place % this.meta.per_side) * side, y0 = Math.floor(place / this.meta.per_side) * side;
    if (canvas.width !== side) { canvas.width = side; canvas.height = side; }
    const context = canvas.getContext("2d");
    const out = context.createImageData(side, side);
    this.stretch(pixels, x0, y0, side, out.data);
    context.putImageData(out, 0, 0);
    return true;
  }

  // Lupton et al. 2004, PASP 116, 133: one asinh of the mean intensity scales all channels; bright cores go white.
  stretch(pixels, x0, y0, side, out) {
    const alpha = 0.05 * 10 ** this.brightness, q = 4 * 10 ** this.softening;
    const [red, green, blue] = this.linear.length === 1 ? [this.linear[0], this.linear[0], this.linear[0]] : this.linear;
    let to = 0;
    for (let y = 0; y < side; y++) {
      let from = ((y0 + y) * pixels.width + x0) * 4;
      for (let x = 0; x < side; x++, from += 4, to += 4) {
        const r = red[pixels.data[from]], g = green[pixels.data[from + 1]], b = blue[pixels.data[from + 2]];
        const intensity = Math.max(Math.abs(r + g + b) / 3 * q, 1e-6);
        const scale = 255 * Math.asinh(alpha * intensity) / intensity;
        out[to] = r * scale;
        out[to + 1] = g * scale;
        out[to + 2] = b * scale;
        out[to + 3] = 255;
      }
    }
  }
};
LENSPIPE.Stamps.KEPT = 24;
