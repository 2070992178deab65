// Numbers, times and statuses as people read them.

import { el } from "./dom.js";

export function duration(ms) {
  if (ms === null || ms === undefined || !(ms >= 0)) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// Today: the time; before: the day, too.
export function moment(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

export const timestamp = (ms) => WHOLE.format(new Date(ms));

export const percent = (share) => (share < 0.0005 ? "<0.1 %" : `${(share * 100).toFixed(1)} %`);

export function bytes(count) {
  if (count < 1e3) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(0)} kB`;
  return `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB`;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

// Every status of a job (contract/statuses.py), and those of images that are being sent from here.
//   kind: its look in page.css: waiting, active, good, bad or neutral
//   text: what the job's view says while there is no result
//   isEnded: the job never changes; wasRun: a worker ran it to this end
//   retry: what the button says that submits the image again
export const STATUS = {
  uploading: { label: "Sending", kind: "active", text: "Sending the image", isLocal: true },
  unsent: { label: "Not sent", kind: "bad", text: "The image was not sent", isLocal: true, retry: "Send again" },
  queued: { label: "Queued", kind: "waiting", text: "Waiting for a worker", mayCancel: true },
  running: { label: "Running", kind: "active", text: "A worker computes the mask", mayCancel: true },
  succeeded: { label: "Succeeded", kind: "good", text: "The job has no result", isEnded: true, wasRun: true },
  failed: { label: "Failed", kind: "bad", text: "The job failed", isEnded: true, wasRun: true, retry: "Retry" },
  canceled: { label: "Canceled", kind: "neutral", text: "The job was canceled", isEnded: true, retry: "Retry" },
  expired: { label: "Expired", kind: "bad", text: "The job expired", isEnded: true, retry: "Retry" },
};

// What the page knows about a status; little if only a newer gateway has it.
export const about = (status) =>
  STATUS[status] ?? { label: status, kind: "neutral", text: `The job is ${status}` };

// Where a queued job stands: "2 jobs before it · starts in 4 to 9 s"; "" where that is not known.
export function place({ status, position, eta_s: eta }) {
  if (status !== "queued" || position === null || position === undefined) return "";
  const before = position === 0 ? "next in the queue" : `${plural(position, "job")} before it`;
  return eta ? `${before} · starts ${between(...eta)}` : before;
}

function between(low, high) {
  const [from, to] = [low, high].map((seconds) => Math.max(1, Math.round(seconds)));
  if (to < 2) return "within a second";
  if (to < 120) return from === to ? `in about ${to} s` : `in ${from} to ${to} s`;
  const [first, last] = [from, to].map((seconds) => Math.max(1, Math.round(seconds / 60)));
  return first === last ? `in about ${last} min` : `in ${first} to ${last} min`;
}

// A status as it is shown everywhere.
export const badge = (status) =>
  el("span", { class: "status", "data-kind": about(status).kind }, about(status).label);

// A job's image, as its file was called.
export function nameOf(job) {
  if (job.file) return job.file;
  const given = job.request?.metadata?.filename;
  if (given) return given;
  const source = job.source ?? job.request?.image_uri ?? "";
  if (source && !source.includes("://")) return source.split("/").pop(); // as the caller named it
  const last = source.split("?")[0].replace(/\/+$/, "").split("/").pop();
  return !last || last === "input" ? `Uploaded image ${job.id.slice(-4)}` : decoded(last);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
