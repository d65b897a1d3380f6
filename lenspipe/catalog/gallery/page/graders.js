// Several graders compared: how often two agree, and where to talk.
"use strict";

LENSPIPE.VALUE = {A: 3, B: 2, C: 1, N: 0};

// Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70, 213), as `lenspipe grades` has it; null where chance alone agrees.
LENSPIPE.kappa = (one, two) => {
  const of = values => { const counts = [0, 0, 0, 0]; for (const value of values) counts[value] += 1; return counts; };
  const a = of(one), b = of(two);
  let seen = 0, chance = 0;
  for (let i = 0; i < one.length; i++) seen += (one[i] - two[i]) ** 2;
  for (let i = 0; i < 4; i++) for (let j = 0; j < 4; j++) chance += (i - j) ** 2 * a[i] * b[j] / one.length;
  return one.length && chance ? 1 - seen / chance : null;
};

// For each pair of graders: how many candidates both graded, the part of equal grades, kappa.
LENSPIPE.pairs = grades => {
  const names = Object.keys(grades.byGrader).filter(name => Object.keys(grades.byGrader[name]).length).sort();
  const found = [];
  for (let a = 0; a < names.length; a++) for (let b = a + 1; b < names.length; b++) {
    const first = grades.byGrader[names[a]], second = grades.byGrader[names[b]];
    const both = Object.keys(first).filter(key => Object.hasOwn(second, key));
    const one = both.map(key => LENSPIPE.VALUE[first[key].grade]), two = both.map(key => LENSPIPE.VALUE[second[key].grade]);
    found.push({first: names[a], second: names[b], n: both.length,
      equal: both.length ? one.filter((value, i) => value === two[i]).length / both.length : null, kappa: LENSPIPE.kappa(one, two)});
  }
  return found;
};

// How far the grades of one candidate lie apart, 0 to 3; null for fewer than two.
LENSPIPE.dispute = entries => {
  const values = entries.map(entry => LENSPIPE.VALUE[entry.grade]);
  return values.length > 1 ? Math.max(...values) - Math.min(...values) : null;
};

LENSPIPE.row = (table, words, kind = "td") => {
  const line = document.createElement("tr");
  for (const word of words) line.append(Object.assign(document.createElement(kind), {textContent: word}));
  table.append(line);
};

LENSPIPE.showGraders = (grades, $) => {
  const counts = Object.entries(grades.byGrader).filter(([, given]) => Object.keys(given).length);
  $("graders-counts").textContent = counts.length
    ? counts.map(([name, given]) => `${name}: ${Object.keys(given).length.toLocaleString("en")} graded`).join(" · ") : "Nothing is graded yet.";
  const pairs = LENSPIPE.pairs(grades), table = $("graders-table");
  table.replaceChildren();
  if (pairs.length) LENSPIPE.row(table, ["two graders", "both graded", "equal", "kappa"], "th");
  for (const {first, second, n, equal, kappa} of pairs) {
    LENSPIPE.row(table, [`${first}, ${second}`, n, equal === null ? "–" : `${Math.round(100 * equal)} %`, kappa === null ? "–" : kappa.toFixed(2)]);
  }
  $("graders-said").textContent = pairs.length
    ? "Kappa is Cohen's with quadratic weights: 1 is full agreement, 0 what chance gives."
    : "Import the grades of another grader to compare.";
  $("disputed").disabled = !pairs.length;
};
