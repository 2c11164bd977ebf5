"use strict";
// Draws what /events sends. Text comes in by textContent only: names are not trusted.
(() => {
  const VALUES = 60;
  const LINES = 200;
  const STALE_MS = 2000;
  const WORDS = { good: "OK", warn: "WARN", bad: "FAIL" };
  const SVG = "http://www.w3.org/2000/svg";

  const byId = (id) => document.getElementById(id);
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const setAttributes = (node, attributes) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const html = (name, attributes = {}, ...children) => {
    const node = setAttributes(document.createElement(name), attributes);
    node.append(...children);
    return node;
  };
  const svg = (name, attributes = {}, ...children) => {
    const node = setAttributes(document.createElementNS(SVG, name), attributes);
    node.append(...children);
    return node;
  };

  const format = (value) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e9) return (value / 1e9).toPrecision(3) + "G";
    if (size >= 1e6) return (value / 1e6).toPrecision(3) + "M";
    if (size >= 1e4) return (value / 1e3).toPrecision(3) + "k";
    if (Number.isInteger(value) || size >= 100) return String(Math.round(value));
    return size >= 10 ? value.toFixed(1) : value.toFixed(2);
  };
  const withUnit = (value, unit) => {
    if (!unit) return format(value);
    return format(value) + (/^[a-z]/i.test(unit) ? " " : "") + unit;
  };
  const lasting = (seconds) => {
    if (seconds < 60) return Math.floor(seconds) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    return Math.floor(seconds / 3600) + " h";
  };

  // Tiles.
  const kinds = new Map();
  const tiles = new Map();

  const kindOf = (kind) => {
    let section = kinds.get(kind);
    if (section) return section;
    const count = html("span");
    const grid = html("div", { class: "grid" });
    const root = html("section", { class: "kind" }, html("h2", {}, kind, count), grid);
    byId("tiles").append(root);
    section = { root, grid, count };
    kinds.set(kind, section);
    return section;
  };

  const newTile = (tile) => {
    const parts = {
      badge: html("span", { class: "badge" }),
      state: html("p", { class: "state" }),
      now: html("b"),
      of: html("span"),
      area: svg("polygon"),
      line: svg("polyline"),
      fill: svg("rect", { class: "fill", height: 8, rx: 4 }),
      numbers: html("dl"),
      stripTitle: html("p", { class: "strip-title" }),
      strip: html("ul", { class: "strip" }),
      heatTitle: html("p", { class: "strip-title" }),
      heat: svg("svg", { class: "heat", role: "img", preserveAspectRatio: "none" }),
      rows: html("ol", { class: "rows", "aria-hidden": "true" }),
      dot: svg("circle", { cx: 12, cy: 12 }),
      values: [],
    };
    const box = { class: "spark", viewBox: "0 0 59 24", preserveAspectRatio: "none" };
    const spark = svg("svg", { ...box, "aria-hidden": "true" }, parts.area, parts.line);
    parts.share = svg("svg", { class: "share", viewBox: "0 0 24 24", role: "img" }, parts.dot);
    parts.draw = html("div", { class: "draw" }, parts.share,
      html("div", { class: "now" }, parts.now, parts.of), spark);
    const track = svg("rect", { class: "track", width: "100%", height: 8, rx: 4 });
    parts.gauge = svg("svg", { class: "gauge", role: "img" }, track, parts.fill);
    parts.stripBox = html("div", {}, parts.stripTitle, parts.strip);
    parts.heatBox = html("div", { class: "heats" }, parts.heatTitle,
      html("div", { class: "heat-box" }, parts.rows, parts.heat));
    const head = html("div", { class: "tile-head" }, html("h3", {}, tile.name), parts.badge);
    parts.root = html("article", { class: "tile" }, html("div", {}, head, parts.state),
      parts.draw, parts.gauge, parts.heatBox, parts.stripBox, parts.numbers);
    return parts;
  };

  const drawSpark = (parts, tile) => {
    parts.values.push(Number.isFinite(tile.spark) ? tile.spark : 0);
    if (parts.values.length > VALUES) parts.values.shift();
    const most = Math.max(...parts.values, 1e-9);
    const start = VALUES - parts.values.length;
    const least = Math.min(...parts.values, 0);
    const height = (value) => (23 - 22 * (value - least) / (most - least)).toFixed(2);
    const points = parts.values.map((value, index) => `${start + index},${height(value)}`);
    parts.line.setAttribute("points", points.join(" "));
    parts.area.setAttribute("points", `${start},24 ${points.join(" ")} ${VALUES - 1},24`);
  };

  const drawNumbers = (list, numbers) => {
    while (list.children.length > numbers.length) list.lastChild.remove();
    numbers.forEach(([label, value, unit], index) => {
      let pair = list.children[index];
      if (!pair) list.append(pair = html("div", {}, html("dt"), html("dd")));
      setText(pair.firstChild, label);
      setText(pair.lastChild, withUnit(value, unit));
    });
  };

  const drawStrip = (list, cells) => {
    while (list.children.length > cells.length) list.lastChild.remove();
    const most = Math.max(...cells.map(([, weight]) => weight || 0), 1e-9);
    const said = cells.map(([label, weight]) => `${label}: ${format(weight)}`).join(", ");
    setAttributes(list, { role: "img", "aria-label": said });
    cells.forEach(([label, weight], index) => {
      let cell = list.children[index];
      if (!cell) {
        const rect = svg("rect", { width: "100%", height: "100%" });
        list.append(cell = html("li", {}, svg("svg", { "aria-hidden": "true" }, rect), html("span")));
      }
      const share = Math.max(0, weight || 0) / most;
      cell.querySelector("rect").setAttribute("fill-opacity", (0.14 + 0.86 * share).toFixed(3));
      setText(cell.lastChild, label);
      const title = `${label}: ${format(weight)}`;
      if (cell.title !== title) cell.title = title;
    });
  };

  // Rows of cells over time; the first row is the lowest, as on a chart.
  const drawHeat = (parts, tile) => {
    parts.heatBox.hidden = tile.heat.length === 0;
    parts.root.classList.toggle("wide", !parts.heatBox.hidden);
    if (parts.heatBox.hidden) return;
    setText(parts.heatTitle, tile.heat_of);
    const columns = Math.max(...tile.heat.map(([, cells]) => cells.length), 1);
    const most = Math.max(...tile.heat.flatMap(([, cells]) => cells), 1e-9);
    const latest = tile.heat.map(([label, cells]) => `${label}: ${format(cells.at(-1))}`);
    setAttributes(parts.heat, { viewBox: `0 0 ${columns} ${tile.heat.length}`,
      "aria-label": `${tile.heat_of}; latest ${latest.join(", ")}` });
    const rects = [];
    const labels = [];
    tile.heat.forEach(([label, cells], row) => {
      const y = tile.heat.length - 1 - row;
      labels.unshift(html("li", {}, label));
      cells.forEach((weight, at) => {
        if (!(weight > 0)) return;
        // A single slow call among thousands is to be seen as well.
        const opacity = 0.15 + 0.85 * Math.sqrt(weight / most);
        rects.push(svg("rect", { x: at + columns - cells.length, y: y + 0.06, width: 0.9,
          height: 0.88, "fill-opacity": opacity.toFixed(3) }));
      });
    });
    parts.heat.replaceChildren(...rects);
    parts.rows.replaceChildren(...labels);
  };

  const drawShare = (parts, share) => {
    parts.share.toggleAttribute("hidden", share === null);
    if (share === null) return;
    const part = Math.min(1, Math.max(0, share));
    const said = `${Math.round(100 * part)} % of the traffic`;
    parts.dot.setAttribute("r", (1.2 + 10.6 * Math.sqrt(part)).toFixed(2));
    parts.share.setAttribute("aria-label", said);
    parts.draw.title = said;
  };

  const drawTile = (parts, tile) => {
    parts.root.dataset.health = tile.health;
    parts.badge.dataset.health = tile.health;
    setText(parts.badge, WORDS[tile.health] || tile.health);
    setText(parts.state, tile.state);
    parts.state.hidden = !tile.state;
    parts.draw.hidden = !tile.spark_of;
    setText(parts.now, format(tile.spark));
    setText(parts.of, tile.spark_of);
    drawSpark(parts, tile);
    const full = Math.min(1, Math.max(0, tile.gauge || 0));
    parts.gauge.toggleAttribute("hidden", tile.gauge === null);
    parts.fill.setAttribute("width", `${(100 * full).toFixed(1)}%`);
    parts.gauge.setAttribute("aria-label", `${Math.round(100 * full)} % full`);
    parts.stripBox.hidden = tile.strip.length === 0;
    setText(parts.stripTitle, tile.strip_of);
    drawStrip(parts.strip, tile.strip);
    drawHeat(parts, tile);
    drawShare(parts, tile.share);
    drawNumbers(parts.numbers, tile.numbers);
    parts.numbers.hidden = tile.numbers.length === 0;
  };

  const drawTiles = (all) => {
    const seen = new Set();
    const counts = new Map();
    for (const tile of all) {
      const key = JSON.stringify([tile.kind, tile.name]);
      if (seen.has(key)) continue;
      seen.add(key);
      const { grid } = kindOf(tile.kind);
      if (!tiles.has(key)) tiles.set(key, newTile(tile));
      const parts = tiles.get(key);
      const place = counts.get(tile.kind) || 0;
      counts.set(tile.kind, place + 1);
      if (grid.children[place] !== parts.root) {
        grid.insertBefore(parts.root, grid.children[place] || null);
      }
      drawTile(parts, tile);
    }
    for (const [key, parts] of tiles) {
      if (!seen.has(key)) { parts.root.remove(); tiles.delete(key); }
    }
    for (const [kind, section] of kinds) {
      const count = counts.get(kind);
      section.root.classList.toggle("single", count === 1);
      if (count) setText(section.count, count === 1 ? "" : String(count));
      else { section.root.remove(); kinds.delete(kind); }
    }
    byId("no-tiles").hidden = seen.size > 0;
    const of = (health) => all.filter((tile) => tile.health === health).length;
    const words = [[of("good"), "OK"], [of("warn"), "to watch"], [of("bad"), "failing"]];
    const said = words.filter(([count]) => count > 0).map(([count, word]) => `${count} ${word}`);
    setText(byId("summary"), said.join(" · "));
  };

  // The cluster.
  const drawMap = (map) => {
    byId("map").hidden = !map || map.nodes.length === 0;
    byId("to-map").hidden = byId("map").hidden;
    if (byId("map").hidden) return;
    const places = new Map();
    map.nodes.forEach((node, index) => {
      const angle = 2 * Math.PI * index / map.nodes.length - Math.PI / 2;
      places.set(node.name, [180 + 112 * Math.cos(angle), 98 + 66 * Math.sin(angle)]);
    });
    const drawn = [];
    const broken = [];
    for (const { from, to, health } of map.links) {
      if (!places.has(from) || !places.has(to)) continue;
      const [[x1, y1], [x2, y2]] = [places.get(from), places.get(to)];
      const length = Math.hypot(x2 - x1, y2 - y1) || 1;
      // Each direction is bent to its own side, and begins and ends beside the nodes.
      const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
      const bend = [(x1 + x2) / 2 - 14 * uy, (y1 + y2) / 2 + 14 * ux];
      const d = `M${x1 + 18 * ux},${y1 + 18 * uy} Q${bend} ${x2 - 18 * ux},${y2 - 18 * uy}`;
      drawn.push(svg("path", { d, "data-health": health }));
      if (health === "bad") broken.push(`${from} does not reach ${to}`);
    }
    for (const { name, health } of map.nodes) {
      const [cx, cy] = places.get(name);
      const below = cy > 98 ? cy + 28 : cy - 20;
      drawn.push(svg("circle", { cx, cy, r: 13, "data-health": health }),
        svg("text", { x: cx, y: below }, name));
    }
    byId("ways").replaceChildren(...drawn);
    const said = broken.length ? broken.join(", ") : "all that is known to be there is reached";
    byId("ways").setAttribute("aria-label", said);
    byId("nodes").replaceChildren(...map.nodes.map(({ name, state, health, phi }) => {
      const badge = html("span", { class: "badge", "data-health": health }, WORDS[health] || health);
      // Beyond that, it says no more.
      const said = phi > 300 ? "phi > 300" : Number.isFinite(phi) ? `phi ${format(phi)}` : "";
      return html("li", {}, badge, html("b", {}, name), html("span", {}, state), html("span", {}, said));
    }), ...broken.map((text) => html("li", { class: "broken" }, text)));
  };

  // Events.
  const drawEvents = (state) => {
    const list = byId("events");
    // What was before is not read out.
    list.setAttribute("aria-live", state.is_first ? "off" : "polite");
    if (state.is_first) list.replaceChildren();
    for (const { at, text } of state.events) {
      const when = new Date(Date.now() - (state.now - at) * 1000);
      const clock = when.toLocaleTimeString([], { hourCycle: "h23" });
      const time = html("time", { datetime: when.toISOString() }, clock);
      list.prepend(html("li", {}, time, html("span", {}, text)));
    }
    while (list.children.length > LINES) list.lastChild.remove();
    byId("no-events").hidden = list.children.length > 0;
    list.hidden = list.children.length === 0;
  };

  // The fault console.
  const rules = new Map();

  const say = (error) => {
    byId("error").hidden = !error;
    byId("error").textContent = error;
  };

  const send = async (path, body) => {
    const headers = { "content-type": "application/json" };
    if (byId("token").value) headers.authorization = `Bearer ${byId("token").value}`;
    try {
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
      say(answer.ok ? "" : (await answer.text()) || `refused: ${answer.status}`);
      return answer.ok;
    } catch (error) {
      say(`not sent: ${error.message}`);
      return false;
    }
  };

  const newRule = (id) => {
    const rule = { text: html("span", { class: "rules-text" }), counts: html("span", { class: "counts" }) };
    const remove = html("button", { type: "button", "aria-label": `Remove ${id}` }, "Remove");
    remove.addEventListener("click", async () => {
      remove.disabled = true;
      if (await send("/api/faults/remove", { id })) byId("rule").focus();
      remove.disabled = false;
    });
    const what = html("div", { class: "what" }, html("b", {}, id), rule.text, rule.counts);
    rule.root = html("li", {}, what, remove);
    return rule;
  };

  const drawFaults = (state) => {
    byId("console").hidden = !state.faults;
    byId("to-console").hidden = !state.faults;
    byId("token-field").hidden = !state.needs_token;
    if (!state.faults) return;
    setText(byId("hint"), state.faults.hint);
    const { mode } = state.faults;
    byId("switch").hidden = mode === null;
    if (mode !== null && document.activeElement !== byId("mode")) byId("mode").value = mode;
    const seen = new Set();
    for (const listed of state.faults.rules) {
      seen.add(listed.id);
      if (!rules.has(listed.id)) {
        rules.set(listed.id, newRule(listed.id));
        byId("rules").append(rules.get(listed.id).root);
      }
      const rule = rules.get(listed.id);
      setText(rule.text, listed.rule);
      setText(rule.counts, `${format(listed.injected)} injected of ${format(listed.matched)} matched, set ${lasting(listed.age)} ago`);
    }
    for (const [id, rule] of rules) {
      if (!seen.has(id)) { rule.root.remove(); rules.delete(id); }
    }
    byId("no-rules").hidden = seen.size > 0;
    byId("rules").hidden = seen.size === 0;
    byId("clear").disabled = seen.size === 0;
  };

  byId("set").addEventListener("submit", async (event) => {
    event.preventDefault();
    const set = { id: byId("id").value, rule: byId("rule").value };
    if (await send("/api/faults", set)) byId("rule").value = "";
    byId("rule").focus();
  });
  byId("clear").addEventListener("click", () => send("/api/faults/clear", {}));
  byId("mode").addEventListener("change", () => {
    send("/api/faults/switch", { mode: byId("mode").value }).then(() => byId("mode").blur());
  });

  // The connection.
  let last = 0;
  let isOpen = false;
  const showConnection = () => {
    const isLive = isOpen && performance.now() - last < STALE_MS;
    const word = isLive ? "live" : isOpen ? "no data" : last ? "disconnected, trying again" : "connecting";
    setText(byId("connection"), word);
    byId("connection").dataset.health = isLive ? "good" : isOpen || !last ? "warn" : "bad";
  };
  const connect = () => {
    const source = new EventSource("/events");
    source.addEventListener("open", () => { isOpen = true; showConnection(); });
    source.addEventListener("message", (message) => {
      const state = JSON.parse(message.data);
      isOpen = true;
      last = performance.now();
      drawTiles(state.tiles);
      drawMap(state.map);
      drawEvents(state);
      drawFaults(state);
      showConnection();
    });
    source.addEventListener("error", () => {
      isOpen = false;
      showConnection();
      // The browser tries again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    });
  };
  setInterval(showConnection, 1000);
  connect();
})();
