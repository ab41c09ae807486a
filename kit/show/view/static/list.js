"use strict";
/* The list of images: searched, filtered and sorted here; a page of cards is built at a time. */
const PER_PAGE = 60, CLOSE = 0.2;  /* CLOSE: the two most probable classes differ by less */
const FILTERS = [["split", "Split"], ["label", "Label"], ["site", "Site"], ["role", "Role"], ["fold", "Fold"], ["status", "Status"]];
const SORTS = [["image_id", "id"], ["loss", "loss"], ["doubt", "uncertainty"], ["tissue", "tissue"], ["tiles", "tiles"]];
const $ = id => document.getElementById(id);
const made = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};
const natural = new Intl.Collator("en", { numeric: true });
let data, order = [], first = 0;

const at = (name, n) => data.columns[name] ? data.columns[name][n] : null;
const odds = n => data.classes.map(name => at(`p_${name}`, n));
const percent = share => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const hasOdds = n => odds(n).every(value => value !== null);
const best = n => odds(n).reduce((most, value, k, all) => value > all[most] ? k : most, 0);
const VERDICTS = {
  wrong: n => hasOdds(n) && data.classes.includes(at("label", n)) && data.classes[best(n)] !== at("label", n),
  right: n => hasOdds(n) && data.classes[best(n)] === at("label", n),
  uncertain: n => {
    const [high, next] = odds(n).slice().sort((a, b) => b - a);
    return hasOdds(n) && high - next < CLOSE;
  },
};

const chooser = (id, title, options) => {
  const field = made("div", "", "field"), label = made("label", title), select = made("select");
  select.id = label.htmlFor = id;
  for (const [value, words] of options) select.append(new Option(words, value));
  field.append(label, select);
  select.addEventListener("change", () => apply(true));
  return field;
};
const build = () => {
  for (const [name, title] of FILTERS) {
    const values = data.columns[name] ? [...new Set(data.columns[name])].sort(natural.compare) : [];
    if (values.length < 2) continue;
    $("filters").append(chooser(`f-${name}`, title, [["\u0000", "all"], ...values.map(value => [value, value || "none"])]));
  }
  if (data.columns.doubt) {
    $("filters").append(chooser("f-verdict", "Prediction", [
      ["", "all"], ["wrong", "wrong"], ["right", "right"], ["uncertain", `uncertain: two within ${percent(CLOSE)}`],
    ]));
  }
  const sorts = [...SORTS, ...data.classes.map(name => [`p_${name}`, `P(${name})`])];
  for (const [name, words] of sorts) if (data.columns[name]) $("sort").append(new Option(words, name));
};

const remembered = () => {
  try { return JSON.parse(sessionStorage.getItem("list") || "{}"); } catch { return {}; }
};
const keep = (name, value) => { try { sessionStorage.setItem(name, JSON.stringify(value)); } catch { /* then it is forgotten */ } };
const choices = () => [$("words"), $("sort"), ...document.querySelectorAll("#filters select")];
const remember = () => {
  const kept = Object.fromEntries(choices().map(field => [field.id, field.value]));
  keep("list", { ...kept, down: $("turn").getAttribute("aria-pressed"), first });
  /* The page of an image goes on to the next one of this order. */
  keep("order", order.map(n => data.columns.key[n]));
};
const restore = () => {
  const kept = remembered();
  for (const field of choices()) {
    if (field.id in kept && (field.tagName === "INPUT" || [...field.options].some(o => o.value === kept[field.id]))) field.value = kept[field.id];
  }
  if (kept.down) $("turn").setAttribute("aria-pressed", kept.down);
  first = kept.first || 0;
};

const apply = (fresh = false) => {
  const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = [...document.querySelectorAll("#filters select")].map(select => [select.id.slice(2), select.value]);
  const fits = n => wanted.every(([name, value]) => name === "verdict"
    ? !value || VERDICTS[value](n) : value === "\u0000" || at(name, n) === value);
  order = [];
  for (let n = 0; n < data.count; n++) if (words.every(word => data.texts[n].includes(word)) && fits(n)) order.push(n);
  const by = $("sort").value, sign = $("turn").getAttribute("aria-pressed") === "true" ? -1 : 1;
  const column = data.columns[by];
  order.sort((a, b) => {
    const x = column[a], y = column[b];
    if (x === null || y === null) return (x === null) - (y === null);  /* what is not known stays last */
    return sign * (x < y ? -1 : Number(x > y));
  });
  if (fresh) first = 0;
  first = Math.max(0, Math.min(first, Math.floor((order.length - 1) / PER_PAGE) * PER_PAGE));
  show();
  remember();
};

const card = n => {
  const item = made("li"), link = made("a"), frame = made("span", "", "frame"), picture = made("img");
  link.href = `image/${data.columns.key[n]}/`;
  picture.src = `${link.getAttribute("href")}small.jpg`;
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.alt = "";
  picture.addEventListener("error", () => frame.replaceChildren("no picture yet"));
  frame.append(picture);
  link.append(frame, made("strong", at("image_id", n)));
  item.append(link);
  const named = (name, words) => at(name, n) ? `${words} ${at(name, n)}` : "";
  const unit = at("unit_id", n) === at("image_id", n) ? "" : named("unit_id", "unit");
  const facts = [at("label", n), unit, named("site", "site"), at("split", n), named("fold", "fold") || at("role", n)];
  item.append(made("p", facts.filter(Boolean).join(" · ")));
  if (hasOdds(n)) {
    const all = odds(n), shown = data.classes.map((name, k) => [all[k], name]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const loss = at("loss", n) === null ? "" : ` · loss ${at("loss", n).toFixed(2)}`;
    item.append(made("p", shown.map(([p, name]) => `${name} ${percent(p)}`).join(", ") + loss, "odds"));
  }
  if (VERDICTS.wrong(n)) item.append(made("p", "wrong", "bad"));
  if (at("status", n) && at("status", n) !== "ok") item.append(made("p", `${at("status", n)}: ${at("reason", n) || ""}`, "bad"));
  return item;
};
const show = () => {
  const last = Math.min(first + PER_PAGE, order.length), number = value => value.toLocaleString("en");
  $("cards").replaceChildren(...order.slice(first, last).map(card));
  const all = order.length === data.count ? `${number(data.count)} images` : `${number(order.length)} of ${number(data.count)} images`;
  $("count").textContent = order.length > PER_PAGE ? `${number(first + 1)} to ${number(last)} of ${all}` : all;
  $("turns").hidden = order.length <= PER_PAGE;
  $("before").disabled = first === 0;
  $("after").disabled = last >= order.length;
};
const turn = step => {
  first += step * PER_PAGE;
  show();
  remember();
  scrollTo(0, 0);
};

const start = async () => {
  const answer = await fetch("list.json");
  if (!answer.ok) throw new Error(`${answer.status}`);
  data = await answer.json();
  const searched = ["image_id", "unit_id", "site", "label", "split", "role", "status", "reason"].filter(name => data.columns[name]);
  data.texts = Array.from({ length: data.count }, (_, n) => searched.map(name => at(name, n) || "").join(" ").toLowerCase());
  build();
  restore();
  $("words").addEventListener("input", () => apply(true));
  $("sort").addEventListener("change", () => {
    /* The worst come first where that is asked for. */
    $("turn").setAttribute("aria-pressed", String(["loss", "doubt"].includes($("sort").value)));
    apply(true);
  });
  $("turn").addEventListener("click", () => {
    $("turn").setAttribute("aria-pressed", String($("turn").getAttribute("aria-pressed") !== "true"));
    apply(true);
  });
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  apply();
};
start().catch(() => { $("count").textContent = "The list could not be loaded: is kit view still running?"; });
