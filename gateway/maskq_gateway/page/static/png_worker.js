// Decodes PNGs beside the page, which stays responsive: 24 megapixels take a while.

import { decode } from "./png.js";

onmessage = async ({ data: { number, bytes } }) => {
  try {
    const found = await decode(new Uint8Array(bytes));
    const counts = new Uint32Array(found.ids instanceof Uint16Array ? 65536 : 256);
    for (let i = 0; i < found.ids.length; i++) counts[found.ids[i]]++;
    const answer = { number, ...found, counts };
    postMessage(answer, [found.ids.buffer, counts.buffer]);
  } catch (error) {
    postMessage({ number, error: error.message });
  }
};
