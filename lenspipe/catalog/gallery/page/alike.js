// More like this, and the map beside the grid: what a page with vectors has.
"use strict";

LENSPIPE.N_ALIKE = 8;
LENSPIPE.N_AROUND = 24;

// app: {$, meta, columns, keys, grades, stamps, view, n, magBand, arrange, choose, chosen, layout}
LENSPIPE.alike = app => {
  const {$, meta, columns, keys, grades, stamps, view} = app, has = name => name in columns;
  let likeness = null, map = null;
  LENSPIPE.likeness = told => {
    likeness = new LENSPIPE.Likeness(told);
    $("map-open").hidden = false;
    document.documentElement.dataset.alike = "yes";
    show();
  };
  const show = () => {
    const i = app.chosen(), near = likeness && i !== undefined ? likeness.near(i).slice(0, LENSPIPE.N_ALIKE) : [];
    $("alike").hidden = !near.length;
    $("alike-some").replaceChildren(...near.map(row => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      Object.assign(button.dataset, {key: keys[row], row});
      button.title = columns.name[row] + (columns.score[row] === null ? "" : `, score ${columns.score[row].toPrecision(4)}`);
      button.setAttribute("aria-label", "Alike: " + LENSPIPE.spoken(row, app));
      button.onclick = () => goTo(row);
      button.append(canvas);
      return button;
    }));
    draw();
  };
  const draw = () => { for (const button of $("alike-some").children) if (columns.has_stamp[button.dataset.row]) stamps.draw(Number(button.dataset.row), button.firstChild, view.mode); };
  const goTo = row => {
    let position = view.shown.indexOf(row);
    if (position < 0) { leaveWithin(); position = view.shown.indexOf(row); }
    if (position < 0) return LENSPIPE.say("The filters hide this candidate.");
    app.choose(position);
  };
  const keepWithin = (rows, text, ordered) => {
    view.within = {place: new Map(rows.map((row, k) => [row, k])), text, ordered};
    app.arrange();
    if (view.shown.length) app.choose(0);
  };
  const leaveWithin = () => { if (view.within) { view.within = null; app.arrange(); } };
  const moreLikeThis = () => {
    const i = app.chosen();
    if (!likeness || i === undefined || !likeness.near(i).length) return LENSPIPE.say("There is no vector of this candidate.");
    openMap(false);
    keepWithin([i, ...likeness.near(i)], `Most like ${columns.name[i]}`, true);
  };

  // ---- the map
  const isOpen = () => !$("map-view").hidden;
  const COLOURS = {score: "score", my_grade: "my grade", ["mag_" + app.magBand]: "mag " + app.magBand,
    ...(has("anomaly_score") ? {anomaly_score: "anomaly"} : {}), ...(has("ood_quantile") ? {ood_quantile: "unlike the training"} : {}), known: "known lens"};
  for (const [name, label] of Object.entries(COLOURS)) $("map-colour").append(new Option(label, name));
  const openMap = open => {
    if (!likeness || open === isOpen()) return;
    $("map-view").hidden = !open;
    $("list").hidden = open;
    $("map-open").setAttribute("aria-pressed", String(open));
    if (open && !map) {
      map = new LENSPIPE.Map($("map"), likeness, {chosen: app.chosen, choose: goTo, tip: showTip,
        lasso: rows => rows.length ? keepWithin(rows, "Inside the lasso", false) : LENSPIPE.say("No candidate lies inside.")});
      $("map-said").textContent = likeness.said + ". The grid shows what the lasso holds.";
    }
    if (open) drawMap(); else { app.layout(); app.choose(view.chosen); }
  };
  const drawMap = () => {
    if (!map || !isOpen()) return;
    colourMap();
    map.show(view.filtered, view.within && Uint8Array.from({length: app.n}, (_, i) => view.within.place.has(i)));
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
    tip.hidden = i === null || !columns.has_stamp[i] || !stamps.draw(i, tip, view.mode);
    if (!tip.hidden) tip.style.cssText = `left:${Math.min(x + 14, $("map").clientWidth - 110)}px;top:${Math.min(y + 14, $("map").clientHeight - 110)}px`;
  };
  // What the keys do while the map is open.
  const step = (dx, dy) => {
    const i = app.chosen(), found = i === undefined || Number.isNaN(map.x[i]) ? undefined : map.beside(i, dx, dy);
    if (found !== undefined) goTo(found);
  };
  const zoom = factor => map.zoomAt(factor, $("map").clientWidth / 2, $("map").clientHeight / 2);
  const around = () => {
    const i = app.chosen();
    if (!likeness || i === undefined || Number.isNaN(likeness.x[i])) return LENSPIPE.say("This candidate has no place on the map.");
    openMap(true);
    keepWithin(map.around(i, LENSPIPE.N_AROUND), `Nearest on the map to ${columns.name[i]}`, true);
  };
  $("map-open").onclick = () => openMap(!isOpen());
  $("map-colour").onchange = drawMap;
  $("map-all").onclick = () => map.over.ondblclick();
  $("map-around").onclick = around;
  for (const mode of ["lasso", "move"]) $("map-" + mode).onclick = () => {
    map.mode = mode;
    for (const other of ["lasso", "move"]) $("map-" + other).setAttribute("aria-pressed", String(other === mode));
  };
  $("within-leave").onclick = leaveWithin;
  $("alike-all").onclick = moreLikeThis;
  if (meta.likeness) document.head.append(Object.assign(document.createElement("script"), {src: "likeness.js"}));
  return {show, draw, drawMap, drawOver: () => { if (map) map.drawOver(); }, isOpen, openMap, step, zoom, around, moreLikeThis, leaveWithin,
    coloursGrades: () => $("map-colour").value === "my_grade"};
};
