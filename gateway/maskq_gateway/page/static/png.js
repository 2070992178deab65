// PNGs of class ids, decoded to the ids themselves: a canvas would give colours, and two classes can
// share one. Palette and gray, 1 to 16 bits, not interlaced: what workers write.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const [GRAY, PALETTE] = [0, 3];
const MOST_PIXELS = 2 ** 28;

// bytes: a Uint8Array. Gives {width, height, ids (Uint8Array or Uint16Array), palette (RGB) or null}.
// Raises Error for what is damaged or of another kind.
export async function decode(bytes) {
  const { header, palette, parts } = chunks(bytes);
  const { width, height, depth } = header;
  const channels = Math.ceil((width * depth) / 8); // bytes of a row
  const rows = await inflated(parts, height * (channels + 1));
  unfilter(rows, channels, height, Math.max(1, depth >> 3));
  return { width, height, ids: ids(rows, channels, header), palette };
}

function chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!SIGNATURE.every((value, at) => bytes[at] === value)) throw new Error("the file is not a PNG");
  let [header, palette, ended] = [null, null, false];
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length) break;
    if (type === "IHDR") header = read(view, at + 8);
    if (type === "PLTE") palette = body.slice();
    if (type === "IDAT") parts.push(body);
    if (type === "IEND") {
      ended = true;
      break;
    }
    at += length + 12;
  }
  if (!header || !ended) throw new Error("the PNG is truncated");
  if (header.colour !== PALETTE) palette = null;
  return { header, palette, parts };
}

function read(view, at) {
  const [width, height] = [view.getUint32(at), view.getUint32(at + 4)];
  const [depth, colour, , , interlaced] = [8, 9, 10, 11, 12].map((far) => view.getUint8(at + far));
  const depths = { [GRAY]: [1, 2, 4, 8, 16], [PALETTE]: [1, 2, 4, 8] }[colour] ?? [];
  if (!depths.includes(depth) || interlaced)
    throw new Error(`a PNG of colour type ${colour}, ${depth} bits is not a mask`);
  if (!width || !height || width * height > MOST_PIXELS)
    throw new Error(`${width} × ${height} pixels cannot be shown`);
  return { width, height, depth, colour };
}

async function inflated(parts, size) {
  const source = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = source.getReader();
  const rows = new Uint8Array(size);
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > size) throw new Error("the PNG has more rows than it says");
    rows.set(value, filled);
    filled += value.length;
  }
  if (filled < size) throw new Error("the PNG has fewer rows than it says");
  return rows;
}

// In place. step: bytes from a pixel to the one left of it. https://www.w3.org/TR/png-3/#9Filters
function unfilter(rows, length, height, step) {
  for (let y = 0; y < height; y++) {
    const begin = y * (length + 1) + 1;
    const kind = rows[begin - 1];
    if (kind === 0) continue;
    if (kind > 4) throw new Error(`the PNG has an unknown filter, ${kind}`);
    const above = begin - (length + 1);
    for (let x = 0; x < length; x++) {
      const a = x >= step ? rows[begin + x - step] : 0;
      const b = y ? rows[above + x] : 0;
      if (kind === 1) rows[begin + x] += a;
      else if (kind === 2) rows[begin + x] += b;
      else if (kind === 3) rows[begin + x] += (a + b) >> 1;
      else rows[begin + x] += paeth(a, b, y && x >= step ? rows[above + x - step] : 0);
    }
  }
}

function paeth(a, b, c) {
  const pa = Math.abs(b - c);
  const pb = Math.abs(a - c);
  const pc = Math.abs(a + b - 2 * c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

function ids(rows, length, { width, height, depth }) {
  const found = depth === 16 ? new Uint16Array(width * height) : new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const begin = y * (length + 1) + 1;
    const to = y * width;
    if (depth === 8) found.set(rows.subarray(begin, begin + width), to);
    else if (depth === 16)
      for (let x = 0; x < width; x++) found[to + x] = (rows[begin + 2 * x] << 8) | rows[begin + 2 * x + 1];
    else {
      const [per, most] = [8 / depth, 2 ** depth - 1];
      for (let x = 0; x < width; x++)
        found[to + x] = (rows[begin + Math.floor(x / per)] >> (8 - depth * ((x % per) + 1))) & most;
    }
  }
  return found;
}
