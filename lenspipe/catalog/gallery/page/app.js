// The page: which candidates are shown in which order, the grid that draws only what is seen, keys, grading.
"use strict";

LENSPIPE.say = text => {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(LENSPIPE.toastTimer);
  LENSPIPE.toastTimer = setTimeout(() => toast.classList.remove("shown"), 3000);
};
LENSPIPE.sheet = (number, url) => LENSPIPE.stamps.loaded(number, url);

LENSPIPE.load = data => {
  const $ = id => document.getElementById(id);
  const {meta, columns} = data;
  const n = columns.candidate_id.length;
  const keys = columns.candidate_id.map((id, i) => LENSPIPE.joinKey(columns.run_id[i], id));
  const rowOfKey = new Map(keys.map((key, i) => [key, i]));
  const grades = LENSPIPE.grades = new LENSPIPE.Grades("lenspipe-grades/" + meta.catalogue_id);
  const stamps = LENSPIPE.stamps = new LENSPIPE.Stamps(meta, () => redraw());
  const magBand = meta.bands.includes("i") ? "i" : meta.bands[meta.bands.length - 1];
  const queued = Boolean(columns.queue);
  if (queued) columns.place = columns.queue.map((_, i) => i);     // rows of a queue come in its order
  const has = name => name in columns;
  const view = {within: null,           // what was chosen by the lasso or by likeness: {rows, place: row -> place, text}
    filtered: [], sort: queued ? "place" : "rank", ascending: true, shown: [], chosen: 0, size: 160, zoom: 1};
  const START = {brightness: 0, softening: 0, size: 160};
  const text = columns.name.map((name, i) =>
    [name, columns.candidate_id[i], columns.tile[i], columns.known_lens[i] || ""].join(" ").toLowerCase());

  // ---- order and filters
  const SORTS = {...(queued ? {place: "queue"} : {}), rank: "rank", score: "score", probability: "probability", known_lens_separation_arcsec: "distance to known lens",
    ["mag_" + magBand]: "mag " + magBand, ...(has("anomaly_score") ? {anomaly_score: "anomaly"} : {}), ...(has("ood_quantile") ? {ood_quantile: "unlike the training"} : {}), half_light_radius_arcsec: "half-light radius", n_detection: "detections", ra: "RA", dec: "Dec",
    my_grade: "my grade", mean_grade: "mean grade"};
  for (const [name, label] of Object.entries(SORTS)) $("sort").append(new Option(label, name));
  const VALUE = {A: 3, B: 2, C: 1, N: 0};
  const meanGrade = i => {
    const all = grades.all(keys[i]);
    return all.length ? all.reduce((sum, entry) => sum + VALUE[entry.grade], 0) / all.length : null;
  };
  const sortValue = i => view.sort === "my_grade" ? (VALUE[grades.of(keys[i])] ?? null)
    : view.sort === "mean_grade" ? meanGrade(i) : columns[view.sort][i];
  const classOf = i => {           // of dark matter: what the scan says, none known, or not asked
    const name = has("substructure_class") ? columns.substructure_class[i] : null;
    return name === null ? (has("anomaly_score") && columns.anomaly_score[i] !== null ? "abstained" : "not asked") : name;
  };
  const passes = i => {
    const words = $("search").value.trim().toLowerCase();
    if (words && !text[i].includes(words)) return false;
    const least = parseFloat($("score-min").value), faintest = parseFloat($("mag-max").value);
    if (!Number.isNaN(least) && !(columns.score[i] >= least && columns.score[i] !== null)) return false;
    const mag = columns["mag_" + magBand][i];
    if (!Number.isNaN(faintest) && !(mag !== null && mag <= faintest)) return false;
    const kind = $("filter-class").value;
    if (kind && kind !== classOf(i)) return false;
    const known = $("filter-known").value;
    if (known && (known === "yes") !== (columns.known_lens[i] !== null)) return false;
    const wanted = $("filter-grade").value;
    if (wanted === "none") return grades.of(keys[i]) === "";
    if (wanted === "differ") return new Set(grades.all(keys[i]).map(entry => entry.grade)).size > 1;
    return !wanted || grades.of(keys[i]) === wanted;
  };
  const arrange = () => {
    const kept = view.shown[view.chosen];
    const rows = [];
    view.filtered = [];
    for (let i = 0; i < n; i++) if (passes(i)) view.filtered.push(i);
    for (const i of view.filtered) if (!view.within || view.within.place.has(i)) rows.push(i);
    const alike = view.within && view.within.ordered;
    const values = rows.map(i => alike ? view.within.place.get(i) : sortValue(i)), order = rows.map((_, i) => i), turn = view.ascending || alike ? 1 : -1;
    order.sort((a, b) => {                // what has no value comes last, whichever way the order goes
      const x = values[a], y = values[b];
      if (x === null || y === null) return (x === null) - (y === null) || rows[a] - rows[b];
      return turn * (x < y ? -1 : x > y ? 1 : 0) || rows[a] - rows[b];
    });
    view.shown = order.map(i => rows[i]);
    view.chosen = Math.max(0, view.shown.indexOf(kept));
    $("direction").textContent = view.ascending ? "↑" : "↓";
    $("within").hidden = !view.within;
    if (view.within) $("within").firstChild.textContent = `${view.within.text} (${rows.length.toLocaleString("en")})`;
    layout();
    choose(view.chosen);
    drawMap();
  };

  // ---- the grid: a pool of cards, of which only those in sight exist
  const pool = new Map();
  let columnsAcross = 1, rowHeight = 1;
  const layout = () => {
    const width = $("scroll").clientWidth - 16;
    columnsAcross = Math.max(1, Math.floor(width / (view.size + 8)));
    rowHeight = view.size + 24 + 8;
    $("grid").style.height = Math.ceil(view.shown.length / columnsAcross) * rowHeight + 16 + "px";
    $("nothing").hidden = view.shown.length > 0;
    for (const card of pool.values()) card.remove();
    pool.clear();
    place();
  };
  const place = () => {
    const top = $("scroll").scrollTop, height = $("scroll").clientHeight;
    const first = Math.max(0, Math.floor(top / rowHeight) - 1) * columnsAcross;
    const last = Math.min(view.shown.length, (Math.ceil((top + height) / rowHeight) + 1) * columnsAcross);
    for (const [position, card] of pool) if (position < first || position >= last) { card.remove(); pool.delete(position); }
    for (let position = first; position < last; position++) if (!pool.has(position)) pool.set(position, newCard(position));
  };
  const newCard = position => {
    const i = view.shown[position], card = document.createElement("div");
    card.className = "card" + (position === view.chosen ? " chosen" : "");
    card.dataset.key = keys[i];
    card.style.cssText = `left:${8 + (position % columnsAcross) * (view.size + 8)}px;top:${8 + Math.floor(position / columnsAcross) * rowHeight}px;width:${view.size}px`;
    const canvas = document.createElement("canvas");
    canvas.style.height = view.size - 4 + "px";
    const caption = document.createElement("div"), badge = document.createElement("span");
    caption.className = "caption";
    const rank = document.createElement("span"), score = document.createElement("span");
    rank.textContent = columns.rank[i] === null ? "–" : "#" + columns.rank[i];
    if (columns.known_lens[i] !== null) { score.className = "known"; score.textContent = columns.known_lens[i]; }
    else score.textContent = columns.score[i] === null ? "" : columns.score[i].toPrecision(4);
    caption.append(rank, score);
    badge.className = "badge";
    card.append(canvas, badge, caption);
    card.onclick = () => choose(position);
    $("grid").append(card);
    drawCard(card, i);
    return card;
  };
  const drawCard = (card, i) => {
    const badge = card.querySelector(".badge"), grade = grades.of(keys[i]);
    badge.textContent = grade === "N" ? "✕" : grade;
    badge.dataset.grade = grade;
    const canvas = card.querySelector("canvas");
    card.dataset.drawn = columns.has_stamp[i] ? stamps.draw(i, canvas) : blank(canvas);
  };
  const blank = canvas => {
    canvas.width = canvas.height = 128;
    const context = canvas.getContext("2d");
    context.fillStyle = "#888";
    context.textAlign = "center";
    context.fillText("no picture", 64, 66);
    return true;
  };
  const redraw = () => {
    for (const [position, card] of pool) drawCard(card, view.shown[position]);
    showDetail();
    drawAlike();
  };

  // ---- the chosen candidate
  const choose = (position, scroll = true) => {
    const before = pool.get(view.chosen);
    if (before) before.classList.remove("chosen");
    view.chosen = Math.min(Math.max(0, position), Math.max(0, view.shown.length - 1));
    if (scroll) {
      const y = Math.floor(view.chosen / columnsAcross) * rowHeight, box = $("scroll");
      if (y < box.scrollTop) box.scrollTop = y;
      else if (y + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = y + rowHeight + 8 - box.clientHeight;
      place();
    }
    const now = pool.get(view.chosen);
    if (now) now.classList.add("chosen");
    showDetail();
    showAlike();
    if (map) map.drawOver();
  };
  const small = document.createElement("canvas");
  const showDetail = () => {
    const i = view.shown[view.chosen], big = $("big"), context = big.getContext("2d");
    context.clearRect(0, 0, big.width, big.height);
    $("detail").style.visibility = i === undefined ? "hidden" : "visible";
    $("counts").textContent = `${view.shown.length.toLocaleString("en")} of ${n.toLocaleString("en")} shown` +
      (meta.total_rows > n ? ` (${queued ? "to look at next" : "the best"} of ${meta.total_rows.toLocaleString("en")})` : "") + ` · ${grades.count().toLocaleString("en")} graded`;
    if (i === undefined) return;
    if (columns.has_stamp[i] && stamps.draw(i, small)) {
      const side = meta.stamp_px / view.zoom, from = (meta.stamp_px - side) / 2;
      context.imageSmoothingEnabled = view.zoom < 2;
      context.drawImage(small, from, from, side, side, 0, 0, big.width, big.height);
    }
    const perArcsec = big.clientWidth * view.zoom / meta.stamp_arcsec, bar = [10, 5, 2, 1, 0.5, 0.2].find(a => a * perArcsec < big.clientWidth / 3) || 0.1;
    $("scalebar").firstChild.style.width = bar * perArcsec + "px";
    $("scalebar").lastChild.textContent = `${bar}″ · ${meta.channels.length === 1 ? meta.channels[0] : "R G B = " + meta.channels.join(" ")}` +
      (view.zoom > 1 ? ` · ${view.zoom.toFixed(1)}×` : "");
    for (const button of document.querySelectorAll(".grades button")) button.setAttribute("aria-pressed", String(button.dataset.grade === grades.of(keys[i])));
    $("name").textContent = columns.name[i];
    $("links").replaceChildren(...links(columns.ra[i], columns.dec[i]));
    $("facts").replaceChildren(...facts(i).map(([name, value]) => {
      const line = document.createElement("tr");
      for (const word of [name, value]) line.insertCell().textContent = word;
      return line;
    }));
  };
  const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const facts = i => {
    const at = name => columns[name][i];
    const rows = [...(queued ? [["Here because", at("queue")]] : []), ["Rank", at("rank") ?? "–"], ["Score (raw)", at("score") === null ? "–" : at("score").toPrecision(6)],
      ["Probability", at("probability") === null ? "none" : at("probability").toPrecision(3) +
        (at("prior") === null ? "" : `, at a prior of ${at("prior").toPrecision(2)}`)],
      ["RA, Dec (ICRS)", `${number(at("ra"), 6)}  ${number(at("dec"), 6)}`]];
    rows.push(["Known lens", at("known_lens") === null ? "none near"
      : `${at("known_lens")} (${at("known_lens_grade") || "no grade"}), ${number(at("known_lens_separation_arcsec"), 2)}″`]);
    if (at("known_lens_reference")) rows.push(["Reference", at("known_lens_reference")]);
    if (has("anomaly_score") && at("anomaly_score") !== null) rows.push(["Anomaly", at("anomaly_score").toPrecision(4) + (at("anomaly_false_positive_rate") === null ? "" : `, as much in ${(100 * at("anomaly_false_positive_rate")).toPrecision(3)} % of normal stamps`)]);
    if (has("ood_quantile") && at("ood_quantile") !== null) rows.push(["Unlike the training", `more than ${(100 * at("ood_quantile")).toFixed(1)} % of its stamps`]);
    if (has("substructure_class") && at("substructure_class") !== null) rows.push(["Dark matter", at("substructure_class").replace(/_/g, " ")]);
    rows.push(["mag (AB)", meta.bands.map(band => `${band} ${number(at("mag_" + band), 2)} ± ${number(at("mag_err_" + band), 2)}`).join("  ")]);
    rows.push(["Half-light radius", number(at("half_light_radius_arcsec"), 2) + "″"], ["Axis ratio", number(at("axis_ratio"), 2)],
      ["Detections", at("n_detection")], ["Flags", flagWords(at("flags"))], ["Masked, covered", `${number(at("mask_fraction"), 2)}  ${number(at("covered_fraction"), 2)}`]);
    const others = grades.all(keys[i]);
    if (others.length) rows.push(["Grades", others.map(entry => `${entry.grader}: ${entry.grade === "N" ? "not a lens" : entry.grade}`).join(", ")]);
    rows.push(["Tile", at("tile")], ["Candidate", at("candidate_id")], ["Run", at("run_id")]);
    return rows;
  };
  const flagWords = flags => ["blended", "edge", "masked pixels", "no flux in a band"].filter((_, bit) => flags >> bit & 1).join(", ") || "none";
  const links = (ra, dec) => Object.entries({
    "Legacy Surveys": `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&layer=ls-dr10&zoom=16`,
    "Aladin": `https://aladin.cds.unistra.fr/AladinLite/?target=${encodeURIComponent(ra + " " + dec)}&fov=0.02`,
    "ESASky": `https://sky.esa.int/esasky/?target=${encodeURIComponent(ra + " " + dec)}&fov=0.02&cooframe=J2000`,
    "SIMBAD": `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${encodeURIComponent(ra + " " + dec)}&CooFrame=ICRS&Radius=5&Radius.unit=arcsec`,
  }).map(([name, url]) => Object.assign(document.createElement("a"), {textContent: name, href: url, target: "_blank", rel: "noopener noreferrer"}));

  // ---- grading
  const grade = name => {
    const i = view.shown[view.chosen];
    if (i === undefined) return;
    grades.set(keys[i], name);
    const card = pool.get(view.chosen);
    if (card) drawCard(card, i);
    choose(view.chosen + 1);
    if ($("map-colour").value === "my_grade") drawMap();
  };
  const undo = () => {
    const key = grades.undo();
    if (key === null) return LENSPIPE.say("Nothing to undo.");
    const position = view.shown.indexOf(rowOfKey.get(key));
    if (position >= 0) { choose(position); redraw(); } else arrange();
  };
  const exportGrades = () => {
    const rowOf = key => {
      const i = rowOfKey.get(key);
      return i === undefined ? null : {name: columns.name[i], ra: columns.ra[i], dec: columns.dec[i]};
    };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([grades.toCsv(rowOf)], {type: "text/csv"}));
    link.download = `grades-${meta.catalogue}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const importGrades = async file => {
    try {
      const taken = grades.fromCsv(await file.text());
      LENSPIPE.say(`${taken} grades taken from ${file.name}.`);
      arrange();
    } catch (error) {
      LENSPIPE.say(`${file.name}: ${error.message}`);
    }
  };

  // ---- likeness: the most alike of the chosen candidate, and the map
  let likeness = null, map = null;
  LENSPIPE.likeness = told => {
    likeness = new LENSPIPE.Likeness(told);
    $("map-open").hidden = false;
    document.documentElement.dataset.alike = "yes";
    showAlike();
  };
  const N_ALIKE = 8;
  const showAlike = () => {
    const i = view.shown[view.chosen], near = likeness && i !== undefined ? likeness.near(i).slice(0, N_ALIKE) : [];
    $("alike").hidden = !near.length;
    $("alike-some").replaceChildren(...near.map(row => {
      const canvas = document.createElement("canvas");
      Object.assign(canvas.dataset, {key: keys[row], row});
      canvas.title = columns.name[row] + (columns.score[row] === null ? "" : `, score ${columns.score[row].toPrecision(4)}`);
      canvas.onclick = () => goTo(row);
      return canvas;
    }));
    drawAlike();
  };
  const drawAlike = () => { for (const canvas of $("alike-some").children) if (columns.has_stamp[canvas.dataset.row]) stamps.draw(Number(canvas.dataset.row), canvas); };
  const goTo = row => {
    let position = view.shown.indexOf(row);
    if (position < 0) { leaveWithin(); position = view.shown.indexOf(row); }
    if (position < 0) return LENSPIPE.say("The filters hide this candidate.");
    choose(position);
  };
  const keepWithin = (rows, text, ordered) => {
    view.within = {place: new Map(rows.map((row, k) => [row, k])), text, ordered};
    arrange();
    if (view.shown.length) choose(0);
  };
  const leaveWithin = () => { if (view.within) { view.within = null; arrange(); } };
  const moreLikeThis = () => {
    const i = view.shown[view.chosen];
    if (!likeness || i === undefined || !likeness.near(i).length) return LENSPIPE.say("There is no vector of this candidate.");
    openMap(false);
    keepWithin([i, ...likeness.near(i)], `Most like ${columns.name[i]}`, true);
  };
  const COLOURS = {score: "score", my_grade: "my grade", ["mag_" + magBand]: "mag " + magBand,
    ...(has("anomaly_score") ? {anomaly_score: "anomaly"} : {}), ...(has("ood_quantile") ? {ood_quantile: "unlike the training"} : {}), known: "known lens"};
  for (const [name, label] of Object.entries(COLOURS)) $("map-colour").append(new Option(label, name));
  const openMap = open => {
    if (!likeness || open === !$("map-view").hidden) return;
    $("map-view").hidden = !open;
    $("scroll").hidden = open;
    $("map-open").setAttribute("aria-pressed", String(open));
    if (open && !map) {
      map = new LENSPIPE.Map($("map"), likeness, {chosen: () => view.shown[view.chosen], choose: goTo, tip: showTip,
        lasso: rows => rows.length ? keepWithin(rows, "Inside the lasso", false) : LENSPIPE.say("No candidate lies inside.")});
      $("map-said").textContent = likeness.said + ". The grid shows what the lasso holds.";
    }
    if (open) drawMap(); else { layout(); choose(view.chosen); }
  };
  const drawMap = () => {
    if (!map || $("map-view").hidden) return;
    colourMap();
    map.show(view.filtered, view.within && Uint8Array.from({length: n}, (_, i) => view.within.place.has(i)));
  };
  const colourMap = () => {
    const by = $("map-colour").value, hex = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    const key = by === "my_grade" ? map.paintWords({A: hex("A"), B: hex("B"), C: hex("C"), N: hex("N")}, i => grades.of(keys[i]), "not graded")
      : by === "known" ? map.paintWords({"known lens": "#ffb347"}, i => columns.known_lens[i] !== null ? "known lens" : "", "not known")
      : map.paintNumbers(columns[by]);
    $("map-key").replaceChildren(...key.map(([colour, word]) => {
      const dot = document.createElement("i"), label = document.createElement("span");
      dot.style.background = colour;
      label.append(dot, word === "N" ? "not a lens" : word);
      return label;
    }));
  };
  const showTip = (i, x, y) => {
    const tip = $("map-tip");
    tip.hidden = i === null || !columns.has_stamp[i] || !stamps.draw(i, tip);
    if (!tip.hidden) tip.style.cssText = `left:${Math.min(x + 14, $("map").clientWidth - 110)}px;top:${Math.min(y + 14, $("map").clientHeight - 110)}px`;
  };
  if (meta.likeness) document.head.append(Object.assign(document.createElement("script"), {src: "likeness.js"}));
  if (has("anomaly_score") || columns.substructure_class?.some(name => name !== null)) {
    $("filter-class-label").hidden = false;
    for (const name of [...new Set(columns.rank.map((_, i) => classOf(i)))].sort()) $("filter-class").append(new Option(name === "abstained" ? "no known class" : name.replace(/_/g, " "), name));
  }

  // ---- controls
  const setView = (name, value) => {
    $(name).value = value;
    if (name === "size") { view.size = Number($(name).value); layout(); choose(view.chosen); }
    else { stamps[name] = Number($(name).value); redraw(); }
  };
  for (const name of ["search", "score-min", "mag-max"]) $(name).oninput = arrange;
  for (const name of ["filter-grade", "filter-known", "filter-class"]) $(name).onchange = arrange;
  $("sort").onchange = () => { view.sort = $("sort").value; view.ascending = !["score", "probability", "anomaly_score", "ood_quantile", "n_detection", "my_grade", "mean_grade"].includes(view.sort); arrange(); };
  for (const list of document.querySelectorAll("select")) list.addEventListener("change", () => list.blur());  // keys go to the grid again
  $("direction").onclick = () => { view.ascending = !view.ascending; arrange(); };
  for (const name of Object.keys(START)) { $(name).value = START[name]; $(name).oninput = () => setView(name, $(name).value); }
  $("reset-view").onclick = () => { for (const [name, value] of Object.entries(START)) setView(name, value); view.zoom = 1; showDetail(); };
  $("grader").value = grades.grader;
  $("grader").oninput = () => { grades.grader = $("grader").value.trim(); grades.keep(); redraw(); };
  $("undo").onclick = undo;
  $("map-open").onclick = () => openMap($("map-view").hidden);
  $("map-colour").onchange = drawMap;
  $("map-all").onclick = () => map.over.ondblclick();
  for (const mode of ["lasso", "move"]) $("map-" + mode).onclick = () => {
    map.mode = mode;
    for (const other of ["lasso", "move"]) $("map-" + other).setAttribute("aria-pressed", String(other === mode));
  };
  $("within-leave").onclick = leaveWithin;
  $("alike-all").onclick = moreLikeThis;
  $("export").onclick = exportGrades;
  $("import").onchange = event => { if (event.target.files[0]) importGrades(event.target.files[0]); event.target.value = ""; };
  $("help-open").onclick = () => $("help").showModal();
  for (const button of document.querySelectorAll(".grades button")) button.onclick = () => grade(button.dataset.grade);
  $("scroll").onscroll = () => requestAnimationFrame(place);
  $("big").onwheel = event => {
    event.preventDefault();
    view.zoom = Math.min(12, Math.max(1, view.zoom * (event.deltaY < 0 ? 1.25 : 0.8)));
    showDetail();
  };
  addEventListener("resize", () => { layout(); choose(view.chosen); });
  const KEYS = {
    ArrowRight: () => choose(view.chosen + 1), ArrowLeft: () => choose(view.chosen - 1), j: () => choose(view.chosen + 1), k: () => choose(view.chosen - 1),
    ArrowDown: () => choose(view.chosen + columnsAcross), ArrowUp: () => choose(view.chosen - columnsAcross), Home: () => choose(0), End: () => choose(view.shown.length),
    PageDown: () => choose(view.chosen + columnsAcross * 3), PageUp: () => choose(view.chosen - columnsAcross * 3),
    a: () => grade("A"), b: () => grade("B"), c: () => grade("C"), n: () => grade("N"), 1: () => grade("A"), 2: () => grade("B"), 3: () => grade("C"), 0: () => grade("N"),
    u: undo, e: exportGrades, "[": () => setView("brightness", Number($("brightness").value) - 0.1), "]": () => setView("brightness", Number($("brightness").value) + 0.1),
    "-": () => setView("size", view.size - 16), "+": () => setView("size", view.size + 16), "=": () => setView("size", view.size + 16), "?": () => $("help").showModal(),
    l: moreLikeThis, m: () => openMap($("map-view").hidden), Escape: leaveWithin,
  };
  addEventListener("keydown", event => {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "range";
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) { event.preventDefault(); return undo(); }
    if (typing || $("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });
  document.title = `${meta.catalogue}: lens candidates`;
  $("title").textContent = meta.catalogue;
  document.documentElement.dataset.ready = "yes";
  arrange();
};
