// The page: which candidates are shown in which order, the grid that draws only what is seen, keys, grading.
"use strict";

LENSPIPE.say = text => {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(LENSPIPE.toastTimer);
  LENSPIPE.toastTimer = setTimeout(() => toast.classList.remove("shown"), 3000);
};
LENSPIPE.sheet = (number, group, url, mask) => LENSPIPE.stamps.loaded(number, group, url, mask);
LENSPIPE.PRESETS = {standard: [0, 0, false], "faint arcs": [0.65, 0.35, false], "bright cores": [-0.8, -0.5, false], negative: [0.35, 0, true]};

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
  const sure = columns.probability.some(p => p !== null) ? columns.probability : columns.score;
  columns.undecided = sure.map(p => p === null ? null : Math.abs(p - 0.5));
  const has = name => name in columns && columns[name].some(value => value !== null);
  const phone = () => matchMedia("(max-width: 900px)").matches;
  const START = {brightness: 0, softening: 0, size: phone() ? 84 : 160};
  const view = {within: null,           // what was chosen by the lasso or by likeness: {rows, place: row -> place, text}
    filtered: [], sort: queued ? "place" : "rank", ascending: true, shown: [], chosen: 0, size: START.size, zoom: 1, mode: "colour", big: "colour"};
  const chosen = () => view.shown[view.chosen];
  const text = columns.name.map((name, i) =>
    [name, columns.candidate_id[i], columns.tile[i], columns.known_lens[i] || ""].join(" ").toLowerCase());

  // ---- order and filters
  const SORTS = {...(queued ? {place: "queue"} : {}), rank: "rank", score: "score", probability: "probability", undecided: "undecided",
    ...(has("score_spread") ? {score_spread: "members differ"} : {}), ...(has("anomaly_score") ? {anomaly_score: "anomaly"} : {}),
    ...(has("ood_quantile") ? {ood_quantile: "unlike the training"} : {}), known_lens_separation_arcsec: "distance to known lens",
    ["mag_" + magBand]: "mag " + magBand, half_light_radius_arcsec: "half-light radius", n_detection: "detections", ra: "RA", dec: "Dec",
    my_grade: "my grade", mean_grade: "mean grade", dispute: "disputed"};
  const DOWN = ["score", "probability", "score_spread", "anomaly_score", "ood_quantile", "n_detection", "my_grade", "mean_grade", "dispute"];
  for (const [name, label] of Object.entries(SORTS)) $("sort").append(new Option(label, name));
  const meanGrade = i => {
    const all = grades.all(keys[i]);
    return all.length ? all.reduce((sum, entry) => sum + LENSPIPE.VALUE[entry.grade], 0) / all.length : null;
  };
  const sortValue = i => view.sort === "my_grade" ? (LENSPIPE.VALUE[grades.of(keys[i])] ?? null)
    : view.sort === "mean_grade" ? meanGrade(i) : view.sort === "dispute" ? LENSPIPE.dispute(grades.all(keys[i])) : columns[view.sort][i];
  const sortBy = (name, ascending = !DOWN.includes(name)) => { $("sort").value = view.sort = name; view.ascending = ascending; arrange(); };
  const classOf = i => {           // of dark matter: what the scan says, none known, or not asked
    const name = has("substructure_class") ? columns.substructure_class[i] : null;
    return name === null ? (has("anomaly_score") && columns.anomaly_score[i] !== null ? "abstained" : "not asked") : name;
  };
  const filter = () => {           // what the controls say now, as a function of a row
    const words = $("search").value.trim().toLowerCase(), least = parseFloat($("score-min").value), faintest = parseFloat($("mag-max").value);
    const kind = $("filter-class").value, known = $("filter-known").value, wanted = $("filter-grade").value, mag = columns["mag_" + magBand];
    return i => {
      if (words && !text[i].includes(words)) return false;
      if (!Number.isNaN(least) && !(columns.score[i] >= least && columns.score[i] !== null)) return false;
      if (!Number.isNaN(faintest) && !(mag[i] !== null && mag[i] <= faintest)) return false;
      if (kind && kind !== classOf(i)) return false;
      if (known && (known === "yes") !== (columns.known_lens[i] !== null)) return false;
      if (wanted === "none") return grades.of(keys[i]) === "";
      if (wanted === "differ") return LENSPIPE.dispute(grades.all(keys[i])) > 0;
      return !wanted || (grades.of(keys[i]) !== "" && wanted.includes(grades.of(keys[i])));
    };
  };
  const arrange = () => {
    const kept = chosen(), passes = filter(), rows = [];
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
    $("direction").setAttribute("aria-label", view.ascending ? "Order: rising" : "Order: falling");
    $("within").hidden = !view.within;
    if (view.within) $("within").firstChild.textContent = `${view.within.text} (${rows.length.toLocaleString("en")})`;
    layout();
    choose(view.chosen);
    likes.drawMap();
  };

  // ---- the grid: a pool of cards, of which only those in sight exist
  const pool = new Map(), spare = [];            // a canvas that is made anew costs more than the picture on it
  const drop = card => { spare.push(card.querySelector("canvas")); card.remove(); };
  let columnsAcross = 1, rowHeight = 1, cardSide = START.size;
  const layout = () => {           // cards are as large as asked for, or larger, to fill the row
    const width = $("scroll").clientWidth - 16;
    columnsAcross = Math.max(1, Math.floor((width + 8) / (view.size + 8)));
    cardSide = Math.max(view.size, Math.floor((width + 8) / columnsAcross) - 8);
    rowHeight = cardSide + 24 + 8;
    $("grid").style.height = Math.ceil(view.shown.length / columnsAcross) * rowHeight + 16 + "px";
    $("nothing").hidden = view.shown.length > 0;
    for (const card of pool.values()) drop(card);
    pool.clear();
    place();
  };
  const place = () => {
    const top = $("scroll").scrollTop, height = $("scroll").clientHeight;
    const first = Math.max(0, Math.floor(top / rowHeight) - 1) * columnsAcross;
    const last = Math.min(view.shown.length, (Math.ceil((top + height) / rowHeight) + 1) * columnsAcross);
    for (const [position, card] of pool) if (position < first || position >= last) { drop(card); pool.delete(position); }
    for (let position = first; position < last; position++) if (!pool.has(position)) pool.set(position, newCard(position));
  };
  const short = (score, digits) => {             // a score below 1 never reads as 1
    const text = score.toPrecision(digits);
    return score < 1 && Number(text) >= 1 ? "0." + "9".repeat(digits) : text;
  };
  const newCard = position => {
    const i = view.shown[position], card = document.createElement("div");
    card.className = "card" + (position === view.chosen ? " chosen" : "");
    card.id = "card-" + position;
    card.dataset.key = keys[i];
    card.style.cssText = `left:${8 + (position % columnsAcross) * (cardSide + 8)}px;top:${8 + Math.floor(position / columnsAcross) * rowHeight}px;width:${cardSide}px`;
    const about = {role: "option", "aria-posinset": position + 1, "aria-setsize": view.shown.length, "aria-selected": position === view.chosen};
    for (const [name, value] of Object.entries(about)) card.setAttribute(name, value);
    const canvas = spare.pop() ?? document.createElement("canvas");
    canvas.style.height = cardSide - 4 + "px";
    const caption = document.createElement("div"), badge = document.createElement("span");
    caption.className = "caption";
    const rank = document.createElement("span"), score = document.createElement("span");
    rank.textContent = columns.rank[i] === null ? "–" : "#" + columns.rank[i];
    if (columns.known_lens[i] !== null) { score.className = "known"; score.textContent = columns.known_lens[i]; }
    else score.textContent = columns.score[i] === null ? "" : short(columns.score[i], view.size < 100 ? 2 : 4);
    caption.append(rank, score);
    badge.className = "badge";
    card.append(canvas, badge, caption);
    card.onclick = () => choose(position);
    $("grid").append(card);
    drawCard(card, i);
    if (card.dataset.drawn === "false") canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);   // of another before
    return card;
  };
  const drawCard = (card, i) => {
    const badge = card.querySelector(".badge"), grade = grades.of(keys[i]);
    badge.textContent = grade === "N" ? "✕" : grade;
    badge.dataset.grade = grade;
    card.setAttribute("aria-label", LENSPIPE.spoken(i, app));
    const canvas = card.querySelector("canvas");
    card.dataset.drawn = columns.has_stamp[i] ? stamps.draw(i, canvas, view.mode) : blank(canvas);
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
    likes.draw();
  };

  // ---- the chosen candidate
  const choose = (position, scroll = true) => {
    const before = pool.get(view.chosen);
    if (before) { before.classList.remove("chosen"); before.setAttribute("aria-selected", "false"); }
    view.chosen = Math.min(Math.max(0, position), Math.max(0, view.shown.length - 1));
    if (scroll) {
      const y = Math.floor(view.chosen / columnsAcross) * rowHeight, box = $("scroll");
      if (y < box.scrollTop) box.scrollTop = y;
      else if (y + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = y + rowHeight + 8 - box.clientHeight;
      place();
    }
    const now = pool.get(view.chosen);
    if (now) { now.classList.add("chosen"); now.setAttribute("aria-selected", "true"); $("scroll").setAttribute("aria-activedescendant", now.id); }
    else $("scroll").removeAttribute("aria-activedescendant");
    showDetail();
    likes.show();
    likes.drawOver();
  };
  const small = document.createElement("canvas");
  const VIEW = {colour: meta.channels.length === 1 ? meta.channels[0] : "colour"};
  const showDetail = () => {
    const i = chosen(), big = $("big"), context = big.getContext("2d");
    context.clearRect(0, 0, big.width, big.height);
    $("detail").style.visibility = i === undefined ? "hidden" : "visible";
    $("counts").textContent = `${view.shown.length.toLocaleString("en")} of ${n.toLocaleString("en")} shown` +
      (meta.total_rows > n ? ` (${queued ? "to look at next" : "the best"} of ${meta.total_rows.toLocaleString("en")})` : "") + ` · ${grades.count().toLocaleString("en")} graded`;
    if (i === undefined) return;
    if (columns.has_stamp[i] && stamps.draw(i, small, view.big)) {
      const side = meta.stamp_px / view.zoom, from = (meta.stamp_px - side) / 2;
      context.imageSmoothingEnabled = view.zoom < 2;
      context.drawImage(small, from, from, side, side, 0, 0, big.width, big.height);
    } else if (!columns.has_stamp[i]) {
      context.fillStyle = "#9aa1ad";
      context.font = "18px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("no picture: its tile was not there", big.width / 2, big.height / 2);
    }
    big.setAttribute("aria-label", `${VIEW[view.big] ?? view.big} picture of ${columns.candidate_id[i]}`);
    LENSPIPE.drawCompass($("compass"), columns.north_deg[i], columns.east_deg[i]);
    const perArcsec = big.clientWidth * view.zoom / meta.stamp_arcsec, bar = [10, 5, 2, 1, 0.5, 0.2].find(a => a * perArcsec < big.clientWidth / 3) || 0.1;
    const colours = meta.channels.length === 1 ? meta.channels[0] : "R G B = " + meta.channels.join(" ");
    $("scalebar").firstChild.style.width = bar * perArcsec + "px";
    $("scalebar").lastChild.textContent = `${bar}″ · ${view.big === "colour" ? colours : view.big === "residual" ? `${colours}, less the median of its ellipses` : view.big}` +
      (view.zoom > 1 ? ` · ${view.zoom.toFixed(1)}×` : "");
    for (const button of document.querySelectorAll("[data-grade]:is(button)")) button.setAttribute("aria-pressed", String(button.dataset.grade === grades.of(keys[i])));
    for (const button of $("panels").children) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view.big));
      if (columns.has_stamp[i]) stamps.draw(i, button.firstChild, button.dataset.view);
      else button.firstChild.getContext("2d").clearRect(0, 0, button.firstChild.width, button.firstChild.height);
    }
    $("name").textContent = columns.name[i];
    $("links").replaceChildren(...LENSPIPE.links(meta.viewers, columns.ra[i], columns.dec[i]));
    $("facts").replaceChildren();
    for (const words of LENSPIPE.facts(i, app)) LENSPIPE.row($("facts"), words);
  };
  const show = name => { view.big = name; showDetail(); };
  $("panels").replaceChildren(...stamps.views.map(name => {
    const button = document.createElement("button");
    button.dataset.view = name;
    button.append(document.createElement("canvas"), Object.assign(document.createElement("span"), {textContent: VIEW[name] ?? name}));
    button.onclick = () => show(name);
    $("view").append(new Option(VIEW[name] ?? name, name));
    return button;
  }));

  // ---- grading
  const grade = name => {
    const i = chosen();
    if (i === undefined) return;
    if (!grades.grader) {
      LENSPIPE.say("Type your name first: each grade is kept under the name of its grader.");
      return $("grader").focus();
    }
    grades.set(keys[i], name);
    const card = pool.get(view.chosen);
    if (card) drawCard(card, i);
    choose(view.chosen + 1);
    $("spoken").textContent = `Graded ${name === "N" ? "not a lens" : name}. ` + (chosen() === i ? "That was the last." : `Next: ${LENSPIPE.spoken(chosen(), app)}.`);
    if (likes.coloursGrades()) likes.drawMap();
  };
  const undo = () => {
    const key = grades.undo();
    if (key === null) return LENSPIPE.say("Nothing to undo.");
    const position = view.shown.indexOf(rowOfKey.get(key));
    if (position >= 0) { choose(position); redraw(); } else arrange();
  };
  const exportGrades = only => {
    if (only === "") { LENSPIPE.say("Type your name first: the file is named after its grader."); return $("grader").focus(); }
    const rowOf = key => {
      const i = rowOfKey.get(key);
      return i === undefined ? null : {name: columns.name[i], ra: columns.ra[i], dec: columns.dec[i]};
    };
    LENSPIPE.download(`grades-${LENSPIPE.fileWord(meta.catalogue)}-${only === null ? "all" : LENSPIPE.fileWord(only)}.csv`, grades.toCsv(rowOf, only));
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
  const openGraders = () => { LENSPIPE.showGraders(grades, $); $("graders").showModal(); };
  const openSave = () => {
    $("save-title").textContent = `Save the ${view.shown.length.toLocaleString("en")} candidates shown`;
    const runs = new Set(view.shown.map(i => columns.run_id[i])).size;
    $("save-command").textContent = `lenspipe stamps cut ${runs > 1 ? "EACH_RUN" : "RUN"} --ids ${listName()} --format fits --size 101 --out cutouts`;
    $("save").showModal();
  };
  const listName = () => `candidates-${LENSPIPE.fileWord(meta.catalogue)}.csv`;

  const app = {$, meta, columns, keys, grades, stamps, view, n, magBand, arrange, choose, chosen, layout, radiusArcsec: meta.stamp_arcsec / 4};
  const likes = LENSPIPE.alike(app);
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
  const setPreset = name => {
    const [brightness, softening, negative] = LENSPIPE.PRESETS[name];
    $("preset").value = name;
    stamps.negative = negative;
    setView("brightness", brightness);
    setView("softening", softening);
  };
  const setMode = name => { $("view").value = view.mode = view.big = name; redraw(); };
  const cycle = (list, set) => set(list.options[(list.selectedIndex + 1) % list.options.length].value);
  const zoomBig = factor => { view.zoom = Math.min(12, Math.max(1, view.zoom * factor)); showDetail(); };
  for (const name of ["search", "score-min", "mag-max"]) $(name).oninput = arrange;
  for (const name of ["filter-grade", "filter-known", "filter-class"]) $(name).onchange = arrange;
  $("sort").onchange = () => sortBy($("sort").value);
  for (const name of Object.keys(LENSPIPE.PRESETS)) $("preset").append(new Option(name, name));
  $("preset").onchange = () => setPreset($("preset").value);
  $("view").onchange = () => setMode($("view").value);
  $("direction").onclick = () => { view.ascending = !view.ascending; arrange(); };
  for (const name of Object.keys(START)) { $(name).value = START[name]; $(name).oninput = () => setView(name, $(name).value); }
  $("reset-view").onclick = () => { setPreset("standard"); setView("size", START.size); view.zoom = 1; setMode("colour"); };
  $("grader").value = grades.grader;
  $("grader").oninput = () => { grades.grader = $("grader").value.trim(); grades.keep(); redraw(); offer(); };
  let declined = false;
  const offer = () => {            // grades that older pages kept without a name
    const found = declined ? 0 : grades.nameless().length;
    const moves = $("nameless").hidden === found > 0;
    $("nameless").hidden = !found;
    if (found) $("nameless").firstChild.textContent = `${found.toLocaleString("en")} grades of this catalogue were given in this browser without a name. Take them over as ${grades.grader}?`;
    if (moves) layout();
  };
  $("nameless-take").onclick = () => { LENSPIPE.say(`${grades.adopt()} grades are now those of ${grades.grader}.`); offer(); arrange(); };
  $("nameless-leave").onclick = () => { declined = true; offer(); };
  addEventListener("storage", event => {   // another tab of this page has graded
    if (event.key !== grades.storageKey) return;
    grades.refresh();
    redraw();
    offer();
    if (likes.coloursGrades()) likes.drawMap();
  });
  $("undo").onclick = undo;
  $("export").onclick = () => exportGrades(grades.grader);
  $("export-all").onclick = () => exportGrades(null);
  $("import-open").onclick = () => $("import").click();
  $("import").onchange = event => { if (event.target.files[0]) importGrades(event.target.files[0]); event.target.value = ""; };
  $("graders-open").onclick = openGraders;
  $("disputed").onclick = () => { $("filter-grade").value = "differ"; sortBy("dispute"); };
  $("save-open").onclick = openSave;
  $("save-regions").onclick = () => LENSPIPE.download(listName().replace(".csv", ".reg"), LENSPIPE.regions(view.shown, app), "text/plain");
  $("save-list").onclick = () => LENSPIPE.download(listName(), LENSPIPE.listCsv(view.shown, app));
  $("help-open").onclick = () => $("help").showModal();
  $("tools-open").onclick = () => {
    const open = document.body.classList.toggle("tools");
    $("tools-open").setAttribute("aria-expanded", String(open));
    layout();
  };
  for (const button of document.querySelectorAll("button[data-grade]")) button.onclick = () => grade(button.dataset.grade);
  $("before").onclick = () => choose(view.chosen - 1);
  $("next").onclick = () => choose(view.chosen + 1);
  $("scroll").onscroll = () => requestAnimationFrame(place);
  $("big").onwheel = event => { event.preventDefault(); zoomBig(event.deltaY < 0 ? 1.25 : 0.8); };
  let touched = null;
  $("big").ontouchstart = event => { touched = event.touches.length === 1 ? event.touches[0].clientX : null; };
  $("big").ontouchend = event => {         // a swipe goes on
    const moved = touched === null ? 0 : event.changedTouches[0].clientX - touched;
    if (Math.abs(moved) > 50) choose(view.chosen + (moved < 0 ? 1 : -1));
  };
  addEventListener("resize", () => { layout(); choose(view.chosen); });
  // Lists that were used by the pointer give the keys back to the candidates; who tabs through the controls stays in them.
  let byKey = false;
  addEventListener("keydown", () => { byKey = true; }, true);
  addEventListener("mousedown", () => { byKey = false; }, true);
  for (const control of document.querySelectorAll("select, input[type=range]")) control.addEventListener("change", () => { if (!byKey) toGrid(); });
  const toGrid = () => { document.activeElement.blur(); $("scroll").focus({preventScroll: true}); };

  const go = (dx, dy, by) => () => likes.isOpen() && by === undefined ? likes.step(dx, dy) : choose(view.chosen + (by ?? dx + dy * columnsAcross));
  const larger = sign => () => likes.isOpen() ? likes.zoom(1.3 ** sign) : setView("size", view.size + 16 * sign);
  const KEYS = {
    ArrowRight: go(1, 0), ArrowLeft: go(-1, 0), ArrowDown: go(0, 1), ArrowUp: go(0, -1), j: go(0, 0, 1), k: go(0, 0, -1), Home: () => choose(0), End: () => choose(view.shown.length),
    PageDown: () => choose(view.chosen + columnsAcross * 3), PageUp: () => choose(view.chosen - columnsAcross * 3),
    a: () => grade("A"), b: () => grade("B"), c: () => grade("C"), n: () => grade("N"), 1: () => grade("A"), 2: () => grade("B"), 3: () => grade("C"), 0: () => grade("N"),
    u: undo, e: () => exportGrades(grades.grader), i: () => $("import").click(), w: openGraders, d: openSave, v: () => cycle($("view"), setMode), p: () => cycle($("preset"), setPreset),
    "[": () => setView("brightness", Number($("brightness").value) - 0.1), "]": () => setView("brightness", Number($("brightness").value) + 0.1), z: () => zoomBig(1.25), x: () => zoomBig(0.8),
    "-": larger(-1), "+": larger(1), "=": larger(1), "?": () => $("help").showModal(), "/": () => { document.body.classList.add("tools"); $("search").focus(); },
    l: likes.moreLikeThis, m: () => likes.openMap(!likes.isOpen()), o: likes.around, Escape: likes.leaveWithin,
  };
  addEventListener("keydown", event => {
    const {tagName, type} = event.target, ranged = type === "range", typing = ["INPUT", "SELECT"].includes(tagName) && !ranged;
    if (typing && (event.key === "Escape" || (event.key === "Enter" && tagName === "INPUT"))) { event.preventDefault(); return toGrid(); }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) { event.preventDefault(); return undo(); }
    if (typing || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ranged && (event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key))) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    if (document.activeElement === document.body) $("scroll").focus({preventScroll: true});
    action();
  });
  document.title = `${meta.catalogue}: lens candidates`;
  $("title").textContent = meta.catalogue;
  document.documentElement.dataset.ready = "yes";
  arrange();
  offer();
};
