"use strict";
/* One image in deep zoom. It waits for the overview, then opens OpenSeadragon on our tiles, and lays layers over it. */
const WAIT = 400, STEP = 0.25, ZOOM = 1.6;
const $ = id => document.getElementById(id);
const made = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};
const say = words => { if ($("said").textContent !== words) $("said").textContent = words; };
const pause = time => new Promise(done => setTimeout(done, time));
const percent = share => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const kept = name => { try { return JSON.parse(sessionStorage.getItem(name)); } catch { return null; } };
const keep = (name, value) => { try { sessionStorage.setItem(name, JSON.stringify(value)); } catch { /* then it is forgotten */ } };

const fail = (message, hint) => {
  $("said").hidden = $("progress").hidden = true;
  $("reason").textContent = message;
  $("hint").textContent = hint || "";
  $("veil").className = "veil";
  $("trouble").hidden = false;
};
/* Asks until the overview is there; null: it never will be. */
const ready = async () => {
  for (;;) {
    const answer = await fetch("status.json");
    if (answer.status === 503) { await pause(1000); continue; }
    const state = answer.headers.get("Content-Type") === "application/json" ? await answer.json() : { state: "failed", message: await answer.text() };
    if (state.state === "ready") return state;
    if (state.state === "failed") { fail(state.message, state.hint); return null; }
    say(state.seconds < 1 ? "Opening …" : `Reading the slide once, about ${Math.ceil(state.seconds)} s; the overview is kept for the next time.`);
    $("progress").hidden = false;
    $("progress").value = state.share;
    await pause(WAIT);
  }
};

const open = state => OpenSeadragon({
  id: "image",
  tileSources: {
    width: state.width, height: state.height, tileSize: state.side, tileOverlap: 0,
    minLevel: state.bottom, maxLevel: state.top,
    getTileUrl: (level, x, y) => `tile/${level}/${x}_${y}.jpg?${state.version}`,
  },
  keyboardNavEnabled: false,  /* the keys below work wherever the focus is */
  drawer: "canvas", showNavigationControl: false, showNavigator: state.top > state.bottom, navigatorPosition: "TOP_RIGHT",
  navigatorAutoFade: false, navigatorBackground: "var(--raised)", navigatorBorderColor: "var(--muted)", navigatorOpacity: 1, navigatorDisplayRegionColor: "#d55e00", gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  maxZoomPixelRatio: 4, minZoomImageRatio: 0.8, visibilityRatio: 0.5, animationTime: 0.5,
  imageLoaderLimit: 4, maxImageCacheCount: 300, tileRetryMax: 3, tileRetryDelay: 1000, timeout: 30000,
});

const facts = state => {
  const add = (name, value) => {
    const row = made("div");
    row.append(made("dt", name), made("dd", value, "ids"));
    $("facts").append(row);
  };
  const pixels = state.width * state.height;
  add("size", `${state.width.toLocaleString("en")} × ${state.height.toLocaleString("en")} px`);
  if (pixels >= 1e5) add("pixels", pixels >= 1e9 ? `${(pixels / 1e9).toFixed(2)} Gpx` : `${(pixels / 1e6).toFixed(2)} Mpx`);
  add("read by", state.read_by);
  add("resolution", state.mpp ? `${Number(state.mpp.toPrecision(4))} µm a pixel` : "not known");
};

/* A round length of at most so many screen pixels: [length, unit, screen pixels]. */
const rounded = (mpp, scale, most = 160) => {
  const micrometres = most / scale * mpp, power = 10 ** Math.floor(Math.log10(micrometres));
  const length = [5, 2, 1].map(step => step * power).find(step => step <= micrometres);
  return [length >= 1000 ? `${length / 1000} mm` : `${length} µm`, length / mpp * scale];
};
const measure = (overlay, state) => {
  const place = overlay.place;
  if (!place) return;
  const scale = place.scale;
  $("zoom").textContent = scale >= 1 ? `One pixel of the image is ${scale.toFixed(1)} on the screen.` : `One pixel on the screen is ${(1 / scale).toFixed(1)} of the image.`;
  $("image").dataset.scale = scale;
  if (!state.mpp) return;
  const [words, wide] = rounded(state.mpp, scale);
  $("bar").style.width = `${wide}px`;
  $("length").textContent = words;
  $("scale").hidden = false;
};

const loaded = url => new Promise((done, lost) => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = lost;
  image.src = url;
});
const legend = kinds => {
  const box = made("div", "", "legend");
  for (const kind of kinds) {
    const words = made("span"), swatch = made("span", "", "swatch");
    swatch.style.background = kind.colour;
    words.append(swatch, `${kind.kind} ${percent(kind.share)}`);
    box.append(words);
  }
  return box;
};
const ramp = found => {
  const box = made("div", "", "legend"), canvas = made("canvas"), ends = made("span", "", "ends"), most = 2 ** found.span;
  Object.assign(canvas, { width: found.scale.length, height: 1 });
  const context = canvas.getContext("2d");
  found.scale.forEach((colour, n) => { context.fillStyle = colour; context.fillRect(n, 0, 1, 1); });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `From 1/${most} or less of its even share, dark, to ${most} times or more, light`);
  ends.append(made("span", `1/${most}`), made("span", "even share"), made("span", `${most} ×`));
  box.append(canvas, ends);
  return box;
};
const switchOf = (overlay, name, words, layer, below, on, opacity) => {
  const before = kept(`layer ${name}`) || { on, opacity };
  Object.assign(layer, before);
  const row = made("div", "", "switch"), box = made("input"), label = made("label", words), range = made("input");
  box.type = "checkbox";
  box.id = label.htmlFor = `layer-${name}`;
  box.checked = layer.on;
  Object.assign(range, { type: "range", min: 0.1, max: 1, step: 0.05 });
  range.value = layer.opacity;
  range.setAttribute("aria-label", `Opacity of ${words}`);
  const change = () => {
    Object.assign(layer, { on: box.checked, opacity: Number(range.value) });
    keep(`layer ${name}`, { on: layer.on, opacity: layer.opacity });
    overlay.draw();
  };
  box.addEventListener("change", change);
  range.addEventListener("input", change);
  row.append(box, label, range);
  if (below) row.append(below);
  overlay.add(layer);
  $("switches").append(row);
};
const layers = async overlay => {
  const answer = await fetch("layers.json");
  if (!answer.ok) return;
  const found = await answer.json(), sets = { tissue: [], artefacts: [] };
  for (const kind of found.kinds) (kind.kind === "tissue" ? sets.tissue : sets.artefacts).push(kind);
  for (const [name, kinds] of Object.entries(sets)) {
    if (!kinds.length) continue;
    try {
      switchOf(overlay, name, name, { paint: painters.picture(await loaded(`${name}.png`)) }, legend(kinds), false, 0.45);
    } catch { found.trouble.push(`the picture of ${name} could not be loaded`); }
  }
  found.attention.forEach((one, n) => {
    switchOf(overlay, `attention-${one.model}`, `attention: ${one.model}`, { paint: painters.attention(found.tiles, one.times, found.scale, found.span) }, n ? null : ramp(found), false, 0.6);
  });
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  if (found.sections.length) switchOf(overlay, "sections", count(found.sections.length, "section"), { paint: painters.sections(found.sections) }, null, true, 1);
  if (found.tiles.length) switchOf(overlay, "tiles", count(found.tiles.length, "chosen tile"), { paint: painters.tiles(found.tiles) }, null, true, 1);
  for (const words of found.trouble) $("switches").append(made("p", words, "bad ids"));
  $("layers").hidden = !$("switches").childElementCount;
  overlay.draw();
};

const links = () => {
  const order = kept("order") || [], here = location.pathname.split("/").at(-2), at = order.indexOf(here);
  if (at < 0) return;
  for (const [id, key] of [["previous", order[at - 1]], ["next", order[at + 1]]]) {
    if (key) $(id).setAttribute("href", `../${key}/`); else $(id).removeAttribute("href");
  }
};
const moves = viewer => {
  const by = (x, y) => viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x * viewer.canvas.clientWidth, y * viewer.canvas.clientHeight)));
  const zoom = factor => viewer.viewport.zoomBy(factor);
  const all = {
    in: () => zoom(ZOOM), out: () => zoom(1 / ZOOM), home: () => viewer.viewport.goHome(),
    left: () => by(-STEP, 0), right: () => by(STEP, 0), up: () => by(0, -STEP), down: () => by(0, STEP),
  };
  return name => { all[name](); viewer.viewport.applyConstraints(); };
};
const KEYS = { "+": "in", "=": "in", "-": "out", "_": "out", 0: "home", ArrowLeft: "left", a: "left", ArrowRight: "right", d: "right", ArrowUp: "up", w: "up", ArrowDown: "down", s: "down" };
const keyboard = move => {
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typed = event.target.matches("input, select, textarea, summary"), key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (typed && !/^[np1-9]$/.test(key)) return;
    if (key === "n" || key === "p") $(key === "n" ? "next" : "previous").click();
    else if (/^[1-9]$/.test(key)) document.querySelectorAll("#switches input[type=checkbox]")[Number(key) - 1]?.click();
    else if (move && key in KEYS) { event.preventDefault(); move(KEYS[key]); }
  });
};

const start = async () => {
  links();
  $("again").addEventListener("click", () => location.reload());
  const state = await ready();
  if (!state) { keyboard(null); return; }
  facts(state);
  $("progress").hidden = true;
  $("veil").className = "veil clear";
  say("");
  const viewer = open(state), overlay = new Overlay(viewer, state.width, state.height), move = moves(viewer);
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", `${document.body.dataset.id}: arrows move, plus and minus zoom, 0 shows all of it`);
  viewer.addHandler("update-viewport", () => measure(overlay, state));
  viewer.addHandler("tile-load-failed", () => say("Some parts could not be read; the console of kit view says more."));
  viewer.addHandler("open-failed", () => fail("The image could not be opened.", "Is kit view still running?"));
  document.querySelectorAll("[data-do]").forEach(button => button.addEventListener("click", () => move(button.dataset.do)));
  keyboard(move);
  window.view = { viewer, overlay };
  await layers(overlay);
};
start().catch(() => fail("The viewer does not answer.", "Is kit view still running? Start it again, and use the address that it prints."));
