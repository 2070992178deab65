// The files of a result, to keep.

import { output } from "./api.js";
import { announce, el } from "./dom.js";
import { bytes, nameOf } from "./format.js";

// Buttons, as links could not send the key. button(text, pressed) makes one.
export function downloads(job, button) {
  const stem = nameOf(job).replace(/\.[^.]{1,5}$/, "");
  const file = (text, path) =>
    button(text, async () => {
      const blob = await output(job.id, path);
      save(blob, `${stem}-${path.replace("/", "-")}.${suffix(blob.type)}`);
    });
  // Outputs that were put to a URL of the caller's are not in the gateway's reach.
  const stored = Object.entries(job.result.outputs).filter(([, uri]) => uri.startsWith("s3://"));
  const isFolder = ([, uri]) => uri.endsWith("/"); // one file per class
  const one = ([name, uri]) => file(uri.slice(uri.lastIndexOf("/") + 1), name);
  const perClass = ([name]) =>
    el(
      "details",
      {},
      el("summary", {}, `${name}, one file per class`),
      ...Object.entries(job.result.labels).map(([id, label]) => file(label, `${name}/${id}`)),
    );
  const record = () =>
    save(new Blob([JSON.stringify(job, null, 2)], { type: "application/json" }), `${stem}-record.json`);
  return el(
    "div",
    { class: "downloads", role: "group", "aria-label": "Download" },
    el("h3", {}, "Download"),
    ...stored.filter((each) => !isFolder(each)).map(one),
    button("record.json", record),
    ...stored.filter(isFolder).map(perClass),
  );
}

// image/png → png, application/geo+json → json, application/x-npy → npy
const suffix = (type) => type.replace(/.*[/+-]/, "");

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce(`${name}, ${bytes(blob.size)}`);
}
