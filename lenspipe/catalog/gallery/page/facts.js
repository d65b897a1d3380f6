// What is said of one candidate: facts, links, words for its card.
"use strict";

LENSPIPE.facts = (i, {meta, columns, keys, grades}) => {
  const has = name => name in columns, at = name => columns[name][i];
  const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const flags = ["blended", "edge", "masked pixels", "no flux in a band"].filter((_, bit) => at("flags") >> bit & 1).join(", ") || "none";
  const rows = [...(has("queue") ? [["Here because", at("queue")]] : []), ["Rank", at("rank") ?? "–"],
    ["Candidate", at("candidate_id")], ["Score (raw)", at("score") === null ? "–" : at("score").toPrecision(6)],
    ["Probability", at("probability") === null ? "none" : at("probability").toPrecision(3) +
      (at("prior") === null ? "" : `, at a prior of ${at("prior").toPrecision(2)}`)]];
  if (has("score_spread") && at("score_spread") !== null) rows.push(["Members' scores", `spread ${at("score_spread").toPrecision(2)}`]);
  rows.push(["RA, Dec (ICRS)", `${number(at("ra"), 6)}  ${number(at("dec"), 6)}`], ["Known lens", at("known_lens") === null ? "none near"
    : `${at("known_lens")} (${at("known_lens_grade") || "no grade"}), ${number(at("known_lens_separation_arcsec"), 2)}″`]);
  if (at("known_lens_reference")) rows.push(["Reference", at("known_lens_reference")]);
  if (has("anomaly_score") && at("anomaly_score") !== null) rows.push(["Anomaly", at("anomaly_score").toPrecision(4) + (at("anomaly_false_positive_rate") === null ? "" : `, as much in ${(100 * at("anomaly_false_positive_rate")).toPrecision(3)} % of normal stamps`)]);
  if (has("ood_quantile") && at("ood_quantile") !== null) rows.push(["Unlike the training", `more than ${(100 * at("ood_quantile")).toFixed(1)} % of its stamps`]);
  if (has("substructure_class") && at("substructure_class") !== null) rows.push(["Dark matter", at("substructure_class").replace(/_/g, " ")]);
  rows.push(["mag (AB)", meta.bands.map(band => `${band} ${number(at("mag_" + band), 2)} ± ${number(at("mag_err_" + band), 2)}`).join("  ")],
    ["Half-light radius", number(at("half_light_radius_arcsec"), 2) + "″"], ["Axis ratio", number(at("axis_ratio"), 2)],
    ["Detections", at("n_detection")], ["Flags", flags], ["Masked, covered", `${number(at("mask_fraction"), 2)}  ${number(at("covered_fraction"), 2)}`]);
  const given = grades.all(keys[i]);
  if (given.length) rows.push(["Grades", given.map(entry => `${entry.grader}: ${entry.grade === "N" ? "not a lens" : entry.grade}`).join(", ")]);
  rows.push(["Tile", at("tile")], ["Run", at("run_id")]);
  return rows;
};

LENSPIPE.links = (viewers, ra, dec) => viewers.map(([name, address]) => Object.assign(document.createElement("a"), {
  textContent: name, href: address.replaceAll("{ra}", ra).replaceAll("{dec}", dec), target: "_blank", rel: "noopener noreferrer"}));

// A card in words, for who hears the page.
LENSPIPE.spoken = (i, {columns, keys, grades}) => {
  const grade = grades.of(keys[i]);
  return [columns.rank[i] === null ? columns.candidate_id[i] : `rank ${columns.rank[i]}`, columns.score[i] === null ? "no score" : `score ${columns.score[i].toPrecision(4)}`,
    columns.known_lens[i] === null ? "" : `known lens ${columns.known_lens[i]}`, columns.has_stamp[i] ? "" : "no picture",
    grade === "" ? "not graded" : grade === "N" ? "graded not a lens" : `graded ${grade}`].filter(Boolean).join(", ");
};

// North and east as they lie in the pictures: angles from +x towards +y of the tile, which has its first row at the bottom.
LENSPIPE.drawCompass = (svg, north, east) => {
  const parts = [];
  const make = (kind, set) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(set)) part.setAttribute(name, value);
    parts.push(part);
    return part;
  };
  if (north !== null && east !== null) {
    for (const [word, degrees] of [["N", north], ["E", east]]) {
      const x = Math.cos(degrees * Math.PI / 180), y = -Math.sin(degrees * Math.PI / 180);
      for (const [stroke, width] of [["#000", 4], ["#fff", 1.6]]) make("line", {x1: 0, y1: 0, x2: 18 * x, y2: 18 * y, stroke, "stroke-width": width, "stroke-linecap": "round"});
      make("text", {x: 25 * x, y: 25 * y, fill: "#fff", stroke: "#000", "stroke-width": 3, "paint-order": "stroke", "font-size": 12,
        "text-anchor": "middle", "dominant-baseline": "central"}).textContent = word;
    }
  }
  svg.replaceChildren(...parts);
  const words = degrees => ["right", "up", "left", "down"][Math.round(degrees / 90) % 4];
  svg.setAttribute("aria-label", north === null ? "directions not known" : `north points ${words(north)}, east ${words(east)}`);
};
