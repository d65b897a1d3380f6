// Grades of several graders: kept in the browser, undone, written and read as CSV.
"use strict";
var LENSPIPE = window.LENSPIPE || {};

LENSPIPE.Grades = class {
  constructor(storageKey) {
    this.storageKey = storageKey;
    this.byGrader = Object.create(null);  // of names and nothing else, not even "constructor": grader -> candidate key -> {grade, time}
    this.gone = Object.create(null);       // grader -> candidate key -> when its grade was taken back
    this.undone = [];              // what undo puts back, newest last
    this.grader = this.refresh().grader || "";
  }

  // Takes in what other tabs of the page have kept: of two states of one grade the one that was changed last stays.
  refresh() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(this.storageKey) || "{}");
      const newer = (grader, key, changed) => changed > this.changed(grader, key);
      for (const [grader, grades] of Object.entries(kept.byGrader || {})) for (const [key, entry] of Object.entries(grades)) {
        if (newer(grader, key, LENSPIPE.changed(entry))) this.put(grader, key, entry);
      }
      for (const [grader, times] of Object.entries(kept.gone || {})) for (const [key, changed] of Object.entries(times)) {
        if (newer(grader, key, changed)) this.drop(grader, key, changed);
      }
    } catch (error) {
      LENSPIPE.say("Grades kept in this browser cannot be read: " + error.message);
    }
    return kept || {};
  }

  write() {
    try {
      localStorage.setItem(this.storageKey, JSON.stringify({grader: this.grader, byGrader: this.byGrader, gone: this.gone}));
    } catch (error) {
      LENSPIPE.say("The browser does not keep grades (" + error.message + "): export them before you close the page.");
    }
  }

  keep() { this.refresh(); this.write(); }

  // When a grade was last given, imported or taken back, ms; -1 where it never was.
  changed(grader, key) {
    const entry = this.byGrader[grader]?.[key];
    return Math.max(entry ? LENSPIPE.changed(entry) : -1, this.gone[grader]?.[key] ?? -1);
  }

  // Now, and later than the last change, whatever the clock says.
  stamp(grader, key) { return Math.max(Date.now(), this.changed(grader, key) + 1); }

  put(grader, key, entry) {
    (this.byGrader[grader] = this.byGrader[grader] || {})[key] = entry;
    if (this.gone[grader]) delete this.gone[grader][key];
  }

  drop(grader, key, changed) {
    if (this.byGrader[grader]) delete this.byGrader[grader][key];
    (this.gone[grader] = this.gone[grader] || {})[key] = changed;
  }

  mine() { return (this.grader && this.byGrader[this.grader]) || {}; }

  of(key) { const entry = this.mine()[key]; return entry ? entry.grade : ""; }

  all(key) {
    return Object.entries(this.byGrader).filter(([, grades]) => grades[key])
      .map(([grader, grades]) => ({grader, grade: grades[key].grade}));
  }

  // A grade is somebody's: without a name there is none.
  set(key, grade) {
    const grader = this.grader;
    if (!grader) throw new Error("a grade needs the name of its grader");
    this.refresh();
    const entry = {grade, time: new Date().toISOString(), changed: this.stamp(grader, key)};
    this.undone.push({grader, key, time: entry.time, before: this.byGrader[grader]?.[key] || null});
    this.put(grader, key, entry);
    this.write();
  }

  // Takes back the last grade of this tab that no other tab and no import has replaced since; returns its candidate, or null.
  undo() {
    this.refresh();
    for (let last = this.undone.pop(); last; last = this.undone.pop()) {
      const {grader, key, time, before} = last;
      if (this.byGrader[grader]?.[key]?.time !== time) continue;
      const changed = this.stamp(grader, key);
      if (before) this.put(grader, key, {...before, changed});
      else this.drop(grader, key, changed);
      this.write();
      return key;
    }
    return null;
  }

  // Candidates graded before pages asked for a name, which the grader has not graded since.
  nameless() {
    const mine = this.mine();
    if (!this.grader || this.grader === LENSPIPE.Grades.NAMELESS) return [];
    return Object.entries(this.byGrader[LENSPIPE.Grades.NAMELESS] || {})
      .filter(([key, entry]) => !mine[key] || mine[key].time < entry.time).map(([key]) => key);
  }

  // Puts the grades of no name under that of the grader; returns how many.
  adopt() {
    this.refresh();
    const from = LENSPIPE.Grades.NAMELESS, keys = this.nameless();
    for (const key of keys) {
      this.put(this.grader, key, {...this.byGrader[from][key], changed: this.stamp(this.grader, key)});
      this.drop(from, key, this.stamp(from, key));
    }
    this.write();
    return keys.length;
  }

  count() { return Object.keys(this.mine()).length; }

  // The grades of one grader, or of all.
  toCsv(rowOf, only = null) {
    const lines = [LENSPIPE.Grades.HEADER.join(",")];
    for (const [grader, grades] of Object.entries(this.byGrader)) {
      if (only === null || grader === only) for (const [key, entry] of Object.entries(grades)) {
        const [run, candidate] = LENSPIPE.splitKey(key);
        const row = rowOf(key) || {};
        const cells = [run, candidate, row.name, row.ra, row.dec, grader, entry.grade, entry.time];
        lines.push(cells.map(LENSPIPE.csvCell).join(","));
      }
    }
    return lines.join("\n") + "\n";
  }

  // Adds grades; of two grades of one grader for one candidate the newer stays. Returns how many were taken.
  fromCsv(text) {
    const [header, ...rows] = LENSPIPE.parseCsv(text).map(row => row.map(LENSPIPE.plainCell));
    const at = name => header ? header.indexOf(name) : -1;
    for (const name of ["run_id", "candidate_id", "grader", "grade"]) {
      if (at(name) < 0) throw new Error("the file has no column " + name);
    }
    let taken = 0;
    for (const row of rows) {
      const grade = row[at("grade")];
      if (!LENSPIPE.Grades.NAMES.includes(grade)) throw new Error("not a grade: " + grade + " (A, B, C or N)");
      if (!(row[at("grader")] || "").trim()) throw new Error("a grade has no grader; write a name into the column grader");
    }
    this.refresh();
    for (const row of rows) {
      const grader = row[at("grader")], key = LENSPIPE.joinKey(row[at("run_id")], row[at("candidate_id")]);
      const time = at("time") < 0 ? "" : row[at("time")], before = this.byGrader[grader]?.[key];
      if (!before || before.time <= time) {
        this.put(grader, key, {grade: row[at("grade")], time, changed: this.stamp(grader, key)});
        taken += 1;
      }
    }
    this.write();
    return taken;
  }
};
LENSPIPE.Grades.NAMES = ["A", "B", "C", "N"];
LENSPIPE.Grades.NAMELESS = "anonymous";   // of whom pages said a grade was when no name was typed
LENSPIPE.Grades.HEADER = ["run_id", "candidate_id", "name", "ra", "dec", "grader", "grade", "time"];

LENSPIPE.changed = entry => entry.changed ?? (Date.parse(entry.time) || 0);   // older pages kept only the time of the grade
LENSPIPE.joinKey = (run, candidate) => run + "/" + candidate;
LENSPIPE.splitKey = key => [key.slice(0, key.indexOf("/")), key.slice(key.indexOf("/") + 1)];
LENSPIPE.csvCell = value => {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^'*[=+\-@\t\r]/.test(text) && !LENSPIPE.NUMBER.test(text)) text = "'" + text;  // a spreadsheet would run it
  return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
};
LENSPIPE.NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
LENSPIPE.plainCell = cell => /^'+[=+\-@\t\r]/.test(cell) ? cell.slice(1) : cell;  // what csvCell has put before it
LENSPIPE.parseCsv = text => {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c === '"' && text[i + 1] === '"') { cell += c; i++; }
      else if (c === '"') quoted = false;
      else cell += c;
    } else if (c === '"' && cell === "") quoted = true;  // RFC 4180: inside a cell it is a letter
    else if (c === ",") { row.push(cell); cell = ""; }
    else if (c === "\n" || c === "\r") {
      if (c === "\r" && text[i + 1] === "\n") i++;
      row.push(cell); cell = "";
      if (row.length > 1 || row[0] !== "") rows.push(row);
      row = [];
    } else cell += c;
  }
  if (quoted) throw new Error("the file ends inside a quoted cell");
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows;
};
