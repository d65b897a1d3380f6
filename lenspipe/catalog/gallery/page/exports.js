// Files that the page saves: grades, a list of candidates, DS9 regions.
"use strict";

LENSPIPE.download = (name, text, type = "text/csv") => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

// Words that every file system takes in a name.
LENSPIPE.fileWord = text => text.normalize("NFKC").replace(/[^\p{L}\p{N}.-]+/gu, "_").replace(/^[_.]+|[_.]+$/g, "").slice(0, 60) || "x";

LENSPIPE.listCsv = (rows, {columns, keys, grades}) => {
  const names = ["run_id", "candidate_id", "name", "ra", "dec", "rank", "score", "probability"];
  const lines = [[...names, "my_grade"].join(",")];
  for (const i of rows) lines.push([...names.map(name => columns[name][i]), grades.of(keys[i])].map(LENSPIPE.csvCell).join(","));
  return lines.join("\n") + "\n";
};

// DS9 reads "#" in braces as text; braces and line ends would end it.
LENSPIPE.regions = (rows, {columns, keys, grades, radiusArcsec}) => {
  const colour = {A: "green", B: "yellow", C: "orange", N: "red", "": "cyan"};
  const lines = ["# Region file format: DS9 version 4.1", "icrs"];
  for (const i of rows) {
    if (columns.ra[i] === null || columns.dec[i] === null) continue;
    const grade = grades.of(keys[i]);
    const words = [columns.rank[i] === null ? "" : "#" + columns.rank[i], columns.candidate_id[i], grade].filter(Boolean).join(" ");
    lines.push(`circle(${columns.ra[i].toFixed(7)},${columns.dec[i].toFixed(7)},${radiusArcsec}") # color=${colour[grade]} text={${words.replace(/[{}\r\n]/g, " ")}}`);
  }
  return lines.join("\n") + "\n";
};
