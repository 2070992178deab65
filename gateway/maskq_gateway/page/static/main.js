// Start, key, navigation and keys of the keyboard.

import { ApiError, get, key, post } from "./api.js";
import { Batches } from "./batches.js";
import { Deployment } from "./deployment.js";
import { announce, by, el } from "./dom.js";
import { follow } from "./events.js";
import { STATUS, about, nameOf } from "./format.js";
import { Jobs } from "./jobs.js";
import { List } from "./list.js";
import { Places } from "./places.js";
import * as photos from "./photos.js";
import { Uploads, listen } from "./uploads.js";
import { Viewer } from "./viewer.js";

const TYPING_MS = 250;
const WHOLE_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let isRunning = false;

function ask(reason) {
  by("gate").hidden = false;
  by("app").hidden = true;
  by("key-problem").hidden = !reason;
  by("key-problem").textContent = reason ?? "";
  by("key").focus();
}

const refusal = (error) =>
  error.status === 401
    ? "The gateway refused this key: it is unknown, revoked, expired or not complete."
    : error.message;

async function connect() {
  let limits;
  try {
    limits = await get("v1/limits");
  } catch (error) {
    return ask(refusal(error));
  }
  by("gate").hidden = true;
  by("app").hidden = false;
  by("forget").hidden = false;
  isRunning = true;
  run(limits);
}

function run(limits) {
  const jobs = new Jobs();
  const mine = new Set(); // ids of jobs that were sent from here
  const list = new List(jobs, retry);
  const viewer = new Viewer(jobs, { onRetry: retry, onProblem: problem });
  const deployment = new Deployment();
  new Batches(jobs, (batch) => filter({ batch }));
  const uploads = new Uploads(jobs, limits, (localId, record) => {
    mine.add(record.id);
    if (selected() === localId) location.replace(`#/jobs/${record.id}`);
  });

  const selected = () => /^#\/jobs\/(.+)$/.exec(location.hash)?.[1] ?? "";

  let left = ""; // the job that was closed by a key, whose link gets the focus

  function leave() {
    left = selected();
    location.hash = "#/";
  }

  function route() {
    const id = selected();
    document.body.classList.toggle("has-job", id !== "");
    list.select(id);
    if (id) viewer.open(id);
    else viewer.welcome();
    if (left) list.focus(left);
    left = "";
    const job = jobs.find(id);
    document.title = job ? `${nameOf(job)} · maskq` : "maskq";
  }

  function problem(text) {
    by("list-problem").hidden = !text;
    by("list-problem").textContent = text;
  }

  async function retry(job) {
    if (job.status === "unsent") return uploads.again(job);
    try {
      const record = await post(`v1/jobs/${job.id}/retry`);
      photos.keep(record.id, photos.fileOf(job.id));
      mine.add(record.id);
      jobs.put(record);
      problem("");
      location.hash = `#/jobs/${record.id}`;
    } catch (error) {
      problem(error.message);
    }
  }

  const load = () =>
    jobs.load().then(
      () => problem(""),
      (error) => problem(error.message),
    );

  function filter(changes) {
    Object.assign(jobs.filter, changes);
    load();
  }

  function take(files) {
    if (!files.length) return;
    const first = uploads.add(files);
    if (!selected() || files.length === 1) location.hash = `#/jobs/${first}`;
  }

  function tell(event) {
    jobs.take(event);
    deployment.take(event);
    const { job_id: id, status, error } = event.data;
    if (!mine.has(id) || !about(status).isEnded) return;
    mine.delete(id);
    const name = nameOf(jobs.find(id) ?? { id });
    announce(
      about(status).kind === "good" ? `${name}: the mask is there` : `${name} ${status}: ${error?.message ?? ""}`,
    );
  }

  const events = new AbortController();
  const connection = by("connection");
  follow(events.signal, {
    open: (isGap) => {
      connection.hidden = true;
      if (isGap) load();
    },
    event: tell,
    down: () => {
      connection.hidden = false;
      connection.textContent = "Not connected. Trying again.";
    },
  }).catch((error) => {
    if (error instanceof ApiError) ask(refusal(error));
    else throw error;
  });
  deployment.start(events.signal);
  new Places(jobs, selected).start(events.signal);
  listen(take);
  search(jobs, list, filter);
  by("more").addEventListener("click", () => jobs.more().catch((error) => problem(error.message)));
  addEventListener("hashchange", route);
  // Of the window, so that the stage, which listens at the document, is asked first.
  addEventListener("keydown", (event) => keyboard(event, list, { selected, leave }));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // its fragment would be taken for a place in the page's navigation
    list.focus(selected());
  });
  route();
}

function search(jobs, list, filter) {
  for (const [status, { label, isLocal }] of Object.entries(STATUS))
    if (!isLocal) by("status").append(el("option", { value: status }, label));
  by("status").addEventListener("change", (event) => filter({ status: event.target.value }));
  let timer = null;
  by("search").addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      jobs.filter.text = event.target.value;
      list.update();
      const text = event.target.value.trim().toLowerCase();
      if (WHOLE_ID.test(text) && !jobs.find(text)) jobs.fetch(text).catch(() => {}); // "No such job."
    }, TYPING_MS);
  });
}

function keyboard(event, list, { selected, leave }) {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  const typing = event.target.matches?.("input, select, textarea, [role=slider]");
  if (event.key === "Escape" && selected()) {
    leave();
  } else if (!typing && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    if (event.target.closest?.("#jobs, #view")) return;
    event.preventDefault();
    list.focus(selected());
  } else if (!typing && event.key === "/") {
    event.preventDefault();
    by("search").focus();
  }
}

by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = by("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(text))
    return ask("This is not an API key: keys have letters, digits and underscores.");
  key.set(text);
  by("key").value = "";
  if (isRunning)
    location.reload(); // the former key has ended; nothing that it showed stays
  else connect();
});
by("forget").addEventListener("click", () => {
  key.forget();
  location.reload(); // nothing of what the key showed stays on the page
});

if (key.get()) connect();
else ask();
