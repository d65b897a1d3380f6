// Sprite sheets: loaded when a stamp of theirs is seen, decoded once, drawn as colour, as one band or as a residual, in any stretch.
"use strict";

LENSPIPE.Stamps = class {
  constructor(meta, onSheet) {
    this.meta = meta;
    this.onSheet = onSheet;
    this.sheets = new Map();       // "number/group" -> {pixels, bad}; the least lately used are let go
    this.brightness = 0;
    this.softening = 0;
    this.negative = false;
    const table = gain => Float32Array.from({length: 256}, (_, code) => gain * 2 * Math.sinh(code / 255 * meta.range + meta.floor));
    this.sigma = table(1);         // surface brightness in units of the band's own sky noise
    this.linear = meta.gains.map(table);      // in units of the sky noise of the middle channel
  }

  get perSheet() { return this.meta.per_side ** 2; }

  // Views there are: one of the colours, the residual of the colours, each band.
  get views() { return ["colour", "residual", ...(this.meta.planes.length > 1 ? new Set(this.meta.planes) : [])]; }

  want(number, group) {
    const name = number + "/" + group, known = this.sheets.get(name);
    if (known) {
      this.sheets.delete(name);
      this.sheets.set(name, known);
      return known.pixels ? known : null;
    }
    this.sheets.set(name, {pixels: null});
    const script = document.createElement("script");
    script.src = "sheets/sheet-" + String(number).padStart(4, "0") + (group === 0 ? "" : "-" + group) + ".js";
    script.onload = () => script.remove();
    script.onerror = () => LENSPIPE.say("A file of stamps is missing: " + script.src.split("/").pop());
    document.head.append(script);
    return null;
  }

  async loaded(number, group, url, mask) {
    const [pixels, holes] = await Promise.all([url, mask].map(source => source ? LENSPIPE.Stamps.decoded(source) : null));
    const bad = holes && Uint8Array.from({length: holes.data.length / 4}, (_, i) =>     // a bit per band without data
      (holes.data[4 * i] < 128) | (holes.data[4 * i + 1] < 128) << 1 | (holes.data[4 * i + 2] < 128) << 2);
    this.sheets.set(number + "/" + group, {pixels, bad});
    const full = [...this.sheets].filter(([, sheet]) => sheet.pixels).map(([name]) => name);
    for (const old of full.slice(0, Math.max(0, full.length - LENSPIPE.Stamps.KEPT))) this.sheets.delete(old);
    this.onSheet(number);
  }

  static async decoded(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  }

  // Draws a view of a row into a canvas of stamp_px pixels; false while its sheet is on the way.
  draw(row, canvas, view = "colour") {
    const plane = this.meta.planes.indexOf(view), group = view === "residual" ? "residual" : plane < 0 ? 0 : Math.floor(plane / 3);
    const sheet = this.want(Math.floor(row / this.perSheet), group);
    if (!sheet) return false;
    const side = this.meta.stamp_px, place = row % this.perSheet;
    const at = Math.floor(place / this.meta.per_side) * side * sheet.pixels.width + (place % this.meta.per_side) * side;
    if (canvas.width !== side) { canvas.width = side; canvas.height = side; }
    const context = canvas.getContext("2d"), out = context.createImageData(side, side);
    const bands = plane >= 0 ? [plane % 3] : this.linear.map((_, k) => k), tables = plane >= 0 ? [this.sigma] : this.linear;
    const flux = bands.map((band, k) => this.read(sheet.pixels, at, side, band, tables[k]));
    const bits = bands.reduce((all, band) => all | 1 << band, 0), hole = sheet.bad && this.holes(sheet, at, side, bits);
    this.stretch(flux, out.data);
    if (hole) this.hatch(hole, side, out.data);
    context.putImageData(out, 0, 0);
    return true;
  }

  read(pixels, at, side, band, table) {
    const values = new Float32Array(side * side);
    for (let y = 0, to = 0; y < side; y++) {
      let from = (at + y * pixels.width) * 4 + band;
      for (let x = 0; x < side; x++, from += 4, to++) values[to] = table[pixels.data[from]];
    }
    return values;
  }

  holes(sheet, at, side, bits) {
    const hole = new Uint8Array(side * side);
    for (let y = 0, to = 0; y < side; y++) for (let x = 0; x < side; x++, to++) hole[to] = sheet.bad[at + y * sheet.pixels.width + x] & bits ? 1 : 0;
    return hole;
  }

  // Lupton et al. 2004, PASP 116, 133: one asinh of the mean intensity scales all channels; bright cores go white.
  stretch(flux, out) {
    const alpha = 0.05 * 10 ** this.brightness, q = 4 * 10 ** this.softening, [red, green, blue] = flux.length === 1 ? [flux[0], flux[0], flux[0]] : flux;
    for (let i = 0, to = 0; i < red.length; i++, to += 4) {
      const r = red[i], g = green[i], b = blue[i];
      const intensity = Math.max(Math.abs(r + g + b) / 3 * q, 1e-6);
      const scale = 255 * Math.asinh(alpha * intensity) / intensity;
      if (this.negative) out[to] = out[to + 1] = out[to + 2] = 255 - (r + g + b) / 3 * scale;
      else {
        out[to] = r * scale;
        out[to + 1] = g * scale;
        out[to + 2] = b * scale;
      }
      out[to + 3] = 255;
    }
  }

  // Where there are no data, which is not dark sky.
  hatch(hole, side, out) {
    for (let i = 0; i < hole.length; i++) {
      if (hole[i]) [out[4 * i], out[4 * i + 1], out[4 * i + 2]] = (i % side + Math.floor(i / side)) % 8 < 2 ? [104, 114, 132] : [52, 58, 70];
    }
  }
};
LENSPIPE.Stamps.KEPT = 24;
