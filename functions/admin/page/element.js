// Owns making elements and keeping lists of them. What is shown goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Somebody's text: of either direction, and never mixed into what stands beside it.
export const foreign = (text, attributes = {}) => h("bdi", attributes, text);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const shown = new WeakMap();

// Shows one element for each item. Those whose item is the same stay as they are: focus, selection and animations, too.
export function keep(container, items, keyOf, make) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const known = new Map([...container.children].map((child) => [child.dataset.item, child]));
  const wanted = items.map((item) => {
    const [key, text] = [String(keyOf(item)), JSON.stringify(item)];
    const old = known.get(key);
    if (old && shown.get(old) === text) return old;
    const element = make(item);
    element.dataset.item = key;
    shown.set(element, text);
    return element;
  });
  const staying = new Set(wanted);
  for (const child of [...container.children]) if (!staying.has(child)) child.remove();
  wanted.forEach((element, place) => {
    if (container.children[place] !== element) container.insertBefore(element, container.children[place] ?? null);
  });
  if (focused && !container.contains(document.activeElement)) {
    const find = (key) => container.querySelector(`[data-key="${CSS.escape(key)}"]`);
    // What could be done to it may be over; the thing itself is still there.
    (find(focused) ?? find(focused.replace(/^\w+/, "open")))?.focus();
  }
}

// An empty list says so in a row of its own.
export const none = (text) => h("li", { class: "empty" }, text);

export function rows(container, items, keyOf, make, whenNone) {
  if (items.length > 0) return keep(container, items, keyOf, make);
  return keep(container, [whenNone], () => "none", none);
}
