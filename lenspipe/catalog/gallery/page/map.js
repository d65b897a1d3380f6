// The map: every candidate a point, drawn into one picture of bytes, so that 100,000 of them move with the hand.
"use strict";

LENSPIPE.numbers = (text, Kind) => new Kind(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);

// Neighbours and places out of likeness.js: `near(i)` are rows, most alike first; x and y are NaN without a vector.
LENSPIPE.Likeness = class {
  constructor({k, near, place, said}) {
    this.k = k;
    this.said = said;
    this.rows = LENSPIPE.numbers(near, Int32Array);
    const raw = LENSPIPE.numbers(place, Uint16Array);
    this.x = new Float32Array(raw.length / 2);
    this.y = new Float32Array(raw.length / 2);
    for (let i = 0; i < this.x.length; i++) {
      this.x[i] = raw[2 * i] === 65535 ? NaN : raw[2 * i] / 65534;
      this.y[i] = raw[2 * i + 1] === 65535 ? NaN : 1 - raw[2 * i + 1] / 65534;
    }
  }
  near(i) { return [...this.rows.subarray(i * this.k, (i + 1) * this.k)].filter(row => row >= 0); }
};

// Colours as bytes in memory (ABGR); a ramp that is even to the eye, the colour-blind one too (viridis without its darkest).
LENSPIPE.RAMP = [[98, 60, 150], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
LENSPIPE.bytes = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
LENSPIPE.ramp = t => {
  const at = Math.min(Math.max(t, 0), 1) * (LENSPIPE.RAMP.length - 1), k = Math.min(Math.floor(at), LENSPIPE.RAMP.length - 2);
  return LENSPIPE.RAMP[k].map((low, c) => Math.round(low + (LENSPIPE.RAMP[k + 1][c] - low) * (at - k)));
};

LENSPIPE.Map = class {
  // hooks: chosen() row or undefined, choose(row), lasso(rows), tip(row or null, x, y)
  constructor(box, likeness, hooks) {
    this.box = box;
    this.hooks = hooks;
    this.x = likeness.x;
    this.y = likeness.y;
    this.points = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.over.id = "map-over";
    box.append(this.points, this.over);
    this.rows = [];                // what is drawn, the last on top
    this.bright = null;            // of which these only are bright; null: all
    this.colours = new Uint32Array(this.x.length);
    this.weight = new Float32Array(this.x.length);      // the heavier lies on top
    this.zoom = 1;
    this.middle = [0.5, 0.5];
    this.mode = "lasso";
    this.path = null;
    this.pointers = new Map();
    this.over.onpointerdown = event => this.down(event);
    this.over.onpointermove = event => this.move(event);
    this.over.onpointerup = this.over.onpointercancel = event => this.up(event);
    this.over.onpointerleave = () => this.hooks.tip(null);
    this.over.onwheel = event => { event.preventDefault(); this.zoomAt(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY); };
    this.over.ondblclick = () => { this.zoom = 1; this.middle = [0.5, 0.5]; this.soon(); };
    new ResizeObserver(() => this.soon()).observe(box);
  }

  // Colours by words, or by numbers between their 2nd and 98th percentile; each gives its key: [colour, word] ...
  paintWords(named, of, none) {
    const bytes = Object.fromEntries(Object.entries(named).map(([name, hex]) => [name, LENSPIPE.bytes([1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)))]));
    for (let i = 0; i < this.colours.length; i++) {
      this.weight[i] = of(i) in bytes ? 1 : 0;
      this.colours[i] = bytes[of(i)] ?? LENSPIPE.Map.NONE;
    }
    return [...Object.entries(named).map(([name, hex]) => [hex, name]), ["#6e7480", none]];
  }
  paintNumbers(values) {
    const sorted = Float64Array.from(values.filter(value => value !== null)).sort(), last = sorted.length - 1;
    const low = sorted[Math.floor(0.02 * last)], high = sorted[Math.ceil(0.98 * last)];
    const ramp = Array.from({length: 256}, (_, k) => LENSPIPE.bytes(LENSPIPE.ramp(k / 255)));
    for (let i = 0; i < this.colours.length; i++) {
      const t = (values[i] - low) / (high - low || 1);
      this.weight[i] = values[i] ?? -Infinity;
      this.colours[i] = values[i] === null ? LENSPIPE.Map.NONE : ramp[Math.round(255 * Math.min(1, Math.max(0, t)))];
    }
    const told = sorted.length ? [[0, low], [0.5, (low + high) / 2], [1, high]] : [];
    return [...told.map(([t, value]) => [`rgb(${LENSPIPE.ramp(t)})`, value.toPrecision(3)]), ...(last + 1 < values.length ? [["#6e7480", "none"]] : [])];
  }

  show(rows, bright) {
    this.rows = rows.filter(i => !Number.isNaN(this.x[i])).sort((a, b) => this.weight[a] - this.weight[b] || b - a);
    this.bright = bright;
    this.soon();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  get side() { return Math.min(this.box.clientWidth, this.box.clientHeight) * this.zoom; }
  toScreen(i) { return [(this.x[i] - this.middle[0]) * this.side + this.box.clientWidth / 2, (this.y[i] - this.middle[1]) * this.side + this.box.clientHeight / 2]; }
  zoomAt(factor, x, y) {
    const before = this.side, from = [x - this.box.clientWidth / 2, y - this.box.clientHeight / 2];
    this.zoom = Math.min(200, Math.max(0.8, this.zoom * factor));
    for (const axis of [0, 1]) this.middle[axis] += from[axis] / before - from[axis] / this.side;
    this.soon();
  }

  draw() {
    const ratio = Math.min(2, devicePixelRatio || 1), width = Math.round(this.box.clientWidth * ratio), height = Math.round(this.box.clientHeight * ratio);
    if (!width || !height) return;
    if (this.points.width !== width || this.points.height !== height) {
      for (const canvas of [this.points, this.over]) { canvas.width = width; canvas.height = height; }
      this.image = this.points.getContext("2d").createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const {pixels, x, y, colours, bright} = this, side = this.side * ratio;
    const x0 = width / 2 - this.middle[0] * side, y0 = height / 2 - this.middle[1] * side;
    const few = this.rows.length < 20000 ? 1 : 0, radius = Math.round(ratio * Math.min(5, 1 + few + Math.log2(Math.max(1, this.zoom)) / 2));
    const disc = [];
    for (let dy = -radius; dy <= radius; dy++) for (let dx = -radius; dx <= radius; dx++) if (dx * dx + dy * dy <= radius * radius + 0.5) disc.push(dy * width + dx);
    pixels.fill(LENSPIPE.Map.BACK);
    for (const pass of bright ? [0, 1] : [1]) {        // the bright ones lie on top
      for (const i of this.rows) {
        if (bright && bright[i] !== pass) continue;
        const px = Math.round(x[i] * side + x0), py = Math.round(y[i] * side + y0);
        if (!(px >= radius && py >= radius && px < width - radius && py < height - radius)) continue;
        const at = py * width + px, colour = pass ? colours[i] : LENSPIPE.Map.DIM;
        for (let k = 0; k < disc.length; k++) pixels[at + disc[k]] = colour;
      }
    }
    this.points.getContext("2d").putImageData(this.image, 0, 0);
    this.drawOver();
  }

  drawOver() {
    const context = this.over.getContext("2d"), ratio = this.over.width / Math.max(1, this.box.clientWidth);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.box.clientWidth, this.box.clientHeight);
    const i = this.hooks.chosen();
    if (i !== undefined && !Number.isNaN(this.x[i])) {
      const [x, y] = this.toScreen(i);
      for (const [colour, line] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.beginPath();
        context.arc(x, y, 9, 0, 7);
        context.stroke();
      }
    }
    if (this.path && this.path.length > 1) {
      context.beginPath();
      for (const [x, y] of this.path) context.lineTo(x, y);
      context.closePath();
      context.fillStyle = "#6cb2ff33";
      context.strokeStyle = "#6cb2ff";
      context.lineWidth = 1.5;
      context.fill();
      context.stroke();
    }
  }

  // The drawn row nearest to a place of the screen; undefined where none is near.
  at(x, y, within = 12) {
    let best = within * within, found;
    for (const i of this.rows) {
      const [px, py] = this.toScreen(i), away = (px - x) ** 2 + (py - y) ** 2;
      if (away < best) { best = away; found = i; }
    }
    return found;
  }

  // The drawn row that is next in a direction of the screen (+x right, +y down): near, and not far off it.
  beside(i, dx, dy) {
    let best = Infinity, found;
    for (const k of this.rows) {
      const x = this.x[k] - this.x[i], y = this.y[k] - this.y[i], along = x * dx + y * dy, off = Math.abs(x * dy - y * dx);
      if (k !== i && along > off && along + 2 * off < best) { best = along + 2 * off; found = k; }
    }
    return found;
  }

  // The n drawn rows that lie nearest to a row, itself first.
  around(i, n) {
    const away = k => (this.x[k] - this.x[i]) ** 2 + (this.y[k] - this.y[i]) ** 2;
    return [...this.rows].map(k => [away(k), k]).sort((a, b) => a[0] - b[0]).slice(0, n).map(([, k]) => k);
  }

  // Drawn rows inside a closed path on the screen (even-odd).
  inside(path) {
    return this.rows.filter(i => {
      const [x, y] = this.toScreen(i);
      let odd = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
        const [xa, ya] = path[a], [xb, yb] = path[b];
        if ((ya > y) !== (yb > y) && x < (xb - xa) * (y - ya) / (yb - ya) + xa) odd = !odd;
      }
      return odd;
    });
  }

  down(event) {
    this.over.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.begun = [event.offsetX, event.offsetY];
    const moves = this.mode === "move" || event.button !== 0 || event.shiftKey || this.pointers.size > 1;
    this.path = moves ? null : [this.begun];
    this.hooks.tip(null);
  }

  move(event) {
    const now = [event.offsetX, event.offsetY], before = this.pointers.get(event.pointerId);
    if (!before) {
      const i = this.at(...now);
      return this.hooks.tip(i === undefined ? null : i, ...now);
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.pointers.set(event.pointerId, now);
    if (others.length) {           // two fingers: closer and farther
      const gap = place => Math.hypot(place[0] - others[0][0], place[1] - others[0][1]);
      return this.zoomAt(gap(now) / Math.max(1, gap(before)), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
    }
    if (this.path) { this.path.push(now); return this.drawOver(); }
    for (const axis of [0, 1]) this.middle[axis] -= (now[axis] - before[axis]) / this.side;
    this.soon();
  }

  up(event) {
    const path = this.path, end = [event.offsetX, event.offsetY];
    this.pointers.delete(event.pointerId);
    this.path = null;
    if (!this.begun || event.type === "pointercancel") return this.drawOver();
    const moved = Math.hypot(end[0] - this.begun[0], end[1] - this.begun[1]) > 4 || (path && path.length > 8);
    this.begun = null;
    if (!moved) {
      const i = this.at(...end);
      if (i !== undefined) this.hooks.choose(i);
    } else if (path) this.hooks.lasso(this.inside(path));
    this.drawOver();
  }
};
LENSPIPE.Map.BACK = LENSPIPE.bytes([20, 22, 26]);
LENSPIPE.Map.DIM = LENSPIPE.bytes([58, 63, 73]);
LENSPIPE.Map.NONE = LENSPIPE.bytes([110, 116, 128]);
