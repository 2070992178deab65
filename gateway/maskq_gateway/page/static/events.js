// The event stream, read by fetch: an EventSource can send no key. It reconnects where it left off.

import { ApiError, call } from "./api.js";

const SHORTEST_S = 1;
const LONGEST_S = 20;
const SILENCE_S = 45; // the gateway sends something every 15 s

// Follow all events until `signal`. on.open(isGap): connected, with whether events may have been
// missed; on.event(event); on.down(error): disconnected, tried again by itself.
export async function follow(signal, on) {
  let cursor = null;
  let wait = SHORTEST_S;
  while (!signal.aborted) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    signal.addEventListener("abort", stop);
    try {
      const headers = cursor ? { "Last-Event-ID": cursor } : {};
      const answer = await call("v1/events", { headers, signal: connection.signal });
      const isGap = cursor === null;
      for await (const part of parts(answer.body, connection)) {
        if (part.opened) {
          wait = SHORTEST_S;
          on.open(isGap);
        }
        if (part.id) cursor = part.id;
        if (part.type === "maskq.events.lost") {
          cursor = null;
          break;
        }
        if (part.data) on.event(JSON.parse(part.data));
      }
      on.down(null);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) throw error;
      if (error instanceof ApiError && error.status === 410) cursor = null;
      on.down(error);
    } finally {
      connection.abort();
      signal.removeEventListener("abort", stop);
    }
    await new Promise((done) => setTimeout(done, wait * 1000 * (0.75 + Math.random() / 2)));
    wait = Math.min(2 * wait, LONGEST_S);
  }
}

// Blocks of the stream as {id, type, data}; the first also says `opened`.
async function* parts(body, connection) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let opened = true;
  for (;;) {
    const timer = setTimeout(() => connection.abort(), SILENCE_S * 1000);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      yield { ...parsed(block), opened };
      opened = false;
    }
  }
}

function parsed(block) {
  const found = { id: "", type: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const [name, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (name === "id") found.id = value;
    if (name === "event") found.type = value;
    if (name === "data") found.data += value;
  }
  return found;
}
