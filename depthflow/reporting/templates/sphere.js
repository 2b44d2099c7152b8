(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("view-data").textContent);
  const find = (id) => document.getElementById(id);
  const plot = find("plot"), slider = find("depth"), play = find("play"), card = find("card"), picked = find("chosen");
  // Six, where there are seven colours: together they tell 42 groups apart. Not "x", a glyph that many systems lack.
  const SYMBOLS = ["circle", "square", "diamond", "circle-open", "square-open", "diamond-open"];
  const GLYPHS = ["●", "■", "◆", "○", "□", "◇"];
  const POINTS = 1, PATH = 2, MANY = 2000, TURN = 0.2, BEAT = 800, WHOLE = 32767, ARC = 8;
  const count = data.ids.length, depths = data.depths.length;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function webgl() {
    try {
      const canvas = document.createElement("canvas");
      return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    } catch (error) {
      return false;
    }
  }

  function decoded(text, Kind) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return new Kind(bytes.buffer);
  }

  // plotly.js lies in the page compressed.
  async function load(packed) {
    const stream = new Blob([decoded(packed.textContent, Uint8Array)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    packed.replaceWith(script);
  }

  for (const shown of data.cases) {
    for (const view of shown.views) view.points = decoded(view.points, Int16Array);
    if (shown.basins) shown.basins.of = decoded(shown.basins.of, Uint16Array);
  }
  if (data.classes) data.classes.of = decoded(data.classes.of, Uint16Array);

  const state = { shown: 0, view: 0, color: data.cases[0].basins ? "basin" : data.classes ? "class" : "none", sample: -1 };
  const current = () => data.cases[state.shown].views[state.view];
  const groups = () => (state.color === "basin" ? data.cases[state.shown].basins : state.color === "class" ? data.classes : null);

  function axes(depth) {
    const from = depth * 3 * count, points = current().points;
    return [0, 1, 2].map((axis) => Float32Array.from(points.subarray(from + axis * count, from + (axis + 1) * count), (one) => one / WHOLE));
  }

  // Along the great circles from depth to depth, with a mark at each depth.
  function path(sample) {
    const points = current().points, line = { x: [], y: [], z: [], sizes: [] };
    const at = (depth) => [0, 1, 2].map((axis) => points[(depth * 3 + axis) * count + sample] / WHOLE);
    const add = (point, size) => {
      const length = Math.hypot(...point) || 1;
      ["x", "y", "z"].forEach((axis, index) => line[axis].push(point[index] / length));
      line.sizes.push(size);
    };
    for (let depth = 0; depth < depths; depth++) {
      const from = at(depth), to = at(Math.min(depth + 1, depths - 1));
      add(from, 4);
      for (let step = 1; depth < depths - 1 && step < ARC; step++) add(from.map((one, axis) => one + ((to[axis] - one) * step) / ARC), 0);
    }
    return line;
  }

  function color(index, all) {
    const palette = dark.matches ? data.colors.dark : data.colors.light;
    return all && all.others && index === all.names.length - 1 ? data.colors.other : palette[index % palette.length];
  }

  function marks() {
    const all = groups();
    if (!all) return { color: color(0, null), symbol: "circle" };
    return {
      color: Array.from(all.of, (index) => color(index, all)),
      symbol: Array.from(all.of, (index) => SYMBOLS[index % SYMBOLS.length]),
    };
  }

  function frame() {
    const lines = [[], [], []], steps = 48;
    const add = (point) => point.forEach((value, axis) => lines[axis].push(value));
    for (let ring = -2; ring <= 2; ring++) {
      const height = Math.sin((ring * Math.PI) / 6), across = Math.cos((ring * Math.PI) / 6);
      for (let step = 0; step <= steps; step++) {
        const turn = (2 * Math.PI * step) / steps;
        add([across * Math.cos(turn), across * Math.sin(turn), height]);
      }
      add([null, null, null]);
    }
    for (let ring = 0; ring < 6; ring++) {
      for (let step = 0; step <= steps; step++) {
        const turn = (2 * Math.PI * step) / steps, side = (ring * Math.PI) / 6;
        add([Math.sin(turn) * Math.cos(side), Math.sin(turn) * Math.sin(side), Math.cos(turn)]);
      }
      add([null, null, null]);
    }
    return lines;
  }

  function details(sample) {
    const lines = [`sample number ${data.positions[sample]}`];
    if (data.ids[sample] !== String(data.positions[sample])) lines.push(`named ${data.ids[sample]}`);
    const named = (all) => `${all.noun} ${all.exact ? all.exact[sample] : all.names[all.of[sample]]}`;
    if (data.classes) lines.push(named(data.classes));
    if (data.cases[state.shown].basins) lines.push(named(data.cases[state.shown].basins));
    return lines;
  }

  function fill(box, sample, size) {
    box.replaceChildren();
    if (data.sheet) {
      const thumb = document.createElement("div"), scale = size / data.sheet.side;
      thumb.className = "thumb";
      thumb.style.width = thumb.style.height = `${size}px`;
      thumb.style.backgroundImage = `url(${data.sheet.data})`;
      thumb.style.backgroundSize = `${data.sheet.columns * data.sheet.side * scale}px auto`;
      thumb.style.backgroundPosition = `${-(sample % data.sheet.columns) * size}px ${-Math.floor(sample / data.sheet.columns) * size}px`;
      box.append(thumb);
    }
    const words = document.createElement("div");
    for (const line of details(sample)) {
      const row = document.createElement("div");
      row.className = "clip";
      row.textContent = line;
      words.append(row);
    }
    box.append(words);
    box.hidden = false;
  }

  function say() {
    const depth = Number(slider.value), share = Math.round(100 * current().kept[depth]);
    const text = `depth ${data.depths[depth]} of ${data.depths[depths - 1]}; the three axes hold ${share}% of the squared length`;
    find("depth-said").textContent = text;
    slider.setAttribute("aria-valuetext", `depth ${data.depths[depth]}`);
  }

  function legend() {
    const all = groups(), list = find("legend");
    list.replaceChildren();
    if (!all) return;
    all.names.forEach((name, index) => {
      const item = document.createElement("li"), glyph = document.createElement("span");
      glyph.textContent = `${GLYPHS[index % GLYPHS.length]} `;
      glyph.style.color = color(index, all);
      glyph.setAttribute("aria-hidden", "true");
      const label = index === 0 || !all.others || index < all.names.length - 1 ? `${all.noun} ${name}` : name;
      item.className = "clip";
      item.append(glyph, `${label} (${all.counts[index].toLocaleString("en-GB")})`);
      list.append(item);
    });
  }

  function place() {
    const [x, y, z] = axes(Number(slider.value));
    say();
    return Plotly.restyle(plot, { x: [x], y: [y], z: [z] }, [POINTS]);
  }

  function paint() {
    const { color: colors, symbol } = marks();
    legend();
    return Plotly.restyle(plot, { "marker.color": [colors], "marker.symbol": [symbol] }, [POINTS]);
  }

  function trace() {
    const { x, y, z, sizes } = state.sample < 0 ? { x: [], y: [], z: [], sizes: [] } : path(state.sample);
    const ink = dark.matches ? "#f0f0f0" : "#181818";
    if (state.sample < 0) picked.hidden = true;
    else fill(picked, state.sample, 64);
    return Plotly.restyle(plot, { x: [x], y: [y], z: [z], "line.color": ink, "marker.color": ink, "marker.size": [sizes] }, [PATH]);
  }

  function choose(sample) {
    state.sample = sample;
    find("sample").value = sample < 0 ? "" : data.positions[sample];
    trace();
  }

  // Where not every sample is shown, the nearest that is.
  function nearest(text) {
    const position = Number(text);
    if (text.trim() === "" || !Number.isFinite(position)) return -1;
    return data.positions.reduce((best, one, index) => (Math.abs(one - position) < Math.abs(data.positions[best] - position) ? index : best), 0);
  }

  function radios(name, title, options, chosen, act) {
    if (options.length < 2) return;
    const set = document.createElement("fieldset"), heading = document.createElement("legend");
    heading.textContent = title;
    set.append(heading);
    options.forEach(([value, text]) => {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "radio", name, value, checked: value === chosen });
      input.addEventListener("change", () => act(value));
      label.append(input, text);
      set.append(label);
    });
    find("choices").append(set);
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  function start() {
    if (Number(slider.value) === depths - 1) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    place();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      place();
      if (Number(slider.value) === depths - 1) stop();
    }, BEAT);
  }

  function turn(how) {
    const eye = { ...plot._fullLayout.scene.camera.eye };
    const across = Math.hypot(eye.x, eye.y), length = Math.hypot(across, eye.z);
    let side = Math.atan2(eye.y, eye.x), height = Math.atan2(eye.z, across), far = length;
    if (how === "left") side -= TURN;
    if (how === "right") side += TURN;
    if (how === "up") height = Math.min(height + TURN, 1.5);
    if (how === "down") height = Math.max(height - TURN, -1.5);
    if (how === "in") far *= 0.85;
    if (how === "out") far /= 0.85;
    const next = { x: far * Math.cos(height) * Math.cos(side), y: far * Math.cos(height) * Math.sin(side), z: far * Math.sin(height) };
    Plotly.relayout(plot, { "scene.camera.eye": next });
  }

  function listen() {
    slider.addEventListener("input", () => { stop(); place(); });
    play.addEventListener("click", () => (timer ? stop() : start()));
    find("sample").addEventListener("change", (event) => choose(nearest(event.target.value)));
    for (const button of document.querySelectorAll("[data-turn]")) button.addEventListener("click", () => turn(button.dataset.turn));
    plot.on("plotly_hover", (event) => {
      const point = event.points.find((one) => one.curveNumber === POINTS);
      if (!point) return;
      fill(card, point.pointNumber, 48);
      const stage = find("stage").getBoundingClientRect(), pointer = event.event || { clientX: stage.left, clientY: stage.top };
      const left = Math.min(pointer.clientX - stage.left + 14, stage.width - card.offsetWidth - 4);
      card.style.left = `${Math.max(0, left)}px`;
      card.style.top = `${pointer.clientY - stage.top + 14}px`;
    });
    plot.on("plotly_unhover", () => { card.hidden = true; });
    plot.on("plotly_click", (event) => {
      const point = event.points.find((one) => one.curveNumber === POINTS);
      if (point) choose(point.pointNumber);
    });
    dark.addEventListener("change", () => { paint(); trace(); });
  }

  function controls() {
    radios("shown", "Of", data.cases.map((one, index) => [String(index), one.name]), "0", (value) => {
      state.shown = Number(value);
      place().then(paint).then(trace);
    });
    radios("view", "Tokens", data.cases[0].views.map((one, index) => [String(index), one.kind]), "0", (value) => {
      state.view = Number(value);
      place().then(trace);
    });
    const colors = [["none", "none"]];
    if (data.classes) colors.unshift(["class", "class"]);
    if (data.cases[0].basins) colors.unshift(["basin", "basin"]);
    radios("color", "Colour", colors, state.color, (value) => { state.color = value; paint(); });
  }

  async function begin() {
    if (!webgl()) throw new Error("WebGL is not available.");
    await load(find("plotly"));
    find("stage").hidden = false;
    const [fx, fy, fz] = frame(), [x, y, z] = axes(Number(slider.value));
    const hidden = { visible: false, range: [-1.05, 1.05] };
    const none = { hoverinfo: "skip", showlegend: false, type: "scatter3d" };
    await Plotly.newPlot(
      plot,
      [
        { ...none, x: fx, y: fy, z: fz, mode: "lines", line: { color: "#8a8a8a", width: 1 }, opacity: 0.35 },
        { ...none, x, y, z, mode: "markers", hoverinfo: "none", marker: { size: count > MANY ? 3 : 4, line: { width: 0 }, ...marks() } },
        { ...none, x: [], y: [], z: [], mode: "lines+markers", line: { width: 4 }, marker: { line: { width: 0 } } },
      ],
      {
        margin: { l: 0, r: 0, t: 0, b: 0 },
        paper_bgcolor: "rgba(0,0,0,0)",
        showlegend: false,
        scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "cube", camera: { eye: { x: 0.86, y: 0.86, z: 0.5 } } },
      },
      { displayModeBar: false, responsive: true, scrollZoom: false },
    );
    find("controls").hidden = false;
    find("still").hidden = true;
    controls();
    legend();
    say();
    listen();
  }

  find("no-webgl").hidden = true;
  begin().catch((error) => {
    find("no-webgl").hidden = false;
    find("stage").hidden = true;
    find("controls").hidden = true;
    find("still").hidden = false;
    console.warn(error);
  });
})();
