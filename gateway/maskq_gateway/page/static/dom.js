// Elements, made and found.

export const by = (id) => document.getElementById(id);

// An element with attributes and children; text is text. `on` holds listeners, null children are left out.
export function el(tag, { on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "hidden" || name === "disabled") made[name] = true;
    else made.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// A copy of the first element of a <template>.
export const copy = (id) => by(id).content.firstElementChild.cloneNode(true);

// Let a screen reader say it.
export function announce(text) {
  by("announcer").textContent = text;
}
