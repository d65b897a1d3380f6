// Grades of several graders: kept in the browser, undone, written and read as CSV.
"use strict";
var LENSPIPE = window.LENSPIPE || {};

LENSPIPE.Grades = class {
  constructor(storageKey) {
    this.storageKey = storageKey;
    this.byGrader = Object.create(null);  // of names and nothing else, not even "constructor": grader -> candidate key -> {grade, time}
    this.grader = "";
    this.undone = [];              // what undo puts back, newest last
    try {
      const kept = JSON.parse(localStorage.getItem(storageKey) || "{}");
      Object.assign(this.byGrader, kept.byGrader || {});
      this.grader = kept.grader || "";
    } catch (error) {
      LENSPIPE.say("Grades kept in this browser cannot be read: " + error.message);
    }
  }

  keep() {
    try {
      localStorage.setItem(this.storageKey, JSON.stringify({grader: this.grader, byGrader: this.byGrader}));
    } catch (error) {
      LENSPIPE.say("The browser does not keep grades (" + error.message + "): export them before you close the page.");
    }
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
    const grades = this.byGrader[grader] = this.byGrader[grader] || {};
    this.undone.push({grader, key, before: grades[key] || null});
    grades[key] = {grade, time: new Date().toISOString()};
    this.keep();
  }

  undo() {
    const last = this.undone.pop();
    if (!last) return null;
    if (last.before) this.byGrader[last.grader][last.key] = last.before;
    else delete this.byGrader[last.grader][last.key];
    this.keep();
    return last.key;
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
    for (const row of rows) {
      const grades = this.byGrader[row[at("grader")]] = this.byGrader[row[at("grader")]] || {};
      const key = LENSPIPE.joinKey(row[at("run_id")], row[at("candidate_id")]);
      const time = at("time") < 0 ? "" : row[at("time")];
      if (!grades[key] || grades[key].time <= time) {
        grades[key] = {grade: row[at("grade")], time};
        taken += 1;
      }
    }
    this.keep();
    return taken;
  }
};
LENSPIPE.Grades.NAMES = ["A", "B", "C", "N"];
LENSPIPE.Grades.HEADER = ["run_id", "candidate_id", "name", "ra", "dec", "grader", "grade", "time"];

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
